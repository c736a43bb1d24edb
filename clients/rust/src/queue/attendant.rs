//! The task that owns a queue's consumer.

use tokio::sync::{mpsc, oneshot};

use super::QueueDelivery;
use crate::error::Result;
use crate::group::{GroupConsumer, GroupRecord};

/// Somebody wants a record.
pub(super) type Pull = oneshot::Sender<Result<QueueDelivery>>;
/// Somebody wants it to end.
pub(super) type Close = oneshot::Sender<Result<()>>;

/// What became of a record that was out.
#[derive(Debug)]
pub(super) enum Settled {
    Handled(GroupRecord),
    GivenBack(GroupRecord),
}

/// Serves pulls until nobody can pull any more and nothing is out, or until it is closed.
pub(super) async fn attend(
    mut consumer: GroupConsumer,
    mut pulls: mpsc::Receiver<Pull>,
    mut closes: mpsc::Receiver<Close>,
) {
    // Bounded by the partitions: of each there is at most one record out.
    let (settle, mut settled) = mpsc::unbounded_channel();
    // One pull at a time is served; the others wait in the channel.
    let mut pulling: Option<Pull> = None;
    let close = loop {
        let is_pulling = pulling.is_some();
        tokio::select! {
            biased;
            // The other end is held here.
            Some(of) = settled.recv() => take(&mut consumer, of),
            Some(close) = closes.recv() => break Some(close),
            () = gone(&mut pulling), if is_pulling => pulling = None,
            pull = pulls.recv(), if !is_pulling => match pull {
                Some(pull) => pulling = Some(pull),
                None => break None,
            },
            record = next(&mut consumer, is_pulling) => {
                let is_over = record.is_err() && consumer.has_ended();
                let delivery = record.map(|record| {
                    consumer.hold(&record);
                    QueueDelivery { record, is_settled: false, settled: settle.clone() }
                });
                if let Some(pull) = pulling.take() {
                    // Whoever pulled may be gone: then it is dropped, that is, given back.
                    let _ = pull.send(delivery);
                }
                if is_over {
                    return;
                }
            }
        }
    };
    drop(settle);
    match close {
        Some(done) => {
            let _ = done.send(consumer.close().await);
        }
        None => {
            // What is out may still be acknowledged. Then it commits and leaves as it goes.
            drain(&mut consumer, &mut settled).await;
        }
    }
}

/// The next record if somebody pulls; otherwise the group is attended to, and only its end is told.
async fn next(consumer: &mut GroupConsumer, is_pulling: bool) -> Result<GroupRecord> {
    if is_pulling { consumer.next().await } else { Err(consumer.attend().await) }
}

/// Ends when whoever pulls does not wait any more.
async fn gone(pulling: &mut Option<Pull>) {
    match pulling {
        Some(pull) => pull.closed().await,
        None => std::future::pending().await,
    }
}

fn take(consumer: &mut GroupConsumer, settled: Settled) {
    match settled {
        Settled::Handled(record) => consumer.release(&record),
        Settled::GivenBack(record) => consumer.put_back(record),
    };
}

async fn drain(consumer: &mut GroupConsumer, settled: &mut mpsc::UnboundedReceiver<Settled>) {
    loop {
        tokio::select! {
            of = settled.recv() => match of {
                Some(of) => take(consumer, of),
                None => return,
            },
            _ended = consumer.attend() => return,
        }
    }
}
