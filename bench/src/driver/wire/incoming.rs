//! Replies as they come in: frames cut out of a small buffer, bulk handed on in the pieces in which it arrived.

use std::io::{self, Read};

use minikafka_core::wire::FrameHeader;
use minikafka_core::wire::frame::{FRAME_HEADER_BYTES, FrameLimits};

use crate::error::{BenchError, Result};

/// Bytes of one read: what fits in a second-level cache, so that a checksum finds them there.
const BUFFER_BYTES: usize = 256 << 10;

/// Where a connection is in the stream of replies.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    bulk_left: usize,
}

/// What came.
pub(super) enum Arrival<'a> {
    /// The header and head of a reply; so many bytes of bulk follow.
    Head(FrameHeader, &'a [u8]),
    /// A piece of the bulk; whether it is the last.
    Bulk(&'a [u8], bool),
}

impl Incoming {
    pub fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], from: 0, to: 0, bulk_left: 0 }
    }

    /// Reads once. Returns how many bytes came and how many could have; none when nothing is there now.
    pub fn read(&mut self, source: &mut impl Read) -> Result<Option<(usize, usize)>, io::Error> {
        if self.from > 0 {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        loop {
            match source.read(&mut self.buffer[self.to..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let room = self.buffer.len() - self.to;
                    self.to += count;
                    return Ok(Some((count, room)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next arrival; none when more bytes are needed.
    #[inline]
    pub fn next(&mut self) -> Result<Option<Arrival<'_>>> {
        let malformed = |error| BenchError::failed(format!("the server sent what is no frame: {error}"));
        let there = self.to - self.from;
        if self.bulk_left > 0 {
            let count = self.bulk_left.min(there);
            self.bulk_left -= count;
            let piece = self.from..self.from + count;
            self.from += count;
            return Ok((count > 0).then(|| Arrival::Bulk(&self.buffer[piece], self.bulk_left == 0)));
        }
        let Some(bytes) = self.buffer[self.from..self.to].first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let header = FrameHeader::decode(bytes, FrameLimits::REPLY).map_err(malformed)?;
        let bytes_needed = FRAME_HEADER_BYTES + header.head_bytes as usize;
        if there < bytes_needed {
            self.make_room(bytes_needed);
            return Ok(None);
        }
        let head = self.from + FRAME_HEADER_BYTES..self.from + bytes_needed;
        header.verify(bytes, &self.buffer[head.clone()]).map_err(malformed)?;
        self.from += bytes_needed;
        self.bulk_left = header.bulk_bytes as usize;
        Ok(Some(Arrival::Head(header, &self.buffer[head])))
    }

    /// A head larger than the buffer is rare (a fetch of thousands of partitions); its length was checked.
    fn make_room(&mut self, bytes: usize) {
        if bytes > self.buffer.len() {
            self.buffer.resize(bytes.next_power_of_two(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use minikafka_core::wire::Api;
    use minikafka_core::wire::frame::{Envelope, encode_frame};

    use super::*;

    /// Gives a few bytes a call, then none.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(out.len()).min(self.0.len());
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            out[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn frames_are_cut_whatever_the_pieces() {
        let (mut stream, bulk) = (Vec::new(), [7; 5000]);
        for correlation in 0..10u64 {
            let head = vec![correlation as u8; correlation as usize * 40_000];
            encode_frame(&mut stream, Envelope::request(Api::Fetch, correlation), &head, bulk.len() as u32);
            stream.extend_from_slice(&bulk);
        }
        for piece in [31, 4096, 1 << 20] {
            let (mut incoming, mut source) = (Incoming::new(), Drip(&stream, piece));
            let (mut heads, mut bulks, mut ends) = (0, 0, 0);
            while incoming.read(&mut source).expect("it drips").is_some() {
                while let Some(arrival) = incoming.next().expect("frames") {
                    match arrival {
                        Arrival::Head(header, head) => {
                            assert_eq!((header.correlation, head.len()), (heads, heads as usize * 40_000));
                            heads += 1;
                        }
                        Arrival::Bulk(bytes, last) => {
                            assert!(bytes.iter().all(|&byte| byte == 7));
                            (bulks, ends) = (bulks + bytes.len(), ends + usize::from(last));
                        }
                    }
                }
            }
            assert_eq!((heads, bulks, ends), (10, 50_000, 10), "pieces of {piece}");
        }
    }
}
