//! The frame: 32 bytes, then a head of message fields, then bulk (a batch body, or fetched entries).
//!
//! The header's checksum covers itself and the head; bulk carries checksums of its own, so every byte is guarded once.

use thiserror::Error;

use super::Api;
use crate::checksum;
use crate::error_code::ErrorCode;
use crate::limits;

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// First four bytes of every frame: "MKw1".
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"MKw1");
/// Set in replies.
const FLAG_REPLY: u8 = 1;
/// Set in a request that asks for its stages, and in the reply that tells them.
const FLAG_EXPLAIN: u8 = 2;

/// A frame header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What is asked; a reply repeats its request's.
    pub api: u16,
    /// Version of the api's messages.
    pub version: u8,
    /// Whether this is a reply.
    pub is_reply: bool,
    /// Whether a produce or fetch asks to be explained; whether its reply's head ends with that.
    pub explain: bool,
    /// Chosen by the client; a reply repeats its request's.
    pub correlation: u64,
    /// Replies: what went wrong; then the head is an [`super::ErrorReply`].
    pub error: Option<ErrorCode>,
    /// Bytes of message fields.
    pub head_bytes: u32,
    /// Bytes behind the head.
    pub bulk_bytes: u32,
    crc: u32,
}

/// Why bytes are not a frame. The connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Not this protocol.
    #[error("frame magic is {0:#010x}, expected {FRAME_MAGIC:#010x}: the peer does not speak MiniKafka's protocol")]
    Magic(u32),
    /// Longer than the receiver allows.
    #[error("frame announces {announced} bytes, at most {allowed} are allowed")]
    TooLarge {
        /// Head and bulk as announced.
        announced: u64,
        /// What the receiver allows.
        allowed: u64,
    },
    /// Damaged on the way.
    #[error("frame checksum is {found:#010x}, computed {computed:#010x}: the bytes were damaged on the way")]
    Crc {
        /// As sent.
        found: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// Reserved bits or contradictory sizes.
    #[error("frame field {0} is outside its range")]
    Field(&'static str),
}

impl FrameError {
    /// The code a server answers with before it closes the connection.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::FrameTooLarge,
            _ => ErrorCode::MalformedFrame,
        }
    }
}

/// What the receiver of a frame allows.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Bytes of message fields.
    pub head_bytes_max: u32,
    /// Bytes behind the head.
    pub bulk_bytes_max: u32,
}

impl FrameLimits {
    /// What a shard or gateway takes from a client.
    pub const REQUEST: Self =
        Self { head_bytes_max: limits::REQUEST_HEAD_BYTES_MAX, bulk_bytes_max: limits::BATCH_BODY_BYTES_MAX };
    /// What a client takes from a server, and a shard from a controller.
    pub const REPLY: Self = Self {
        head_bytes_max: limits::FRAME_HEAD_BYTES_MAX,
        bulk_bytes_max: limits::FETCH_BYTES_MAX + limits::BATCH_BODY_BYTES_MAX,
    };
}

impl FrameHeader {
    /// Decodes 32 bytes; sizes are checked before anything is allocated for them.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES], allowed: FrameLimits) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let magic = u32_at(0);
        if magic != FRAME_MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let (head_bytes, bulk_bytes) = (u32_at(4), u32_at(8));
        if head_bytes > allowed.head_bytes_max || bulk_bytes > allowed.bulk_bytes_max {
            return Err(FrameError::TooLarge {
                announced: u64::from(head_bytes) + u64::from(bulk_bytes),
                allowed: u64::from(allowed.head_bytes_max) + u64::from(allowed.bulk_bytes_max),
            });
        }
        let (api, flags) = (u16_at(12), bytes[15]);
        if flags & !(FLAG_REPLY | FLAG_EXPLAIN) != 0 || (flags & FLAG_EXPLAIN != 0 && !may_explain(api, u16_at(24))) {
            return Err(FrameError::Field("flags"));
        }
        if u16_at(26) != 0 {
            return Err(FrameError::Field("reserved"));
        }
        let error = match u16_at(24) {
            0 => None,
            number => Some(ErrorCode::from_number(number).unwrap_or(ErrorCode::Internal)),
        };
        Ok(Self {
            api,
            version: bytes[14],
            is_reply: flags & FLAG_REPLY != 0,
            explain: flags & FLAG_EXPLAIN != 0,
            correlation: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
            error,
            head_bytes,
            bulk_bytes,
            crc: u32_at(28),
        })
    }

    /// Verifies the checksum of the header (its 32 bytes as received) and the head.
    pub fn verify(&self, bytes: &[u8; FRAME_HEADER_BYTES], head: &[u8]) -> Result<(), FrameError> {
        let computed = checksum::crc32c_append(checksum::crc32c(&bytes[..28]), head);
        if computed == self.crc { Ok(()) } else { Err(FrameError::Crc { found: self.crc, computed }) }
    }

    /// Bytes behind the header.
    pub fn payload_bytes(&self) -> usize {
        self.head_bytes as usize + self.bulk_bytes as usize
    }
}

/// Only what moves records is explained, and only if it succeeds.
const fn may_explain(api: u16, error: u16) -> bool {
    (api == Api::Produce as u16 || api == Api::Fetch as u16) && error == 0
}

/// Who a frame is for and what it answers.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// What is asked; a reply repeats its request's number even when it is unknown.
    pub api: u16,
    /// Version of the api's messages.
    pub version: u8,
    /// Chosen by the client.
    pub correlation: u64,
    /// Whether this is a reply.
    pub is_reply: bool,
    /// Whether it asks for an explanation, or has one.
    pub explain: bool,
    /// Replies: what went wrong.
    pub error: Option<ErrorCode>,
}

impl Envelope {
    /// A request.
    pub const fn request(api: Api, correlation: u64) -> Self {
        Self { api: api as u16, version: api.version(), correlation, is_reply: false, explain: false, error: None }
    }

    /// A reply to `request`.
    pub const fn reply(request: &FrameHeader, error: Option<ErrorCode>) -> Self {
        let FrameHeader { api, version, correlation, .. } = *request;
        Self { api, version, correlation, is_reply: true, explain: false, error }
    }

    /// The same frame asking for an explanation, or having one.
    #[must_use]
    pub const fn explained(self) -> Self {
        Self { explain: true, ..self }
    }
}

/// Appends a frame header and `head` to `out`; the caller sends `bulk_bytes` more right behind.
pub fn encode_frame(out: &mut Vec<u8>, envelope: Envelope, head: &[u8], bulk_bytes: u32) {
    let start = out.len();
    out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    out.extend_from_slice(&(head.len() as u32).to_le_bytes());
    out.extend_from_slice(&bulk_bytes.to_le_bytes());
    out.extend_from_slice(&envelope.api.to_le_bytes());
    out.push(envelope.version);
    let (reply, explain) = (u8::from(envelope.is_reply) * FLAG_REPLY, u8::from(envelope.explain) * FLAG_EXPLAIN);
    out.push(reply | explain);
    out.extend_from_slice(&envelope.correlation.to_le_bytes());
    out.extend_from_slice(&envelope.error.map_or(0, |code| code as u16).to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    let crc = checksum::crc32c_append(checksum::crc32c(&out[start..]), head);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(head);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(head: &[u8], bulk_bytes: u32) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(&mut out, Envelope::request(Api::Fetch, 7), head, bulk_bytes);
        out
    }

    fn decode(bytes: &[u8]) -> Result<FrameHeader, FrameError> {
        let header = bytes.first_chunk().expect("a whole header");
        let decoded = FrameHeader::decode(header, FrameLimits::REQUEST)?;
        decoded.verify(header, &bytes[FRAME_HEADER_BYTES..]).map(|()| decoded)
    }

    #[test]
    fn round_trip() {
        let frame = decode(&encoded(b"head", 9)).expect("just encoded");
        assert_eq!((frame.api, frame.correlation, frame.head_bytes, frame.bulk_bytes), (11, 7, 4, 9));
        assert!(!frame.is_reply && frame.error.is_none());
    }

    #[test]
    fn only_a_produce_or_a_fetch_that_succeeds_is_explained() {
        let ask = |envelope: Envelope| {
            let mut out = Vec::new();
            encode_frame(&mut out, envelope.explained(), b"", 0);
            decode(&out).map(|frame| frame.explain)
        };
        for api in [Api::Produce, Api::Fetch] {
            let reply = |error| Envelope { is_reply: true, error, ..Envelope::request(api, 1) };
            assert_eq!((ask(Envelope::request(api, 1)), ask(reply(None))), (Ok(true), Ok(true)));
            assert_eq!(ask(reply(Some(ErrorCode::Stale))), Err(FrameError::Field("flags")));
        }
        assert_eq!(ask(Envelope::request(Api::ListOffsets, 1)), Err(FrameError::Field("flags")));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = encoded(b"some head", 1);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn sizes_are_refused_before_the_bytes_are_there() {
        let frame = encoded(b"", limits::BATCH_BODY_BYTES_MAX + 1);
        assert!(matches!(decode(&frame), Err(FrameError::TooLarge { .. })));
    }
}
