//! A Prometheus that watches a cluster, with the rules of `deploy/prometheus`: for tests of them, and for
//! `scripts/cluster up --monitoring`.
//!
//! It is a process of this machine and no member: nothing cuts it off. Its directory is `prometheus/` in the cluster's, and
//! whoever ends the cluster ends it. The program is what is in the path, or what `scripts/prepare.sh` put beside the build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::running::{LOOK_INTERVAL, Running};
use super::{BROKER_HTTP_PORT, Cluster, Member};
use crate::{process, source};

/// Where Prometheus usually is.
pub const PORT: u16 = 9090;
const READY_DEADLINE: Duration = Duration::from_secs(60);
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// How to get it.
pub const HOW_TO_INSTALL: &str = "no prometheus to run: scripts/test deploy puts Debian's beside the build";

/// How closely it looks.
#[derive(Clone, Copy, Debug)]
pub struct Watching {
    /// Between two scrapes, and two evaluations of rules.
    pub interval: Duration,
    /// Alerts do not wait longer than this before they fire; none: as the rules say.
    pub for_max: Option<Duration>,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
}

/// One answer of a query: labels, and a value.
pub type Sample = (BTreeMap<String, String>, f64);

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Found>,
}

#[derive(Deserialize)]
struct Found {
    result: Vec<FoundSample>,
}

#[derive(Deserialize)]
struct FoundSample {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

/// The program, if it is here.
pub fn program(name: &str) -> Result<Option<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = process::build_directory()?.with_file_name("tools").join("prometheus/usr/bin");
    Ok(std::env::split_paths(&path).chain([beside]).map(|directory| directory.join(name)).find(|file| file.is_file()))
}

impl Prometheus {
    /// Starts one that watches this cluster, and waits until it answers.
    pub fn start(cluster: &Cluster, watching: Watching) -> Result<Self> {
        let program = program("prometheus")?.context(HOW_TO_INSTALL)?;
        let directory = directory(cluster.directory());
        fs::create_dir_all(&directory)?;
        let rules = fs::read_to_string(source::repository().join("deploy/prometheus/rules.yml"))?;
        fs::write(directory.join("rules.yml"), watching.shortened(&rules))?;
        fs::write(directory.join("prometheus.yml"), watching.configuration(cluster))?;
        let address = format!("127.0.0.1:{}", watching.port);
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", directory.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let running = Running::start(&mut command, &directory.join("printed"), &directory.join("log"))?;
        fs::write(running_file(cluster.directory()), serde_json::to_vec(&running)?)?;
        let prometheus = Self { address };
        let deadline = Instant::now() + READY_DEADLINE;
        while prometheus.get("/-/ready").is_err() {
            let lives = running.is_running() && Instant::now() < deadline;
            ensure!(lives, "prometheus does not start; see {}", directory.join("log").display());
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(prometheus)
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What a query gives now.
    ///
    /// # Errors
    /// The query is none, or Prometheus does not answer.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let answer: Answer = serde_json::from_str(&self.get(&format!("/api/v1/query?query={}", encoded(query)))?)?;
        let Answer { status, error, data: Some(found) } = answer else { bail!("{query}: no answer") };
        ensure!(status == "success", "{query}: {error}");
        let sample = |found: FoundSample| Ok((found.metric, found.value.1.parse().context("a number")?));
        found.result.into_iter().map(sample).collect()
    }

    /// All rules as Prometheus loaded them: name, query, whether it is an alert, and what is wrong with it.
    ///
    /// # Errors
    /// Prometheus does not answer.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/rules")?)?;
        let groups = answer["data"]["groups"].as_array().context("groups of rules")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        rules.map(|rule| Ok(serde_json::from_value(rule.clone())?)).collect()
    }

    fn get(&self, path: &str) -> Result<String> {
        let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER_DEADLINE)).http_status_as_error(false);
        let agent: ureq::Agent = config.build().into();
        let mut response = agent.get(format!("http://{}{path}", self.address)).call()?;
        let text = response.body_mut().read_to_string()?;
        ensure!(response.status().as_u16() != 503, "not ready: {text}");
        Ok(text)
    }
}

/// A rule.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    /// Of the alert, or of what is recorded.
    pub name: String,
    /// What it asks.
    pub query: String,
    /// `alerting` or `recording`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `ok`, `err`, or `unknown` before its first evaluation.
    pub health: String,
    /// Why it is `err`.
    #[serde(rename = "lastError", default)]
    pub last_error: String,
}

impl Watching {
    /// For people: every few seconds, alerts as the rules say, at the usual port if it is free.
    pub fn by_hand() -> Result<Self> {
        let port = match std::net::TcpListener::bind(("127.0.0.1", PORT)) {
            Ok(_) => PORT,
            Err(_) => process::free_ports(1)?,
        };
        Ok(Self { interval: Duration::from_secs(5), for_max: None, port })
    }

    /// The rules, in which nothing waits longer than it may.
    fn shortened(self, rules: &str) -> String {
        let Some(for_max) = self.for_max else { return rules.to_owned() };
        let line = |line: &str| match line.trim_start().starts_with("for: ") {
            true => format!("        for: {}ms\n", for_max.as_millis()),
            false => format!("{line}\n"),
        };
        rules.lines().map(line).collect()
    }

    fn configuration(self, cluster: &Cluster) -> String {
        let interval = self.interval.as_millis();
        let brokers = cluster.brokers().into_iter().map(Member::Broker);
        let brokers: Vec<String> =
            brokers.map(|member| format!("{}:{BROKER_HTTP_PORT}", cluster.network().address(member))).collect();
        let gateways = cluster.http();
        format!(
            "global:\n  scrape_interval: {interval}ms\n  scrape_timeout: {interval}ms\n  evaluation_interval: {interval}ms\n\
             rule_files: [rules.yml]\nscrape_configs:\n\
             \x20 - job_name: minikafka-broker\n    static_configs: [{{targets: {brokers:?}}}]\n\
             \x20 - job_name: minikafka-gateway\n    static_configs: [{{targets: {gateways:?}}}]\n"
        )
    }
}

/// Ends the Prometheus that watches the cluster in a directory, if there is one.
pub(super) fn stop(cluster: &Path) -> Result<()> {
    let file = running_file(cluster);
    let Ok(bytes) = fs::read(&file) else { return Ok(()) };
    let running: Running = serde_json::from_slice(&bytes).with_context(|| file.display().to_string())?;
    running.kill()?;
    Ok(fs::remove_file(file)?)
}

fn directory(cluster: &Path) -> PathBuf {
    cluster.join("prometheus")
}

fn running_file(cluster: &Path) -> PathBuf {
    directory(cluster).join("running.json")
}

/// A query as it stands in an address.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_waits_no_longer_than_it_may_and_keeps_all_else() {
        let rules = "      - alert: A\n        expr: up == 0\n        for: 10m\n        labels: {}\n";
        let watching = Watching { interval: Duration::from_secs(1), for_max: Some(Duration::from_secs(2)), port: 1 };
        let expected = "      - alert: A\n        expr: up == 0\n        for: 2000ms\n        labels: {}\n";
        assert_eq!(watching.shortened(rules), expected);
        assert_eq!(Watching { for_max: None, ..watching }.shortened(rules), rules);
        assert_eq!(encoded("up{a=\"b\"} > 0"), "up%7Ba%3D%22b%22%7D%20%3E%200");
    }
}
