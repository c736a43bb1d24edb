//! Where a broker's figures are asked for, from any thread: each shard answers for itself, and what the process knows is added.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use futures_channel::{mpsc, oneshot};
use futures_lite::future;
use minikafka_coordinator::SessionWatch;
use minikafka_metrics::Exposition;

use super::definitions::*;
use crate::config::BrokerConfig;

/// Questions that wait for a shard; of more, the askers go without it.
const ASKED_MAX: usize = 4;

/// What a shard is asked: to send its figures.
pub(crate) type Asked = oneshot::Sender<Exposition>;

/// Figures of one broker. Clones ask the same one.
#[derive(Clone)]
pub struct BrokerMetrics {
    shards: Vec<mpsc::Sender<Asked>>,
    session: Arc<SessionWatch>,
    info: [String; 3],
    data_dir: PathBuf,
}

impl BrokerMetrics {
    /// Of a broker with these settings, and where each of its shards hears questions.
    pub(crate) fn new(config: &BrokerConfig, session: Arc<SessionWatch>) -> (Self, Vec<mpsc::Receiver<Asked>>) {
        let (shards, asked) = (0..config.shards).map(|_| mpsc::channel(ASKED_MAX)).unzip();
        let info = [config.node.to_string(), config.rack.clone(), env!("CARGO_PKG_VERSION").to_owned()];
        (Self { shards, session, info, data_dir: config.data_dir.clone() }, asked)
    }

    /// Asks all shards at once, and goes without those that have not answered when `patience` ends.
    pub async fn collect(&self, patience: impl Future<Output = ()>) -> Exposition {
        let mut all = Exposition::default();
        self.expose_process(&mut all);
        let ask = |shard: &mpsc::Sender<Asked>| {
            let (answer, answered) = oneshot::channel();
            // A shard that cannot be asked drops the question, which ends the wait for it.
            let _ = shard.clone().try_send(answer);
            answered
        };
        let answers: Vec<_> = self.shards.iter().map(ask).collect();
        let mut silent = 0_u64;
        let mut patience = pin!(patience);
        let mut is_patient = true;
        for mut answer in answers {
            let answered = async { (&mut answer).await.ok() };
            let late = async {
                patience.as_mut().await;
                None
            };
            let exposition = match is_patient {
                true => future::or(answered, late).await,
                // Who answered meanwhile did so in time.
                false => answer.try_recv().ok().flatten(),
            };
            match exposition {
                Some(exposition) => all.merge(exposition),
                None => (silent, is_patient) = (silent + 1, false),
            }
        }
        all.add(&SHARDS_SILENT, &[], silent);
        all
    }

    fn expose_process(&self, to: &mut Exposition) {
        let [node, rack, version] = &self.info;
        to.add(&BROKER_INFO, &[node, rack, version], 1_u64);
        to.add(&COORDINATOR_CONNECTED, &[], self.session.is_connected());
        for (event, count) in self.session.events() {
            to.add(&COORDINATOR_SESSIONS, &[event], count);
        }
        match rustix::fs::statvfs(&self.data_dir) {
            Ok(disk) => {
                to.add(&DISK_FREE, &[], disk.f_bavail * disk.f_frsize);
                to.add(&DISK_SIZE, &[], disk.f_blocks * disk.f_frsize);
            }
            Err(error) => tracing::warn!(%error, "cannot tell how much space the disk has"),
        }
    }
}
