//! The writer task: takes as many queued requests as there are, and hands them to the system in one call.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use minikafka_core::limits;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Shared;

/// Requests that one system call carries at most; each has two pieces, and the system takes 1,024 pieces.
const REQUESTS_PER_WRITE: usize = 64;

/// A request on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Frame header and head.
    pub start: Vec<u8>,
    /// What follows; shared with whoever may have to send it again, never copied.
    pub bulk: Bytes,
}

/// Writes requests until the connection ends.
pub(super) async fn write_requests<W: AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    mut sink: W,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
) {
    let mut requests = Vec::with_capacity(REQUESTS_PER_WRITE);
    let deadline = Duration::from_millis(limits::WRITE_DEADLINE_MS);
    let mut ended = shared.ended.subscribe();
    loop {
        tokio::select! {
            taken = queue.recv_many(&mut requests, REQUESTS_PER_WRITE) => if taken == 0 { return },
            _ = ended.wait_for(|ended| *ended) => return,
        }
        let written = tokio::time::timeout(deadline, write_all(&mut sink, &requests)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("the server did not read for {} ms", deadline.as_millis())),
        };
        if let Some(reason) = error {
            return shared.end(shared.lost(reason));
        }
        requests.clear();
    }
}

async fn write_all<W: AsyncWrite + Unpin>(sink: &mut W, requests: &[Outgoing]) -> io::Result<()> {
    let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(2 * requests.len());
    for request in requests {
        pieces.push(IoSlice::new(&request.start));
        if !request.bulk.is_empty() {
            pieces.push(IoSlice::new(&request.bulk));
        }
    }
    let mut rest = &mut pieces[..];
    while !rest.is_empty() {
        let written = sink.write_vectored(rest).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}
