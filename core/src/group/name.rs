//! Names of groups, and of the instances that their members may be: checked once, where they come in.

use std::fmt;
use std::sync::Arc;

use crate::error_code::ErrorCode;
use crate::limits::GROUP_NAME_BYTES_MAX;
use crate::topic::is_name;
use crate::wire::codec::{DecodeError, Reader, Wire};

/// The name of a group: 1 to 249 of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(Arc<str>);

/// The name of a static member, unique in its group, of the same letters; empty: the member has none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(Arc<str>);

impl GroupName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`].
    pub fn new(name: &str) -> Result<Self, ErrorCode> {
        if is_name(name, GROUP_NAME_BYTES_MAX) { Ok(Self(name.into())) } else { Err(ErrorCode::InvalidArgument) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InstanceName {
    /// Of a member that has none.
    pub fn none() -> Self {
        Self("".into())
    }

    /// Checks a name; empty is none.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`].
    pub fn new(name: &str) -> Result<Self, ErrorCode> {
        let is_good = name.is_empty() || is_name(name, GROUP_NAME_BYTES_MAX);
        if is_good { Ok(Self(name.into())) } else { Err(ErrorCode::InvalidArgument) }
    }

    /// Whether the member is none that anybody named.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The name, or nothing.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names are texts on the wire.
macro_rules! wire_name {
    ($name:ident $field:literal) => {
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                (self.0.len() as u16).put(out);
                out.extend_from_slice(self.0.as_bytes());
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let text: String = reader.take()?;
                Self::new(&text).map_err(|_| DecodeError::Field { field: $field })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

wire_name! { GroupName "group name" }
wire_name! { InstanceName "instance name" }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_come_in() {
        for good in ["a", "billing.v2", "A_b-9", &"x".repeat(249)] {
            let name = GroupName::new(good).expect(good);
            assert_eq!(GroupName::from_bytes(&name.to_bytes()), Ok(name));
        }
        for bad in ["", ".", "..", "a b", "ü", "a/b", &"x".repeat(250)] {
            assert_eq!(GroupName::new(bad), Err(ErrorCode::InvalidArgument), "{bad}");
            let text = bad.to_owned().to_bytes();
            assert_eq!(GroupName::from_bytes(&text), Err(DecodeError::Field { field: "group name" }), "{bad}");
        }
        assert!(InstanceName::new("").is_ok_and(|name| name.is_none() && name == InstanceName::none()));
        assert!(InstanceName::new("worker-3").is_ok_and(|name| !name.is_none()));
        assert_eq!(InstanceName::new("a b"), Err(ErrorCode::InvalidArgument));
    }
}
