//! That file, environment and flags are the same settings, and that mistakes are told where they are.

use std::ffi::OsString;

use super::file::{Mistake, parse};
use super::*;
use crate::cli::Command;

/// What `config print --defaults` prints, with its settings said instead of only shown.
fn defaults_said() -> (String, usize) {
    let printed = Printed::defaults().to_string();
    let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && !line.contains("= <");
    let said: Vec<&str> = printed.lines().map(|line| if is_setting(line) { &line[1..] } else { line }).collect();
    (said.join("\n"), printed.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ")).count())
}

#[test]
fn the_printed_defaults_pass_the_check_and_are_the_defaults() {
    let (text, shown) = defaults_said();
    let values = parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{text}"));
    let keys = keys::all();
    assert_eq!(shown, keys.len(), "every key is shown once:\n{text}");
    for key in &keys {
        let default = key.default().filter(|default| !default.is_empty());
        let said = values.get(&(key.table.clone(), key.name.clone())).map(String::as_str);
        assert_eq!(said, default, "{}.{}", key.table, key.name);
    }
    assert!(values.len() > 20, "only {} of {} keys have a default that is shown", values.len(), keys.len());
    assert!(parse(&Printed::defaults().to_string()).expect("comments only").is_empty());
}

#[test]
fn every_flag_has_its_key_and_its_environment_variable() {
    let (root, keys) = (Cli::command(), keys::all());
    for name in COMMANDS {
        let command = root.find_subcommand(name).expect("a command of this name");
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "config") {
            let flag = argument.get_long().expect("settings have long names");
            let key = keys.iter().find(|key| key.flag() == flag && key.argument.get_env() == argument.get_env());
            assert!(key.is_some(), "{name} --{flag} has no key");
            let variable = argument.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            assert!(variable.starts_with("MINIKAFKA_"), "{name} --{flag} has no environment variable");
        }
    }
    let in_table = |table: &str| keys.iter().filter(|key| key.table == table).map(|key| &*key.name).collect::<Vec<_>>();
    assert_eq!(in_table("cluster"), ["coordinator", "secret-file", "session-timeout"]);
    assert_eq!(in_table("log"), ["level", "format"]);
    assert!(in_table("shards").contains(&"cores") && !in_table("shards").contains(&"data-dir"));
    assert!(in_table("broker").contains(&"node-id") && in_table("gateway").contains(&"listen"));
}

#[test]
fn mistakes_are_told_with_line_key_and_the_nearest() {
    let text = "cores = 3\n\n[broker]\nnode-id = 0\nnod-id = 1\nlevel = \"info\"\n[shard]\nx = 1\n[shards]\n\
                durability = \"fast\"\nsegment-bytes-max = \"12M\"\ncores = [1]\nport_base = 19100\n";
    let mistakes = parse(text).expect_err("hardly anything is right");
    let told: Vec<_> = mistakes.iter().map(|it| (it.line, &*it.key, it.nearest.as_deref())).collect();
    let wanted = [
        (1, "cores", Some("shards.cores")),
        (4, "broker.node-id", None),
        (5, "broker.nod-id", Some("broker.node-id")),
        (6, "broker.level", Some("log.level")),
        (7, "[shard]", Some("[shards]")),
        (10, "shards.durability", None),
        (11, "shards.segment-bytes-max", None),
        (12, "shards.cores", None),
        (13, "shards.port_base", Some("shards.port-base")),
    ];
    assert_eq!(told, wanted, "{mistakes:?}");
    let what: Vec<_> = mistakes.iter().map(Mistake::to_string).collect();
    assert_eq!(what[2], "5: broker.nod-id: there is no such key; the nearest is broker.node-id");
    assert!(what[5].contains("auto|dsync|group_fdatasync"), "{}", what[5]);
    assert!(what[6].contains("write 8M"), "{}", what[6]);
    assert!(what[7].contains("array"), "{}", what[7]);
    let twice = parse("[broker]\nrack = \"a\"\nrack = \"b\"\n").expect_err("a key twice");
    assert_eq!((twice.len(), twice[0].line), (1, 3), "{twice:?}");
}

fn read(line: &str, text: &str) -> Cli {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("minikafka.toml");
    std::fs::write(&file, text).expect("a file");
    let words = line.replace("FILE", &file.display().to_string());
    command_line(words.split_whitespace().map(OsString::from)).unwrap_or_else(|failure| panic!("{}", failure.message))
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let text = "[gateway]\nauto-create-topics = true\ndefault-partitions = 3\n[dev]\nnodes = 3\n\
                [shards]\ncores = 0x2\nport-base = 12000\n[log]\nlevel = \"debug\"\n";
    let cli = read("minikafka dev --config FILE --port-base 13000", text);
    let Command::Dev(options) = &cli.command else { panic!("dev") };
    let plan = options.to_plan().expect("it can be");
    assert_eq!((plan.nodes, plan.shards.cores(), plan.shards.port_base), (3, 2, 13_000));
    assert_eq!(plan.default_partitions, 8, "a key of the gateway is none of dev's");
    assert_eq!(cli.global.log.level.as_deref(), Some("debug"));
    let cli = read("minikafka dev --config=FILE --log-level warn", text);
    assert_eq!(cli.global.log.level.as_deref(), Some("warn"));
    assert_eq!(read("minikafka topic list", text).global.log.level, None, "no file is named");
}

#[test]
fn what_a_command_needs_may_stand_in_the_file_and_a_truth_can_be_taken_back() {
    let text = "[cluster]\ncoordinator = \"zk://a:1/x\"\nsecret-file = \"s\"\n[gateway]\nauto-create-topics = true\n\
                [broker]\nnode-id = 7\n";
    assert!(matches!(read("minikafka broker --config FILE", text).command, Command::Broker(_)));
    let creates = |line: &str| match read(line, text).command {
        Command::Gateway(options) => options.auto_create_topics,
        _ => unreachable!("it is a gateway"),
    };
    assert!(creates("minikafka gateway --config FILE"));
    assert!(!creates("minikafka gateway --config FILE --auto-create-topics=false"));
    assert!(creates("minikafka gateway --config FILE --auto-create-topics"));
}

#[test]
fn a_file_that_is_wrong_stops_the_start_and_the_effective_values_tell_who_says_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("minikafka.toml");
    std::fs::write(&file, "[broker]\nrak = \"a\"\n").expect("a file");
    let line = ["minikafka".into(), "dev".into(), "--config".into(), file.clone().into_os_string()];
    let failure = command_line(line).expect_err("an unknown key");
    assert!(
        failure.message.ends_with("minikafka.toml:2: broker.rak: there is no such key; the nearest is broker.rack")
    );
    std::fs::write(&file, "[broker]\nrack = \"a\"\n[shards]\ncores = 2\n").expect("a file");
    let settings = Settings::read(&file).expect("a good file");
    let environment = |name: &str| (name == "MINIKAFKA_CORES").then(|| "5".to_owned());
    let printed = Printed::effective(Some(&settings), environment).to_string();
    assert!(printed.contains("\nrack = \"a\"\n") && printed.contains("\ncores = 5\n"), "{printed}");
    assert!(printed.contains("[from MINIKAFKA_CORES]") && printed.contains("\n#port-base = 19100\n"), "{printed}");
    assert_eq!(parse(&printed).expect("what is printed is a file").len(), 2);
}
