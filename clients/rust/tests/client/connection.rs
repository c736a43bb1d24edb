//! The connection: pipelining, deadlines, and every way in which a server can be wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minikafka_client::connection::TryRequestError;
use minikafka_client::core::wire::{Api, ResolveReply, ResolveRequest, Role};
use minikafka_client::core::{ClusterId, ErrorCode};
use minikafka_client::{ClusterSecret, ConnectOptions, Connection, Error};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::cluster::{Cluster, Fault};

const DEADLINE: Duration = Duration::from_secs(5);

fn question() -> ResolveRequest {
    ResolveRequest { topics: Vec::new(), all_topics: true, with_rings: true, create_missing: false }
}

async fn ask(connection: &Connection) -> Result<ResolveReply, Error> {
    connection.call(Api::Resolve, &question(), DEADLINE).await
}

async fn connected() -> (Cluster, Connection) {
    let cluster = Cluster::start(1).await;
    let connection = Connection::connect(&cluster.shared.gateway, &ConnectOptions::default()).await;
    (cluster, connection.expect("the gateway answers"))
}

#[tokio::test]
async fn replies_come_in_any_order() {
    let (cluster, connection) = connected().await;
    assert_eq!(connection.server().cluster, ClusterId(77));
    let gate = Arc::new(Notify::new());
    cluster.script(Api::Resolve, [Fault::Hold(gate.clone())]);
    let first =
        connection.try_request(Api::Resolve, &minikafka_client::core::wire::Wire::to_bytes(&question()), Bytes::new());
    let first = first.expect("there is room");
    ask(&connection).await.expect("the second reply overtakes the first");
    gate.notify_one();
    let reply = first.within(Api::Resolve, DEADLINE).await.expect("the first reply");
    connection.decode::<ResolveReply>("reply", &reply.head).expect("a map");
}

#[tokio::test]
async fn the_secret_is_proved_in_both_directions() {
    let cluster = Cluster::start(1).await;
    let options = |secret: &[u8]| ConnectOptions {
        role: Role::Controller,
        secret: Some(ClusterSecret::new(secret)),
        ..ConnectOptions::default()
    };
    Connection::connect(&cluster.shared.shards[0], &options(b"the cluster's secret")).await.expect("proved");
    let error = Connection::connect(&cluster.shared.shards[0], &options(b"wrong")).await.expect_err("not proved");
    assert_eq!(error.code(), Some(ErrorCode::NotAuthorized));
    let without = ConnectOptions { role: Role::Peer, ..ConnectOptions::default() };
    let error = Connection::connect(&cluster.shared.shards[0], &without).await.expect_err("no secret");
    assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
}

#[tokio::test]
async fn a_lost_connection_fails_every_request_in_flight() {
    let (cluster, connection) = connected().await;
    cluster.script(Api::Resolve, [Fault::Silence, Fault::Silence, Fault::CloseBefore]);
    let (a, b, c) = tokio::join!(ask(&connection), ask(&connection), ask(&connection));
    for result in [a, b, c] {
        let error = result.expect_err("no reply came");
        assert!(matches!(error, Error::ConnectionLost { .. }) && error.is_outcome_unknown(), "{error}");
    }
    connection.closed().await;
    assert!(connection.is_closed());
    assert!(matches!(ask(&connection).await, Err(Error::ConnectionLost { .. })));
}

#[tokio::test]
async fn a_deadline_fails_one_request_only() {
    let (cluster, connection) = connected().await;
    cluster.script(Api::Resolve, [Fault::Silence]);
    let impatient = Duration::from_millis(20);
    let late: Result<ResolveReply, _> = connection.call(Api::Resolve, &question(), impatient).await;
    assert!(matches!(late, Err(Error::DeadlineExceeded { outcome_unknown: true, .. })), "{late:?}");
    ask(&connection).await.expect("the connection goes on");
}

#[tokio::test]
async fn errors_of_the_server_carry_code_and_message() {
    let (cluster, connection) = connected().await;
    cluster.script(Api::Resolve, [Fault::Refuse(ErrorCode::Overloaded)]);
    let error = ask(&connection).await.expect_err("refused");
    assert_eq!(error.code(), Some(ErrorCode::Overloaded));
    assert!(error.is_retriable() && !error.is_outcome_unknown());
    let text = error.to_string();
    assert!(text.contains(&cluster.shared.gateway) && text.contains("refused by the script"), "{text}");
    ask(&connection).await.expect("the connection goes on");
}

#[tokio::test]
async fn malformed_replies_end_the_connection_with_a_typed_error() {
    for fault in [Fault::DamageHead, Fault::LieAboutSize, Fault::WrongCorrelation] {
        let (cluster, connection) = connected().await;
        cluster.script(Api::Resolve, [fault.clone()]);
        let error = ask(&connection).await.expect_err("malformed");
        assert!(matches!(error, Error::Malformed { .. }), "{fault:?} gave {error}");
        connection.closed().await;
    }
    let (cluster, connection) = connected().await;
    cluster.script(Api::Resolve, [Fault::Truncate]);
    let error = ask(&connection).await.expect_err("truncated");
    assert!(matches!(error, Error::ConnectionLost { .. }), "{error}");
}

#[tokio::test]
async fn the_window_bounds_what_is_in_flight() {
    let (cluster, connection) = connected().await;
    let requests = connection.server().in_flight_max as usize;
    cluster.script(Api::Resolve, vec![Fault::Silence; requests - 1]);
    let gate = Arc::new(Notify::new());
    cluster.script(Api::Resolve, [Fault::Hold(gate.clone())]);
    let head = minikafka_client::core::wire::Wire::to_bytes(&question());
    let send = || connection.try_request(Api::Resolve, &head, Bytes::new());
    let pending: Vec<_> = (0..requests).map(|_| send().expect("there is room")).collect();
    assert!(matches!(send(), Err(TryRequestError::Full)));
    let waiting = ask(&connection);
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("there is no room yet"),
        () = cluster.wait_until("all requests", |state| state.requests.get(&(Api::Resolve as u16)) == Some(&requests)) => {}
    }
    gate.notify_one();
    waiting.await.expect("room again");
    drop(pending);
}

#[tokio::test]
async fn a_server_that_never_says_hello_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens").to_string();
    let options = ConnectOptions { connect_timeout: Duration::from_millis(50), ..ConnectOptions::default() };
    let error = Connection::connect(&address, &options).await.expect_err("nobody accepts");
    assert!(matches!(error, Error::ConnectFailed { .. }), "{error}");
    drop(listener);
    let error = Connection::connect(&address, &options).await.expect_err("nobody listens");
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn closing_tells_who_waits() {
    let (cluster, connection) = connected().await;
    cluster.script(Api::Resolve, [Fault::Silence]);
    let waiting = ask(&connection);
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("nobody answers"),
        () = cluster.wait_until("the request", |state| state.requests.contains_key(&(Api::Resolve as u16))) => {}
    }
    connection.close();
    assert!(matches!(waiting.await, Err(Error::ConnectionLost { .. })));
}
