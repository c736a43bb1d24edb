//! Fields of messages: how each is put and taken (`docs/PROTOCOL.md`, "Fields").
//!
//! Every length is checked against what is there before anything is allocated for it.

use thiserror::Error;

use crate::error_code::ErrorCode;
use crate::ids::*;
use crate::limits;
use crate::topic::TopicState;

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The message ends inside a field.
    #[error("the message ends {missing} bytes too early")]
    Truncated {
        /// How many bytes more were needed at least.
        missing: usize,
    },
    /// Bytes are left over.
    #[error("{0} bytes are left over behind the message")]
    Trailing(usize),
    /// A field is outside its range.
    #[error("field {field} is outside its range")]
    Field {
        /// What it is.
        field: &'static str,
    },
}

/// Takes fields from a message, front to back.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(DecodeError::Truncated { missing: count - self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The next field.
    pub fn take<T: Wire>(&mut self) -> Result<T, DecodeError> {
        T::take(self)
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Asserts that nothing is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }
}

/// Something that has one form on the wire.
pub trait Wire: Sized {
    /// Appends the wire form.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes the wire form.
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The whole message as bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// The message that `bytes` are, with nothing behind it.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = Self::take(&mut reader)?;
        reader.finish().map(|()| message)
    }
}

macro_rules! wire_numbers {
    ($($number:ty)*) => {$(
        impl Wire for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let bytes = reader.bytes(size_of::<$number>())?;
                Ok(Self::from_le_bytes(bytes.try_into().expect("exactly as many bytes were taken")))
            }
        }
    )*};
}

macro_rules! wire_ids {
    ($($id:ident)*) => {$(
        impl Wire for $id {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.take().map(Self)
            }
        }
    )*};
}

wire_numbers! { u8 u16 u32 u64 i16 i32 i64 }
wire_ids! {
    RingId RangeId NodeId ShardId StoreId Incarnation Epoch LogIndex RunningHash TopicId Partition Offset ProducerId
    ProducerEpoch Sequence WriterId ClusterId Timestamp ConfigVersion
    StreamId CopyId MemberId GroupGeneration GroupSequence
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.take::<u8>()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Field { field: "bool" }),
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(reader.bytes(N)?.try_into().expect("exactly as many bytes were taken"))
    }
}

impl Wire for String {
    /// Texts longer than [`limits::TEXT_BYTES_MAX`] are cut at a character.
    fn put(&self, out: &mut Vec<u8>) {
        let text = &self[..self.floor_char_boundary(limits::TEXT_BYTES_MAX)];
        (text.len() as u16).put(out);
        out.extend_from_slice(text.as_bytes());
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = usize::from(reader.take::<u16>()?);
        if length > limits::TEXT_BYTES_MAX {
            return Err(DecodeError::Field { field: "text length" });
        }
        let bytes = reader.bytes(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::Field { field: "text" })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.take::<u32>()? as usize;
        // Each item takes at least one byte, so a lying count cannot make us allocate more than was sent.
        if count > reader.remaining() {
            return Err(DecodeError::Truncated { missing: count - reader.remaining() });
        }
        let mut items = Vec::with_capacity(count.min(reader.remaining() / size_of::<T>().max(1) + 1));
        for _ in 0..count {
            items.push(reader.take()?);
        }
        Ok(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.take()? { reader.take().map(Some) } else { Ok(None) }
    }
}

impl Wire for Option<ErrorCode> {
    fn put(&self, out: &mut Vec<u8>) {
        self.map_or(0, |code| code as u16).put(out);
    }
    /// A number of a newer release becomes [`ErrorCode::Internal`]: not retriable, as the table asks.
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.take::<u16>()? {
            0 => None,
            number => Some(ErrorCode::from_number(number).unwrap_or(ErrorCode::Internal)),
        })
    }
}

impl Wire for TopicState {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_number(reader.take()?).ok_or(DecodeError::Field { field: "topic state" })
    }
}

/// Gives a struct its wire form, field by field; both directions follow from the order of the fields.
macro_rules! wire_form {
    ($name:ty { $($field:ident)* }) => {
        impl $crate::wire::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::wire::codec::Wire::put(&self.$field, out);)*
            }
            fn take(
                reader: &mut $crate::wire::codec::Reader<'_>,
            ) -> Result<Self, $crate::wire::codec::DecodeError> {
                Ok(Self { $($field: reader.take()?,)* })
            }
        }
    };
}

/// Declares a message once, with its wire form.
macro_rules! wire_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        $crate::wire::codec::wire_form! { $name { $($field)* } }
    };
}
pub(crate) use {wire_form, wire_struct};

wire_form! { RangeKey { ring range } }
wire_form! { PartitionKey { topic partition } }
wire_form! { LogPoint { index hash } }
wire_form! {
    crate::topic::TopicConfig { retention_ms retention_bytes batch_bytes_max produce_bytes_per_second }
}
wire_form! {
    crate::topic::TopicConfigChange { retention_ms retention_bytes batch_bytes_max produce_bytes_per_second }
}
