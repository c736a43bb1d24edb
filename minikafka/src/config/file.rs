//! A configuration file read: every mistake in it with its line, and for a key that nobody knows the nearest one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use strsim::normalized_damerau_levenshtein;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key};
use super::wrong;
use crate::exit::{Failure, Outcome};

/// How alike two names must be for one to be taken for the other: one or two letters of a short word.
const LIKENESS_MIN: f64 = 0.6;
/// The likeness of a key that has the very name, in another table.
const LIKENESS_OF_SAME_NAME: f64 = 0.95;

/// What a file says, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where it was read.
    pub file: PathBuf,
    /// By table and name.
    values: BTreeMap<(String, String), String>,
}

/// A mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is, counted from 1.
    pub line: usize,
    /// The key, if it is about one.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What was perhaps meant.
    pub nearest: Option<String>,
}

impl Settings {
    /// Reads and checks a file.
    pub fn read(file: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| Failure::io(file.display(), &error))?;
        match parse(&text) {
            Ok(values) => Ok(Self { file: file.to_owned(), values }),
            Err(mistakes) => {
                let lines: Vec<_> = mistakes.iter().map(|mistake| format!("{}:{mistake}", file.display())).collect();
                Err(wrong(lines.join("\n")))
            }
        }
    }

    /// The value of a key, as it would stand on the command line.
    pub fn get(&self, table: &str, name: &str) -> Option<&str> {
        self.values.get(&(table.to_owned(), name.to_owned())).map(String::as_str)
    }

    /// How many keys have a value.
    pub fn count(&self) -> usize {
        self.values.len()
    }
}

/// The values of a file by table and name, or all its mistakes.
pub fn parse(text: &str) -> Result<BTreeMap<(String, String), String>, Vec<Mistake>> {
    let document = DeTable::parse(text).map_err(|error| vec![syntax(text, &error)])?;
    let (keys, mut values, mut mistakes) = (keys::all(), BTreeMap::new(), Vec::new());
    for (table, content) in document.get_ref() {
        let at = |place: &Spanned<_>| line_of(text, place.span().start);
        let Some(entries) = content.get_ref().as_table() else {
            mistakes.push(unknown(at(table), "", table.get_ref(), &keys));
            continue;
        };
        if !keys.iter().any(|key| key.table == *table.get_ref()) {
            mistakes.push(unknown_table(at(table), table.get_ref(), &keys));
            continue;
        }
        for (name, value) in entries {
            let known = keys.iter().find(|key| key.table == *table.get_ref() && key.name == *name.get_ref());
            let taken = match known {
                Some(key) => take(key, value.get_ref()).map_err(|what| Mistake {
                    line: at(name),
                    key: format!("{}.{}", key.table, key.name),
                    what,
                    nearest: None,
                }),
                None => Err(unknown(at(name), table.get_ref(), name.get_ref(), &keys)),
            };
            match taken {
                Ok(value) => drop(values.insert((table.get_ref().to_string(), name.get_ref().to_string()), value)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
    }
    mistakes.sort_by_key(|mistake| mistake.line);
    if mistakes.is_empty() { Ok(values) } else { Err(mistakes) }
}

/// The value as it would stand on the command line, if that would take it.
fn take(key: &Key, value: &DeValue<'_>) -> Result<String, String> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.map_err(|_| "the number is too large".to_owned())?.to_string()
        }
        DeValue::Boolean(truth) => truth.to_string(),
        other => return Err(format!("wants one value ({}), not a {}", key.unit(), other.type_str())),
    };
    key.check(&text).map(|()| text)
}

fn syntax(text: &str, error: &toml::de::Error) -> Mistake {
    let line = error.span().map_or(1, |span| line_of(text, span.start));
    Mistake { line, key: String::new(), what: error.message().to_owned(), nearest: None }
}

fn unknown_table(line: usize, table: &str, keys: &[Key]) -> Mistake {
    let candidates = keys.iter().map(|key| (normalized_damerau_levenshtein(table, &key.table), key.table.clone()));
    let nearest = nearest(candidates).map(|table| format!("[{table}]"));
    Mistake { line, key: format!("[{table}]"), what: "there is no such table".to_owned(), nearest }
}

/// `table` is empty for a key above all tables.
fn unknown(line: usize, table: &str, name: &str, keys: &[Key]) -> Mistake {
    let likeness = |key: &Key| match () {
        () if key.name == name || key.flag() == name => LIKENESS_OF_SAME_NAME,
        () if key.table == table => normalized_damerau_levenshtein(name, &key.name),
        // Its own table goes first where both are as near.
        () => normalized_damerau_levenshtein(name, &key.name) * LIKENESS_OF_SAME_NAME,
    };
    let nearest = nearest(keys.iter().map(|key| (likeness(key), format!("{}.{}", key.table, key.name))));
    let (key, what) = match table {
        "" => (name.to_owned(), "stands in no table"),
        table => (format!("{table}.{name}"), "there is no such key"),
    };
    Mistake { line, key, what: what.to_owned(), nearest }
}

fn nearest(candidates: impl Iterator<Item = (f64, String)>) -> Option<String> {
    let near = candidates.filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    near.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name)
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.what)?;
        self.nearest.iter().try_for_each(|nearest| write!(f, "; the nearest is {nearest}"))
    }
}
