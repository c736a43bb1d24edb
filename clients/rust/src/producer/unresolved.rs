//! Which batches are not resolved yet: what `flush` waits for.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::error::{Error, Result};

/// Numbers batches in the order in which they were opened, across partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub u64);

/// The tickets of unresolved batches.
#[derive(Debug, Default)]
pub(super) struct Unresolved {
    tickets: Mutex<Tickets>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Tickets {
    next: u64,
    open: BTreeSet<u64>,
    /// Not yet told by a flush.
    first_failure: Option<Error>,
}

impl Unresolved {
    /// The ticket of a batch that is being opened.
    pub(super) fn open(&self) -> Ticket {
        let mut tickets = self.tickets();
        let ticket = tickets.next;
        tickets.next += 1;
        tickets.open.insert(ticket);
        Ticket(ticket)
    }

    /// The batch is stored or has failed.
    pub(super) fn resolve(&self, ticket: Ticket, failure: Option<&Error>) {
        let mut tickets = self.tickets();
        let was_oldest = tickets.open.first() == Some(&ticket.0);
        tickets.open.remove(&ticket.0);
        if tickets.first_failure.is_none() {
            tickets.first_failure = failure.cloned();
        }
        drop(tickets);
        if was_oldest {
            self.changed.notify_waiters();
        }
    }

    /// The ticket that the next batch will get.
    pub(super) fn next(&self) -> Ticket {
        Ticket(self.tickets().next)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tickets().open.is_empty()
    }

    /// Waits until every batch with a ticket before `end` is resolved, and returns the first failure that no earlier
    /// call has returned.
    pub(super) async fn all_before(&self, end: Ticket) -> Result<()> {
        loop {
            // Registered before the look, so that no change falls between.
            let changed = self.changed.notified();
            {
                let mut tickets = self.tickets();
                if tickets.open.first().is_none_or(|oldest| *oldest >= end.0) {
                    return tickets.first_failure.take().map_or(Ok(()), Err);
                }
            }
            changed.await;
        }
    }

    fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
