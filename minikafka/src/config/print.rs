//! Settings as a file shows them: every key with its meaning, unit, flag, environment variable and value.

use std::fmt;

use serde::Serialize;

use super::file::Settings;
use super::keys::{self, Key};

/// Comments are wrapped here.
const COLUMNS: usize = 100;

/// All settings, in the order of a file.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Printed(pub Vec<Setting>);

/// A key, and what it is.
#[derive(Debug, Serialize)]
pub struct Setting {
    table: String,
    key: String,
    meaning: String,
    unit: String,
    flag: String,
    environment: Option<String>,
    default: Option<String>,
    /// None: nobody says anything, and there is no default that could be written down.
    value: Option<String>,
    /// Who says it, where it is not the default.
    #[serde(rename = "from")]
    source: Option<String>,
}

/// A file that is as it should be.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The file.
    pub file: String,
    /// How many keys it sets.
    pub keys: usize,
}

impl Printed {
    /// What holds when nobody says anything.
    pub fn defaults() -> Self {
        Self(keys::all().iter().map(|key| Setting::of(key, None)).collect())
    }

    /// What holds when no flag says anything else.
    pub fn effective(file: Option<&Settings>, environment: impl Fn(&str) -> Option<String>) -> Self {
        let said = |key: &Key| {
            let variable = key.environment().and_then(|name| Some((environment(name)?, name.to_owned())));
            let in_file =
                |file: &Settings| Some((file.get(&key.table, &key.name)?.to_owned(), file.file.display().to_string()));
            variable.or_else(|| file.and_then(in_file))
        };
        Self(keys::all().iter().map(|key| Setting::of(key, said(key))).collect())
    }
}

impl Setting {
    fn of(key: &Key, said: Option<(String, String)>) -> Self {
        let default = key.default().filter(|default| !default.is_empty()).map(str::to_owned);
        let (value, source) = match said {
            Some((value, source)) => (Some(value), Some(source)),
            None => (default.clone(), None),
        };
        Self {
            table: key.table.clone(),
            key: key.name.clone(),
            meaning: key.meaning(),
            unit: key.unit(),
            flag: format!("--{}", key.flag()),
            environment: key.environment().map(str::to_owned),
            default,
            value,
            source,
        }
    }
}

impl fmt::Display for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# Settings of MiniKafka. A flag goes before its environment variable, that before this file.\n#")?;
        write!(f, " A line that begins with # and a key shows the default; what a value in <> stands for has none.")?;
        let mut table = "";
        for setting in &self.0 {
            if setting.table != table {
                table = &setting.table;
                write!(f, "\n\n[{table}]")?;
            }
            write!(f, "\n{setting}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let environment = self.environment.as_deref().unwrap_or("no environment variable");
        let mut comment = format!("{} ({}; {}, {environment})", self.meaning, self.unit, self.flag);
        if let Some(source) = &self.source {
            comment.push_str(&format!(" [from {source}]"));
        }
        for line in wrap(&comment) {
            writeln!(f, "# {line}")?;
        }
        match (&self.value, &self.source) {
            (Some(value), Some(_)) => write!(f, "{} = {}", self.key, as_toml(value)),
            (Some(value), None) => write!(f, "#{} = {}", self.key, as_toml(value)),
            (None, _) => write!(f, "#{} = <{}>", self.key, self.unit),
        }
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: good, {} keys", self.file, self.keys)
    }
}

/// A number or a truth as it is, everything else in quotes.
fn as_toml(value: &str) -> String {
    let is_number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    if is_number || matches!(value, "true" | "false") { value.to_owned() } else { toml::Value::from(value).to_string() }
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + 1 + word.len() > COLUMNS {
            lines.push(word.to_owned());
        } else {
            let space = if lines[last].is_empty() { "" } else { " " };
            lines[last].push_str(&format!("{space}{word}"));
        }
    }
    lines
}
