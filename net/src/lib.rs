//! Bytes between peers on glommio: the server side of a shard's port, and links to those of others.
//!
//! [`Listener`] binds, [`Server`] accepts and drives every connection, and a [`Service`] (the broker) is handed one
//! [`Request`] after another. It answers through the request's [`Reply`], from whatever task and in whatever order.
//! Frames, hello and limits are `minikafka_core::wire`'s (`docs/PROTOCOL.md`); this crate moves them and bounds them:
//!
//! - one task per connection reads and writes; one wake reads many frames and sends many replies with one system call;
//! - small bulk is a borrowed slice of the receive buffer, large bulk is received straight into the caller's buffer;
//! - a connection without input holds no receive buffer, and deadlines cost no timer: one sweep per shard looks at all;
//! - whatever a peer sends, or fails to send or to read, ends at most its own connection.
//!
//! ```no_run
//! use std::rc::Rc;
//! use minikafka_core::wire::{Api, FetchReply, FetchRequest, ProduceReply, ProduceRequest};
//! use minikafka_core::{ClusterId, ErrorCode, NodeId, Offset, ShardId, Timestamp};
//! use minikafka_net::{Hangup, Listener, Request, Server, ServerConfig, ServerIdentity, Service};
//!
//! struct Shard;
//!
//! impl Service for Shard {
//!     async fn handle(&self, mut request: Request<'_>) -> Result<(), Hangup> {
//!         match request.api {
//!             Api::Produce => {
//!                 let produce: ProduceRequest = request.message()?;
//!                 let mut body = vec![0; request.bulk.len()]; // or a DMA buffer, at an offset
//!                 if request.bulk.receive_into(&mut body).await? != produce.header.body_crc {
//!                     request.reply.fail(ErrorCode::CorruptBatch);
//!                     return Ok(());
//!                 }
//!                 let reply = request.reply; // goes with the batch, and is sent when it is committed
//!                 reply.send(&ProduceReply { base_offset: Offset(0), append_timestamp: Timestamp(0) });
//!             }
//!             Api::Fetch => {
//!                 let _fetch: FetchRequest = request.message()?;
//!                 let mut reply = request.reply;
//!                 glommio::spawn_local(async move {
//!                     // ... wait for data, then for the peer to have read what was sent before:
//!                     if reply.room(1 << 20).await.is_ok() {
//!                         reply.send_with_bulk(&FetchReply { partitions: vec![] }, vec![]);
//!                     }
//!                 })
//!                 .detach();
//!             }
//!             _ => request.reply.fail(ErrorCode::Misdirected),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # async fn example() -> std::io::Result<()> {
//! let identity = ServerIdentity::new(ClusterId(1), NodeId(1), ShardId(0), None);
//! let listener = Listener::bind(([0, 0, 0, 0], 19100).into())?;
//! let server = Server::start(listener, ServerConfig::new(identity, || [0; 16] /* random! */), Rc::new(Shard));
//! server.stop(std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! The other way, a [`Link`] is one outgoing connection to another shard: it proves the cluster secret, sends frames that
//! have no replies, and says once how it ended.
//!
//! Nothing here knows topics, logs or ownership, and nothing is shared between shards.

mod buffer_pool;
mod connection;
mod connection_state;
mod deadline;
mod handshake;
mod link;
mod listener;
mod log_gate;
mod outgoing;
mod receive_buffer;
mod reply;
mod room;
mod server;
mod service;
mod shard_net;
mod shared_bytes;
mod stats;
mod transport;
mod turn;
mod window;

pub use buffer_pool::BufferPool;
pub use deadline::{DeadlineKind, Deadlines};
pub use handshake::{ClusterSecret, Handshake, Refused, ServerIdentity, Session, Verdict};
pub use link::{Link, LinkConfig, LinkEnd, LinkRoom, LinkTarget};
pub use listener::Listener;
pub use reply::{Reply, ReplyQueue};
pub use server::{Server, ServerConfig, StopReport};
pub use service::{Bulk, Hangup, Request, Service};
pub use shared_bytes::SharedBytes;
pub use stats::{Counter, NetStats};
