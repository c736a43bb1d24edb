//! Does this machine have what it takes? Every check says what it found and, where something is missing, the fix.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::output;
use crate::process_limits::ProcessLimits;

mod disk;
mod machine;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// A broker runs, but slower or less safely than it could.
    Warning,
    /// A broker cannot run, or cannot keep its promises.
    Missing,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Everything looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// Whether a broker can run here.
    pub ok: bool,
    /// One by one.
    pub checks: Vec<Check>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), fix: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, found: found.into(), fix: Some(fix.into()) }
    }

    fn missing(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Missing, found: found.into(), fix: Some(fix.into()) }
    }
}

/// Looks at this machine, these limits, and the disk on which `data_dir` lies or would lie.
pub fn examine(data_dir: &Path, limits: ProcessLimits) -> Diagnosis {
    let mut checks = vec![
        machine::kernel(),
        machine::io_uring(),
        machine::locked_memory(limits.memlock),
        machine::open_files(limits.nofile),
        machine::clock(),
    ];
    checks.extend(disk::examine(data_dir));
    Diagnosis { ok: checks.iter().all(|check| check.verdict != Verdict::Missing), checks }
}

impl Diagnosis {
    /// What is not as it should be, one line each.
    pub fn complaints(&self, at_least: Verdict) -> Vec<String> {
        let bad = self.checks.iter().filter(|check| check.verdict >= at_least.max(Verdict::Warning));
        bad.map(|check| format!("{}: {}. {}", check.name, check.found, check.fix.as_deref().unwrap_or(""))).collect()
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |verdict| match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Missing => "MISSING",
        };
        let rows: Vec<_> = self
            .checks
            .iter()
            .map(|check| vec![check.name.to_owned(), word(check.verdict).to_owned(), check.found.clone()])
            .collect();
        writeln!(f, "{}", output::table(&["check", "verdict", "found"], &rows))?;
        let fixes = self.checks.iter().filter_map(|check| Some((check.name, check.fix.as_ref()?)));
        fixes.into_iter().try_for_each(|(name, fix)| write!(f, "\n{name}: {fix}"))?;
        if self.checks.iter().any(|check| check.fix.is_some()) {
            f.write_str("\n")?;
        }
        f.write_str(if self.ok {
            "\nA broker can run here."
        } else {
            "\nA broker cannot run here until this is fixed."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_complaint_has_a_fix() {
        let directory = tempfile::tempdir().unwrap();
        let starved = ProcessLimits { memlock: Some(0), nofile: Some(16) };
        let diagnosis = examine(directory.path(), starved);
        assert!(diagnosis.checks.iter().all(|check| (check.verdict == Verdict::Ok) == check.fix.is_none()));
        assert!(!diagnosis.ok, "16 files are too few");
        assert!(diagnosis.complaints(Verdict::Missing).iter().any(|line| line.contains("LimitNOFILE")));
        assert!(diagnosis.to_string().contains("cannot run here"));
    }
}
