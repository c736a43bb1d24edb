//! How a shard talks to the other members of its ranges' chains, and to the controller about them.
//!
//! A trait, so that the simulator runs the very interpreter that ships. Promise: messages to one destination arrive in
//! order for as long as a connection lives, and any of them may be lost with it; then [`Shard::peer_lost`] is called.
//! A broker's are in `tcp`, the simulator has its own.
//! Absent: waiting, acknowledgements, retries, all of which are the machine's (`docs/REPLICATION.md`, "Between members").
//!
//! [`Shard::peer_lost`]: crate::Shard::peer_lost

pub(crate) mod tcp;

use std::future;
use std::pin::Pin;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{Complaint, PeerMessage};
use minikafka_net::LinkRoom;
use minikafka_storage::SharedSlice;

/// Room for entries on the way to another member, given back when they have left; or nothing, where nobody counts.
#[derive(Debug, Default)]
pub struct Room(pub(crate) Option<LinkRoom>);

/// What a shard reaches others by. Sending neither waits nor fails: what cannot be sent is lost.
pub trait Peers {
    /// Sends a message to another member's shard. Entries are shared with the log, not copied.
    fn send(&self, to: &ChainMember, message: PeerMessage<SharedSlice>);

    /// Waits until `bytes` of entries may be on their way to another member, first come, first served. Who sends many
    /// entries asks before reading them; that is what bounds their memory.
    fn room(&self, _to: &ChainMember, _bytes: u64) -> Pin<Box<dyn Future<Output = Room>>> {
        Box::pin(future::ready(Room::default()))
    }

    /// Sends entries in the room that was waited for.
    fn send_with(&self, to: &ChainMember, message: PeerMessage<SharedSlice>, room: Room) {
        drop(room);
        self.send(to, message);
    }

    /// Whether a member's release knows the messages of explain; for others they would be the end of the link.
    fn knows_explain(&self, _to: &ChainMember) -> bool {
        true
    }

    /// Tells the controller that a chain does not work (R8). A hint that may be lost.
    fn complain(&self, complaint: Complaint);

    /// Whether there are links at all: without them a chain of more than one member is refused.
    fn are_linked(&self) -> bool {
        true
    }
}

/// A broker without links: it holds chains of one only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn send(&self, to: &ChainMember, message: PeerMessage<SharedSlice>) {
        tracing::debug!(node = %to.node, range = %message.range, "no link to another member: the message is lost");
    }

    fn complain(&self, complaint: Complaint) {
        tracing::warn!(range = %complaint.range, reason = ?complaint.reason, "nobody takes complaints yet");
    }

    fn are_linked(&self) -> bool {
        false
    }
}
