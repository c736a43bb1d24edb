//! Socket settings: no delay, and a dead peer is noticed within seconds instead of the system's hours.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// A silent connection is probed after this.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Then this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Unanswered probes that end the connection.
const KEEPALIVE_PROBES: u32 = 3;
/// Sent bytes that stay unacknowledged this long end the connection.
const UNACKNOWLEDGED_MS_MAX: u32 = 15_000;

/// Applies the settings to a connected socket.
pub(super) fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS_MAX)?;
    Ok(())
}
