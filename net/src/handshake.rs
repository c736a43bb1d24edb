//! What a connection may ask, from its first frame on: hello, proof of the cluster secret, apis. Sans-I/O.
//!
//! ```text
//!              hello                    prove (peer, controller)
//!  Awaiting ----------> Open(claims) ----------------------------> Open(authorized)
//!     |                   |    \                                      |
//!     | anything else     |     `- api from 40 on: refused, goes on   |
//!     v                   v                                           v
//!   closes          hello again, a wrong proof, a reply: closes the connection
//! ```

use std::fmt;

use minikafka_core::limits;
use minikafka_core::wire::frame::FrameLimits;
use minikafka_core::wire::{
    Api, FrameHeader, Hello, HelloReply, PROTOCOL_MAX, PROTOCOL_MIN, Proof, Prover, Role, Wire, check_proof,
    common_protocol, prove,
};
use minikafka_core::{ClusterId, ErrorCode, NodeId, ShardId};

/// The secret of a cluster. It has no readable form.
#[derive(Clone)]
pub struct ClusterSecret(Vec<u8>);

impl ClusterSecret {
    /// The bytes of the secret file.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// Who this server is and what it takes: the fields of its hello replies.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The shard, or [`minikafka_core::wire::GATEWAY_SHARD`].
    pub shard: ShardId,
    /// Release of the server.
    pub server_version: String,
    /// What peers and controllers prove to know. `None`: nobody is authorized.
    pub secret: Option<ClusterSecret>,
    /// Largest batch body taken.
    pub batch_body_bytes_max: u32,
    /// Largest record taken.
    pub record_bytes_max: u32,
    /// Requests in flight per connection.
    pub in_flight_max: u32,
    /// How long a connection without any frame is kept.
    pub idle_deadline_ms: u64,
}

impl ServerIdentity {
    /// An identity with the limits of this release.
    pub fn new(cluster: ClusterId, node: NodeId, shard: ShardId, secret: Option<ClusterSecret>) -> Self {
        Self {
            cluster,
            node,
            shard,
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            secret,
            batch_body_bytes_max: limits::BATCH_BODY_BYTES_MAX,
            record_bytes_max: limits::RECORD_BYTES_MAX,
            in_flight_max: limits::CONNECTION_IN_FLIGHT_MAX,
            idle_deadline_ms: limits::IDLE_DEADLINE_MS,
        }
    }
}

/// Who is at the other end, by its own hello.
#[derive(Clone, Debug)]
pub struct Session {
    /// What it wants to be.
    pub role: Role,
    /// Whether it proved the cluster secret.
    pub authorized: bool,
    /// Protocol spoken on this connection.
    pub protocol: u16,
    /// Name of its program.
    pub client_name: String,
    /// Version of its client library.
    pub client_version: String,
    opener_nonce: [u8; 16],
    server_nonce: [u8; 16],
}

/// Why a frame is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The code of the error reply.
    pub code: ErrorCode,
    /// Its message: what happened, for a person.
    pub message: String,
    /// Whether the connection ends after the reply.
    pub closes: bool,
}

impl Refused {
    pub(crate) fn and_close(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), closes: true }
    }

    fn and_go_on(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), closes: false }
    }
}

/// What becomes of a well-formed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a request for the service.
    Serve(Api),
    /// It opened the connection further; this is the head of the reply.
    Answer(Vec<u8>),
}

/// The server's side of opening one connection, and what it allows from then on.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    session: Option<Session>,
}

impl Handshake {
    /// Awaits a hello.
    pub fn new() -> Self {
        Self::default()
    }

    /// Who is at the other end, once it has said hello.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The largest frame taken now. Who proved the secret may send the long lists of a controller.
    pub fn frame_limits(&self) -> FrameLimits {
        match &self.session {
            Some(session) if session.authorized => FrameLimits::REPLY,
            _ => FrameLimits::REQUEST,
        }
    }

    /// Judges a header before its frame is there, so that nothing is received for what would be refused anyway.
    pub fn header_arrived(&self, header: &FrameHeader) -> Result<(), Refused> {
        if header.is_reply || header.error.is_some() {
            return Err(Refused::and_close(ErrorCode::MalformedFrame, "a server takes requests, not replies"));
        }
        if self.session.is_some() {
            return Ok(());
        }
        if Api::from_number(header.api) != Some(Api::Hello) {
            return Err(Refused::and_close(ErrorCode::HelloRequired, ErrorCode::HelloRequired.advice()));
        }
        if header.head_bytes > limits::HELLO_HEAD_BYTES_MAX {
            let message = format!("a hello has at most {} bytes", limits::HELLO_HEAD_BYTES_MAX);
            return Err(Refused::and_close(ErrorCode::FrameTooLarge, message));
        }
        Ok(())
    }

    /// Judges a frame whose checksum is right. `nonce` is drawn only for a hello; it must be unpredictable.
    pub fn frame_arrived(
        &mut self,
        header: &FrameHeader,
        head: &[u8],
        identity: &ServerIdentity,
        nonce: impl FnOnce() -> [u8; 16],
    ) -> Result<Verdict, Refused> {
        self.header_arrived(header)?;
        let Some(api) = Api::from_number(header.api) else {
            return Err(Refused::and_go_on(ErrorCode::UnknownApi, format!("api {} is unknown here", header.api)));
        };
        if header.version != api.version() {
            let message = format!("{api:?} has version {}, not {}", api.version(), header.version);
            let closes = self.session.is_none();
            return Err(Refused { code: ErrorCode::UnsupportedVersion, message, closes });
        }
        if matches!(api, Api::Hello | Api::Prove) && header.bulk_bytes > 0 {
            return Err(Refused::and_close(ErrorCode::MalformedFrame, format!("{api:?} has no bulk")));
        }
        match (api, &mut self.session) {
            (Api::Hello, session @ None) => {
                let (opened, reply) = greet(head, identity, nonce())?;
                *session = Some(opened);
                Ok(Verdict::Answer(reply))
            }
            (Api::Hello, Some(_)) => {
                Err(Refused::and_close(ErrorCode::MalformedFrame, "a connection has one hello, as its first frame"))
            }
            (Api::Prove, Some(session)) => check(session, head, identity).map(Verdict::Answer),
            (_, Some(session)) if api.needs_proof() && !session.authorized => {
                Err(Refused::and_go_on(ErrorCode::NotAuthorized, ErrorCode::NotAuthorized.advice()))
            }
            (_, Some(_)) => Ok(Verdict::Serve(api)),
            (_, None) => Err(Refused::and_close(ErrorCode::HelloRequired, ErrorCode::HelloRequired.advice())),
        }
    }
}

fn malformed(what: &str, error: impl fmt::Display) -> Refused {
    Refused::and_close(ErrorCode::MalformedFrame, format!("{what}: {error}"))
}

fn greet(head: &[u8], identity: &ServerIdentity, server_nonce: [u8; 16]) -> Result<(Session, Vec<u8>), Refused> {
    let hello = Hello::from_bytes(head).map_err(|error| malformed("hello", error))?;
    let Some(protocol) = common_protocol(&hello) else {
        let message = format!(
            "protocols {}..={} asked for, {PROTOCOL_MIN}..={PROTOCOL_MAX} spoken here",
            hello.protocol_min, hello.protocol_max
        );
        return Err(Refused::and_close(ErrorCode::UnsupportedVersion, message));
    };
    if hello.cluster != ClusterId(0) && hello.cluster != identity.cluster {
        let message = format!("this is cluster {:016x}, not {:016x}", identity.cluster.0, hello.cluster.0);
        return Err(Refused::and_close(ErrorCode::WrongCluster, message));
    }
    let reply = HelloReply {
        protocol,
        nonce: server_nonce,
        cluster: identity.cluster,
        node: identity.node,
        shard: identity.shard,
        server_version: identity.server_version.clone(),
        batch_body_bytes_max: identity.batch_body_bytes_max,
        record_bytes_max: identity.record_bytes_max,
        in_flight_max: identity.in_flight_max,
        idle_deadline_ms: identity.idle_deadline_ms,
    };
    let session = Session {
        role: hello.role,
        authorized: false,
        protocol,
        client_name: hello.client_name,
        client_version: hello.client_version,
        opener_nonce: hello.nonce,
        server_nonce,
    };
    Ok((session, reply.to_bytes()))
}

fn check(session: &mut Session, head: &[u8], identity: &ServerIdentity) -> Result<Vec<u8>, Refused> {
    let proof = Proof::from_bytes(head).map_err(|error| malformed("prove", error))?;
    if session.role == Role::Client || session.authorized {
        let message = "only a peer or controller proves, and once";
        return Err(Refused::and_close(ErrorCode::NotAuthorized, message));
    }
    let (role, opener, server) = (session.role, &session.opener_nonce, &session.server_nonce);
    let secret =
        identity.secret.as_ref().filter(|secret| check_proof(&proof, &secret.0, Prover::Opener, role, opener, server));
    let Some(secret) = secret else {
        return Err(Refused::and_close(ErrorCode::NotAuthorized, ErrorCode::NotAuthorized.advice()));
    };
    session.authorized = true;
    Ok(prove(&secret.0, Prover::Server, role, opener, server).to_bytes())
}
