//! Sets checksums right, so that a fuzzer gets behind them. Written from the documents, not with the code under test.

use minikafka_core::{Generation, RunningHash, checksum};

const BLOCK: usize = 4096;
const ENTRY_HEADER: usize = 128;
const FLUSH_HEADER: usize = 64;

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// Puts the CRC-32C of `bytes`, with the field itself zero, at `at`.
fn put_crc(bytes: &mut [u8], at: usize) {
    put(bytes, at, &[0; 4]);
    let crc = checksum::crc32c(bytes);
    put(bytes, at, &crc.to_le_bytes());
}

/// The checksum of an entry header.
pub fn entry_header(bytes: &mut [u8]) {
    if let Some(header) = bytes.first_chunk_mut::<ENTRY_HEADER>() {
        put_crc(header, 120);
    }
}

/// The checksum of every frame, as far as lengths lead.
pub fn frames(bytes: &mut [u8]) {
    let mut at = 0;
    while bytes.len() - at >= 32 {
        put(bytes, at, b"MKw1");
        let (head, bulk) = (u32_at(bytes, at + 4), u32_at(bytes, at + 8));
        let end = at + 32 + head;
        if end > bytes.len() {
            return;
        }
        let crc = checksum::crc32c_append(checksum::crc32c(&bytes[at..at + 28]), &bytes[at + 32..end]);
        put(bytes, at + 28, &crc.to_le_bytes());
        at = end + bulk;
        if at > bytes.len() {
            return;
        }
    }
}

/// The checksums of both slots.
pub fn promise_slots(file: &mut [u8]) {
    let slot_bytes = file.len() / 2;
    for slot in file.chunks_exact_mut(slot_bytes.max(1)) {
        let end = 32 + 24 * u32_at(slot, 12);
        if end <= slot.len() {
            put_crc(&mut slot[..end], 4);
        }
    }
}

/// The checksums of a footer, and its place: the end of the file, if it is where its trailer says.
pub fn footer(file: &mut [u8], generation: Generation) {
    let Some(trailer) = file.len().checked_sub(BLOCK) else { return };
    if file[trailer..trailer + 4] != *b"MKs1" {
        return;
    }
    put(file, trailer + 8, &generation.0.to_le_bytes());
    let position = u32_at(file, trailer + 24);
    let end = position.checked_add(u32_at(file, trailer + 32).next_multiple_of(BLOCK));
    if let Some(body) = end.filter(|end| *end <= trailer).and_then(|end| file.get(position..end)) {
        let crc = checksum::crc32c(body);
        put(file, trailer + 20, &crc.to_le_bytes());
    }
    put_crc(&mut file[trailer..], 4);
}

/// The checksums of flushes and entries; with `chains`, also the running hashes from flush to flush.
pub fn segment(file: &mut [u8], generation: Generation, chains: bool) {
    let mut position = 0;
    let mut hash = None;
    while position + BLOCK <= file.len() {
        if file[position..position + 4] != *b"MKf1" {
            position += BLOCK;
            continue;
        }
        put(file, position + 8, &generation.0.to_le_bytes());
        if let Some(RunningHash(hash)) = hash.filter(|_| chains) {
            put(file, position + 48, &u64::to_le_bytes(hash));
        }
        let length = u32_at(file, position + 24).clamp(FLUSH_HEADER, file.len() - position);
        let mut previous = [0; 8];
        previous.copy_from_slice(&file[position + 48..position + 56]);
        hash = Some(entries(
            &mut file[position + FLUSH_HEADER..position + length],
            RunningHash(u64::from_le_bytes(previous)),
        ));
        put_crc(&mut file[position..position + FLUSH_HEADER], 4);
        position += length.next_multiple_of(BLOCK);
    }
}

/// The checksums and hashes of a run of entries; returns the last hash.
fn entries(run: &mut [u8], mut hash: RunningHash) -> RunningHash {
    let mut at = 0;
    while run.len() - at >= ENTRY_HEADER && run[at..at + 4] == *b"MKe1" {
        let body_end = at + ENTRY_HEADER + u32_at(run, at + 8);
        let end = body_end.next_multiple_of(16);
        if end > run.len() {
            break;
        }
        let crc = checksum::crc32c(&run[at + ENTRY_HEADER..body_end]);
        put(run, at + 108, &crc.to_le_bytes());
        let mut prefix = [0; 112];
        prefix.copy_from_slice(&run[at..at + 112]);
        hash = checksum::running_hash(hash, &prefix);
        put(run, at + 112, &hash.0.to_le_bytes());
        put_crc(&mut run[at..at + ENTRY_HEADER], 120);
        at = end;
    }
    hash
}
