//! Stopping: what is in flight is answered, then the connection ends.

use std::net::TcpStream;
use std::time::Duration;

use minikafka_core::wire::Api;

use super::support::*;

#[test]
fn requests_in_flight_are_answered_and_no_more_are_read() {
    let server = TestServer::start();
    let mut idle = server.greeted();
    let mut silent = server.client();
    let mut busy = server.greeted();
    busy.send(&fetch(1, 200, 3 << 20, 1 << 20));
    let mut stuck_in_a_frame = server.greeted();
    stuck_in_a_frame.send(&frame(Api::ListOffsets, 1, b"head")[..33]);
    server.wait_for("the fetch", |stats| stats.open == 4 && stats.frames == 4);

    let stopped = server.begin_stop(PATIENCE);
    idle.is_ended();
    silent.is_ended();
    stuck_in_a_frame.is_ended();
    busy.try_send(&frame(Api::ListOffsets, 2, b"too late"));
    let answer = busy.receive().expect("the answer to what was in flight");
    assert_eq!((answer.header.correlation, answer.bulk == pattern(1, 3 << 20)), (1, true));
    busy.is_ended();
    drop((idle, silent, stuck_in_a_frame, busy));
    let report = stopped.recv_timeout(PATIENCE).expect("the end");
    assert_eq!((report.connections, report.cut_off), (4, 0));
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

#[test]
fn what_is_not_done_in_time_is_cut_off() {
    let server = TestServer::start();
    let mut busy = server.greeted();
    busy.send(&fetch(1, 5_000, 100, 100));
    server.wait_for("the fetch", |stats| stats.frames == 2);
    let stopped = server.begin_stop(Duration::from_millis(50));
    busy.is_ended();
    let report = stopped.recv_timeout(Duration::from_secs(3)).expect("the end does not wait for the fetch");
    assert_eq!((report.connections, report.cut_off), (1, 1));
}

#[test]
fn what_the_service_has_begun_it_ends_even_if_nobody_waits_for_it() {
    let server = TestServer::start();
    let done = TestService::slow_requests_done();
    let mut client = server.greeted();
    client.send(&frame(Api::ListOffsets, 1, SLOW_HEAD));
    server.wait_for("the request", |stats| stats.frames == 2);
    let stopped = server.begin_stop(Duration::from_millis(20));
    client.is_ended();
    assert_eq!(TestService::slow_requests_done(), done, "it was cut off while it was being handled");
    let report = stopped.recv_timeout(PATIENCE).expect("the end");
    assert_eq!((report.cut_off, TestService::slow_requests_done()), (1, done + 1));
}

#[test]
fn a_port_is_free_again_at_once() {
    let server = TestServer::start();
    let mut client = server.greeted();
    let stopped = server.begin_stop(Duration::ZERO);
    stopped.recv_timeout(PATIENCE).expect("the end");
    client.is_ended();
    let address = server.address;
    let executor = glommio::LocalExecutorBuilder::default().io_memory(1 << 20).make().expect("an executor");
    executor.run(async move {
        let again = minikafka_net::Listener::bind(address).expect("only old connections used it");
        let error = minikafka_net::Listener::bind(again.local_addr()).expect_err("two listeners on one port");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    });
}
