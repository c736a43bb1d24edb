//! The commands of docs/OPERATIONS.md, run in their order by one shell on a real cluster: three brokers, two gateways, a
//! ZooKeeper. What the guide calls by names and addresses of its example is replaced by this cluster's; `ssh` and `systemctl`
//! are stand-ins that start and stop its processes.
//!
//! A block whose fence says `sh not run: …` is left out, and the reason must stand there.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use minikafka_tests::cluster::{Cluster, Member};
use minikafka_tests::{process, source, stand_ins};

const GUIDE: &str = "docs/OPERATIONS.md";
/// All blocks together take about a minute and a half on a busy machine.
const PATIENCE: Duration = Duration::from_secs(480);
const LOOK: Duration = Duration::from_millis(50);
/// Fewer blocks mean that the guide, or this test, has lost some.
const BLOCKS_MIN: usize = 8;
/// Blocks that are not run must stay few.
const NOT_RUN_MAX: usize = 2;

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Of its fence, counted from 1.
    line: usize,
    /// Why it is not run, if it is not.
    not_run: Option<String>,
    commands: String,
}

/// The blocks of a guide whose fences say `sh`, or `console`.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (line, content) in (1..).zip(text.lines()) {
        match (content.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => {
                let Some((line, info, commands)) = open.take() else { continue };
                let (language, more) = info.split_once(' ').unwrap_or((&info, ""));
                if matches!(language, "sh" | "console") {
                    let not_run = (!more.is_empty()).then(|| more.trim_start_matches("not run:").trim().to_owned());
                    blocks.push(Block { line, not_run, commands });
                }
            }
            (Some(info), None) => open = Some((line, info.to_owned(), String::new())),
            (None, Some((_, _, commands))) => {
                commands.push_str(content);
                commands.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// One script of all blocks that are run. A command that fails ends it, and the last line that it printed says where.
fn script(blocks: &[Block], cluster: &Cluster) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for block in blocks.iter().filter(|block| block.not_run.is_none()) {
        script.push_str(&format!("echo '== {GUIDE}:{}'\n{}", block.line, in_this_cluster(&block.commands, cluster)));
    }
    script.push_str("echo '== done'\n");
    script
}

/// Commands with the addresses of this cluster instead of the example's.
fn in_this_cluster(commands: &str, cluster: &Cluster) -> String {
    let mut commands = commands.replace("zk://zk1:2181,zk2:2181,zk3:2181/minikafka", &cluster.coordinator());
    for (at, (native, http)) in (1..).zip(cluster.gateways().iter().zip(cluster.http())) {
        commands = commands.replace(&format!("10.0.0.{at}:9000"), native);
        commands = commands.replace(&format!("10.0.0.{at}:8090"), &http);
    }
    for number in cluster.brokers() {
        let address = cluster.network().address(Member::Broker(number));
        commands = commands.replace(&format!("10.0.0.{number}:19600"), &format!("{address}:19600"));
    }
    // Where the number is a variable of the shell's.
    let first = cluster.network().address(Member::Gateway(1)).to_string();
    let hosts = first.strip_suffix('1').unwrap_or(&first);
    let port = cluster.http()[0].rsplit(':').next().unwrap_or_default().to_owned();
    commands.replace("10.0.0.$gateway:8090", &format!("{hosts}$gateway:{port}"))
}

/// Runs the script to its end; what it printed.
fn run(script: &str, directory: &Path, programs: &Path) -> Result<String> {
    let (file, log) = (directory.join("guide.sh"), directory.join("guide.log"));
    fs::write(&file, script)?;
    let told = fs::File::create(&log)?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.arg(&file).current_dir(directory).env("PATH", path).env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MINIKAFKA_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(told.try_clone()?).stderr(told).process_group(0);
    let mut shell = command.spawn().context("bash")?;
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match shell.try_wait()? {
            Some(ended) => break Some(ended),
            None if Instant::now() > deadline => break None,
            None => std::thread::sleep(LOOK),
        }
    };
    if ended.is_none() {
        shell.kill()?;
        shell.wait()?;
    }
    let told = fs::read_to_string(&log)?;
    ensure!(ended.is_some_and(|status| status.success()), "{ended:?}; it printed:\n{told}");
    Ok(told)
}

fn guide() -> Vec<Block> {
    let path = source::repository().join(GUIDE);
    blocks(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

#[test]
fn the_commands_of_the_guide_do_what_it_says() -> Result<()> {
    let directory = process::directory()?;
    let (mut cluster, programs) = stand_ins::cluster(directory.path())?;
    let work = directory.path().join("work");
    fs::create_dir_all(&work)?;
    // What `cluster create` has written: run again, it finds it.
    fs::copy(cluster.directory().join("secret"), work.join("cluster-secret"))?;
    let blocks = guide();
    let began = Instant::now();
    let told = run(&script(&blocks, &cluster), &work, &programs);
    // The guide has added a broker, which is to end with the others however this went.
    cluster.reload()?;
    let told = told?;
    println!("{} blocks in {:.0} s", blocks.len(), began.elapsed().as_secs_f64());
    let backup = fs::read_to_string(work.join("orders.tsv"))?;
    ensure!(backup.contains("user-7\tbought\n") && backup.lines().count() == 2, "{backup:?}\n{told}");
    ensure!(told.ends_with("== done\n"), "{told}");
    Ok(())
}

#[test]
fn blocks_that_are_not_run_are_few_and_say_why() {
    let (blocks, text) = (guide(), fs::read_to_string(source::repository().join(GUIDE)).expect("the guide"));
    assert!(blocks.len() >= BLOCKS_MIN, "{blocks:?}");
    let not_run: Vec<_> = blocks.iter().filter_map(|block| block.not_run.as_deref()).collect();
    assert!(not_run.len() <= NOT_RUN_MAX, "{not_run:?}");
    assert!(not_run.iter().all(|reason| reason.split_whitespace().count() >= 3), "{not_run:?}");
    // A command in a fence without a language would be run by nobody.
    let mut is_inside = false;
    let bare = (1..).zip(text.lines()).filter(|(_, line)| line.starts_with("```")).filter(|(_, line)| {
        is_inside = !is_inside;
        is_inside && *line == "```"
    });
    let bare: Vec<_> = bare.map(|(line, _)| text.lines().nth(line).unwrap_or_default()).collect();
    assert!(bare.iter().all(|first| !first.starts_with("minikafka ")), "say sh, or why not: {bare:?}");
}

#[test]
fn blocks_are_found_by_their_fences() {
    let text = "a\n```sh\none\ntwo\n```\n```\nfree\n```\n```sh not run: it takes a day\nthree\n```\n";
    let block = |line, not_run: Option<&str>, commands: &str| Block {
        line,
        not_run: not_run.map(str::to_owned),
        commands: commands.to_owned(),
    };
    assert_eq!(blocks(text), [block(2, None, "one\ntwo\n"), block(9, Some("it takes a day"), "three\n")]);
}
