//! [`ZooKeeperAddress`]: `zk://HOST:PORT[,HOST:PORT…][/path]`, parsed in this one place.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::join_all;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::key;

const SCHEME: &str = "zk://";
/// Where everything lies when the address names no path.
const DEFAULT_ROOT: &str = "/minikafka";
/// How long a server may take to accept a connection before another is preferred.
const ACCEPT_WITHIN: Duration = Duration::from_secs(1);

/// Servers of one ensemble, and the key below which the cluster keeps its own.
///
/// ```
/// use minikafka_coordinator::ZooKeeperAddress;
///
/// let address: ZooKeeperAddress = "zk://zk1:2181,zk2:2181/minikafka".parse()?;
/// assert_eq!(address.root(), "/minikafka");
/// assert!("zk1:2181".parse::<ZooKeeperAddress>().is_err());
/// # Ok::<(), minikafka_coordinator::ZooKeeperAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperAddress {
    servers: Vec<String>,
    root: String,
}

/// Why an address is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ZooKeeperAddressError {
    /// It is of another kind.
    #[error("{0:?} does not begin with zk://; a coordinator is zk://HOST:PORT[,HOST:PORT...][/path]")]
    Scheme(String),
    /// One server is not `host:port`.
    #[error("{server:?} in {address:?} is no server: {reason}; write HOST:PORT, as in zk1:2181 or [::1]:2181")]
    Server {
        /// The whole.
        address: String,
        /// The part.
        server: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The path is not one.
    #[error("the path {path:?} in {address:?} is none: write /name/name, as in zk://zk1:2181/minikafka")]
    Path {
        /// The whole.
        address: String,
        /// The part.
        path: String,
    },
}

impl ZooKeeperAddress {
    /// `host:port` of each server.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// The key below which everything lies.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// All addresses of all servers, those first that accept a connection now.
    ///
    /// # Errors
    /// None accepts; the text says why each does not.
    pub(super) async fn reachable(&self) -> Result<Vec<SocketAddr>, String> {
        let mut complaints = Vec::new();
        let mut resolved = Vec::new();
        for (server, found) in self.servers.iter().zip(join_all(self.servers.iter().map(lookup_host)).await) {
            match found {
                Ok(found) => resolved.extend(found),
                Err(error) => complaints.push(format!("{server}: {error}")),
            }
        }
        let tries = join_all(resolved.iter().map(|at| timeout(ACCEPT_WITHIN, TcpStream::connect(*at)))).await;
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (at, outcome) in resolved.into_iter().zip(tries) {
            let complaint = match outcome {
                Ok(Ok(_)) => {
                    good.push(at);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no connection within {ACCEPT_WITHIN:?}"),
            };
            complaints.push(format!("{at}: {complaint}"));
            bad.push(at);
        }
        if good.is_empty() {
            return Err(complaints.join("; "));
        }
        // Processes prefer different servers.
        let first = std::process::id() as usize % good.len();
        good.rotate_left(first);
        good.extend(bad);
        Ok(good)
    }
}

impl FromStr for ZooKeeperAddress {
    type Err = ZooKeeperAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| ZooKeeperAddressError::Scheme(text.to_owned()))?;
        let (servers, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let servers = servers.split(',').map(|server| {
            check_server(server).map_err(|reason| ZooKeeperAddressError::Server {
                address: text.to_owned(),
                server: server.to_owned(),
                reason,
            })
        });
        let servers = servers.collect::<Result<_, _>>()?;
        let root = match path {
            "" | "/" => DEFAULT_ROOT,
            path => path,
        };
        if key::check(root, &[]).is_err() || key::covers("/zookeeper", root) {
            return Err(ZooKeeperAddressError::Path { address: text.to_owned(), path: path.to_owned() });
        }
        Ok(Self { servers, root: root.to_owned() })
    }
}

fn check_server(server: &str) -> Result<String, &'static str> {
    let (host, port) = server.rsplit_once(':').ok_or("it names no port")?;
    let in_brackets = host.starts_with('[') && host.ends_with(']');
    match (host, port.parse::<u16>()) {
        (_, Err(_) | Ok(0)) => Err("its port is no number from 1 to 65535"),
        ("" | "[]", _) => Err("it names no host"),
        (host, _) if host.contains(':') && !in_brackets => Err("an IPv6 address stands in brackets"),
        (host, _) if host.contains(|c: char| c.is_whitespace() || c == '@') => Err("its host is no name or address"),
        _ => Ok(server.to_owned()),
    }
}

impl fmt::Display for ZooKeeperAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.servers.join(","), self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&[&str], &str), &str>) {
        let parsed = text.parse::<ZooKeeperAddress>();
        match (parsed, expected) {
            (Ok(parsed), Ok((servers, root))) => {
                assert_eq!(
                    (parsed.servers(), parsed.root()),
                    (&servers.iter().map(|s| s.to_string()).collect::<Vec<_>>()[..], root)
                );
                assert_eq!(parsed.to_string().parse(), Ok(parsed), "{text}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (parsed, expected) => panic!("{text}: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn addresses_and_what_is_wrong_with_others() {
        check("zk://a:1", Ok((&["a:1"], "/minikafka")));
        check("zk://a:1/", Ok((&["a:1"], "/minikafka")));
        check("zk://a:1,[::1]:2181,10.0.0.1:65535/x/y", Ok((&["a:1", "[::1]:2181", "10.0.0.1:65535"], "/x/y")));
        check("a:1", Err("does not begin with zk://"));
        check("http://a:1", Err("does not begin with zk://"));
        check("zk://", Err("names no port"));
        check("zk://a", Err("names no port"));
        check("zk://a:1,", Err("names no port"));
        check("zk://a:1,b", Err("\"b\""));
        check("zk://:1", Err("names no host"));
        check("zk://a:0", Err("no number from 1 to 65535"));
        check("zk://a:65536", Err("no number from 1 to 65535"));
        check("zk://::1:2181", Err("stands in brackets"));
        check("zk://user@a:1", Err("no name or address"));
        check("zk://a:1/x/", Err("\"/x/\""));
        check("zk://a:1//x", Err("\"//x\""));
        check("zk://a:1/zookeeper", Err("\"/zookeeper\""));
    }
}
