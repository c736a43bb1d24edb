//! `minikafka consume --group`: prints what a member of a group gets. A record is acknowledged when it has left this process,
//! so whatever kills it, what was not printed is printed by another member, or by the next process.

use std::time::Duration;

use minikafka_client::core::ErrorCode;
use minikafka_client::{
    Acknowledge, Client, GroupConsumer, GroupConsumerOptions, GroupPhase, GroupRecord, GroupStart, OffsetQuery,
};

use super::{ConsumeCommand, Ends, Printer};
use crate::cli::GlobalOptions;
use crate::client;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
use crate::shutdown::Shutdown;

/// Records that wait for others to be printed with them.
const UNPRINTED_MAX: usize = 4_096;
/// How often it is looked whether the end was reached.
const END_POLL: Duration = Duration::from_millis(200);

/// A member whose records are printed.
struct Member<'a> {
    client: Client,
    consumer: GroupConsumer,
    printer: Printer<'a>,
    /// Printed, but perhaps still in a buffer of this process.
    unacknowledged: Vec<GroupRecord>,
}

/// Prints records until there is no reason to go on, then leaves the group.
pub(super) async fn run(command: &ConsumeCommand, group: &str, global: &GlobalOptions, output: &mut Output) -> Outcome {
    let mut shutdown = Shutdown::listen().map_err(|error| Failure::io("listening for signals", &error))?;
    let client = client::connect(global, false).await?;
    let ends =
        if command.until_end { Some(client.list_offsets(&command.topic, OffsetQuery::Latest).await?) } else { None };
    let consumer = client.group_consumer(group, &[&command.topic], command.group_options()).await?;
    let printer = Printer { format: command.format(global.json), topic: &command.topic, bytes: Vec::new(), output };
    let mut member = Member { client, consumer, printer, unacknowledged: Vec::new() };
    let ends = ends.map(|ends| ends.into_iter().collect());
    let printed = tokio::select! {
        printed = member.print_all(ends.as_ref(), command.max_records) => printed,
        _signal = shutdown.asked() => member.acknowledge(),
    };
    // What did leave needs no other process, whatever ended this one.
    let printed = printed.or_else(|failure| member.acknowledge().and(Err(failure)));
    // Others go on at once.
    let left = member.consumer.close().await;
    printed.and(left.map_err(Failure::from))
}

impl Member<'_> {
    async fn print_all(&mut self, ends: Option<&Ends>, count_max: Option<u64>) -> Outcome {
        let mut count = 0;
        while count_max.is_none_or(|max| count < max) {
            let at_once = self.consumer.next_within(Duration::ZERO).await?;
            let record = match (at_once, ends) {
                (Some(record), _) => Some(record),
                (None, None) => {
                    self.acknowledge()?;
                    Some(self.consumer.next().await?)
                }
                (None, Some(ends)) => {
                    self.acknowledge()?;
                    if self.is_at(ends).await? {
                        break;
                    }
                    self.consumer.next_within(END_POLL).await?
                }
            };
            let Some(record) = record else { continue };
            // Written later: another process of the group has it, or the next one.
            if ends.and_then(|ends| ends.get(&record.partition)).is_some_and(|end| record.offset >= *end) {
                continue;
            }
            self.printer.print(&record)?;
            self.unacknowledged.push(record);
            count += 1;
            if self.unacknowledged.len() >= UNPRINTED_MAX {
                self.acknowledge()?;
            }
        }
        self.acknowledge()
    }

    /// What was printed leaves; then it is handled.
    fn acknowledge(&mut self) -> Outcome {
        self.printer.flush()?;
        self.unacknowledged.drain(..).for_each(|record| record.ack());
        Ok(())
    }

    /// Whether all that this member has was read up to there, and nothing more will be given to it as the group is.
    async fn is_at(&self, ends: &Ends) -> Outcome<bool> {
        let positions = self.consumer.positions();
        let is_read = positions.iter().all(|(place, at, _)| ends.get(&place.partition).is_none_or(|end| at >= end));
        if !is_read {
            return Ok(false);
        }
        let described = match self.client.describe_group(self.consumer.group()).await {
            // It has not joined yet.
            Err(error) if error.code() == Some(ErrorCode::UnknownGroup) => return Ok(false),
            described => described?,
        };
        // What it owns and has not been told of yet was not read either.
        let me = described.members.iter().find(|member| member.member == self.consumer.member());
        let is_told = me.is_some_and(|me| me.owned.iter().eq(positions.iter().map(|(place, ..)| place)));
        Ok(is_told && described.phase == GroupPhase::Stable)
    }
}

impl ConsumeCommand {
    fn group_options(&self) -> GroupConsumerOptions {
        let start = if self.from_beginning || self.until_end { GroupStart::Earliest } else { GroupStart::Latest };
        let defaults = GroupConsumerOptions::default();
        GroupConsumerOptions {
            session_timeout: self.session_timeout.unwrap_or(defaults.session_timeout),
            acknowledge: Acknowledge::ByRecord,
            start,
            instance: self.instance.clone(),
            commit_interval: Duration::from_secs(1),
            read_from: self.read_from(),
            on_damage: self.on_damage(),
            ..defaults
        }
    }
}
