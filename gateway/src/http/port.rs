//! A port with HTTP on it, bounded in everything that a stranger could make it hold: connections in number, heads and
//! connections in time. What is answered is the router's.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use minikafka_core::limits;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Deadlines;

/// After a failed accept (no file handles left), this much air for others to finish.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the port until dropped.
pub async fn serve_http(router: Router, listener: TcpListener, deadlines: Deadlines) {
    let room = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS_MAX as usize));
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            tracing::warn!(%peer, limit = limits::HTTP_CONNECTIONS_MAX, "too many HTTP connections; this one is closed");
            continue;
        };
        let router = router.clone();
        connections.spawn(async move {
            if let Err(error) = serve_connection(router, stream, deadlines).await {
                tracing::debug!(%peer, %error, "an HTTP connection ended");
            }
            drop(place);
        });
    }
}

async fn serve_connection(router: Router, stream: TcpStream, deadlines: Deadlines) -> hyper::Result<()> {
    // A socket that refuses is about to fail anyway.
    drop(stream.set_nodelay(true));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(deadlines.hello);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        // What is under way is finished, and the client connects again.
        () = tokio::time::sleep(deadlines.idle) => connection.as_mut().graceful_shutdown(),
    }
    // Who does not take the answer is cut off.
    timeout(deadlines.write, connection).await.unwrap_or(Ok(()))
}
