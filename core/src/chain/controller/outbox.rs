//! Gathers what many ranges want in one step, so that a shard gets one message of a kind and an operator one alert.

use std::collections::BTreeMap;

use super::alert::AlertReason;
use super::{Alert, Destination, Message, Output};
use crate::chain::ChainMember;
use crate::coordination::RingChunk;
use crate::ids::*;
use crate::wire::{
    ActivateRange, ActivateRequest, LearnRange, LearnRequest, ReconcileRange, ReconcileRequest, SealRange, SealRequest,
};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    read: bool,
    cas: Option<(RingChunk, crate::coordination::KeyVersion)>,
    seals: BTreeMap<(Destination, Incarnation), Vec<SealRange>>,
    reconciles: BTreeMap<(Destination, Incarnation), Vec<ReconcileRange>>,
    activates: BTreeMap<Destination, Vec<ActivateRange>>,
    learns: BTreeMap<(Destination, Incarnation), Vec<LearnRange>>,
    alerts: BTreeMap<AlertReason, Vec<RangeId>>,
}

impl Outbox {
    pub(super) fn read(&mut self) {
        self.read = true;
    }

    pub(super) fn cas(&mut self, chunk: RingChunk, version: crate::coordination::KeyVersion) {
        self.cas = Some((chunk, version));
    }

    pub(super) fn seal(&mut self, member: &ChainMember, range: SealRange) {
        self.seals.entry((destination(member), member.incarnation)).or_default().push(range);
    }

    pub(super) fn reconcile(&mut self, member: &ChainMember, range: ReconcileRange) {
        self.reconciles.entry((destination(member), member.incarnation)).or_default().push(range);
    }

    pub(super) fn activate(&mut self, member: &ChainMember, range: ActivateRange) {
        self.activates.entry(destination(member)).or_default().push(range);
    }

    pub(super) fn learn(&mut self, member: &ChainMember, range: LearnRange) {
        self.learns.entry((destination(member), member.incarnation)).or_default().push(range);
    }

    pub(super) fn alert(&mut self, range: RangeId, reason: AlertReason) {
        self.alerts.entry(reason).or_default().push(range);
    }

    pub(super) fn into_alerts(self, ring: RingId) -> Vec<Alert> {
        self.alerts.into_iter().map(|(reason, ranges)| Alert { ring, ranges, reason }).collect()
    }

    pub(super) fn into_outputs(mut self, writer: WriterId, ring: RingId) -> Vec<Output> {
        let mut outputs = Vec::new();
        let mut send = |to, message| outputs.push(Output::Send { to, message });
        for ((to, incarnation), ranges) in std::mem::take(&mut self.seals) {
            send(to, Message::Seal(SealRequest { writer, incarnation, ring, ranges }));
        }
        for ((to, incarnation), ranges) in std::mem::take(&mut self.reconciles) {
            send(to, Message::Reconcile(ReconcileRequest { writer, incarnation, ring, ranges }));
        }
        for (to, ranges) in std::mem::take(&mut self.activates) {
            send(to, Message::Activate(ActivateRequest { ring, ranges }));
        }
        for ((to, incarnation), ranges) in std::mem::take(&mut self.learns) {
            send(to, Message::Learn(LearnRequest { incarnation, ring, ranges }));
        }
        if let Some((chunk, version)) = self.cas.take() {
            outputs.push(Output::Cas { chunk, version });
        }
        if self.read {
            outputs.push(Output::ReadChunk);
        }
        outputs.extend(self.into_alerts(ring).into_iter().map(Output::Alert));
        outputs
    }
}

fn destination(member: &ChainMember) -> Destination {
    Destination { node: member.node, shard: member.shard }
}
