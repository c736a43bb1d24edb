//! The requests of a member: each to the coordinator that it believes in, each with an end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minikafka_core::group::member::{Failure, Input};
use minikafka_core::wire::group::{GroupCommitReply, GroupCommitRequest, GroupHeartbeatReply, GroupHeartbeatRequest};
use minikafka_core::wire::{Api, Wire};
use minikafka_core::{Epoch, RangeKey};

use crate::client::ClientShared;
use crate::error::{Error, Result};
use crate::overdue::{Addressed, OVERDUE};
use crate::pool::Lane;

/// A connection that is not open after this counts as failed for now.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// An answer may be late by this much, beyond what the coordinator was asked to wait, before its connection counts as dead.
const COMMIT_SLACK: Duration = Duration::from_secs(10);
/// The same for a heartbeat: a third of the session time-out, but not less than this.
const HEARTBEAT_SLACK_MIN: Duration = Duration::from_secs(1);

/// What came of a request, and how long the server asked to wait before the next one.
pub(super) type Answered = (Input, Duration);

/// A heartbeat.
pub(super) async fn heartbeat(client: Arc<ClientShared>, request: GroupHeartbeatRequest) -> Answered {
    let wait = Duration::from_millis(request.wait_ms_max.into());
    let slack = Duration::from_millis(u64::from(request.session_timeout_ms) / 3).max(HEARTBEAT_SLACK_MIN);
    let (sequence, place) = (request.sequence, (request.range, request.epoch));
    match ask::<_, GroupHeartbeatReply>(&client, Api::GroupHeartbeat, &request, place, (wait, slack)).await {
        Ok(reply) => (Input::HeartbeatAnswered { sequence, reply }, Duration::ZERO),
        Err(error) => (Input::HeartbeatFailed { sequence, failure: failure(&error) }, error.retry_after()),
    }
}

/// A commit.
pub(super) async fn commit(client: Arc<ClientShared>, request: GroupCommitRequest) -> Answered {
    let (sequence, place) = (request.sequence, (request.range, request.epoch));
    match ask::<_, GroupCommitReply>(&client, Api::GroupCommit, &request, place, (Duration::ZERO, COMMIT_SLACK)).await {
        Ok(reply) => (Input::CommitAnswered { sequence, reply }, Duration::ZERO),
        Err(error) => (Input::CommitFailed { sequence, failure: failure(&error) }, error.retry_after()),
    }
}

fn failure(error: &Error) -> Failure {
    tracing::debug!(%error, "the group's coordinator did not answer as it should");
    error.code().map_or(Failure::Unanswered, Failure::Refused)
}

async fn ask<Q: Wire, A: Wire>(
    client: &ClientShared,
    api: Api,
    request: &Q,
    (range, epoch): (RangeKey, Epoch),
    (wait, slack): (Duration, Duration),
) -> Result<A> {
    let owner = client.map.current().owner_of(range);
    let address = owner.ok_or_else(|| no_coordinator(range))?.address;
    let connection = client.pool.connect_within(&address, Lane::Groups, CONNECT_PATIENCE).await?;
    let (head, addressed) = (request.to_bytes(), [Addressed { address, range, epoch }]);
    let answer = tokio::select! {
        answer = connection.request(api, &head, Bytes::new(), wait + slack) => answer,
        moved = client.moved(wait + OVERDUE, &addressed) => Err(moved),
    };
    if let Err(Error::DeadlineExceeded { .. }) = &answer {
        connection.end_because("a request about a group was not answered in time");
    }
    connection.decode("reply", &answer?.head)
}

fn no_coordinator(range: RangeKey) -> Error {
    let reason = "the map names no head of its chain".into();
    Error::ConnectFailed { address: format!("range {range}").into(), reason }
}
