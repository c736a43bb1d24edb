//! A promise file, as it lies: both of its slots (`docs/DATA_FILE.md`, section 6).

use std::fs;
use std::path::Path;

use minikafka_core::limits::PROMISE_SLOT_BYTES_MAX;

use super::{Fault, Finding};
use crate::disk::BLOCK_BYTES;
use crate::error::DamageKind;
use crate::promise_file::{Promise, ROW_BYTES, SLOT_HEADER_BYTES, decode_slot};

/// What a promise file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromiseTable {
    /// How often it was written, counted.
    pub sequence: u64,
    /// The promises, by range.
    pub promises: Vec<Promise>,
}

/// Reads a promise file and verifies both slots.
pub fn read_promises(path: &Path) -> (PromiseTable, Vec<Finding>) {
    let found = |position, fault| Finding { path: path.to_owned(), position, entries: None, fault };
    // Files of this kind are at most twice the largest slot; a larger one is not read at all.
    let bytes = fs::metadata(path).map(|metadata| metadata.len());
    let contents = match bytes {
        Ok(bytes) if bytes > 2 * PROMISE_SLOT_BYTES_MAX as u64 => {
            let reason = format!("a promise file cannot be {bytes} bytes long");
            return (PromiseTable::default(), vec![found(0, Fault::Promises(reason))]);
        }
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    match contents {
        Ok(contents) => {
            let (table, faults) = parse(&contents);
            (table, faults.into_iter().map(|(position, fault)| found(position, fault)).collect())
        }
        Err(error) => (PromiseTable::default(), vec![found(0, Fault::File(format!("cannot be read: {error}")))]),
    }
}

/// Table and faults, with their positions, of the bytes of a promise file.
pub fn parse(bytes: &[u8]) -> (PromiseTable, Vec<(u64, Fault)>) {
    let slot_bytes = bytes.len() / 2;
    if slot_bytes < BLOCK_BYTES || !slot_bytes.is_multiple_of(BLOCK_BYTES) || !bytes.len().is_multiple_of(2) {
        let reason = format!("a promise file cannot be {} bytes long", bytes.len());
        return (PromiseTable::default(), vec![(0, Fault::Promises(reason))]);
    }
    let mut newest: Option<PromiseTable> = None;
    let mut faults = Vec::new();
    for (slot, contents) in bytes.chunks_exact(slot_bytes).enumerate() {
        let position = (slot * slot_bytes) as u64;
        match decode_slot(contents) {
            Some((sequence, table)) => {
                let end = SLOT_HEADER_BYTES + table.len() * ROW_BYTES;
                let padding = contents.get(end..end.next_multiple_of(BLOCK_BYTES)).unwrap_or_default();
                if let Some(at) = padding.iter().position(|byte| *byte != 0) {
                    faults.push((position + (end + at) as u64, Fault::Entries(DamageKind::Padding)));
                }
                if newest.as_ref().is_none_or(|newest| sequence > newest.sequence) {
                    newest = Some(PromiseTable { sequence, promises: table.into_values().collect() });
                }
            }
            None => faults.push((position, Fault::PromiseSlot)),
        }
    }
    if newest.is_none() {
        faults.push((0, Fault::Promises("no slot of the promise file verifies".to_owned())));
        // Said once, for the file as a whole.
        faults.retain(|(_, fault)| *fault != Fault::PromiseSlot);
    }
    (newest.unwrap_or_default(), faults)
}
