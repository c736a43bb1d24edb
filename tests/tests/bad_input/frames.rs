//! Bytes that are no frames, or not all of one, or not the message of their api.

use minikafka_client::core::ErrorCode;
use minikafka_client::core::wire::frame::{Envelope, encode_frame};
use minikafka_client::core::wire::{
    Api, DeleteRecordsRequest, FRAME_HEADER_BYTES, FetchRequest, ListOffsetsReply, ListOffsetsRequest, ResolveRequest,
    Role, Wire,
};
use minikafka_tests::raw::{RawClient, forge, frame, frame_with, hello};
use rand::seq::IteratorRandom;
use rand::{Rng, RngCore};

use super::scene::{Scene, produce};

/// How many of all places are tried in one run; which ones is up to the seed.
const CUTS: usize = 60;
const BITS: usize = 250;
const NOISES: u64 = 60;

fn resolve(topics: &[&str]) -> ResolveRequest {
    let topics = topics.iter().map(|&name| name.to_owned()).collect();
    ResolveRequest { topics, all_topics: false, with_rings: true, create_missing: false }
}

/// A request that a port of this kind serves.
fn served(is_gateway: bool) -> Vec<u8> {
    if is_gateway {
        frame(Api::Resolve, 6, &resolve(&["target"]))
    } else {
        frame(Api::ListOffsets, 6, &ListOffsetsRequest { partitions: Vec::new() })
    }
}

#[test]
fn contradictory_headers() {
    let mut scene = Scene::start();
    let (head_bytes, bulk_bytes) = (4, 8);
    for (is_gateway, address) in scene.ports() {
        for (at, value, code) in [
            (0, &b"HTTP"[..], ErrorCode::MalformedFrame),
            (head_bytes, &1_048_577u32.to_le_bytes(), ErrorCode::FrameTooLarge),
            (head_bytes, &u32::MAX.to_le_bytes(), ErrorCode::FrameTooLarge),
            (head_bytes, &i32::MIN.to_le_bytes(), ErrorCode::FrameTooLarge),
            (bulk_bytes, &4_194_305u32.to_le_bytes(), ErrorCode::FrameTooLarge),
            (bulk_bytes, &u32::MAX.to_le_bytes(), ErrorCode::FrameTooLarge),
            (15, &[2], ErrorCode::MalformedFrame),
            (15, &[1], ErrorCode::MalformedFrame),
            (24, &[1, 0], ErrorCode::MalformedFrame),
            (26, &[0, 1], ErrorCode::MalformedFrame),
        ] {
            let what = format!("field at {at} is {value:?}, gateway: {is_gateway}");
            let mut bad = served(is_gateway);
            let head = bad.len() - FRAME_HEADER_BYTES;
            forge(&mut bad, at, value, head);
            let mut client = RawClient::greeted(&address);
            client.send(&bad);
            let answer = client.is_refused(code, &what);
            assert_eq!(answer.header.correlation, if at == 0 { 0 } else { 6 }, "{what}");

            let mut bad = frame(Api::Hello, 6, &hello(Role::Client));
            let head = bad.len() - FRAME_HEADER_BYTES;
            forge(&mut bad, at, value, head);
            let mut client = RawClient::connect(&address);
            client.send(&bad);
            client.is_refused(code, &format!("hello: {what}"));
        }
    }
    scene.undisturbed();
    scene.finish();
}

#[test]
fn frames_cut_short() {
    let mut scene = Scene::start();
    let mut random = scene.seed.part(1);
    for (is_gateway, address) in scene.ports() {
        let (request, body) = scene.targets[0].batch(&[&[7; 300_000]]);
        let large = produce(&request, &body);
        let whole = served(is_gateway);
        let cuts = (1..whole.len()).choose_multiple(&mut random, CUTS);
        let larger = if is_gateway { Vec::new() } else { (1..large.len()).choose_multiple(&mut random, CUTS / 4) };
        for bytes in cuts.iter().map(|&cut| &whole[..cut]).chain(larger.iter().map(|&cut| &large[..cut])) {
            let mut client = RawClient::greeted(&address);
            client.send(bytes);
            client.finish_sending();
            client.is_ended();
        }
        let greeting = frame(Api::Hello, 1, &hello(Role::Client));
        for cut in (1..greeting.len()).choose_multiple(&mut random, CUTS / 4) {
            let mut client = RawClient::connect(&address);
            client.send(&greeting[..cut]);
            // Neither an end nor more: the client just goes away.
            drop(client);
        }
    }
    scene.undisturbed();
    scene.finish();
}

#[test]
fn flipped_bits() {
    let mut scene = Scene::start();
    let mut random = scene.seed.part(2);
    let (request, body) = scene.targets[0].batch(&[b"a value", b"another"]);
    let produced = produce(&request, &body);
    let body_at = produced.len() - body.len();
    for (is_gateway, address) in scene.ports() {
        let greeting = frame(Api::Hello, 1, &hello(Role::Client));
        for bit in (0..greeting.len() * 8).choose_multiple(&mut random, BITS) {
            let mut client = RawClient::connect(&address);
            refuses_flipped(&mut client, &greeting, bit);
        }
        let good = if is_gateway { served(true) } else { produced.clone() };
        for bit in (0..good.len() * 8).choose_multiple(&mut random, BITS) {
            let mut client = RawClient::greeted(&address);
            if is_gateway || bit / 8 < body_at {
                refuses_flipped(&mut client, &good, bit);
            } else {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                client.ask(&bad).is_error(ErrorCode::CorruptBatch, &format!("bit {bit} of a produce frame"));
                client.ask(&served(false)).good::<ListOffsetsReply>();
            }
        }
    }
    scene.undisturbed();
    scene.finish();
}

fn refuses_flipped(client: &mut RawClient, good: &[u8], bit: usize) {
    let mut bad = good.to_vec();
    bad[bit / 8] ^= 1 << (bit % 8);
    client.send(&bad);
    // A flipped length may make the server wait for bytes that never come.
    client.finish_sending();
    if let Some(answer) = client.receive() {
        let code = answer.error().unwrap_or_else(|| panic!("bit {bit} of {good:?} was served: {answer:?}"));
        // A hello whose api is flipped is no hello.
        let expected = [ErrorCode::MalformedFrame, ErrorCode::FrameTooLarge, ErrorCode::HelloRequired];
        assert!(expected.contains(&code), "bit {bit} of {good:?}: {code}");
        client.is_ended();
    }
}

#[test]
fn noise() {
    let mut scene = Scene::start();
    let mut random = scene.seed.part(3);
    for (_, address) in scene.ports() {
        for number in 0..NOISES {
            let mut noise = vec![0; random.random_range(FRAME_HEADER_BYTES..70_000)];
            random.fill_bytes(&mut noise);
            let mut client = if number % 2 == 0 { RawClient::greeted(&address) } else { RawClient::connect(&address) };
            client.try_send(&noise);
            client.is_refused(ErrorCode::MalformedFrame, "noise");
        }
    }
    scene.undisturbed();
    scene.finish();
}

/// Frames in good order whose heads are noise. Whatever they ask, they are answered, and nothing comes of it.
#[test]
fn noise_in_good_frames() {
    let mut scene = Scene::start();
    let mut random = scene.seed.part(4);
    for (is_gateway, address) in scene.ports() {
        for correlation in 0..NOISES * 5 {
            let api: u16 = match random.random_range(0..14) {
                13 => random.random_range(44..u16::MAX),
                other => [1, 2, 3, 10, 11, 12, 20, 21, 22, 40, 41, 42, 43][other],
            };
            let version = if random.random_ratio(1, 10) { random.random() } else { 1 };
            // Not empty: some messages may well be.
            let mut head = vec![0; random.random_range(5..300)];
            random.fill_bytes(&mut head);
            let mut bytes = Vec::new();
            let envelope = Envelope { api, version, ..Envelope::request(Api::Hello, correlation) };
            encode_frame(&mut bytes, envelope, &head, 0);
            let what = format!("api {api} version {version} head {head:?}, gateway: {is_gateway}");
            let mut client = RawClient::greeted(&address);
            let answer = client.ask(&bytes);
            let code = answer.error().unwrap_or_else(|| panic!("{what} was served: {answer:?}"));
            assert_eq!((answer.header.correlation, answer.header.api), (correlation, api), "{what}");
            assert!(expected(api, version, is_gateway).contains(&code), "{what}: {code}");
        }
    }
    scene.undisturbed();
    scene.finish();
}

/// What a frame of this api, whose head means nothing, may be answered with.
fn expected(api: u16, version: u8, is_gateway: bool) -> Vec<ErrorCode> {
    let mut codes = Vec::new();
    match Api::from_number(api) {
        None => return vec![ErrorCode::UnknownApi],
        // A second hello; a proof that is none, or from a client.
        Some(Api::Hello | Api::Prove) => codes.extend([ErrorCode::MalformedFrame, ErrorCode::NotAuthorized]),
        Some(api) if api.needs_proof() => codes.push(ErrorCode::NotAuthorized),
        Some(api) if (20..40).contains(&(api as u16)) != is_gateway => codes.push(ErrorCode::Misdirected),
        Some(_) => codes.push(ErrorCode::MalformedFrame),
    }
    if version != 1 {
        codes.push(ErrorCode::UnsupportedVersion);
    }
    codes
}

#[test]
fn lists_that_lie_about_their_length() {
    let mut scene = Scene::start();
    let target = &scene.targets[0];
    let fetch = FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: 1, partitions: vec![target.fetch()] };
    let offsets = ListOffsetsRequest { partitions: vec![target.latest()] };
    let deletion = DeleteRecordsRequest { partitions: vec![target.deletion()] };
    let shard = [
        (Api::Fetch, fetch.to_bytes(), 12),
        (Api::ListOffsets, offsets.to_bytes(), 0),
        (Api::DeleteRecords, deletion.to_bytes(), 0),
    ];
    let gateway = [(Api::Resolve, resolve(&["target", "other"]).to_bytes(), 0)];
    for (address, messages) in [(target.address.as_str(), &shard[..]), (scene.node.gateway(), &gateway[..])] {
        for (api, head, count_at) in messages {
            for count in [u32::MAX, i32::MIN as u32, i32::MAX as u32, 1_000_000, 3] {
                let mut head = head.clone();
                head[*count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
                let mut client = RawClient::greeted(address);
                client.send(&frame_with(*api, 1, &head, &[]));
                client.is_refused(ErrorCode::MalformedFrame, &format!("{api:?} with {count} items"));
            }
            let mut client = RawClient::greeted(address);
            client.send(&frame_with(*api, 1, &[&head[..], &[0]].concat(), &[]));
            client.is_refused(ErrorCode::MalformedFrame, &format!("{api:?} with a byte left over"));
        }
    }
    scene.undisturbed();
    scene.finish();
}

#[test]
fn anything_before_hello() {
    let mut scene = Scene::start();
    for (_, address) in scene.ports() {
        for api in [Api::Prove, Api::Produce, Api::Fetch, Api::Resolve, Api::DeleteTopic, Api::Seal] {
            let mut client = RawClient::connect(&address);
            client.send(&frame_with(api, 9, &[1; 40], &[]));
            let answer = client.is_refused(ErrorCode::HelloRequired, &format!("{api:?} before hello"));
            assert_eq!(answer.header.correlation, 9);
        }
    }
    scene.undisturbed();
    scene.finish();
}
