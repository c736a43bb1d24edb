//! Explain: what became of one produce or fetch, stage by stage and hop by hop (`docs/PROTOCOL.md`, "Explain").
//!
//! An explanation stands behind the fields of a reply whose frame says so, and in what a successor tells its predecessor.
//! Promise: what decodes is bounded ([`CHAIN_MAX`] hops, [`EXPLAIN_STAGES_MAX`] stages each), and every stage lies within
//! its hop. Absent: clocks, which are whoever's who measures.

use super::codec::{DecodeError, Reader, Wire, wire_struct};
use crate::ids::*;
use crate::limits::{CHAIN_MAX, EXPLAIN_STAGES_MAX};

/// First protocol in which there is explain; on a connection of an older one nobody is asked.
pub const EXPLAIN_PROTOCOL: u16 = 2;

/// What a request waits for or works on, one after the other; but for `successor`, which goes on beside `durable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Produce: until the body is in memory, waiting for that memory included.
    Receive,
    /// Produce, at the head: checking the body and its columns.
    Checksum,
    /// Produce: until the log has taken the entry, waiting for room in it included.
    Append,
    /// Produce: from the append until the entry is on this member's stable storage.
    Durable,
    /// Produce: from the append until the successor, and everybody behind it, has said the same.
    Successor,
    /// Produce: from then until the reply, or the acknowledgement to the predecessor, is queued.
    Answer,
    /// Fetch: waiting for a part of the fetch budget.
    Memory,
    /// Fetch: reading entries from memory or disk.
    Read,
    /// Fetch: waiting for new records, as its client asked for.
    Wait,
    /// Fetch: waiting until other members have given what was damaged here.
    Mend,
    /// Fetch: waiting until the client took earlier replies.
    Room,
    /// One that a later release knows.
    Other(u8),
}

impl Stage {
    const NAMED: [(u8, Self, &'static str); 11] = [
        (1, Self::Receive, "receive"),
        (2, Self::Checksum, "checksum"),
        (3, Self::Append, "append"),
        (4, Self::Durable, "durable"),
        (5, Self::Successor, "successor"),
        (6, Self::Answer, "answer"),
        (16, Self::Memory, "memory"),
        (17, Self::Read, "read"),
        (18, Self::Wait, "wait"),
        (19, Self::Mend, "mend"),
        (20, Self::Room, "room"),
    ];

    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Other(number) => number,
            stage => Self::NAMED.iter().find(|(_, named, _)| *named == stage).map_or(0, |(number, ..)| *number),
        }
    }

    /// The stage of a number from the wire.
    pub fn from_number(number: u8) -> Self {
        let named = Self::NAMED.iter().find(|(of, ..)| *of == number);
        named.map_or(Self::Other(number), |(_, stage, _)| *stage)
    }

    /// Its name; "other" of one that a later release knows.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, named, _)| *named == self).map_or("other", |(.., name)| name)
    }
}

impl Wire for Stage {
    fn put(&self, out: &mut Vec<u8>) {
        self.number().put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.take().map(Self::from_number)
    }
}

wire_struct! {
    /// One stage of one hop.
    StageSpan {
        /// Which.
        stage: Stage,
        /// When it began, in microseconds since the hop did.
        start_us: u32,
        /// How long it took, in microseconds.
        took_us: u32,
    }
}

/// What one shard says of a request. Times are of its own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Its node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
    /// From the request's arrival until its answer was queued, in microseconds.
    pub whole_us: u32,
    /// In the order in which they ended; none: it could not tell.
    pub stages: Vec<StageSpan>,
}

impl Hop {
    /// A hop of which nothing is known but whose it was.
    pub const fn untold(node: NodeId, shard: ShardId) -> Self {
        Self { node, shard, whole_us: 0, stages: Vec::new() }
    }

    /// How long a stage took, in microseconds, however often it came; none when it did not.
    pub fn took_us(&self, stage: Stage) -> Option<u32> {
        let times = self.stages.iter().filter(|span| span.stage == stage).map(|span| span.took_us);
        times.fold(None, |sum: Option<u32>, took_us| Some(sum.unwrap_or(0).saturating_add(took_us)))
    }
}

impl Wire for Hop {
    fn put(&self, out: &mut Vec<u8>) {
        let Self { node, shard, whole_us, stages } = self;
        node.put(out);
        shard.put(out);
        whole_us.put(out);
        stages.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (node, shard, whole_us) = (reader.take()?, reader.take()?, reader.take()?);
        let stages: Vec<StageSpan> = take_at_most(reader, EXPLAIN_STAGES_MAX, "stages")?;
        let is_within = |span: &StageSpan| span.start_us.checked_add(span.took_us).is_some_and(|end| end <= whole_us);
        if !stages.iter().all(is_within) {
            return Err(DecodeError::Field { field: "stage time" });
        }
        Ok(Self { node, shard, whole_us, stages })
    }
}

/// The way of one request: the shard that was asked, and of a produce everybody behind it in the chain, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// At most [`CHAIN_MAX`].
    pub hops: Vec<Hop>,
}

impl Wire for Explanation {
    fn put(&self, out: &mut Vec<u8>) {
        self.hops.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        take_at_most(reader, CHAIN_MAX, "hops").map(|hops| Self { hops })
    }
}

fn take_at_most<T: Wire>(reader: &mut Reader<'_>, most: usize, field: &'static str) -> Result<Vec<T>, DecodeError> {
    let count = reader.take::<u32>()? as usize;
    if count > most {
        return Err(DecodeError::Field { field });
    }
    (0..count).map(|_| reader.take()).collect()
}

/// A reply's message with its explanation behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained<M> {
    /// As without.
    pub message: M,
    /// What became of the request.
    pub explanation: Explanation,
}

impl<M: Wire> Wire for Explained<M> {
    fn put(&self, out: &mut Vec<u8>) {
        self.message.put(out);
        self.explanation.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { message: reader.take()?, explanation: reader.take()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ProduceReply;

    fn span(stage: Stage, start_us: u32, took_us: u32) -> StageSpan {
        StageSpan { stage, start_us, took_us }
    }

    fn hop(stages: Vec<StageSpan>) -> Hop {
        Hop { node: NodeId(2), shard: ShardId(1), whole_us: 100, stages }
    }

    fn decoded(hops: Vec<Hop>) -> Result<Explanation, DecodeError> {
        Explanation::from_bytes(&Explanation { hops }.to_bytes())
    }

    #[test]
    fn a_reply_and_its_explanation_come_back() {
        let explanation = Explanation {
            hops: vec![
                hop(vec![span(Stage::Receive, 0, 10), span(Stage::Durable, 10, 90), span(Stage::Other(99), 100, 0)]),
                Hop::untold(NodeId(3), ShardId(0)),
            ],
        };
        let message = ProduceReply { base_offset: Offset(7), append_timestamp: Timestamp(8) };
        let explained = Explained { message, explanation };
        let bytes = explained.to_bytes();
        assert_eq!(bytes.len(), 16 + 4 + (14 + 3 * 9) + 14);
        assert_eq!(Explained::from_bytes(&bytes), Ok(explained));
        let cut = Explained::<ProduceReply>::from_bytes(&bytes[..16]);
        assert_eq!(cut, Err(DecodeError::Truncated { missing: 4 }), "a flag without its section");
    }

    #[test]
    fn every_stage_has_one_number_and_one_name() {
        for (number, stage, name) in Stage::NAMED {
            assert_eq!((Stage::from_number(number), stage.number(), stage.name()), (stage, number, name));
        }
        assert_eq!((Stage::from_number(200), Stage::Other(200).name()), (Stage::Other(200), "other"));
    }

    #[test]
    fn what_is_told_is_bounded_before_it_is_believed() {
        let many = vec![span(Stage::Read, 0, 1); EXPLAIN_STAGES_MAX];
        assert!(decoded(vec![hop(many.clone()); CHAIN_MAX]).is_ok());
        let field = |field| Err(DecodeError::Field { field });
        assert_eq!(decoded(vec![hop(Vec::new()); CHAIN_MAX + 1]), field("hops"));
        assert_eq!(decoded(vec![hop([many, vec![span(Stage::Read, 0, 1)]].concat())]), field("stages"));
        for (start_us, took_us) in [(0, 101), (101, 0), (u32::MAX, u32::MAX)] {
            assert_eq!(decoded(vec![hop(vec![span(Stage::Wait, start_us, took_us)])]), field("stage time"));
        }
    }

    #[test]
    fn what_comes_twice_is_added_up() {
        let hop = hop(vec![span(Stage::Read, 0, 10), span(Stage::Wait, 10, 20), span(Stage::Read, 30, 5)]);
        assert_eq!((hop.took_us(Stage::Read), hop.took_us(Stage::Mend)), (Some(15), None));
    }
}
