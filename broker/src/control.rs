//! What the controller asks of a shard, many ranges at once.

use minikafka_core::chain::planted::is_restart_forgotten;
use minikafka_core::chain::replica::Answer;
use minikafka_core::wire::{
    ActivateRange, ActivateRequest, AppendControlOutcome, AppendControlRange, AppendControlReply, AppendControlRequest,
    LearnRange, LearnReply, LearnReport, LearnRequest, MeasureReply, MeasureRequest, MeasuredRange, RangeOutcome,
    RangesReply, ReconcileRange, ReconcileRequest, SealRange, SealReply, SealReport, SealRequest,
};
use minikafka_core::{Epoch, ErrorCode, LogIndex, LogPoint, RangeId, RangeKey, RingId};
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::join_all;

use crate::range::Changed;
use crate::shard::Shard;

impl<D: Disk> Shard<D> {
    /// Promises epochs; answers when all promises are durable and all writes in flight are finished. Refused as a whole
    /// when meant for another process, whose shards may have divided the ranges otherwise.
    pub async fn seal(&self, request: SealRequest) -> SealReply {
        let (ring, meant) = (request.ring, request.incarnation == self.me().incarnation);
        let one = async |range: SealRange| match meant {
            true => self.seal_range(ring, range).await,
            false => refused_report(range.range, ErrorCode::NotOwner),
        };
        let ranges = join_all(request.ranges.into_iter().map(one)).await;
        SealReply { incarnation: self.me().incarnation, store: self.me().store, ranges }
    }

    async fn seal_range(&self, ring: RingId, SealRange { range, epoch, members }: SealRange) -> SealReport {
        let code = match self.open_range(RangeKey { ring, range }).await {
            Ok(opened) => match opened.seal(epoch, members).await {
                Some(report) => return report,
                None => ErrorCode::ShuttingDown,
            },
            Err(code) => code,
        };
        refused_report(range, code)
    }

    /// Brings logs to an exact end; refused as a whole when meant for another process.
    pub async fn reconcile(&self, request: ReconcileRequest) -> RangesReply {
        let (ring, meant) = (request.ring, request.incarnation == self.me().incarnation);
        let one = async |ReconcileRange { range, epoch, end, source }| {
            let changed = match self.range(RangeKey { ring, range }) {
                Some(opened) if meant => opened.reconcile(epoch, end, source).await,
                _ => refused(ErrorCode::Stale).into(),
            };
            outcome(range, changed)
        };
        RangesReply { ranges: join_all(request.ranges.into_iter().map(one)).await }
    }

    /// Begins to act in chains that the record now names.
    pub async fn activate(&self, request: ActivateRequest) -> RangesReply {
        let ring = request.ring;
        let one = async |wanted: ActivateRange| {
            let ActivateRange { range, epoch, chain, start } = wanted.clone();
            let answer = match self.range(RangeKey { ring, range }) {
                Some(opened) => opened.activate(epoch, chain, start).await,
                None => refused(ErrorCode::NotOwner),
            };
            if is_restart_forgotten() && matches!(answer, Answer::Done { .. }) {
                self.remember(ring, wanted).await;
            }
            outcome(range, answer.into())
        };
        RangesReply { ranges: join_all(request.ranges.into_iter().map(one)).await }
    }

    /// Lets ranges copy from members of a chain they are not in, and tells how far they are; refused as a whole when
    /// meant for another process.
    pub async fn learn(&self, request: LearnRequest) -> LearnReply {
        let (ring, meant) = (request.ring, request.incarnation == self.me().incarnation);
        let one = async |range: LearnRange| match meant {
            true => self.learn_range(ring, range).await,
            false => refused_learn(range.range, ErrorCode::NotOwner),
        };
        let ranges = join_all(request.ranges.into_iter().map(one)).await;
        LearnReply { incarnation: self.me().incarnation, store: self.me().store, ranges }
    }

    async fn learn_range(&self, ring: RingId, wanted: LearnRange) -> LearnReport {
        let LearnRange { range, epoch, chain, source } = wanted;
        let code = match self.open_range(RangeKey { ring, range }).await {
            Ok(opened) => match opened.learn(epoch, chain, source).await {
                Some(report) => return report,
                None => ErrorCode::ShuttingDown,
            },
            Err(code) => code,
        };
        refused_learn(range, code)
    }

    /// How much ranges hold here, from memory: it costs the disk nothing.
    pub fn measure(&self, request: &MeasureRequest) -> MeasureReply {
        let one = |&range: &RangeId| match self.range(RangeKey { ring: request.ring, range }) {
            Some(opened) => MeasuredRange { range, error: None, bytes: opened.log().usage().entry_bytes },
            None => MeasuredRange { range, error: Some(ErrorCode::NotOwner), bytes: 0 },
        };
        MeasureReply { ranges: request.ranges.iter().map(one).collect() }
    }

    /// Appends control entries, in order for each range; answers when all are committed.
    pub async fn append_control(&self, request: AppendControlRequest) -> AppendControlReply {
        let one = async |AppendControlRange { range, epoch, entry }| {
            let answer = match self.range(range) {
                // Groups are their coordinator's alone.
                _ if entry.group().is_some() => refused(ErrorCode::InvalidArgument),
                Some(opened) => opened.append_control(entry, epoch).await,
                None => refused(ErrorCode::NotOwner),
            };
            let RangeOutcome { error, epoch, .. } = outcome(range.range, answer.into());
            AppendControlOutcome { range, error, epoch }
        };
        AppendControlReply { entries: join_all(request.entries.into_iter().map(one)).await }
    }
}

const fn refused_report(range: RangeId, code: ErrorCode) -> SealReport {
    SealReport {
        range,
        error: Some(code),
        promised: Epoch(0),
        marker: Epoch(0),
        end: LogPoint::START,
        last_epoch: Epoch(0),
        known_committed: LogIndex(0),
        damaged: false,
    }
}

const fn refused(code: ErrorCode) -> Answer {
    Answer::Refused { code, epoch: Epoch(0) }
}

const fn refused_learn(range: RangeId, code: ErrorCode) -> LearnReport {
    LearnReport { range, error: Some(code), promised: Epoch(0), end: LogIndex(0), limit: None }
}

fn outcome(range: RangeId, Changed { answer, end }: Changed) -> RangeOutcome {
    match answer {
        Answer::Done { .. } => RangeOutcome { range, error: None, epoch: Epoch(0), end },
        Answer::Refused { code, epoch } => RangeOutcome { range, error: Some(code), epoch, end },
    }
}
