//! One connection of the fast driver: opened with a hello, then non-blocking in both directions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use minikafka_core::ClusterId;
use minikafka_core::wire::frame::{Envelope, FRAME_HEADER_BYTES, FrameLimits};
use minikafka_core::wire::{
    Api, ErrorReply, FrameHeader, Hello, HelloReply, PROTOCOL_MAX, PROTOCOL_MIN, Role, Wire, encode_frame,
};
use rustix::event::epoll;

use super::Traffic;
use super::incoming::{Arrival, Incoming};
use super::outgoing::Outgoing;
use crate::error::{BenchError, Doing, Result};
use crate::loopback;
use crate::pace::Clock;

/// A server that does not answer a hello within this is not there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Reads of one connection before the others get their turn.
const READS_PER_TURN: usize = 4;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    address: String,
    pub outgoing: Outgoing,
    incoming: Incoming,
    /// The socket took less than there was.
    pub is_stuck: bool,
    /// Whether the poll is told to say when the socket takes more.
    watches_room: bool,
}

impl Connection {
    /// Connects and says hello.
    pub fn open(address: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).doing(|| format!("connecting to {address}"))?;
        loopback::unpaced(&stream);
        let prepared = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(HELLO_TIMEOUT)));
        prepared.doing(|| format!("preparing the connection to {address}"))?;
        greet(&mut stream, address)?;
        stream.set_nonblocking(true).doing(|| format!("preparing the connection to {address}"))?;
        let (outgoing, incoming) = (Outgoing::default(), Incoming::new());
        Ok(Self { stream, address: address.to_owned(), outgoing, incoming, is_stuck: false, watches_room: false })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends what the socket takes.
    pub fn send(&mut self) -> Result<()> {
        let sent = self.outgoing.write_to(&mut self.stream);
        self.is_stuck = sent.doing(|| format!("sending to {}", self.address))?;
        Ok(())
    }

    /// Tells the poll whether room in the socket is wanted.
    pub fn watch(&mut self, poll: impl AsFd, at: usize) -> Result<()> {
        if self.is_stuck == self.watches_room {
            return Ok(());
        }
        self.watches_room = self.is_stuck;
        let room = if self.is_stuck { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(at as u64);
        epoll::modify(poll, &self.stream, data, epoll::EventFlags::IN | room).doing(|| "watching a socket".to_owned())
    }

    /// Reads what is there and hands it on.
    pub fn receive(&mut self, at: usize, traffic: &mut impl Traffic, clock: &Clock) -> Result<()> {
        for _ in 0..READS_PER_TURN {
            let read = self.incoming.read(&mut self.stream);
            let Some((count, room)) = read.doing(|| format!("receiving from {}", self.address))? else { break };
            let now = clock.now();
            while let Some(arrival) = self.incoming.next()? {
                match arrival {
                    Arrival::Head(header, head) => traffic.head(at, &header, head, now)?,
                    Arrival::Bulk(bytes, last) => {
                        traffic.bulk(at, bytes)?;
                        if last {
                            traffic.end(at, clock.now())?;
                        }
                    }
                }
            }
            if count < room {
                break;
            }
        }
        Ok(())
    }
}

fn greet(stream: &mut TcpStream, address: &str) -> Result<()> {
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role: Role::Client,
        nonce: rand::random(),
        cluster: ClusterId(0),
        client_name: "minikafka-bench".to_owned(),
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut frame = Vec::new();
    encode_frame(&mut frame, Envelope::request(Api::Hello, 0), &hello.to_bytes(), 0);
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let asked = stream.write_all(&frame).and_then(|()| stream.read_exact(&mut bytes));
    asked.doing(|| format!("saying hello to {address}"))?;
    let strange =
        |error: String| BenchError::failed(format!("{address} does not answer a hello as a shard would: {error}"));
    let header = FrameHeader::decode(&bytes, FrameLimits::REQUEST).map_err(|error| strange(error.to_string()))?;
    let mut head = vec![0; header.head_bytes as usize];
    stream.read_exact(&mut head).doing(|| format!("saying hello to {address}"))?;
    header.verify(&bytes, &head).map_err(|error| strange(error.to_string()))?;
    if let Some(code) = header.error {
        let message = ErrorReply::from_bytes(&head).map_or_else(|_| String::new(), |reply| reply.message);
        return Err(strange(format!("{code} {message}")));
    }
    HelloReply::from_bytes(&head).map(|_| ()).map_err(|error| strange(error.to_string()))
}
