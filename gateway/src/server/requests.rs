//! What may be asked here, and by whom; everything else is told where it belongs.

use std::sync::PoisonError;

use minikafka_core::wire::{
    AlterTopicRequest, Api, ComplainRequest, CreateTopicRequest, DecodeError, DeleteTopicRequest, ErrorReply,
    FrameHeader, ResolveRequest, Wire,
};

use minikafka_core::{ErrorCode, limits};

use super::frames::RequestFrame;
use crate::gateway::Shared;
use crate::{resolve, topics};

/// A request that is not answered as asked.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) reply: ErrorReply,
    /// Whether the connection cannot go on.
    pub(crate) closes: bool,
}

impl Refusal {
    /// Refuses with the code's own advice.
    pub(crate) fn of(code: ErrorCode) -> Self {
        Self { code, reply: ErrorReply::of(code), closes: false }
    }

    /// Refuses and says why.
    pub(crate) fn because(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, reply: ErrorReply::because(message), closes: false }
    }

    /// Refuses, and the connection ends.
    pub(crate) fn closing(code: ErrorCode) -> Self {
        Self { closes: true, ..Self::of(code) }
    }
}

/// Whether a request belongs here at all.
pub(super) fn check(header: &FrameHeader, proven: bool) -> Result<(), Refusal> {
    let Some(api) = Api::from_number(header.api) else { return Err(Refusal::of(ErrorCode::UnknownApi)) };
    match api {
        Api::Hello | Api::Prove => {
            let mut refusal = Refusal::closing(ErrorCode::MalformedFrame);
            refusal.reply = ErrorReply::because("hello and proof come once, first");
            Err(refusal)
        }
        _ if api.needs_proof() && !proven => Err(Refusal::of(ErrorCode::NotAuthorized)),
        _ if is_served(api) && header.version != api.version() => Err(Refusal::of(ErrorCode::UnsupportedVersion)),
        _ if is_served(api) && header.bulk_bytes > 0 => {
            let mut refusal = Refusal::closing(ErrorCode::MalformedFrame);
            refusal.reply = ErrorReply::because("this request has no bulk");
            Err(refusal)
        }
        _ if is_served(api) => Ok(()),
        _ => Err(Refusal::of(ErrorCode::Misdirected)),
    }
}

const fn is_served(api: Api) -> bool {
    matches!(api, Api::Resolve | Api::CreateTopic | Api::DeleteTopic | Api::AlterTopic | Api::Complain)
}

/// A request of this port.
#[derive(Debug)]
pub(super) enum Request {
    Resolve(ResolveRequest),
    CreateTopic(CreateTopicRequest),
    DeleteTopic(DeleteTopicRequest),
    AlterTopic(AlterTopicRequest),
    Complain(ComplainRequest),
}

impl Request {
    /// Decodes a frame that passed [`check`].
    pub(super) fn decode(frame: &RequestFrame) -> Result<Self, DecodeError> {
        match Api::from_number(frame.header.api) {
            Some(Api::Resolve) => Wire::from_bytes(&frame.head).map(Self::Resolve),
            Some(Api::CreateTopic) => Wire::from_bytes(&frame.head).map(Self::CreateTopic),
            Some(Api::DeleteTopic) => Wire::from_bytes(&frame.head).map(Self::DeleteTopic),
            Some(Api::AlterTopic) => Wire::from_bytes(&frame.head).map(Self::AlterTopic),
            Some(Api::Complain) => Wire::from_bytes(&frame.head).map(Self::Complain),
            _ => Err(DecodeError::Field { field: "api" }),
        }
    }
}

/// The reply's head.
pub(super) async fn answer(shared: &Shared, request: Request) -> Result<Vec<u8>, Refusal> {
    match request {
        Request::Resolve(request) => resolve::resolve(shared, request).await,
        Request::CreateTopic(request) => Ok(topics::create(shared, &request).await?.to_bytes()),
        Request::DeleteTopic(request) => topics::delete(shared, &request).await.map(|()| Vec::new()),
        Request::AlterTopic(request) => Ok(topics::alter(shared, &request).await?.to_bytes()),
        Request::Complain(request) => complain(shared, request).map(|()| Vec::new()),
    }
}

/// Hands complaints on to the controller, if it is this gateway's. What it has no room for is dropped: they are hints.
fn complain(shared: &Shared, request: ComplainRequest) -> Result<(), Refusal> {
    if request.complaints.len() > limits::COMPLAINTS_MAX {
        return Err(Refusal::of(ErrorCode::InvalidArgument));
    }
    topics::require_controller(shared)?;
    let controller = shared.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Elected, but not at work yet: it is asked again.
    let controller = controller.ok_or_else(|| Refusal::because(ErrorCode::NotController, ""))?;
    for complaint in request.complaints {
        if controller.try_send(complaint).is_err() {
            tracing::warn!(range = %complaint.range, "the controller has no room for a complaint");
            break;
        }
    }
    Ok(())
}
