//! Requests in good order that cannot be served: each is answered with its code of the table, and the connection goes on
//! exactly where the protocol says so.

use minikafka_client::core::topic::TopicConfig;
use minikafka_client::core::wire::frame::{Envelope, encode_frame};
use minikafka_client::core::wire::{
    Api, CreateTopicRequest, DeleteRecordsReply, DeleteRecordsRequest, DeleteTopicRequest, FetchPartition, FetchReply,
    FetchRequest, Hello, ListOffsetsPartition, ListOffsetsReply, ListOffsetsRequest, OffsetQuery, PROTOCOL_MAX,
    ProduceRequest, Proof, ResolveReply, ResolveRequest, Role, Wire,
};
use minikafka_client::core::{
    ClusterId, Epoch, ErrorCode, Offset, Partition, PartitionKey, RangeId, RangeKey, RingId, TopicId, limits,
};
use minikafka_tests::raw::{RawClient, frame, frame_with, hello};

use super::scene::{Scene, TARGET, Target, produce};

const EPOCH_OFF: [i64; 2] = [-1, 1];

/// A frame of any api and version.
fn any(api: u16, version: u8, head: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, Envelope { api, version, ..Envelope::request(Api::Hello, 3) }, head, 0);
    out
}

fn epoch_off_by(epoch: Epoch, off: i64) -> Epoch {
    Epoch(epoch.0.checked_add_signed(off).expect("an active range has an epoch"))
}

#[test]
fn openings_that_are_refused() {
    let mut scene = Scene::start();
    let wrong_cluster = Hello { cluster: ClusterId(1), ..hello(Role::Client) };
    let too_new = Hello { protocol_min: PROTOCOL_MAX + 1, protocol_max: PROTOCOL_MAX + 9, ..hello(Role::Client) };
    let too_old = Hello { protocol_min: 0, protocol_max: 0, ..hello(Role::Client) };
    let mut unknown_role = hello(Role::Client).to_bytes();
    unknown_role[4] = 3;
    for (is_gateway, address) in scene.ports() {
        for (what, head, version, code) in [
            ("another cluster", wrong_cluster.to_bytes(), 1, ErrorCode::WrongCluster),
            ("a newer protocol", too_new.to_bytes(), 1, ErrorCode::UnsupportedVersion),
            ("an older protocol", too_old.to_bytes(), 1, ErrorCode::UnsupportedVersion),
            ("another version of the message", hello(Role::Client).to_bytes(), 2, ErrorCode::UnsupportedVersion),
            ("no known role", unknown_role.clone(), 1, ErrorCode::MalformedFrame),
        ] {
            let mut client = RawClient::connect(&address);
            client.send(&any(Api::Hello as u16, version, &head));
            client.is_refused(code, &format!("{what}, gateway: {is_gateway}"));
        }
        let mut client = RawClient::greeted(&address);
        client.send(&frame(Api::Hello, 3, &hello(Role::Client)));
        client.is_refused(ErrorCode::MalformedFrame, "a second hello");
    }
    scene.undisturbed();
    scene.finish();
}

#[test]
fn what_needs_the_cluster_secret() {
    let mut scene = Scene::start();
    let guess = Proof { hmac: [0; 32] };
    for (is_gateway, address) in scene.ports() {
        let mut client = RawClient::greeted(&address);
        for api in [Api::Seal, Api::Reconcile, Api::Activate, Api::AppendControl] {
            let what = format!("{api:?}, gateway: {is_gateway}");
            client.ask(&frame_with(api, 3, &[0; 64], &[])).is_error(ErrorCode::NotAuthorized, &what);
        }
        for role in [Role::Peer, Role::Controller] {
            let mut client = RawClient::connect(&address);
            client.hello(role);
            client.send(&frame(Api::Prove, 2, &guess));
            client.is_refused(ErrorCode::NotAuthorized, &format!("a guessed proof as {role:?}, gateway: {is_gateway}"));
        }
    }
    let (_, shard) = &scene.ports()[0];
    let mut client = RawClient::greeted(shard);
    client.send(&frame(Api::Prove, 2, &guess));
    client.is_refused(ErrorCode::NotAuthorized, "a client that proves");
    // Whoever only says that it is a controller is none.
    let mut client = RawClient::connect(shard);
    client.hello(Role::Controller);
    client.ask(&frame_with(Api::Seal, 3, &[0; 64], &[])).is_error(ErrorCode::NotAuthorized, "a seal without proof");
    scene.undisturbed();
    scene.finish();
}

#[test]
fn apis_that_are_not_here() {
    let mut scene = Scene::start();
    for (is_gateway, address) in scene.ports() {
        let (here, there): (u16, &[u16]) =
            if is_gateway { (20, &[10, 11, 12, 13, 14, 19]) } else { (12, &[20, 21, 22, 23]) };
        let mut client = RawClient::greeted(&address);
        for api in [0, 3, 9, 24, 39, 48, u16::MAX] {
            client.ask(&any(api, 1, &[])).is_error(ErrorCode::UnknownApi, &format!("api {api}"));
        }
        for version in [0, 2, 255] {
            client.ask(&any(here, version, &[])).is_error(ErrorCode::UnsupportedVersion, &format!("version {version}"));
        }
        for &api in there {
            client.ask(&any(api, 1, &[])).is_error(ErrorCode::Misdirected, &format!("api {api}"));
        }
    }
    scene.undisturbed();
    scene.finish();
}

/// Ranges, epochs, topics and partitions that are not what the shard has, and the code that says so.
fn misaddressed(scene: &Scene) -> Vec<(String, Target, ErrorCode)> {
    let good = scene.targets[0].clone();
    let mut cases: Vec<_> = EPOCH_OFF
        .into_iter()
        .map(|off| {
            let epoch = epoch_off_by(good.epoch, off);
            (format!("epoch off by {off}"), Target { epoch, ..good.clone() }, ErrorCode::Stale)
        })
        .collect();
    let other_shard = scene.node.shards().iter().find(|shard| **shard != good.address).expect("two shards");
    let another = |range: RangeKey| Target { range, ..good.clone() };
    let topic = TopicId(good.partition.topic.0 ^ 1);
    let ring = good.range.ring;
    cases.extend([
        ("another shard's range".into(), Target { address: other_shard.clone(), ..good.clone() }, ErrorCode::NotOwner),
        ("no such range".into(), another(RangeKey { ring, range: RangeId(u32::MAX) }), ErrorCode::NotOwner),
        ("no such ring".into(), another(RangeKey { ring: RingId(u16::MAX), range: RangeId(0) }), ErrorCode::NotOwner),
        (
            "no such topic".into(),
            Target { partition: PartitionKey { topic, ..good.partition }, ..good.clone() },
            ErrorCode::PartitionNotReady,
        ),
        (
            "no such partition".into(),
            Target { partition: PartitionKey { partition: Partition(u32::MAX), ..good.partition }, ..good.clone() },
            ErrorCode::PartitionNotReady,
        ),
    ]);
    cases
}

#[test]
fn data_for_the_wrong_place() {
    let mut scene = Scene::start();
    for (what, target, code) in misaddressed(&scene) {
        let mut client = RawClient::greeted(&target.address);
        let (request, body) = target.batch(&[b"nowhere"]);
        client.ask(&produce(&request, &body)).is_error(code, &what);

        let request = FetchRequest { wait_ms_max: 5_000, bytes_min: 1, bytes_max: 1, partitions: vec![target.fetch()] };
        let fetched: FetchReply = client.ask(&frame(Api::Fetch, 3, &request)).good();
        assert_eq!((fetched.partitions[0].error, fetched.partitions[0].entries_bytes), (Some(code), 0), "{what}");

        let request = ListOffsetsRequest { partitions: vec![target.latest()] };
        let listed: ListOffsetsReply = client.ask(&frame(Api::ListOffsets, 3, &request)).good();
        assert_eq!(listed.partitions[0].error, Some(code), "{what}");
        let request = DeleteRecordsRequest { partitions: vec![target.deletion()] };
        let deleted: DeleteRecordsReply = client.ask(&frame(Api::DeleteRecords, 4, &request)).good();
        assert_eq!(deleted.partitions[0].error, Some(code), "{what}");
        if code == ErrorCode::Stale {
            assert_eq!(listed.partitions[0].epoch, scene.targets[0].epoch, "{what}: the epoch to refresh to");
        }
    }
    scene.undisturbed();
    scene.finish();
}

#[test]
fn fetches_that_cannot_be() {
    let mut scene = Scene::start();
    let target = scene.targets[0].clone();
    let mut client = RawClient::greeted(&target.address);
    let ask = |partitions: Vec<FetchPartition>| {
        frame(Api::Fetch, 3, &FetchRequest { wait_ms_max: u32::MAX, bytes_min: 0, bytes_max: u32::MAX, partitions })
    };
    for offset in [1, 1 << 40, i64::MAX as u64, u64::MAX] {
        let wanted = FetchPartition { offset: Offset(offset), bytes_max: u32::MAX, ..target.fetch() };
        let fetched: FetchReply = client.ask(&ask(vec![wanted])).good();
        let [partition] = &fetched.partitions[..] else { panic!("{fetched:?}") };
        assert_eq!(partition.error, Some(ErrorCode::OffsetOutOfRange), "offset {offset}");
        assert_eq!((partition.log_start, partition.committed_end), (Offset(0), Offset(0)), "offset {offset}");
    }
    let many = limits::REQUEST_PARTITIONS_MAX as usize + 1;
    client.ask(&ask(vec![target.fetch(); many])).is_error(ErrorCode::InvalidArgument, "a fetch of too many partitions");
    let partitions = vec![target.latest(); many];
    client
        .ask(&frame(Api::ListOffsets, 3, &ListOffsetsRequest { partitions }))
        .is_error(ErrorCode::InvalidArgument, "offsets of too many partitions");
    let partitions = vec![target.deletion(); many];
    client
        .ask(&frame(Api::DeleteRecords, 3, &DeleteRecordsRequest { partitions }))
        .is_error(ErrorCode::InvalidArgument, "deletions of too many partitions");
    // As many as are allowed, all the same one, is silly and works.
    let fetched: FetchReply = client.ask(&ask(vec![target.fetch(); 1_000])).good();
    assert!(fetched.partitions.iter().all(|partition| partition.error.is_none()));
    for query in [i64::MIN, -1, i64::MAX] {
        let query = OffsetQuery::AppendedAtOrAfter(query.into());
        let request = ListOffsetsRequest { partitions: vec![ListOffsetsPartition { query, ..target.latest() }] };
        let listed: ListOffsetsReply = client.ask(&frame(Api::ListOffsets, 3, &request)).good();
        assert_eq!((listed.partitions[0].error, listed.partitions[0].offset), (None, Offset(0)), "{query:?}");
    }
    let (mut request, body) = target.batch(&[b"v"]);
    request.timeout_ms = 0;
    let mut head = ProduceRequest::to_bytes(&request);
    head[12] = 1;
    client.send(&frame_with(Api::Produce, 3, &head, &body));
    client.is_refused(ErrorCode::MalformedFrame, "reserved bits of a produce request");
    scene.undisturbed();
    scene.finish();
}

#[test]
fn topics_that_cannot_be() {
    let mut scene = Scene::start();
    let mut client = RawClient::greeted(scene.node.gateway());
    let create = |name: &str, partitions, replication, batch_bytes_max| {
        let config = TopicConfig { batch_bytes_max, ..TopicConfig::default() };
        let request = CreateTopicRequest { name: name.to_owned(), partitions, replication, config, timeout_ms: 5_000 };
        frame(Api::CreateTopic, 3, &request)
    };
    let longest = "x".repeat(limits::TOPIC_NAME_BYTES_MAX + 1);
    for name in ["", ".", "..", "a/b", "a b", "é", "a\0b", "../../etc/passwd", &longest] {
        let code = ErrorCode::InvalidTopicName;
        client.ask(&create(name, 1, 1, 1 << 20)).is_error(code, &format!("creating {name:?}"));
        let delete = DeleteTopicRequest { name: name.to_owned(), timeout_ms: 0 };
        client.ask(&frame(Api::DeleteTopic, 3, &delete)).is_error(code, &format!("deleting {name:?}"));
        let (topics, request) = (vec![name.to_owned()], |topics| ResolveRequest {
            topics,
            all_topics: false,
            with_rings: false,
            create_missing: true,
        });
        let resolved: ResolveReply = client.ask(&frame(Api::Resolve, 3, &request(topics))).good();
        assert_eq!(resolved.topics[0].error, Some(code), "resolving {name:?}");
    }
    for (what, request) in [
        ("too many partitions", create("t", limits::TOPIC_PARTITIONS_MAX + 1, 1, 1 << 20)),
        ("partitions without end", create("t", u32::MAX, 1, 1 << 20)),
        ("more nodes than there are", create("t", 1, 3, 1 << 20)),
        ("a chain too long", create("t", 1, u16::MAX, 1 << 20)),
        ("no batch allowed", create("t", 1, 1, 0)),
        ("batches over the limit", create("t", 1, 1, u32::MAX)),
    ] {
        client.ask(&request).is_error(ErrorCode::InvalidArgument, what);
    }
    client.ask(&create(TARGET, 9, 1, 1 << 20)).is_error(ErrorCode::TopicExists, "a topic that is there");
    let delete = DeleteTopicRequest { name: "nowhere".to_owned(), timeout_ms: 0 };
    client.ask(&frame(Api::DeleteTopic, 3, &delete)).is_error(ErrorCode::UnknownTopic, "a topic that is not there");
    scene.undisturbed();
    scene.finish();
}
