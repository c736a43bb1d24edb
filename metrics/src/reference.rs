//! `docs/METRICS.md`, from the definitions.

use std::fmt::Write;

use crate::definition::Definition;

/// Definitions that belong together in the reference.
#[derive(Clone, Copy, Debug)]
pub struct Chapter {
    /// Its heading.
    pub title: &'static str,
    /// What stands below it, before the table.
    pub about: &'static str,
    /// Its rows.
    pub definitions: &'static [&'static Definition],
}

/// The whole document.
pub fn reference(preface: &str, chapters: &[Chapter]) -> String {
    let mut text = format!("# Metrics\n\n{preface}\n");
    for Chapter { title, about, definitions } in chapters {
        let written =
            write!(text, "\n## {title}\n\n{about}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
        written.unwrap_or_else(|_| unreachable!("a string takes everything"));
        for Definition { name, kind, labels, help } in definitions.iter().copied() {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let row =
                format!("| `{name}` | {} | {} | {} |\n", kind.name(), labels.join(", "), help.replace('|', "\\|"));
            text.push_str(&row);
        }
    }
    text
}
