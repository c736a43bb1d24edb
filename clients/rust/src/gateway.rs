//! Asking gateways: any of them for the map, the controller for changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use minikafka_core::ErrorCode;
use minikafka_core::wire::{Api, Wire};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff;
use crate::error::{Error, Result};
use crate::pool::{ConnectionPool, Lane};

/// One gateway has this long to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// A gateway that says nothing for so long is not waited for alone: the next one is asked as well.
const PATIENCE: Duration = Duration::from_millis(250);

/// The gateways of a client, and which of them answered last.
#[derive(Debug)]
pub(crate) struct Gateways {
    addresses: Vec<Arc<str>>,
    preferred: AtomicUsize,
    pool: Arc<ConnectionPool>,
}

impl Gateways {
    pub(crate) fn new(addresses: Vec<Arc<str>>, pool: Arc<ConnectionPool>) -> Self {
        // Clients spread over the gateways from the start.
        let preferred = rand::random_range(0..addresses.len().max(1));
        Self { addresses, preferred: AtomicUsize::new(preferred), pool }
    }

    /// Asks the gateway that answered last, and each of the others as soon as those before failed or kept silent for
    /// [`PATIENCE`], until one gives an answer.
    pub(crate) async fn ask_any<Q, A>(&self, api: Api, request: &Q) -> Result<(Arc<str>, A)>
    where
        Q: Wire,
        A: Wire + Send + 'static,
    {
        let request: Arc<[u8]> = request.to_bytes().into();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut turns = (0..self.addresses.len()).map(|turn| (first + turn) % self.addresses.len());
        let mut asking = JoinSet::new();
        let mut last = None;
        loop {
            let next = turns.next();
            if let Some(at) = next {
                let question = ask_one(self.pool.clone(), self.addresses[at].clone(), api, request.clone());
                asking.spawn(async move { (at, question.await) });
            }
            let patience = next.map_or(2 * ANSWER_DEADLINE, |_| PATIENCE);
            let answered = match tokio::time::timeout(patience, asking.join_next()).await {
                // The next one is asked, too.
                Err(_) if next.is_some() => continue,
                Err(_) | Ok(None) => break,
                Ok(Some(Err(_panicked))) => continue,
                Ok(Some(Ok(answered))) => answered,
            };
            match answered {
                (at, Ok(answer)) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok((self.addresses[at].clone(), answer));
                }
                // What one gateway refuses for good, the others refuse too.
                (_, Err(error @ Error::Broker(_))) if !error.is_retriable() => return Err(error),
                (at, Err(error)) => {
                    tracing::debug!(address = %self.addresses[at], %error, "gateway did not answer");
                    last = Some(error);
                }
            }
        }
        let last = last.map_or_else(|| "nothing".to_owned(), |error| error.to_string());
        Err(Error::NoGateway { tried: self.addresses.join(", ").into(), last: last.into() })
    }

    /// Another gateway is asked first the next time: what this one tells is too old. It may have lost the coordinator, and
    /// not know what the others do.
    pub(crate) fn turn_to_next(&self) {
        self.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks the controller, wherever it is: follows `not_controller` (whose message is the controller's address), goes
    /// on to the next gateway when one is gone, and retries what is retriable until the deadline.
    ///
    /// `maybe_done` tells whether an attempt before the last one may have been carried out without an answer: then
    /// "exists" or "unknown" can be this very request's own doing.
    pub(crate) async fn ask_controller<Q: Wire, A: Wire>(
        &self,
        api: Api,
        request: &Q,
        deadline: Instant,
        maybe_done: &mut bool,
    ) -> Result<A> {
        let mut named: Option<Arc<str>> = None;
        let mut at = self.preferred.load(Ordering::Relaxed);
        for failures in 1.. {
            let address = named.take().unwrap_or_else(|| self.addresses[at % self.addresses.len()].clone());
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match self.ask(&address, api, request, left).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = backoff::random_wait_after(failures, error.retry_after());
            if !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            *maybe_done |= error.is_outcome_unknown();
            named = controller_named_by(&error);
            at += usize::from(named.is_none());
            tokio::time::sleep(wait).await;
        }
        unreachable!("the loop above ends by returning")
    }

    async fn ask<Q: Wire, A: Wire>(&self, address: &Arc<str>, api: Api, request: &Q, within: Duration) -> Result<A> {
        let connection = self.pool.connect(address, Lane::Requests).await?;
        connection.call(api, request, within).await
    }
}

/// One question to one gateway. A connection on which no answer came is not used again.
async fn ask_one<A: Wire>(pool: Arc<ConnectionPool>, address: Arc<str>, api: Api, request: Arc<[u8]>) -> Result<A> {
    let connection = pool.connect(&address, Lane::Requests).await?;
    let reply = connection.request(api, &request, Bytes::new(), ANSWER_DEADLINE).await;
    if let Err(Error::DeadlineExceeded { .. }) = &reply {
        connection.end_because("a gateway did not answer in time");
    }
    connection.decode("reply", &reply?.head)
}

/// The address in a `not_controller` answer, if it is one.
fn controller_named_by(error: &Error) -> Option<Arc<str>> {
    let Error::Broker(broker) = error else { return None };
    let (host, port) = broker.message.rsplit_once(':')?;
    let is_address = !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok();
    (broker.code == ErrorCode::NotController && is_address).then(|| broker.message.as_str().into())
}
