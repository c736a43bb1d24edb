//! What a command prints: for people as text, for machines as one JSON document a line.

use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use crate::exit::{Failure, Outcome};

/// Bytes gathered before they go to standard output.
const BUFFER_BYTES: usize = 256 << 10;

/// Standard output, buffered; flushed by [`Output::flush`] and at the end.
#[derive(Debug)]
pub struct Output {
    json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    /// Standard output for machines (`json`) or people.
    pub fn new(json: bool) -> Self {
        Self { json, out: BufWriter::with_capacity(BUFFER_BYTES, io::stdout()) }
    }

    /// Whether machines read this.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result in the form that was asked for.
    pub fn show(&mut self, result: &(impl Serialize + Display)) -> Outcome {
        if self.json {
            let text = serde_json::to_string(result).map_err(|error| Failure::failed(error.to_string()))?;
            self.write(text.as_bytes())?;
        } else {
            self.write(result.to_string().as_bytes())?;
        }
        self.write(b"\n")?;
        self.flush()
    }

    /// Prints bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.out.write_all(bytes).map_err(|error| Failure::io("standard output", &error))
    }

    /// Everything printed so far leaves.
    pub fn flush(&mut self) -> Outcome {
        self.out.flush().map_err(|error| Failure::io("standard output", &error))
    }
}

/// Aligns rows of text in columns, two spaces between them.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(head.to_vec())).chain(body).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = [vec!["orders".to_owned(), "8".to_owned()], vec!["a".to_owned(), "16".to_owned()]];
        assert_eq!(table(&["topic", "partitions"], &rows), "topic   partitions\norders  8\na       16");
    }
}
