//! A request of the size of a small batch and a reply of the size of its acknowledgement, over the loopback and back.

use std::io::{Read, Write};
use std::time::Instant;

use super::median;
use super::receive::pair;
use crate::error::{BenchError, Doing, Result};
use crate::pin;

/// A produce frame with one record of 100 bytes, about.
const REQUEST_BYTES: usize = 400;
/// Its reply: a frame header and two numbers.
const REPLY_BYTES: usize = 48;

/// Median in microseconds.
pub(super) fn round(cpu: Option<usize>, client_cpu: Option<usize>, repetitions: u32) -> Result<Vec<(String, f64)>> {
    let (mut client, mut server) = pair()?;
    let figure = std::thread::scope(|scope| {
        let serving = scope.spawn(move || {
            pin::pinned(cpu, || {
                let mut request = [0; REQUEST_BYTES];
                for _ in 0..repetitions {
                    let answered = server.read_exact(&mut request).and_then(|()| server.write_all(&[0; REPLY_BYTES]));
                    answered.doing(|| "answering over the loopback".to_owned())?;
                }
                Ok(())
            })
        });
        let asked = pin::pinned(client_cpu, || {
            let mut times = Vec::new();
            let mut reply = [0; REPLY_BYTES];
            for _ in 0..repetitions {
                let started = Instant::now();
                let asked = client.write_all(&[0; REQUEST_BYTES]).and_then(|()| client.read_exact(&mut reply));
                asked.doing(|| "asking over the loopback".to_owned())?;
                times.push(started.elapsed().as_secs_f64() * 1e6);
            }
            Ok(median(&times))
        });
        drop(client);
        serving.join().map_err(|_| BenchError::failed("the server of the loopback ended by itself"))??;
        asked
    })?;
    Ok(vec![(format!("{REQUEST_BYTES} bytes there, {REPLY_BYTES} back"), figure)])
}
