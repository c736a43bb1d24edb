//! What a controller may decide in an epoch, by R5c, R5d, R7 and R9: every choice that the reports it has leave it.
//!
//! Which reports it has is its own affair: with fewer of them fewer logs stop it, so a decision is tried with just the
//! reports of the chain that it forms.

use minikafka_core::chain::ChainMember;
use minikafka_core::ids::*;

use crate::case::{Case, Rule};
use crate::node::{Decision, Report};

/// All decisions of `epoch` when `active` acted last, and these were sealed.
pub fn decisions(case: &Case, epoch: Epoch, active: &Decision, sealed: &[&Report]) -> Vec<Decision> {
    let mut found = Vec::new();
    for subset in 1u32..1 << sealed.len() {
        let chosen: Vec<&Report> =
            sealed.iter().enumerate().filter(|(at, _)| subset & 1 << at != 0).map(|(_, report)| *report).collect();
        if chosen.len() < case.floor || chosen.len() > case.replication {
            continue;
        }
        let Some(source) = source(case, active, &chosen) else { continue };
        let mut chain: Vec<ChainMember> = chosen.iter().map(|report| report.member).collect();
        found.push(Decision {
            epoch,
            source: Some(source.member),
            start: source.seal.end,
            log: source.log,
            chain: chain.clone(),
        });
        if case.both_orders && chain.len() > 1 {
            chain.reverse();
            let (start, log) = (source.seal.end, source.log);
            found.push(Decision { epoch, source: Some(source.member), start, log, chain });
        }
    }
    found
}

/// Whether a report is that of a survivor: a member of the last active chain, with that store, and a marker at or above
/// its epoch.
pub fn survives(active: &Decision, report: &Report) -> bool {
    let named = |member: &&ChainMember| member.node == report.member.node && member.store == report.member.store;
    report.seal.marker >= active.epoch && active.chain.iter().any(|member| named(&member))
}

fn source<'a>(case: &Case, active: &Decision, chosen: &[&'a Report]) -> Option<&'a Report> {
    let is_eligible = |report: &&&Report| case.without == Some(Rule::OnlySurvivors) || survives(active, report);
    let length = |report: &&&Report| (report.seal.last_epoch, report.seal.end.index);
    let survivors = chosen.iter().filter(is_eligible);
    let source =
        if case.without == Some(Rule::Longest) { survivors.min_by_key(length) } else { survivors.max_by_key(length) }?;
    if case.without.is_some() {
        return Some(source);
    }
    // R5c: stop when its end is below any reported known committed, or below start, or a last epoch exceeds active's.
    let committed = chosen.iter().map(|report| report.seal.known_committed).max().unwrap_or_default();
    let is_behind = source.seal.end.index < committed.max(active.start.index);
    let is_ahead = chosen.iter().any(|report| report.seal.last_epoch > active.epoch);
    (!is_behind && !is_ahead).then_some(*source)
}
