//! Batches of records as columns: building, reading and refusing batch bodies (`docs/DATA_FILE.md` section 1).
//!
//! A producer pushes records into a [`BatchBuilder`] and gets a body that is written, replicated, stored and served as
//! it is. Whoever receives a body reads it in place through a [`BatchView`], at any alignment, after one pass over each
//! column has proved that no record can reach outside of it. The same bytes are an rkyv archive of [`Columns`]; the
//! builder does not go through rkyv's serializer, but the tests prove that it writes the very same bytes.
//!
//! Nothing here compresses, computes offsets or checks a body's CRC: those belong to the client, to the head of the
//! range, and to whoever received the bytes.
//!
//! ```
//! use minikafka_core::batch::{BatchBuilder, BatchView, RecordRef};
//! use minikafka_core::{Partition, PartitionKey, ProducerEpoch, ProducerId, RangeId, RangeKey, RingId, Sequence};
//! use minikafka_core::{Timestamp, TopicId};
//!
//! let mut builder = BatchBuilder::with_capacity(64 << 10);
//! builder.push(RecordRef { value: Some(b"hello"), ..RecordRef::at(Timestamp(1_700_000_000_000)) })?;
//! let batch = builder.finish();
//! let header = batch.header(
//!     RangeKey { ring: RingId(3), range: RangeId(7) },
//!     PartitionKey { topic: TopicId(1), partition: Partition(0) },
//!     (ProducerId::NONE, ProducerEpoch(0), Sequence(0)),
//! );
//!
//! let view = BatchView::parse(&batch.body, &header)?;
//! assert_eq!(view.iter().next().and_then(|record| record.value), Some(&b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod check;
mod error;
mod layout;
mod view;

pub use builder::{BatchBuilder, FinishedBatch, RecordRef};
pub use error::{BatchBuildError, BatchError, ColumnFault};
pub use layout::{ArchivedColumns, Column, Columns, ROOT_BYTES};
pub use view::{BatchView, BinaryColumn, Headers, RecordView, Records};

#[cfg(test)]
mod tests;
