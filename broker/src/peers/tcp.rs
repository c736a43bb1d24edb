//! Links to the shards of other brokers: one for each member that this shard has something to say to.
//!
//! A link is opened by the first message, and again by the next one after it broke, no sooner than a growing wait: the
//! machines try again by themselves. Whenever something may have been lost the ranges are told that the member is lost, by a
//! task of its own, because a range may be in the middle of saying something. Answers come over the other end's own link.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use minikafka_core::chain::ChainMember;
use minikafka_core::chain::peer::{Complaint, PeerMessage};
use minikafka_core::limits::{BACKGROUND_RETRY_MS_MAX, BACKGROUND_RETRY_MS_MIN};
use minikafka_core::wire::{Api, EXPLAIN_PROTOCOL};
use minikafka_core::{Incarnation, NodeId, ShardId, StoreId};
use minikafka_net::{Link, LinkConfig, LinkEnd, LinkTarget, SharedBytes};
use minikafka_storage::SharedSlice;
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Notify;
use quanta::Instant;

use super::{Peers, Room};
use crate::clock::Clock;
use crate::complaints::ComplaintBox;
use crate::directory::Directory;
use crate::shard::Shard;

/// What a link is kept by: one process's shard.
type Key = (NodeId, ShardId, StoreId, Incarnation);

const fn key(member: &ChainMember) -> Key {
    (member.node, member.shard, member.store, member.incarnation)
}

/// The links of one shard.
pub(crate) struct TcpPeers {
    me: Weak<Self>,
    links: RefCell<BTreeMap<Key, Peer>>,
    lost: RefCell<VecDeque<ChainMember>>,
    lost_some: Notify,
    config: Rc<LinkConfig>,
    directory: Arc<Directory>,
    complaints: ComplaintBox,
    clock: Clock,
    closed: Cell<bool>,
    links_lost: Cell<u64>,
}

/// What is known of the way to one member.
struct Peer {
    link: Option<Link>,
    opened: Instant,
    /// Before that, no other link is opened.
    not_before: Instant,
    wait: Duration,
}

impl TcpPeers {
    pub fn new(config: LinkConfig, directory: Arc<Directory>, complaints: ComplaintBox, clock: Clock) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            links: RefCell::default(),
            lost: RefCell::default(),
            lost_some: Notify::default(),
            config: Rc::new(config),
            directory,
            complaints,
            clock,
            closed: Cell::new(false),
            links_lost: Cell::new(0),
        })
    }

    /// Tells the shard about lost members, for as long as it lives and this is not closed.
    pub async fn tell_lost<D: Disk>(self: Rc<Self>, shard: Weak<Shard<D>>) {
        loop {
            let lost = || match self.closed.get() {
                true => Some(None),
                false => self.lost.borrow_mut().pop_front().map(Some),
            };
            let Some(member) = self.lost_some.wait_for(lost).await else { return };
            let Some(shard) = shard.upgrade() else { return };
            shard.peer_lost(member);
        }
    }

    /// Cuts all links; nothing is sent any more.
    pub fn close(&self) {
        self.closed.set(true);
        for peer in std::mem::take(&mut *self.links.borrow_mut()).into_values() {
            if let Some(link) = peer.link {
                link.cut();
            }
        }
        self.lost_some.notify_all();
    }

    /// What was sent to a member may not have come.
    fn lose(&self, member: ChainMember) {
        let mut lost = self.lost.borrow_mut();
        if !self.closed.get() && !lost.contains(&member) {
            lost.push_back(member);
            self.lost_some.notify_all();
        }
    }

    /// The link to a member, opened now if it may be.
    fn link(&self, member: &ChainMember) -> Option<Link> {
        if self.closed.get() {
            return None;
        }
        let now = self.clock.monotonic();
        let mut links = self.links.borrow_mut();
        let peer = links.get(&key(member));
        if let Some(link) = peer.and_then(|peer| peer.link.as_ref()).filter(|link| link.is_open()) {
            return Some(link.clone());
        }
        if peer.is_some_and(|peer| peer.link.is_some() || now < peer.not_before) {
            return None;
        }
        let Some(address) = self.directory.address(member) else {
            links.remove(&key(member));
            return None;
        };
        let wait = peer.map_or(Duration::from_millis(BACKGROUND_RETRY_MS_MIN), |peer| peer.wait);
        let target = LinkTarget { address, node: member.node, shard: member.shard };
        let (me, member) = (self.me.clone(), *member);
        let link = Link::open(target, self.config.clone(), move |end| {
            if let Some(me) = me.upgrade() {
                me.ended(member, &end);
            }
        });
        links.insert(key(&member), Peer { link: Some(link.clone()), opened: now, not_before: now, wait });
        Some(link)
    }

    /// Links that ended so far.
    pub fn links_lost(&self) -> u64 {
        self.links_lost.get()
    }

    fn ended(&self, member: ChainMember, end: &LinkEnd) {
        self.links_lost.set(self.links_lost.get() + 1);
        let now = self.clock.monotonic();
        if let Some(peer) = self.links.borrow_mut().get_mut(&key(&member)) {
            let (min, max) = (BACKGROUND_RETRY_MS_MIN, BACKGROUND_RETRY_MS_MAX);
            if now.duration_since(peer.opened) >= Duration::from_millis(max) {
                peer.wait = Duration::from_millis(min);
            }
            peer.link = None;
            peer.not_before = now + peer.wait;
            peer.wait = (2 * peer.wait).min(Duration::from_millis(max));
        }
        if self.closed.get() {
            return;
        }
        // A node whose process is another one by now is no news.
        match self.directory.incarnation(member.node) == Some(member.incarnation) {
            true => tracing::warn!(node = %member.node, shard = %member.shard, reason = %end, "a link ended"),
            false => drop(self.links.borrow_mut().remove(&key(&member))),
        }
        self.lose(member);
    }
}

impl Peers for TcpPeers {
    fn send(&self, to: &ChainMember, message: PeerMessage<SharedSlice>) {
        self.send_with(to, message, Room::default());
    }

    fn send_with(&self, to: &ChainMember, message: PeerMessage<SharedSlice>, room: Room) {
        let Some(link) = self.link(to) else { return self.lose(*to) };
        let (message, runs) = message.split(|run| run.len() as u32);
        let bulk = runs.into_iter().map(|run| SharedBytes::whole(Rc::new(run))).collect();
        link.send(Api::Peer, &message, bulk, room.0);
    }

    fn room(&self, to: &ChainMember, bytes: u64) -> Pin<Box<dyn Future<Output = Room>>> {
        let room = self.link(to).map(|link| link.room(bytes as usize));
        Box::pin(async move {
            match room {
                Some(room) => Room(room.await.ok()),
                None => Room::default(),
            }
        })
    }

    fn knows_explain(&self, to: &ChainMember) -> bool {
        let protocol = self.link(to).and_then(|link| link.protocol());
        protocol.is_some_and(|protocol| protocol >= EXPLAIN_PROTOCOL)
    }

    fn complain(&self, complaint: Complaint) {
        let Complaint { range, epoch, about, reason, .. } = complaint;
        tracing::debug!(%range, %epoch, %about, ?reason, "complaining to the controller");
        self.complaints.leave(complaint);
    }
}
