//! Replays what fuzzing found: every input of `fuzz/corpus` through its target, on the stable compiler, each time.
//!
//! Promise: an input that once broke something, or that reaches a corner, is never broken again. Fuzzing itself is
//! `scripts/fuzz`. Seeds are made from the golden vectors with `MINIKAFKA_BLESS=1`.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use minikafka_core::control::ControlEntry;
use minikafka_core::topic::TopicConfig;
use minikafka_core::wire::Wire;
use minikafka_core::{ConfigVersion, Offset, Partition, PartitionKey, RangeId, RangeKey, RingId, TopicId};
use minikafka_tests::fuzzing::{REPAIR, TARGETS, Target};
use minikafka_tests::seed::Seed;
use minikafka_tests::source;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// All corpora together stay small enough to be cloned by everyone.
const CORPORA_BYTES_MAX: u64 = 2 << 20;

fn corpus(target: &str) -> PathBuf {
    source::repository().join("fuzz/corpus").join(target)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a directory that lists").path()).collect();
    files.sort();
    files
}

/// Inputs that break the target, by name.
fn broken(run: Target, inputs: &[PathBuf]) -> Vec<String> {
    let breaks = |path: &&PathBuf| {
        let input = fs::read(path).expect("an input can be read");
        catch_unwind(|| run(&input)).is_err()
    };
    inputs.iter().filter(breaks).map(|path| path.display().to_string()).collect()
}

fn replay(name: &str) {
    bless();
    let (_, run) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target");
    let inputs = files(&corpus(name));
    assert!(inputs.len() >= 3, "only {} inputs for {name}: was the corpus cloned?", inputs.len());
    let broken = broken(*run, &inputs);
    assert!(broken.is_empty(), "these inputs break {name} (the panics are above):\n  {}", broken.join("\n  "));
}

#[test]
fn frame() {
    replay("frame");
}

#[test]
fn messages() {
    replay("messages");
}

#[test]
fn batch_body() {
    replay("batch_body");
}

#[test]
fn entry() {
    replay("entry");
}

#[test]
fn segment() {
    replay("segment");
}

#[test]
fn footer() {
    replay("footer");
}

#[test]
fn promise() {
    replay("promise");
}

#[test]
fn control() {
    replay("control");
}

#[test]
fn coordination() {
    replay("coordination");
}

#[test]
fn nothing_and_noise_break_nothing() {
    for (name, run) in TARGETS {
        for length in [0, 1, 2, 9, 16, 127, 128, 129, 4095, 4096, 4097, 8193] {
            for byte in [0, 1, 3, 7, 0x7f, 0xff] {
                let input = vec![byte; length];
                assert!(catch_unwind(|| run(&input)).is_ok(), "{name}: {length} bytes of {byte}");
            }
        }
    }
}

#[test]
fn every_target_is_built_and_replayed_and_small() {
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let root = source::repository().join("fuzz");
    let stem = |path: &PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let built: BTreeSet<_> = files(&root.join("fuzz_targets")).iter().map(stem).collect();
    assert_eq!(built, names, "fuzz/fuzz_targets");
    let corpora: BTreeSet<_> = files(&root.join("corpus")).iter().map(stem).collect();
    assert_eq!(corpora, names, "fuzz/corpus");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    assert!(names.iter().all(|name| manifest.contains(&format!("name = \"{name}\""))), "fuzz/Cargo.toml");
    let bytes = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let total: u64 = names.iter().flat_map(|name| files(&corpus(name))).map(|path| bytes(&path)).sum();
    assert!(total <= CORPORA_BYTES_MAX, "{total} bytes of corpora: minimise them (scripts/fuzz --minimise)");
}

#[test]
fn a_broken_target_is_found() {
    let planted: Target = |input| assert!(input.first() != Some(&REPAIR), "planted");
    let inputs = files(&corpus("segment"));
    let broken = broken(planted, &inputs);
    assert!(!broken.is_empty() && broken.len() < inputs.len(), "{} of {}", broken.len(), inputs.len());
}

/// One of the corpus's inputs, changed in a few places: lengths and counts most of all, which are whole words.
fn mutated(inputs: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let word = [0, 1, 63, 4095, 4096, u64::from(u32::MAX), i64::MAX as u64, u64::MAX - 1, u64::MAX];
        let word = word[random.random_range(0..word.len())].wrapping_add(random.random_range(0..3));
        match random.random_range(0..8) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes[at] = random.random(),
            3 => {
                let other = &inputs[random.random_range(0..inputs.len())];
                let (from, room) = (random.random_range(0..other.len().max(1)), bytes.len() - at);
                let piece = &other[from.min(other.len())..(from + random.random_range(0..300)).min(other.len())];
                let piece = &piece[..piece.len().min(room)];
                bytes[at..at + piece.len()].copy_from_slice(piece);
            }
            width => {
                let width = [1, 2, 4, 8][width as usize - 4];
                // Fields lie at multiples of their width behind the first byte, which says how to read the others.
                let at = 1 + (at.saturating_sub(1)) / width * width;
                let end = (at + width).min(bytes.len());
                if at < end {
                    bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
                }
            }
        }
    }
    bytes
}

#[test]
fn changed_inputs_break_nothing() {
    let seed = Seed::from_environment();
    // A thousand inputs for all but the slowest; MINIKAFKA_FUZZ_ROUNDS=1000000 for a long look without nightly.
    let rounds = std::env::var("MINIKAFKA_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    for (number, (name, run)) in TARGETS.into_iter().enumerate() {
        let mut random = seed.part(number as u64);
        let inputs: Vec<_> = files(&corpus(name)).iter().map(|path| fs::read(path).expect("an input")).collect();
        for round in 0..if name == "segment" { rounds / 10 } else { rounds } {
            let input = mutated(&inputs, &mut random);
            if catch_unwind(|| run(&input)).is_err() {
                let path = std::env::temp_dir().join(format!("minikafka-{name}-{round}.input"));
                fs::write(&path, &input).expect("a temporary file");
                panic!(
                    "{seed}, {name}, round {round}: see {}; fix it and keep it in fuzz/corpus/{name}",
                    path.display()
                );
            }
        }
    }
}

/// Writes the seeds, when asked to.
fn bless() {
    if std::env::var_os("MINIKAFKA_BLESS").is_none_or(|value| value != "1") {
        return;
    }
    for (target, name, bytes) in seeds() {
        let dir = corpus(target);
        fs::create_dir_all(&dir).expect("the repository is writable when blessing");
        fs::write(dir.join(format!("vector-{name}")), bytes).expect("the repository is writable when blessing");
    }
}

fn vectors(name: &str) -> Value {
    let path = source::repository().join("tests/vectors").join(name);
    serde_json::from_str(&fs::read_to_string(path).expect("vectors")).expect("vectors are JSON")
}

fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().expect("hexadecimal digits");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn list<'a>(vectors: &'a Value, field: &str) -> impl Iterator<Item = (String, &'a Value)> {
    let items = vectors[field].as_array().expect("a list");
    items.iter().enumerate().map(|(at, item)| {
        let name = item["name"].as_str().unwrap_or("x").replace(|letter: char| !letter.is_alphanumeric(), "-");
        (format!("{at}-{name}"), item)
    })
}

/// Inputs made from the golden vectors: target, name, bytes.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let frames = vectors("frames.json");
    for (name, frame) in list(&frames, "frames") {
        let bulk = vec![7; frame["bulk_bytes"].as_u64().unwrap_or(0).min(1000) as usize];
        seeds.push(("messages", name.clone(), hex(&frame["head"])));
        seeds.push(("frame", name, [&[0, 1, 2, 30, 31, 3, 0, 90, 255][..], &hex(&frame["frame"]), &bulk].concat()));
    }
    for (name, head) in list(&frames, "malformed_heads") {
        seeds.push(("messages", format!("bad-{name}"), hex(&head["head"])));
    }
    let batches = vectors("batches.json");
    for (field, kind) in [("valid", ""), ("malformed", "bad-")] {
        for (name, batch) in list(&batches, field) {
            let (header, body) = (&batch["header"], hex(&batch["body"]));
            if body.len() < 4000 {
                let number = |field: &str| header[field].as_i64().unwrap_or(0).to_le_bytes();
                let (count, delta) = (number("record_count"), number("last_offset_delta"));
                let head = [&count[..4], &delta[..4], &number("base_timestamp")].concat();
                seeds.push(("batch_body", format!("{kind}{name}"), [head, body].concat()));
            }
        }
    }
    let entries = vectors("entries.json");
    for (name, entry) in list(&entries, "log") {
        seeds.push(("entry", format!("good-{name}"), [vec![0], hex(&entry["sealed"])].concat()));
        seeds.push(("entry", format!("repaired-{name}"), [vec![1], hex(&entry["sealed"])].concat()));
    }
    for (name, entry) in list(&entries, "malformed") {
        seeds.push(("entry", format!("bad-{name}"), [vec![1], hex(&entry["bytes"])].concat()));
    }
    seeds.extend(disk_seeds(&entries));
    seeds.extend(record_seeds());
    seeds
}

fn disk_seeds(entries: &Value) -> Vec<(&'static str, String, Vec<u8>)> {
    let disk = vectors("disk.json");
    let (slot, trailer) = (hex(&disk["promise_slot"]["bytes"]), hex(&disk["segment_trailer"]["bytes"]));
    let mut seeds = Vec::new();
    for mode in [0, REPAIR] {
        let mut file = [vec![mode], slot.clone()].concat();
        file.resize(1 + 8192, 0);
        seeds.push(("promise", format!("slot-{mode}"), file.clone()));
        file[1 + 4096..1 + 4096 + slot.len()].copy_from_slice(&slot);
        file[1 + 4096 + 16] = 3;
        seeds.push(("promise", format!("slots-{mode}"), file));
    }
    // One partition, two extents, three flushes, a snapshot of 100 bytes; in front of the trailer, at 0.
    let mut sealed = [vec![0; 4096], trailer].concat();
    sealed.resize(8192, 0);
    sealed[12..16].copy_from_slice(&2u32.to_le_bytes());
    sealed[4096 + 24..4096 + 32].fill(0);
    for mode in [0, REPAIR] {
        seeds.push(("footer", format!("sealed-{mode}"), [&[mode][..], &sealed].concat()));
    }
    let mut empty = sealed.clone();
    empty[4096 + 112..4096 + 124].fill(0);
    empty[4096 + 32..4096 + 40].copy_from_slice(&100u64.to_le_bytes());
    seeds.push(("footer", "empty".to_owned(), [&[REPAIR][..], &empty].concat()));

    // Flushes with the entries of the vectors, whose bodies are made up: repaired, they are a log.
    let flush = |number: u64, first: u64, durable: u64, bodies: &[u32]| {
        let mut bytes = hex(&disk["flush_header"]["bytes"]);
        let template = entries["log"].as_array().and_then(|log| log.first()).expect("an entry");
        for (at, body_bytes) in bodies.iter().enumerate() {
            let mut entry = hex(&template["sealed"]);
            entry[8..12].copy_from_slice(&body_bytes.to_le_bytes());
            entry[12..16].copy_from_slice(&body_bytes.to_le_bytes());
            entry[32..40].copy_from_slice(&(first + at as u64).to_le_bytes());
            entry.resize(entry.len() + body_bytes.next_multiple_of(16) as usize, 0);
            bytes.extend(entry);
        }
        let length = bytes.len() as u32;
        bytes[16..24].copy_from_slice(&number.to_le_bytes());
        bytes[24..28].copy_from_slice(&length.to_le_bytes());
        bytes[32..40].copy_from_slice(&first.to_le_bytes());
        bytes[40..48].copy_from_slice(&durable.to_le_bytes());
        if first == 1 {
            bytes[48..56].fill(0);
        }
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        bytes
    };
    let log = [flush(1, 1, 0, &[10, 200]), flush(2, 3, 2, &[3000, 3000]), flush(3, 5, 4, &[])].concat();
    let cut =
        [flush(1, 1, 0, &[10, 20, 30]), flush(2, 2, 1, &[40]), flush(3, 9, 2, &[5]), flush(4, 10, 9, &[])].concat();
    for (name, image) in [("log", log), ("cut", cut)] {
        for mode in [0, 1, 3, 5, 7] {
            seeds.push(("segment", format!("{name}-{mode}"), [&[mode][..], &image].concat()));
        }
        let sealed = with_footer(&image, &sealed[4096..], name == "log");
        seeds.push(("segment", format!("sealed-{name}"), [&[3][..], &sealed].concat()));
        // The log goes on in a second file of the same length.
        let mut next = [flush(17, 5, 4, &[100]), flush(18, 6, 5, &[])].concat();
        next.resize(sealed.len(), 0);
        seeds.push(("segment", format!("two-{name}"), [&[7][..], &sealed, &next].concat()));
    }
    seeds
}

/// Flushes with a footer: two flushes of two entries each, or whatever the trailer's numbers make of others.
fn with_footer(flushes: &[u8], trailer: &[u8], is_right: bool) -> Vec<u8> {
    let (topic, partition) = (&flushes[64 + 40..64 + 48], &flushes[64 + 48..64 + 52]);
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let length = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| flushes[at + 24 + byte])) - 64;
    let (first, second) = (length(0), if is_right { length(4096) } else { 64 });
    let base_offset = &flushes[64 + 56..64 + 64];
    let mut body = [topic, partition, &words(&[2]), base_offset, &words(&[100, 0])].concat();
    body.extend([base_offset, &words(&[0, 1, 64, first, first])].concat());
    body.extend([base_offset, &words(&[2, 3, 4096 + 64, second, second])].concat());
    body.extend(words(&[0, 1, 64, first, 0, 0, 0, 0]));
    body.extend(words(&[2, 3, 4096 + 64, second, 0, 0, 0, 0]));
    let mut trailer = trailer.to_vec();
    for (at, field) in [(24, flushes.len() as u64), (32, body.len() as u64), (40, 1), (48, 4), (128, 0)] {
        trailer[at..at + 8].copy_from_slice(&u64::to_le_bytes(field));
    }
    trailer[112..124].copy_from_slice(&words(&[1, 2, 2]));
    body.resize(4096, 0);
    [flushes, &body, &trailer].concat()
}

fn record_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let member = json!({"node": 1, "shard": 0, "store": 7, "incarnation": 8});
    let point = json!({"index": 5, "hash": 6});
    let range =
        json!({"active": {"epoch": 3, "chain": [member], "start": point}, "pending": {"epoch": 4, "writer": 5}});
    let config = json!({"retention_ms": -1, "retention_bytes": -1, "batch_bytes_max": 100});
    let topic =
        json!({"topic": 5, "partitions": 3, "ring": 1, "state": "ready", "config": config, "placement": {"1": 2}});
    for (name, record) in [
        ("cluster", json!({"cluster": 1, "internal_replication": 1, "format": 1})),
        ("broker", json!({"node": 1, "shards": ["a:1"], "rack": "", "incarnation": 2, "store": 3, "version": "0.1.0"})),
        ("chunk", json!({"ring": 1, "replication": 1, "ranges_total": 2, "first": 0, "ranges": [range, {}]})),
        ("bucket", json!({"topics": {"orders": topic}})),
    ] {
        seeds.push(("coordination", name.to_owned(), record.to_string().into_bytes()));
    }
    let partition = PartitionKey { topic: TopicId(3), partition: Partition(4) };
    let (config, version) = (TopicConfig::default(), ConfigVersion(1));
    let previous = Some(RangeKey { ring: RingId(1), range: RangeId(2) });
    let entries = [
        ControlEntry::PartitionOpen { partition, config, version, start_offset: Offset(7), previous },
        ControlEntry::PartitionConfig { partition, config, version },
        ControlEntry::LogStart { partition, log_start: Offset(8) },
        ControlEntry::PartitionDelete { partition },
    ];
    let framed = entries.iter().map(|entry| {
        let bytes = entry.to_bytes();
        [vec![bytes.len() as u8], bytes].concat()
    });
    let framed: Vec<Vec<u8>> = framed.collect();
    seeds.extend(framed.iter().enumerate().map(|(at, bytes)| ("control", at.to_string(), bytes.clone())));
    seeds.push(("control", "all".to_owned(), framed.concat()));
    seeds.extend(group_seeds());
    seeds
}

fn group_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let groups = vectors("groups.json");
    let framed = |entry: &Value| {
        let bytes = hex(&entry["bytes"]);
        [vec![u8::try_from(bytes.len()).expect("a short entry")], bytes].concat()
    };
    let mut seeds = Vec::new();
    for (field, kind) in [("control_entries", "group"), ("malformed_control_entries", "bad-group")] {
        seeds.extend(list(&groups, field).map(|(name, entry)| ("control", format!("{kind}-{name}"), framed(entry))));
    }
    let all = list(&groups, "control_entries").flat_map(|(_, entry)| framed(entry)).collect();
    seeds.push(("control", "groups".to_owned(), all));
    seeds.push(("messages", "snapshot-with-groups".to_owned(), hex(&groups["snapshot"]["bytes"])));
    seeds
}
