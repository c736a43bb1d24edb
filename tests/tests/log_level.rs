//! What a process logs is changed while it runs, by the HTTP port of the gateway and of the broker, and by the command line.

use std::fs;
use std::time::{Duration, Instant};

use minikafka_tests::process::{self, NodeSetup};
use serde_json::{Value, json};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Status and body of an answer.
fn ask(address: &str, body: Option<&Value>) -> (u16, Value) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).proxy(None);
    let (agent, url): (ureq::Agent, _) = (config.build().into(), format!("http://{address}/v1/log-level"));
    let answer = match body {
        Some(body) => agent.put(&url).send_json(body),
        None => agent.get(&url).call(),
    };
    let mut answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.body_mut().read_json().expect("JSON"))
}

fn filter(text: &str) -> Value {
    json!({ "filter": text })
}

#[test]
fn a_running_process_logs_what_it_is_told_to() {
    let directory = process::directory().expect("a directory beside the build");
    let port = process::free_ports(2).expect("free ports");
    let ports = [format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1)];
    let mut setup = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
    setup.more = ["--http", &ports[0], "--broker-http-port", &(port + 1).to_string()].map(String::from).to_vec();
    let node = setup.start().expect("a node starts");
    let [gateway, broker] = &ports;
    assert_eq!(ask(gateway, None), (200, filter("info")));

    // Each change that is let through by what it changes to leaves a line.
    assert_eq!(ask(broker, Some(&filter("info,minikafka_broker=debug"))).0, 200);
    assert_eq!(ask(gateway, None).1, filter("info,minikafka_broker=debug"), "one process, one filter");
    assert_eq!(ask(gateway, Some(&filter("error"))).0, 200);
    for (wrong, what) in [("inof", "is no level"), ("info,minikafka_broker=loud", "filter")] {
        let (status, answer) = ask(broker, Some(&filter(wrong)));
        let (code, message) = (&answer["error"]["code"], answer["error"]["message"].as_str().unwrap_or_default());
        assert_eq!((status, code), (400, &json!("invalid_request")), "{answer}");
        assert!(message.contains(what), "{answer}");
    }
    assert_eq!(ask(broker, Some(&json!({ "level": "info" }))).0, 400, "unknown fields are refused");
    assert_eq!(ask(broker, None).1, filter("error"), "what is refused changes nothing");
    let both = ports.join(",");
    let line = ["cluster", "log-level", "warn,minikafka_gateway=info", "--json", "--http", &both];
    let output = process::run(&line, b"").expect("the binary runs");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown[1], json!({ "address": broker, "filter": "warn,minikafka_gateway=info" }));

    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = fs::read_to_string(directory.path().join("node.log")).expect("a log");
        let changes: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let changes = changes.iter().filter(|line| line["message"] == "what is logged was changed over HTTP");
        let told: Vec<_> = changes.map(|line| line["now"].as_str().unwrap_or_default()).collect();
        let wanted = ["info,minikafka_broker=debug", "warn,minikafka_gateway=info", "warn,minikafka_gateway=info"];
        if told == wanted {
            break;
        }
        assert!(Instant::now() < deadline, "the log tells of {told:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    node.stop().expect("an orderly end");
}
