//! Explain: what is told reaches who asked, and nobody asks who cannot tell.

use std::time::{Duration, Instant};

use minikafka_client::core::wire::Api;
use minikafka_client::core::{ErrorCode, Offset, Partition};
use minikafka_client::{Consumer, ConsumerOptions, Delivery, Producer, ProducerOptions, ProducerRecord};

use crate::cluster::server::explanation;
use crate::cluster::{Cluster, Fault, within};

async fn started(explain: bool) -> (Cluster, Producer, Consumer) {
    let cluster = Cluster::start(2).await;
    let (producer, consumer) = started_on(&cluster, explain).await;
    (cluster, producer, consumer)
}

async fn started_on(cluster: &Cluster, explain: bool) -> (Producer, Consumer) {
    cluster.create_topic("orders", 1);
    let client = cluster.client().await;
    let options = ProducerOptions { explain, ..ProducerOptions::default() };
    let producer = client.producer("orders", options).await.expect("a producer");
    let options = ConsumerOptions { explain, ..ConsumerOptions::default() };
    let consumer = client.consumer("orders", options).await.expect("a consumer");
    (producer, consumer)
}

async fn produced(producer: &Producer) -> Delivery {
    let delivery = producer.send(ProducerRecord::value(b"bought").to(Partition(0))).await.expect("accepted");
    within("a delivery", delivery).await.expect("stored")
}

#[tokio::test]
async fn a_delivery_and_a_fetched_batch_say_where_their_time_went() {
    let (_cluster, producer, mut consumer) = started(true).await;
    let began = Instant::now();
    let delivery = produced(&producer).await;
    let explain = delivery.explain.expect("it was asked for");
    assert_eq!((delivery.offset, &explain.hops), (Some(Offset(0)), &explanation().hops));
    assert!(explain.round_trip > Duration::ZERO && explain.round_trip <= began.elapsed());
    assert_eq!(explain.outside(), explain.round_trip.saturating_sub(Duration::from_micros(9)));

    let batch = within("a batch", consumer.next_batch()).await.expect("a batch");
    assert_eq!(batch.explain().expect("it was asked for").hops, explanation().hops);
    produced(&producer).await;
    let record = within("a record", consumer.next()).await.expect("a record");
    assert_eq!(record.offset, Offset(1));
    assert_eq!(consumer.explain().expect("it was asked for").hops, explanation().hops);
}

#[tokio::test]
async fn nobody_asks_unless_told_to_and_nobody_asks_an_older_server() {
    let (cluster, producer, mut consumer) = started(false).await;
    assert_eq!(produced(&producer).await.explain, None);
    assert!(within("a batch", consumer.next_batch()).await.expect("a batch").explain().is_none());
    assert_eq!(cluster.state().explains, 0);

    let older = Cluster::start(2).await;
    older.state().is_older = true;
    let (producer, mut consumer) = started_on(&older, true).await;
    assert_eq!(produced(&producer).await.explain, None);
    assert!(within("a batch", consumer.next_batch()).await.expect("a batch").explain().is_none());
    assert_eq!(older.state().explains, 0, "an older server would close the connection");
}

#[tokio::test]
async fn a_retry_is_explained_and_a_refusal_is_not() {
    let (cluster, producer, _consumer) = started(true).await;
    cluster.script(Api::Produce, [Fault::Refuse(ErrorCode::Overloaded), Fault::DamageHead, Fault::CloseAfter]);
    let delivery = produced(&producer).await;
    // The attempt before was carried out; the one that was answered is the one that is explained.
    assert_eq!(delivery.explain.expect("it was asked for").hops, explanation().hops);
    assert_eq!(cluster.faults_left(Api::Produce), 0);
    assert_eq!(cluster.requests(Api::Produce), 4);
}
