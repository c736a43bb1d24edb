//! Draws where the time of one request went: hop by hop, stage by stage, on the time line of who asked.
//!
//! Clocks of different nodes are not compared. So a hop is drawn in the middle of the time in which somebody waited for it;
//! what is left to its left and right is the way there and back.

use std::fmt;
use std::sync::Arc;

use minikafka_client::{Explain, Hop, Stage};
use serde::Serialize;

/// Columns of the time line.
const COLUMNS: u64 = 40;

/// The slowest of many requests, leaving aside how long a fetch waited for records to come.
#[derive(Debug, Default)]
pub struct Slowest(Option<Arc<Explain>>);

impl Slowest {
    /// One more request.
    pub fn note(&mut self, explain: Option<&Arc<Explain>>) {
        if let Some(explain) = explain
            && self.0.as_ref().is_none_or(|slowest| busy_us(slowest) < busy_us(explain))
        {
            self.0 = Some(explain.clone());
        }
    }

    /// Draws it on standard error, beside the records; for machines if `json`.
    pub fn tell(&self, json: bool) {
        match self.drawing() {
            None => say_untold(),
            Some(drawing) if json => eprintln!("{}", serde_json::json!({ "explain": drawing })),
            Some(drawing) => eprintln!("{drawing}"),
        }
    }

    /// It, as it is shown; none when nobody told anything.
    pub fn drawing(&self) -> Option<Drawing> {
        self.0.as_deref().map(Drawing::of)
    }
}

/// Says that there is nothing to draw, and why.
pub fn say_untold() {
    eprintln!("nothing was explained: the brokers that were asked are of a release that cannot tell");
}

fn busy_us(explain: &Explain) -> u64 {
    let waited_us = explain.hops.first().and_then(|hop| hop.took_us(Stage::Wait)).unwrap_or(0);
    round_trip_us(explain).saturating_sub(waited_us.into())
}

fn round_trip_us(explain: &Explain) -> u64 {
    u64::try_from(explain.round_trip.as_micros()).unwrap_or(u64::MAX)
}

/// Where the time of one request went.
#[derive(Debug, Serialize)]
pub struct Drawing {
    /// By the client's clock.
    round_trip_us: u64,
    /// Of that, what is not in the first hop: network and queues.
    outside_us: u64,
    hops: Vec<DrawnHop>,
}

#[derive(Debug, Serialize)]
struct DrawnHop {
    node: u32,
    shard: u16,
    whole_us: u32,
    /// None: it could not tell.
    stages: Vec<DrawnStage>,
    /// Where it is drawn.
    #[serde(skip)]
    at_us: u64,
}

#[derive(Debug, Serialize)]
struct DrawnStage {
    stage: &'static str,
    /// Since the hop began.
    start_us: u32,
    took_us: u32,
}

impl Drawing {
    fn of(explain: &Explain) -> Self {
        let round_trip_us = round_trip_us(explain);
        // When somebody began to wait for the next hop, and for how long.
        let mut waited = (0, round_trip_us);
        let mut hops = Vec::with_capacity(explain.hops.len());
        for hop in &explain.hops {
            let at_us = waited.0 + waited.1.saturating_sub(hop.whole_us.into()) / 2;
            let successor = hop.stages.iter().find(|span| span.stage == Stage::Successor);
            waited = successor.map_or(waited, |span| (at_us + u64::from(span.start_us), span.took_us.into()));
            hops.push(DrawnHop::of(hop, at_us));
        }
        let outside_us = u64::try_from(explain.outside().as_micros()).unwrap_or(u64::MAX);
        Self { round_trip_us, outside_us, hops }
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, (stage, at_us, took_us): (&str, u64, u64)) -> fmt::Result {
        let whole_us = self.round_trip_us.max(1);
        let column = |us: u64| us.saturating_mul(COLUMNS) / whole_us;
        let from = column(at_us).min(COLUMNS - 1);
        let until = column(at_us.saturating_add(took_us)).clamp(from + 1, COLUMNS);
        let bar: String = (0..COLUMNS).map(|at| if (from..until).contains(&at) { '#' } else { ' ' }).collect();
        let share = took_us.saturating_mul(100) / whole_us;
        write!(f, "\n{name:<18} {stage:<10} {took_us:>9} {share:>5}%  |{bar}|")
    }
}

impl DrawnHop {
    fn of(hop: &Hop, at_us: u64) -> Self {
        let stages = hop.stages.iter().map(|span| DrawnStage {
            stage: span.stage.name(),
            start_us: span.start_us,
            took_us: span.took_us,
        });
        let (node, shard) = (hop.node.0, hop.shard.0);
        Self { node, shard, whole_us: hop.whole_us, stages: stages.collect(), at_us }
    }

    fn name(&self) -> String {
        format!("node {} shard {}", self.node, self.shard)
    }
}

/// Without a line's end, like all that is shown.
impl fmt::Display for Drawing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round_trip_us, outside_us, hops } = self;
        write!(f, "{:<18} {:<10} {:>9} {:>6}", "hop", "stage", "us", "share")?;
        self.row(f, "client", ("round trip", 0, *round_trip_us))?;
        let outside = format!("{outside_us} us of it outside of the brokers: network and queues");
        for hop in hops {
            if hop.stages.is_empty() {
                write!(f, "\n{:<18} could not tell", hop.name())?;
                continue;
            }
            self.row(f, &hop.name(), ("whole", hop.at_us, hop.whole_us.into()))?;
            for stage in &hop.stages {
                let at_us = hop.at_us.saturating_add(stage.start_us.into());
                self.row(f, "", (stage.stage, at_us, stage.took_us.into()))?;
            }
        }
        write!(f, "\n{outside}; a hop is drawn in the middle of the time in which it was waited for")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use minikafka_client::StageSpan;
    use minikafka_client::core::{NodeId, ShardId};

    use super::*;

    fn hop(node: u32, whole_us: u32, stages: &[(Stage, u32, u32)]) -> Hop {
        let span = |&(stage, start_us, took_us): &(Stage, u32, u32)| StageSpan { stage, start_us, took_us };
        Hop { node: NodeId(node), shard: ShardId(0), whole_us, stages: stages.iter().map(span).collect() }
    }

    fn explain(round_trip_us: u64, hops: Vec<Hop>) -> Arc<Explain> {
        Arc::new(Explain { round_trip: Duration::from_micros(round_trip_us), hops })
    }

    #[test]
    fn every_hop_stands_where_it_was_waited_for() {
        let head = [
            (Stage::Receive, 0, 50),
            (Stage::Append, 50, 50),
            (Stage::Durable, 100, 200),
            (Stage::Successor, 100, 600),
            (Stage::Answer, 700, 100),
        ];
        let tail = [(Stage::Receive, 0, 100), (Stage::Durable, 100, 200)];
        let untold = Hop::untold(NodeId(7), ShardId(2));
        let mut slowest = Slowest::default();
        slowest.note(Some(&explain(1_000, vec![hop(1, 800, &head), hop(2, 300, &tail), untold])));
        let expected = "\
hop                stage             us  share
client             round trip      1000   100%  |########################################|
node 1 shard 0     whole            800    80%  |    ################################    |
                   receive           50     5%  |    ##                                  |
                   append            50     5%  |      ##                                |
                   durable          200    20%  |        ########                        |
                   successor        600    60%  |        ########################        |
                   answer           100    10%  |                                ####    |
node 2 shard 0     whole            300    30%  |              ############              |
                   receive          100    10%  |              ####                      |
                   durable          200    20%  |                  ########              |
node 7 shard 2     could not tell
200 us of it outside of the brokers: network and queues; a hop is drawn in the middle of the time in which it was waited for";
        assert_eq!(slowest.drawing().expect("one was noted").to_string(), expected);
    }

    #[test]
    fn waiting_for_records_makes_no_fetch_slow() {
        let mut slowest = Slowest::default();
        assert!(slowest.drawing().is_none());
        slowest.note(None);
        slowest.note(Some(&explain(900, vec![hop(1, 800, &[(Stage::Read, 0, 800)])])));
        slowest.note(Some(&explain(9_000, vec![hop(2, 8_900, &[(Stage::Wait, 0, 8_500)])])));
        let shown = serde_json::to_value(slowest.drawing().expect("two were noted")).expect("plain data");
        let stages = serde_json::json!([{"stage": "read", "start_us": 0, "took_us": 800}]);
        let hops = serde_json::json!([{"node": 1, "shard": 0, "whole_us": 800, "stages": stages}]);
        assert_eq!(shown, serde_json::json!({"round_trip_us": 900, "outside_us": 100, "hops": hops}));
    }

    #[test]
    fn what_cannot_be_is_drawn_all_the_same() {
        let mut slowest = Slowest::default();
        let odd = [(Stage::Successor, u32::MAX, u32::MAX), (Stage::Other(99), 0, 0)];
        slowest.note(Some(&explain(0, vec![hop(1, u32::MAX, &odd), hop(2, 1, &[(Stage::Read, 0, 1)])])));
        let drawn = slowest.drawing().expect("one was noted").to_string();
        assert!(drawn.contains("other"), "{drawn}");
        assert!(drawn.lines().filter(|line| line.ends_with('|')).all(|line| line.matches('#').count() >= 1), "{drawn}");
    }
}
