//! A member behind the head: whose stream it takes, and which entries of it (R1).

use super::role::Standing;
use super::stream::EarlyStream;
use super::{AppendBody, Output, Replica, RequestId};
use crate::chain::ChainMember;
use crate::chain::planted::{PlantedBug, is_planted};
use crate::control::ControlEntry;
use crate::entry::EntryHeader;
use crate::error_code::ErrorCode;
use crate::ids::*;

impl Replica {
    /// Whether a word came on the stream that was accepted last, in the epoch this member acts in.
    pub(super) fn takes_from(&mut self, epoch: Epoch, stream: StreamId) -> bool {
        let Standing::Active(active) = &mut self.standing else { return false };
        let is_current = active.epoch() == epoch;
        match active.upstream.as_mut().filter(|upstream| is_current && upstream.stream == Some(stream)) {
            Some(upstream) => {
                upstream.heard();
                true
            }
            None => false,
        }
    }

    /// The next entry of the predecessor's stream.
    pub(super) fn replicate(
        &mut self,
        request: RequestId,
        header: EntryHeader,
        control: Option<ControlEntry>,
        committed: LogIndex,
        out: &mut Vec<Output>,
    ) {
        let end = self.state.end();
        if self.damaged {
            return self.end_upstream(ErrorCode::RangeFailed, out);
        }
        if header.index <= end.index {
            // R1: at or below the end with an equal hash it is ignored; what was committed before is not asked again.
            if self.own_point(header.index).is_some_and(|own| own.hash != header.running_hash) {
                return self.end_upstream(ErrorCode::OutOfOrder, out);
            }
        } else if header.index == end.index.next() && header.hash_after(end.hash) == header.running_hash {
            let Standing::Active(active) = &self.standing else { return };
            let forward = active.has_successor();
            self.fold(&header, control.as_ref());
            out.push(Output::Append { header, body: AppendBody::Request(request), forward });
            if is_planted(PlantedBug::AcknowledgeBeforeDurable) {
                self.acknowledge(out);
            }
        } else {
            return self.end_upstream(ErrorCode::OutOfOrder, out);
        }
        self.commit(committed.min(self.state.end().index), out);
    }

    /// The predecessor's word of what is committed. One that tells nothing new is a sign of life, and answered.
    pub(super) fn committed_advanced(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        if index > self.committed.index {
            return self.commit(index.min(self.state.end().index), out);
        }
        if let Standing::Active(active) = &mut self.standing {
            let (epoch, held) = (active.epoch(), active.held(self.durable));
            if let Some(upstream) = &mut active.upstream {
                upstream.repeat_acknowledgement(epoch, held, out);
            }
        }
    }

    /// R1: takes a stream from exactly the predecessor, in exactly this epoch.
    pub(super) fn stream_requested(
        &mut self,
        epoch: Epoch,
        stream: StreamId,
        from: ChainMember,
        to: ChainMember,
        out: &mut Vec<Output>,
    ) {
        let request = EarlyStream { stream, from, to };
        if epoch != self.promised {
            return self.refuse_stream(request, ErrorCode::Stale, out);
        }
        match &self.standing {
            Standing::Active(_) => self.take_stream(request, out),
            // Its predecessor learned of the new record first: this member is about to.
            Standing::Reconciled => self.early_stream = Some(request),
            Standing::Failed => self.refuse_stream(request, ErrorCode::RangeFailed, out),
            _ => self.refuse_stream(request, ErrorCode::Stale, out),
        }
    }

    /// Answers the request for a stream that came before this member acted.
    pub(super) fn take_early_stream(&mut self, out: &mut Vec<Output>) {
        if let Some(request) = self.early_stream.take() {
            self.take_stream(request, out);
        }
    }

    fn take_stream(&mut self, request: EarlyStream, out: &mut Vec<Output>) {
        let EarlyStream { stream, from, to } = request;
        let end = if is_planted(PlantedBug::TruncationSkipped) { self.committed } else { self.state.end() };
        let is_me = to == self.me;
        let Standing::Active(active) = &mut self.standing else { return };
        let (epoch, held) = (active.epoch(), active.held(self.durable));
        let Some(upstream) = active.upstream.as_mut().filter(|upstream| is_me && upstream.predecessor == from) else {
            return self.refuse_stream(request, ErrorCode::NotOwner, out);
        };
        if self.damaged {
            return self.refuse_stream(request, ErrorCode::RangeFailed, out);
        }
        if let Some(epoch) = active.overtaken_by {
            return out.push(Output::RefuseStream { epoch, stream, to: from, code: ErrorCode::Stale });
        }
        // The newest wins; an older one that comes late is over already.
        if upstream.accept(stream) {
            out.push(Output::AcceptStream { epoch, stream, to: from, end });
            upstream.repeat_acknowledgement(epoch, held, out);
        }
    }

    fn refuse_stream(&self, request: EarlyStream, code: ErrorCode, out: &mut Vec<Output>) {
        out.push(Output::RefuseStream { epoch: self.promised, stream: request.stream, to: request.from, code });
    }

    /// Something came on the stream that cannot follow.
    fn end_upstream(&mut self, code: ErrorCode, out: &mut Vec<Output>) {
        let epoch = self.promised;
        if let Standing::Active(active) = &mut self.standing
            && let Some(upstream) = &mut active.upstream
            && let Some(stream) = upstream.stream.take()
        {
            out.push(Output::RefuseStream { epoch, stream, to: upstream.predecessor, code });
        }
    }
}
