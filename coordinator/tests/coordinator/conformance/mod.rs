//! What every coordinator must do. An implementation hands over a function that makes stores (empty ones, or fresh roots
//! in a shared one); each check takes one and opens as many sessions on it as it needs.

mod changes;
mod duties;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use minikafka_coordinator::{CoordinatorClient, WatchEvents};
use minikafka_core::coordination::{Coordinator, CoordinatorEvent};

/// Whatever is waited for must happen within this, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A session, and how to lose it as a broken network would.
pub struct TestSession {
    pub client: CoordinatorClient,
    /// What the client speaks through.
    pub session: Arc<dyn Coordinator>,
    pub lose: Box<dyn Fn()>,
}

impl TestSession {
    /// Watches a prefix. Of what happened before a watch's session started it tells nothing, so that is waited for.
    pub async fn watch(&self, prefix: &str) -> WatchEvents {
        let mut events = self.client.watch(prefix);
        hear(&mut events, |event| *event == CoordinatorEvent::SessionStarted).await;
        events
    }
}

/// Opens another session on one store.
pub type SessionFactory = Box<dyn Fn() -> TestSession>;

/// Runs all checks.
pub fn run(make: &dyn Fn() -> SessionFactory) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    macro_rules! checks {
        ($($module:ident::$check:ident)*) => {$(
            eprintln!("conformance: {}", stringify!($check));
            runtime.block_on($module::$check(make()));
        )*};
    }
    checks! {
        changes::a_key_lives_through_its_changes
        changes::what_cannot_be_done_is_told_apart
        changes::children_are_direct_and_sorted
        changes::of_racing_writers_one_wins_each_version
        changes::a_version_is_of_no_use_after_a_deletion
        changes::large_values_come_back_whole
        changes::answers_come_in_the_order_of_the_requests
        sessions::ephemerals_go_with_their_session
        sessions::sequential_keys_are_ordered_by_creation
        sessions::watches_tell_of_every_last_change
        sessions::watches_end_at_names
        sessions::watches_reach_what_is_created_later
        sessions::a_lost_session_loses_its_ephemerals_and_goes_on
        sessions::a_closed_session_is_over
        duties::the_lowest_number_is_elected_and_followed
        duties::registrations_come_back_until_given_up
        duties::registrations_take_turns
        duties::a_large_bucket_keeps_what_racing_sessions_add
    }
}

/// Collects events until one satisfies `is_it`; all of them are returned.
pub async fn hear(events: &mut WatchEvents, is_it: impl Fn(&CoordinatorEvent) -> bool) -> Vec<CoordinatorEvent> {
    let mut heard = Vec::new();
    let listening = async {
        while !heard.iter().any(&is_it) {
            heard.extend(events.next().await);
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, listening).await;
    assert!(in_time.is_ok(), "an awaited event did not come; there came {heard:?}");
    heard
}

/// Waits until a question has the wanted answer.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "waited too long for {what}");
}
