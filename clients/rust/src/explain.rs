//! What became of one request, as its client saw it.

use std::time::Duration;

pub use minikafka_core::wire::{Hop, Stage, StageSpan};

/// Where the time of one produce or fetch went. Asked for by [`ProducerOptions::explain`] and [`ConsumerOptions::explain`].
///
/// [`ProducerOptions::explain`]: crate::ProducerOptions::explain
/// [`ConsumerOptions::explain`]: crate::ConsumerOptions::explain
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// From handing the request to its connection until the reply was here, by this client's clock.
    pub round_trip: Duration,
    /// Who worked on it: the shard that was asked, and of a produce the members behind it in the chain, in order. At least
    /// one. Times are of each one's own clock.
    pub hops: Vec<Hop>,
}

impl Explain {
    /// What is not in the first hop: the network, both ways, and the queues of connections.
    pub fn outside(&self) -> Duration {
        let whole_us = self.hops.first().map_or(0, |hop| hop.whole_us);
        self.round_trip.saturating_sub(Duration::from_micros(whole_us.into()))
    }
}
