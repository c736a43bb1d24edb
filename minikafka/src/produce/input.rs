//! Files and standard input, read by a thread of their own and cut into lines.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::lines::{Line, LineRules, next_line};
use crate::exit::{Failure, Outcome};

/// Bytes of lines that travel together.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 8;
/// Stands for standard input where a file is named.
const STANDARD_INPUT: &str = "-";

/// What is to be read.
#[derive(Debug)]
pub struct Input {
    sources: Vec<Source>,
    rules: LineRules,
}

#[derive(Debug)]
struct Source {
    name: String,
    rules: Arc<LineRules>,
    file: Option<File>,
}

/// Lines of one source.
#[derive(Debug)]
pub struct LineChunk {
    rules: Arc<LineRules>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Input {
    /// Opens every file, so that a wrong name is found before anything is sent.
    pub fn open(files: &[PathBuf], rules: LineRules, key_from_path: bool) -> Outcome<Self> {
        let standard = [PathBuf::from(STANDARD_INPUT)];
        let files = if files.is_empty() { &standard[..] } else { files };
        let shared = Arc::new(rules.clone());
        let open = |path: &PathBuf| {
            let name = path.display().to_string();
            let is_file = path.as_path() != Path::new(STANDARD_INPUT);
            let file = is_file.then(|| File::open(path)).transpose().map_err(|error| Failure::io(&name, &error))?;
            let key = (key_from_path && is_file).then(|| path.as_os_str().as_encoded_bytes().to_vec());
            let rules = if key.is_some() { Arc::new(LineRules { key, ..rules.clone() }) } else { shared.clone() };
            Ok(Source { name, rules, file })
        };
        let sources = files.iter().map(open).collect::<Outcome<_>>()?;
        Ok(Self { sources, rules })
    }

    /// Bytes of all sources; none when that is not known.
    pub fn bytes(&self) -> Option<u64> {
        let size = |source: &Source| source.file.as_ref()?.metadata().ok().filter(|it| it.is_file()).map(|it| it.len());
        self.sources.iter().map(size).sum()
    }

    /// Begins to read, ahead of whoever receives. The last thing received is the end, or one error.
    pub fn start(self) -> mpsc::Receiver<Outcome<LineChunk>> {
        let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
        tokio::task::spawn_blocking(move || {
            for source in self.sources {
                if let Err(failure) = read_source(source, self.rules.line_bytes_max, &chunks) {
                    // Nobody receives any more: there is nobody to tell.
                    let _ = chunks.blocking_send(Err(failure));
                    return;
                }
            }
        });
        received
    }
}

fn read_source(source: Source, line_bytes_max: usize, chunks: &mpsc::Sender<Outcome<LineChunk>>) -> Outcome {
    let reader: Box<dyn Read> = match source.file {
        Some(file) => Box::new(file),
        None => Box::new(io::stdin().lock()),
    };
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, reader);
    let new_chunk =
        || LineChunk { rules: source.rules.clone(), bytes: Vec::with_capacity(CHUNK_BYTES), ends: Vec::new() };
    let (mut chunk, mut line, mut number) = (new_chunk(), Vec::new(), 0u64);
    loop {
        number += 1;
        let more = next_line(&mut reader, &mut line, line_bytes_max)
            .map_err(|error| Failure::io(format!("{} line {number}", source.name), &error))?;
        if more {
            chunk.bytes.extend_from_slice(&line);
            chunk.ends.push(chunk.bytes.len());
        }
        // What a terminal or a slow pipe has written is sent at once, not when a chunk is full.
        let is_due = !more || chunk.bytes.len() >= CHUNK_BYTES || reader.buffer().is_empty();
        if is_due
            && !chunk.ends.is_empty()
            && chunks.blocking_send(Ok(std::mem::replace(&mut chunk, new_chunk()))).is_err()
        {
            return Ok(());
        }
        if !more {
            return Ok(());
        }
    }
}

impl LineChunk {
    /// Its lines, in order.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| self.rules.part(&self.bytes[start..end]))
    }

    /// Bytes that these lines took in their source.
    pub fn input_bytes(&self) -> u64 {
        (self.bytes.len() + self.ends.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(text: &[u8], key_from_path: bool) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let rules = LineRules { line_bytes_max: 1 << 20, ..LineRules::default() };
        let input = Input::open(&[file.path().to_owned()], rules, key_from_path).unwrap();
        assert_eq!(input.bytes(), Some(text.len() as u64));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut lines, mut key) = (Vec::new(), None);
        runtime.block_on(async {
            let mut chunks = input.start();
            while let Some(chunk) = chunks.recv().await {
                for line in chunk.unwrap().lines() {
                    lines.push(line.value.to_vec());
                    key = line.key.map(<[u8]>::to_vec);
                }
            }
        });
        assert_eq!(key.is_some(), key_from_path);
        (lines, key)
    }

    #[test]
    fn lines_come_as_they_are() {
        let text: Vec<u8> = (0..100_000).flat_map(|number| format!("line {number}\r\n").into_bytes()).collect();
        let (lines, _) = read(&text, false);
        assert_eq!(lines.len(), 100_000);
        let again: Vec<u8> = lines.into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).collect();
        assert_eq!(again, text);
    }

    #[test]
    fn a_path_can_be_the_key() {
        let (_, key) = read(b"a\nb", true);
        assert!(!key.unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_not_there_is_found_first() {
        let failure = Input::open(&["/nowhere/at/all".into()], LineRules::default(), false).unwrap_err();
        assert!(failure.message.starts_with("/nowhere/at/all: "), "{}", failure.message);
    }
}
