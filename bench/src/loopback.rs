//! TCP over the loopback: congestion control has nothing to do there but can cost most of the throughput.
//!
//! With BBR as the system's default, its pacing cut one connection from 7 GB/s to between 1 and 3 on the machine this was
//! written on. What the load sends, and what the limits are measured with, therefore uses Reno over the loopback; over a
//! real network the system's choice stands. What a *broker* sends is the broker's own matter.

use std::net::TcpStream;

use socket2::SockRef;

/// The algorithm that every Linux has and lets everybody use.
const ALGORITHM: &[u8] = b"reno";

/// Sends without pacing, if the other end is on this machine.
pub fn unpaced(stream: &TcpStream) {
    if stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
        // Where it is not allowed, the system's default stays, and the reports name it.
        let _ = SockRef::from(stream).set_tcp_congestion(ALGORITHM);
    }
}

/// The system's default.
pub fn congestion_control() -> String {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    name.trim().to_owned()
}
