//! Bodies that every reader must refuse: each rule of `docs/DATA_FILE.md` section 1 broken at least once.

use minikafka_core::batch::{Column, Columns, ROOT_BYTES};
use minikafka_core::limits;

use crate::Hex;
use crate::batches::{HeaderFields, Malformed};

/// A header of that many records, all of them at time 0.
pub fn header_fields(record_count: u32, last_offset_delta: u32) -> HeaderFields {
    HeaderFields {
        uncompressed_bytes: 0,
        record_count,
        base_offset: 0,
        last_offset_delta,
        base_timestamp: 0,
        max_timestamp: 0,
    }
}

/// All bodies to be refused.
pub fn batches() -> Vec<Malformed> {
    let mut all = headers();
    all.extend(truncations());
    all.extend(places());
    all.extend(lengths());
    all.extend(offsets());
    all.extend(contents());
    all
}

/// Three records that use every column: the second key and the third value are absent.
fn columns() -> Columns {
    Columns {
        key_offsets: vec![0, 2, 2, 5],
        keys: b"k1key".to_vec(),
        value_offsets: vec![0, 2, 3, 3],
        values: b"v1w".to_vec(),
        key_validity: vec![0b101],
        value_validity: vec![0b011],
        timestamp_deltas: vec![0, 5, -5],
        header_counts: vec![0, 1, 1, 3],
        header_name_offsets: vec![0, 1, 3, 4],
        header_names: "aéb".into(),
        header_value_offsets: vec![0, 1, 1, 2],
        header_values: b"xy".to_vec(),
        offset_deltas: vec![0, 1, 4],
    }
}

/// The fault to be found: name of the error and, if one is at fault, the column.
type Fault = (&'static str, Option<Column>);

fn case(
    name: &str,
    (error, column): Fault,
    columns: &Columns,
    change: impl FnOnce(&mut HeaderFields, &mut Vec<u8>),
) -> Malformed {
    let mut body = columns.encode();
    let mut header = header_fields(3, 4);
    header.uncompressed_bytes = body.len() as u32;
    let announced = body.len();
    change(&mut header, &mut body);
    if body.len() != announced {
        header.uncompressed_bytes = body.len() as u32;
    }
    let column = column.map(|column| column.name().to_owned());
    Malformed { name: name.to_owned(), error: error.to_owned(), column, header, body: Hex(body) }
}

fn with_header(name: &str, fault: Fault, change: impl FnOnce(&mut HeaderFields)) -> Malformed {
    case(name, fault, &columns(), |header, _| change(header))
}

fn with_body(name: &str, fault: Fault, change: impl FnOnce(&mut Vec<u8>)) -> Malformed {
    case(name, fault, &columns(), |_, body| change(body))
}

fn with_columns(name: &str, fault: Fault, change: impl FnOnce(&mut Columns)) -> Malformed {
    let mut columns = columns();
    change(&mut columns);
    case(name, fault, &columns, |_, _| ())
}

/// Moves a column in the root by `by` bytes, and changes its length by `longer` elements.
fn describe(body: &mut [u8], column: Column, by: i32, longer: i32) {
    let at = body.len() - ROOT_BYTES + column.root_offset();
    for (at, change) in [(at, by), (at + 4, longer)] {
        let field = body[at..].first_chunk_mut().expect("a root has two fields for each column");
        *field = i32::from_le_bytes(*field).wrapping_add(change).to_le_bytes();
    }
}

/// Position of a column's data.
fn place(body: &[u8], column: Column) -> usize {
    let at = body.len() - ROOT_BYTES + column.root_offset();
    let relative = i32::from_le_bytes(*body[at..].first_chunk().expect("a root has two fields for each column"));
    (at as i64 + i64::from(relative)) as usize
}

fn headers() -> Vec<Malformed> {
    let length_of_values = ("column_length", Some(Column::ValueOffsets));
    vec![
        with_header("no record announced", ("record_count", None), |header| header.record_count = 0),
        with_header("too many records announced", ("record_count", None), |header| {
            header.record_count = limits::BATCH_RECORDS_MAX + 1;
        }),
        with_header("fewer records announced than there are", length_of_values, |header| header.record_count = 2),
        with_header("more records announced than there are", length_of_values, |header| header.record_count = 4),
        with_header("more bytes announced than there are", ("body_bytes", None), |header| {
            header.uncompressed_bytes += 1;
        }),
        with_header("another last offset announced", ("last_offset_delta", None), |header| {
            header.last_offset_delta = 5;
        }),
        case(
            "a gap announced without offset deltas",
            ("last_offset_delta", None),
            &Columns { offset_deltas: Vec::new(), ..columns() },
            |_, _| (),
        ),
    ]
}

fn truncations() -> Vec<Malformed> {
    vec![
        with_body("nothing at all", ("short", None), Vec::clear),
        with_body("one byte less than a root", ("short", None), |body| body.truncate(ROOT_BYTES - 1)),
        with_body("a root of zeros", ("column_length", Some(Column::ValueOffsets)), |body| {
            *body = vec![0; ROOT_BYTES];
            for column in Column::ALL {
                describe(body, column, -(column.root_offset() as i32), 0);
            }
        }),
        with_body("cut at the front", ("column_outside", Some(Column::KeyOffsets)), |body| {
            body.drain(..16);
        }),
        with_body("only the root left", ("column_outside", Some(Column::KeyOffsets)), |body| {
            body.drain(..body.len() - ROOT_BYTES);
        }),
        with_body("cut at the end", ("column_outside", Some(Column::KeyOffsets)), |body| {
            body.truncate(body.len() - 8);
        }),
    ]
}

fn places() -> Vec<Malformed> {
    use Column::*;
    vec![
        with_body("a column before the body", ("column_outside", Some(KeyOffsets)), |body| {
            describe(body, KeyOffsets, -4, 0);
        }),
        with_body("a column that reaches into the root", ("column_outside", Some(OffsetDeltas)), |body| {
            describe(body, OffsetDeltas, 0, 1);
        }),
        with_body("a column behind the root", ("column_outside", Some(Values)), |body| {
            describe(body, Values, 4096, 0);
        }),
        with_body("a column of four billion elements", ("column_outside", Some(TimestampDeltas)), |body| {
            describe(body, TimestampDeltas, 0, -4);
        }),
        with_body("a column that begins within its predecessor", ("column_overlaps", Some(Keys)), |body| {
            describe(body, Keys, -1, 0);
        }),
        with_body("a column that grows into its successor", ("column_overlaps", Some(Values)), |body| {
            describe(body, ValueOffsets, 0, 1);
        }),
        with_body("columns in another order", ("column_misplaced", Some(HeaderNames)), |body| {
            let names = place(body, HeaderNames);
            let values = place(body, HeaderValues);
            describe(body, HeaderNames, (values - names) as i32, 0);
            describe(body, HeaderValues, names as i32 - values as i32, 0);
        }),
        with_body("a column that is not aligned", ("column_misplaced", Some(ValueOffsets)), |body| {
            describe(body, ValueOffsets, -1, 0);
        }),
        with_body("an empty column that is not aligned", ("column_misplaced", Some(TimestampDeltas)), |body| {
            *body = Columns { timestamp_deltas: Vec::new(), ..columns() }.encode();
            describe(body, TimestampDeltas, -1, 0);
        }),
        with_body("a gap where none is needed", ("column_misplaced", Some(Values)), |body| {
            describe(body, Values, 1, -1);
        }),
        with_body("something in a gap", ("gap_not_zero", Some(ValueOffsets)), |body| {
            let gap = place(body, ValueOffsets) - 1;
            body[gap] = 1;
        }),
        with_body("a gap before the root", ("root_misplaced", None), |body| {
            let root = body.len() - ROOT_BYTES;
            body.splice(root..root, [0; 4]);
            Column::ALL.into_iter().for_each(|column| describe(body, column, -4, 0));
        }),
    ]
}

fn lengths() -> Vec<Malformed> {
    use Column::*;
    let length = |column| ("column_length", Some(column));
    vec![
        with_columns("no value offsets", length(ValueOffsets), |columns| columns.value_offsets.clear()),
        with_columns("a key offset too few", length(KeyOffsets), |columns| {
            columns.key_offsets.pop();
        }),
        with_columns("keys without offsets", length(Keys), |columns| {
            columns.key_offsets.clear();
            columns.key_validity.clear();
        }),
        with_columns("a key bitmap without keys", length(KeyValidity), |columns| {
            columns.key_offsets.clear();
            columns.keys.clear();
        }),
        with_columns("a key bitmap too long", length(KeyValidity), |columns| columns.key_validity.push(0)),
        with_columns("a value bitmap too long", length(ValueValidity), |columns| columns.value_validity.push(0)),
        with_columns("a timestamp too few", length(TimestampDeltas), |columns| {
            columns.timestamp_deltas.pop();
        }),
        with_columns("a header count too many", length(HeaderCounts), |columns| columns.header_counts.push(3)),
        with_columns("fewer header names than counted", length(HeaderNameOffsets), |columns| {
            columns.header_name_offsets = vec![0, 1, 4];
        }),
        with_columns("more header values than counted", length(HeaderValueOffsets), |columns| {
            columns.header_value_offsets.push(2);
        }),
        with_columns("headers that are not counted", length(HeaderNameOffsets), |columns| {
            columns.header_counts.clear();
        }),
        with_columns("an offset delta too many", length(OffsetDeltas), |columns| columns.offset_deltas.push(5)),
    ]
}

fn offsets() -> Vec<Malformed> {
    use Column::*;
    let start = |column| ("offsets_start", Some(column));
    let decrease = |column| ("offsets_decrease", Some(column));
    let end = |column| ("offsets_end", Some(column));
    vec![
        with_columns("value offsets that do not start at 0", start(ValueOffsets), |columns| {
            columns.value_offsets[0] = 1
        }),
        with_columns("header counts that do not start at 0", start(HeaderCounts), |columns| {
            columns.header_counts[0] = 1
        }),
        with_columns("offset deltas that do not start at 0", start(OffsetDeltas), |columns| {
            columns.offset_deltas = vec![1, 2, 4];
        }),
        with_columns("key offsets that decrease", decrease(KeyOffsets), |columns| columns.key_offsets[1] = 3),
        with_columns("a negative value offset", decrease(ValueOffsets), |columns| columns.value_offsets[1] = -1),
        with_columns("value offsets that wrap around", decrease(ValueOffsets), |columns| {
            columns.value_offsets = vec![0, i32::MAX, i32::MIN, 3];
        }),
        with_columns("header counts that decrease", decrease(HeaderCounts), |columns| {
            columns.header_counts = vec![0, 4, 1, 3];
        }),
        with_columns("header value offsets that decrease", decrease(HeaderValueOffsets), |columns| {
            columns.header_value_offsets = vec![0, 2, 1, 2];
        }),
        with_columns("offset deltas that do not grow", decrease(OffsetDeltas), |columns| {
            columns.offset_deltas = vec![0, 0, 4];
        }),
        with_columns("values beyond the last offset", end(ValueOffsets), |columns| columns.values.push(b'z')),
        with_columns("key offsets beyond the keys", end(KeyOffsets), |columns| columns.key_offsets[3] = 6),
        with_columns("header name offsets beyond the names", end(HeaderNameOffsets), |columns| {
            columns.header_name_offsets[3] = 5;
        }),
    ]
}

fn contents() -> Vec<Malformed> {
    use Column::*;
    let many = limits::RECORD_HEADERS_MAX as usize + 1;
    vec![
        with_columns("a key bit beyond the last record", ("validity_beyond", Some(KeyValidity)), |columns| {
            columns.key_validity[0] |= 0b1000;
        }),
        with_columns("a value bit beyond the last record", ("validity_beyond", Some(ValueValidity)), |columns| {
            columns.value_validity[0] |= 0b1000_0000;
        }),
        with_columns("an absent key with bytes", ("absent_with_bytes", Some(KeyValidity)), |columns| {
            columns.key_validity[0] = 0b001;
        }),
        with_columns("an absent value with bytes", ("absent_with_bytes", Some(ValueValidity)), |columns| {
            columns.value_validity[0] = 0b010;
        }),
        with_columns("a header name that is not UTF-8", ("header_name_utf8", Some(HeaderNames)), |columns| {
            columns.header_names[0] = 0xff;
        }),
        with_columns("a header name cut within a character", ("header_name_utf8", Some(HeaderNames)), |columns| {
            columns.header_name_offsets = vec![0, 2, 3, 4];
        }),
        case("a timestamp beyond 64 bits", ("timestamp_overflow", Some(TimestampDeltas)), &columns(), |header, _| {
            header.base_timestamp = i64::MAX - 4;
        }),
        with_columns("a record with 1,025 headers", ("record_headers", None), |columns| {
            columns.header_counts = vec![0, 0, 0, many as i32];
            columns.header_name_offsets = vec![0; many + 1];
            columns.header_names.clear();
            columns.header_value_offsets = vec![0; many + 1];
            columns.header_values.clear();
        }),
    ]
}
