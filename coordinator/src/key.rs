//! What every coordinator demands of keys and values, and which watches cover a key.

use minikafka_core::coordination::CoordinationError;
use minikafka_core::limits;

/// Refuses paths and values that some coordinator could not keep.
pub(crate) fn check(path: &str, value: &[u8]) -> Result<(), CoordinationError> {
    let well_formed = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_name));
    if !well_formed || path.len() > limits::TEXT_BYTES_MAX {
        return Err(malformed(path, "a path is /name/name, without empty names, dots alone and control characters"));
    }
    if value.len() > limits::COORDINATOR_VALUE_BYTES_MAX {
        return Err(malformed(
            path,
            &format!(
                "the value has {} bytes, a coordinator takes {}; spread it over more keys: topics with fewer settings, \
                 chunks with fewer ranges",
                value.len(),
                limits::COORDINATOR_VALUE_BYTES_MAX
            ),
        ));
    }
    Ok(())
}

/// Whether `path` is `prefix` or lies below it.
pub(crate) fn covers(prefix: &str, path: &str) -> bool {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The paths above `path`, nearest to the root first, without the root itself.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(at, _)| &path[..at])
}

pub(crate) fn malformed(path: &str, reason: &str) -> CoordinationError {
    CoordinationError::Malformed { path: path.to_owned(), reason: reason.to_owned() }
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_neither_empty_nor_dots_nor_control_characters() {
        for good in ["/a", "/a/b", "/a.b/...", "/ä"] {
            assert_eq!(check(good, &[]), Ok(()), "{good}");
        }
        for bad in ["", "/", "a", "/a/", "//a", "/a//b", "/./a", "/a/..", "/a\nb", "/a\0"] {
            assert!(check(bad, &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_watch_covers_whole_names() {
        assert!(covers("/a", "/a") && covers("/a", "/a/b") && covers("/", "/a") && covers("/a/", "/a/b"));
        assert!(!covers("/a", "/ab") && !covers("/a/b", "/a"));
        assert_eq!(ancestors("/a/b/c").collect::<Vec<_>>(), ["/a", "/a/b"]);
    }
}
