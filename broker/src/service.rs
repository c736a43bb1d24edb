//! What arrives on a shard's port, and who handles it.

use std::cell::Cell;
use std::rc::Rc;

use glommio::{TaskQueueHandle, spawn_local_into};
use minikafka_core::group::coordinator::{Answer, Refusal};
use minikafka_core::wire::{
    ActivateRequest, Api, AppendControlRequest, DeleteRecordsRequest, ErrorReply, Explained, FetchRequest,
    GroupCommitRequest, GroupDeleteRequest, GroupDescribeRequest, GroupHeartbeatRequest, GroupListRequest,
    GroupOffsetsRequest, LearnRequest, ListOffsetsRequest, MeasureRequest, ReconcileRequest, SealRequest, Stage, Wire,
};
use minikafka_core::{ErrorCode, limits};
use minikafka_net::{Hangup, Reply, Request, Service, SharedBytes};
use minikafka_storage::SharedSlice;
use minikafka_storage::disk::Disk;
use minikafka_storage::wait::Permit;

use crate::explain::Trace;
use crate::fetch::Fetched;
use crate::shard::Shard;

/// Partitions that one request may name.
const PARTITIONS_MAX: usize = limits::REQUEST_PARTITIONS_MAX as usize;

/// Hands requests to a shard. Appending happens in the connection's own turn, everything that waits in a task.
pub struct ShardService<D: Disk> {
    pub(crate) shard: Rc<Shard<D>>,
    /// Where reads run, so that they do not slow appends.
    pub(crate) reading: TaskQueueHandle,
    /// Where the controller's requests run.
    pub(crate) changing: TaskQueueHandle,
    /// Set when the shard stops: nothing new is begun.
    pub(crate) stopping: Cell<bool>,
}

impl<D: Disk> Service for ShardService<D> {
    async fn handle(&self, mut request: Request<'_>) -> Result<(), Hangup> {
        if self.stopping.get() {
            request.reply.fail(ErrorCode::ShuttingDown);
            return Ok(());
        }
        match request.api {
            Api::Produce if self.shard.quotas.are_per_connection() => {
                let (peer, bytes, connection) = (request.peer(), request.bulk.len() as u64, request.reply.queue());
                self.produce(request).await?;
                self.pace(peer, bytes, &connection).await;
            }
            Api::Produce => return self.produce(request).await,
            Api::Fetch => {
                let message = request.message()?;
                self.fetch(message, request);
            }
            Api::ListOffsets => {
                let message: ListOffsetsRequest = request.message()?;
                if message.partitions.len() > PARTITIONS_MAX {
                    request.reply.fail(ErrorCode::InvalidArgument);
                    return Ok(());
                }
                let shard = self.shard.clone();
                self.answer(self.reading, request.reply, async move { shard.list_offsets(&message).await });
            }
            Api::DeleteRecords => {
                let message: DeleteRecordsRequest = request.message()?;
                if message.partitions.len() > PARTITIONS_MAX {
                    request.reply.fail(ErrorCode::InvalidArgument);
                    return Ok(());
                }
                let shard = self.shard.clone();
                self.answer(self.reading, request.reply, async move { shard.delete_records(&message).await });
            }
            Api::Peer => return self.peer(request).await,
            Api::GroupHeartbeat
            | Api::GroupCommit
            | Api::GroupOffsets
            | Api::GroupDescribe
            | Api::GroupList
            | Api::GroupDelete => return self.group(request),
            _ => return self.change(request),
        }
        Ok(())
    }
}

impl<D: Disk> ShardService<D> {
    /// What is asked about consumer groups.
    fn group(&self, mut request: Request<'_>) -> Result<(), Hangup> {
        let shard = self.shard.clone();
        match request.api {
            Api::GroupHeartbeat => {
                let message: GroupHeartbeatRequest = request.message()?;
                let reply = request.reply;
                self.shard.group_heartbeat(message, Box::new(|answer| send_answer(reply, answer)));
            }
            Api::GroupCommit => {
                let message: GroupCommitRequest = request.message()?;
                let reply = request.reply;
                self.shard.group_commit(message, Box::new(|answer| send_answer(reply, answer)));
            }
            Api::GroupDelete => {
                let message: GroupDeleteRequest = request.message()?;
                let reply = request.reply;
                self.shard.group_delete(message, Box::new(|answer| send_answer(reply, answer)));
            }
            Api::GroupOffsets => {
                let (message, reply): (GroupOffsetsRequest, _) = (request.message()?, request.reply);
                self.spawn(self.reading, async move { send_result(reply, shard.group_offsets(&message)) });
            }
            Api::GroupDescribe => {
                let (message, reply): (GroupDescribeRequest, _) = (request.message()?, request.reply);
                self.spawn(self.reading, async move { send_result(reply, shard.group_describe(&message)) });
            }
            _ => {
                let message: GroupListRequest = request.message()?;
                if message.ranges.len() > limits::RANGES_MAX as usize {
                    request.reply.fail(ErrorCode::InvalidArgument);
                    return Ok(());
                }
                self.answer(self.reading, request.reply, async move { shard.group_list(&message) });
            }
        }
        Ok(())
    }

    /// What the controller asks; whatever else arrives belongs elsewhere.
    fn change(&self, mut request: Request<'_>) -> Result<(), Hangup> {
        match request.api {
            Api::Seal => {
                let (shard, message): (_, SealRequest) = (self.shard.clone(), request.message()?);
                self.answer(self.changing, request.reply, async move { shard.seal(message).await });
            }
            Api::Reconcile => {
                let (shard, message): (_, ReconcileRequest) = (self.shard.clone(), request.message()?);
                self.answer(self.changing, request.reply, async move { shard.reconcile(message).await });
            }
            Api::Activate => {
                let (shard, message): (_, ActivateRequest) = (self.shard.clone(), request.message()?);
                self.answer(self.changing, request.reply, async move { shard.activate(message).await });
            }
            Api::Learn => {
                let (shard, message): (_, LearnRequest) = (self.shard.clone(), request.message()?);
                self.answer(self.changing, request.reply, async move { shard.learn(message).await });
            }
            Api::Measure => {
                let message: MeasureRequest = request.message()?;
                request.reply.send(&self.shard.measure(&message));
            }
            Api::AppendControl => {
                let (shard, message): (_, AppendControlRequest) = (self.shard.clone(), request.message()?);
                self.answer(self.changing, request.reply, async move { shard.append_control(message).await });
            }
            _ => request.reply.fail(ErrorCode::Misdirected),
        }
        Ok(())
    }

    fn answer<M: Wire>(&self, queue: TaskQueueHandle, reply: Reply, work: impl Future<Output = M> + 'static) {
        self.spawn(queue, async move { reply.send(&work.await) });
    }

    fn spawn(&self, queue: TaskQueueHandle, task: impl Future<Output = ()> + 'static) {
        match spawn_local_into(task, queue) {
            Ok(task) => drop(task.detach()),
            // The reply was dropped with the task, which has told the client.
            Err(error) => tracing::error!(%error, "a task queue of this shard is gone"),
        }
    }

    fn fetch(&self, message: FetchRequest, request: Request<'_>) {
        let (shard, peer, explain) = (self.shard.clone(), request.peer(), request.header.explain);
        let mut reply = request.reply;
        self.spawn(self.reading, async move {
            if message.partitions.len() > PARTITIONS_MAX {
                return reply.fail(ErrorCode::InvalidArgument);
            }
            let (clock, took) = (shard.clock(), &shard.metrics.took);
            let began_ns = clock.monotonic_ns();
            let trace = explain.then(|| Trace::begin(began_ns));
            let fetched = shard.fetch(peer, &message, trace.as_ref()).await;
            let bytes = fetched.entries.iter().map(|slice| slice.len()).sum();
            let ready_ns = clock.monotonic_ns();
            let has_room = reply.room(bytes).await.is_ok();
            let now_ns = clock.monotonic_ns();
            took.fetch_room.record(now_ns.saturating_sub(ready_ns));
            took.fetch.record(now_ns.saturating_sub(began_ns));
            if !has_room {
                return;
            }
            let message = fetched.reply.clone();
            match trace {
                None => reply.send_with_bulk(&message, Held::bulk(fetched)),
                Some(trace) => {
                    trace.ended(Stage::Room, now_ns);
                    let explanation = trace.explanation(shard.me(), now_ns);
                    reply.send_explained(&Explained { message, explanation }, Held::bulk(fetched));
                }
            }
        });
    }
}

/// Before a request about groups that found no room is made again.
const GROUP_RETRY_AFTER_MS: u32 = 1_000;

fn send_answer(reply: Reply, answer: Answer) {
    match answer {
        Answer::Heartbeat(message) => reply.send(&message),
        Answer::Committed(message) => reply.send(&message),
        Answer::Deleted => reply.send_encoded(&[], Vec::new()),
        Answer::Refused(refusal) => refuse(reply, &refusal),
    }
}

fn send_result<M: Wire>(reply: Reply, result: Result<M, Refusal>) {
    match result {
        Ok(message) => reply.send(&message),
        Err(refusal) => refuse(reply, &refusal),
    }
}

fn refuse(reply: Reply, &Refusal { code, epoch, message }: &Refusal) {
    let error = ErrorReply::because(message.unwrap_or(code.advice())).at_epoch(epoch);
    let retry_after_ms = if code == ErrorCode::Overloaded { GROUP_RETRY_AFTER_MS } else { 0 };
    reply.fail_with(code, &error.after_ms(retry_after_ms));
}

/// Entries on their way out, with their part of the fetch budget.
struct Held {
    bytes: SharedSlice,
    _permit: Rc<Permit>,
}

impl Held {
    fn bulk(fetched: Fetched) -> Vec<SharedBytes> {
        let permit = Rc::new(fetched.permit);
        let held = |bytes| SharedBytes::whole(Rc::new(Self { bytes, _permit: permit.clone() }));
        fetched.entries.into_iter().map(held).collect()
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
