//! What `scripts/cluster` runs: a cluster of real processes on this machine, and faults in it, by hand.
//!
//! The cluster lives on between commands; everything about it is in one directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use minikafka_tests::cluster::monitoring::{Prometheus, Watching};
use minikafka_tests::cluster::{Cluster, ClusterSetup, Health, Member, guard, network};

const USAGE: &str = "\
usage: scripts/cluster COMMAND [--directory DIR]

  up [--brokers N] [--gateways N] [--cores N] [--monitoring] [-- BROKER OPTIONS]   start a cluster, and leave it running;
                       with --monitoring a Prometheus that watches it, too
  down [--leftovers]   end it in order; with --leftovers remove the networks of clusters that are dead, too
  status               who runs, who is cut off from whom
  kill MEMBER...       SIGKILL, all of them at once
  stop MEMBER          SIGTERM, and wait for an orderly end
  start MEMBER         start it again with the data it has
  pause MEMBER         SIGSTOP
  resume MEMBER        SIGCONT
  wipe N               take all data from a broker that does not run
  partition A B        nobody of these two hears the other any more
  one-way A B          what A sends does not arrive at B
  isolate MEMBER WHAT  cut it off from: peers, zookeeper, clients, all
  slow MEMBER RATE     what it sends and gets, at most: 5mbit
  heal                 all links are whole and fast again, who was paused goes on; who was killed stays so
  add                  one broker more

MEMBER is a broker's number, or broker-N, gateway-N, zookeeper; for links also clients (this machine).
Links can be cut and slowed where root allows network namespaces; otherwise the cluster runs on loopback.";

/// Where the cluster is kept, unless told otherwise.
const DIRECTORY: &str = ".cluster";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut words: Vec<String>) -> Result<()> {
    let more = words.iter().position(|word| word == "--").map(|at| words.split_off(at)).unwrap_or_default();
    let directory = take_option(&mut words, "--directory")?.map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return Ok(());
        }
        [guard::COMMAND, directory] => return guard::watch(Path::new(directory)),
        _ => {}
    }
    // One command at a time.
    fs::create_dir_all(&directory)?;
    let lock = File::create(directory.join("lock"))?;
    lock.lock()?;
    match words[..] {
        ["up", ref options @ ..] => up(&directory, options, more.get(1..).unwrap_or_default()),
        ["down", ref options @ ..] => down(&directory, options),
        [command, ref arguments @ ..] => {
            let cluster = Cluster::open(&directory)?;
            let mut cluster =
                cluster.with_context(|| format!("{}: no cluster; scripts/cluster up", directory.display()))?;
            act(&mut cluster, command, arguments)
        }
        [] => Ok(()),
    }
}

fn up(directory: &Path, options: &[&str], broker_options: &[String]) -> Result<()> {
    let mut options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
    let mut setup = ClusterSetup::new(directory)?;
    let mut number = |name| take_option(&mut options, name)?.map(|text| text.parse().context(name)).transpose();
    setup.brokers = number("--brokers")?.unwrap_or(setup.brokers);
    setup.gateways = number("--gateways")?.unwrap_or(setup.gateways);
    setup.cores = number("--cores")?.map_or(setup.cores, u16::from);
    let is_watched = options.iter().position(|word| word == "--monitoring").map(|at| options.remove(at)).is_some();
    if let Some(unknown) = options.first() {
        bail!("{unknown} is no option of up\n{USAGE}");
    }
    setup.broker_options.extend(broker_options.iter().cloned());
    let cluster = Cluster::up(&setup)?;
    let (binary, gateways) = (cluster.binary().display().to_string(), cluster.gateways().join(","));
    println!("network   {}", cluster.network());
    println!("gateways  {gateways}\nbrokers   {:?}\nlogs      {}/*/log", cluster.brokers(), directory.display());
    if is_watched {
        let prometheus = Prometheus::start(&cluster, Watching::by_hand()?)?;
        println!("metrics   http://{} (Prometheus, with the rules of deploy/prometheus)", prometheus.address());
    }
    println!("\nTry:\n  export MINIKAFKA_GATEWAY={gateways}");
    println!("  {binary} topic create greetings --partitions 8");
    println!("  printf 'hello\\nworld\\n' | {binary} produce greetings");
    println!("  {binary} consume greetings --from-beginning --until-end");
    println!("  scripts/cluster kill 1; scripts/cluster status; scripts/cluster start 1");
    println!("  scripts/cluster down");
    cluster.leave_running();
    Ok(())
}

fn down(directory: &Path, options: &[&str]) -> Result<()> {
    match Cluster::open(directory)? {
        Some(cluster) => {
            cluster.down()?;
            println!("down; data and logs are in {} until you remove it", directory.display());
        }
        None => println!("{}: no cluster", directory.display()),
    }
    match options {
        [] => Ok(()),
        ["--leftovers"] => {
            println!("{} network namespaces of dead clusters removed", network::remove_leftovers()?);
            Ok(())
        }
        _ => bail!("down takes no option but --leftovers"),
    }
}

fn act(cluster: &mut Cluster, command: &str, arguments: &[&str]) -> Result<()> {
    let member = |at: usize| -> Result<Member> {
        arguments.get(at).with_context(|| format!("{command}: who?\n{USAGE}"))?.parse()
    };
    let word = |at: usize| arguments.get(at).copied().with_context(|| format!("{command} wants more words\n{USAGE}"));
    match command {
        "status" => status(cluster),
        "kill" => {
            let members: Vec<Member> = (0..arguments.len().max(1)).map(member).collect::<Result<_>>()?;
            cluster.kill_together(&members).map(drop)?;
        }
        "stop" => cluster.stop(member(0)?)?,
        "start" => cluster.start(member(0)?)?,
        "pause" => cluster.pause(member(0)?)?,
        "resume" => cluster.resume(member(0)?)?,
        "wipe" => match member(0)? {
            Member::Broker(number) => cluster.wipe(number)?,
            other => bail!("{other} is no broker"),
        },
        "partition" => cluster.partition(member(0)?, member(1)?)?,
        "one-way" => cluster.one_way(member(0)?, member(1)?)?,
        "isolate" => cluster.isolate(member(0)?, word(1)?.parse()?)?,
        "slow" => cluster.slow_link(member(0)?, word(1)?)?,
        "heal" => cluster.heal()?,
        "add" => println!("broker {}", cluster.add()?),
        unknown => bail!("no command {unknown}\n{USAGE}"),
    }
    Ok(())
}

fn status(cluster: &Cluster) {
    println!("network   {}", cluster.network());
    println!("gateways  {}", cluster.gateways().join(","));
    for (member, health) in cluster.status() {
        let told = match health {
            Health::Running => "runs",
            Health::Paused => "paused",
            Health::Gone => "ENDED BY ITSELF: see its log",
            Health::Stopped => "not running",
        };
        let pid = cluster.pid(member).map(|pid| format!(" ({pid})")).unwrap_or_default();
        let slow = if cluster.slow().contains(&member) { ", slow" } else { "" };
        println!("  {member:<12} {}  {told}{pid}{slow}", cluster.network().address(member));
    }
    for (from, to) in cluster.cuts() {
        println!("  cut: {from} -> {to}");
    }
}

/// Takes an option and its value out of the words.
fn take_option(words: &mut Vec<String>, name: &str) -> Result<Option<String>> {
    let Some(at) = words.iter().position(|word| word == name) else { return Ok(None) };
    words.remove(at);
    if at == words.len() {
        bail!("{name} needs a value");
    }
    Ok(Some(words.remove(at)))
}
