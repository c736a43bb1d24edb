//! The machine by itself: every durable write and every message is delivered by hand, in the order that a test wants.

mod alone;
mod chain;
mod change;
mod learning;
mod mending;
mod segments;
mod world;

use super::change::DONE;
use super::head::control_header;
use super::*;
use crate::chain::peer::{Complaint, ComplaintReason, CopyPurpose};
use crate::control::ControlEntry;
use crate::entry::{BodyFormat, EntryHeader, EntryKind};
use crate::topic::TopicConfig;
use crate::wire::controller::{LearnReport, SealReport};

const RANGE: RangeKey = RangeKey { ring: RingId(1), range: RangeId(3) };
const PARTITION: PartitionKey = PartitionKey { topic: TopicId(9), partition: Partition(2) };
const NOW: Timestamp = Timestamp(1_000);

struct Member {
    replica: Replica,
    out: Vec<Output>,
    requests: u64,
}

impl Member {
    fn new(node: u32) -> Self {
        Self::restarted(
            node,
            1,
            Recovered { state: RangeState::default(), promised: Epoch(0), marker: Epoch(0), damaged: false },
        )
    }

    fn restarted(node: u32, incarnation: u64, recovered: Recovered) -> Self {
        let me = ChainMember {
            node: NodeId(node),
            shard: ShardId(0),
            store: StoreId(node.into()),
            incarnation: Incarnation(incarnation),
        };
        Self { replica: Replica::new(RANGE, me, recovered), out: Vec::new(), requests: 0 }
    }

    fn me(&self) -> ChainMember {
        self.replica.me
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.replica.step(NOW, input, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn seal(&mut self, epoch: u64) -> SealReport {
        let request = self.request();
        let mut out = self.step(Input::Seal { request, epoch: Epoch(epoch), members: Vec::new() });
        if out.contains(&Output::PersistPromise { epoch: Epoch(epoch) }) {
            out = self.step(Input::PromiseDurable { epoch: Epoch(epoch) });
        }
        match out.pop() {
            Some(Output::ReportSeal { report, .. }) => report,
            other => panic!("expected a seal report, got {other:?}"),
        }
    }

    fn reconcile_to_own_end(&mut self, epoch: u64) {
        let (request, end) = (self.request(), self.replica.state().end());
        let out = self.step(Input::Reconcile { request, epoch: Epoch(epoch), end, source: None });
        assert_eq!(out, [Output::PersistMarker { epoch: Epoch(epoch) }]);
        let out = self.step(Input::MarkerDurable { epoch: Epoch(epoch) });
        assert_eq!(out, [Output::Answer { request, answer: DONE }]);
    }

    fn activate(&mut self, epoch: u64, chain: &[ChainMember]) -> Vec<Output> {
        let (request, start) = (self.request(), self.replica.state().end());
        self.step(Input::Activate { request, epoch: Epoch(epoch), chain: chain.to_vec(), start })
    }

    fn produce(&mut self, believed: u64, sequence: i32) -> (RequestId, Vec<Output>) {
        let request = self.request();
        let header = batch(sequence);
        (request, self.step(Input::Produce { request, header, believed: Epoch(believed) }))
    }

    fn open_partition(&mut self, believed: u64) -> Vec<Output> {
        let request = self.request();
        let entry = ControlEntry::PartitionOpen {
            partition: PARTITION,
            config: TopicConfig::default(),
            version: ConfigVersion::FIRST,
            start_offset: Offset(0),
            previous: None,
        };
        self.step(Input::AppendControl { request, entry, believed: Epoch(believed) })
    }

    fn durable(&mut self, index: u64) -> Vec<Output> {
        self.step(Input::Durable { index: LogIndex(index) })
    }

    fn recovered(&self) -> Recovered {
        Recovered {
            state: self.replica.state.clone(),
            promised: self.replica.promised,
            marker: self.replica.marker,
            damaged: false,
        }
    }
}

fn batch(sequence: i32) -> EntryHeader {
    let opened = ControlEntry::PartitionDelete { partition: PARTITION };
    EntryHeader {
        kind: EntryKind::Batch,
        body_format: BodyFormat::Columnar,
        record_count: 10,
        last_offset_delta: 9,
        base_sequence: Sequence(sequence),
        producer_id: ProducerId(77),
        ..control_header(RANGE, &opened, b"body")
    }
}

fn header_of(out: &[Output]) -> EntryHeader {
    match out {
        [Output::Append { header, .. }] => *header,
        other => panic!("expected one append, got {other:?}"),
    }
}

fn codes(out: &[Output]) -> Vec<ErrorCode> {
    let code = |output: &Output| match output {
        Output::Answer { answer: Answer::Refused { code, .. }, .. } => Some(*code),
        _ => None,
    };
    out.iter().filter_map(code).collect()
}

/// A chain of one in epoch 1 with its partition open and committed at index 1.
fn alone() -> Member {
    let mut member = Member::new(1);
    member.seal(1);
    member.reconcile_to_own_end(1);
    let me = member.me();
    member.activate(1, &[me]);
    member.open_partition(1);
    member.durable(1);
    member
}

impl Member {
    fn control(&mut self, entry: ControlEntry) -> Vec<Output> {
        let (request, believed) = (self.request(), self.replica.epoch());
        self.step(Input::AppendControl { request, entry, believed })
    }

    fn active_with_records(records: i32) -> Self {
        let mut member = Self::new(1);
        let chain = [member.me()];
        member.seal(1);
        member.reconcile_to_own_end(1);
        member.activate(1, &chain);
        member.open_partition(1);
        for batch in 0..records / 10 {
            member.produce(1, batch * 10);
        }
        member.durable(1 + records as u64 / 10);
        member
    }
}
