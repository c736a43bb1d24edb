//! The network: connections between nodes that keep order while they live, and everything that happens to them.
//!
//! Places are the nodes, then the controllers (with the coordinator) and the clients, which are on machines of their own.
//! A connection that breaks is noticed by both ends, each at its own time; what was on its way is lost, or arrives all the
//! same, perhaps behind what comes on the next connection.

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::PeerMessage;
use minikafka_storage::SharedSlice;

use crate::queue::Time;

/// Who can be cut off from whom, by number: nodes from 0.
pub type Place = usize;

/// A message between members on its way.
pub struct Packet {
    /// On which connection.
    pub connection: u64,
    /// From which process.
    pub from: ChainMember,
    /// To which process.
    pub to: ChainMember,
    /// What.
    pub message: PeerMessage<SharedSlice>,
}

/// One direction between two shards.
#[derive(Default)]
struct Channel {
    connection: u64,
    /// The connection before, when what was on its way still arrives, and until when that takes.
    draining: Option<(u64, Time)>,
    last_at: Time,
    /// Waits for the way to be free.
    held: Vec<Packet>,
}

/// The network.
pub struct Network {
    places: usize,
    shards: usize,
    channels: Vec<Channel>,
    blocked: Vec<bool>,
}

/// What becomes of a packet that arrives.
pub enum Arrival {
    /// It is there.
    Deliver(Packet),
    /// It is on its way until then.
    Later(Time, Packet),
    /// Lost, or held back.
    Nothing,
}

impl Network {
    /// A whole network of `nodes` with `shards` each, controllers and clients.
    pub fn new(nodes: usize, shards: usize) -> Self {
        let places = nodes + 2;
        let count = places * places * shards * shards;
        Self {
            places,
            shards,
            channels: std::iter::repeat_with(Channel::default).take(count).collect(),
            blocked: vec![false; places * places],
        }
    }

    /// Where the controllers are.
    pub const fn controllers(&self) -> Place {
        self.places - 2
    }

    /// Where the clients are.
    pub const fn clients(&self) -> Place {
        self.places - 1
    }

    fn channel(&mut self, from: &ChainMember, to: &ChainMember) -> &mut Channel {
        let (from_node, to_node) = (place(from), place(to));
        let (from_shard, to_shard) = (usize::from(from.shard.0), usize::from(to.shard.0));
        let at = ((from_node * self.places + to_node) * self.shards + from_shard) * self.shards + to_shard;
        &mut self.channels[at]
    }

    /// Puts a message on its way; says when it arrives if it takes `delay` from now on its own.
    pub fn send(&mut self, now: Time, delay: Time, from: ChainMember, to: ChainMember) -> (Time, u64) {
        let channel = self.channel(&from, &to);
        channel.last_at = channel.last_at.max(now + delay);
        (channel.last_at, channel.connection)
    }

    /// A packet arrives at the end of its way.
    pub fn arrive(&mut self, now: Time, packet: Packet) -> Arrival {
        let blocked = self.is_blocked(place(&packet.from), place(&packet.to));
        let channel = self.channel(&packet.from, &packet.to);
        if channel.connection != packet.connection {
            match channel.draining {
                Some((draining, until)) if draining == packet.connection && until > now => {
                    return Arrival::Later(until, packet);
                }
                Some((draining, _)) if draining == packet.connection => {}
                _ => return Arrival::Nothing,
            }
        }
        if blocked || !channel.held.is_empty() {
            channel.held.push(packet);
            return Arrival::Nothing;
        }
        Arrival::Deliver(packet)
    }

    /// Ends the connections between two places; `drains`: what is on its way arrives all the same.
    pub fn break_between(&mut self, one: Place, other: Place, drains: bool) {
        let shards = self.shards * self.shards;
        for (from, to) in [(one, other), (other, one)] {
            let at = (from * self.places + to) * shards;
            for channel in &mut self.channels[at..at + shards] {
                channel.draining = drains.then_some((channel.connection, 0));
                channel.connection += 1;
                channel.last_at = 0;
                channel.held.clear();
            }
        }
    }

    /// Another connection from one place to another while the first still lives: what is on its way arrives `until` then,
    /// behind or among what is sent from now on.
    pub fn connect_again(&mut self, from: Place, to: Place, until: Time) {
        let shards = self.shards * self.shards;
        let at = (from * self.places + to) * shards;
        for channel in &mut self.channels[at..at + shards] {
            channel.draining = Some((channel.connection, until));
            channel.connection += 1;
            channel.last_at = 0;
        }
    }

    /// Whether nothing gets from one place to another now.
    pub fn is_blocked(&self, from: Place, to: Place) -> bool {
        self.blocked[from * self.places + to]
    }

    /// Blocks one direction, or frees it.
    pub fn block(&mut self, from: Place, to: Place, blocked: bool) {
        if from != to {
            self.blocked[from * self.places + to] = blocked;
        }
    }

    /// Frees everything.
    pub fn unblock_all(&mut self) {
        self.blocked.fill(false);
    }

    /// What was held back and can go now, in order.
    pub fn released(&mut self) -> Vec<Packet> {
        let mut released = Vec::new();
        let (places, shards) = (self.places, self.shards * self.shards);
        for (at, channel) in self.channels.iter_mut().enumerate() {
            let pair = at / shards;
            if !self.blocked[pair] && !channel.held.is_empty() {
                debug_assert!(pair < places * places);
                released.append(&mut channel.held);
            }
        }
        released
    }
}

/// Where a member is.
pub const fn place(member: &ChainMember) -> Place {
    member.node.0 as usize - 1
}
