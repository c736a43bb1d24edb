//! Reports as text.

use std::fmt::Write;

use super::ratio::{Ratio, Sense};
use super::{LimitsReport, RunReport};
use crate::compare::CompareReport;
use crate::driver::DriverNotes;
use crate::limits::{Device, Limit, Limits, Unit};
use crate::machine::Machine;
use crate::suite::{RowResult, SuiteReport, Target};

/// A load.
pub(super) fn run(report: &RunReport) -> String {
    let totals = &report.measured.totals;
    let mut text = format!("{}: {:.1} s measured, {} loop\n", report.command, totals.seconds, loop_kind(report));
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // A String takes whatever is written to it.
        let _ = text.write_fmt(arguments);
    };
    if report.ratios.is_empty() {
        let latency = &report.measured.latency;
        line(format_args!("  {:16} {}\n", "bytes of records", show(totals.bytes_per_second, "bytes/s")));
        line(format_args!("  {:16} {}\n", "records", show(totals.records_per_second, "records/s")));
        for (what, us) in
            [("latency p50", latency.p50_us), ("latency p99", latency.p99_us), ("latency max", latency.max_us)]
        {
            line(format_args!("  {what:16} {}\n", show(us, "us")));
        }
        line(format_args!("  limits were not measured (--limits off): these figures stand alone\n"));
    }
    for ratio in &report.ratios {
        line(format_args!("  {}\n", ratio_line(ratio)));
    }
    text.push_str(&failures(&report.driver, report.measured.unanswered));
    text.push_str(&format!("  driver           {:.0} % of a core\n", report.driver.core_share * 100.0));
    for note in &report.driver.notes {
        text.push_str(&format!("  note             {note}\n"));
    }
    if let Some(limits) = &report.limits {
        text.push_str(&limits_text(limits));
    }
    text.push_str(&machine(&report.machine));
    text
}

/// The limits by themselves.
pub(super) fn limits_report(report: &LimitsReport) -> String {
    let mut text = limits_text(&report.limits);
    text.push_str(&format!("{}\n", report.driver));
    text.push_str(&machine(&report.machine));
    text
}

/// Two binaries.
pub(super) fn compare(report: &CompareReport) -> String {
    format!("{report}{}", machine(&report.machine))
}

/// The rows of the suite.
pub(super) fn suite(report: &SuiteReport) -> String {
    let mut text = String::new();
    for result in &report.rows {
        let verdict = verdict(result);
        text.push_str(&format!("{:3} {:9} {}\n    {}\n", result.row.name, verdict, result.row.what, row_line(result)));
    }
    text.push_str(&limits_text(&report.limits));
    text.push_str(&format!("{}\n", report.driver));
    let output = report.options.output.display();
    text + &machine(&report.machine) + &format!("written: {output}/README.md, results.json, report.html\n")
}

/// What became of a promise.
pub(super) const fn verdict(result: &RowResult) -> &'static str {
    let stretches = match result.row.target {
        Target::Ratio(first, more) | Target::Figure(first, more) => first != more,
    };
    match (result.met, result.stretch_met && stretches) {
        (false, _) => "MISSED",
        (true, false) => "met",
        (true, true) => "stretch",
    }
}

fn row_line(result: &RowResult) -> String {
    let unit = result.row.unit;
    let (least, most) = spread(&result.runs);
    let (least, most) = (show(least, unit), show(most, unit));
    let (figure, limit) = (show(result.ratio.figure, unit), show(result.ratio.limit, unit));
    format!(
        "{figure} ({least} .. {most}), {:.3} x of {limit} ({}); {}",
        result.ratio.ratio,
        result.ratio.binds,
        target(result)
    )
}

/// What was promised, in words.
pub(super) fn target(result: &RowResult) -> String {
    let bound = if result.row.sense == Sense::MoreIsBetter { "at least" } else { "at most" };
    let (first, more) = match result.row.target {
        Target::Ratio(first, more) => (format!("{first} x"), format!("{more} x")),
        Target::Figure(first, more) => (show(first, result.row.unit), show(more, result.row.unit)),
    };
    if first == more { format!("{bound} {first}") } else { format!("{bound} {first}, stretch {more}") }
}

/// The least and the most.
pub(super) fn spread(runs: &[f64]) -> (f64, f64) {
    (runs.iter().copied().fold(f64::INFINITY, f64::min), runs.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

fn loop_kind(report: &RunReport) -> &'static str {
    match &report.asked.records {
        Some(records) if records.is_open_loop() => "open",
        _ => "closed",
    }
}

fn ratio_line(ratio: &Ratio) -> String {
    let (figure, limit) = (show(ratio.figure, ratio.unit), show(ratio.limit, ratio.unit));
    format!("{:16} {figure:>18}  {:>8.3} x  of {limit} ({})", ratio.what, ratio.ratio, ratio.binds)
}

fn failures(driver: &DriverNotes, unanswered: u64) -> String {
    let mut text = String::new();
    for (error, count) in &driver.failures {
        text.push_str(&format!("  FAILED           {count} requests: {error}\n"));
    }
    if unanswered > 0 {
        text.push_str(&format!("  FAILED           {unanswered} requests had no answer\n"));
    }
    text
}

/// Every limit with its best shape; the others are in the JSON and HTML.
pub(super) fn limits_text(limits: &Limits) -> String {
    let mut text = format!("limits, median of {} rounds\n", limits.rounds);
    for limit in limits.of_disk().chain([&limits.receive, &limits.round_trip]) {
        text.push_str(&limit_line(limit));
    }
    if let Some(device) = &limits.device {
        text.push_str(&format!("  {}\n", device_line(device)));
    }
    text
}

fn limit_line(limit: &Limit) -> String {
    let Some(best) = limit.best() else { return String::new() };
    let spread = |value: f64| show(value, unit(limit.unit));
    let least = best.runs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = best.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("  {:40} {:>14}  ({} .. {}; {})\n", limit.name, spread(best.median), spread(least), spread(most), best.name)
}

/// What a reader must know of the disk to judge a durable write.
pub(super) fn device_line(device: &Device) -> String {
    let core = device.interrupt_core().map_or_else(|| "not known".to_owned(), |core| core.to_string());
    format!(
        "disk {}: write cache {}, FUA {}, scheduler {}, interrupts on core {core}",
        device.name, device.write_cache, device.fua, device.scheduler
    )
}

/// What the figures were made on.
pub(super) fn machine(machine: &Machine) -> String {
    let optimised =
        if machine.optimised { "" } else { "\nWARNING: built without optimisations; these figures are worth nothing" };
    format!(
        "machine: {}, {} cores, {} GiB, Linux {} (TCP {}), MiniKafka {}{optimised}\n",
        machine.processor,
        machine.cores,
        machine.memory_bytes >> 30,
        machine.kernel,
        machine.congestion_control,
        machine.version
    )
}

/// The unit of a limit, as text.
pub(super) const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::BytesPerSecond => "bytes/s",
        Unit::Microseconds => "us",
    }
}

/// A figure with a unit that suits it.
pub(crate) fn show(value: f64, unit: &str) -> String {
    let scaled = |value: f64, unit: &str| match value {
        value if !value.is_finite() => "-".to_owned(),
        value if value.abs() < 10.0 => format!("{value:.2} {unit}"),
        value if value.abs() < 100.0 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    };
    match (unit, value) {
        ("bytes/s", value) if value >= 1e9 => scaled(value / 1e9, "GB/s"),
        ("bytes/s", value) => scaled(value / 1e6, "MB/s"),
        ("bytes", value) if value >= 1e6 => scaled(value / f64::from(1 << 20), "MiB"),
        ("us", value) if value >= 1e7 => scaled(value / 1e6, "s"),
        ("us", value) if value >= 1e4 => scaled(value / 1e3, "ms"),
        (unit, value) if unit.ends_with("/s") && value >= 1e6 => scaled(value / 1e6, &format!("M {unit}")),
        (unit, value) => scaled(value, unit),
    }
}
