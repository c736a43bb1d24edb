//! Runs the checker over a case and says what came of it.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::case::Case;
use crate::model::{Action, Chains};

/// How long to look.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most this long, with more than one thread.
    pub time: Duration,
    /// At most this many steps.
    pub steps: usize,
    /// With so many threads; only one finds shortest paths.
    pub threads: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Verdict {
    /// The case's name.
    pub name: &'static str,
    /// Different states seen.
    pub states: usize,
    /// Steps taken.
    pub steps: usize,
    /// Steps from the beginning, at most.
    pub depth: usize,
    /// Different states of one node.
    pub node_states: usize,
    /// How long it took.
    pub time: Duration,
    /// Whether every state was seen.
    pub exhausted: bool,
    /// The broken promise and a path to it, if there is any.
    pub broken: Option<(String, Vec<Action>)>,
    /// What had to be reached and was not.
    pub missing: Vec<String>,
}

/// Looks at every state of a case, breadth first, until a promise is broken or a limit is met. `prepare` runs when the
/// first state is there.
pub fn check(case: Case, limits: Limits, prepare: impl FnOnce()) -> Verdict {
    let (name, begin) = (case.name, Instant::now());
    let model = Chains::new(case);
    let properties = model.properties();
    prepare();
    let checker = model
        .checker()
        .threads(limits.threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .timeout(limits.time)
        .target_state_count(limits.steps)
        .spawn_bfs()
        .join();
    let mut found = checker.discoveries();
    let is_always = |expectation: &Expectation| matches!(expectation, Expectation::Always);
    let (always, sometimes): (Vec<_>, Vec<_>) =
        properties.into_iter().partition(|property| is_always(&property.expectation));
    let broken = always.iter().find_map(|property| Some((property.name.to_owned(), found.remove(property.name)?)));
    let missing = sometimes.iter().filter(|property| !found.contains_key(property.name));
    let is_cut_short = begin.elapsed() >= limits.time || checker.state_count() >= limits.steps;
    Verdict {
        name,
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        node_states: checker.model().node_states(),
        time: begin.elapsed(),
        exhausted: !is_cut_short && broken.is_none(),
        missing: missing.map(|property| property.name.to_owned()).collect(),
        broken: broken.map(|(name, path)| (name, path.into_actions())),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, steps, depth, node_states, .. } = self;
        let seconds = self.time.as_secs_f64();
        let end = match &self.broken {
            Some((promise, path)) => format!("BROKEN in {} steps: {promise}", path.len()),
            None if self.exhausted => "exhausted".to_owned(),
            None => "cut short".to_owned(),
        };
        write!(f, "| {name} | {states} | {steps} | {depth} | {node_states} | {seconds:.1} s | {end} |")?;
        for action in self.broken.iter().flat_map(|(_, path)| path) {
            write!(f, "\n    {action:?}")?;
        }
        for name in &self.missing {
            write!(f, "\n    never reached: {name}")?;
        }
        Ok(())
    }
}
