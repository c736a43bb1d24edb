//! The queue and groups over HTTP, as curl asks for them, on a `minikafka dev` of their own, and at two gateways of a cluster.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::time::{Duration, Instant};

use minikafka_core::limits;
use minikafka_tests::cluster::{Cluster, ClusterSetup, Member};
use minikafka_tests::process::{self, Node, NodeSetup};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that takes a while.
const LOOK: Duration = Duration::from_millis(50);
/// `hello` and `world`.
const HELLO: &str = "aGVsbG8=";
const WORLD: &str = "d29ybGQ=";

/// A node with an HTTP port, and its directory.
struct Place {
    _directory: TempDir,
    setup: NodeSetup,
    gateway: Gateway,
    node: Option<Node>,
}

/// The HTTP port of a gateway.
struct Gateway {
    address: String,
}

impl Deref for Place {
    type Target = Gateway;
    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// Status and body; null: it has none.
type Answer = (u16, Value);

impl Place {
    fn start() -> Self {
        let directory = process::directory().expect("a directory beside the build");
        let mut setup = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
        let address = format!("127.0.0.1:{}", process::free_ports(1).expect("a free port"));
        setup.more.extend(["--http".to_owned(), address.clone()]);
        let node = Some(setup.start().expect("a node starts"));
        Self { _directory: directory, setup, gateway: Gateway { address }, node }
    }
}

impl Gateway {
    fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let (host, length) = (&self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}");
        // A server that refuses may close before it has read everything; what it said counts.
        let _ = stream.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).expect("text");
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "content-type: application/json\r\n", &body.to_string())
    }

    #[track_caller]
    fn push(&self, key: Option<&str>, value: &str) -> Value {
        let (status, pushed) = self.post("/push", &json!({ "key": key, "value": value }));
        assert_eq!(status, 200, "{pushed}");
        pushed
    }

    /// Pulls a record for a while.
    #[track_caller]
    fn lease(&self, lease: &str) -> Value {
        let (status, pulled) = self.ask("POST", &format!("/pull?wait=20s&lease={lease}"), "", "");
        assert_eq!(status, 200, "{pulled}");
        assert!(pulled["lease"].is_string(), "{pulled}");
        pulled
    }

    /// Waits until a group looks like this.
    #[track_caller]
    fn await_group(&self, group: &str, is_right: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let (status, shown) = self.get(&format!("/v1/groups/{group}"));
            if status == 200 && is_right(&shown) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{status} {shown}");
            std::thread::sleep(LOOK);
        }
    }
}

/// Where a record is: partition and offset.
type At = (u64, u64);

fn at_of(record: &Value) -> At {
    let number = |name: &str| record[name].as_u64().unwrap_or_else(|| panic!("no {name} in {record}"));
    (number("partition"), number("offset"))
}

/// Its status, and the word for what is wrong.
fn refusal((status, body): Answer) -> (u16, String) {
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn what_is_pushed_is_pulled_once_in_order() {
    let place = Place::start();
    let pushed = [place.push(Some(HELLO), WORLD), place.push(Some(HELLO), HELLO)];
    assert_eq!((&pushed[0]["offset"], &pushed[1]["offset"]), (&json!(0), &json!(1)), "one key, one partition");
    for value in [WORLD, HELLO] {
        let (status, pulled) = place.get("/pull?wait=20s");
        assert_eq!(status, 200, "{pulled}");
        assert_eq!((&pulled["key"], &pulled["value"]), (&json!(HELLO), &json!(value)));
        assert_eq!((&pulled["partition"], &pulled["lease"]), (&pushed[0]["partition"], &Value::Null));
    }
    assert_eq!(place.get("/pull?wait=100ms"), (204, Value::Null), "it is empty");
    place.push(None, "");
    let (status, pulled) = place.get("/pull?wait=20s");
    assert_eq!((status, &pulled["key"], &pulled["value"]), (200, &Value::Null, &json!("")));
    // Acknowledged when it was sent; and who does not pull holds nothing back.
    place.await_group("queue", |group| group["lag"] == 0 && group["members"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn a_record_with_a_lease_comes_again_unless_it_is_acknowledged_in_time() {
    let place = Place::start();
    place.push(Some(HELLO), HELLO);
    place.push(Some(HELLO), WORLD);
    let first = place.lease("1s");
    assert_eq!(first["value"], HELLO);
    // The one behind it waits for the lease to end, and then it is not its turn.
    let again = place.lease("10m");
    assert_eq!((&again["value"], &again["offset"]), (&json!(HELLO), &first["offset"]));
    let ack = |lease: &Value, again| place.post("/ack", &json!({ "lease": lease["lease"], "again": again }));
    assert_eq!(refusal(ack(&first, false)), (404, "unknown_lease".to_owned()));
    assert_eq!(place.get("/pull?wait=100ms"), (204, Value::Null), "it is out");
    assert_eq!(ack(&again, true), (204, Value::Null));
    let third = place.lease("10m");
    assert_eq!(third["value"], HELLO, "given back at once");
    assert_eq!(ack(&third, false), (204, Value::Null));
    assert_eq!(refusal(ack(&third, false)), (404, "unknown_lease".to_owned()), "once");
    let fourth = place.lease("10m");
    assert_eq!(fourth["value"], WORLD);
    // What is out is not handled, and its holder does not leave.
    place.await_group("queue", |group| group["lag"] == 1);
    assert_eq!(place.get("/v1/groups/queue").1["members"].as_array().map(Vec::len), Some(1));
    assert_eq!(ack(&fourth, false), (204, Value::Null));
    place.await_group("queue", |group| group["lag"] == 0);
}

#[test]
fn a_gateway_that_ends_leaves_the_group_and_gives_back_what_is_out() {
    let mut place = Place::start();
    place.push(Some(HELLO), HELLO);
    let leased = place.lease("10m");
    place.node.take().expect("it runs").stop().expect("an orderly end");
    place.node = Some(place.setup.start().expect("a node starts again"));
    // Nobody waits for the session of the one before.
    let (status, group) = place.get("/v1/groups/queue");
    assert_eq!((status, &group["members"]), (200, &json!([])), "{group}");
    let again = place.lease("10m");
    assert_eq!((&again["value"], &again["offset"]), (&json!(HELLO), &leased["offset"]));
}

/// Each record goes to one of those who pull, at whichever gateway; what a gateway that is killed had out comes again at
/// another one.
#[test]
fn gateways_share_the_queue_and_one_takes_over_from_another() {
    let directory = process::directory().expect("a directory beside the build");
    let setup = ClusterSetup::new(directory.path()).expect("a binary");
    let mut cluster = Cluster::up(&setup).expect("a cluster starts");
    let gateways: Vec<Gateway> = cluster.http().into_iter().map(|address| Gateway { address }).collect();
    let keys = ["YQ==", "Yg==", "Yw==", "ZA==", "ZQ==", "Zg==", "Zw==", "aA=="];
    let push = |turn: usize| {
        keys.iter().enumerate().map(|(at, key)| at_of(&gateways[(at + turn) % 2].push(Some(key), HELLO))).collect()
    };
    let first: BTreeSet<At> = push(0);
    let mut pulled = Vec::new();
    let begun = Instant::now();
    for gateway in gateways.iter().cycle() {
        if let (200, record) = gateway.get("/pull?wait=500ms") {
            pulled.push(at_of(&record));
        }
        if pulled.len() == first.len() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{pulled:?} of {first:?}");
    }
    assert_eq!(pulled.iter().copied().collect::<BTreeSet<_>>(), first, "each to one of them");
    let second: BTreeSet<At> = push(1);
    let mut out = BTreeSet::new();
    while let (200, record) = gateways[0].ask("POST", "/pull?wait=5s&lease=10m", "", "") {
        out.insert(at_of(&record));
    }
    assert!(!out.is_empty(), "the first gateway has something out");
    cluster.kill(Member::Gateway(1)).expect("it runs");
    let mut again = BTreeSet::new();
    while again != second {
        if let (200, record) = gateways[1].get("/pull?wait=5s") {
            again.insert(at_of(&record));
        }
        assert!(begun.elapsed() < 2 * PATIENCE, "{again:?} of {second:?}, of which {out:?} were out");
    }
    cluster.down().expect("an orderly end");
}

#[test]
fn groups_are_shown_moved_and_deleted() {
    let place = Place::start();
    assert_eq!(place.get("/v1/groups"), (200, json!({ "groups": [] })));
    assert_eq!(refusal(place.get("/v1/groups/queue")), (404, "unknown_group".to_owned()));
    let partition = place.push(Some(HELLO), HELLO)["partition"].clone();
    place.push(Some(HELLO), WORLD);
    let leased = place.lease("10m");
    let listed = place.get("/v1/groups").1;
    assert_eq!((&listed["groups"][0]["group"], &listed["groups"][0]["members"]), (&json!("queue"), &json!(1)));
    let offsets = json!({ "offsets": [{ "topic": "queue", "partition": partition, "offset": 1 }] });
    let path = "/v1/groups/queue/offsets";
    assert_eq!(refusal(place.post(path, &offsets)), (409, "group_not_empty".to_owned()));
    assert_eq!(refusal(place.ask("DELETE", "/v1/groups/queue", "", "")), (409, "group_not_empty".to_owned()));
    place.post("/ack", &json!({ "lease": leased["lease"], "again": true }));
    place.await_group("queue", |group| group["state"] == "empty");
    assert_eq!(place.post(path, &offsets), (200, offsets.clone()));
    place.await_group("queue", |group| group["lag"] == 1);
    let other = "/v1/groups/another/offsets";
    let nowhere =
        |topic: &str, partition: u32| json!({ "offsets": [{ "topic": topic, "partition": partition, "offset": 0 }] });
    assert_eq!(refusal(place.post(other, &nowhere("nothing", 0))), (404, "unknown_topic".to_owned()));
    assert_eq!(refusal(place.post(other, &nowhere("queue", 99))), (404, "unknown_partition".to_owned()));
    assert_eq!(refusal(place.post("/v1/groups/a%20b/offsets", &offsets)), (400, "invalid_request".to_owned()));
    assert_eq!(place.ask("DELETE", "/v1/groups/queue", "", ""), (204, Value::Null));
    assert_eq!(place.get("/v1/groups").1, json!({ "groups": [] }));
}

#[test]
fn what_is_wrong_is_refused_with_its_code() {
    let place = Place::start();
    let json_type = "content-type: application/json\r\n";
    let push = |more: &str, body: &str| refusal(place.ask("POST", "/push", more, body));
    assert_eq!(push(json_type, r#"{"value":"no base64"}"#), (400, "invalid_request".to_owned()));
    assert_eq!(push(json_type, r#"{"key":"aGVsbG8="}"#), (400, "invalid_request".to_owned()));
    assert_eq!(push(json_type, r#"{"value":"","more":1}"#), (400, "invalid_request".to_owned()));
    assert_eq!(push("content-type: text/plain\r\n", r#"{"value":""}"#), (415, "unsupported_media_type".to_owned()));
    let large = json!({ "value": "A".repeat(limits::HTTP_PUSH_BYTES_MAX) }).to_string();
    assert_eq!(push(json_type, &large), (413, "too_large".to_owned()));
    let foreign = format!("{json_type}sec-fetch-site: cross-site\r\n");
    assert_eq!(push(&foreign, r#"{"value":""}"#), (403, "cross_site".to_owned()));
    assert_eq!(
        refusal(place.ask("GET", "/pull", "origin: http://example.com\r\n", "")),
        (403, "cross_site".to_owned())
    );
    for path in ["/pull?wait=21s", "/pull?wait=soon", "/pull?lease=1s"] {
        assert_eq!(refusal(place.get(path)), (400, "invalid_request".to_owned()), "{path}");
    }
    for path in ["/pull?lease=0s", "/pull?lease=11m", "/pull?leese=1s"] {
        assert_eq!(refusal(place.ask("POST", path, "", "")), (400, "invalid_request".to_owned()), "{path}");
    }
    for lease in ["", "x", "0000000000000000"] {
        let refused = refusal(place.post("/ack", &json!({ "lease": lease })));
        assert_eq!(refused, (404, "unknown_lease".to_owned()), "{lease}");
    }
    assert_eq!(refusal(place.ask("DELETE", "/pull", "", "")), (405, "method_not_allowed".to_owned()));
    assert_eq!(place.get("/v1/groups"), (200, json!({ "groups": [] })), "nobody joined for that");
}
