//! A sealed segment against its footer: every live entry, every hash, every row.
//!
//! The flush table says what is live and where; what lies elsewhere in the file means nothing any more. Readers go the same
//! way, so what does not verify here is what they will refuse.

use std::io;
use std::path::Path;

use minikafka_core::{LogIndex, LogPoint, RangeKey};

use super::image::Image;
use super::segment::{EntryImage, Footer, SegmentImage, entries_of};
use super::tally::Tally;
use super::{Fault, Finding, Findings, SnapshotCheck};
use crate::disk::BLOCK_BYTES;
use crate::error::DamageKind;
use crate::flush::{FLUSH_HEADER_BYTES, FLUSH_LENGTH_MAX, FlushHeader};
use crate::freed_runs::FreedRuns;
use crate::index::{FlushSpan, SegmentIndex};

/// Reads a sealed segment whole.
pub(super) fn check<I: Image>(
    path: &Path,
    image: &SegmentImage<I>,
    (footer, freed): (&Footer, &FreedRuns),
    range: RangeKey,
    is_state: Option<SnapshotCheck>,
    (tally, findings): (&mut Tally, &mut Findings),
) -> io::Result<()> {
    let found_before = findings.count();
    let mut check = Check {
        path,
        range,
        freed,
        footer,
        findings,
        tally,
        end: footer.trailer.start,
        is_end_known: true,
        rebuilt: SegmentIndex::default(),
        is_comparable: true,
    };
    let mut buffer = Vec::new();
    for span in footer.index.flushes() {
        check.take_span(image, span, &mut buffer)?;
    }
    check.pass_freed();
    let trailer = &footer.trailer;
    if check.end.index != trailer.end.index || (check.is_end_known && check.end.hash != trailer.end.hash) {
        check.contradiction("the last entry is not the one that the trailer names");
    }
    let Check { rebuilt, is_comparable, findings, .. } = check;
    if is_comparable && findings.count() == found_before && rebuilt != footer.index {
        findings.push(finding(path, footer.position(), None, Fault::Index("it lists other runs of entries")));
    }
    if is_state.is_some_and(|is_state| !is_state(footer.snapshot(), footer.end())) {
        let position = footer.position() + footer.trailer.footer_bytes - footer.trailer.snapshot_bytes;
        findings.push(finding(path, position, None, Fault::Snapshot));
    }
    Ok(())
}

fn finding(path: &Path, position: u64, entries: Option<(LogIndex, LogIndex)>, fault: Fault) -> Finding {
    Finding { path: path.to_owned(), position, entries, fault }
}

struct Check<'a> {
    path: &'a Path,
    range: RangeKey,
    footer: &'a Footer,
    freed: &'a FreedRuns,
    findings: &'a mut Findings,
    tally: &'a mut Tally,
    /// End of the log so far.
    end: LogPoint,
    /// Whether its hash is known: not behind entries that cannot be read.
    is_end_known: bool,
    /// The index as it follows from the entries.
    rebuilt: SegmentIndex,
    /// Every entry that the index was made from could be read.
    is_comparable: bool,
}

impl Check<'_> {
    fn found(&mut self, position: u64, entries: Option<(LogIndex, LogIndex)>, fault: Fault) {
        self.findings.push(finding(self.path, position, entries, fault));
    }

    fn contradiction(&mut self, what: &'static str) {
        self.found(self.footer.position(), None, Fault::Index(what));
    }

    /// Goes over freed runs that follow: their entries are gone on purpose.
    fn pass_freed(&mut self) {
        while let Some(freed) = self.freed.at_or_above(self.end.index.next()) {
            let [before, after] = freed.run.borders();
            if before.index != self.end.index {
                return;
            }
            if self.is_end_known && before.hash != self.end.hash {
                self.found(freed.position, None, Fault::FreedRuns("a freed run does not follow the entry before it"));
            }
            self.end = after;
            self.is_end_known = true;
            self.is_comparable = false;
        }
    }

    /// Checks the flush behind a row of the flush table, as far as it was not freed.
    fn take_span<I: Image>(
        &mut self,
        image: &SegmentImage<I>,
        span: &FlushSpan,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.pass_freed();
        if self.end.index >= span.last_index {
            return Ok(());
        }
        let is_freed = self.freed.overlapping(span.first_index, span.last_index).is_some();
        let Some(start) = self.start_of(span) else {
            self.contradiction("a flush is listed where none can be");
            self.skip_to(span.last_index);
            return Ok(());
        };
        for (position, bytes, first, last) in self.freed.pieces(span) {
            self.pass_freed();
            if first != self.end.index.next() {
                self.found(start, None, Fault::FreedRuns("freed runs and entries leave a gap"));
                self.skip_to(LogIndex(first.0 - 1));
            }
            let piece = FlushSpan { first_index: first, last_index: last, position, bytes, ..*span };
            if position == span.position {
                self.take_whole(image, &piece, start, is_freed, buffer)?;
            } else {
                buffer.resize(bytes as usize, 0);
                image.read_at(position, buffer)?;
                self.take_entries(&piece, position, buffer, 0);
            }
        }
        Ok(())
    }

    /// Checks a flush at `start` whose header is there, and its entries up to the end of `span`.
    fn take_whole<I: Image>(
        &mut self,
        image: &SegmentImage<I>,
        span: &FlushSpan,
        start: u64,
        is_freed: bool,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        if self.is_end_known && span.previous_hash != self.end.hash {
            let before = self.end.index;
            self.found(start, Some((before, before)).filter(|_| before.0 > 0), Fault::Entries(DamageKind::Hash));
        }
        self.end.hash = span.previous_hash;
        let end = FLUSH_HEADER_BYTES + span.bytes as usize;
        buffer.resize(end.next_multiple_of(BLOCK_BYTES), 0);
        image.read_at(start, buffer)?;
        let is_own = |header: &FlushHeader| header.generation == image.generation() && header.length as usize >= end;
        let header = FlushHeader::decode(buffer).filter(is_own);
        if header.is_none() {
            self.found(start, None, Fault::FlushHeader);
        }
        self.take_entries(span, start, &buffer[..end], FLUSH_HEADER_BYTES);
        // With void or freed bytes behind the entries, what lies there means nothing.
        let is_whole = !is_freed && header.is_some_and(|header| header.length as usize == end);
        if is_whole && buffer[end..].iter().any(|byte| *byte != 0) {
            self.found(start + end as u64, None, Fault::Entries(DamageKind::Padding));
        }
        Ok(())
    }

    /// Where the flush of a row begins, if it can be there.
    fn start_of(&self, span: &FlushSpan) -> Option<u64> {
        let is_next = span.first_index == self.end.index.next()
            || self.freed.overlapping(span.first_index, span.first_index).is_some();
        let follows = is_next && span.last_index >= span.first_index;
        let ends = span.position + u64::from(span.bytes) <= self.footer.position();
        let start = span.position.checked_sub(FLUSH_HEADER_BYTES as u64)?;
        let is_block = start.is_multiple_of(BLOCK_BYTES as u64);
        let fits = FLUSH_HEADER_BYTES + span.bytes as usize <= FLUSH_LENGTH_MAX;
        (follows && ends && is_block && fits).then_some(start)
    }

    /// Goes on behind `index`, up to which entries are missing.
    fn skip_to(&mut self, index: LogIndex) {
        self.end.index = index;
        self.is_end_known = false;
        self.is_comparable = false;
    }

    /// Checks the entries in a run that lies at `start`, from byte `from` of it on: those up to the row's last one are live.
    fn take_entries(&mut self, span: &FlushSpan, start: u64, run: &[u8], from: usize) {
        let mut previous = self.end;
        self.is_end_known = true;
        for entry in entries_of(run, from, start) {
            let index = previous.index.next();
            let is_live = index <= span.last_index;
            let entry = match entry {
                Ok(entry) if (entry.header.index, entry.header.range) == (index, self.range) => entry,
                other => {
                    self.is_comparable = false;
                    if is_live {
                        let position = other.map_or_else(|position| position, |entry| entry.position);
                        let entries = Some((index, span.last_index));
                        self.found(position, entries, Fault::Entries(DamageKind::Unreadable));
                    }
                    break;
                }
            };
            self.rebuilt.add(&entry.header, previous.hash, span.position, entry.position);
            if is_live {
                self.judge(&entry, previous);
            }
            previous = LogPoint { index, hash: entry.header.running_hash };
            if is_live {
                self.end = previous;
            }
        }
        if previous.index > span.last_index {
            // What the index remembers of a run that was cut is not what follows from its entries alone.
            self.is_comparable = false;
        }
        if self.end.index < span.last_index {
            if self.is_comparable {
                self.contradiction("a flush has fewer entries than are listed");
            }
            self.skip_to(span.last_index);
        }
    }

    fn judge(&mut self, entry: &EntryImage<'_>, previous: LogPoint) {
        let index = entry.header.index;
        let is_next = entry.header.hash_after(previous.hash) == entry.header.running_hash;
        match if is_next { entry.damage.clone() } else { Some(DamageKind::Hash) } {
            None => self.tally.add(&entry.header),
            Some(kind) => self.found(entry.position, Some((index, index)), Fault::Entries(kind)),
        }
    }
}
