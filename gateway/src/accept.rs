//! Accepting connections on one port, a bounded number at a time. What is said on them is the caller's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// After a failed accept (no file handles left), this much air for others to finish.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until dropped, and ends all connections then. Those beyond `connections_max` are closed at once, and `refused` is
/// told of each.
pub(crate) async fn serve_each<C: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    connections_max: u32,
    refused: impl Fn(SocketAddr),
    serve: impl Fn(TcpStream, SocketAddr) -> C,
) {
    let room = Arc::new(Semaphore::new(connections_max as usize));
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, port = ?listener.local_addr().ok(), "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            refused(peer);
            continue;
        };
        let connection = serve(stream, peer);
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
}
