//! Sizes and durations as the command line takes them: `256K`, `10s`.

use std::time::Duration;

/// A size in bytes: a whole number, alone or with `K`, `M`, `G` (powers of 1,024).
pub fn bytes(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let upper = upper.trim_end_matches("IB").trim_end_matches('B');
    let (digits, shift) = match upper.as_bytes().last() {
        Some(b'K') => (&upper[..upper.len() - 1], 10),
        Some(b'M') => (&upper[..upper.len() - 1], 20),
        Some(b'G') => (&upper[..upper.len() - 1], 30),
        _ => (upper, 0),
    };
    let number: Option<u64> = digits.trim().parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("{text:?} is not a size: write a number of bytes, or one with K, M or G, such as 256K"))
}

/// The same, for what is less than 4 GiB.
pub fn bytes_u32(text: &str) -> Result<u32, String> {
    u32::try_from(bytes(text)?).map_err(|_| format!("{text:?} is more than the 4 GiB that this can be"))
}

/// A duration: a whole number and `ms`, `s` or `m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[split..].trim() {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    let milliseconds = unit.zip(text[..split].parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a duration: write a number and ms, s or m, such as 10s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        for (text, expected) in
            [("100", 100), ("256K", 256 << 10), ("4MiB", 4 << 20), ("20g", 20 << 30), ("1 kb", 1024)]
        {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for (text, expected) in [("500ms", 500), ("10s", 10_000), ("2m", 120_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for bad in ["", "K", "-1", "1.5M", "99999999999G"] {
            assert!(bytes(bad).is_err() && duration(bad).is_err(), "{bad}");
        }
        assert!(bytes_u32("4G").is_err());
    }
}
