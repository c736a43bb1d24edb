//! Lost replies, cut connections, paused and killed servers.

use std::time::Instant;

use minikafka_coordinator::Registration;
use minikafka_coordinator::zookeeper::SESSION_TIMEOUT_MIN;
use minikafka_core::coordination::{CoordinationError, CoordinatorEvent, KeyLife, KeyVersion};

use super::proxy::{Loss, Operation, Proxy};
use super::server::{ZooKeeperServer, address, free_port};
use super::{brief_session, session};
use crate::conformance::{PATIENCE, TestSession, hear, until};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(work)
}

fn is_unknown<T>(outcome: &Result<T, CoordinationError>) -> bool {
    matches!(outcome, Err(CoordinationError::Unknown { .. }))
}

async fn version(session: &TestSession, path: &str) -> Option<KeyVersion> {
    session.client.get(path).await.expect("read").map(|found| found.version)
}

/// Cause: a connection that breaks between a change and its reply. Effect, if taken for a failure: the change is made twice,
/// or somebody acts as if it were not made.
#[test]
fn a_change_without_a_reply_is_unknown_whether_it_happened_or_not() {
    let server = ZooKeeperServer::shared();
    let proxy = Proxy::before(server.port());
    let (mine, other) = (session(&address(proxy.port(), "/replies")), session(&server.address("/replies")));
    block_on(async {
        let (_, first) = other.client.create("/k", &1, KeyLife::Persistent).await.expect("a free path");

        proxy.lose(Loss::Reply(Operation::SetData));
        let outcome = mine.client.compare_and_set("/k", &2, first).await;
        assert!(is_unknown(&outcome) && proxy.has_lost(), "{outcome:?}");
        let (value, second) = mine.client.read::<i32>("/k").await.expect("contact again").expect("it is there");
        assert_eq!(value, 2, "it happened");

        proxy.lose(Loss::Request(Operation::SetData));
        let outcome = mine.client.compare_and_set("/k", &3, second).await;
        assert!(is_unknown(&outcome) && proxy.has_lost(), "{outcome:?}");
        assert_eq!(mine.client.read::<i32>("/k").await, Ok(Some((2, second))), "it did not happen");

        proxy.lose(Loss::Reply(Operation::Delete));
        let outcome = mine.client.delete("/k", second).await;
        assert!(is_unknown(&outcome) && proxy.has_lost(), "{outcome:?}");
        assert_eq!(mine.client.get("/k").await, Ok(None), "it happened");

        proxy.lose(Loss::Reply(Operation::Create2));
        let outcome = mine.client.create("/k", &4, KeyLife::Persistent).await;
        assert!(is_unknown(&outcome) && proxy.has_lost(), "{outcome:?}");
        assert_eq!(other.client.read::<i32>("/k").await.expect("read").map(|(value, _)| value), Some(4));

        // Making the parents may be done twice, so this loss is nobody's business.
        proxy.lose(Loss::Reply(Operation::Create));
        mine.client.create("/a/b/c", &5, KeyLife::Persistent).await.expect("a free path");
        assert!(proxy.has_lost());
    });
}

/// Cause: as above. Effect, if not recognised: a broker that takes its own registration for another's, a gateway that stands
/// for election twice.
#[test]
fn an_ephemeral_created_without_a_reply_is_known_by_its_owner() {
    let server = ZooKeeperServer::shared();
    let proxy = Proxy::before(server.port());
    let (mine, other) = (session(&address(proxy.port(), "/owners")), session(&server.address("/owners")));
    block_on(async {
        // With the parents in place the first question is the one that creates.
        for parent in ["/brokers", "/gateways"] {
            other.client.create(parent, &0, KeyLife::Persistent).await.expect("a free path");
        }
        for loss in [Loss::Reply(Operation::Create2), Loss::Request(Operation::Create2)] {
            proxy.lose(loss);
            let made = mine.client.create("/brokers/1", &1, KeyLife::Ephemeral).await;
            assert!(proxy.has_lost());
            let (_, made) = made.expect("it is ours");
            assert_eq!(version(&other, "/brokers/1").await, Some(made));
            mine.client.delete("/brokers/1", made).await.expect("the version just told");
        }
        other.client.create("/brokers/1", &1, KeyLife::Ephemeral).await.expect("free again");
        proxy.lose(Loss::Reply(Operation::Create2));
        let refused = mine.client.create("/brokers/1", &1, KeyLife::Ephemeral).await;
        assert_eq!(refused, Err(CoordinationError::Exists { path: "/brokers/1".into() }), "another's, with our value");

        for (count, loss) in [(1, Loss::Reply(Operation::Create2)), (2, Loss::Request(Operation::Create2))] {
            proxy.lose(loss);
            let made = mine.client.create("/gateways/gateway-", &1, KeyLife::EphemeralSequential).await;
            assert!(proxy.has_lost());
            let (path, _) = made.expect("always another");
            let names = other.client.children("/gateways").await.expect("children");
            assert_eq!(names.len(), count, "one each: {names:?}");
            assert_eq!(path, format!("/gateways/{}", names[count - 1]));
        }
        assert!(other.client.children("/").await.expect("children").iter().all(|name| !name.starts_with("session-")));
    });
}

/// A cut shorter than the time-out: the session goes on, its ephemerals stay, and whoever watches reads what it missed.
#[test]
fn a_short_cut_keeps_the_session_and_hides_no_change() {
    let server = ZooKeeperServer::shared();
    let proxy = Proxy::before(server.port());
    let (mine, other) = (session(&address(proxy.port(), "/cuts")), session(&server.address("/cuts")));
    block_on(async {
        let mut events = mine.watch("/rings").await;
        mine.client.create("/rings/alive", &0, KeyLife::Ephemeral).await.expect("a free path");
        let alive = version(&other, "/rings/alive").await;
        let (_, mut at) = other.client.create("/rings/0", &0, KeyLife::Persistent).await.expect("a free path");
        let changed = CoordinatorEvent::Changed { path: "/rings/0".into() };
        hear(&mut events, |event| *event == changed).await;
        for round in 1..=3 {
            proxy.cut();
            let heard = hear(&mut events, |event| *event == CoordinatorEvent::SessionSuspended).await;
            assert!(!heard.contains(&CoordinatorEvent::SessionExpired), "{heard:?}");
            at = other.client.compare_and_set("/rings/0", &round, at).await.expect("nobody else writes");
            proxy.mend();
            let gap = CoordinatorEvent::Changed { path: "/rings".into() };
            let heard = hear(&mut events, |event| *event == gap).await;
            assert!(!heard.contains(&CoordinatorEvent::SessionStarted), "{heard:?}");
            assert_eq!(mine.client.read::<i32>("/rings/0").await, Ok(Some((round, at))));
            at = other.client.compare_and_set("/rings/0", &-round, at).await.expect("nobody else writes");
            hear(&mut events, |event| *event == changed).await;
        }
        assert_eq!(version(&other, "/rings/alive").await, alive, "it never went");
    });
}

/// A cut longer than the time-out: the server ends the session, and everybody hears of it.
#[test]
fn a_session_that_expired_at_the_server_is_told_and_followed_by_another() {
    let server = ZooKeeperServer::shared();
    let proxy = Proxy::before(server.port());
    let (mine, other) = (brief_session(&address(proxy.port(), "/expiry")), session(&server.address("/expiry")));
    block_on(async {
        let mut events = mine.watch("/brokers").await;
        let mut others_events = other.watch("/brokers").await;
        let _kept = Registration::keep(&mine.session, "/brokers/1", b"1".to_vec());
        mine.client.create("/brokers/lost", &0, KeyLife::Ephemeral).await.expect("a free path");
        until("the registration", || async { version(&other, "/brokers/1").await.is_some() }).await;
        let first = version(&other, "/brokers/1").await;

        proxy.cut();
        hear(&mut others_events, |event| *event == CoordinatorEvent::Changed { path: "/brokers/lost".into() }).await;
        until("the server to end the session", || async {
            version(&other, "/brokers/lost").await.is_none() && version(&other, "/brokers/1").await.is_none()
        })
        .await;
        proxy.mend();

        let heard = hear(&mut events, |event| *event == CoordinatorEvent::SessionStarted).await;
        assert!(heard.contains(&CoordinatorEvent::SessionExpired), "{heard:?}");
        until("the next registration", || async { version(&other, "/brokers/1").await.is_some() }).await;
        assert_ne!(version(&other, "/brokers/1").await, first);
        assert_eq!(version(&mine, "/brokers/lost").await, None, "nobody kept it");
    });
}

/// Cause: the library does not compare the number of a reply with its request's, and bytes of an earlier connection can pass
/// as the first of the next. Effect: each request gets the reply of the one before. Fix: a greeting that notices.
#[test]
fn replies_that_do_not_fit_their_requests_end_the_session() {
    let server = ZooKeeperServer::shared();
    let proxy = Proxy::before(server.port());
    let mine = session(&address(proxy.port(), "/misaligned"));
    block_on(async {
        let (_, at) = mine.client.create("/k", &1, KeyLife::Persistent).await.expect("a free path");
        mine.client.create("/alive", &1, KeyLife::Ephemeral).await.expect("a free path");
        let mut events = mine.watch("/").await;
        proxy.misalign();
        proxy.cut();
        proxy.mend();
        let heard = hear(&mut events, |event| *event == CoordinatorEvent::SessionStarted).await;
        assert!(heard.contains(&CoordinatorEvent::SessionExpired), "{heard:?}");
        // The server still takes the old session for alive.
        assert_eq!(mine.client.get("/alive").await, Ok(None), "what the old session left is gone");
        assert_eq!(mine.client.read::<i32>("/k").await, Ok(Some((1, at))));
        let at = mine.client.compare_and_set("/k", &2, at).await.expect("nobody else writes");
        assert_eq!(mine.client.read::<i32>("/k").await, Ok(Some((2, at))));
    });
}

/// A server that freezes and goes on, several times past the session time-out.
#[test]
fn a_paused_server_costs_the_session_and_no_more() {
    let server = ZooKeeperServer::start(&[]);
    let (mine, other) = (brief_session(&server.address("/pause")), brief_session(&server.address("/pause")));
    block_on(async {
        let mut events = mine.watch("/brokers").await;
        let _kept = Registration::keep(&mine.session, "/brokers/1", b"1".to_vec());
        until("the registration", || async { version(&other, "/brokers/1").await.is_some() }).await;
        let first = version(&other, "/brokers/1").await.expect("just seen");
        let (_, kept) = mine.client.create("/kept", &1, KeyLife::Persistent).await.expect("a free path");

        server.pause();
        // Its version is looked up first, and already that is not answered.
        let unanswered = mine.client.compare_and_set("/kept", &2, kept).await;
        assert!(matches!(unanswered, Err(CoordinationError::Unavailable { .. })), "{unanswered:?}");
        let unanswered = mine.client.create("/new", &2, KeyLife::Persistent).await;
        assert!(matches!(unanswered, Err(CoordinationError::Unavailable { .. })), "{unanswered:?}");
        hear(&mut events, |event| *event == CoordinatorEvent::SessionExpired).await;
        let refused = mine.client.get("/kept").await;
        assert!(matches!(refused, Err(CoordinationError::Unavailable { .. })), "{refused:?}");
        server.resume();

        hear(&mut events, |event| *event == CoordinatorEvent::SessionStarted).await;
        let there =
            async || mine.client.get("/brokers/1").await.is_ok_and(|key| key.is_some_and(|key| key.version > first));
        until("the next registration", there).await;
        assert_eq!(mine.client.read::<i32>("/kept").await, Ok(Some((1, kept))), "unavailable: it did not happen");
        mine.client.compare_and_set("/kept", &3, kept).await.expect("nobody else writes");
    });
}

/// A server that is killed and comes back with its data: so does the session.
#[test]
fn a_restarted_server_keeps_what_was_answered_and_the_sessions() {
    let server = ZooKeeperServer::start(&[]);
    let mine = session(&server.address("/restart"));
    block_on(async {
        let mut events = mine.watch("/").await;
        let (_, alive) = mine.client.create("/brokers/1", &1, KeyLife::Ephemeral).await.expect("a free path");
        let (_, kept) = mine.client.create("/kept", &1, KeyLife::Persistent).await.expect("a free path");
        let kept = mine.client.compare_and_set("/kept", &2, kept).await.expect("nobody else writes");
        server.kill();
        hear(&mut events, |event| *event == CoordinatorEvent::SessionSuspended).await;
        server.restart();
        let gap = CoordinatorEvent::Changed { path: "/".into() };
        let heard = hear(&mut events, |event| *event == gap).await;
        assert!(!heard.contains(&CoordinatorEvent::SessionExpired), "{heard:?}");
        assert_eq!(mine.client.read::<i32>("/kept").await, Ok(Some((2, kept))));
        assert_eq!(version(&mine, "/brokers/1").await, Some(alive));
        let next = mine.client.compare_and_set("/kept", &3, kept).await.expect("nobody else writes");
        assert!(next > kept);
    });
}

#[test]
fn without_a_server_requests_are_refused_with_the_reason() {
    let nobody = free_port();
    let session = brief_session(&address(nobody, "/nobody"));
    block_on(async {
        let asked = Instant::now();
        let Err(CoordinationError::Unavailable { reason }) = session.client.get("/k").await else {
            panic!("there is nobody to answer")
        };
        assert!(asked.elapsed() < SESSION_TIMEOUT_MIN + PATIENCE, "after {:?}", asked.elapsed());
        assert!(reason.contains(&format!("zk://127.0.0.1:{nobody}/nobody")) && reason.contains("refused"), "{reason}");
    });
    session.client.close();
}

/// A server that takes less than the default: the error names the setting.
#[test]
fn a_server_with_a_small_packet_limit_is_named() {
    let server = ZooKeeperServer::start(&["-Djute.maxbuffer=100000"]);
    let mine = session(&server.address("/small"));
    block_on(async {
        let (_, at) = mine.client.create("/k", &"small", KeyLife::Persistent).await.expect("a free path");
        let large = "x".repeat(200_000);
        let Err(CoordinationError::Unknown { reason }) = mine.client.compare_and_set("/k", &large, at).await else {
            panic!("the server closes the connection")
        };
        assert!(reason.contains("jute.maxbuffer") && reason.contains("200002"), "{reason}");
        let in_time = tokio::time::timeout(PATIENCE, mine.client.read::<String>("/k")).await.expect("contact again");
        assert_eq!(in_time, Ok(Some(("small".to_owned(), at))));
    });
}
