//! A blocking client that can misbehave.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use minikafka_core::wire::frame::{Envelope, FRAME_HEADER_BYTES, FrameLimits, encode_frame};
use minikafka_core::wire::{
    Api, ErrorReply, FetchRequest, FrameHeader, Hello, HelloReply, PROTOCOL_MAX, PROTOCOL_MIN, Role, Wire,
};
use minikafka_core::{ClusterId, ErrorCode};

use super::PATIENCE;

/// A frame with bulk.
pub fn frame_with(api: Api, correlation: u64, head: &[u8], bulk: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, Envelope::request(api, correlation), head, bulk.len() as u32);
    out.extend_from_slice(bulk);
    out
}

/// A frame without bulk.
pub fn frame(api: Api, correlation: u64, head: &[u8]) -> Vec<u8> {
    frame_with(api, correlation, head, &[])
}

/// A reply as received.
#[derive(Debug)]
pub struct Answer {
    pub header: FrameHeader,
    pub head: Vec<u8>,
    pub bulk: Vec<u8>,
}

impl Answer {
    pub fn error(&self) -> Option<ErrorCode> {
        self.header.error
    }

    pub fn message(&self) -> ErrorReply {
        ErrorReply::from_bytes(&self.head).expect("an error reply")
    }
}

pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("a socket");
        Self { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server receives");
    }

    /// Sends, whether or not the server still wants it.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next reply, or `None` at the end of the stream.
    pub fn receive(&mut self) -> Option<Answer> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return None,
                Ok(0) => panic!("the stream ends within a header"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
        }
        let header = FrameHeader::decode(&bytes, FrameLimits::REPLY).expect("a frame");
        let mut head = vec![0; header.head_bytes as usize];
        self.stream.read_exact(&mut head).expect("a head");
        header.verify(&bytes, &head).expect("a checksum");
        assert!(header.is_reply);
        let mut bulk = vec![0; header.bulk_bytes as usize];
        self.stream.read_exact(&mut bulk).expect("bulk");
        Some(Answer { header, head, bulk })
    }

    pub fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.receive().expect("a reply")
    }

    /// Echoes, which shows that the connection is well.
    pub fn is_well(&mut self) {
        let answer = self.ask(&frame(Api::ListOffsets, 77, b"well?"));
        assert_eq!((answer.error(), answer.header.correlation, &answer.head[..]), (None, 77, &b"well?"[..]));
    }

    pub fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Asserts that the server has ended the connection without a further reply.
    pub fn is_ended(&mut self) {
        let mut rest = [0; 64];
        match self.stream.read(&mut rest) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the connection should have ended: {other:?}, {rest:?}"),
        }
    }

    /// Asserts an error reply and the end of the connection.
    pub fn is_refused(&mut self, code: ErrorCode) -> Answer {
        let answer = self.receive().expect("a typed error");
        assert_eq!(answer.error(), Some(code), "{}", answer.message().message);
        self.is_ended();
        answer
    }

    pub fn hello(&mut self) -> HelloReply {
        let answer = self.ask(&frame(Api::Hello, 1, &hello(Role::Client).to_bytes()));
        assert_eq!((answer.error(), answer.header.correlation), (None, 1));
        HelloReply::from_bytes(&answer.head).expect("a hello reply")
    }
}

/// A hello of a test.
pub fn hello(role: Role) -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role,
        nonce: [5; 16],
        cluster: ClusterId(0),
        client_name: "test".to_owned(),
        client_version: "0".to_owned(),
    }
}

/// A fetch that waits, and is answered with `bytes` in pieces of `piece_bytes`.
pub fn fetch(correlation: u64, wait_ms: u32, bytes: u32, piece_bytes: u32) -> Vec<u8> {
    let request =
        FetchRequest { wait_ms_max: wait_ms, bytes_min: bytes, bytes_max: piece_bytes, partitions: Vec::new() };
    frame(Api::Fetch, correlation, &request.to_bytes())
}
