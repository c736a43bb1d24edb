//! `minikafka log dump`: flushes, entries, records and footers as they lie on disk, one a line.
//!
//! Prints what is there, in the order of segments and positions, and marks what a later flush has cut away; it does not
//! judge: `log verify` does.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use minikafka_client::FetchedRecords;
use minikafka_core::entry::EntryKind;
use minikafka_core::{LogIndex, TopicId, control::ControlEntry, wire::Wire};
use minikafka_storage::inspect::{
    DataDir, EntryImage, FlushImage, Footer, FooterImage, Piece, Place, SegmentImage, read_promises, visit_left,
};
use serde_json::{Value, json};

use crate::consume::format::{Format, Printed};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

/// Options of `minikafka log dump`.
#[derive(Debug, Args)]
pub struct DumpCommand {
    /// A data directory, a ring's or a range's directory, a segment file or a promise file.
    #[arg(value_name = "DIR")]
    path: PathBuf,
    /// Only entries of this topic; its id, as `topic list` and the entries show it.
    #[arg(long, value_name = "HEX", value_parser = topic_id)]
    topic_id: Option<TopicId>,
    /// Only entries of partitions with this number.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
    /// Only entries with records at this offset or above.
    #[arg(long, value_name = "OFFSET")]
    from_offset: Option<u64>,
    /// Only entries with this index in their range log, or above.
    #[arg(long, value_name = "INDEX")]
    from_index: Option<u64>,
    /// Print entries, one a line; the default.
    #[arg(long, group = "what")]
    entries: bool,
    /// Print the records in the batches.
    #[arg(long, group = "what")]
    records: bool,
    /// Print flush headers.
    #[arg(long, group = "what")]
    flushes: bool,
    /// Print the footers of sealed segments with their partition tables.
    #[arg(long, group = "what")]
    footers: bool,
    /// Stop after so many lines.
    #[arg(long, value_name = "LINES")]
    limit: Option<u64>,
}

fn topic_id(text: &str) -> Result<TopicId, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map(TopicId).map_err(|error| format!("{error}: a topic id is up to 16 hex digits"))
}

/// A path that leads to nothing of ours.
pub(super) fn path_failure(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{}: {error}", path.display())),
        _ => Failure::io(path.display(), error),
    }
}

/// Prints what was asked for.
pub fn run(command: &DumpCommand, output: &mut Output) -> Outcome {
    let place = Place::of(&command.path).map_err(|error| path_failure(&command.path, &error))?;
    let mut dump = Dump { command, output, left: command.limit.unwrap_or(u64::MAX) };
    let done = match place {
        Place::Nodes(nodes) => nodes.iter().try_for_each(|node| {
            let dir = DataDir::read(node).map_err(|error| Failure::io(node.display(), &error))?;
            dir.ranges.iter().try_for_each(|range| dump.range(&range.path))
        }),
        Place::Ranges(ranges) => ranges.iter().try_for_each(|range| dump.range(&range.path)),
        Place::Segment(path) => dump.segments(&[path]),
        Place::Promises(path) => dump.promises(&path),
    };
    done?;
    output.flush()
}

struct Dump<'a> {
    command: &'a DumpCommand,
    output: &'a mut Output,
    /// Lines still to be printed.
    left: u64,
}

impl Dump<'_> {
    fn range(&mut self, dir: &Path) -> Outcome {
        let failed = |error: io::Error| Failure::io(dir.display(), &error);
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|end| end == "segment") {
                segments.push(path);
            }
        }
        // Their names are made so that this is the order of the log.
        segments.sort();
        self.segments(&segments)
    }

    fn segments(&mut self, paths: &[PathBuf]) -> Outcome {
        // Whatever has an index at or above that of a later flush was cut away by it.
        let mut cuts = vec![LogIndex(u64::MAX); paths.len() + 1];
        if !self.command.footers && !self.command.flushes {
            for (at, path) in paths.iter().enumerate().rev() {
                let own = cuts_of(path).map_err(|error| Failure::io(path.display(), &error))?;
                cuts[at] = own.first().copied().unwrap_or(cuts[at + 1]).min(cuts[at + 1]);
            }
        }
        for (path, cut) in paths.iter().zip(&cuts[1..]) {
            if self.left > 0 {
                self.segment(path, *cut)?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, path: &Path, cut: LogIndex) -> Outcome {
        let failed = |error: io::Error| Failure::io(path.display(), &error);
        let image = SegmentImage::open(path).map_err(failed)?;
        let footer = image.footer().map_err(failed)?;
        if self.command.footers {
            return self.footer(path, &footer, image.trailer_position());
        }
        let end = match &footer {
            FooterImage::Good(footer) if footer.end().index.0 < self.command.from_index.unwrap_or(0) => return Ok(()),
            FooterImage::Good(footer) => footer.position(),
            _ => image.bytes(),
        };
        if let (FooterImage::Good(footer), false) = (&footer, self.command.flushes) {
            let mut outcome = Ok(());
            let is_freed = visit_left(path, &image, footer, &mut |entry| {
                if outcome.is_ok() && self.left > 0 {
                    outcome = self.found(path, entry, LogIndex(u64::MAX));
                }
            });
            if is_freed.map_err(failed)? {
                return outcome;
            }
        }
        let cuts = if self.command.flushes { Vec::new() } else { cuts_of(path).map_err(failed)? };
        let mut pieces = image.pieces(end);
        let mut number = 0;
        while self.left > 0 {
            match pieces.next().map_err(failed)? {
                None => break,
                Some(Piece::RottenHeader { position }) => {
                    self.problem(path, position, "a flush header that does not verify")?;
                }
                Some(Piece::Flush(flush)) if self.command.flushes => self.flush(path, &flush)?,
                Some(Piece::Flush(flush)) => {
                    number += 1;
                    let cut = cuts.get(number).copied().unwrap_or(LogIndex(u64::MAX)).min(cut);
                    self.entries(path, &flush, cut)?;
                }
            }
        }
        Ok(())
    }

    fn entries(&mut self, path: &Path, flush: &FlushImage<'_>, cut: LogIndex) -> Outcome {
        for entry in flush.entries() {
            if self.left == 0 {
                break;
            }
            self.found(path, entry, cut)?;
        }
        Ok(())
    }

    fn found(&mut self, path: &Path, entry: Result<EntryImage<'_>, u64>, cut: LogIndex) -> Outcome {
        match entry {
            Err(position) => self.problem(path, position, "an entry header that does not verify"),
            Ok(entry) if !self.is_wanted(&entry) => Ok(()),
            Ok(entry) if self.command.records => self.records(path, &entry, entry.header.index >= cut),
            Ok(entry) => {
                let state = match &entry.damage {
                    Some(_) => "damaged",
                    None if entry.header.index >= cut => "void",
                    None => "ok",
                };
                self.entry(path, &entry, state)
            }
        }
    }

    fn is_wanted(&self, entry: &EntryImage<'_>) -> bool {
        let (header, command) = (&entry.header, self.command);
        command.topic_id.is_none_or(|topic| header.topic == topic)
            && command.partition.is_none_or(|partition| header.partition.0 == partition)
            && command.from_index.is_none_or(|index| header.index.0 >= index)
            && command.from_offset.is_none_or(|offset| {
                header.kind == EntryKind::Batch && header.base_offset.0 + u64::from(header.last_offset_delta) >= offset
            })
    }

    fn line(&mut self, object: Value, text: &str) -> Outcome {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let line = if self.output.is_json() { object.to_string() } else { text.to_owned() };
        self.output.write(line.as_bytes())?;
        self.output.write(b"\n")
    }

    fn problem(&mut self, path: &Path, position: u64, what: &str) -> Outcome {
        let object = json!({ "type": "damage", "file": path, "position": position, "what": what });
        self.line(object, &format!("{}: byte {position}: {what}", path.display()))
    }

    fn entry(&mut self, path: &Path, entry: &EntryImage<'_>, state: &str) -> Outcome {
        let header = &entry.header;
        let control = (header.kind == EntryKind::Control && entry.damage.is_none()).then(|| {
            ControlEntry::from_bytes(entry.body).map_or_else(|error| error.to_string(), |it| format!("{it:?}"))
        });
        let mut object = json!({
            "type": "entry", "file": path, "position": entry.position, "state": state,
            "index": header.index, "epoch": header.epoch, "range": header.range.to_string(),
            "topic": format!("{:016x}", header.topic.0), "partition": header.partition,
            "base_offset": header.base_offset, "last_offset_delta": header.last_offset_delta,
            "records": header.record_count, "bytes": header.entry_bytes(), "body_bytes": header.body_bytes,
            "uncompressed_bytes": header.uncompressed_bytes, "codec": format!("{:?}", header.codec).to_lowercase(),
            "base_timestamp": header.base_timestamp, "max_timestamp": header.max_timestamp,
            "append_timestamp": header.append_timestamp, "producer_id": header.producer_id,
            "producer_epoch": header.producer_epoch, "base_sequence": header.base_sequence,
            "running_hash": format!("{:016x}", header.running_hash.0), "crc_ok": entry.damage.is_none(),
        });
        let place = format!("{:016x}/{}", header.topic.0, header.partition);
        let what = match (&control, header.kind) {
            (Some(control), _) => format!("control {control}"),
            (None, EntryKind::Control) => "control".to_owned(),
            (None, EntryKind::Batch) => {
                format!("offsets {}..{}  records {}", header.base_offset, header.next_offset(), header.record_count)
            }
        };
        if let Some(control) = control {
            object["control"] = control.into();
        }
        let text = format!(
            "index {}  epoch {}  {place}  {what}  bytes {}  appended {}  at {}  {state}",
            header.index,
            header.epoch,
            header.entry_bytes(),
            header.append_timestamp,
            entry.position,
        );
        self.line(object, &text)
    }

    fn records(&mut self, path: &Path, entry: &EntryImage<'_>, is_void: bool) -> Outcome {
        let header = &entry.header;
        if header.kind == EntryKind::Control || is_void {
            return Ok(());
        }
        if let Some(damage) = &entry.damage {
            return self.problem(path, entry.position, &damage.to_string());
        }
        let records = match FetchedRecords::of_stored(*header, entry.body.to_vec()) {
            Ok(records) => records,
            Err(reason) => return self.problem(path, entry.position, &format!("a batch that does not open: {reason}")),
        };
        let topic = format!("{:016x}", header.topic.0);
        let template = "%t/%p@%o %T key=%k value=%v headers=%h\\n".parse::<Format>();
        let format = if self.output.is_json() { Format::Json } else { template.unwrap_or(Format::Json) };
        let mut bytes = Vec::new();
        for record in records.records() {
            if self.command.from_offset.is_some_and(|offset| record.offset.0 < offset) {
                continue;
            }
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let headers: Vec<(&str, &[u8])> = record.headers.collect();
            let printed = Printed {
                topic: &topic,
                partition: header.partition.0,
                offset: record.offset.0,
                timestamp_ms: record.timestamp.0,
                key: record.key,
                value: record.value,
                headers: &headers,
            };
            bytes.clear();
            format.print(&printed, &mut bytes);
            self.output.write(&bytes)?;
        }
        Ok(())
    }

    fn flush(&mut self, path: &Path, flush: &FlushImage<'_>) -> Outcome {
        let header = &flush.header;
        let entries = flush.entries().filter(Result::is_ok).count();
        let last = header.first_index.0 + entries as u64;
        if last <= self.command.from_index.unwrap_or(0) {
            return Ok(());
        }
        let object = json!({
            "type": "flush", "file": path, "position": flush.position, "number": header.number,
            "length": header.length, "first_index": header.first_index, "entries": entries,
            "durable_index": header.durable_index, "marker": header.marker,
            "previous_hash": format!("{:016x}", header.previous_hash.0),
        });
        let text = format!(
            "flush {}  at {}  bytes {}  first index {}  entries {entries}  durable {}  marker {}",
            header.number, flush.position, header.length, header.first_index, header.durable_index, header.marker
        );
        self.line(object, &text)
    }

    fn footer(&mut self, path: &Path, footer: &FooterImage, trailer: u64) -> Outcome {
        match footer {
            FooterImage::None => Ok(()),
            FooterImage::BadTrailer => self.problem(path, trailer, "a trailer that does not verify"),
            FooterImage::BadBody { position } => self.problem(path, *position, "a footer that does not verify"),
            FooterImage::Good(footer) => self.good_footer(path, footer),
        }
    }

    fn good_footer(&mut self, path: &Path, footer: &Footer) -> Outcome {
        let (start, end) = (footer.start(), footer.end());
        let (extents, flushes) = footer.row_counts();
        let (first, last) = footer.timestamps();
        let rows: Vec<Value> = footer
            .partitions()
            .map(|row| {
                let topic = format!("{:016x}", row.partition.topic.0);
                json!({
                    "topic": topic, "partition": row.partition.partition, "extents": row.extents,
                    "first_offset": row.first_offset, "end_offset": row.end_offset,
                })
            })
            .collect();
        let mut text = format!(
            "{}: footer at {}  indexes {}..={}  flushes {flushes}  extents {extents}  snapshot {} bytes  marker {}  \
             appended {first} to {last}",
            path.display(),
            footer.position(),
            start.index.next(),
            end.index,
            footer.snapshot().len(),
            footer.marker(),
        );
        for row in footer.partitions() {
            text.push_str(&format!(
                "\n  {:016x}/{}  offsets {}..{}  extents {}",
                row.partition.topic.0, row.partition.partition, row.first_offset, row.end_offset, row.extents
            ));
        }
        let object = json!({
            "type": "footer", "file": path, "position": footer.position(), "body_bytes": footer.body_bytes(),
            "first_index": start.index.next(), "last_index": end.index, "flushes": flushes, "extents": extents,
            "hash_before": format!("{:016x}", start.hash.0), "hash_after": format!("{:016x}", end.hash.0),
            "last_flush_number": footer.last_flush_number(), "marker": footer.marker(),
            "last_epoch": footer.last_epoch(), "first_timestamp": first, "last_timestamp": last,
            "snapshot_bytes": footer.snapshot().len(), "partitions": rows,
        });
        self.line(object, &text)
    }

    fn promises(&mut self, path: &Path) -> Outcome {
        let (table, findings) = read_promises(path);
        for finding in &findings {
            self.problem(path, finding.position, &finding.fault.to_string())?;
        }
        for promise in table.promises {
            let object = json!({
                "type": "promise", "file": path, "range": promise.range.to_string(), "promised": promise.promised,
                "marker": promise.marker, "has_log": promise.has_log,
            });
            let text = format!(
                "range {}  promised {}  marker {}  has log {}",
                promise.range, promise.promised, promise.marker, promise.has_log
            );
            self.line(object, &text)?;
        }
        Ok(())
    }
}

/// For each flush of a segment, the lowest index at which it or a later one of the segment begins.
fn cuts_of(path: &Path) -> io::Result<Vec<LogIndex>> {
    let image = SegmentImage::open(path)?;
    let end = match image.footer()? {
        FooterImage::Good(footer) => footer.position(),
        _ => image.bytes(),
    };
    let mut firsts = Vec::new();
    let mut pieces = image.pieces(end);
    while let Some(piece) = pieces.next()? {
        if let Piece::Flush(flush) = piece {
            firsts.push(flush.header.first_index);
        }
    }
    let mut lowest = LogIndex(u64::MAX);
    for first in firsts.iter_mut().rev() {
        lowest = lowest.min(*first);
        *first = lowest;
    }
    Ok(firsts)
}
