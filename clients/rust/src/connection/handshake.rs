//! The first frames of a connection: hello, and the proof of the cluster secret for peers and controllers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::wire::frame::Envelope;
use minikafka_core::wire::hello::{PROTOCOL_MAX, PROTOCOL_MIN, Prover, check_proof, prove};
use minikafka_core::wire::{Api, Hello, HelloReply, Proof, Role, Wire, encode_frame};
use minikafka_core::{ClusterId, ErrorCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{FrameReader, ReadError, broker_error};
use crate::error::{Error, Result};

/// How connections are opened.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Name of the program, for the server's logs; at most 1,024 bytes. Default: empty. Set by the application.
    pub client_name: String,
    /// What this end wants to be. Default: [`Role::Client`]; the others need `secret`.
    pub role: Role,
    /// The cluster expected; another one refuses with `wrong_cluster`. Default: `ClusterId(0)`, any.
    pub cluster: ClusterId,
    /// The cluster secret. Default: none. Set by controllers and peers only.
    pub secret: Option<ClusterSecret>,
    /// Time for connecting, hello and proof together. Default: 5 s.
    pub connect_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            client_name: String::new(),
            role: Role::Client,
            cluster: ClusterId(0),
            secret: None,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// The secret that brokers and gateways of a cluster share. Never printed.
#[derive(Clone)]
pub struct ClusterSecret(Arc<[u8]>);

impl ClusterSecret {
    /// The secret's bytes as the secret file holds them.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(…)")
    }
}

/// Hello and proof use correlations 0 and 1; requests go on from here.
pub(super) const CORRELATIONS_USED: u64 = 2;

/// Says hello and proves the secret, with nothing else in flight yet.
pub(super) async fn shake_hands<R, W>(
    address: &Arc<str>,
    frames: &mut FrameReader<R>,
    sink: &mut W,
    options: &ConnectOptions,
) -> Result<HelloReply>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let nonce = rand::random();
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role: options.role,
        nonce,
        cluster: options.cluster,
        client_name: options.client_name.clone(),
        client_version: concat!("rust ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let server: HelloReply = exchange(address, frames, sink, (Api::Hello, 0), &hello).await?;
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&server.protocol) {
        return Err(Error::broker(ErrorCode::UnsupportedVersion, address.clone()));
    }
    if options.role == Role::Client {
        return Ok(server);
    }
    let Some(ClusterSecret(secret)) = &options.secret else {
        return Err(Error::InvalidOption { option: "secret", reason: "peers and controllers must prove one".into() });
    };
    let proof = prove(secret, Prover::Opener, options.role, &nonce, &server.nonce);
    let answer: Proof = exchange(address, frames, sink, (Api::Prove, 1), &proof).await?;
    if !check_proof(&answer, secret, Prover::Server, options.role, &nonce, &server.nonce) {
        return Err(Error::malformed(address, "proof", "the server does not know the cluster secret"));
    }
    Ok(server)
}

/// One request and its reply, with nothing else on the connection.
async fn exchange<R, W, Q, A>(
    address: &Arc<str>,
    frames: &mut FrameReader<R>,
    sink: &mut W,
    (api, correlation): (Api, u64),
    request: &Q,
) -> Result<A>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    Q: Wire,
    A: Wire,
{
    let failed = |reason: String| Error::ConnectFailed { address: address.clone(), reason: reason.into() };
    let mut frame = Vec::new();
    encode_frame(&mut frame, Envelope::request(api, correlation), &request.to_bytes(), 0);
    sink.write_all(&frame).await.map_err(|error| failed(error.to_string()))?;
    let reply = match frames.next().await {
        Ok(Some(reply)) => reply,
        Ok(None) => return Err(failed("the server closed the connection instead of answering hello".into())),
        Err(ReadError::Io(error)) => return Err(failed(error.to_string())),
        Err(ReadError::Frame(error)) => return Err(Error::malformed(address, "frame", error)),
    };
    if let Some(code) = reply.header.error {
        return Err(broker_error(address, code, &reply.head));
    }
    if !reply.header.is_reply || reply.header.correlation != correlation {
        return Err(Error::malformed(address, "hello reply", "it answers another request"));
    }
    A::from_bytes(&reply.head).map_err(|error| Error::malformed(address, "hello reply", error))
}
