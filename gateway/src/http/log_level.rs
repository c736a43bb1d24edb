//! What a process logs, looked at and changed while it runs: `/v1/log-level` of gateways, and of brokers, too.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::get;
use axum::{Json, Router};

use super::error::{Code, HttpError};
use crate::admin::LogLevel;

/// What decides what a process logs. It holds for the whole process, until it ends.
pub trait LogFilter: Send + Sync {
    /// The filter, as it was said.
    fn current(&self) -> String;
    /// Another filter from now on; refused with what is wrong with it.
    fn change(&self, filter: &str) -> Result<(), String>;
}

/// `GET` and `PUT /v1/log-level`.
pub fn log_level_routes<S: Clone + Send + Sync + 'static>(filter: Arc<dyn LogFilter>) -> Router<S> {
    Router::new().route("/v1/log-level", get(show).put(change)).with_state(filter)
}

async fn show(State(filter): State<Arc<dyn LogFilter>>) -> Json<LogLevel> {
    Json(LogLevel { filter: filter.current() })
}

async fn change(
    State(filter): State<Arc<dyn LogFilter>>,
    request: Result<Json<LogLevel>, JsonRejection>,
) -> Result<Json<LogLevel>, HttpError> {
    let Json(wanted) = request?;
    let before = filter.current();
    filter.change(&wanted.filter).map_err(|wrong| HttpError::new(Code::InvalidRequest, wrong))?;
    tracing::info!(before, now = wanted.filter, "what is logged was changed over HTTP");
    Ok(Json(wanted))
}
