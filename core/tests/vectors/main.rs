//! The golden vectors in `tests/vectors/`, which every language reads, written and read by this one.
//!
//! Every file is generated here. The tests compare it byte by byte with what is in the repository, and then read it
//! back through the public API as another language would. A deliberate change of a format is blessed with
//! `MINIKAFKA_BLESS=1 cargo test -p minikafka-core --test vectors`, and its diff reviewed as a change of contract.

mod batches;
mod checksums;
mod entries;
mod frames;
mod groups;
mod malformed;

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Compares the file with `generated` (or writes it when blessing), and returns what another language would read.
fn golden<T: Serialize + DeserializeOwned>(file_name: &str, generated: &T) -> T {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(file_name);
    let text = serde_json::to_string_pretty(generated).expect("vectors are plain data") + "\n";
    if std::env::var_os("MINIKAFKA_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
    let stored =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let first_difference = stored.lines().zip(text.lines()).position(|(stored, generated)| stored != generated);
    assert!(
        stored == text,
        "{} differs from what this code generates, first after line {first_difference:?}; if the format was meant to \
         change, bless it with MINIKAFKA_BLESS=1",
        path.display()
    );
    serde_json::from_str(&stored).expect("a file that was compared is readable")
}

/// Bytes as lower-case hexadecimal digits, in JSON and here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hex(Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

impl<'de> serde::Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(serde::de::Error::custom);
        (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>().map(Self)
    }
}

impl From<&[u8]> for Hex {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}
