//! One node of the world: its machine, its log and disk, and what of them survives a crash.

use super::*;

pub(super) type LogEntry = (EntryHeader, Option<ControlEntry>);

/// What a disk has to do, in order.
pub(super) enum DiskOp {
    /// Make the log durable up to here.
    Flush(LogIndex),
    Promise(Epoch),
    Marker(Epoch),
    Truncate(LogPoint),
    Read(LogIndex),
    /// Not the disk's: a connection that cannot be opened.
    Lost(ChainMember),
}

pub(super) struct Node {
    pub replica: Replica,
    /// As it was when its links last broke: its neighbours know it by that name.
    pub last_me: ChainMember,
    pub log: Vec<LogEntry>,
    /// So many entries of the log are durable.
    pub durable: usize,
    pub disk: VecDeque<DiskOp>,
    /// Epoch, stream, to whom, and how many entries were sent or skipped.
    pub sending: Option<(Epoch, StreamId, ChainMember, usize)>,
    /// Entries whose commit was looked at.
    pub checked: usize,
    promised: Epoch,
    marker: Epoch,
    bodies: BTreeMap<u64, Option<ControlEntry>>,
    last_body: u64,
}

/// Requests that name bodies are apart from those that are answered.
const BODIES: u64 = 1 << 40;

impl Node {
    pub fn new(at: usize) -> Self {
        let member = Member::new(at as u32 + 1);
        Self {
            last_me: member.me(),
            replica: member.replica,
            log: Vec::new(),
            durable: 0,
            disk: VecDeque::new(),
            sending: None,
            checked: 0,
            promised: Epoch(0),
            marker: Epoch(0),
            bodies: BTreeMap::new(),
            last_body: BODIES,
        }
    }

    pub fn me(&self) -> ChainMember {
        self.replica.me()
    }

    /// What was durable is kept, and perhaps some of what was under way.
    pub fn crash(&mut self, random: &mut Random) {
        let under_way = random.below(self.disk.len() + 1);
        for _ in 0..under_way {
            self.finish_disk();
        }
        self.log.truncate(self.durable);
        let me = ChainMember { incarnation: Incarnation(self.me().incarnation.0 + 1), ..self.me() };
        let state = fold(&self.log);
        let recovered = Recovered { state, promised: self.promised, marker: self.marker, damaged: false };
        self.replica = Replica::new(RANGE, me, recovered);
        self.disk.clear();
        self.bodies.clear();
        self.sending = None;
        self.checked = 0;
    }

    /// Names the body of an entry that came from another member.
    pub fn body(&mut self, _header: &EntryHeader, control: &Option<ControlEntry>) -> RequestId {
        self.last_body += 1;
        self.bodies.insert(self.last_body, control.clone());
        RequestId(self.last_body)
    }

    pub fn append(&mut self, header: EntryHeader, body: &AppendBody, produced: Option<RequestId>) {
        let control = match body {
            AppendBody::Request(request) if Some(*request) == produced => None,
            AppendBody::Request(request) => self.bodies.remove(&request.0).expect("a body came with its request"),
            AppendBody::Control(bytes) => {
                Some(<ControlEntry as crate::wire::codec::Wire>::from_bytes(bytes).expect("the machine encoded it"))
            }
        };
        assert_eq!(header.index.0 as usize, self.log.len() + 1, "the log takes entries in order");
        self.log.push((header, control));
        self.disk.push_back(DiskOp::Flush(header.index));
    }

    /// Finishes the oldest thing that the disk has to do.
    pub fn finish_disk(&mut self) -> Option<Input> {
        Some(match self.disk.pop_front()? {
            DiskOp::Flush(index) => {
                self.durable = self.durable.max(index.0 as usize);
                Input::Durable { index }
            }
            DiskOp::Promise(epoch) => {
                self.promised = self.promised.max(epoch);
                Input::PromiseDurable { epoch }
            }
            DiskOp::Marker(epoch) => {
                self.marker = self.marker.max(epoch);
                Input::MarkerDurable { epoch }
            }
            DiskOp::Truncate(end) => {
                assert_eq!(self.point(end.index), Some(end), "a cut names a point of the log");
                self.log.truncate(end.index.0 as usize);
                self.durable = self.log.len();
                Input::Truncated { state: Box::new(fold(&self.log)) }
            }
            DiskOp::Read(index) => Input::PointRead { index, point: self.point(index) },
            DiskOp::Lost(member) => Input::PeerLost { member },
        })
    }

    fn point(&self, index: LogIndex) -> Option<LogPoint> {
        let Some(at) = index.0.checked_sub(1) else { return Some(LogPoint::START) };
        self.log.get(at as usize).map(|(header, _)| LogPoint { index, hash: header.running_hash })
    }

    /// What this node answers as a source.
    pub fn copy(
        &self,
        meant: ChainMember,
        epoch: Epoch,
        purpose: CopyPurpose,
        after: LogPoint,
        until: LogIndex,
        random: &mut Random,
    ) -> CopyOutcome<LogEntry> {
        if meant != self.me() {
            return CopyOutcome::Refused { code: ErrorCode::NotOwner };
        }
        match self.replica.copy_limit(epoch, purpose) {
            Err(code) => CopyOutcome::Refused { code },
            Ok(limit) if self.point(after.index) != Some(after) => CopyOutcome::Disagreed { limit },
            Ok(limit) => {
                let count = (limit.min(until).0.saturating_sub(after.index.0) as usize).min(random.below(6) + 1);
                let entries = self.log.iter().skip(after.index.0 as usize).take(count).cloned().collect();
                CopyOutcome::Agreed { limit, entries }
            }
        }
    }
}

pub(super) fn fold(log: &[LogEntry]) -> RangeState {
    let mut state = RangeState::default();
    log.iter().for_each(|(header, control)| state.apply(header, control.as_ref()));
    state
}
