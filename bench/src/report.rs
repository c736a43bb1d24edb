//! What is told at the end: text for people, JSON for machines, HTML with plots.

use std::fmt;

use serde::Serialize;

use crate::command::Asked;
use crate::compare::CompareReport;
use crate::driver::DriverNotes;
use crate::driver::speed::DriverSpeed;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::measure::Measured;
use crate::suite::SuiteReport;

pub mod html;
pub mod markdown;
pub mod ratio;
mod svg;
mod text;

use ratio::Ratio;
pub(crate) use text::show;

/// The result of any command; [`fmt::Display`] is its text.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum BenchReport {
    /// Of a load.
    Run(Box<RunReport>),
    /// Of `bench limits`.
    Limits(Box<LimitsReport>),
    /// Of `bench compare`.
    Compare(Box<CompareReport>),
    /// Of `bench suite`.
    Suite(Box<SuiteReport>),
}

/// The result of a load.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// `produce`, `consume` or `end-to-end`.
    pub(crate) command: &'static str,
    /// What it ran on.
    pub(crate) machine: Machine,
    /// What was asked for.
    pub(crate) asked: Asked,
    /// What came of it.
    pub(crate) measured: Measured,
    /// What the driver says.
    pub(crate) driver: DriverNotes,
    /// Every figure beside its limit; empty when limits were switched off.
    pub(crate) ratios: Vec<Ratio>,
    /// The limits.
    pub(crate) limits: Option<Limits>,
}

/// The result of `bench limits`.
#[derive(Clone, Debug, Serialize)]
pub struct LimitsReport {
    /// What it ran on.
    pub(crate) machine: Machine,
    /// The limits.
    pub(crate) limits: Limits,
    /// The load generator by itself.
    pub(crate) driver: DriverSpeed,
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            match self {
                Self::Run(report) => text::run(report),
                Self::Limits(report) => text::limits_report(report),
                Self::Compare(report) => text::compare(report),
                Self::Suite(report) => text::suite(report),
            }
            .trim_end(),
        )
    }
}
