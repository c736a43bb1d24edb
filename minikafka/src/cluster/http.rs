//! Asking gateways over HTTP: the first that answers, and from there to the controller.

use std::time::Duration;

use minikafka_gateway::admin::{ErrorBody, LogLevel, PlanRequest};
use serde::de::DeserializeOwned;
use ureq::http::header;

use crate::exit::{Exit, Failure, Outcome};

/// A gateway that does not take a connection within this is tried no longer.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Redirects that one question follows: the election may change under way.
const REDIRECTS_MAX: usize = 3;
/// An answer is at most this large: that of the largest operation is.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The gateways that are asked, best first.
pub struct Gateways {
    addresses: Vec<String>,
    agent: ureq::Agent,
}

/// What is asked.
#[derive(Clone, Copy)]
enum Question<'a> {
    Get,
    Post(&'a PlanRequest),
    Put(&'a LogLevel),
    Delete,
}

/// An answer, of whatever kind.
struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Gateways {
    /// The gateways at these addresses.
    pub fn new(addresses: &[String], timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(CONNECT_TIMEOUT_MAX)))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A cluster is reached directly, as its native ports are.
            .proxy(None);
        Self { addresses: addresses.to_vec(), agent: config.build().into() }
    }

    /// Asks this one first.
    pub fn prefer(&mut self, address: &str) {
        self.addresses.insert(0, address.to_owned());
    }

    /// How many there are to ask.
    pub fn count(&self) -> usize {
        self.addresses.len()
    }

    /// Asks another one first.
    pub fn turn_to_next(&mut self) {
        self.addresses.rotate_left(1);
    }

    /// Reads.
    pub fn get<T: DeserializeOwned>(&mut self, path: &str) -> Outcome<T> {
        self.ask(Question::Get, path)
    }

    /// Plans or begins.
    pub fn post<T: DeserializeOwned>(&mut self, path: &str, request: &PlanRequest) -> Outcome<T> {
        self.ask(Question::Post(request), path)
    }

    /// Changes a setting.
    pub fn put<T: DeserializeOwned>(&mut self, path: &str, level: &LogLevel) -> Outcome<T> {
        self.ask(Question::Put(level), path)
    }

    /// Aborts.
    pub fn delete<T: DeserializeOwned>(&mut self, path: &str) -> Outcome<T> {
        self.ask(Question::Delete, path)
    }

    fn ask<T: DeserializeOwned>(&mut self, question: Question<'_>, path: &str) -> Outcome<T> {
        let mut last = Failure::new(Exit::Unreachable, "no HTTP port of a gateway is named: use --http");
        for address in &self.addresses {
            let answer = match self.follow(question, &format!("http://{address}{path}")) {
                Ok(answer) => answer,
                // It did not take a connection, so nothing was done: the next one may.
                Err(ureq::Error::Io(error)) if is_refused(&error) => {
                    last = unreachable(address, &ureq::Error::Io(error));
                    continue;
                }
                Err(error @ (ureq::Error::HostNotFound | ureq::Error::ConnectionFailed)) => {
                    last = unreachable(address, &error);
                    continue;
                }
                Err(error) => return Err(unreachable(address, &error)),
            };
            if (200..300).contains(&answer.status) {
                let strange = |error| Failure::failed(format!("{address} answers something else: {error}"));
                return serde_json::from_str(&answer.body).map_err(strange);
            }
            last = refused(address, &answer);
            if last.code.as_deref() != Some("not_controller") {
                break;
            }
        }
        Err(last)
    }

    fn follow(&self, question: Question<'_>, url: &str) -> Result<Answer, ureq::Error> {
        let mut answer = self.once(question, url)?;
        for _ in 0..REDIRECTS_MAX {
            let Some(location) = answer.location.take().filter(|_| answer.status == 307) else { break };
            answer = self.once(question, &location)?;
        }
        Ok(answer)
    }

    fn once(&self, question: Question<'_>, url: &str) -> Result<Answer, ureq::Error> {
        let mut response = match question {
            Question::Get => self.agent.get(url).call()?,
            Question::Post(request) => self.agent.post(url).send_json(request)?,
            Question::Put(level) => self.agent.put(url).send_json(level)?,
            Question::Delete => self.agent.delete(url).call()?,
        };
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.map(str::to_owned);
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        Ok(Answer { status: response.status().as_u16(), location, body })
    }
}

fn is_refused(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionRefused
}

fn unreachable(address: &str, error: &ureq::Error) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!(
            "no answer from the HTTP port of a gateway at {address} ({error}); check --http and that it runs with HTTP"
        ),
    )
}

/// The error of a gateway as one of this command.
fn refused(address: &str, answer: &Answer) -> Failure {
    let Ok(ErrorBody { error }) = serde_json::from_str(&answer.body) else {
        return Failure::failed(format!("{address} answers with status {}: is it a gateway?", answer.status));
    };
    let kind = match error.code.as_str() {
        code if code.starts_with("unknown_") => Exit::NotFound,
        "invalid_request" => Exit::Usage,
        "not_controller" | "timed_out" | "coordinator_unavailable" | "outcome_unknown" => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure { kind, code: Some(error.code), message: format!("{}; {}", error.message, error.fix) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_exit_codes_and_say_what_to_do() {
        let answer = |status, body: &str| Answer { status, location: None, body: body.to_owned() };
        let error = |code: &str| format!(r#"{{"error":{{"code":"{code}","message":"it happened","fix":"do this"}}}}"#);
        let kind = |code: &str| refused("a:1", &answer(400, &error(code))).kind;
        assert_eq!(kind("unknown_node"), Exit::NotFound);
        assert_eq!(kind("below_replication"), Exit::Failed);
        assert_eq!(kind("not_controller"), Exit::Unreachable);
        let failure = refused("a:1", &answer(409, &error("conflict")));
        assert_eq!((failure.code.as_deref(), failure.message.as_str()), (Some("conflict"), "it happened; do this"));
        assert!(refused("a:1", &answer(200, "<html>")).message.contains("a:1"));
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let mut gateways = Gateways::new(std::slice::from_ref(&address), Duration::from_secs(5));
        let failure = gateways.get::<serde_json::Value>("/v1/cluster").expect_err("nobody listens");
        assert_eq!(failure.kind, Exit::Unreachable);
        assert!(failure.message.contains(&address), "{}", failure.message);
    }
}
