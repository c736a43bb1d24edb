//! The command line as scripts see it: exit codes, JSON, and messages that say what to do.

use std::process::{Command, Output};

use minikafka_tests::{process, source};
use serde_json::Value;

/// Nobody listens on the discard port of this machine.
const NOBODY: [&str; 4] = ["--gateway", "127.0.0.1:9", "--timeout", "2s"];

fn run(line: &str, input: &[u8]) -> Output {
    let mut arguments: Vec<_> = line.split_whitespace().collect();
    arguments.extend(NOBODY);
    process::run(&arguments, input).expect("the binary runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("the binary was not killed")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_command_lines_end_with_2() {
    for line in [
        "",
        "frobnicate",
        "topic create",
        "topic create t --partitions 0",
        "consume t --offset 1 --from-beginning",
        "consume t --format %q",
        "consume t --group g --partition 1",
        "consume t --instance one",
        "group reset g --to nowhere",
        "produce t --linger-ms x",
        "dev --nodes 6",
        "server --listen 0.0.0.0",
        "doctor --log-level a=b=c",
        "doctor --log-level inof",
        "config check Cargo.toml",
    ] {
        let output = run(line, b"");
        assert_eq!(code(&output), 2, "{line}: {}", errors(&output));
        assert!(!output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn an_absent_gateway_ends_with_3_and_says_what_to_check() {
    for line in [
        "topic list",
        "topic describe t",
        "topic delete t",
        "consume t --until-end",
        "consume t --group g",
        "group list",
        "group describe g",
        "produce t",
    ] {
        let output = run(line, b"line\n");
        assert_eq!(code(&output), 3, "{line}: {}", errors(&output));
        assert!(errors(&output).contains("127.0.0.1:9"), "{line}: {}", errors(&output));
    }
}

#[test]
fn errors_are_json_where_machines_read_them() {
    let output = run("topic list --json", b"");
    let error: Value = serde_json::from_slice(&output.stderr).expect("one JSON document on standard error");
    assert_eq!(error["exit"], 3);
    assert_eq!(error["error"]["kind"], "unreachable");
    assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
}

#[test]
fn a_missing_file_is_found_before_anything_is_sent() {
    let output = run("produce t /nowhere/at/all", b"");
    assert_eq!(code(&output), 1);
    assert!(errors(&output).contains("/nowhere/at/all"), "{}", errors(&output));
}

#[test]
fn the_doctor_names_fixes() {
    let output = run("doctor --json --data-dir /proc/nothing", b"");
    assert_eq!(code(&output), 1, "{}", errors(&output));
    let diagnosis: Value = serde_json::from_slice(&output.stdout).expect("a diagnosis as JSON");
    assert_eq!(diagnosis["ok"], false);
    let checks = diagnosis["checks"].as_array().expect("a list of checks");
    let missing: Vec<_> = checks.iter().filter(|check| check["verdict"] == "missing").collect();
    assert!(missing.iter().any(|check| check["name"] == "direct I/O"), "{missing:?}");
    assert!(missing.iter().all(|check| check["fix"].is_string()), "{missing:?}");
}

#[test]
fn this_machine_can_run_a_broker() {
    let directory = process::directory().expect("a directory beside the build");
    let line = format!("doctor --data-dir {}", directory.path().display());
    let output = run(&line, b"");
    assert_eq!(code(&output), 0, "{}{}", String::from_utf8_lossy(&output.stdout), errors(&output));
}

#[test]
fn the_environment_goes_before_the_file_and_a_flag_before_both() {
    let file = source::repository().join("deploy/systemd/minikafka.toml").display().to_string();
    let checked = run(&format!("config check {file}"), b"");
    assert_eq!(code(&checked), 0, "{}", errors(&checked));
    let printed = |variables: &[(&str, &str)]| {
        let mut command = Command::new(process::binary().expect("the binary"));
        command.args(["config", "print", "--json"]).env("MINIKAFKA_CONFIG", &file).envs(variables.iter().copied());
        let output = command.output().expect("the binary runs");
        assert_eq!(code(&output), 0, "{}", errors(&output));
        let settings: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list of settings");
        let cores = settings.iter().find(|it| it["table"] == "shards" && it["key"] == "cores").cloned();
        cores.expect("a key of this name")["value"].clone()
    };
    assert_eq!(printed(&[]), "3");
    assert_eq!(printed(&[("MINIKAFKA_CORES", "5")]), "5");
    // The parser of the command line takes them in the same order: whose value it refuses is the one that counts.
    let refused = |line: &str| {
        let mut command = Command::new(process::binary().expect("the binary"));
        command.args(line.split_whitespace()).args(["--config", &file]).env("MINIKAFKA_NODE_ID", "none");
        let output = command.output().expect("the binary runs");
        assert_eq!(code(&output), 2, "{}", errors(&output));
        errors(&output)
    };
    assert!(refused("broker").contains("'none'"));
    assert!(refused("broker --node-id nobody").contains("'nobody'"));
}

#[test]
fn help_explains_exit_codes() {
    let output = process::run(&["help"], b"").expect("the binary runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Exit codes:"));
}
