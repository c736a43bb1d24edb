//! Durations, sizes and times as people write them: `500ms`, `10m`, `256KiB`, `4M`, `2026-11-30T08:00:00Z`.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("kb", 1000),
    ("mb", 1_000_000),
];

/// A duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse(text, &DURATION_UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a duration: write a number and ms, s, m, h or d, such as 10m"))
}

/// A size in bytes: a whole number, alone or with `K`, `M`, `G`, `T` (powers of 1,024).
pub fn bytes(text: &str) -> Result<u64, String> {
    parse(&text.to_ascii_lowercase(), &SIZE_UNITS).ok_or_else(|| {
        format!("{text:?} is not a size: write a number of bytes, or one with K, M, G or T, such as 256K")
    })
}

/// A rate in bytes per second: a size, with or without `/s` behind it; `none` is 0.
pub fn rate(text: &str) -> Result<u64, String> {
    if text == "none" {
        return Ok(0);
    }
    let size = text.strip_suffix("/s").unwrap_or(text);
    bytes(size).map_err(|_| format!("{text:?} is not a rate: write bytes per second, such as 10M, or none"))
}

/// A time as ISO 8601 writes it in UTC, `2026-11-30T08:00:00Z`, in milliseconds since 1970.
pub fn utc_time(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a time: write one in UTC, such as 2026-11-30T08:00:00Z");
    let (date, time) = text.strip_suffix('Z').and_then(|text| text.split_once('T')).ok_or_else(bad)?;
    let [year, month, day] = fields(date, '-', [4, 2, 2]).ok_or_else(bad)?;
    let [hour, minute, second] = fields(time, ':', [2, 2, 2]).ok_or_else(bad)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of = |month: i64| match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=days_of(month)).contains(&day) || !is_time {
        return Err(bad());
    }
    let leap_days = |before: i64| (before - 1) / 4 - (before - 1) / 100 + (before - 1) / 400;
    let days = (year - 1970) * 365 + leap_days(year) - leap_days(1970) + (1..month).map(days_of).sum::<i64>() + day - 1;
    Ok((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// Numbers of so many digits each.
fn fields<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let parts: Vec<&str> = text.split(between).collect();
    let parts: [&str; N] = parts.try_into().ok()?;
    let is_whole = |(part, digits): (&&str, usize)| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
    parts.iter().zip(digits).all(is_whole).then(|| parts.map(|part| part.parse().unwrap_or_default()))
}

/// A duration, or `none`.
pub fn duration_or_none(text: &str) -> Result<Limit<Duration>, String> {
    or_none(text, duration)
}

/// A size, or `none`.
pub fn bytes_or_none(text: &str) -> Result<Limit<u64>, String> {
    or_none(text, bytes)
}

/// A limit that may be absent. (An `Option` would mean to the command line that the option itself may be.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// No limit.
    None,
    /// This much.
    At(T),
}

fn or_none<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Limit<T>, String> {
    if text == "none" { Ok(Limit::None) } else { parse(text).map(Limit::At) }
}

/// The same, for what is at most 4 GiB.
pub fn bytes_u32(text: &str) -> Result<u32, String> {
    u32::try_from(bytes(text)?).map_err(|_| format!("{text:?} is more than the 4 GiB that this can be"))
}

/// A size for people: three digits and a unit of 1,024s.
pub fn show_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A whole number with its thousands apart.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let mut shown = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !shown.is_empty() {
            shown.push(',');
        }
        shown.extend(group.iter().map(|&digit| char::from(digit)));
    }
    shown
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("2 d"), Ok(Duration::from_secs(172_800)));
        for bad in ["", "10", "m", "-1s", "1.5h", "1y", "99999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("256K"), Ok(256 << 10));
        assert_eq!(bytes("4MiB"), Ok(4 << 20));
        assert_eq!(bytes_u32("1 GiB"), Ok(1 << 30));
        assert_eq!((rate("10M/s"), rate("500"), rate("none")), (Ok(10 << 20), Ok(500), Ok(0)));
        assert!(rate("10M/h").is_err());
        assert_eq!(bytes_or_none("none"), Ok(Limit::None));
        assert_eq!(duration_or_none("2s"), Ok(Limit::At(Duration::from_secs(2))));
        for bad in ["", "K", "-1", "1.5M", "12X", "99999999T"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert!(bytes_u32("4G").is_err());
    }

    #[test]
    fn times() {
        assert_eq!(utc_time("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(utc_time("2000-02-29T12:30:15Z"), Ok(951_827_415_000));
        assert_eq!(utc_time("2026-11-30T08:00:00Z"), Ok(1_796_025_600_000));
        for bad in [
            "",
            "2026-11-30",
            "2026-11-30T08:00:00",
            "2026-11-31T08:00:00Z",
            "1900-01-01T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-30T24:00:00Z",
            "2026-11-30T+8:00:00Z",
        ] {
            assert!(utc_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(show_bytes(1023), "1023 B");
        assert_eq!(show_bytes(1 << 20), "1.0 MiB");
        assert_eq!(["0", "999", "1,000", "12,345,678"], [0, 999, 1000, 12_345_678].map(show_count)[..]);
    }
}
