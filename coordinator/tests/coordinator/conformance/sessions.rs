//! Ephemeral keys, watches, and the life of sessions.

use minikafka_core::coordination::{CoordinationError, CoordinatorEvent, KeyLife};

use super::{SessionFactory, hear, until};

fn changed(path: &str) -> impl Fn(&CoordinatorEvent) -> bool {
    let event = CoordinatorEvent::Changed { path: path.to_owned() };
    move |other| *other == event
}

pub async fn ephemerals_go_with_their_session(open: SessionFactory) {
    let (mine, other) = (open(), open());
    mine.client.create("/brokers/1", &1, KeyLife::Ephemeral).await.expect("a free path");
    other.client.create("/brokers/2", &2, KeyLife::Ephemeral).await.expect("a free path");
    mine.client.create("/kept", &3, KeyLife::Persistent).await.expect("a free path");
    assert_eq!(other.client.read::<i32>("/brokers/1").await.expect("read").map(|(value, _)| value), Some(1));
    let taken = other.client.create("/brokers/1", &9, KeyLife::Ephemeral).await;
    assert_eq!(taken, Err(CoordinationError::Exists { path: "/brokers/1".into() }));
    mine.client.close();
    until("the ephemeral to go", || async { other.client.get("/brokers/1").await == Ok(None) }).await;
    assert!(other.client.get("/brokers/2").await.expect("read").is_some());
    assert!(other.client.get("/kept").await.expect("read").is_some());
    other.client.create("/brokers/1", &9, KeyLife::Ephemeral).await.expect("free again");
}

pub async fn sequential_keys_are_ordered_by_creation(open: SessionFactory) {
    let sessions = [open(), open(), open()];
    let mut created = Vec::new();
    for n in 0..12 {
        let client = &sessions[n % 3].client;
        let made = client.create("/gateways/gateway-", &n, KeyLife::EphemeralSequential).await;
        created.push(made.expect("always another").0);
    }
    let mut sorted = created.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, created, "names grow with each creation");
    sessions[0].client.close();
    until("a third to go", || async { sessions[1].client.children("/gateways").await.expect("children").len() == 8 })
        .await;
    let left = sessions[1].client.children("/gateways").await.expect("children");
    assert_eq!(format!("/gateways/{}", left[0]), created[1]);
}

pub async fn watches_tell_of_every_last_change(open: SessionFactory) {
    let (mine, other) = (open(), open());
    let mut events = mine.watch("/rings").await;
    let (_, mut version) = other.client.create("/rings/1/0", &0, KeyLife::Persistent).await.expect("a free path");
    hear(&mut events, changed("/rings/1/0")).await;
    for value in 1..=100 {
        version = other.client.compare_and_set("/rings/1/0", &value, version).await.expect("nobody else writes");
    }
    // Events may be fewer than changes, but after the last one the last value can be read.
    let mut seen = 0;
    while seen < 100 {
        hear(&mut events, changed("/rings/1/0")).await;
        seen = mine.client.read::<i32>("/rings/1/0").await.expect("read").expect("it is there").0;
    }
    other.client.delete("/rings/1/0", version).await.expect("nobody else writes");
    hear(&mut events, changed("/rings/1/0")).await;
    other.client.create("/rings/e", &0, KeyLife::Ephemeral).await.expect("a free path");
    hear(&mut events, changed("/rings/e")).await;
    other.client.close();
    hear(&mut events, changed("/rings/e")).await;
    assert_eq!(mine.client.get("/rings/e").await, Ok(None));
}

pub async fn watches_end_at_names(open: SessionFactory) {
    let (mine, other) = (open(), open());
    let mut events = mine.watch("/topics").await;
    for path in ["/topics-of-others", "/other/topics", "/topics/1"] {
        other.client.create(path, &0, KeyLife::Persistent).await.expect("a free path");
    }
    let heard = hear(&mut events, changed("/topics/1")).await;
    let is_ours = |event: &CoordinatorEvent| match event {
        CoordinatorEvent::Changed { path } => path == "/topics" || path.starts_with("/topics/"),
        _ => true,
    };
    assert!(heard.iter().all(is_ours), "{heard:?}");
}

/// Trees that grow, keys that come back, a prefix that goes: the last change of each is told.
pub async fn watches_reach_what_is_created_later(open: SessionFactory) {
    let (mine, other) = (open(), open());
    let mut events = mine.watch("/rings").await;
    for round in 0..3 {
        let create = async |path| other.client.create(path, &round, KeyLife::Persistent).await.expect("a free path").1;
        let first = create("/rings/3/0").await;
        hear(&mut events, changed("/rings/3/0")).await;
        let second = create("/rings/3/1").await;
        hear(&mut events, changed("/rings/3/1")).await;
        let first = other.client.compare_and_set("/rings/3/0", &9, first).await.expect("nobody else writes");
        hear(&mut events, changed("/rings/3/0")).await;
        other.client.delete("/rings/3/0", first).await.expect("nobody else writes");
        hear(&mut events, changed("/rings/3/0")).await;
        other.client.delete("/rings/3/1", second).await.expect("nobody else writes");
        hear(&mut events, changed("/rings/3/1")).await;
        for parent in ["/rings/3", "/rings"] {
            let version = other.client.get(parent).await.expect("read").expect("it is there").version;
            other.client.delete(parent, version).await.expect("it has no children left");
            hear(&mut events, changed(parent)).await;
        }
    }
}

pub async fn a_lost_session_loses_its_ephemerals_and_goes_on(open: SessionFactory) {
    let (mine, other) = (open(), open());
    let mut events = mine.watch("/brokers").await;
    let mut others_events = other.watch("/brokers").await;
    mine.client.create("/brokers/1", &1, KeyLife::Ephemeral).await.expect("a free path");
    mine.client.create("/kept", &1, KeyLife::Persistent).await.expect("a free path");
    hear(&mut others_events, changed("/brokers/1")).await;
    (mine.lose)();
    let heard = hear(&mut events, |event| *event == CoordinatorEvent::SessionStarted).await;
    let at = |wanted| heard.iter().position(|event| *event == wanted);
    assert!(at(CoordinatorEvent::SessionExpired) < at(CoordinatorEvent::SessionStarted), "{heard:?}");
    assert!(at(CoordinatorEvent::SessionExpired).is_some(), "{heard:?}");
    hear(&mut others_events, changed("/brokers/1")).await;
    assert_eq!(other.client.get("/brokers/1").await, Ok(None));
    assert!(mine.client.get("/kept").await.expect("the next session works").is_some());
    mine.client.create("/brokers/1", &2, KeyLife::Ephemeral).await.expect("registering again");
    hear(&mut events, changed("/brokers/1")).await;
    mine.client.close();
    until("the ephemeral of the second session to go", || async { other.client.get("/brokers/1").await == Ok(None) })
        .await;
}

pub async fn a_closed_session_is_over(open: SessionFactory) {
    let (mine, other) = (open(), open());
    mine.client.close();
    let refused = mine.client.create("/k", &0, KeyLife::Ephemeral).await;
    assert!(matches!(refused, Err(CoordinationError::Unavailable { .. })), "{refused:?}");
    other.client.create("/k", &0, KeyLife::Ephemeral).await.expect("other sessions go on");
}
