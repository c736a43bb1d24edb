//! The HTTP port: `/v1`, as `docs/GATEWAY.md`, section 4 describes it, in the shapes of [`crate::admin`]; and `/metrics`.
//!
//! Every gateway answers reads from its map, groups and the queue as a client of its cluster. Only the controller plans and
//! changes ranges; the others redirect to it. It has no secret and no encryption: whoever reaches the port may look, move
//! ranges, and take records from the queue, so it belongs where only operators are. Connections, heads, bodies and answers
//! are bounded in number, size and time, as on the native port. Absent: records of other topics.

mod cluster;
mod error;
mod groups;
mod log_level;
mod operations;
mod port;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use minikafka_core::limits;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::gateway::Shared;
pub(crate) use cluster::{is_controller, range_states};
use error::{Code, HttpError};
pub use log_level::{LogFilter, log_level_routes};
pub use port::serve_http;

/// Serves the port until dropped.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let deadlines = shared.config.deadlines;
    serve_http(router(shared), listener, deadlines).await;
}

fn router(shared: Arc<Shared>) -> Router {
    let operation = get(operations::show).delete(operations::abort);
    let queue = Router::new()
        .route("/push", post(queue::push).layer(DefaultBodyLimit::max(limits::HTTP_PUSH_BYTES_MAX)))
        .route("/pull", get(queue::pull).post(queue::pull_with_lease))
        .route("/ack", post(queue::ack))
        .layer(middleware::from_fn(queue::same_site));
    let log_level = shared.config.log_filter.clone().map(log_level_routes).unwrap_or_default();
    Router::new()
        .merge(queue)
        .merge(log_level)
        .route("/healthz", get(cluster::health))
        .route("/metrics", get(metrics))
        .route("/v1/cluster", get(cluster::cluster))
        .route("/v1/brokers", get(cluster::brokers))
        .route("/v1/rings", get(cluster::rings))
        .route("/v1/rings/{ring}/ranges", get(cluster::ranges))
        .route("/v1/topics", get(cluster::topics))
        .route("/v1/groups", get(groups::list))
        .route("/v1/groups/{group}", get(groups::show).delete(groups::delete))
        .route("/v1/groups/{group}/offsets", post(groups::go_on))
        .route("/v1/plans", post(operations::plan))
        .route("/v1/operations", get(operations::list).post(operations::begin))
        .route("/v1/operations/{operation}", operation)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(limits::HTTP_BODY_BYTES_MAX))
        .layer(middleware::from_fn(in_time))
        .with_state(shared)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, minikafka_metrics::CONTENT_TYPE)], crate::metrics::expose(&shared).text())
}

async fn in_time(request: Request, next: Next) -> Response {
    let deadline = Duration::from_millis(limits::HTTP_REQUEST_DEADLINE_MS);
    match timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => HttpError::new(Code::TimedOut, "the request took too long").into_response(),
    }
}

async fn no_such_path(request: Request) -> HttpError {
    HttpError::new(Code::NotFound, format!("there is nothing at {}", request.uri().path()))
}

async fn no_such_method(request: Request) -> HttpError {
    let (method, path) = (request.method(), request.uri().path());
    HttpError::new(Code::MethodNotAllowed, format!("{path} does not take {method}"))
}
