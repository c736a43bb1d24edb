//! Frames in, frames out, and the faults between.

use std::sync::Arc;

use bytes::Bytes;
use minikafka_client::connection::{Frame, FrameReader};
use minikafka_client::core::wire::frame::{Envelope, FrameLimits};
use minikafka_client::core::wire::hello::{GATEWAY_SHARD, Prover, check_proof, prove};
use minikafka_client::core::wire::{
    Api, ErrorReply, Explanation, FrameHeader, Hello, HelloReply, Hop, Proof, Role, Stage, StageSpan, Wire,
    encode_frame,
};
use minikafka_client::core::{ClusterId, ErrorCode, NodeId, ShardId, limits};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Fault, Shared, gateway, groups, shard};

pub const SECRET: &[u8] = b"the cluster's secret";
const NONCE: [u8; 16] = [7; 16];

/// A reply before faults.
pub struct Answer {
    pub error: Option<ErrorCode>,
    pub head: Vec<u8>,
    pub bulk: Vec<u8>,
}

impl Answer {
    pub fn message(message: &impl Wire) -> Self {
        Self { error: None, head: message.to_bytes(), bulk: Vec::new() }
    }

    pub fn refusal(code: ErrorCode, reply: ErrorReply) -> Self {
        Self { error: Some(code), head: reply.to_bytes(), bulk: Vec::new() }
    }
}

enum Outgoing {
    Bytes(Vec<u8>),
    Close,
}

/// Accepts connections to a shard, or to the gateway.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, shard: Option<usize>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_connection(shared.clone(), stream, shard));
    }
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, shard: Option<usize>) {
    stream.set_nodelay(true).expect("a TCP socket");
    let (source, mut sink) = stream.into_split();
    let mut frames = FrameReader::new(source, FrameLimits::REQUEST);
    let (outgoing, mut queue) = mpsc::unbounded_channel();
    let generation = shared.state.lock().expect("not poisoned").generation;
    let mut changes = shared.changed.subscribe();
    let mut role = Role::Client;
    let reading = async {
        while let Ok(Some(frame)) = frames.next().await {
            handle(&shared, shard, frame, &mut role, &outgoing).await;
        }
    };
    let writing = async {
        while let Some(Outgoing::Bytes(bytes)) = queue.recv().await {
            if sink.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let closing = changes.wait_for(|_| shared.state.lock().expect("not poisoned").generation != generation);
    tokio::select! { () = reading => {}, () = writing => {}, _ = closing => {} }
}

/// Produces are answered in order; what waits for data or a gate gets a task of its own.
async fn handle(
    shared: &Arc<Shared>,
    shard: Option<usize>,
    frame: Frame,
    role: &mut Role,
    outgoing: &mpsc::UnboundedSender<Outgoing>,
) {
    let fault = {
        let mut state = shared.state.lock().expect("not poisoned");
        state.explains += usize::from(frame.header.explain);
        state.next_fault(frame.header.api)
    };
    shared.changed.send_modify(|changes| *changes += 1);
    let refuse = |code, message: &str| {
        let reply = Answer::refusal(code, ErrorReply::because(message));
        drop(outgoing.send(Outgoing::Bytes(encode(&frame.header, &reply))));
    };
    match &fault {
        Fault::CloseBefore => return drop(outgoing.send(Outgoing::Close)),
        Fault::Refuse(code) => return refuse(*code, "refused by the script"),
        Fault::RefuseSaying(code, message) => return refuse(*code, message),
        Fault::Throttle(wait_ms) => {
            let reply = ErrorReply::of(ErrorCode::Throttled).after_ms(*wait_ms);
            let reply = Answer::refusal(ErrorCode::Throttled, reply);
            return drop(outgoing.send(Outgoing::Bytes(encode(&frame.header, &reply))));
        }
        _ => {}
    }
    let (shared, outgoing) = (shared.clone(), outgoing.clone());
    if frame.header.api == Api::Fetch as u16 {
        tokio::spawn(async move {
            let answer = shard::fetch(&shared, shard, &frame.head).await;
            finish(&outgoing, &frame.header, answer, fault).await;
        });
        return;
    }
    if let Some(api @ (Api::GroupHeartbeat | Api::GroupCommit | Api::GroupOffsets)) = Api::from_number(frame.header.api)
    {
        tokio::spawn(async move {
            let answer = groups::answer(&shared, shard, api, &frame.head).await;
            finish(&outgoing, &frame.header, answer, fault).await;
        });
        return;
    }
    let header = frame.header;
    let answer = answer(&shared, shard, frame, role);
    match fault {
        Fault::Hold(_) => drop(tokio::spawn(async move { finish(&outgoing, &header, answer, fault).await })),
        fault => finish(&outgoing, &header, answer, fault).await,
    }
}

fn answer(shared: &Shared, shard: Option<usize>, frame: Frame, role: &mut Role) -> Answer {
    let Frame { header, head, bulk } = frame;
    match (Api::from_number(header.api), shard) {
        (Some(Api::Hello), _) => hello(shared, &head, shard, role),
        (Some(Api::Prove), _) => prove_secret(&head, *role),
        (Some(Api::Produce), Some(shard)) => shard::produce(shared, shard, &head, bulk),
        (Some(Api::ListOffsets), Some(shard)) => shard::list_offsets(shared, shard, &head),
        (Some(Api::DeleteRecords), Some(shard)) => shard::delete_records(shared, shard, &head),
        (Some(api), None) => gateway::answer(shared, api, &head),
        _ => Answer::refusal(ErrorCode::Misdirected, ErrorReply::of(ErrorCode::Misdirected)),
    }
}

fn hello(shared: &Shared, head: &Bytes, shard: Option<usize>, role: &mut Role) -> Answer {
    let hello = Hello::from_bytes(head).expect("a good hello");
    *role = hello.role;
    HELLO_NONCE.with(|nonce| nonce.set(hello.nonce));
    Answer::message(&HelloReply {
        protocol: if shared.state.lock().expect("not poisoned").is_older { 1 } else { hello.protocol_max },
        nonce: NONCE,
        cluster: ClusterId(77),
        node: NodeId(shard.unwrap_or(0) as u32),
        shard: if shard.is_some() { ShardId(0) } else { GATEWAY_SHARD },
        server_version: "fake".into(),
        batch_body_bytes_max: limits::BATCH_BODY_BYTES_MAX,
        record_bytes_max: limits::RECORD_BYTES_MAX,
        in_flight_max: limits::CONNECTION_IN_FLIGHT_MAX,
        idle_deadline_ms: limits::IDLE_DEADLINE_MS,
    })
}

thread_local! {
    /// Tests run on one thread each, and prove on one connection at a time.
    static HELLO_NONCE: std::cell::Cell<[u8; 16]> = const { std::cell::Cell::new([0; 16]) };
}

fn prove_secret(head: &Bytes, role: Role) -> Answer {
    let opener_nonce = HELLO_NONCE.with(std::cell::Cell::get);
    let proof = Proof::from_bytes(head).expect("a good proof");
    if check_proof(&proof, SECRET, Prover::Opener, role, &opener_nonce, &NONCE) {
        Answer::message(&prove(SECRET, Prover::Server, role, &opener_nonce, &NONCE))
    } else {
        Answer::refusal(ErrorCode::NotAuthorized, ErrorReply::of(ErrorCode::NotAuthorized))
    }
}

/// What every request is told that asks to be explained.
pub fn explanation() -> Explanation {
    let stages = vec![StageSpan { stage: Stage::Receive, start_us: 0, took_us: 7 }];
    let hop = Hop { node: NodeId(5), shard: ShardId(2), whole_us: 9, stages };
    Explanation { hops: vec![hop, Hop::untold(NodeId(6), ShardId(0))] }
}

fn encode(request: &FrameHeader, answer: &Answer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let envelope =
        Envelope { explain: request.explain && answer.error.is_none(), ..Envelope::reply(request, answer.error) };
    let told = if envelope.explain { explanation().to_bytes() } else { Vec::new() };
    encode_frame(&mut bytes, envelope, &[&answer.head[..], &told].concat(), answer.bulk.len() as u32);
    bytes.extend_from_slice(&answer.bulk);
    bytes
}

/// Sends a reply, or what the script makes of it.
async fn finish(outgoing: &mpsc::UnboundedSender<Outgoing>, request: &FrameHeader, answer: Answer, fault: Fault) {
    let mut request = *request;
    let bulk_bytes = answer.bulk.len();
    let mut bytes = match &fault {
        Fault::Deny(code) => encode(&request, &Answer::refusal(*code, ErrorReply::because("denied by the script"))),
        Fault::WrongCorrelation => {
            request.correlation += 1_000_000;
            encode(&request, &answer)
        }
        _ => encode(&request, &answer),
    };
    match fault {
        Fault::CloseAfter => return drop(outgoing.send(Outgoing::Close)),
        Fault::Silence => return,
        Fault::Hold(gate) => gate.notified().await,
        Fault::DamageHead => bytes[33] ^= 4,
        Fault::DamageBulk => {
            let middle = bytes.len() - bulk_bytes.div_ceil(2);
            bytes[middle] ^= 4;
        }
        Fault::Truncate => {
            bytes.truncate(bytes.len() / 2);
            let _ = outgoing.send(Outgoing::Bytes(bytes));
            return drop(outgoing.send(Outgoing::Close));
        }
        Fault::LieAboutSize => {
            bytes.clear();
            encode_frame(&mut bytes, Envelope::reply(&request, None), b"", u32::MAX);
        }
        _ => {}
    }
    let _ = outgoing.send(Outgoing::Bytes(bytes));
}
