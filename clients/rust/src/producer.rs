//! The producer of one topic.
//!
//! `intake` gathers records into one batch per partition, within a bound of memory; `sender`, a task, seals batches,
//! sends them and retries; `queue`, pure, decides for one partition what is sent when and what an answer means: its
//! documentation says what is promised and what happens when a producer is forgotten or a batch fails for good.

use std::sync::Arc;

use minikafka_core::checksum::partition_of_key;
use minikafka_core::wire::TopicDescription;
use minikafka_core::{Partition, Timestamp};

use crate::client::ClientShared;
use crate::error::Result;

mod delivery;
mod gathering;
mod intake;
mod line;
mod options;
mod queue;
mod sealing;
mod sender;
mod sticky;
mod unresolved;

pub use delivery::{BatchDelivery, DeliveredRun, Delivery, DeliveryFuture};
pub use options::ProducerOptions;

/// A record to be sent, borrowed from the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord<'a> {
    /// Where it goes. None: by its key, or to the partition that is being filled.
    pub partition: Option<Partition>,
    /// Key, if any: records of one key go to one partition and keep their order.
    pub key: Option<&'a [u8]>,
    /// Value; none makes the record a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the Unix epoch. None: now.
    pub timestamp: Option<Timestamp>,
    /// Headers, in order; names may repeat.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> ProducerRecord<'a> {
    /// A record without a key.
    pub const fn value(value: &'a [u8]) -> Self {
        Self { partition: None, key: None, value: Some(value), timestamp: None, headers: &[] }
    }

    /// A record with a key.
    pub const fn keyed(key: &'a [u8], value: &'a [u8]) -> Self {
        Self { partition: None, key: Some(key), value: Some(value), timestamp: None, headers: &[] }
    }

    /// The same record for a chosen partition.
    #[must_use]
    pub const fn to(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// Sends records to one topic. Cheap to clone; clones share memory bound, batches and sequence numbers. When the last one
/// is dropped, what was accepted is still sent, as long as the runtime lives; [`Producer::close`] waits for it.
///
/// Records of one partition are stored in the order in which `send` took them, exactly once. A record whose delivery
/// fails is not stored, unless the error says that the outcome is unknown ([`crate::Error::is_outcome_unknown`]); later
/// records are stored without it.
///
/// ```no_run
/// use minikafka_client::{Client, ProducerOptions, ProducerRecord};
///
/// # async fn run(client: Client) -> minikafka_client::Result<()> {
/// let producer = client.producer("orders", ProducerOptions::default()).await?;
/// for order in 0..1_000_000_u64 {
///     // Waits for memory only; the delivery may be dropped, `flush` tells of failures.
///     drop(producer.send(ProducerRecord::keyed(&order.to_le_bytes(), b"bought")).await?);
/// }
/// producer.flush().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// Closes the intake when the last producer is dropped.
#[derive(Debug)]
struct Handle {
    intake: Arc<intake::Intake>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.intake.close();
    }
}

impl Producer {
    pub(crate) fn start(
        client: Arc<ClientShared>,
        topic: Arc<TopicDescription>,
        options: ProducerOptions,
    ) -> Result<Self> {
        options.check()?;
        let intake = Arc::new(intake::Intake::new(topic, options));
        tokio::spawn(sender::Sender::new(client, intake.clone()).run());
        Ok(Self { handle: Arc::new(Handle { intake }) })
    }

    /// Takes a record into the batch of its partition; waits only for memory, in FIFO order. Cancel-safe: a dropped
    /// future has taken the record wholly or not at all, and without its [`DeliveryFuture`] it has not.
    ///
    /// # Errors
    /// [`crate::Error::RecordTooLarge`], [`crate::Error::InvalidRecord`], [`crate::Error::NoSuchPartition`],
    /// [`crate::Error::Closed`].
    pub async fn send(&self, record: ProducerRecord<'_>) -> Result<DeliveryFuture> {
        // An application that always finds memory must still let its own sender run.
        tokio::task::coop::consume_budget().await;
        self.handle.intake.send(&record).await
    }

    /// [`Producer::send`] without waiting.
    ///
    /// # Errors
    /// [`crate::Error::BufferFull`] besides those of [`Producer::send`].
    pub fn try_send(&self, record: ProducerRecord<'_>) -> Result<DeliveryFuture> {
        self.handle.intake.try_send(&record)
    }

    /// Takes many records of one partition (`partition`, or the one that is being filled) in their order; the records'
    /// own `partition` fields and keys do not choose. Cheaper per record than [`Producer::send`]. Records of several
    /// calls for one partition at the same time may interleave.
    ///
    /// # Errors
    /// As [`Producer::send`]; the records before the one at fault are sent.
    pub async fn send_batch<'a>(
        &self,
        partition: Option<Partition>,
        records: impl IntoIterator<Item = ProducerRecord<'a>>,
    ) -> Result<BatchDelivery> {
        let intake = &self.handle.intake;
        let partition = partition.map_or_else(|| Ok(intake.sticky.current()), |partition| intake.check(partition))?;
        let mut records = records.into_iter();
        let mut runs = Vec::new();
        let mut next = records.next();
        while let Some(record) = next {
            next = intake.send_run(partition, record, &mut records, &mut runs).await?;
        }
        Ok(BatchDelivery::new(runs))
    }

    /// Sends what is gathered without lingering, and waits until everything accepted before this call is stored or has
    /// failed: at most the delivery timeout.
    ///
    /// # Errors
    /// The first failure of any record since the last flush, whether or not its delivery was awaited.
    pub async fn flush(&self) -> Result<()> {
        let end = self.handle.intake.start_flush();
        self.handle.intake.unresolved.all_before(end).await
    }

    /// Takes no further record through any clone, and flushes.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<()> {
        self.handle.intake.close();
        self.flush().await
    }

    /// The topic.
    pub fn topic(&self) -> &TopicDescription {
        &self.handle.intake.topic
    }

    /// The partition that records of this key go to.
    pub fn partition_of(&self, key: &[u8]) -> Partition {
        partition_of_key(key, self.handle.intake.topic.partitions)
    }
}
