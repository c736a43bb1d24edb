//! Reads this repository's Rust source well enough to hold it to its habits.
//!
//! A lexer, not a parser: it blanks comments and literals, so that a search finds code only, and matches braces.
//! Positions and lines stay what they were.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One Rust file.
#[derive(Debug)]
pub struct SourceFile {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// As it stands on disk.
    pub text: String,
    /// The same length, with comments and literals blanked.
    pub code: String,
    /// The same length, with comments blanked and literals kept.
    pub code_with_literals: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of `fn`, from 1.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

impl SourceFile {
    /// Lexes `text`, which stands at `path`.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let (code, code_with_literals) = blank(&text);
        Self { path: path.into(), text, code, code_with_literals }
    }

    /// The line, from 1, of a position.
    pub fn line_of(&self, position: usize) -> usize {
        1 + self.text.as_bytes()[..position].iter().filter(|&&byte| byte == b'\n').count()
    }

    /// Positions of `needle` in code (neither comments nor literals), where no word continues before or behind it.
    pub fn find(&self, needle: &str) -> Vec<usize> {
        let code = self.code.as_bytes();
        let continues = |at: Option<&u8>, edge: u8| is_word(edge) && at.is_some_and(|&byte| is_word(byte));
        let bytes = needle.as_bytes();
        self.code
            .match_indices(needle)
            .map(|(at, _)| at)
            .filter(|&at| {
                let before = at.checked_sub(1).and_then(|before| code.get(before));
                !continues(before, bytes[0]) && !continues(code.get(at + bytes.len()), bytes[bytes.len() - 1])
            })
            .collect()
    }

    /// Every function with a body, tests and nested ones included.
    pub fn functions(&self) -> Vec<Function> {
        self.find("fn").into_iter().filter_map(|at| self.function_at(at)).collect()
    }

    fn function_at(&self, at: usize) -> Option<Function> {
        let rest = self.code[at + 2..].trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let body = self.body_after(at)?;
        let line = self.line_of(at);
        (!name.is_empty()).then(|| Function { name, line, lines: self.line_of(body.end) - line + 1 })
    }

    /// The braces behind `at`, if they come before a `;` of the same depth. `end` is at the closing brace.
    fn body_after(&self, at: usize) -> Option<Range<usize>> {
        let code = self.code.as_bytes();
        let mut depth = 0i32;
        let mut start = None;
        for (position, &byte) in code.iter().enumerate().skip(at) {
            match (byte, start) {
                (b'{', None) if depth == 0 => start = Some(position),
                (b';', None) if depth == 0 => return None,
                (b'(' | b'[' | b'{', _) => depth += 1,
                (b'}', Some(start)) if depth == 0 => return Some(start..position),
                (b')' | b']' | b'}', _) => depth -= 1,
                _ => {}
            }
        }
        None
    }

    /// Stretches under `#[cfg(test)]`.
    pub fn test_regions(&self) -> Vec<Range<usize>> {
        let attributes = self.find("#[cfg(test)]").into_iter().chain(self.find("#[test]"));
        attributes
            .filter_map(|at| {
                let behind = at + self.code[at..].find(']')? + 1;
                self.body_after(behind)
            })
            .collect()
    }

    /// Whether this file is a test as a whole, by its place.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/benches/")
            || self.path.contains("/examples/")
    }
}

/// Every Rust file of the repository, sorted by path.
pub fn all() -> Vec<SourceFile> {
    let root = repository();
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let relative = path.strip_prefix(&root).expect("collected below the root").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{relative}: {error}"));
        SourceFile::new(relative, text)
    };
    paths.iter().map(read).collect()
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("a directory that lists").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, paths);
        } else if name.ends_with(".rs") {
            paths.push(path);
        }
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// What the lexer stands in, with the position behind it.
enum Token {
    Comment(usize),
    Literal(usize),
    Code(usize),
}

fn blank(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut code, mut with_literals) = (bytes.to_vec(), bytes.to_vec());
    let mut at = 0;
    while at < bytes.len() {
        at = match token(bytes, at) {
            Token::Comment(end) => {
                erase(&mut code[at..end]);
                erase(&mut with_literals[at..end]);
                end
            }
            Token::Literal(end) => {
                erase(&mut code[at..end]);
                end
            }
            Token::Code(end) => end,
        };
    }
    let back = |bytes| String::from_utf8(bytes).expect("whole literals and comments were blanked");
    (back(code), back(with_literals))
}

fn erase(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

fn token(bytes: &[u8], at: usize) -> Token {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        Token::Comment(at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()))
    } else if rest.starts_with(b"/*") {
        Token::Comment(at + block_comment(rest))
    } else if let Some(length) = (!after_word).then(|| raw_string(rest)).flatten() {
        Token::Literal(at + length)
    } else if rest[0] == b'"' {
        Token::Literal(at + quoted(rest, b'"'))
    } else if rest[0] == b'\'' && is_char(rest) {
        Token::Literal(at + quoted(rest, b'\''))
    } else {
        Token::Code(at + 1)
    }
}

fn block_comment(bytes: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        let (step, change) = match &bytes[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth += change;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a raw string (`r"…"`, `br#"…"#`) that starts here.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.iter().take(2).take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    if prefix == 0 || bytes[prefix - 1] != b'r' {
        return None;
    }
    let hashes = bytes[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    if bytes.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let start = prefix + hashes + 1;
    let end: Vec<u8> = [b'"'].into_iter().chain(std::iter::repeat_n(b'#', hashes)).collect();
    let found = bytes[start..].windows(end.len()).position(|window| window == end)?;
    Some(start + found + end.len())
}

fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// A character literal rather than a lifetime: an escape, or a quote right behind one character.
fn is_char(bytes: &[u8]) -> bool {
    let width = match bytes.get(1) {
        None => return false,
        Some(b'\\') => return true,
        Some(byte) if byte.is_ascii() => 1,
        Some(byte) => byte.leading_ones() as usize,
    };
    bytes.get(1 + width) == Some(&b'\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "fn a() { /* fn /* x */ y */ let s = \"fn {\"; let c = '{'; } // fn b()\nfn c<'a>(x: &'a str) -> char { r#\"}\"\"#; '\\'' }";
        let file = SourceFile::new("x.rs", text);
        let names: Vec<_> = file.functions().into_iter().map(|function| function.name).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(file.code.len(), text.len());
        assert!(file.code_with_literals.contains("\"fn {\""));
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let file =
            SourceFile::new("x.rs", "trait T { fn none(&self) -> [u8; 3]; }\nfn two(f: [u8; 3])\n{ if x { } }\n");
        assert_eq!(file.functions(), [Function { name: "two".into(), line: 2, lines: 2 }]);
    }

    #[test]
    fn words_are_whole() {
        let file = SourceFile::new("x.rs", "fn f() { x.unwrap_or(1); x.unwrap(); todo!(); mytodo!(); }");
        assert_eq!(file.find(".unwrap()").len(), 1);
        assert_eq!(file.find("todo!").len(), 1);
    }

    #[test]
    fn tests_are_regions() {
        let file = SourceFile::new("x.rs", "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\nfn c() {}");
        let [region] = file.test_regions().try_into().expect("one region");
        assert!(file.code[region.clone()].contains("fn b") && !file.code[region].contains("fn c"));
    }
}
