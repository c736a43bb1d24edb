//! Who takes part in a cluster, by name: `zookeeper`, `gateway-1`, `broker-2` (or just `2`), and `clients`, which are whatever
//! runs on this machine outside of the cluster.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, ensure};
use serde::{Deserialize, Serialize};

/// Brokers or gateways of one cluster at most: their addresses are numbered.
pub const NUMBER_MAX: u8 = 80;

/// Somebody who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Member {
    /// The coordinator.
    ZooKeeper,
    /// A gateway, counted from 1.
    Gateway(u8),
    /// A broker, counted from 1.
    Broker(u8),
    /// Everybody else: no process of the cluster.
    Clients,
}

/// From whom a broker is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// The other brokers.
    Peers,
    /// The coordinator.
    ZooKeeper,
    /// Clients; gateways still reach it.
    Clients,
    /// Everybody.
    All,
}

impl Member {
    /// The last byte of its address.
    pub(super) fn host_number(self) -> u8 {
        match self {
            Self::ZooKeeper => 2,
            Self::Gateway(number) => 10 + number,
            Self::Broker(number) => 100 + number,
            Self::Clients => 254,
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZooKeeper => write!(f, "zookeeper"),
            Self::Gateway(number) => write!(f, "gateway-{number}"),
            Self::Broker(number) => write!(f, "broker-{number}"),
            Self::Clients => write!(f, "clients"),
        }
    }
}

impl FromStr for Member {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |digits: &str| {
            let number: u8 = digits.parse().with_context(|| format!("{digits:?} is no number"))?;
            ensure!((1..=NUMBER_MAX).contains(&number), "numbers go from 1 to {NUMBER_MAX}, {number} is none");
            Ok(number)
        };
        match text.split_once('-') {
            Some(("broker", digits)) => number(digits).map(Self::Broker),
            Some(("gateway", digits)) => number(digits).map(Self::Gateway),
            _ if text == "zookeeper" => Ok(Self::ZooKeeper),
            _ if text == "clients" => Ok(Self::Clients),
            _ => number(text).map(Self::Broker).with_context(|| {
                format!("{text:?} is nobody: a broker's number, broker-N, gateway-N, zookeeper, clients")
            }),
        }
    }
}

impl From<Member> for String {
    fn from(member: Member) -> Self {
        member.to_string()
    }
}

impl TryFrom<String> for Member {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Others {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "peers" => Self::Peers,
            "zookeeper" => Self::ZooKeeper,
            "clients" => Self::Clients,
            "all" => Self::All,
            _ => anyhow::bail!("{text:?}: a broker is isolated from peers, zookeeper, clients or all"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for member in [Member::ZooKeeper, Member::Gateway(2), Member::Broker(17), Member::Clients] {
            assert_eq!(member.to_string().parse::<Member>().unwrap(), member);
        }
        assert_eq!("3".parse::<Member>().unwrap(), Member::Broker(3));
        for bad in ["0", "broker-0", "broker-81", "gateway", "somebody", ""] {
            assert!(bad.parse::<Member>().is_err(), "{bad:?} is nobody");
        }
    }
}
