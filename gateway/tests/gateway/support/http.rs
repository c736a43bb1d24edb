//! A client of the HTTP port that writes its bytes itself, so that it can write wrong ones.

use std::net::SocketAddr;
use std::time::Duration;

use minikafka_gateway::GatewayHandle;
use minikafka_gateway::admin::ErrorBody;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body of a success.
    pub fn ok<T: DeserializeOwned>(&self) -> T {
        assert!((200..300).contains(&self.status), "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code of an error, which always says what to do.
    pub fn error(&self) -> (u16, String) {
        let body: ErrorBody = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert!(!body.error.message.is_empty() && !body.error.fix.is_empty(), "{self:?}");
        (self.status, body.error.code)
    }
}

/// The HTTP port of a gateway.
pub struct Http(pub SocketAddr);

impl Http {
    pub fn of(gateway: &GatewayHandle) -> Self {
        Self(gateway.http_address().expect("it was asked for HTTP"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(&format!("DELETE {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, "application/json", &body.to_string()).await
    }

    pub async fn post_text(&self, path: &str, content_type: &str, body: &str) -> Answer {
        let length = body.len();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
             content-length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    /// Sends anything and reads until the other side closes.
    pub async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.0).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        let read = timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await;
        // A server that closes before it has read everything resets the connection; what it said counts.
        drop(read.expect("an answer in time"));
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}
