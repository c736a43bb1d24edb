//! Reading, creating, changing, deleting.

use std::sync::{Arc, Mutex};

use minikafka_core::coordination::{CoordinationError, CoordinatorReply, CoordinatorRequest, KeyLife, KeyVersion};
use minikafka_core::limits;

use super::{SessionFactory, until};

pub async fn a_key_lives_through_its_changes(open: SessionFactory) {
    let client = open().client;
    assert_eq!(client.get("/a/b/c").await, Ok(None));
    let (path, first) = client.create("/a/b/c", &1, KeyLife::Persistent).await.expect("a free path");
    assert_eq!(path, "/a/b/c");
    assert_eq!(client.read::<i32>("/a/b/c").await, Ok(Some((1, first))));
    let second = client.compare_and_set("/a/b/c", &2, first).await.expect("the version just read");
    assert_ne!(first, second);
    assert_eq!(client.read::<i32>("/a/b/c").await, Ok(Some((2, second))));
    let third = client.compare_and_set("/a/b/c", &2, second).await.expect("the version just read");
    assert!(third != second && third != first, "a version differs even when the value does not");
    client.delete("/a/b/c", third).await.expect("the version just read");
    assert_eq!(client.get("/a/b/c").await, Ok(None));
    client.create("/a/b/c", &3, KeyLife::Persistent).await.expect("a free path again");
}

pub async fn what_cannot_be_done_is_told_apart(open: SessionFactory) {
    let client = open().client;
    let path = || "/k".to_owned();
    let nowhere = KeyVersion(0);
    let missing = Err(CoordinationError::Missing { path: path() });
    assert_eq!(client.compare_and_set("/k", &0, nowhere).await, missing);
    assert_eq!(client.delete("/k", nowhere).await, Err(CoordinationError::Missing { path: path() }));
    let (_, old) = client.create("/k", &0, KeyLife::Persistent).await.expect("a free path");
    let exists = client.create("/k", &0, KeyLife::Persistent).await;
    assert_eq!(exists, Err(CoordinationError::Exists { path: path() }));
    client.compare_and_set("/k", &1, old).await.expect("the version just read");
    assert_eq!(client.compare_and_set("/k", &2, old).await, Err(CoordinationError::Conflict { path: path() }));
    assert_eq!(client.delete("/k", old).await, Err(CoordinationError::Conflict { path: path() }));
    assert_eq!(client.read::<i32>("/k").await.expect("it is there").expect("it is there").0, 1);
    assert!(matches!(client.read::<String>("/k").await, Err(CoordinationError::Malformed { .. })));
}

pub async fn children_are_direct_and_sorted(open: SessionFactory) {
    let client = open().client;
    assert_eq!(client.children("/parent").await, Ok(Vec::new()));
    for path in ["/parent/b", "/parent/a/deep", "/parent/c", "/parents/x", "/parent/a-b"] {
        client.create(path, &0, KeyLife::Persistent).await.expect("a free path");
    }
    assert_eq!(client.children("/parent").await, Ok(["a", "a-b", "b", "c"].map(str::to_owned).to_vec()));
    assert_eq!(client.children("/parent/a").await, Ok(vec!["deep".to_owned()]));
}

pub async fn a_version_is_of_no_use_after_a_deletion(open: SessionFactory) {
    let client = open().client;
    let (_, old) = client.create("/k", &0, KeyLife::Persistent).await.expect("a free path");
    client.delete("/k", old).await.expect("the version just read");
    let (_, new) = client.create("/k", &0, KeyLife::Persistent).await.expect("free again");
    assert!(new > old, "versions grow across a deletion");
    let conflict = CoordinationError::Conflict { path: "/k".to_owned() };
    assert_eq!(client.compare_and_set("/k", &1, old).await, Err(conflict.clone()));
    assert_eq!(client.delete("/k", old).await, Err(conflict));
    assert_eq!(client.read::<i32>("/k").await, Ok(Some((0, new))));
}

/// Eight sessions count to fifty each on one key, and no step is lost.
pub async fn of_racing_writers_one_wins_each_version(open: SessionFactory) {
    const SESSIONS: usize = 8;
    const STEPS: u64 = 50;
    let first = open();
    first.client.create("/counter", &0u64, KeyLife::Persistent).await.expect("a free path");
    let sessions: Vec<_> = (0..SESSIONS).map(|_| open()).collect();
    let versions = Mutex::new(Vec::new());
    let count = async |client: &minikafka_coordinator::CoordinatorClient| {
        for _ in 0..STEPS {
            loop {
                let (value, version) = client.read::<u64>("/counter").await.expect("read").expect("it is there");
                match client.compare_and_set("/counter", &(value + 1), version).await {
                    Ok(version) => break versions.lock().expect("no panic").push(version),
                    Err(CoordinationError::Conflict { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let [a, b, c, d, e, f, g, h] = &sessions[..] else { unreachable!("there are eight") };
    tokio::join!(
        count(&a.client),
        count(&b.client),
        count(&c.client),
        count(&d.client),
        count(&e.client),
        count(&f.client),
        count(&g.client),
        count(&h.client),
    );
    let (value, _) = first.client.read::<u64>("/counter").await.expect("read").expect("it is there");
    assert_eq!(value, SESSIONS as u64 * STEPS);
    let mut versions = versions.into_inner().expect("no panic");
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), SESSIONS * STEPS as usize, "two changes had one version");
}

pub async fn large_values_come_back_whole(open: SessionFactory) {
    let client = open().client;
    let large: String = (0..900_000u32).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    let (_, version) = client.create("/large", &large, KeyLife::Persistent).await.expect("within the limit");
    assert_eq!(client.read::<String>("/large").await, Ok(Some((large.clone(), version))));
    let too_large = large.repeat(1 + limits::COORDINATOR_VALUE_BYTES_MAX / large.len());
    let refused = client.compare_and_set("/large", &too_large, version).await;
    assert!(matches!(refused, Err(CoordinationError::Malformed { .. })), "{refused:?}");
    assert_eq!(client.read::<String>("/large").await, Ok(Some((large, version))));
}

pub async fn answers_come_in_the_order_of_the_requests(open: SessionFactory) {
    const REQUESTS: usize = 100;
    let opened = open();
    let answers = Arc::new(Mutex::new(Vec::new()));
    for n in 0..REQUESTS {
        let answers = answers.clone();
        let request = match n % 3 {
            0 => CoordinatorRequest::Get { path: "/order".into() },
            1 => CoordinatorRequest::Children { path: "/".into() },
            _ => {
                CoordinatorRequest::Create { path: format!("/order/{n}"), value: Vec::new(), life: KeyLife::Persistent }
            }
        };
        let done = move |outcome: Result<CoordinatorReply, CoordinationError>| {
            assert!(outcome.is_ok(), "{outcome:?}");
            answers.lock().expect("no panic").push(n);
        };
        opened.session.submit(request, Box::new(done));
    }
    until("all answers", || async { answers.lock().expect("no panic").len() == REQUESTS }).await;
    assert!(answers.lock().expect("no panic").is_sorted());
}
