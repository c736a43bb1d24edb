//! Groups: who is in them, how far they are, where they go on. Asked of their coordinators by this gateway's own client.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use minikafka_client::TopicPartition;
use minikafka_core::{Offset, Partition};

use super::error::HttpError;
use crate::admin::groups::{GroupOffset, GroupOffsets, GroupStatus, GroupSummary, GroupsStatus};
use crate::gateway::Shared;

pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Result<Json<GroupsStatus>, HttpError> {
    let groups = shared.data.client()?.list_groups().await?;
    Ok(Json(GroupsStatus { groups: groups.into_iter().map(GroupSummary::of).collect() }))
}

pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(group): Path<String>,
) -> Result<Json<GroupStatus>, HttpError> {
    let client = shared.data.client()?;
    let described = client.describe_group(&group).await?;
    let lags = client.group_lag(&group).await?;
    Ok(Json(GroupStatus::of(&group, &described, &lags)))
}

pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(group): Path<String>,
) -> Result<StatusCode, HttpError> {
    shared.data.client()?.delete_group(&group).await?;
    tracing::info!(group, "group deleted");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn go_on(
    State(shared): State<Arc<Shared>>,
    Path(group): Path<String>,
    request: Result<Json<GroupOffsets>, JsonRejection>,
) -> Result<Json<GroupOffsets>, HttpError> {
    let Json(request) = request?;
    let offset = |offset: &GroupOffset| {
        let place = TopicPartition { topic: offset.topic.as_str().into(), partition: Partition(offset.partition) };
        (place, Offset(offset.offset))
    };
    let offsets: BTreeMap<TopicPartition, Offset> = request.offsets.iter().map(offset).collect();
    shared.data.client()?.commit_group_offsets(&group, &offsets).await?;
    tracing::info!(group, partitions = offsets.len(), "group goes on elsewhere");
    Ok(Json(request))
}
