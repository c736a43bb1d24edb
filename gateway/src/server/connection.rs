//! One connection: hello, proof where the role needs one, then requests. Replies leave in any order.
//!
//! A connection that breaks the protocol is answered with its typed error where that is possible, and closed; nothing
//! else is disturbed.

use std::net::SocketAddr;
use std::sync::Arc;

use minikafka_core::wire::frame::{Envelope, FrameLimits};
use minikafka_core::wire::{
    Api, DecodeError, ErrorReply, GATEWAY_SHARD, Hello, HelloReply, Proof, Prover, Role, Wire, check_proof,
    common_protocol, encode_frame, prove,
};
use minikafka_core::{ErrorCode, NodeId, limits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::count;
use super::frames::{self, RequestFrame, TakeError};
use super::requests::{self, Refusal};
use crate::gateway::Shared;

/// Replies that wait for the socket; behind them, requests wait.
const REPLIES_MAX: usize = 4;

/// A finished reply frame.
type ReplyFrame = Vec<u8>;

/// Why a connection ends before the client wants it to.
enum End {
    /// The stream is over, or nothing can be said any more.
    Silent(TakeError),
    /// Answered, then closed.
    Told { envelope: Option<Envelope>, refusal: Refusal },
}

/// Serves a connection until it ends.
pub(super) async fn run(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    // Without it small replies wait for acknowledgements; a socket that refuses is about to fail anyway.
    drop(stream.set_nodelay(true));
    let (mut source, sink) = stream.into_split();
    let (replies, queue) = mpsc::channel(REPLIES_MAX);
    let mut writer = JoinSet::new();
    writer.spawn(write_replies(sink, queue, shared.config.deadlines.write));
    let served = async {
        let end = serve(&shared, &mut source, &replies).await;
        finish(&shared, peer, end, &replies).await;
    };
    tokio::select! {
        () = served => {
            // The last reply leaves before the socket closes.
            drop(replies);
            while writer.join_next().await.is_some() {}
        }
        _ = writer.join_next() => tracing::debug!(%peer, "a client does not take its replies"),
    }
}

async fn finish(shared: &Shared, peer: SocketAddr, end: End, replies: &mpsc::Sender<ReplyFrame>) {
    match end {
        End::Silent(TakeError::Closed) => {}
        End::Silent(error @ TakeError::TooSlow(_)) => {
            count(&shared.counters.too_slow);
            tracing::info!(%peer, %error, "closing a slow connection");
        }
        End::Silent(error) => tracing::debug!(%peer, %error, "a connection ended"),
        End::Told { envelope, refusal } => {
            count(&shared.counters.malformed);
            tracing::warn!(%peer, code = refusal.code.name(), reason = %refusal.reply.message, "closing a connection");
            let nobody = Envelope { api: 0, version: 1, correlation: 0, is_reply: true, explain: false, error: None };
            let envelope = Envelope { error: Some(refusal.code), ..envelope.unwrap_or(nobody) };
            send(replies, envelope, &refusal.reply.to_bytes()).await;
        }
    }
}

async fn serve(shared: &Arc<Shared>, source: &mut OwnedReadHalf, replies: &mpsc::Sender<ReplyFrame>) -> End {
    let proven = match timeout(shared.config.deadlines.hello, open(shared, source, replies)).await {
        Ok(Ok(proven)) => proven,
        Ok(Err(end)) => return end,
        Err(_) => return End::Silent(TakeError::TooSlow("no hello came within the deadline")),
    };
    let room = Arc::new(Semaphore::new(limits::GATEWAY_IN_FLIGHT_MAX as usize));
    let mut waiting = JoinSet::new();
    loop {
        let frame = match next(shared, source, FrameLimits::REQUEST).await {
            Ok(frame) => frame,
            Err(end) => return end,
        };
        // Behind a full window nothing is read: that is all the back-pressure a client needs.
        let Ok(place) = room.clone().acquire_owned().await else { unreachable!("the window is never closed") };
        while waiting.try_join_next().is_some() {}
        let header = frame.header;
        if let Err(refusal) = requests::check(&header, proven) {
            if refusal.closes {
                return End::Told { envelope: Some(Envelope::reply(&header, None)), refusal };
            }
            send(replies, Envelope::reply(&header, Some(refusal.code)), &refusal.reply.to_bytes()).await;
            continue;
        }
        let request = match requests::Request::decode(&frame) {
            Ok(request) => request,
            Err(error) => {
                return End::Told { envelope: Some(Envelope::reply(&header, None)), refusal: malformed(&error) };
            }
        };
        let (shared, replies) = (shared.clone(), replies.clone());
        waiting.spawn(async move {
            match requests::answer(&shared, request).await {
                Ok(head) => send(&replies, Envelope::reply(&header, None), &head).await,
                Err(refusal) => {
                    send(&replies, Envelope::reply(&header, Some(refusal.code)), &refusal.reply.to_bytes()).await;
                }
            }
            drop(place);
        });
    }
}

/// Hello, and proof for all but clients; the caller bounds the time. Returns whether the cluster secret was proved.
async fn open(
    shared: &Arc<Shared>,
    source: &mut OwnedReadHalf,
    replies: &mpsc::Sender<ReplyFrame>,
) -> Result<bool, End> {
    let frame = next(shared, source, frames::OPENING).await?;
    let told = |refusal| End::Told { envelope: Some(Envelope::reply(&frame.header, None)), refusal };
    if frame.header.api != Api::Hello as u16 {
        return Err(told(Refusal::closing(ErrorCode::HelloRequired)));
    }
    if frame.header.version != Api::Hello.version() {
        return Err(told(Refusal::closing(ErrorCode::UnsupportedVersion)));
    }
    let hello = Hello::from_bytes(&frame.head).map_err(|error| told(malformed(&error)))?;
    let protocol = common_protocol(&hello).ok_or_else(|| told(Refusal::closing(ErrorCode::UnsupportedVersion)))?;
    if hello.cluster.0 != 0 && hello.cluster != shared.cluster.cluster {
        return Err(told(Refusal::closing(ErrorCode::WrongCluster)));
    }
    let nonce = rand::random();
    let reply = HelloReply {
        protocol,
        nonce,
        cluster: shared.cluster.cluster,
        node: NodeId(0),
        shard: GATEWAY_SHARD,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        batch_body_bytes_max: limits::BATCH_BODY_BYTES_MAX,
        record_bytes_max: limits::RECORD_BYTES_MAX,
        in_flight_max: limits::GATEWAY_IN_FLIGHT_MAX,
        idle_deadline_ms: shared.config.deadlines.idle.as_millis() as u64,
    };
    send(replies, Envelope::reply(&frame.header, None), &reply.to_bytes()).await;
    if hello.role == Role::Client {
        return Ok(false);
    }
    let frame = next(shared, source, frames::OPENING).await?;
    let told = |refusal| End::Told { envelope: Some(Envelope::reply(&frame.header, None)), refusal };
    if frame.header.api != Api::Prove as u16 {
        return Err(told(Refusal::closing(ErrorCode::NotAuthorized)));
    }
    let proof = Proof::from_bytes(&frame.head).map_err(|error| told(malformed(&error)))?;
    let secret = &shared.config.secret;
    if !check_proof(&proof, secret, Prover::Opener, hello.role, &hello.nonce, &nonce) {
        return Err(told(Refusal::closing(ErrorCode::NotAuthorized)));
    }
    let answer = prove(secret, Prover::Server, hello.role, &hello.nonce, &nonce);
    send(replies, Envelope::reply(&frame.header, None), &answer.to_bytes()).await;
    Ok(true)
}

async fn next(shared: &Shared, source: &mut OwnedReadHalf, allowed: FrameLimits) -> Result<RequestFrame, End> {
    let deadlines = &shared.config.deadlines;
    let frame = frames::take(source, allowed, deadlines.idle, deadlines.frame).await;
    count(&shared.counters.requests);
    frame.map_err(|error| match error {
        TakeError::Malformed { error, envelope } => {
            let mut refusal = Refusal::closing(error.code());
            refusal.reply.message = error.to_string();
            End::Told { envelope, refusal }
        }
        other => End::Silent(other),
    })
}

fn malformed(error: &DecodeError) -> Refusal {
    let mut refusal = Refusal::closing(ErrorCode::MalformedFrame);
    refusal.reply = ErrorReply::because(error.to_string());
    refusal
}

async fn send(replies: &mpsc::Sender<ReplyFrame>, envelope: Envelope, head: &[u8]) {
    let mut frame = Vec::with_capacity(minikafka_core::wire::FRAME_HEADER_BYTES + head.len());
    encode_frame(&mut frame, envelope, head, 0);
    // The writer is gone only when the connection is.
    drop(replies.send(frame).await);
}

async fn write_replies(mut sink: OwnedWriteHalf, mut queue: mpsc::Receiver<ReplyFrame>, deadline: std::time::Duration) {
    while let Some(frame) = queue.recv().await {
        match timeout(deadline, sink.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
