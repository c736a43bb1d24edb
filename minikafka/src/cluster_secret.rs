//! The file of the cluster secret: drawn once, readable by its owner only. `dev` and `server` keep it in the data directory,
//! the processes of a cluster are told where it is (`--secret-file`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::exit::{Failure, Outcome};

/// Name of the file in a data directory: 64 hexadecimal digits and a newline.
pub const FILE_NAME: &str = "cluster-secret";
const SECRET_BYTES: usize = 32;

/// Reads a secret, or draws it when there is none yet.
pub fn load_or_create(path: &Path) -> Outcome<Vec<u8>> {
    match path.try_exists() {
        Ok(false) => create(path),
        _ => load(path),
    }
}

/// Reads a secret.
pub fn load(path: &Path) -> Outcome<Vec<u8>> {
    match fs::read_to_string(path) {
        Ok(text) => read(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::failed(format!(
            "there is no {}: copy the file that `minikafka cluster create` wrote to every broker and gateway",
            path.display()
        ))),
        Err(error) => Err(Failure::io(path.display(), &error)),
    }
}

fn read(path: &Path, text: &str) -> Outcome<Vec<u8>> {
    let mode = fs::metadata(path).map_err(|error| Failure::io(path.display(), &error))?.permissions().mode();
    if mode & 0o077 != 0 {
        let shown = path.display();
        return Err(Failure::failed(format!(
            "{shown} can be read by others (mode {:o}): chmod 600 {shown}",
            mode & 0o777
        )));
    }
    decode(text.trim_end()).ok_or_else(|| {
        Failure::failed(format!(
            "{} is not a secret of {} hexadecimal digits: restore it from a backup, or delete it while nothing runs",
            path.display(),
            2 * SECRET_BYTES
        ))
    })
}

/// Written aside, made durable and renamed: a crash leaves a whole secret or none.
fn create(path: &Path) -> Outcome<Vec<u8>> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let secret: [u8; SECRET_BYTES] = rand::random();
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let aside = path.with_extension("new");
    let written = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        writeln!(file, "{digits}")?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(directory)?.sync_all()
    };
    written().map_err(|error| Failure::io(path.display(), &error))?;
    Ok(secret.to_vec())
}

fn decode(digits: &str) -> Option<Vec<u8>> {
    if digits.len() != 2 * SECRET_BYTES || !digits.is_ascii() {
        return None;
    }
    (0..SECRET_BYTES).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_drawn_once_and_kept_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        assert!(load(&path).unwrap_err().message.contains("cluster create"));
        let secret = load_or_create(&path).unwrap();
        assert_eq!(secret.len(), SECRET_BYTES);
        assert_eq!(load_or_create(&path).unwrap(), secret);
        assert_eq!(load(&path).unwrap(), secret);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_or_create(&path).unwrap_err().message.contains("chmod 600"));
    }

    #[test]
    fn a_damaged_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        load_or_create(&path).unwrap();
        for damaged in ["", "abc", &"x".repeat(64), &"é".repeat(32)] {
            fs::write(&path, damaged).unwrap();
            assert!(load_or_create(&path).is_err(), "{damaged:?}");
        }
    }
}
