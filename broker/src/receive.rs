//! What other members' shards send: from the frame to the range.
//!
//! Entries are received run by run into memory of their own, in which the range checks and takes them; a large one goes to
//! disk, and on to the next member, from where it was received (DESIGN section 5, "Replicate"). That memory has a
//! budget, and a link on which more comes than fits is not read for a while: it is freed by this shard's own disk alone, so
//! that two shards never wait for each other. Absent: any look into entries, which is the range's.

use std::rc::Rc;

use minikafka_core::ErrorCode;
use minikafka_core::chain::peer::PeerMessage;
use minikafka_core::entry::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES, EntryHeader};
use minikafka_core::limits::{RECEIVE_BUFFER_BYTES_MIN, UNCOPIED_BODY_BYTES_MIN};
use minikafka_core::wire::RunBytes;
use minikafka_net::{BufferPool, Bulk, Hangup, Request};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Permit;
use minikafka_storage::{BodyBuffer, SharedSlice};

use crate::service::ShardService;

/// A run of this size is received where it can be written from.
const LARGE_RUN_BYTES_MIN: usize = ENTRY_HEADER_BYTES + UNCOPIED_BODY_BYTES_MIN as usize;

impl<D: Disk> ShardService<D> {
    /// Takes one message of another member. There is no answer to it but what the range says over its own link.
    pub(crate) async fn peer(&self, mut request: Request<'_>) -> Result<(), Hangup> {
        let message: PeerMessage<RunBytes> = request.message()?;
        let Request { mut bulk, reply, .. } = request;
        if message.bulk_bytes() as usize != bulk.len() {
            reply.fail(ErrorCode::MalformedFrame);
            return Err(Hangup::new());
        }
        reply.owe_nothing();
        let mut runs = Vec::new();
        if !bulk.is_empty() {
            let lengths = gathered(&message.runs(), message.may_gather());
            let memory_bytes = lengths.iter().map(|&bytes| memory_bytes::<D>(bytes)).sum();
            let permit = Rc::new(self.shard.peer_budget.take(memory_bytes).await);
            for bytes in lengths {
                runs.push(self.receive_run(&mut bulk, bytes, permit.clone()).await?);
            }
        }
        self.shard.receive(message.join(runs));
        Ok(())
    }
}

impl<D: Disk> ShardService<D> {
    async fn receive_run(&self, bulk: &mut Bulk<'_>, bytes: usize, permit: Rc<Permit>) -> Result<SharedSlice, Hangup> {
        if !is_large(bytes) {
            let mut run = SmallRun::new(&self.shard.peer_buffers, bytes, permit);
            bulk.receive_part(&mut run.buffer[..bytes]).await?;
            return Ok(SharedSlice::new(Rc::new(run), 0..bytes));
        }
        let mut buffer = BodyBuffer::for_entry(self.shard.disk(), bytes);
        bulk.receive_part(buffer.entry_mut()).await?;
        Ok(SharedSlice::of_owner(Rc::new(LargeRun::<D> { buffer, _permit: permit }), 0..bytes))
    }
}

/// Whether a run may be one large entry.
const fn is_large(bytes: usize) -> bool {
    bytes >= LARGE_RUN_BYTES_MIN && bytes.is_multiple_of(ENTRY_ALIGNMENT)
}

fn memory_bytes<D: Disk>(bytes: usize) -> u64 {
    match is_large(bytes) {
        false if is_pooled(bytes) => bytes.next_power_of_two() as u64,
        false => bytes as u64,
        true => BodyBuffer::<D>::memory_bytes((bytes - ENTRY_HEADER_BYTES) as u32),
    }
}

/// Small entries, with their part of the budget. Up to a megabyte that lives for as long as it takes to append it: asked of
/// the allocator each time, the kernel gives, clears and takes it back, 8 % of a member's processor time.
struct SmallRun {
    buffer: Box<[u8]>,
    bytes: usize,
    pool: Rc<BufferPool>,
    _permit: Rc<Permit>,
}

impl SmallRun {
    fn new(pool: &Rc<BufferPool>, bytes: usize, permit: Rc<Permit>) -> Self {
        let buffer = if is_pooled(bytes) { pool.take(bytes) } else { vec![0; bytes].into() };
        Self { buffer, bytes, pool: pool.clone(), _permit: permit }
    }
}

impl AsRef<[u8]> for SmallRun {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.bytes]
    }
}

impl Drop for SmallRun {
    fn drop(&mut self) {
        if is_pooled(self.bytes) {
            self.pool.put(std::mem::take(&mut self.buffer));
        }
    }
}

const fn is_pooled(bytes: usize) -> bool {
    bytes >= RECEIVE_BUFFER_BYTES_MIN as usize
}

/// One large entry, or many in a row, with their part of the budget.
pub(crate) struct LargeRun<D: Disk> {
    buffer: BodyBuffer<D>,
    _permit: Rc<Permit>,
}

impl<D: Disk> AsRef<[u8]> for LargeRun<D> {
    fn as_ref(&self) -> &[u8] {
        self.buffer.entry()
    }
}

/// The body of an entry that fills `run`, to be appended: from where it was received, if nobody else holds that.
pub(crate) fn whole_body<D: Disk>(run: SharedSlice, header: &EntryHeader) -> Result<BodyBuffer<D>, SharedSlice> {
    if run.len() != header.entry_bytes() {
        return Err(run);
    }
    run.into_owner::<LargeRun<D>>().map(|run| run.buffer.holding(header.body_bytes))
}

/// Lengths of what is received at once: large runs by themselves, small ones that follow each other together, if they `may`.
fn gathered(runs: &[RunBytes], may: bool) -> Vec<usize> {
    let mut lengths = Vec::with_capacity(runs.len().min(16));
    let mut is_open = false;
    for &run in runs {
        let is_small = !is_large(run as usize);
        match lengths.last_mut().filter(|_| is_small && is_open) {
            Some(last) => *last += run as usize,
            None => lengths.push(run as usize),
        }
        is_open = is_small && may;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use minikafka_core::batch::{BatchBuilder, RecordRef};
    use minikafka_core::{
        LogIndex, Partition, PartitionKey, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, RunningHash, Sequence,
        Timestamp, TopicId,
    };
    use minikafka_storage::disk::Durability;
    use minikafka_storage::disk::sim::{SimDisk, SimExecutor};
    use minikafka_storage::wait::ByteBudget;

    use super::*;

    /// A whole entry with a value of so many bytes.
    fn entry(value_bytes: usize) -> (EntryHeader, Vec<u8>) {
        let mut builder = BatchBuilder::with_capacity(10);
        let value = vec![7; value_bytes];
        builder.push(RecordRef { value: Some(&value), ..RecordRef::at(Timestamp(1)) }).expect("it fits");
        let finished = builder.finish();
        let range = RangeKey { ring: RingId(1), range: RangeId(5) };
        let partition = PartitionKey { topic: TopicId(7), partition: Partition(0) };
        let mut header = finished.header(range, partition, (ProducerId(9), ProducerEpoch(0), Sequence(0)));
        header.index = LogIndex(1);
        header.seal(RunningHash(0));
        let mut bytes = [&header.encode()[..], &finished.body].concat();
        bytes.resize(header.entry_bytes(), 0);
        (header, bytes)
    }

    #[test]
    fn a_large_entry_is_appended_from_where_it_was_received() {
        let executor = SimExecutor::new(1);
        let disk = SimDisk::new(&executor, Durability::Dsync);
        let budget = ByteBudget::new(1 << 20);
        let received = |bytes: &[u8]| {
            let mut buffer = BodyBuffer::for_entry(&disk, bytes.len());
            buffer.entry_mut().copy_from_slice(bytes);
            let permit = Rc::new(budget.try_take(bytes.len() as u64).expect("there is room"));
            SharedSlice::of_owner(Rc::new(LargeRun::<SimDisk> { buffer, _permit: permit }), 0..bytes.len())
        };
        let (header, bytes) = entry(200_003);
        let run = received(&bytes);
        let (address, body_bytes) = (run.as_ptr().addr(), header.body_bytes as usize);
        let body = whole_body::<SimDisk>(run, &header).expect("nobody else holds it");
        assert_eq!(body.body().as_ptr().addr(), address + ENTRY_HEADER_BYTES, "the same memory");
        assert!(body.body() == &bytes[ENTRY_HEADER_BYTES..][..body_bytes]);
        assert_eq!(budget.bytes_used(), 0, "from now on it is the log's");

        let shared = received(&bytes);
        let other = shared.clone();
        assert!(whole_body::<SimDisk>(shared, &header).is_err_and(|run| *run == *other), "another one holds it");
        let two = received(&[&bytes[..], &bytes].concat());
        assert!(whole_body::<SimDisk>(two, &header).is_err(), "more than one entry");
        assert!(whole_body::<SimDisk>(SharedSlice::new(Rc::new(bytes.clone()), 0..bytes.len()), &header).is_err());
    }

    #[test]
    fn small_runs_are_received_together_and_large_ones_alone() {
        let large = LARGE_RUN_BYTES_MIN as u32;
        assert!(gathered(&[], true).is_empty());
        assert_eq!(gathered(&[160, 320, 128], true), [608]);
        assert_eq!(gathered(&[160, 320, 128], false), [160, 320, 128], "items of a segment stay apart");
        let big = large as usize;
        assert_eq!(gathered(&[160, large, large, 128, 144, large, 160], true), [160, big, big, 272, big, 160]);
    }
}
