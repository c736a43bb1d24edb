//! Which range a log is of, as its entries say: a copy of its directory may lie anywhere.
//!
//! Recovery and readers refuse entries of other ranges, so an inspection has to know. Every entry names its range; what most
//! of them say counts, for a few may have come here by mistake, and those are what an inspection is for.

use std::io;
use std::path::Path;

use minikafka_core::RangeKey;

use super::segment::{Piece, SegmentImage};
use crate::segment::SegmentName;

/// No more entries are asked once one range leads by this many.
const LEAD_MAX: u64 = 16;

/// A majority vote that remembers one candidate and by how much it leads.
#[derive(Default)]
struct Vote {
    candidate: Option<RangeKey>,
    lead: u64,
}

impl Vote {
    fn add(&mut self, range: RangeKey) {
        match self.candidate {
            Some(candidate) if candidate == range => self.lead += 1,
            _ if self.lead > 0 => self.lead -= 1,
            _ => (self.candidate, self.lead) = (Some(range), 1),
        }
    }
}

/// The range that most entries of these segments are of; none when no entry is found. A segment that cannot be read has no
/// say: whoever looks into it later reports that.
pub(super) fn range_of(dir: &Path, names: &[SegmentName]) -> Option<RangeKey> {
    let mut vote = Vote::default();
    for name in names {
        // An error ends what this segment has to say.
        drop(ask(&dir.join(name.file_name()), &mut vote));
        if vote.lead >= LEAD_MAX {
            break;
        }
    }
    vote.candidate
}

fn ask(path: &Path, vote: &mut Vote) -> io::Result<()> {
    let image = SegmentImage::open(path)?;
    let mut pieces = image.pieces(image.bytes());
    while let Some(piece) = pieces.next()? {
        let Piece::Flush(flush) = piece else { continue };
        flush.entries().flatten().for_each(|entry| vote.add(entry.header.range));
        if vote.lead >= LEAD_MAX {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use minikafka_core::{RangeId, RingId};

    use super::*;

    #[test]
    fn strangers_are_outvoted_wherever_they_stand() {
        let range = |range| RangeKey { ring: RingId(1), range: RangeId(range) };
        for ranges in [[7, 7, 5, 5, 5], [5, 7, 5, 6, 5], [5, 5, 5, 7, 7], [7, 5, 6, 5, 5]] {
            let mut vote = Vote::default();
            ranges.into_iter().for_each(|id| vote.add(range(id)));
            assert_eq!(vote.candidate, Some(range(5)), "{ranges:?}");
        }
    }
}
