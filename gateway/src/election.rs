//! Election: each gateway adds an ephemeral sequential key below `/gateways`; the lowest number is the controller.
//!
//! Losing it late is harmless: a controller that is no longer elected loses every compare-and-set to the next one. A new
//! session is a new candidate with a new writer id.

use std::sync::Arc;

use minikafka_core::WriterId;
use minikafka_core::coordination::{CoordinationError, CoordinatorEvent, GatewayRecord, KeyLife, path};

use crate::backoff::Backoff;
use crate::gateway::{Advertised, Shared};

/// Where this gateway's keys are; the coordinator appends the number.
const CANDIDATE: &str = "/gateways/gateway-";

/// Who is the controller, as far as this gateway knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// Nobody knows yet.
    #[default]
    Unknown,
    /// Another gateway.
    Other {
        /// Its `host:port`.
        address: String,
        /// `host:port` of its HTTP port; empty: none.
        http: String,
    },
    /// This gateway, writing as this.
    Mine(WriterId),
}

/// Stands for election until dropped.
pub(crate) async fn stand(shared: Arc<Shared>) {
    let mut events = shared.client.watch(path::GATEWAYS);
    let mut backoff = Backoff::default();
    let mut writer = None;
    loop {
        for event in events.next().await {
            match event {
                CoordinatorEvent::SessionExpired => {
                    writer = None;
                    shared.leadership.send_replace(Leadership::Unknown);
                }
                CoordinatorEvent::SessionStarted => writer = None,
                CoordinatorEvent::Changed { .. } | CoordinatorEvent::SessionSuspended => {}
            }
        }
        while let Err(error) = take_part(&shared, &mut writer).await {
            tracing::warn!(%error, "cannot take part in the election");
            backoff.wait().await;
        }
        backoff.reset();
    }
}

/// Registers where this session has not, and finds out who is elected.
async fn take_part(shared: &Shared, writer: &mut Option<WriterId>) -> Result<(), CoordinationError> {
    let Advertised { native: address, http } = &shared.advertised;
    let me = match *writer {
        Some(writer) => writer,
        None => {
            let me = WriterId(rand::random_range(1..=u64::MAX));
            let record = GatewayRecord { writer: me, address: address.clone(), http: http.clone() };
            // After an unknown outcome a second key of the same session may be left; it names an older writer, is
            // found below, and goes with the session.
            shared.client.create(CANDIDATE, &record, KeyLife::EphemeralSequential).await?;
            *writer.insert(me)
        }
    };
    let elected = elected(shared).await?;
    let leadership = match elected {
        None => Leadership::Unknown,
        Some(record) if record.writer == me || record.address == *address => Leadership::Mine(me),
        Some(record) => Leadership::Other { address: record.address, http: record.http },
    };
    shared.leadership.send_if_modified(|known| {
        let changed = *known != leadership;
        if changed {
            tracing::info!(?leadership, "election");
        }
        *known = leadership;
        changed
    });
    Ok(())
}

/// The record of the lowest candidate. One that goes while it is read makes room for the next.
async fn elected(shared: &Shared) -> Result<Option<GatewayRecord>, CoordinationError> {
    let mut names = shared.client.children(path::GATEWAYS).await?;
    names.sort_by_key(|name| sequence(name));
    for name in names {
        if let Some((record, _)) = shared.client.read(&format!("{}/{name}", path::GATEWAYS)).await? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The number behind the last dash; a name without one comes last.
fn sequence(name: &str) -> u64 {
    name.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_decides_not_the_name() {
        let mut names = ["gateway-0000000010", "a-0000000011", "gateway-9", "stray"];
        names.sort_by_key(|name| sequence(name));
        assert_eq!(names, ["gateway-9", "gateway-0000000010", "a-0000000011", "stray"]);
    }
}
