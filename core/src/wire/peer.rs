//! What members of chains and the controller say to each other (`docs/PROTOCOL.md`, "Peers"): the wire form of
//! [`PeerMessage`], and complaints.
//!
//! A peer message is a frame without a reply. On the wire its entries are the bulk, and the head tells the length of each
//! run of them: so a [`PeerMessage`] over lengths is what is encoded and decoded, and [`PeerMessage::split`] and
//! [`PeerMessage::join`] change between that and the bytes, which nothing here looks at. Promise: what decodes is within
//! [`PEER_ENTRIES_BYTES_MAX`], whatever was announced. Absent: checking entries, which is the receiving range's.

use super::codec::{DecodeError, Reader, Wire, wire_form, wire_struct};
use super::explain::Explanation;
use crate::chain::peer::{
    Complaint, ComplaintReason, CopyOutcome, CopyPurpose, PeerBody, PeerMessage, SegmentCursor, SegmentItem,
    SegmentPart,
};
use crate::entry::{ENTRY_ALIGNMENT, ENTRY_HEADER_BYTES};
use crate::error_code::ErrorCode;
use crate::limits::PEER_ENTRIES_BYTES_MAX;

/// Bytes of one run of entries, which follow as bulk.
pub type RunBytes = u32;

impl<B> PeerMessage<B> {
    /// Takes the entries out: the message as it is sent, and what follows it as bulk, run for run.
    pub fn split(self, bytes: impl Fn(&B) -> RunBytes) -> (PeerMessage<RunBytes>, Vec<B>) {
        let mut runs = Vec::new();
        let message = self.replace_runs(|entries| {
            let lengths = entries.iter().map(bytes).collect();
            runs = entries;
            lengths
        });
        (message, runs)
    }

    /// The message with other entries.
    fn replace_runs<C>(self, replace: impl FnOnce(Vec<B>) -> Vec<C>) -> PeerMessage<C> {
        use PeerBody::*;
        let Self { range, epoch, body } = self;
        let body = match body {
            OpenStream { stream, from, to } => OpenStream { stream, from, to },
            StreamOpened { stream, end } => StreamOpened { stream, end },
            StreamRefused { stream, code } => StreamRefused { stream, code },
            Entries { stream, committed, entries } => Entries { stream, committed, entries: replace(entries) },
            Committed { stream, index } => Committed { stream, index },
            Acknowledged { stream, index } => Acknowledged { stream, index },
            Explain { stream, index } => Explain { stream, index },
            Explained { stream, index, hops } => Explained { stream, index, hops },
            CopyRequest { copy, from, to, purpose, after, until, segment } => {
                CopyRequest { copy, from, to, purpose, after, until, segment }
            }
            CopyReply { copy, outcome } => {
                let outcome = match outcome {
                    CopyOutcome::Agreed { limit, entries } => CopyOutcome::Agreed { limit, entries: replace(entries) },
                    CopyOutcome::Segment { limit, part } => {
                        CopyOutcome::Segment { limit, part: part.replace_runs(replace) }
                    }
                    CopyOutcome::Disagreed { limit } => CopyOutcome::Disagreed { limit },
                    CopyOutcome::Gone { limit } => CopyOutcome::Gone { limit },
                    CopyOutcome::Refused { code } => CopyOutcome::Refused { code },
                };
                CopyReply { copy, outcome }
            }
        };
        PeerMessage { range, epoch, body }
    }
}

impl<B> SegmentPart<B> {
    fn replace_runs<C>(self, replace: impl FnOnce(Vec<B>) -> Vec<C>) -> SegmentPart<C> {
        let Self { start, end, at, items } = self;
        let (mut runs, mut forms) = (Vec::new(), Vec::with_capacity(items.len()));
        for item in items {
            let (form, run) = match item {
                SegmentItem::Entries(run) => (SegmentItem::Entries(()), Some(run)),
                SegmentItem::Freed(to) => (SegmentItem::Freed(to), None),
                SegmentItem::Snapshot { total, bytes } => (SegmentItem::Snapshot { total, bytes: () }, Some(bytes)),
            };
            forms.push(form);
            runs.extend(run);
        }
        let mut runs = replace(runs).into_iter();
        let filled = forms.into_iter().map_while(|form| {
            Some(match form {
                SegmentItem::Entries(()) => SegmentItem::Entries(runs.next()?),
                SegmentItem::Freed(to) => SegmentItem::Freed(to),
                SegmentItem::Snapshot { total, bytes: () } => SegmentItem::Snapshot { total, bytes: runs.next()? },
            })
        });
        let items = filled.collect();
        SegmentPart { start, end, at, items }
    }
}

impl PeerMessage<RunBytes> {
    /// Its runs; none of a message that has no entries.
    pub fn runs(&self) -> Vec<RunBytes> {
        match &self.body {
            PeerBody::Entries { entries, .. }
            | PeerBody::CopyReply { outcome: CopyOutcome::Agreed { entries, .. }, .. } => entries.clone(),
            PeerBody::CopyReply { outcome: CopyOutcome::Segment { part, .. }, .. } => part.runs().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether runs that follow each other may as well be received as one.
    pub const fn may_gather(&self) -> bool {
        !matches!(self.body, PeerBody::CopyReply { outcome: CopyOutcome::Segment { .. }, .. })
    }

    /// Bytes of bulk that follow it.
    pub fn bulk_bytes(&self) -> u32 {
        // Decoding has held the sum to its bound; what is encoded is bounded by what is read from a log at once.
        self.runs().iter().sum()
    }

    /// The message with its entries, as they were received.
    #[must_use]
    pub fn join<B>(self, runs: Vec<B>) -> PeerMessage<B> {
        self.replace_runs(|_| runs)
    }
}

/// The first byte of a message. A release that sends a new kind gives it a new number; old ones refuse it.
mod kind {
    pub const OPEN_STREAM: u8 = 1;
    pub const STREAM_OPENED: u8 = 2;
    pub const STREAM_REFUSED: u8 = 3;
    pub const ENTRIES: u8 = 4;
    pub const COMMITTED: u8 = 5;
    pub const ACKNOWLEDGED: u8 = 6;
    pub const COPY_REQUEST: u8 = 7;
    pub const COPY_AGREED: u8 = 8;
    pub const COPY_DISAGREED: u8 = 9;
    pub const COPY_REFUSED: u8 = 10;
    pub const COPY_SEGMENT: u8 = 11;
    pub const COPY_GONE: u8 = 12;
    pub const EXPLAIN: u8 = 13;
    pub const EXPLAINED: u8 = 14;
}

impl Wire for PeerMessage<RunBytes> {
    fn put(&self, out: &mut Vec<u8>) {
        let Self { range, epoch, body } = self;
        let mut put = |kind: u8, fields: &[&dyn PutField]| {
            kind.put(out);
            range.put(out);
            epoch.put(out);
            fields.iter().for_each(|field| field.put_field(out));
        };
        match body {
            PeerBody::OpenStream { stream, from, to } => put(kind::OPEN_STREAM, &[stream, from, to]),
            PeerBody::StreamOpened { stream, end } => put(kind::STREAM_OPENED, &[stream, end]),
            PeerBody::StreamRefused { stream, code } => put(kind::STREAM_REFUSED, &[stream, &Code(*code)]),
            PeerBody::Entries { stream, committed, entries } => put(kind::ENTRIES, &[stream, committed, entries]),
            PeerBody::Committed { stream, index } => put(kind::COMMITTED, &[stream, index]),
            PeerBody::Acknowledged { stream, index } => put(kind::ACKNOWLEDGED, &[stream, index]),
            PeerBody::Explain { stream, index } => put(kind::EXPLAIN, &[stream, index]),
            PeerBody::Explained { stream, index, hops } => put(kind::EXPLAINED, &[stream, index, hops]),
            PeerBody::CopyRequest { copy, from, to, purpose, after, until, segment } => {
                put(kind::COPY_REQUEST, &[copy, from, to, purpose, after, until, segment]);
            }
            PeerBody::CopyReply { copy, outcome } => match outcome {
                CopyOutcome::Agreed { limit, entries } => put(kind::COPY_AGREED, &[copy, limit, entries]),
                CopyOutcome::Disagreed { limit } => put(kind::COPY_DISAGREED, &[copy, limit]),
                CopyOutcome::Refused { code } => put(kind::COPY_REFUSED, &[copy, &Code(*code)]),
                CopyOutcome::Segment { limit, part } => put(kind::COPY_SEGMENT, &[copy, limit, part]),
                CopyOutcome::Gone { limit } => put(kind::COPY_GONE, &[copy, limit]),
            },
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.take::<u8>()?;
        let (range, epoch) = (reader.take()?, reader.take()?);
        let body = match kind {
            kind::OPEN_STREAM => {
                PeerBody::OpenStream { stream: reader.take()?, from: reader.take()?, to: reader.take()? }
            }
            kind::STREAM_OPENED => PeerBody::StreamOpened { stream: reader.take()?, end: reader.take()? },
            kind::STREAM_REFUSED => PeerBody::StreamRefused { stream: reader.take()?, code: take_code(reader)? },
            kind::ENTRIES => {
                PeerBody::Entries { stream: reader.take()?, committed: reader.take()?, entries: take_runs(reader)? }
            }
            kind::COMMITTED => PeerBody::Committed { stream: reader.take()?, index: reader.take()? },
            kind::ACKNOWLEDGED => PeerBody::Acknowledged { stream: reader.take()?, index: reader.take()? },
            kind::EXPLAIN => PeerBody::Explain { stream: reader.take()?, index: reader.take()? },
            kind::EXPLAINED => PeerBody::Explained {
                stream: reader.take()?,
                index: reader.take()?,
                hops: reader.take::<Explanation>()?.hops,
            },
            kind::COPY_REQUEST => PeerBody::CopyRequest {
                copy: reader.take()?,
                from: reader.take()?,
                to: reader.take()?,
                purpose: reader.take()?,
                after: reader.take()?,
                until: reader.take()?,
                segment: reader.take()?,
            },
            kind::COPY_AGREED..=kind::COPY_GONE => {
                PeerBody::CopyReply { copy: reader.take()?, outcome: take_outcome(kind, reader)? }
            }
            _ => return Err(DecodeError::Field { field: "peer message kind" }),
        };
        Ok(Self { range, epoch, body })
    }
}

fn take_outcome(kind: u8, reader: &mut Reader<'_>) -> Result<CopyOutcome<RunBytes>, DecodeError> {
    Ok(match kind {
        kind::COPY_AGREED => CopyOutcome::Agreed { limit: reader.take()?, entries: take_runs(reader)? },
        kind::COPY_DISAGREED => CopyOutcome::Disagreed { limit: reader.take()? },
        kind::COPY_SEGMENT => CopyOutcome::Segment { limit: reader.take()?, part: reader.take()? },
        kind::COPY_GONE => CopyOutcome::Gone { limit: reader.take()? },
        _ => CopyOutcome::Refused { code: take_code(reader)? },
    })
}

/// Lengths of runs: each has an entry at least, all together are within what may be sent at once.
fn take_runs(reader: &mut Reader<'_>) -> Result<Vec<RunBytes>, DecodeError> {
    let runs: Vec<RunBytes> = reader.take()?;
    check_runs(runs.iter().map(|&run| (run, is_run_of_entries(run))))?;
    Ok(runs)
}

const fn is_run_of_entries(run: RunBytes) -> bool {
    run >= ENTRY_HEADER_BYTES as u32 && run.is_multiple_of(ENTRY_ALIGNMENT as u32)
}

/// Lengths, and whether each is possible.
fn check_runs(runs: impl Iterator<Item = (RunBytes, bool)>) -> Result<(), DecodeError> {
    let mut left = PEER_ENTRIES_BYTES_MAX;
    for (run, is_possible) in runs {
        left = left.checked_sub(run).filter(|_| is_possible).ok_or(DecodeError::Field { field: "run bytes" })?;
    }
    Ok(())
}

impl SegmentPart<RunBytes> {
    fn runs(&self) -> impl Iterator<Item = RunBytes> + '_ {
        self.items.iter().filter_map(|item| match item {
            SegmentItem::Entries(run) | SegmentItem::Snapshot { bytes: run, .. } => Some(*run),
            SegmentItem::Freed(_) => None,
        })
    }
}

wire_form! { SegmentCursor { end at snapshot_bytes } }

impl Wire for SegmentPart<RunBytes> {
    fn put(&self, out: &mut Vec<u8>) {
        let Self { start, end, at, items } = self;
        [start, end, at].into_iter().for_each(|point| point.put(out));
        items.put(out);
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (start, end, at) = (reader.take()?, reader.take()?, reader.take()?);
        let items: Vec<SegmentItem<RunBytes>> = reader.take()?;
        check_runs(items.iter().map(|item| match item {
            SegmentItem::Entries(run) => (*run, is_run_of_entries(*run)),
            // None, when who asks has all of it already.
            SegmentItem::Snapshot { bytes, .. } => (*bytes, true),
            SegmentItem::Freed(_) => (0, true),
        }))?;
        Ok(Self { start, end, at, items })
    }
}

impl Wire for SegmentItem<RunBytes> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entries(run) => {
                1u8.put(out);
                run.put(out);
            }
            Self::Freed(to) => {
                2u8.put(out);
                to.put(out);
            }
            Self::Snapshot { total, bytes } => {
                3u8.put(out);
                total.put(out);
                bytes.put(out);
            }
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.take::<u8>()? {
            1 => Self::Entries(reader.take()?),
            2 => Self::Freed(reader.take()?),
            3 => Self::Snapshot { total: reader.take()?, bytes: reader.take()? },
            _ => return Err(DecodeError::Field { field: "segment item" }),
        })
    }
}

/// An error code that is always there.
struct Code(ErrorCode);

fn take_code(reader: &mut Reader<'_>) -> Result<ErrorCode, DecodeError> {
    reader.take::<Option<ErrorCode>>()?.ok_or(DecodeError::Field { field: "error code" })
}

/// [`Wire::put`] for fields of different types in one list.
trait PutField {
    fn put_field(&self, out: &mut Vec<u8>);
}

impl<T: Wire> PutField for T {
    fn put_field(&self, out: &mut Vec<u8>) {
        self.put(out);
    }
}

impl Wire for Code {
    fn put(&self, out: &mut Vec<u8>) {
        Some(self.0).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        take_code(reader).map(Self)
    }
}

impl Wire for CopyPurpose {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Learn => 1u8.put(out),
            Self::Mend => 3u8.put(out),
            Self::Reconcile => 2u8.put(out),
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.take::<u8>()? {
            1 => Ok(Self::Learn),
            3 => Ok(Self::Mend),
            2 => Ok(Self::Reconcile),
            _ => Err(DecodeError::Field { field: "copy purpose" }),
        }
    }
}

impl Wire for ComplaintReason {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::LinkLost => 1u8.put(out),
            Self::Stalled => 2u8.put(out),
            Self::Silent => 3u8.put(out),
            Self::WriteFailed => 4u8.put(out),
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.take::<u8>()? {
            1 => Self::LinkLost,
            2 => Self::Stalled,
            3 => Self::Silent,
            4 => Self::WriteFailed,
            _ => return Err(DecodeError::Field { field: "complaint reason" }),
        })
    }
}

wire_form! { Complaint { range epoch by about reason } }

wire_struct! {
    /// What the members of chains complain about, gathered by their broker (R8). Answered without fields.
    ComplainRequest {
        /// At most [`COMPLAINTS_MAX`](crate::limits::COMPLAINTS_MAX).
        complaints: Vec<Complaint>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::*;

    fn message(body: PeerBody<RunBytes>) -> PeerMessage<RunBytes> {
        PeerMessage { range: RangeKey { ring: RingId(1), range: RangeId(2) }, epoch: Epoch(3), body }
    }

    fn entries(entries: Vec<RunBytes>) -> PeerMessage<RunBytes> {
        message(PeerBody::Entries { stream: StreamId(4), committed: LogIndex(5), entries })
    }

    #[test]
    fn entries_leave_their_message_and_come_back_to_it() {
        let whole =
            message(PeerBody::Entries { stream: StreamId(4), committed: LogIndex(5), entries: vec![160, 4_096] });
        let held = whole.clone().join(vec![vec![0u8; 160], vec![1; 4_096]]);
        let (sent, bulk) = held.clone().split(|run| run.len() as u32);
        assert_eq!((&sent, sent.bulk_bytes(), bulk.len()), (&whole, 4_256, 2));
        let taken = PeerMessage::from_bytes(&sent.to_bytes()).expect("just encoded");
        assert_eq!(taken.join(bulk), held);
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_received() {
        let decode = |runs| PeerMessage::from_bytes(&entries(runs).to_bytes());
        assert!(decode(vec![PEER_ENTRIES_BYTES_MAX / 2, PEER_ENTRIES_BYTES_MAX / 2]).is_ok());
        for bad in [vec![0], vec![112], vec![130], vec![PEER_ENTRIES_BYTES_MAX + 16], vec![u32::MAX - 15; 3]] {
            assert_eq!(decode(bad.clone()), Err(DecodeError::Field { field: "run bytes" }), "{bad:?}");
        }
    }

    #[test]
    fn a_kind_of_a_later_release_is_refused() {
        let mut bytes = entries(Vec::new()).to_bytes();
        bytes[0] = 99;
        let error = DecodeError::Field { field: "peer message kind" };
        assert_eq!(PeerMessage::<RunBytes>::from_bytes(&bytes), Err(error));
    }
}
