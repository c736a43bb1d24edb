//! What a producer relies on: lazy columns, limits, reuse.

use super::*;
use crate::batch::tests::{Owned, build, header_of};
use crate::batch::{BatchView, ROOT_BYTES};

#[test]
fn a_column_that_says_nothing_does_not_exist() {
    let plain = RecordRef { value: Some(b"v"), ..RecordRef::at(Timestamp(1)) };
    let mut builder = BatchBuilder::with_capacity(16);
    for _ in 0..9 {
        builder.push(plain).unwrap();
    }
    let body_bytes_of_values = 10 * 4 + 9;
    // Nothing stands between the values and the root but the padding of the empty column of i64.
    assert_eq!(builder.body_bytes(), (body_bytes_of_values as usize).next_multiple_of(8) + ROOT_BYTES);

    assert_eq!(builder.push(RecordRef { key: Some(b""), ..plain }), Ok(9));
    assert_eq!(builder.push(RecordRef { value: None, ..plain }), Ok(10));
    let batch = builder.finish();
    let header = header_of(&batch);
    let view = BatchView::parse(&batch.body, &header).unwrap();
    assert_eq!(view.keys_column().validity(), [0, 0b010]);
    assert_eq!(view.values_column().validity(), [0xff, 0b011]);
    assert!(view.timestamp_delta_bytes().is_empty() && view.offset_delta_bytes().is_empty());
    assert_eq!(view.get(9).and_then(|record| record.key), Some(&b""[..]));
    assert_eq!(view.get(10).map(|record| (record.key, record.value)), Some((None, None)));
}

#[test]
fn a_finished_builder_starts_anew_and_reuses_memory() {
    let mut builder = BatchBuilder::with_capacity(16);
    let headers = [("name", &b"value"[..])];
    let rich = RecordRef { key: Some(b"k"), value: None, timestamp: Timestamp(7), headers: &headers };
    builder.push(RecordRef::at(Timestamp(9))).unwrap();
    builder.push(rich).unwrap();
    let first = builder.finish();
    assert_eq!((first.base_timestamp, first.max_timestamp), (Timestamp(9), Timestamp(9)));

    builder.push(rich).unwrap();
    builder.clear();
    builder.push(RecordRef { value: Some(b"v"), ..RecordRef::at(Timestamp(-4)) }).unwrap();
    let memory = Vec::with_capacity(4096);
    let address = memory.as_ptr();
    let second = builder.finish_into(memory);
    assert_eq!(second.body.as_ptr(), address);
    assert_eq!((second.base_timestamp, second.max_timestamp), (Timestamp(-4), Timestamp(-4)));
    assert_eq!(second, build(&[Owned { value: Some(b"v".to_vec()), timestamp: -4, ..Owned::default() }]));
}

#[test]
fn a_compressed_body_keeps_its_announcements() {
    let mut batch = build(&[Owned { value: Some(vec![0; 500]), ..Owned::default() }]);
    let plain = batch.body.clone();
    batch.body = b"squeezed".to_vec();
    batch.codec = Codec::Lz4;
    let header = EntryHeader::decode_unsealed(&header_of(&batch).encode_unsealed()).unwrap();
    assert_eq!((header.body_bytes, header.uncompressed_bytes as usize), (8, plain.len()));
    assert_eq!(header.body_crc, checksum::crc32c(b"squeezed"));
    assert!(BatchView::parse(&plain, &header).is_ok());
    assert_eq!(BatchView::parse(b"squeezed", &header).unwrap_err().name(), "body_bytes");
}

#[test]
fn a_record_beyond_its_limits_is_refused_and_changes_nothing() {
    let mut builder = BatchBuilder::with_capacity(16);
    let largest = vec![1; limits::RECORD_BYTES_MAX as usize];
    let headers = [("n", &b""[..])];
    let over = RecordRef { value: Some(&largest), headers: &headers, ..RecordRef::default() };
    assert_eq!(builder.push(over), Err(BatchBuildError::RecordBytes(largest.len() + 1)));
    let many = vec![("", &b""[..]); limits::RECORD_HEADERS_MAX as usize + 1];
    let over = RecordRef { headers: &many, ..RecordRef::default() };
    assert_eq!(builder.push(over), Err(BatchBuildError::RecordHeaders(many.len())));
    assert_eq!(builder.record_count(), 0);

    let most = RecordRef { value: Some(&largest), headers: &many[1..], ..RecordRef::default() };
    assert!(builder.would_fit(&most, u32::MAX));
    assert_eq!(builder.push(most), Ok(0));
    assert!(!builder.would_fit(&most, u32::MAX));
    assert_eq!(builder.push(most), Err(BatchBuildError::Full));
    let batch = builder.finish();
    assert!(BatchView::parse(&batch.body, &header_of(&batch)).is_ok());
}

#[test]
fn a_full_batch_says_so_and_the_next_one_takes_the_record() {
    let mut builder = BatchBuilder::with_capacity(16);
    let tombstone = RecordRef::at(Timestamp(i64::MIN));
    for index in 0..limits::BATCH_RECORDS_MAX {
        assert_eq!(builder.push(tombstone), Ok(index));
    }
    assert_eq!(builder.push(tombstone), Err(BatchBuildError::Full));
    assert!(!builder.would_fit(&tombstone, u32::MAX));
    let batch = builder.finish();
    assert_eq!(BatchView::parse(&batch.body, &header_of(&batch)).unwrap().len(), limits::BATCH_RECORDS_MAX as usize);

    builder.push(tombstone).unwrap();
    let far = RecordRef::at(Timestamp(0));
    assert!(!builder.would_fit(&far, u32::MAX));
    assert_eq!(builder.push(far), Err(BatchBuildError::Full), "a timestamp too far away for a delta");
    builder.clear();
    assert_eq!(builder.push(far), Ok(0));
}

#[test]
#[should_panic(expected = "must hold a record")]
fn an_empty_batch_cannot_be_finished() {
    BatchBuilder::with_capacity(0).finish();
}
