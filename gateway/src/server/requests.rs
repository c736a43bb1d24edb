//! What may be asked here, and by whom; everything else is told where it belongs.

use minikafka_core::ErrorCode;
use minikafka_core::wire::{
    AlterTopicRequest, Api, CreateTopicRequest, DecodeError, DeleteTopicRequest, ErrorReply, FrameHeader,
    ResolveRequest, Wire,
};

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
        Api::Resolve | Api::CreateTopic | Api::DeleteTopic | Api::AlterTopic if header.version != api.version() => {
            Err(Refusal::of(ErrorCode::UnsupportedVersion))
        }
        Api::Resolve | Api::CreateTopic | Api::DeleteTopic | Api::AlterTopic if header.bulk_bytes > 0 => {
            let mut refusal = Refusal::closing(ErrorCode::MalformedFrame);
            refusal.reply = ErrorReply::because("this request has no bulk");
            Err(refusal)
        }
        Api::Resolve | Api::CreateTopic | Api::DeleteTopic | Api::AlterTopic => Ok(()),
        _ if api.needs_proof() && !proven => Err(Refusal::of(ErrorCode::NotAuthorized)),
        _ => Err(Refusal::of(ErrorCode::Misdirected)),
    }
}

/// A request of this port.
#[derive(Debug)]
pub(super) enum Request {
    Resolve(ResolveRequest),
    CreateTopic(CreateTopicRequest),
    DeleteTopic(DeleteTopicRequest),
    AlterTopic(AlterTopicRequest),
}

impl Request {
    /// Decodes a frame that passed [`check`].
    pub(super) fn decode(frame: &RequestFrame) -> Result<Self, DecodeError> {
        match Api::from_number(frame.header.api) {
            Some(Api::Resolve) => Wire::from_bytes(&frame.head).map(Self::Resolve),
            Some(Api::CreateTopic) => Wire::from_bytes(&frame.head).map(Self::CreateTopic),
            Some(Api::DeleteTopic) => Wire::from_bytes(&frame.head).map(Self::DeleteTopic),
            Some(Api::AlterTopic) => Wire::from_bytes(&frame.head).map(Self::AlterTopic),
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
    }
}
