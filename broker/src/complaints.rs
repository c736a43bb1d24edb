//! Complaints on their way to the controller (R8): gathered from all shards, sent to the elected gateway.
//!
//! A thread with plain blocking sockets, because it is idle nearly always and must not cost the shards anything.
//! Complaints are hints: they wait while no gateway can be reached, in a bounded number and for [`COMPLAINT_KEPT_MS`], and
//! the newest about the same member of the same range takes the place of earlier ones. Absent: any judgement.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use minikafka_core::chain::peer::Complaint;
use minikafka_core::limits::{
    BACKGROUND_RETRY_MS_MAX, BACKGROUND_RETRY_MS_MIN, COMPLAIN_WAIT_MS, COMPLAINT_KEPT_MS, COMPLAINTS_MAX,
    COMPLAINTS_WAITING_MAX,
};
use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::{
    Api, ComplainRequest, ErrorReply, FRAME_HEADER_BYTES, FrameHeader, Hello, HelloReply, PROTOCOL_MAX, PROTOCOL_MIN,
    Proof, Prover, Role, Wire, check_proof, encode_frame, prove,
};
use minikafka_core::{ClusterId, ErrorCode, NodeId, RangeKey};

use crate::directory::Directory;

/// What a gateway may answer.
const ANSWER_LIMITS: FrameLimits = FrameLimits { head_bytes_max: 4 << 10, bulk_bytes_max: 0 };

/// The first complaint waits so long for others.
const GATHERING: Duration = Duration::from_millis(1);

/// Where a shard leaves its complaints.
#[derive(Clone)]
pub(crate) struct ComplaintBox {
    complaints: SyncSender<Complaint>,
}

impl ComplaintBox {
    /// Starts the thread; it ends when all clones of the box are gone.
    pub fn start(cluster: ClusterId, secret: Vec<u8>, directory: Arc<Directory>) -> io::Result<Self> {
        let (complaints, received) = sync_channel(COMPLAINTS_WAITING_MAX);
        let sender = Sender { cluster, secret, directory, hint: None, connection: None };
        thread::Builder::new().name("complaints".to_owned()).spawn(move || run(&received, sender))?;
        Ok(Self { complaints })
    }

    /// Leaves one; lost when too many wait.
    pub fn leave(&self, complaint: Complaint) {
        if self.complaints.try_send(complaint).is_err() {
            tracing::warn!(range = %complaint.range, "too many complaints wait for the controller; one is dropped");
        }
    }
}

/// What waits, by range and whom it is about, and since when.
type Waiting = BTreeMap<(RangeKey, NodeId), (Complaint, Instant)>;

fn run(received: &Receiver<Complaint>, mut sender: Sender) {
    let mut waiting = Waiting::new();
    let mut retry_ms = BACKGROUND_RETRY_MS_MIN;
    loop {
        let next = match waiting.is_empty() {
            true => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => received.recv_timeout(Duration::from_millis(retry_ms)),
        };
        match next {
            Ok(complaint) => {
                // A lost process concerns many ranges, and they change together when the controller hears of them together.
                thread::sleep(GATHERING);
                let all = std::iter::once(complaint).chain(received.try_iter());
                for complaint in all.take(COMPLAINTS_WAITING_MAX) {
                    waiting.insert((complaint.range, complaint.about), (complaint, Instant::now()));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let kept = Duration::from_millis(COMPLAINT_KEPT_MS);
        waiting.retain(|_, (_, since)| since.elapsed() < kept);
        let complaints: Vec<Complaint> =
            waiting.values().map(|(complaint, _)| *complaint).take(COMPLAINTS_MAX).collect();
        match sender.send(&complaints) {
            Ok(()) => {
                for complaint in &complaints {
                    waiting.remove(&(complaint.range, complaint.about));
                }
                retry_ms = BACKGROUND_RETRY_MS_MIN;
            }
            Err(error) => {
                tracing::debug!(%error, complaints = complaints.len(), "the controller cannot be told");
                retry_ms = (2 * retry_ms).min(BACKGROUND_RETRY_MS_MAX);
            }
        }
    }
}

struct Sender {
    cluster: ClusterId,
    secret: Vec<u8>,
    directory: Arc<Directory>,
    /// Where another gateway said that the controller is.
    hint: Option<String>,
    connection: Option<Connection>,
}

struct Connection {
    address: String,
    stream: TcpStream,
}

impl Sender {
    fn send(&mut self, complaints: &[Complaint]) -> io::Result<()> {
        if complaints.is_empty() {
            return Ok(());
        }
        let address = self.hint.take().or_else(|| self.directory.gateway());
        let address = address.ok_or_else(|| io::Error::other("no gateway is known"))?;
        let request = ComplainRequest { complaints: complaints.to_vec() };
        let kept = self.connection.take().filter(|connection| connection.address == address);
        // A connection that was idle may have ended meanwhile: that says nothing about the gateway.
        let asked = kept.and_then(|mut kept| Some((ask(&mut kept.stream, Api::Complain, &request).ok()?, kept)));
        let (answer, connection) = match asked {
            Some(asked) => asked,
            None => {
                let mut connection = self.connect(address)?;
                (ask(&mut connection.stream, Api::Complain, &request)?, connection)
            }
        };
        match answer {
            Ok(_) => {
                self.connection = Some(connection);
                Ok(())
            }
            Err((code, reply)) => {
                if code == ErrorCode::NotController && !reply.message.is_empty() {
                    self.hint = Some(reply.message);
                }
                Err(io::Error::other(code.name()))
            }
        }
    }

    fn connect(&self, address: String) -> io::Result<Connection> {
        let wait = Duration::from_millis(COMPLAIN_WAIT_MS);
        let resolved = address.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("no address"))?;
        let mut stream = TcpStream::connect_timeout(&resolved, wait)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait))?;
        stream.set_write_timeout(Some(wait))?;
        let nonce: [u8; 16] = rand::random();
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            role: Role::Peer,
            nonce,
            cluster: self.cluster,
            client_name: "minikafka broker".to_owned(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let refused = |(code, _): (ErrorCode, ErrorReply)| io::Error::other(code.name());
        let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let head = ask(&mut stream, Api::Hello, &hello)?.map_err(refused)?;
        let server = HelloReply::from_bytes(&head).map_err(malformed)?;
        let proof = prove(&self.secret, Prover::Opener, Role::Peer, &nonce, &server.nonce);
        let head = ask(&mut stream, Api::Prove, &proof)?.map_err(refused)?;
        let answer = Proof::from_bytes(&head).map_err(malformed)?;
        if !check_proof(&answer, &self.secret, Prover::Server, Role::Peer, &nonce, &server.nonce) {
            return Err(io::Error::other("the gateway does not know the cluster secret"));
        }
        Ok(Connection { address, stream })
    }
}

/// The head of a reply, or the error that it is.
type Answered = Result<Vec<u8>, (ErrorCode, ErrorReply)>;

/// One request and its reply.
fn ask(stream: &mut TcpStream, api: Api, request: &impl Wire) -> io::Result<Answered> {
    let mut frame = Vec::new();
    encode_frame(&mut frame, Envelope::request(api, 0), &request.to_bytes(), 0);
    stream.write_all(&frame)?;
    let mut header_bytes = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header_bytes)?;
    let no_frame = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let header = FrameHeader::decode(&header_bytes, ANSWER_LIMITS).map_err(no_frame)?;
    let mut head = vec![0; header.head_bytes as usize];
    stream.read_exact(&mut head)?;
    header.verify(&header_bytes, &head).map_err(no_frame)?;
    Ok(match header.error {
        None => Ok(head),
        Some(code) => Err((code, ErrorReply::from_bytes(&head).unwrap_or_else(|_| ErrorReply::of(code)))),
    })
}
