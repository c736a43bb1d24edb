//! How a command ends: exit codes that mean something, and errors that say what happened, to what, and what to do.

use std::fmt;
use std::io;
use std::process::ExitCode;

use minikafka_client::Error as ClientError;
use minikafka_core::ErrorCode;
use serde::Serialize;

/// Shown at the end of `minikafka help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; the message says what to do
  2  the command line is wrong, or the configuration file
  3  nobody answered: not reachable, or not in time
  4  not found: no such topic, partition, offset or group
  5  partly done: the summary says what is stored and what is not
  6  damaged: bytes on disk do not verify; each place is named, with what to do";

/// Why a command did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Anything that has no code of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Nobody answered, or not in time.
    Unreachable = 3,
    /// What was named is not there.
    NotFound = 4,
    /// Some of it is done, some is not.
    Partial = 5,
    /// Bytes on disk do not verify.
    Damaged = 6,
    /// Whoever read our output has gone away: nothing is wrong.
    ReaderGone = 0,
}

/// The end of a command that did not succeed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// What kind of failure; its number is the exit code.
    pub kind: Exit,
    /// Name of the error in the protocol's table, if it came from a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened, to what, and what to do.
    pub message: String,
}

/// The result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: Exit, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into() }
    }

    /// A failure without a code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line is wrong in a way that its parser cannot see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A file or stream could not be used.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::ReaderGone, ""),
            _ => Self::failed(format!("{what}: {error}")),
        }
    }

    /// The same failure after a part was done.
    #[must_use]
    pub fn partly(mut self, done: impl fmt::Display) -> Self {
        self.kind = Exit::Partial;
        self.message = format!("{}; {done}", self.message);
        self
    }

    /// Tells the person, or the machine, on standard error.
    pub fn report(&self, json: bool) {
        if self.kind == Exit::ReaderGone {
            return;
        }
        if json {
            let error = serde_json::json!({ "error": self, "exit": self.kind as u8 });
            eprintln!("{error}");
        } else {
            eprintln!("minikafka: {}", self.message);
        }
    }

    /// The number for the shell.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::ConnectFailed { .. }
            | ClientError::ConnectionLost { .. }
            | ClientError::DeadlineExceeded { .. }
            | ClientError::NoGateway { .. } => Exit::Unreachable,
            ClientError::NoSuchPartition { .. } => Exit::NotFound,
            ClientError::Broker(broker) => kind_of_code(broker.code),
            _ => Exit::Failed,
        };
        let code = error.code().map(|code| code.to_string());
        Self { kind, code, message: error.to_string() }
    }
}

fn kind_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::UnknownTopic
        | ErrorCode::OffsetOutOfRange
        | ErrorCode::UnknownPartition
        | ErrorCode::UnknownGroup => Exit::NotFound,
        ErrorCode::TimedOut | ErrorCode::CoordinatorUnavailable | ErrorCode::ShuttingDown => Exit::Unreachable,
        ErrorCode::InvalidTopicName => Exit::Usage,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_client_have_their_exit_codes() {
        let kind = |error: ClientError| Failure::from(error).kind;
        assert_eq!(kind(ClientError::broker(ErrorCode::UnknownTopic, "t")), Exit::NotFound);
        assert_eq!(kind(ClientError::broker(ErrorCode::TopicExists, "t")), Exit::Failed);
        assert_eq!(kind(ClientError::NoGateway { tried: "a:1".into(), last: "refused".into() }), Exit::Unreachable);
        let failure = Failure::from(ClientError::broker(ErrorCode::UnknownTopic, "topic t"));
        assert_eq!(failure.code.as_deref(), Some("unknown_topic"));
        assert!(failure.message.contains("topic t"), "{}", failure.message);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let failure = Failure::io("standard output", &io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.kind as u8, 0);
        assert_eq!(Failure::failed("x").partly("3 of 5 stored").kind, Exit::Partial);
    }
}
