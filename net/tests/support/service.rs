//! Apis with the behaviour that the tests need, whatever they mean to a broker.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use glommio::timer::Timer;
use minikafka_core::wire::{Api, FetchRequest, ProduceReply};
use minikafka_core::{ErrorCode, Offset, Timestamp};
use minikafka_net::{Hangup, Reply, Request, Service, SharedBytes};

/// - produce: receives the bulk, answers its length and CRC-32C; checks it against [`pattern`] of its correlation
/// - fetch: waits `wait_ms_max`, then answers [`pattern`] of `bytes_min` bytes in pieces of at most `bytes_max`
/// - list-offsets: echoes its head; takes a while for [`SLOW_HEAD`]
/// - resolve: refuses, leaves the bulk unread
/// - create-topic: drops the reply; delete-topic: hangs up
/// - peer: receives the bulk, checks it against [`pattern`] of the number in its head, and that numbers follow each other
/// - seal: answers nothing, with success; reconcile: keeps the request until released; activate: cuts the connection
#[derive(Default)]
pub struct TestService {
    kept: RefCell<Vec<Reply>>,
    peer_frames: Cell<u64>,
}

/// Head of a request whose handling takes a while.
pub const SLOW_HEAD: &[u8] = b"slow";
static SLOW_REQUESTS_DONE: AtomicU32 = AtomicU32::new(0);

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

impl TestService {
    /// Over all servers of this process.
    pub fn slow_requests_done() -> u32 {
        SLOW_REQUESTS_DONE.load(Ordering::SeqCst)
    }

    pub fn release(&self) {
        for reply in self.kept.take() {
            reply.send_encoded(&[], Vec::new());
        }
    }
}

impl TestService {
    /// In two parts, as a broker receives runs.
    async fn peer(&self, mut request: Request<'_>) -> Result<(), Hangup> {
        let number: u64 = request.message()?;
        assert_eq!(number, self.peer_frames.replace(number + 1), "frames of a link arrive in order, none is missing");
        request.reply.owe_nothing();
        let mut bulk = vec![0; request.bulk.len()];
        let (first, second) = bulk.split_at_mut(request.bulk.len() / 3);
        request.bulk.receive_part(first).await?;
        request.bulk.receive_part(second).await?;
        assert!(bulk == pattern(number, bulk.len()), "the bulk did not arrive as it was sent");
        Ok(())
    }
}

impl Service for TestService {
    async fn handle(&self, mut request: Request<'_>) -> Result<(), Hangup> {
        match request.api {
            Api::Produce => produce(request).await?,
            Api::Fetch => {
                let fetch: FetchRequest = request.message()?;
                glommio::spawn_local(answer(fetch, request.header.correlation, request.reply)).detach();
            }
            Api::ListOffsets if request.head == SLOW_HEAD => {
                Timer::new(Duration::from_millis(200)).await;
                SLOW_REQUESTS_DONE.fetch_add(1, Ordering::SeqCst);
                request.reply.send_encoded(&[], Vec::new());
            }
            Api::ListOffsets => request.reply.send_encoded(request.head, Vec::new()),
            Api::Peer => self.peer(request).await?,
            Api::Resolve => request.reply.fail(ErrorCode::Misdirected),
            Api::CreateTopic => {}
            Api::DeleteTopic => return Err(Hangup::new()),
            Api::Activate => request.reply.queue().cut(),
            Api::Reconcile => self.kept.borrow_mut().push(request.reply),
            _ => request.reply.send_encoded(&[], Vec::new()),
        }
        Ok(())
    }
}

async fn produce(request: Request<'_>) -> Result<(), Hangup> {
    let mut body = vec![0; request.bulk.len()];
    let crc = request.bulk.receive_into(&mut body).await?;
    assert!(body == pattern(request.header.correlation, body.len()), "the bulk did not arrive as it was sent");
    request
        .reply
        .send(&ProduceReply { base_offset: Offset(body.len() as u64), append_timestamp: Timestamp(i64::from(crc)) });
    Ok(())
}

async fn answer(fetch: FetchRequest, correlation: u64, mut reply: Reply) {
    Timer::new(Duration::from_millis(u64::from(fetch.wait_ms_max))).await;
    let bytes = pattern(correlation, fetch.bytes_min as usize);
    if reply.room(bytes.len()).await.is_err() {
        return;
    }
    let pieces = bytes.chunks(fetch.bytes_max.max(1) as usize);
    let bulk = pieces.map(|piece| SharedBytes::from(piece.to_vec())).collect();
    reply.send_encoded(b"fetched", bulk);
}
