//! Reports as one HTML file: inline SVG, nothing fetched from anywhere, readable without scripts.

use super::ratio::Ratio;
use super::svg::{Line, Plot, escaped};
use super::text::{device_line, show, spread, target, unit, verdict};
use super::{BenchReport, RunReport};
use crate::limits::{Limit, Limits};
use crate::machine::Machine;
use crate::suite::{RowResult, SuiteReport};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1f2328;\
background:#fff}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d1d9e0;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}svg{width:100%;height:auto}\
svg text{font:11px system-ui,sans-serif;fill:#59636e}svg text[fill]{fill:revert-layer}.grid{stroke:#d1d9e0}\
.y{text-anchor:end}.x{text-anchor:middle}.met{color:#1a7f37}.missed{color:#d1242f}\
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th,td{border-color:#30363d}.grid{stroke:#30363d}}";

/// The whole page.
pub fn page(report: &BenchReport) -> String {
    let (title, body) = match report {
        BenchReport::Run(report) => (format!("MiniKafka bench: {}", report.command), run(report)),
        BenchReport::Limits(report) => {
            let driver = format!("<p>{}</p>", escaped(&report.driver.to_string()));
            let title = "MiniKafka bench: the limits of this machine".to_owned();
            (title, limits(&report.limits) + &driver + &machine(&report.machine))
        }
        BenchReport::Compare(report) => {
            let text = format!("<pre>{}</pre>", escaped(&report.to_string()));
            ("MiniKafka bench: two binaries".to_owned(), text + &machine(&report.machine))
        }
        BenchReport::Suite(report) => ("MiniKafka bench: the suite".to_owned(), suite(report)),
    };
    let title = escaped(&title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"/><style>{STYLE}</style></head>\
         <body><h1>{title}</h1>{body}</body></html>\n"
    )
}

fn suite(report: &SuiteReport) -> String {
    let row = |result: &RowResult| {
        let unit = result.row.unit;
        let (least, most) = spread(&result.runs);
        let notes: String = result.notes.iter().map(|note| format!("<br/>{}", escaped(note))).collect();
        let class = if result.met { "met" } else { "missed" };
        format!(
            "<tr><td>{}</td><td>{}<small>{notes}</small></td><td class=\"n\">{}<br/><small>{} .. {}</small></td>\
             <td class=\"n\">{:.3}</td><td>{}<br/><small>{}</small></td><td>{}</td><td class=\"{class}\">{}</td></tr>",
            result.row.name,
            escaped(result.row.what),
            show(result.ratio.figure, unit),
            show(least, unit),
            show(most, unit),
            result.ratio.ratio,
            show(result.ratio.limit, unit),
            escaped(&result.ratio.binds),
            escaped(&target(result)),
            verdict(result)
        )
    };
    let rows: String = report.rows.iter().map(row).collect();
    let head = "<tr><th></th><th>what</th><th>median</th><th>ratio</th><th>limit</th><th>promise</th><th></th></tr>";
    let command = escaped(&report.command);
    let table = format!("<p><code>minikafka {command}</code></p><table>{head}{rows}</table>");
    let driver = format!("<p>{}</p>", escaped(&report.driver.to_string()));
    table + &limits(&report.limits) + &driver + &machine(&report.machine)
}

fn run(report: &RunReport) -> String {
    let mut body = String::from("<h2>Figures</h2>");
    body.push_str(&ratios(&report.ratios));
    let list: String = report.driver.notes.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
    let failures: String = report
        .driver
        .failures
        .iter()
        .map(|(error, count)| format!("<li class=\"missed\">{count} requests failed: {}</li>", escaped(error)))
        .collect();
    let share = report.driver.core_share * 100.0;
    body.push_str(&format!("<ul>{failures}{list}<li>The driver took {share:.0} % of a core.</li></ul>"));
    body.push_str("<h2>Throughput over time</h2>");
    body.push_str(&throughput(report));
    body.push_str("<h2>Latency</h2>");
    body.push_str(&latency_curve(report));
    body.push_str(&latency_over_time(report));
    if let Some(found) = &report.limits {
        body.push_str(&limits(found));
    }
    body + &machine(&report.machine)
}

fn throughput(report: &RunReport) -> String {
    let rows = &report.measured.timeline;
    let points = rows.iter().map(|row| (row.at_s + row.seconds / 2.0, row.bytes as f64 / row.seconds.max(1e-9)));
    let lines = vec![Line { name: "bytes of records", points: points.collect() }];
    let y_label = |value| show(value, "bytes/s");
    let title = "throughput over time";
    Plot { title, lines, logarithmic: false, x_label: seconds, y_label, x_ticks: Vec::new() }.draw()
}

/// Latency over the "number of nines", so that the rare ones have room.
fn latency_curve(report: &RunReport) -> String {
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let curve = report.measured.latency.curve.iter().filter(|(quantile, _)| *quantile < 1.0);
    let points = curve.map(|&(quantile, us)| (nines(quantile), us)).collect();
    let lines = vec![Line { name: "latency by percentile", points }];
    let x_label = |nines: f64| format!("{}%", (1e6 * (1.0 - 10f64.powf(-nines))).round() / 1e4);
    let x_ticks = [0.5, 0.9, 0.99, 0.999, 0.9999].map(nines).to_vec();
    Plot { title: "latency by percentile", lines, logarithmic: true, x_label, y_label: micros, x_ticks }.draw()
}

fn latency_over_time(report: &RunReport) -> String {
    let rows = report.measured.timeline.iter().filter(|row| row.requests > 0);
    let line = |name, of: fn(&crate::measure::Interval) -> f64| {
        let points = rows.clone().map(|row| (row.at_s + row.seconds / 2.0, of(row))).collect();
        Line { name, points }
    };
    let lines = vec![line("p50", |row| row.p50_us), line("p99", |row| row.p99_us), line("max", |row| row.max_us)];
    let title = "latency over time";
    Plot { title, lines, logarithmic: true, x_label: seconds, y_label: micros, x_ticks: Vec::new() }.draw()
}

fn seconds(at: f64) -> String {
    format!("{at:.0} s")
}

fn micros(us: f64) -> String {
    show(us, "us")
}

fn ratios(ratios: &[Ratio]) -> String {
    if ratios.is_empty() {
        return "<p>Limits were not measured: these figures stand alone, see the JSON.</p>".to_owned();
    }
    let rows: String = ratios
        .iter()
        .map(|ratio| {
            format!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.3}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                escaped(&ratio.what),
                show(ratio.figure, ratio.unit),
                ratio.ratio,
                show(ratio.limit, ratio.unit),
                escaped(&ratio.binds)
            )
        })
        .collect();
    format!("<table><tr><th>what</th><th>figure</th><th>ratio</th><th>limit</th><th>what binds</th></tr>{rows}</table>")
}

/// Every shape of every limit.
pub(super) fn limits(limits: &Limits) -> String {
    let mut body = format!("<h2>Limits of this machine, median of {} rounds</h2>", limits.rounds);
    if let Some(device) = &limits.device {
        body.push_str(&format!("<p>{}</p>", escaped(&device_line(device))));
    }
    let rows: String = limits.of_disk().chain([&limits.receive, &limits.round_trip]).map(limit_rows).collect();
    body + &format!("<table><tr><th>limit</th><th>shape</th><th>median</th><th>runs</th></tr>{rows}</table>")
}

fn limit_rows(limit: &Limit) -> String {
    let best = limit.best().map(|shape| shape.name.as_str());
    let row = |shape: &crate::limits::Shape| {
        let runs: Vec<String> = shape.runs.iter().map(|&run| show(run, unit(limit.unit))).collect();
        let (name, median) = (escaped(&shape.name), show(shape.median, unit(limit.unit)));
        let is_best = best == Some(shape.name.as_str());
        let (name, median) =
            if is_best { (format!("<b>{name}</b>"), format!("<b>{median}</b>")) } else { (name, median) };
        format!(
            "<tr><td>{}</td><td>{name}</td><td class=\"n\">{median}</td><td>{}</td></tr>",
            escaped(limit.name),
            runs.join(", ")
        )
    };
    limit.shapes.iter().map(row).collect()
}

/// What the figures were made on.
pub(super) fn machine(machine: &Machine) -> String {
    format!("<h2>Machine</h2><p>{}</p>", escaped(super::text::machine(machine).trim_end()))
}

#[cfg(test)]
mod tests;
