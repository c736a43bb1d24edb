//! The input: every line of every text file of the crates that this build downloaded.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;
use minikafka_core::limits;

use crate::source;

/// A file with a zero byte among its first is not text: git's rule.
const SNIFFED_BYTES: usize = 8000;

/// A file: its key and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Crate, version and path within it.
    pub path: String,
    /// Every byte of it.
    pub bytes: Vec<u8>,
}

/// The files, sorted by path.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    /// Those that are sent.
    pub files: Vec<TextFile>,
    /// Crates they come from.
    pub crates: usize,
    /// Files with a line over the limit of a record, left out.
    pub left_out: usize,
}

impl TextFile {
    /// Its lines, each with its line end.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|&byte| byte == b'\n')
    }
}

impl Corpus {
    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.files.iter().map(|file| file.lines().count() as u64).sum()
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }

    fn add(&mut self, path: String, bytes: Vec<u8>) {
        // An empty file has no line, hence no record: there is nothing to compare.
        if bytes.is_empty() || bytes[..bytes.len().min(SNIFFED_BYTES)].contains(&0) {
            return;
        }
        let file = TextFile { path, bytes };
        let room = limits::RECORD_BYTES_MAX as usize - file.path.len();
        if file.lines().all(|line| line.len() <= room) {
            self.files.push(file);
        } else {
            self.left_out += 1;
        }
    }
}

/// The text of the dependencies, as cargo unpacked them; about `bytes_max` bytes of it.
pub fn of_dependencies(bytes_max: u64) -> Result<Corpus> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = MetadataCommand::new()
        .manifest_path(source::repository().join("Cargo.toml"))
        .other_options(["--locked".into(), "--filter-platform".into(), platform])
        .exec()
        .context("asking cargo where the dependencies are")?;
    let mut corpus = Corpus::default();
    let mut bytes = 0;
    for package in metadata.packages.iter().filter(|package| package.source.is_some()) {
        let root = package.manifest_path.parent().context("a manifest lies in a directory")?;
        let name = format!("{}-{}", package.name, package.version);
        for path in files_below(root.as_std_path())? {
            let below = path.strip_prefix(root).context("found below the crate")?;
            let content = fs::read(&path).with_context(|| path.display().to_string())?;
            bytes += content.len() as u64;
            corpus.add(format!("{name}/{}", below.display()), content);
        }
        corpus.crates += 1;
        if bytes >= bytes_max {
            break;
        }
    }
    corpus.files.sort_by(|a, b| a.path.cmp(&b.path));
    ensure!(!corpus.files.is_empty(), "cargo has unpacked no dependency: run `cargo fetch` first");
    Ok(corpus)
}

fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut directories) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

impl fmt::Display for Corpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.bytes() as f64 / f64::from(1 << 20);
        write!(f, "{} lines, {mebibytes:.1} MiB, of {} text files", self.lines(), self.files.len())?;
        write!(f, " of the {} crates that this build uses", self.crates)?;
        if self.left_out > 0 {
            write!(f, " ({} files left out: a line is over the limit of a record)", self.left_out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_put_together_are_the_file() {
        for text in [&b"a\nb\n"[..], b"a\r\n\r\nb", b"\n\n", b"\xff\xfe\n\x80", b"no end"] {
            let file = TextFile { path: "f".into(), bytes: text.to_vec() };
            assert_eq!(file.lines().collect::<Vec<_>>().concat(), text);
        }
    }

    #[test]
    fn only_text_with_lines_that_fit_is_taken() {
        let mut corpus = Corpus::default();
        corpus.add("empty".into(), Vec::new());
        corpus.add("binary".into(), b"\x7fELF\0".to_vec());
        corpus.add("long".into(), vec![b'x'; limits::RECORD_BYTES_MAX as usize]);
        corpus.add("latin1".into(), b"caf\xe9\n".to_vec());
        assert_eq!(corpus.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["latin1"]);
        assert_eq!((corpus.left_out, corpus.lines(), corpus.bytes()), (1, 1, 5));
    }
}
