//! Errors of the HTTP port: one table of codes, statuses and advice. Every one is answered as [`ErrorBody`].

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use minikafka_client::Error as ClientError;
use minikafka_core::ErrorCode;
use minikafka_core::coordination::CoordinationError;

use crate::admin::{ErrorBody, ErrorStatus};
use crate::operations::OperationError;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    NotFound,
    MethodNotAllowed,
    InvalidRequest,
    UnsupportedMediaType,
    TooLarge,
    TimedOut,
    UnknownRing,
    UnknownRange,
    UnknownNode,
    UnknownOperation,
    UnknownGroup,
    UnknownTopic,
    UnknownPartition,
    UnknownLease,
    NotController,
    BelowReplication,
    Conflict,
    TooManyOperations,
    OperationEnded,
    GroupNotEmpty,
    CrossSite,
    Unavailable,
    Failed,
    CoordinatorUnavailable,
    OutcomeUnknown,
}

impl Code {
    /// Status, name and advice.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::NotFound => (S::NOT_FOUND, "not_found", "the paths are in docs/GATEWAY.md; all begin with /v1"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "use a method of the Allow header"),
            Self::InvalidRequest => (S::BAD_REQUEST, "invalid_request", "send what docs/GATEWAY.md shows"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "send JSON with `content-type: application/json`")
            }
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "send less"),
            Self::TimedOut => (S::SERVICE_UNAVAILABLE, "timed_out", "ask again; what was begun goes on"),
            Self::UnknownRing => (S::NOT_FOUND, "unknown_ring", "GET /v1/rings lists them"),
            Self::UnknownRange => (S::NOT_FOUND, "unknown_range", "GET /v1/rings tells how many a ring has, from 0"),
            Self::UnknownNode => (S::NOT_FOUND, "unknown_node", "GET /v1/brokers lists them; start the node first"),
            Self::UnknownOperation => (S::NOT_FOUND, "unknown_operation", "GET /v1/operations lists them"),
            Self::UnknownGroup => (S::NOT_FOUND, "unknown_group", "GET /v1/groups lists them"),
            Self::UnknownTopic => (S::NOT_FOUND, "unknown_topic", "GET /v1/topics lists them"),
            Self::UnknownPartition => (S::NOT_FOUND, "unknown_partition", "GET /v1/topics tells how many a topic has"),
            Self::UnknownLease => {
                (S::NOT_FOUND, "unknown_lease", "ask the gateway that gave it, in time; the record is given out again")
            }
            Self::NotController => {
                (S::SERVICE_UNAVAILABLE, "not_controller", "ask the controller, or again in a moment")
            }
            Self::BelowReplication => {
                (S::CONFLICT, "below_replication", "add a node, or abort the drain of another one, and ask again")
            }
            Self::Conflict => (S::CONFLICT, "conflict", "wait until the other operation is done, or abort it"),
            Self::TooManyOperations => (S::CONFLICT, "too_many_operations", "abort operations that are not needed"),
            Self::OperationEnded => (S::CONFLICT, "operation_ended", "nothing is left to abort"),
            Self::GroupNotEmpty => (S::CONFLICT, "group_not_empty", "stop its members first"),
            Self::CrossSite => (S::FORBIDDEN, "cross_site", "ask from a page of this port, or not from a browser"),
            Self::Unavailable => {
                (S::SERVICE_UNAVAILABLE, "unavailable", "ask again; what the message calls possible may be done")
            }
            Self::Failed => (S::INTERNAL_SERVER_ERROR, "failed", "do as the message says"),
            Self::CoordinatorUnavailable => {
                (S::SERVICE_UNAVAILABLE, "coordinator_unavailable", "check that the coordinator runs; it was not done")
            }
            Self::OutcomeUnknown => {
                (S::SERVICE_UNAVAILABLE, "outcome_unknown", "GET /v1/operations tells whether it was done")
            }
        }
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct HttpError {
    code: Code,
    message: String,
    /// Where to ask instead.
    location: Option<String>,
}

impl HttpError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), location: None }
    }

    /// The controller is another gateway; with an address, the client is redirected.
    pub(super) fn not_controller(address: &str, http: &str, path: &str) -> Self {
        let message = match (address, http) {
            ("", _) => "no gateway is known to be the controller at the moment".to_owned(),
            (address, "") => format!("the controller is the gateway at {address}, which has no HTTP port"),
            (_, http) => format!("the controller is the gateway at http://{http}"),
        };
        let location = (!http.is_empty()).then(|| format!("http://{http}{path}"));
        Self { code: Code::NotController, message, location }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (status, code, fix) = self.code.row();
        let error = ErrorStatus { code: code.to_owned(), message: self.message, fix: fix.to_owned() };
        let location = self.location.and_then(|location| HeaderValue::from_str(&location).ok());
        let status = if location.is_some() { StatusCode::TEMPORARY_REDIRECT } else { status };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        if let Some(location) = location {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

impl From<JsonRejection> for HttpError {
    fn from(rejection: JsonRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
            StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
            _ => Code::InvalidRequest,
        };
        Self::new(code, rejection.body_text())
    }
}

impl From<QueryRejection> for HttpError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(Code::InvalidRequest, rejection.body_text())
    }
}

impl From<CoordinationError> for HttpError {
    fn from(error: CoordinationError) -> Self {
        let code = match error {
            CoordinationError::Unavailable { .. } => Code::CoordinatorUnavailable,
            _ => Code::OutcomeUnknown,
        };
        Self::new(code, error.to_string())
    }
}

impl From<OperationError> for HttpError {
    fn from(error: OperationError) -> Self {
        let code = match &error {
            OperationError::Invalid { .. } => Code::InvalidRequest,
            OperationError::UnknownRing { .. } => Code::UnknownRing,
            OperationError::UnknownRange { .. } => Code::UnknownRange,
            OperationError::UnknownNode { .. } => Code::UnknownNode,
            OperationError::UnknownOperation { .. } => Code::UnknownOperation,
            OperationError::BelowReplication { .. } => Code::BelowReplication,
            OperationError::Draining { .. } | OperationError::Moving { .. } => Code::Conflict,
            OperationError::TooMany => Code::TooManyOperations,
            OperationError::Ended { .. } => Code::OperationEnded,
            OperationError::Coordinator(error) => return error.clone().into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<ClientError> for HttpError {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Broker(broker) => match broker.code {
                ErrorCode::UnknownGroup => Code::UnknownGroup,
                ErrorCode::UnknownTopic => Code::UnknownTopic,
                ErrorCode::GroupNotEmpty => Code::GroupNotEmpty,
                ErrorCode::InvalidArgument | ErrorCode::InvalidTopicName => Code::InvalidRequest,
                code if code.is_retriable() => Code::Unavailable,
                _ => Code::Failed,
            },
            ClientError::NoSuchPartition { .. } => Code::UnknownPartition,
            ClientError::InvalidOption { .. } => Code::InvalidRequest,
            error if error.is_retriable() || error.is_outcome_unknown() => Code::Unavailable,
            ClientError::Closed(_) => Code::Unavailable,
            _ => Code::Failed,
        };
        Self::new(code, error.to_string())
    }
}
