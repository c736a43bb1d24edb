//! How consumed records are printed: by a template like kcat's, or as JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Explains templates in the help text.
pub const TEMPLATE_HELP: &str = "\
%k key  %v value  %h headers as name=value,…  %t topic  %p partition  %o offset  %T timestamp (ms since 1970)
%K bytes of the key, %V of the value (-1: none)  %% a percent sign  \\n \\t \\r \\\\ \\0 as in C
`json`: one object a line; keys and values that are not UTF-8 come as key_base64, value_base64";

/// A record as it is printed.
#[derive(Clone, Copy, Debug)]
pub struct Printed<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Producer's timestamp, ms since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// How records are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Piece by piece.
    Template(Vec<Piece>),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(Vec<u8>),
    /// A field of the record.
    Field(Field),
}

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `%k`
    Key,
    /// `%v`
    Value,
    /// `%h`
    Headers,
    /// `%t`
    Topic,
    /// `%p`
    Partition,
    /// `%o`
    Offset,
    /// `%T`
    Timestamp,
    /// `%K`
    KeyBytes,
    /// `%V`
    ValueBytes,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "json" { Ok(Self::Json) } else { template(text).map(Self::Template) }
    }
}

fn template(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let escaped = match letter {
            '%' => letters.next().ok_or("a template ends with %: write %% for a percent sign")?,
            '\\' => letters.next().ok_or("a template ends with \\: write \\\\ for a backslash")?,
            other => {
                literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        };
        match (letter, escaped) {
            ('%', '%') => literal.push(b'%'),
            ('%', name) => {
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Field(field(name)?));
            }
            (_, name) => literal.push(escape(name)?),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    Ok(pieces)
}

fn field(name: char) -> Result<Field, String> {
    Ok(match name {
        'k' => Field::Key,
        // `%s` is kcat's name for it.
        'v' | 's' => Field::Value,
        'h' => Field::Headers,
        't' => Field::Topic,
        'p' => Field::Partition,
        'o' => Field::Offset,
        'T' => Field::Timestamp,
        'K' => Field::KeyBytes,
        'V' | 'S' => Field::ValueBytes,
        other => return Err(format!("%{other} is no field: there are %k %v %h %t %p %o %T %K %V and %%")),
    })
}

fn escape(name: char) -> Result<u8, String> {
    Ok(match name {
        'n' => b'\n',
        't' => b'\t',
        'r' => b'\r',
        '0' => 0,
        '\\' => b'\\',
        other => return Err(format!("\\{other} is no escape: there are \\n \\t \\r \\0 and \\\\")),
    })
}

impl Format {
    /// Each value on a line of its own.
    pub fn lines_of_values() -> Self {
        Self::Template(vec![Piece::Field(Field::Value), Piece::Text(b"\n".to_vec())])
    }

    /// Appends a record to `out`.
    pub fn print(&self, record: &Printed<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => {
                out.extend_from_slice(as_json(record).to_string().as_bytes());
                out.push(b'\n');
            }
            Self::Template(pieces) => pieces.iter().for_each(|piece| match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Field(field) => print_field(*field, record, out),
            }),
        }
    }
}

fn print_field(field: Field, record: &Printed<'_>, out: &mut Vec<u8>) {
    let number = |number: i128, out: &mut Vec<u8>| out.extend_from_slice(number.to_string().as_bytes());
    let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i128);
    match field {
        Field::Key => out.extend_from_slice(record.key.unwrap_or_default()),
        Field::Value => out.extend_from_slice(record.value.unwrap_or_default()),
        Field::Topic => out.extend_from_slice(record.topic.as_bytes()),
        Field::Partition => number(record.partition.into(), out),
        Field::Offset => number(record.offset.into(), out),
        Field::Timestamp => number(record.timestamp_ms.into(), out),
        Field::KeyBytes => number(size(record.key), out),
        Field::ValueBytes => number(size(record.value), out),
        Field::Headers => {
            for (position, (name, value)) in record.headers.iter().enumerate() {
                let mut start = String::new();
                // Writing to a string cannot fail.
                let _ = write!(start, "{}{name}=", if position == 0 { "" } else { "," });
                out.extend_from_slice(start.as_bytes());
                out.extend_from_slice(value);
            }
        }
    }
}

fn as_json(record: &Printed<'_>) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), record.topic.into());
    object.insert("partition".into(), record.partition.into());
    object.insert("offset".into(), record.offset.into());
    object.insert("timestamp_ms".into(), record.timestamp_ms.into());
    put_bytes(&mut object, "key", record.key);
    put_bytes(&mut object, "value", record.value);
    if !record.headers.is_empty() {
        let header = |(name, value): &(&str, &[u8])| {
            let mut header = Map::new();
            header.insert("name".into(), (*name).into());
            put_bytes(&mut header, "value", Some(value));
            Value::Object(header)
        };
        object.insert("headers".into(), json!(record.headers.iter().map(header).collect::<Vec<_>>()));
    }
    Value::Object(object)
}

/// UTF-8 as text under `name`, other bytes as base64 under `name_base64`, none as null.
fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => object.insert(name.into(), Value::Null),
        Some(Ok(text)) => object.insert(name.into(), text.into()),
        Some(Err(_)) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes.unwrap_or_default()).into()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Printed<'_> = Printed {
        topic: "orders",
        partition: 3,
        offset: 41,
        timestamp_ms: 1_700_000_000_123,
        key: Some(b"k1"),
        value: Some(b"hello"),
        headers: &[("a", b"1"), ("b", b"\xff")],
    };

    fn printed(format: &str, record: &Printed<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        format.parse::<Format>().expect("a good format").print(record, &mut out);
        out
    }

    #[test]
    fn templates() {
        assert_eq!(printed("%t/%p@%o %k=%v %T\\n", &RECORD), b"orders/3@41 k1=hello 1700000000123\n");
        assert_eq!(printed("%K %V %%\\t\\\\\\0é", &RECORD), "2 5 %\t\\\0é".as_bytes());
        assert_eq!(printed("%h", &RECORD), b"a=1,b=\xff");
        let tombstone = Printed { value: None, key: None, ..RECORD };
        assert_eq!(printed("[%k][%v]%K%V", &tombstone), b"[][]-1-1");
    }

    #[test]
    fn wrong_templates_say_what_there_is() {
        for wrong in ["%", "%x", "\\", "\\q"] {
            assert!(wrong.parse::<Format>().unwrap_err().contains(['%', '\\']), "{wrong}");
        }
    }

    #[test]
    fn json_keeps_every_byte() {
        let object: Value = serde_json::from_slice(&printed("json", &RECORD)).unwrap();
        assert_eq!(object["value"], "hello");
        assert_eq!(object["headers"][1], json!({"name": "b", "value_base64": "/w=="}));
        let binary = Printed { key: None, value: Some(b"\x00\xfe"), headers: &[], ..RECORD };
        let object: Value = serde_json::from_slice(&printed("json", &binary)).unwrap();
        assert_eq!(
            object,
            json!({"topic": "orders", "partition": 3, "offset": 41, "timestamp_ms": 1_700_000_000_123i64,
            "key": null, "value_base64": "AP4="})
        );
    }
}
