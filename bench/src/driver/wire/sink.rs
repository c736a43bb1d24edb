//! A receiver that throws everything away and acknowledges it: how fast the driver is when nothing holds it up.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use minikafka_core::wire::frame::{Envelope, encode_frame};
use minikafka_core::wire::{Api, FrameHeader, HelloReply, PROTOCOL_MAX, ProduceReply, Wire};
use minikafka_core::{
    ClusterId, Epoch, NodeId, Offset, Partition, PartitionKey, RangeId, RangeKey, RingId, ShardId, Timestamp, TopicId,
    limits,
};
use rustix::event::{PollFd, PollFlags, poll};

use super::incoming::{Arrival, Incoming};
use super::outgoing::Outgoing;
use super::produce;
use crate::driver::DriverNotes;
use crate::error::{BenchError, Doing, Result};
use crate::measure::Measured;
use crate::pin;
use crate::target::{Target, TargetPartition};
use crate::workload::{Load, Records};

/// Produces into a sink on another core instead of a broker.
pub fn produce_into_sink(load: &Load, records: &Records, sink_cpu: Option<usize>) -> Result<(Measured, DriverNotes)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(|| "listening on the loopback".to_owned())?;
    let address = listener.local_addr().doing(|| "listening on the loopback".to_owned())?;
    let connections = load.connections;
    std::thread::scope(|scope| {
        let sinking = scope.spawn(move || pin::pinned(sink_cpu, || swallow(&listener, connections)));
        let measured = produce(&target(address, load.partitions), load, records, false);
        if measured.is_err() {
            // The sink may still wait for connections that nobody will open.
            (0..connections).for_each(|_| drop(TcpStream::connect(address)));
        }
        let sunk = sinking.join().map_err(|_| BenchError::failed("the sink ended by itself"))?;
        sunk.and(measured)
    })
}

/// Partitions of a topic that nobody stores.
fn target(address: SocketAddr, partitions: u32) -> Target {
    let partition = |partition| TargetPartition {
        key: PartitionKey { topic: TopicId(1), partition: Partition(partition) },
        range: RangeKey { ring: RingId(1), range: RangeId(0) },
        epoch: Epoch(1),
        shard: 0,
    };
    Target { addresses: vec![address.to_string().into()], partitions: (0..partitions).map(partition).collect() }
}

struct Swallower {
    stream: TcpStream,
    incoming: Incoming,
    outgoing: Outgoing,
    open: bool,
}

/// Answers everything until every connection is closed.
fn swallow(listener: &TcpListener, connections: u32) -> Result<()> {
    let mut swallowers = Vec::new();
    for _ in 0..connections {
        let accepted = listener.accept().and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        let stream = accepted.doing(|| "accepting on the loopback".to_owned())?;
        let mut swallower = Swallower { stream, incoming: Incoming::new(), outgoing: Outgoing::default(), open: true };
        // The driver opens one connection after the other, each with a hello that wants its answer.
        while swallower.open && !swallower.turn()? {
            std::thread::sleep(Duration::from_micros(50));
        }
        swallowers.push(swallower);
    }
    while swallowers.iter().any(|swallower| swallower.open) {
        wait(&swallowers)?;
        for swallower in swallowers.iter_mut().filter(|swallower| swallower.open) {
            swallower.turn()?;
        }
    }
    Ok(())
}

fn wait(swallowers: &[Swallower]) -> Result<()> {
    let interest = |swallower: &Swallower| match swallower.outgoing.is_empty() {
        true => PollFlags::IN,
        false => PollFlags::IN | PollFlags::OUT,
    };
    let open = swallowers.iter().filter(|swallower| swallower.open);
    let mut watched: Vec<_> = open.map(|it| PollFd::new(&it.stream, interest(it))).collect();
    match poll(&mut watched, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(io::Error::from(error)).doing(|| "waiting for sockets".to_owned()),
    }
}

impl Swallower {
    /// Takes what is there and answers it. Says whether anything was.
    fn turn(&mut self) -> Result<bool> {
        let mut some = false;
        loop {
            match self.incoming.read(&mut self.stream) {
                Ok(None) => break,
                Ok(Some((count, room))) => {
                    some = true;
                    while let Some(arrival) = self.incoming.next()? {
                        if let Arrival::Head(header, _) = arrival {
                            answer(&mut self.outgoing, &header);
                        }
                    }
                    if count < room {
                        break;
                    }
                }
                Err(_) => {
                    self.open = false;
                    return Ok(some);
                }
            }
        }
        // A driver that has gone wants no answers.
        self.open = self.outgoing.write_to(&mut self.stream).is_ok();
        Ok(some)
    }
}

fn answer(out: &mut Outgoing, header: &FrameHeader) {
    let envelope = Envelope::reply(header, None);
    let mut frame = Vec::with_capacity(128);
    let head = if header.api == Api::Hello as u16 {
        let hello = HelloReply {
            protocol: PROTOCOL_MAX,
            nonce: [0; 16],
            cluster: ClusterId(0),
            node: NodeId(0),
            shard: ShardId(0),
            server_version: String::new(),
            batch_body_bytes_max: limits::BATCH_BODY_BYTES_MAX,
            record_bytes_max: limits::RECORD_BYTES_MAX,
            in_flight_max: limits::CONNECTION_IN_FLIGHT_MAX,
            idle_deadline_ms: limits::IDLE_DEADLINE_MS,
        };
        hello.to_bytes()
    } else {
        ProduceReply { base_offset: Offset(0), append_timestamp: Timestamp(0) }.to_bytes()
    };
    encode_frame(&mut frame, envelope, &head, 0);
    out.push(&frame);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::line;

    /// The whole driver against the sink: everything that is sent is answered once, in both loops and for both sizes.
    #[test]
    fn everything_sent_is_answered() {
        for options in [
            "--batch-bytes 1M --in-flight 4 --bytes-max 64M --warm-up 0s --duration 10m",
            "--batch-records 1 --record-bytes 100 --connections 3 --in-flight 64 --partitions 2 --bytes-max 1M --duration 10m",
            "--batch-records 1 --record-bytes 100 --keys zipf --rate 5000 --arrivals poisson --connections 2 \
             --warm-up 50ms --duration 200ms",
        ] {
            let (load, records) = line(options);
            let (measured, _) = produce_into_sink(&load, &records, None).unwrap();
            assert_eq!(measured.unanswered, 0, "{options}: {measured:?}");
            let bytes = measured.all_records * u64::from(records.record_bytes);
            assert!(bytes >= load.bytes_max.unwrap_or(1), "{options}: {measured:?}");
            let count = measured.latency.count as f64;
            if let Some(rate) = records.rate {
                assert!((count / (rate * 0.2) - 1.0).abs() < 0.2, "{options}: {count} of {rate} a second");
            }
        }
    }

    /// A window that is far too small for the rate: everything that was meant for the run is sent all the same, late.
    #[test]
    fn an_open_loop_sends_all_that_it_owes() {
        let (load, records) =
            line("--batch-records 1 --record-bytes 100 --rate 200000 --in-flight 1 --warm-up 0s --duration 20ms");
        let (measured, _) = produce_into_sink(&load, &records, None).unwrap();
        assert_eq!((measured.latency.count, measured.all_records, measured.unanswered), (4_000, 4_000, 0));
        assert!(measured.latency.max_us > measured.latency.min_us, "{:?}", measured.latency);
    }

    /// What was asked for is all that is sent.
    #[test]
    fn a_run_ends_after_the_bytes_it_may_send() {
        let (load, records) = line("--batch-bytes 64K --in-flight 2 --bytes-max 1M --duration 1m");
        let (measured, _) = produce_into_sink(&load, &records, None).unwrap();
        let bytes: u64 = measured.timeline.iter().map(|row| row.bytes).sum();
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    }
}
