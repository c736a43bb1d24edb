//! Reads every partition in full from each member of its chain, past all clients' ideas of who should be asked.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use minikafka_checker::{Member, Poll, RecordDump, RecordId, SessionId, payload};
use minikafka_client::core::entry::{ENTRY_HEADER_BYTES, EntryHeader, EntryKind};
use minikafka_client::core::wire::{Api, ChainPlace, FetchPartition, FetchReply, FetchRequest, FetchedPartition, Wire};
use minikafka_client::core::{ErrorCode, Offset, PartitionKey};
use minikafka_client::{Client, FetchedRecords, OffsetQuery};

use crate::load::Shared;

/// A member that has not told everything by then does not.
const READ_DEADLINE: Duration = Duration::from_secs(60);
/// Between two questions to a member that does not know enough yet.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Entry bytes of an answer.
const FETCH_BYTES: u32 = 4 << 20;

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replicas {
    /// Copies of partitions.
    pub copies: usize,
    /// Records in them.
    pub records: usize,
}

/// One member's copy of one partition, as far as it was read.
struct Copy<'s> {
    shared: &'s Shared,
    place: ChainPlace,
    key: PartitionKey,
    end: u64,
    session: SessionId,
    records: Vec<(u64, Result<RecordId, payload::Damage>)>,
}

/// Reads all copies into the history, which then judges them. All producers have ended. `life` tells lives of a node apart.
pub(crate) async fn read(shared: &Shared, life: impl Fn(u32) -> u64) -> Result<Replicas> {
    let client = Client::builder(&shared.setup.gateways).client_name("replica reader").connect().await?;
    let topic = client.topic(&shared.setup.topic).await?;
    let mut replicas = Replicas::default();
    for (partition, end) in client.list_offsets(&shared.setup.topic, OffsetQuery::Latest).await? {
        let map = client.refresh_map().await?;
        let range = map.range_of(&topic, partition).context("its ring is known")?;
        let ring = map.rings().find(|ring| ring.ring == range.ring).context("its ring is known")?;
        let places = ring.chains[range.range.0 as usize].places.clone();
        ensure!(!places.is_empty(), "partition {partition} has no chain");
        for place in places {
            let member = Member { node: place.node.0, life: life(place.node.0) };
            let session = shared.history().session(format!("replica of node {}", member.node), partition.0, 0);
            let key = PartitionKey { topic: topic.topic, partition };
            let mut copy = Copy { shared, place, key, end: end.0, session, records: Vec::new() };
            copy.read(&client, member).await.with_context(|| format!("{partition:?} at node {}", member.node))?;
            replicas.copies += 1;
            replicas.records += copy.records.len();
            let mut history = shared.history();
            history.finished(session);
            let records = copy.records;
            history.record_dump(RecordDump { partition: partition.0, member, first: 0, end: end.0, records });
        }
    }
    Ok(replicas)
}

impl Copy<'_> {
    async fn read(&mut self, client: &Client, member: Member) -> Result<()> {
        let deadline = Instant::now() + READ_DEADLINE;
        while self.position() < self.end {
            ensure!(Instant::now() < deadline, "it has told {} of {} records", self.position(), self.end);
            let before = self.position();
            let (fetched, entries) = self.fetch(client).await?;
            match fetched.error {
                None => self.take(&fetched, &entries, member)?,
                // Its chain has just changed, or it knows of no commit yet.
                Some(ErrorCode::Stale | ErrorCode::BeyondCommitted | ErrorCode::NotOwner) => {}
                Some(error) => anyhow::bail!("it answers {}", error.name()),
            }
            if self.position() == before {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
        Ok(())
    }

    async fn fetch(&self, client: &Client) -> Result<(FetchedPartition, Vec<u8>)> {
        let map = client.refresh_map().await?;
        let topic = client.topic(&self.shared.setup.topic).await?;
        let range = map.range_of(&topic, self.key.partition).context("its ring is known")?;
        let (_, shards) = map.nodes().find(|(node, _)| *node == self.place.node).context("the node is in the map")?;
        let address = shards.get(usize::from(self.place.shard.0)).context("the shard is in the map")?.to_string();
        let epoch = map.epoch_of(range);
        let (partition, offset) = (self.key, Offset(self.position()));
        let wanted = FetchPartition { range, epoch, partition, offset, bytes_max: FETCH_BYTES };
        let partitions = vec![wanted];
        let request = FetchRequest { wait_ms_max: 0, bytes_min: 1, bytes_max: FETCH_BYTES, partitions };
        let connection = client.connection(&address).await?;
        let reply = connection.request(Api::Fetch, &request.to_bytes(), Default::default(), READ_DEADLINE).await?;
        let fetched = FetchReply::from_bytes(&reply.head).map_err(Error::msg)?;
        let partition = fetched.partitions.into_iter().next().context("an answer for the one partition")?;
        Ok((partition, reply.bulk.to_vec()))
    }

    fn position(&self) -> u64 {
        self.records.last().map_or(0, |(offset, _)| offset + 1)
    }

    /// Takes the records that are asked for out of whole entries, which may begin before and end behind them.
    fn take(&mut self, fetched: &FetchedPartition, mut entries: &[u8], member: Member) -> Result<()> {
        let poll = Poll {
            member: Some(member),
            epoch: Some(fetched.epoch.0),
            committed: Some(fetched.committed_end.0),
            log_start: Some(fetched.log_start.0),
            ..Poll::default()
        };
        self.shared.history().poll(self.session, poll);
        while !entries.is_empty() {
            let header = EntryHeader::decode(entries).map_err(Error::msg)?;
            let body = entries[ENTRY_HEADER_BYTES..][..header.body_bytes as usize].to_vec();
            entries = &entries[header.entry_bytes()..];
            if header.kind == EntryKind::Batch {
                self.take_batch(header, body)?;
            }
        }
        Ok(())
    }

    fn take_batch(&mut self, header: EntryHeader, body: Vec<u8>) -> Result<()> {
        let batch = FetchedRecords::of_stored(header, body).map_err(Error::msg)?;
        for record in batch.records() {
            let offset = record.offset.0;
            if offset >= self.position() && offset < self.end {
                let read = payload::decode(record.key, record.value);
                self.shared.history().read_record(self.session, offset, read.clone());
                self.records.push((offset, read));
            }
        }
        Ok(())
    }
}
