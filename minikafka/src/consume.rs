//! `minikafka consume`: prints the records of a topic.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use minikafka_client::core::{Offset, Partition, Timestamp};
use minikafka_client::{
    Client, Consumer, ConsumerOptions, ConsumerRecord, OffsetQuery, OnDamage, ReadFrom, Skipped, StartAt,
};

use crate::cli::GlobalOptions;
use crate::exit::{Failure, Outcome};
use crate::explain::Slowest;
use crate::output::Output;
use crate::{client, quantity};

pub(crate) mod format;
mod group;

use format::{Format, Printed};

/// Options of `minikafka consume`.
#[derive(Debug, Args)]
#[command(after_help = format::TEMPLATE_HELP)]
pub struct ConsumeCommand {
    /// The topic.
    topic: String,
    /// Begin at the first record that is there. The default with --until-end; otherwise the default is the end.
    #[arg(long, group = "start")]
    from_beginning: bool,
    /// Begin at this offset of every partition.
    #[arg(long, value_name = "N", group = "start", conflicts_with = "group")]
    offset: Option<u64>,
    /// Begin with what was stored in the last so-and-so long, such as 10m.
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration, group = "start", conflicts_with = "group")]
    since: Option<Duration>,
    /// End at the records that were there when the command began, instead of waiting for more.
    #[arg(long)]
    until_end: bool,
    /// Only this partition; may be repeated.
    #[arg(long = "partition", value_name = "P", conflicts_with = "group")]
    partitions: Vec<u32>,
    /// End after this many records.
    #[arg(long, value_name = "COUNT")]
    max_records: Option<u64>,
    /// Go on behind records that are damaged on the broker's disk, and tell what was left out, instead of ending there.
    #[arg(long)]
    skip_damaged: bool,
    /// Read from a member of each chain in this rack, where there is one that works; otherwise from the head.
    #[arg(long, value_name = "RACK")]
    rack: Option<String>,
    /// As a member of this group: share the partitions with its other members, and go on where it committed. Where it did
    /// not, --from-beginning or the end; --until-end is up to the end of what this member gets.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// A name, unique in the group: the next process of this name takes its partitions over, and nothing else moves.
    #[arg(long, value_name = "NAME", requires = "group")]
    instance: Option<String>,
    /// When this process is not heard for so long, others get its partitions [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration, requires = "group")]
    session_timeout: Option<Duration>,
    /// Ask the brokers where the time goes, and draw it at the end, on standard error, for the slowest fetch.
    #[arg(long, conflicts_with = "group")]
    explain: bool,
    /// How a record is printed: a template, or json (the default with --json).
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

/// How often it is looked whether the end was reached without a record, because the last ones were skipped.
const END_POLL: Duration = Duration::from_millis(200);

/// Where each partition ends for this command.
type Ends = BTreeMap<Partition, Offset>;

/// Prints records until there is no reason to go on.
pub async fn run(command: &ConsumeCommand, global: &GlobalOptions, output: &mut Output) -> Outcome {
    if let Some(group) = &command.group {
        return group::run(command, group, global, output).await;
    }
    let client = client::connect(global, false).await?;
    let mut consumer = client.consumer(&command.topic, command.options()?).await?;
    let mut left = if command.until_end { Some(ends(&client, command, &consumer).await?) } else { None };
    let format = command.format(global.json);
    let mut printer = Printer { format, topic: &command.topic, bytes: Vec::new(), output };
    let (mut count, mut slowest) = (0, Slowest::default());
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut told = 0;
    while command.max_records.is_none_or(|max| count < max) {
        told = tell_skipped(&consumer, told);
        if let Some(left) = &mut left {
            forget_reached(left, &consumer);
            if left.is_empty() {
                break;
            }
        }
        let record = tokio::select! {
            biased;
            record = next(&mut consumer, &mut printer) => record?,
            _ = &mut interrupted => break,
            () = tokio::time::sleep(END_POLL) => continue,
        };
        if let Some(left) = &mut left
            && !is_wanted(left, &record)
        {
            continue;
        }
        slowest.note(consumer.explain());
        printer.print(&record)?;
        count += 1;
    }
    tell_skipped(&consumer, told);
    printer.flush()?;
    if command.explain && count > 0 {
        slowest.tell(global.json);
    }
    Ok(())
}

/// Says what was left out since `told` stretches were told of; returns how many there are now.
fn tell_skipped(consumer: &Consumer, told: usize) -> usize {
    let skipped = consumer.skipped();
    for Skipped { partition, from, to } in skipped.iter().skip(told) {
        eprintln!("partition {partition}: offsets {from} to {} are damaged and were skipped", to.0 - 1);
    }
    skipped.len()
}

/// Forgets partitions whose end the consumer has passed: their last records were skipped.
fn forget_reached(left: &mut Ends, consumer: &Consumer) {
    for (partition, position) in consumer.positions() {
        if left.get(&partition).is_some_and(|end| position >= *end) {
            left.remove(&partition);
        }
    }
}

/// The next record. Before it waits, everything printed so far leaves, so that whoever watches sees it.
async fn next(consumer: &mut Consumer, printer: &mut Printer<'_>) -> Outcome<ConsumerRecord> {
    if let Ok(record) = tokio::time::timeout(Duration::ZERO, consumer.next()).await {
        return Ok(record?);
    }
    printer.flush()?;
    Ok(consumer.next().await?)
}

/// Whether a record comes before its partition's end, which is forgotten once it is reached.
fn is_wanted(left: &mut Ends, record: &ConsumerRecord) -> bool {
    let Some(&end) = left.get(&record.partition) else { return false };
    if record.offset.0 + 1 >= end.0 {
        left.remove(&record.partition);
    }
    record.offset < end
}

/// Where the partitions end now; without those that hold nothing from where the consumer begins.
async fn ends(client: &Client, command: &ConsumeCommand, consumer: &Consumer) -> Outcome<Ends> {
    let positions: BTreeMap<Partition, Offset> = consumer.positions().into_iter().collect();
    let ends = client.list_offsets(&command.topic, OffsetQuery::Latest).await?;
    let begun =
        |(partition, end): &(Partition, Offset)| positions.get(partition).is_some_and(|position| position < end);
    Ok(ends.into_iter().filter(begun).collect())
}

impl ConsumeCommand {
    fn options(&self) -> Outcome<ConsumerOptions> {
        let start = match (self.offset, self.since) {
            (Some(offset), _) => StartAt::Offset(Offset(offset)),
            (None, Some(since)) => StartAt::Time(before_now(since)?),
            (None, None) if self.from_beginning || self.until_end => StartAt::Earliest,
            (None, None) => StartAt::Latest,
        };
        let partitions = self.partitions.iter().map(|&partition| Partition(partition)).collect::<Vec<_>>();
        let partitions = (!partitions.is_empty()).then_some(partitions);
        let (on_damage, read_from) = (self.on_damage(), self.read_from());
        Ok(ConsumerOptions {
            start,
            partitions,
            on_damage,
            read_from,
            explain: self.explain,
            ..ConsumerOptions::default()
        })
    }

    const fn on_damage(&self) -> OnDamage {
        if self.skip_damaged { OnDamage::Skip } else { OnDamage::Stop }
    }

    fn read_from(&self) -> ReadFrom {
        self.rack.clone().map_or(ReadFrom::Head, |rack| ReadFrom::Nearest { rack })
    }

    fn format(&self, json: bool) -> Format {
        let default = || if json { Format::Json } else { Format::lines_of_values() };
        self.format.clone().unwrap_or_else(default)
    }
}

fn before_now(since: Duration) -> Outcome<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|_| Failure::failed("this machine's clock shows a time before 1970: set it"))?;
    Ok(Timestamp(i64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(i64::MAX)))
}

/// Prints records.
struct Printer<'a> {
    format: Format,
    topic: &'a str,
    bytes: Vec<u8>,
    output: &'a mut Output,
}

impl Printer<'_> {
    fn print(&mut self, record: &ConsumerRecord) -> Outcome {
        let headers: Vec<(&str, &[u8])> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
        let printed = Printed {
            topic: self.topic,
            partition: record.partition.0,
            offset: record.offset.0,
            timestamp_ms: record.timestamp.0,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        self.bytes.clear();
        self.format.print(&printed, &mut self.bytes);
        self.output.write(&self.bytes)
    }

    fn flush(&mut self) -> Outcome {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: u32, offset: u64) -> ConsumerRecord {
        ConsumerRecord {
            partition: Partition(partition),
            offset: Offset(offset),
            timestamp: Timestamp(0),
            append_timestamp: Timestamp(0),
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_end_is_the_end_as_it_was() {
        let mut left = Ends::from([(Partition(0), Offset(2)), (Partition(1), Offset(1))]);
        assert!(is_wanted(&mut left, &record(0, 0)));
        assert!(is_wanted(&mut left, &record(0, 1)));
        assert!(!is_wanted(&mut left, &record(0, 2)), "written later");
        assert!(is_wanted(&mut left, &record(1, 0)) && left.is_empty());
    }
}
