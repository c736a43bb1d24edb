//! A port with HTTP on it, bounded in everything that a stranger could make it hold: connections in number, heads and
//! connections in time. What is answered is the router's.

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use minikafka_core::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::accept::serve_each;
use crate::config::Deadlines;

/// Serves the port until dropped.
pub async fn serve_http(router: Router, listener: TcpListener, deadlines: Deadlines) {
    let limit = limits::HTTP_CONNECTIONS_MAX;
    let refused = |peer| tracing::warn!(%peer, limit, "too many HTTP connections; this one is closed");
    let serve = |stream, peer| {
        let router = router.clone();
        async move {
            if let Err(error) = serve_connection(router, stream, deadlines).await {
                tracing::debug!(%peer, %error, "an HTTP connection ended");
            }
        }
    };
    serve_each(listener, limit, refused, serve).await;
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
