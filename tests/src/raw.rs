//! A blocking client on a bare socket, which can misbehave as no real one would: half frames, lies, silence.
//!
//! It speaks to both kinds of port and asserts as it goes: what it is asked to see and does not see is a panic.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use minikafka_core::wire::frame::{Envelope, FRAME_HEADER_BYTES, FrameLimits, encode_frame};
use minikafka_core::wire::{Api, ErrorReply, FrameHeader, Hello, HelloReply, PROTOCOL_MAX, PROTOCOL_MIN, Role, Wire};
use minikafka_core::{ClusterId, ErrorCode, checksum};

/// A server that says nothing for this long says nothing any more.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often a client that drips looks whether it was sent away.
const DRIP_INTERVAL: Duration = Duration::from_millis(20);

/// A reply as received.
#[derive(Debug)]
pub struct Answer {
    /// Its frame header.
    pub header: FrameHeader,
    /// Its message.
    pub head: Vec<u8>,
    /// What stands behind it.
    pub bulk: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
pub struct RawClient {
    /// The socket.
    pub stream: TcpStream,
}

/// A request frame with bulk.
pub fn frame_with(api: Api, correlation: u64, head: &[u8], bulk: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(&mut out, Envelope::request(api, correlation), head, bulk.len() as u32);
    out.extend_from_slice(bulk);
    out
}

/// A request frame without bulk.
pub fn frame(api: Api, correlation: u64, message: &impl Wire) -> Vec<u8> {
    frame_with(api, correlation, &message.to_bytes(), &[])
}

/// Replaces bytes of a frame's header and makes its checksum right again.
pub fn forge(frame: &mut [u8], at: usize, bytes: &[u8], head_bytes: usize) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    let head = &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + head_bytes];
    let crc = checksum::crc32c_append(checksum::crc32c(&frame[..28]), head);
    frame[28..32].copy_from_slice(&crc.to_le_bytes());
}

/// A hello that is all right.
pub fn hello(role: Role) -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role,
        nonce: [5; 16],
        cluster: ClusterId(0),
        client_name: "bad".to_owned(),
        client_version: "0".to_owned(),
    }
}

impl Answer {
    /// The code of an error reply.
    pub fn error(&self) -> Option<ErrorCode> {
        self.header.error
    }

    /// What an error reply says.
    pub fn message(&self) -> String {
        ErrorReply::from_bytes(&self.head).map_or_else(|error| format!("not an error reply: {error}"), |it| it.message)
    }

    /// The message of a reply that must be good.
    #[track_caller]
    pub fn good<T: Wire>(&self) -> T {
        assert_eq!(self.error(), None, "{}", self.message());
        T::from_bytes(&self.head).expect("the message of its api")
    }

    /// Asserts the code of an error reply, and that nothing stands behind it.
    #[track_caller]
    pub fn is_error(&self, code: ErrorCode, what: &str) {
        assert_eq!(self.error(), Some(code), "{what}: {}", self.message());
        assert!(ErrorReply::from_bytes(&self.head).is_ok() && self.bulk.is_empty(), "{what}: {self:?}");
    }
}

impl RawClient {
    /// Connects and says nothing.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address} must listen: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("a socket has this option");
        Self { stream }
    }

    /// Connects and says a good hello.
    pub fn greeted(address: &str) -> Self {
        let mut client = Self::connect(address);
        client.hello(Role::Client);
        client
    }

    /// Says a good hello.
    pub fn hello(&mut self, role: Role) -> HelloReply {
        self.ask(&frame(Api::Hello, 1, &hello(role))).good()
    }

    /// Sends bytes that the server must take.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server receives");
    }

    /// Sends, whether or not the server still wants it.
    pub fn try_send(&mut self, bytes: &[u8]) {
        // The server may have ended the connection already: that is what the caller looks for next.
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a request and waits for a reply.
    #[track_caller]
    pub fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.receive().expect("a reply, not the end of the connection")
    }

    /// The next reply, or none at the end of the connection.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Answer> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return None,
                Ok(0) => panic!("the connection ends within a header"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
        }
        let header = FrameHeader::decode(&bytes, FrameLimits::REPLY).expect("a frame");
        let mut head = vec![0; header.head_bytes as usize];
        self.stream.read_exact(&mut head).expect("a head as long as announced");
        header.verify(&bytes, &head).expect("a checksum that is right");
        assert!(header.is_reply, "a server sends replies only");
        let mut bulk = vec![0; header.bulk_bytes as usize];
        self.stream.read_exact(&mut bulk).expect("bulk as long as announced");
        Some(Answer { header, head, bulk })
    }

    /// Says that nothing more will come.
    pub fn finish_sending(&self) {
        // Fails where the server was first, which is as good.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Asserts that the server has ended the connection without a further reply.
    #[track_caller]
    pub fn is_ended(&mut self) {
        let mut rest = [0; 64];
        match self.stream.read(&mut rest) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the connection should have ended: {other:?}, {rest:?}"),
        }
    }

    /// Asserts an error reply and the end of the connection.
    #[track_caller]
    pub fn is_refused(&mut self, code: ErrorCode, what: &str) -> Answer {
        let answer = self.receive().unwrap_or_else(|| panic!("{what}: the connection ended without a typed error"));
        answer.is_error(code, what);
        self.is_ended();
        answer
    }

    /// Sends a byte now and then until the server ends the connection; says how long that took.
    ///
    /// # Panics
    /// When it has not after `longest`, or the bytes run out before that.
    pub fn drip(&mut self, bytes: &[u8], longest: Duration) -> Duration {
        self.stream.set_read_timeout(Some(DRIP_INTERVAL)).expect("a timeout can be set");
        let started = Instant::now();
        for byte in bytes.chunks(1) {
            self.try_send(byte);
            match self.stream.read(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return started.elapsed(),
            }
            assert!(started.elapsed() < longest, "a peer that drips bytes is never sent away");
        }
        panic!("{} bytes were not enough to drip with", bytes.len())
    }
}
