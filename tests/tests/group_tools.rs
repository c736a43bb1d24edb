//! The command line of groups, on a `minikafka dev` of its own. Groups over HTTP: `http_queue.rs`.

use std::process::Output;

use minikafka_tests::process::{self, Node, NodeSetup};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A node and its directory.
struct Place {
    _directory: TempDir,
    setup: NodeSetup,
    _node: Node,
}

impl Place {
    fn start() -> Self {
        let directory = process::directory().expect("a directory beside the build");
        let setup = NodeSetup::new(directory.path(), "dev").expect("the binary and free ports");
        let node = setup.start().expect("a node starts");
        Self { _directory: directory, setup, _node: node }
    }

    fn run(&self, line: &str, input: &[u8]) -> Output {
        let mut arguments: Vec<_> = line.split_whitespace().collect();
        let gateway = self.setup.gateway();
        arguments.extend(["--gateway", &gateway]);
        process::run(&arguments, input).expect("the binary runs")
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    fn ok(&self, line: &str, input: &[u8]) -> String {
        let output = self.run(line, input);
        assert!(output.status.success(), "{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The one JSON document that a command prints.
    #[track_caller]
    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} --json"), b"")).expect("a JSON document")
    }

    /// Exit code and error name of a command that must fail.
    #[track_caller]
    fn fails(&self, line: &str) -> (i32, String) {
        let output = self.run(&format!("{line} --json"), b"");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let error: Value = serde_json::from_str(errors.lines().last().unwrap_or_default()).expect("an error as JSON");
        let code = error["error"]["code"].as_str().unwrap_or_default().to_owned();
        (output.status.code().expect("it was not killed"), code)
    }

    /// Values that a group prints, sorted: they come from many partitions.
    #[track_caller]
    fn consumed(&self, line: &str) -> Vec<u32> {
        let printed = self.ok(line, b"");
        let mut values: Vec<u32> = printed.lines().map(|line| line.parse().expect("a number")).collect();
        values.sort_unstable();
        values
    }
}

/// Numbers, each its own key: every partition gets some.
fn lines(numbers: std::ops::Range<u32>) -> Vec<u8> {
    numbers.map(|number| format!("{number}:{number}\n")).collect::<String>().into_bytes()
}

#[test]
fn a_group_is_consumed_described_reset_and_deleted() {
    let place = Place::start();
    assert_eq!(place.ok("group list", b""), "no groups yet\n");
    assert_eq!(place.fails("group describe billing"), (4, "unknown_group".to_owned()));
    place.ok("topic create orders --partitions 3", b"");
    place.ok("produce orders --key-separator :", &lines(0..100));
    let consume = "consume orders --group billing --until-end";
    assert_eq!(place.consumed(&format!("{consume} --max-records 40")).len(), 40);
    let rest = place.consumed(consume);
    assert_eq!(rest.len(), 60, "what was printed is committed, and no more than that");
    assert!(place.consumed(consume).is_empty(), "nothing is left");

    let listed = place.json("group list");
    assert_eq!(listed, json!({ "groups": [{ "group": "billing", "state": "empty", "members": 0 }] }));
    place.ok("produce orders --key-separator :", &lines(100..130));
    let described = place.json("group describe billing");
    assert_eq!(
        (&described["lag"], &described["state"], &described["members"]),
        (&json!(30), &json!("empty"), &json!([]))
    );
    let partitions = described["partitions"].as_array().expect("a list");
    let sum = |field: &str| partitions.iter().map(|at| at[field].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((partitions.len(), sum("committed"), sum("end"), sum("lag")), (3, 100, 130, 30));
    assert!(place.ok("group describe billing", b"").contains("30 records behind"));

    // Shown, not done.
    let reset = place.json("group reset billing --to earliest");
    assert_eq!((&reset["reset"], &reset["partitions"][0]["new"]), (&json!(false), &json!(0)));
    assert_eq!(place.json("group describe billing")["lag"], json!(30));
    place.ok("group reset billing --to earliest --yes", b"");
    assert_eq!(place.json("group describe billing")["lag"], json!(130));
    place.ok("group reset billing --to latest --topic orders --partition 1 --yes", b"");
    let one = &place.json("group describe billing")["partitions"][1];
    assert_eq!((&one["lag"], &one["committed"]), (&json!(0), &one["end"]));
    place.ok("group reset billing --to 1h --yes", b"");
    assert_eq!(place.json("group describe billing")["lag"], json!(130), "all of it is younger than that");
    place.ok("group reset billing --to 2100-01-01T00:00:00Z --yes", b"");
    assert_eq!(place.json("group describe billing")["lag"], json!(0), "nothing is younger than that");
    place.ok("group reset billing --to 7 --yes", b"");
    assert_eq!(place.json("group reset billing --to 7")["partitions"][2]["committed"], json!(7));
    assert_eq!(place.fails("group reset ledger --to 7"), (4, "unknown_group".to_owned()));
    place.ok("group reset ledger --topic orders --to 1000000 --yes", b"");
    assert_eq!(place.json("group describe ledger")["lag"], json!(0), "the end is as far as it goes");

    place.ok("group delete billing ledger", b"");
    assert_eq!(place.fails("group delete billing"), (4, "unknown_group".to_owned()));
    place.ok("group delete billing --if-exists", b"");
    assert_eq!(place.json("group list"), json!({ "groups": [] }));
}
