//! The queue: `POST /push`, `GET /pull`, and `POST /pull` with `POST /ack` for who must not lose a record.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minikafka_client::QueueDelivery;
use minikafka_core::limits;
use serde::Deserialize;

use super::error::{Code, HttpError};
use crate::admin::groups::{AckRequest, PulledRecord, PushRequest, PushedStatus};
use crate::data::LeaseEnd;
use crate::gateway::Shared;

/// How long a pull waits, unless told otherwise.
const WAIT: Duration = Duration::from_secs(5);
/// For how long a pulled record is held, unless told otherwise.
const LEASE: Duration = Duration::from_secs(30);

pub(super) async fn push(
    State(shared): State<Arc<Shared>>,
    request: Result<Json<PushRequest>, JsonRejection>,
) -> Result<Json<PushedStatus>, HttpError> {
    let Json(request) = request?;
    let key = request.key.as_deref().map(|key| decode("key", key)).transpose()?;
    let value = decode("value", &request.value)?;
    let pushed = shared.data.push(key.as_deref(), &value).await?;
    Ok(Json(PushedStatus { partition: pushed.partition.0, offset: pushed.offset.map(|offset| offset.0) }))
}

/// How to pull.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PullQuery {
    wait: Option<String>,
}

/// How to pull with a lease.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseQuery {
    wait: Option<String>,
    lease: Option<String>,
}

pub(super) async fn pull(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<PullQuery>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(query) = query?;
    let Some(delivery) = shared.data.pull(wait(query.wait.as_deref())?).await? else { return Ok(nothing()) };
    let answer = shown(&delivery, None);
    delivery.ack();
    Ok(Json(answer).into_response())
}

pub(super) async fn pull_with_lease(
    State(shared): State<Arc<Shared>>,
    query: Result<Query<LeaseQuery>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(query) = query?;
    let bounds = (Duration::from_secs(1), Duration::from_millis(limits::QUEUE_LEASE_MS_MAX));
    let lease = duration("lease", query.lease.as_deref(), LEASE, bounds)?;
    let Some(delivery) = shared.data.pull(wait(query.wait.as_deref())?).await? else { return Ok(nothing()) };
    let answer = shown(&delivery, None);
    let full = || HttpError::new(Code::Unavailable, "too many records are out with a lease of this gateway");
    let id = shared.data.lease(delivery, lease).ok_or_else(full)?;
    Ok(Json(PulledRecord { lease: Some(format!("{id:016x}")), ..answer }).into_response())
}

pub(super) async fn ack(
    State(shared): State<Arc<Shared>>,
    request: Result<Json<AckRequest>, JsonRejection>,
) -> Result<StatusCode, HttpError> {
    let Json(request) = request?;
    let unknown = || HttpError::new(Code::UnknownLease, "this gateway has no such lease, or no more");
    let id = u64::from_str_radix(&request.lease, 16).map_err(|_| unknown())?;
    match shared.data.end_lease(id, request.again) {
        LeaseEnd::Handled | LeaseEnd::Again => Ok(StatusCode::NO_CONTENT),
        LeaseEnd::Unknown => Err(unknown()),
    }
}

/// A page of another site, open in a browser that reaches this port, neither takes records nor puts any in.
pub(super) async fn same_site(request: Request, next: Next) -> Response {
    if is_foreign(request.headers()) {
        return HttpError::new(Code::CrossSite, "a page of another site asks for this").into_response();
    }
    next.run(request).await
}

/// What browsers say of who asks; whatever is no browser says nothing.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_own = |origin: &str| text(header::HOST).is_some_and(|host| origin == format!("http://{host}"));
    site.is_some_and(|site| site != b"same-origin" && site != b"none")
        || text(header::ORIGIN).is_some_and(|origin| !is_own(origin))
}

fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

fn shown(delivery: &QueueDelivery, lease: Option<String>) -> PulledRecord {
    PulledRecord {
        partition: delivery.partition.0,
        offset: delivery.offset.0,
        timestamp_ms: delivery.timestamp.0,
        key: delivery.key.as_deref().map(|key| STANDARD.encode(key)),
        value: delivery.value.as_deref().map(|value| STANDARD.encode(value)),
        lease,
    }
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, HttpError> {
    STANDARD.decode(text).map_err(|error| HttpError::new(Code::InvalidRequest, format!("{what} is no base64: {error}")))
}

fn wait(text: Option<&str>) -> Result<Duration, HttpError> {
    duration("wait", text, WAIT, (Duration::ZERO, Duration::from_millis(limits::QUEUE_WAIT_MS_MAX)))
}

/// `500ms`, `30s` or `5m`, within bounds.
fn duration(
    what: &str,
    text: Option<&str>,
    default: Duration,
    (least, most): (Duration, Duration),
) -> Result<Duration, HttpError> {
    let Some(text) = text else { return Ok(default) };
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000)];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let millis = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    let bad = || {
        let reason = format!("{what} is a number and ms, s or m, from {least:?} to {most:?}, such as 10s");
        HttpError::new(Code::InvalidRequest, reason)
    };
    let given = Duration::from_millis(millis.ok_or_else(bad)?);
    if (least..=most).contains(&given) { Ok(given) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_told_from_all_else() {
        let foreign = |headers: &[(&'static str, &'static str)]| {
            let one = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), header::HeaderValue::from_static(value))
            };
            is_foreign(&headers.iter().map(one).collect())
        };
        assert!(!foreign(&[]) && !foreign(&[("host", "x:1")]));
        assert!(!foreign(&[("sec-fetch-site", "none")]) && !foreign(&[("sec-fetch-site", "same-origin")]));
        assert!(!foreign(&[("host", "x:1"), ("origin", "http://x:1")]));
        assert!(foreign(&[("sec-fetch-site", "cross-site")]) && foreign(&[("sec-fetch-site", "same-site")]));
        assert!(foreign(&[("host", "x:1"), ("origin", "http://y:1")]) && foreign(&[("origin", "null")]));
    }

    #[test]
    fn durations_have_a_unit_and_bounds() {
        let bounds = (Duration::from_secs(1), Duration::from_secs(60));
        let parse = |text| duration("lease", Some(text), LEASE, bounds).ok();
        assert_eq!(parse("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!((parse("1s"), parse("1m")), (Some(bounds.0), Some(bounds.1)));
        for bad in ["", "s", "10", "-1s", "999ms", "61s", "2m", "1h", "99999999999999999999s", "1.5s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(duration("lease", None, LEASE, bounds).ok(), Some(LEASE));
    }
}
