//! What happened: a hash over everything, and the last of it to read.
//!
//! Noting costs a few words; text is made only when somebody looks.

use std::collections::VecDeque;
use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::queue::Time;

/// Events kept to be read.
const KEPT: usize = 400;
/// Words hashed at once.
const CHUNK: usize = 256;

/// One thing that happened: a name and up to four numbers.
#[derive(Clone, Copy)]
pub struct Note {
    at: Time,
    what: &'static str,
    words: [u64; 4],
}

/// The trace of one run.
pub struct Trace {
    hash: u64,
    chunk: Vec<u8>,
    kept: VecDeque<Note>,
    is_verbose: bool,
}

impl Trace {
    /// An empty trace; a verbose one prints as it goes.
    pub fn new(is_verbose: bool) -> Self {
        Self { hash: 0, chunk: Vec::with_capacity(CHUNK * 8), kept: VecDeque::with_capacity(KEPT), is_verbose }
    }

    /// Notes one thing.
    pub fn note(&mut self, at: Time, what: &'static str, words: [u64; 4]) {
        let note = Note { at, what, words };
        if self.chunk.len() >= CHUNK * 8 {
            self.fold();
        }
        self.chunk.extend_from_slice(&at.to_le_bytes());
        self.chunk.extend_from_slice(what.as_bytes());
        for word in words {
            self.chunk.extend_from_slice(&word.to_le_bytes());
        }
        if self.is_verbose {
            println!("{note}");
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(note);
    }

    /// Says more of it, to whom it is printed as it goes.
    pub fn say(&self, text: &dyn fmt::Display) {
        if self.is_verbose {
            println!("{:>15}  {text}", "");
        }
    }

    /// The hash over all of it.
    pub fn hash(&mut self) -> u64 {
        self.fold();
        self.hash
    }

    /// The last of it, oldest first, one line each.
    pub fn tail(&self) -> String {
        self.kept.iter().map(|note| format!("{note}\n")).collect()
    }

    fn fold(&mut self) {
        self.hash = xxh3_64_with_seed(&self.chunk, self.hash);
        self.chunk.clear();
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.words;
        write!(f, "{:>12.3} ms  {:<28} {a:>4} {b:>6} {c:>8} {d:>18x}", self.at as f64 / 1e3, self.what)
    }
}

/// The name of a message between members.
pub const fn kind_of<B>(message: &minikafka_core::chain::peer::PeerMessage<B>) -> &'static str {
    use minikafka_core::chain::peer::PeerBody;
    match &message.body {
        PeerBody::OpenStream { .. } => "open stream",
        PeerBody::StreamOpened { .. } => "stream opened",
        PeerBody::StreamRefused { .. } => "stream refused",
        PeerBody::Entries { .. } => "entries",
        PeerBody::Committed { .. } => "committed",
        PeerBody::Acknowledged { .. } => "acknowledged",
        PeerBody::Explain { .. } => "explain",
        PeerBody::Explained { .. } => "explained",
        PeerBody::CopyRequest { .. } => "copy request",
        PeerBody::CopyReply { .. } => "copy reply",
    }
}
