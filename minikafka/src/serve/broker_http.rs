//! A broker's HTTP port: `/metrics` for Prometheus, `/healthz` for whoever asks whether the process answers, `/v1/log-level`
//! for what it logs.
//!
//! It changes nothing else. Like the gateway's it has no secret and no encryption, so it belongs where only operators are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use minikafka_broker::BrokerMetrics;
use minikafka_core::limits;
use minikafka_gateway::{Deadlines, log_level_routes, serve_http};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::exit::{Failure, Outcome};
use crate::logging::Logs;

/// Where brokers serve HTTP unless said otherwise.
pub const PORT: u16 = 19_600;
/// A shard that tells nothing for so long is left out, and counted.
const SHARD_PATIENCE: Duration = Duration::from_secs(1);

/// Where a broker's HTTP port shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerHttpPlan {
    /// The address; port 0: any free one.
    pub address: SocketAddr,
    /// Go on without where it cannot be had.
    pub is_optional: bool,
}

/// A port that is served, until this is dropped.
pub struct BrokerHttp {
    /// Where it listens.
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl BrokerHttp {
    /// Listens, and serves what `metrics` tell.
    pub async fn start(plan: BrokerHttpPlan, metrics: BrokerMetrics, logs: &Logs) -> Outcome<Option<Self>> {
        let listening = async {
            let listener = TcpListener::bind(plan.address).await?;
            Ok((listener.local_addr()?, listener))
        };
        match listening.await {
            Ok((address, listener)) => {
                let serving = tokio::spawn(serve_http(router(metrics, logs), listener, Deadlines::default()));
                Ok(Some(Self { address, serving }))
            }
            Err(error) if plan.is_optional => {
                tracing::warn!(address = %plan.address, %error, "going on without the broker's HTTP port, hence without metrics");
                Ok(None)
            }
            Err(error) => Err(broken(plan.address, &error)),
        }
    }
}

impl Drop for BrokerHttp {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn broken(address: SocketAddr, error: &std::io::Error) -> Failure {
    Failure::failed(format!(
        "the broker's HTTP port {address}: {error}; stop what uses it, or choose another with --http"
    ))
}

fn router(metrics: BrokerMetrics, logs: &Logs) -> Router {
    let told = Router::new().route("/metrics", get(tell)).route("/healthz", get(async || "ok\n")).with_state(metrics);
    told.merge(log_level_routes(Arc::new(logs.clone())).layer(DefaultBodyLimit::max(limits::HTTP_BODY_BYTES_MAX)))
}

async fn tell(State(metrics): State<BrokerMetrics>) -> impl IntoResponse {
    let mut exposition = metrics.collect(tokio::time::sleep(SHARD_PATIENCE)).await;
    exposition.merge(minikafka_metrics::process());
    ([(CONTENT_TYPE, minikafka_metrics::CONTENT_TYPE)], exposition.text())
}
