//! Receiving from the loopback and checksumming, on one core: what no broker's core can exceed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Instant;

use minikafka_core::checksum;

use crate::error::{BenchError, Doing, Result};
use crate::loopback;
use crate::pin;
use crate::workload::noise;

/// Bytes of one read.
const READS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
/// With a low-water mark the kernel wakes the reader for no less than this.
const LOW_WATER: usize = 256 << 10;
/// Bytes of one send.
const SEND_BYTES: usize = 1 << 20;

/// Bytes a second of every shape.
pub(super) fn round(cpu: Option<usize>, sender_cpu: Option<usize>, bytes: u64) -> Result<Vec<(String, f64)>> {
    let mut figures = Vec::new();
    for read_bytes in READS {
        for low_water in [None, Some(LOW_WATER.min(read_bytes))] {
            let figure = measure(cpu, sender_cpu, bytes, read_bytes, low_water)?;
            let mark = if low_water.is_some() { ", low-water mark" } else { "" };
            figures.push((format!("reads of {} KiB{mark}", read_bytes >> 10), figure));
        }
    }
    Ok(figures)
}

fn measure(
    cpu: Option<usize>,
    sender_cpu: Option<usize>,
    bytes: u64,
    read_bytes: usize,
    low_water: Option<usize>,
) -> Result<f64> {
    let (mut receiver, sender) = pair()?;
    if let Some(low_water) = low_water {
        set_low_water(&receiver, low_water)?;
    }
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || pin::pinned(sender_cpu, || send(sender, bytes)));
        let received = pin::pinned(cpu, || {
            let mut buffer = vec![0; read_bytes];
            let (mut total, mut crc, started) = (0, 0, Instant::now());
            while total < bytes {
                let count = receiver.read(&mut buffer).doing(|| "receiving from the loopback".to_owned())?;
                if count == 0 {
                    break;
                }
                crc = checksum::crc32c_append(crc, &buffer[..count]);
                total += count as u64;
            }
            std::hint::black_box(crc);
            Ok(total as f64 / started.elapsed().as_secs_f64())
        });
        sending.join().map_err(|_| BenchError::failed("the sender of the loopback ended by itself"))??;
        received
    })
}

fn send(mut sender: TcpStream, bytes: u64) -> Result<()> {
    let buffer = noise(SEND_BYTES, 1);
    let mut left = bytes;
    while left > 0 {
        let count = left.min(SEND_BYTES as u64);
        sender.write_all(&buffer[..count as usize]).doing(|| "sending to the loopback".to_owned())?;
        left -= count;
    }
    Ok(())
}

/// Two ends of one connection.
pub(super) fn pair() -> Result<(TcpStream, TcpStream)> {
    let opened = (|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        loopback::unpaced(&near);
        loopback::unpaced(&far);
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        Ok::<_, std::io::Error>((near, far))
    })();
    opened.doing(|| "opening a connection over the loopback".to_owned())
}

fn set_low_water(stream: &TcpStream, bytes: usize) -> Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open as long as `stream` lives, and the option is an int, which `value` is.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).doing(|| "setting SO_RCVLOWAT".to_owned()) }
}
