//! What operators want: plans, operations, their progress and their end.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{StatusCode, Uri};
use minikafka_core::coordination::OperationRecord;
use minikafka_core::{OperationId, limits};

use super::cluster::{is_controller, learners};
use super::error::HttpError;
use crate::admin::*;
use crate::election::Leadership;
use crate::gateway::Shared;
use crate::map::ClusterMap;
use crate::operations::plan::{self, Plan};
use crate::operations::{self, OperationError, progress, sizes};

/// The body of a request, or why it is none.
type Body<T> = Result<Json<T>, JsonRejection>;

pub(super) async fn plan(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    request: Body<PlanRequest>,
) -> Result<Json<PlanStatus>, HttpError> {
    let Json(request) = request?;
    require_controller(&shared, &uri)?;
    let Plan { task, at_once, moves } = plan::plan(&operations::map_to_plan(&shared).await?, &request)?;
    let sizes = sizes::of_moves(&shared, &moves).await;
    let moves: Vec<PlannedMove> = moves
        .into_iter()
        .map(|wanted| PlannedMove {
            bytes: sizes::to_copy(&sizes, &wanted),
            ring: wanted.ring,
            range: wanted.range,
            from: wanted.from,
            to: wanted.to,
        })
        .collect();
    let known: Vec<u64> = moves.iter().filter_map(|wanted| wanted.bytes).collect();
    let speed = limits::COPY_BYTES_PER_SECOND_ASSUMED;
    Ok(Json(PlanStatus {
        task,
        at_once,
        bytes: known.iter().sum(),
        unknown_sizes: moves.len() - known.len(),
        expected_seconds: sizes::expected_ms(&known, at_once).div_ceil(1_000),
        copy_bytes_per_second: speed,
        moves,
    }))
}

pub(super) async fn begin(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    request: Body<PlanRequest>,
) -> Result<(StatusCode, Json<OperationStatus>), HttpError> {
    let Json(request) = request?;
    require_controller(&shared, &uri)?;
    let record = operations::begin(&shared, &request).await?;
    tracing::info!(operation = %record.operation, task = operations::describe(record.task), ranges = record.moves.len(), "operation begins");
    Ok((StatusCode::ACCEPTED, Json(status(&shared.map.current(), &record))))
}

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Json<OperationsStatus> {
    let map = shared.map.current();
    Json(OperationsStatus { operations: map.operations.values().map(|at| status(&map, &at.record)).collect() })
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(operation): Path<String>,
) -> Result<Json<OperationStatus>, HttpError> {
    let operation = number(&operation)?;
    let map = shared.map.current();
    let unknown = || OperationError::UnknownOperation { operation: operation.to_string() };
    let record = &map.operations.get(&operation).ok_or_else(unknown)?.record;
    let rings: BTreeMap<u16, _> = match is_controller(&shared) {
        true => record.moves.iter().map(|wanted| (wanted.ring.0, learners(&shared, wanted.ring.0))).collect(),
        false => BTreeMap::new(),
    };
    let moves = record.moves.iter().map(|wanted| MoveStatus {
        ring: wanted.ring,
        range: wanted.range,
        from: wanted.from.clone(),
        to: wanted.to.clone(),
        done: progress::is_done(&map, record.task, wanted),
        learners: rings.get(&wanted.ring.0).map(|ring| ring.get(&wanted.range).cloned().unwrap_or_default()),
    });
    Ok(Json(OperationStatus { moves: Some(moves.collect()), ..status(&map, record) }))
}

pub(super) async fn abort(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    Path(operation): Path<String>,
) -> Result<Json<OperationStatus>, HttpError> {
    let operation = number(&operation)?;
    require_controller(&shared, &uri)?;
    let record = operations::abort(&shared, operation).await?;
    tracing::info!(%operation, task = operations::describe(record.task), moved = record.moved(), "operation aborted");
    Ok(Json(status(&shared.map.current(), &record)))
}

fn number(text: &str) -> Result<OperationId, OperationError> {
    let unknown = |_| OperationError::UnknownOperation { operation: text.chars().take(32).collect() };
    text.parse().map(OperationId).map_err(unknown)
}

fn status(map: &ClusterMap, record: &OperationRecord) -> OperationStatus {
    let done = record.moves.iter().filter(|wanted| progress::is_done(map, record.task, wanted)).count();
    OperationStatus {
        operation: record.operation,
        task: record.task,
        state: record.state,
        at_once: record.at_once,
        began_unix_ms: record.began.0,
        ended_unix_ms: record.ended.map(|ended| ended.0),
        ranges: record.moves_total(),
        moved: record.moved_before as usize + done,
        waits_for: progress::waits_for(map, record).into_iter().collect(),
        moves: None,
    }
}

/// Plans and changes are the controller's; the error says where it is.
fn require_controller(shared: &Shared, uri: &Uri) -> Result<(), HttpError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match &*shared.leadership.borrow() {
        Leadership::Mine(_) => Ok(()),
        Leadership::Other { address, http } => Err(HttpError::not_controller(address, http, path)),
        Leadership::Unknown => Err(HttpError::not_controller("", "", path)),
    }
}
