//! What the cluster does with a coordinator: election, registration, topic buckets.

use minikafka_coordinator::{CoordinatorClient, Registration};
use minikafka_core::coordination::{
    CoordinationError, CoordinatorEvent, KeyLife, KeyVersion, TopicBucket, TopicRecord,
};
use minikafka_core::topic::{TopicConfig, TopicState};
use minikafka_core::{ConfigVersion, RingId, TopicId};

use super::{SessionFactory, TestSession, hear, until};

const CANDIDATE: &str = "/gateways/gateway-";

async fn elected(client: &CoordinatorClient) -> Option<u32> {
    let names = client.children("/gateways").await.expect("children");
    client.read(&format!("/gateways/{}", names.first()?)).await.expect("read").map(|(number, _)| number)
}

pub async fn the_lowest_number_is_elected_and_followed(open: SessionFactory) {
    let sessions = [open(), open(), open()];
    for (number, session) in (0u32..).zip(&sessions) {
        session.client.create(CANDIDATE, &number, KeyLife::EphemeralSequential).await.expect("always another");
    }
    let [first, second, third] = &sessions;
    for session in &sessions {
        assert_eq!(elected(&session.client).await, Some(0));
    }
    let (mut firsts, mut seconds) = (first.watch("/gateways").await, second.watch("/gateways").await);
    (first.lose)();
    hear(&mut firsts, |event| *event == CoordinatorEvent::SessionStarted).await;
    hear(&mut seconds, |event| matches!(event, CoordinatorEvent::Changed { .. })).await;
    until("the second to be elected", || async { elected(&second.client).await == Some(1) }).await;
    first.client.create(CANDIDATE, &0, KeyLife::EphemeralSequential).await.expect("always another");
    assert_eq!(elected(&third.client).await, Some(1), "who comes back stands behind the others");
    second.client.close();
    until("the third to be elected", || async { elected(&third.client).await == Some(2) }).await;
    third.client.close();
    until("the first to be elected again", || async { elected(&first.client).await == Some(0) }).await;
}

async fn version(session: &TestSession, path: &str) -> Option<KeyVersion> {
    session.client.get(path).await.expect("read").map(|found| found.version)
}

/// A registration comes back after a lost session and after a deletion, until it is given up.
pub async fn registrations_come_back_until_given_up(open: SessionFactory) {
    const KEY: &str = "/brokers/1";
    let (mine, other) = (open(), open());
    let registration = Registration::keep(&mine.session, KEY, b"1".to_vec());
    until("the registration", || async { version(&other, KEY).await.is_some() }).await;
    let first = version(&other, KEY).await;
    (mine.lose)();
    until("the next registration", || async { version(&other, KEY).await.is_some_and(|found| Some(found) != first) })
        .await;
    let second = version(&other, KEY).await.expect("just seen");
    other.client.delete(KEY, second).await.expect("nobody changes it");
    until("the third registration", || async { version(&other, KEY).await.is_some_and(|found| found != second) }).await;

    drop(registration);
    let mut events = mine.watch("/brokers").await;
    (mine.lose)();
    hear(&mut events, |event| *event == CoordinatorEvent::SessionStarted).await;
    mine.client.create("/after", &0, KeyLife::Persistent).await.expect("a free path");
    assert_eq!(version(&other, KEY).await, None, "given up, and it came back");
}

/// Who registers second waits; who withdraws makes room at once.
pub async fn registrations_take_turns(open: SessionFactory) {
    const KEY: &str = "/brokers/1";
    let (mine, other) = (open(), open());
    let registration = Registration::keep(&mine.session, KEY, b"1".to_vec());
    until("the first", || async { version(&other, KEY).await.is_some() }).await;
    let second = Registration::keep(&other.session, KEY, b"2".to_vec());
    let value = async |session: &TestSession| session.client.get(KEY).await.expect("read").map(|found| found.value);
    assert_eq!(value(&mine).await, Some(b"1".to_vec()));
    registration.withdraw();
    until("the second", || async { value(&mine).await == Some(b"2".to_vec()) }).await;
    // Not one's own: withdrawing leaves it alone.
    Registration::keep(&mine.session, KEY, b"1".to_vec()).withdraw();
    mine.client.create("/after", &0, KeyLife::Persistent).await.expect("a free path");
    assert_eq!(value(&mine).await, Some(b"2".to_vec()));
    second.withdraw();
    until("nobody", || async { value(&mine).await.is_none() }).await;
}

fn topic(number: u64) -> TopicRecord {
    TopicRecord {
        topic: TopicId(number),
        partitions: 64,
        ring: RingId(3),
        state: TopicState::Ready,
        config: TopicConfig::default(),
        config_version: ConfigVersion(1),
        placement: Default::default(),
    }
}

/// Several sessions add topics to one bucket of hundreds of kilobytes, and none is lost.
pub async fn a_large_bucket_keeps_what_racing_sessions_add(open: SessionFactory) {
    const PRESENT: u32 = 2_000;
    const EACH: u32 = 8;
    let sessions: Vec<TestSession> = (0..4).map(|_| open()).collect();
    let mut bucket = TopicBucket::default();
    for number in 0..PRESENT {
        bucket.topics.insert(format!("orders-of-customer-{number}"), topic(number.into()));
    }
    let bytes = serde_json::to_vec(&bucket).expect("JSON").len();
    assert!((300_000..900_000).contains(&bytes), "{bytes} bytes are not what this test is about");
    let client = &sessions[0].client;
    client.create("/topics/7", &bucket, KeyLife::Persistent).await.expect("a free path");
    let add = async |number: u32| {
        let client = &sessions[number as usize % sessions.len()].client;
        for step in 0..EACH {
            loop {
                let (mut bucket, version) =
                    client.read::<TopicBucket>("/topics/7").await.expect("read").expect("it is there");
                bucket.topics.insert(format!("new-{number}-{step}"), topic(1));
                match client.compare_and_set("/topics/7", &bucket, version).await {
                    Ok(_) => break,
                    Err(CoordinationError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    tokio::join!(add(0), add(1), add(2), add(3));
    let (found, _) = client.read::<TopicBucket>("/topics/7").await.expect("read").expect("it is there");
    assert_eq!(found.topics.len() as u32, PRESENT + 4 * EACH);
}
