//! Lines of text as records: what is a key, what is a value, and where a line ends.
//!
//! A line ends with `\n`, which is not part of the record; every other byte is, `\r` included. A last line without
//! `\n` is a record too.

use std::io::{self, BufRead};

/// What is read of each line.
#[derive(Clone, Debug, Default)]
pub struct LineRules {
    /// The first occurrence parts key from value; a line without it has no key.
    pub key_separator: Option<Vec<u8>>,
    /// The key of every line that has none of its own.
    pub key: Option<Vec<u8>>,
    /// A line longer than this is refused before it is read whole.
    pub line_bytes_max: usize,
}

/// A record's key and value, within a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
}

impl LineRules {
    /// Parts one line (without its `\n`).
    pub fn part<'a>(&'a self, line: &'a [u8]) -> Line<'a> {
        let separator = self.key_separator.as_deref().filter(|separator| !separator.is_empty());
        let found = separator.and_then(|separator| {
            let at = line.windows(separator.len()).position(|window| window == separator)?;
            Some(Line { key: Some(&line[..at]), value: &line[at + separator.len()..] })
        });
        found.unwrap_or(Line { key: self.key.as_deref(), value: line })
    }
}

/// Reads the next line into `line`, without its `\n`. False at the end. A line over `bytes_max` is an error of the kind
/// `InvalidData`, found after `bytes_max` bytes and not after all of them.
pub fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>, bytes_max: usize) -> io::Result<bool> {
    line.clear();
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(buffer.len());
        if line.len() + taken > bytes_max {
            let message = format!("a line has more than the {bytes_max} bytes that a record may have");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        line.extend_from_slice(&buffer[..taken]);
        input.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], bytes_max: usize) -> io::Result<Vec<Vec<u8>>> {
        // A buffer of three bytes, so that lines straddle it.
        let mut input = io::BufReader::with_capacity(3, text);
        let (mut line, mut all) = (Vec::new(), Vec::new());
        while next_line(&mut input, &mut line, bytes_max)? {
            all.push(line.clone());
        }
        Ok(all)
    }

    #[test]
    fn every_byte_but_the_newline_is_kept() {
        assert_eq!(lines(b"", 9).unwrap(), [b""; 0]);
        assert_eq!(lines(b"\n", 9).unwrap(), [b""]);
        assert_eq!(lines(b"a\r\n\nb\xff\x00c", 9).unwrap(), [&b"a\r"[..], b"", b"b\xff\0c"]);
    }

    #[test]
    fn a_line_over_the_limit_is_refused() {
        assert_eq!(lines(b"12345\n1", 5).unwrap().len(), 2);
        assert_eq!(lines(b"123456\n", 5).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn keys() {
        let rules = |separator: &str| LineRules { key_separator: Some(separator.into()), ..LineRules::default() };
        let line = |key: &'static [u8], value: &'static [u8]| Line { key: Some(key), value };
        assert_eq!(rules(":").part(b"a:b:c"), line(b"a", b"b:c"));
        assert_eq!(rules("::").part(b"a:b::"), line(b"a:b", b""));
        assert_eq!(rules(":").part(b"abc"), Line { key: None, value: b"abc" });
        assert_eq!(rules("").part(b"abc"), Line { key: None, value: b"abc" });
        let fixed = LineRules { key: Some(b"k".into()), ..rules(":") };
        assert_eq!(fixed.part(b"abc"), line(b"k", b"abc"));
        assert_eq!(fixed.part(b"x:y"), line(b"x", b"y"));
    }
}
