//! The heavy part of `scripts/quickstart`: real text through a real broker, compared byte for byte; then once more with
//! the broker killed in the middle.
//!
//! A record's key is the path of a file, its value one line *with* its line end (`\n`, `\r\n`, or none at the end of a
//! file that has none). All lines of a key stay in order in one partition, so the values of a key, put together, are the
//! file: whatever its encoding, nothing is interpreted.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use minikafka_client::{Client, TopicOptions};
use minikafka_tests::process::{Node, NodeSetup};
use minikafka_tests::quickstart::corpus::{self, Corpus};
use minikafka_tests::quickstart::stream::{self, Compared, Sent};

/// Partitions of both topics.
const PARTITIONS: u32 = 8;
/// Where `minikafka` looks for a gateway by itself, and where shards listen by default.
const DEFAULT_PORTS: (u16, u16) = (9000, 19_100);
/// How often it is looked whether enough is acknowledged for the kill.
const WATCH_INTERVAL: Duration = Duration::from_millis(1);

/// What the command line says.
struct Arguments {
    /// Leave the broker running at the end.
    keep: bool,
    /// About how much text to send.
    bytes_max: u64,
    /// Where the broker keeps its data.
    directory: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let arguments = Arguments::parse()?;
    let started = Instant::now();
    let corpus = corpus::of_dependencies(arguments.bytes_max)?;
    println!("input: {corpus}");

    let setup = arguments.setup()?;
    let mut node = Some(setup.start()?);
    println!("broker: minikafka dev, gateway {}, data in {}", setup.gateway(), setup.data_dir.display());
    let client = Client::builder([setup.gateway()]).client_name("quickstart").connect().await?;

    println!("\n1. every line through a topic and back");
    round(&client, &corpus, "source-lines", &setup, &mut node, None).await?;
    println!("\n2. the same again, and the broker is killed (SIGKILL) in the middle");
    round(&client, &corpus, "source-lines-killed", &setup, &mut node, Some(corpus.lines() / 2)).await?;

    let node = node.context("the broker was started again after the kill")?;
    finish(&arguments, &setup, node)?;
    println!(
        "\ncompared: {} lines in {} files, {} bytes, sent and read back twice (once across a SIGKILL): every file is \
         equal byte for byte; {:.0} s",
        corpus.lines(),
        corpus.files.len(),
        corpus.bytes(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Sends everything, reads it back and compares. With `kill_after`, the broker dies after so many acknowledgements.
async fn round(
    client: &Client,
    corpus: &Corpus,
    topic: &str,
    setup: &NodeSetup,
    node: &mut Option<Node>,
    kill_after: Option<u64>,
) -> Result<()> {
    client.create_topic(topic, TopicOptions { partitions: PARTITIONS, ..TopicOptions::default() }).await?;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let sending = stream::send(client, topic, corpus, acknowledged.clone());
    let sent = match kill_after {
        None => sending.await?,
        Some(after) => tokio::try_join!(sending, kill_and_restart(setup, node, &acknowledged, after))?.0,
    };
    show_sent(&sent);
    show_compared(&stream::compare(client, topic, corpus).await?);
    Ok(())
}

async fn kill_and_restart(
    setup: &NodeSetup,
    node: &mut Option<Node>,
    acknowledged: &AtomicU64,
    after: u64,
) -> Result<()> {
    while acknowledged.load(Ordering::Relaxed) < after {
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
    let running = node.take().context("a broker runs")?;
    let setup = setup.clone();
    let began = Instant::now();
    let restarted = tokio::task::spawn_blocking(move || running.kill().and_then(|()| setup.start()));
    *node = Some(restarted.await??);
    let at = acknowledged.load(Ordering::Relaxed);
    println!(
        "   killed when {at} lines were acknowledged; listening again after {:.2} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn show_sent(sent: &Sent) {
    let at = |quantile| sent.acknowledgement_us.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "   sent     {}; acknowledged in {:.1} ms (p50), {:.1} ms (p99)",
        rates(sent.lines, sent.bytes, sent.elapsed),
        at(0.5),
        at(0.99)
    );
}

fn show_compared(compared: &Compared) {
    println!("   read     {}; all equal", rates(compared.lines, compared.bytes, compared.elapsed));
}

fn rates(lines: u64, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{lines} lines in {seconds:.1} s: {:.0} lines/s, {:.1} MiB/s", lines as f64 / seconds, mebibytes / seconds)
}

/// Leaves the broker to the person, or ends it in order.
fn finish(arguments: &Arguments, setup: &NodeSetup, node: Node) -> Result<()> {
    let binary = setup.binary.display();
    let gateway =
        if setup.gateway_port == DEFAULT_PORTS.0 { String::new() } else { format!(" --gateway {}", setup.gateway()) };
    if !arguments.keep {
        node.stop()?;
        println!("\nnext: scripts/quickstart --keep leaves the broker running; {binary} help lists what to do with it");
        return Ok(());
    }
    println!("\nthe broker goes on serving (stop it with: kill {}). Try:", node.pid());
    println!("   {binary} topic list{gateway}");
    println!("   {binary} topic describe source-lines{gateway}");
    println!("   {binary} consume source-lines --until-end --max-records 5 --format '%k: %v'{gateway}");
    node.leave_running();
    Ok(())
}

impl Arguments {
    fn parse() -> Result<Self> {
        let mut parsed = Self { keep: false, bytes_max: u64::MAX, directory: PathBuf::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--keep" => parsed.keep = true,
                "--bytes-max" => parsed.bytes_max = value()?.parse().context("--bytes-max takes a number of bytes")?,
                "--directory" => parsed.directory = value()?.into(),
                other => bail!("unknown option {other}: there are --directory DIR, --keep and --bytes-max BYTES"),
            }
        }
        ensure!(!parsed.directory.as_os_str().is_empty(), "--directory says where the broker keeps its data");
        Ok(parsed)
    }

    /// On the default ports where they are free, so that `minikafka` finds the broker by itself.
    fn setup(&self) -> Result<NodeSetup> {
        let mut setup = NodeSetup::new(&self.directory, "dev")?;
        setup.cores = u16::try_from(std::thread::available_parallelism()?.get().saturating_sub(1).clamp(1, 8))?;
        let (gateway, shards) = DEFAULT_PORTS;
        let wanted = std::iter::once(gateway).chain(shards..shards + setup.cores);
        let free = wanted.map(|port| TcpListener::bind(("127.0.0.1", port))).collect::<Result<Vec<_>, _>>();
        if free.is_ok() {
            (setup.gateway_port, setup.port_base) = DEFAULT_PORTS;
        }
        Ok(setup)
    }
}
