//! What the group decided and the application has not been told yet. Pure.
//!
//! One line per partition, however much happens before the application asks: what it never heard of can be given back, or
//! be lost, without it.

use std::collections::BTreeMap;

use minikafka_core::{Offset, PartitionKey};

use crate::error::Error;

/// Where reading begins.
#[derive(Clone, Debug)]
pub(super) enum Begin {
    /// Here.
    At(Offset),
    /// At the first record that is there.
    Earliest,
    /// Nowhere, before the application seeks.
    Refused(Error),
}

/// Something to be told.
#[derive(Debug)]
pub(super) enum Notice {
    /// These belong to others.
    Lost(Vec<PartitionKey>),
    /// These are to be given back.
    Revoked(Vec<PartitionKey>),
    /// These may be read.
    Assigned(Vec<(PartitionKey, Begin)>),
}

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    news: BTreeMap<PartitionKey, News>,
    ended: Option<Error>,
}

#[derive(Debug, Default)]
struct News {
    gone: Option<Gone>,
    assigned: Option<Assigned>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Lost,
    Revoked,
}

#[derive(Debug)]
enum Assigned {
    /// Where to begin is being found out.
    Somewhere,
    Known(Begin),
}

impl Inbox {
    /// A partition may be read; none: where from is told [later](Self::begins).
    pub(super) fn assigned(&mut self, partition: PartitionKey, begin: Option<Begin>) {
        self.news.entry(partition).or_default().assigned = Some(begin.map_or(Assigned::Somewhere, Assigned::Known));
    }

    /// Where to begin was found out. False: that does not matter any more.
    pub(super) fn begins(&mut self, partition: PartitionKey, begin: Begin) -> bool {
        let assigned = self.news.get_mut(&partition).and_then(|news| news.assigned.as_mut());
        let waiting = assigned.filter(|assigned| matches!(assigned, Assigned::Somewhere));
        waiting.map(|assigned| *assigned = Assigned::Known(begin)).is_some()
    }

    /// A partition is to be given back. False: the application never heard of it, so it is free already.
    pub(super) fn revoked(&mut self, partition: PartitionKey) -> bool {
        self.gone(partition, Gone::Revoked)
    }

    /// A partition belongs to somebody else.
    pub(super) fn lost(&mut self, partition: PartitionKey) {
        self.gone(partition, Gone::Lost);
    }

    fn gone(&mut self, partition: PartitionKey, gone: Gone) -> bool {
        let news = self.news.entry(partition).or_default();
        if news.assigned.take().is_none() {
            news.gone = Some(gone);
            return true;
        }
        if news.gone.is_none() {
            self.news.remove(&partition);
        }
        false
    }

    /// Nothing will be assigned any more, because of this.
    pub(super) fn end(&mut self, error: Error) {
        self.ended.get_or_insert(error);
    }

    pub(super) fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// The next thing to be told: what is gone before what is new, because it may be the same.
    pub(super) fn take(&mut self) -> Option<Notice> {
        let lost = self.take_gone(Gone::Lost);
        if !lost.is_empty() {
            return Some(Notice::Lost(lost));
        }
        let revoked = self.take_gone(Gone::Revoked);
        if !revoked.is_empty() {
            return Some(Notice::Revoked(revoked));
        }
        let assigned = self.take_assigned();
        (!assigned.is_empty()).then_some(Notice::Assigned(assigned))
    }

    fn take_gone(&mut self, gone: Gone) -> Vec<PartitionKey> {
        let of_this_kind = self.news.iter_mut().filter(|(_, news)| news.gone == Some(gone));
        let taken = of_this_kind.map(|(partition, news)| {
            news.gone = None;
            *partition
        });
        let taken = taken.collect();
        self.news.retain(|_, news| news.gone.is_some() || news.assigned.is_some());
        taken
    }

    fn take_assigned(&mut self) -> Vec<(PartitionKey, Begin)> {
        let is_known = |_: &PartitionKey, news: &mut News| matches!(news.assigned, Some(Assigned::Known(_)));
        let begin = |(partition, news): (PartitionKey, News)| match news.assigned {
            Some(Assigned::Known(begin)) => Some((partition, begin)),
            Some(Assigned::Somewhere) | None => None,
        };
        self.news.extract_if(.., is_known).filter_map(begin).collect()
    }
}

#[cfg(test)]
mod tests {
    use minikafka_core::{Partition, TopicId};

    use super::*;

    const A: PartitionKey = PartitionKey { topic: TopicId(1), partition: Partition(0) };
    const B: PartitionKey = PartitionKey { topic: TopicId(1), partition: Partition(1) };

    /// What is told, in short.
    fn told(inbox: &mut Inbox) -> Vec<String> {
        let told = std::iter::from_fn(|| inbox.take()).map(|notice| match notice {
            Notice::Lost(of) => format!("lost {}", of.len()),
            Notice::Revoked(of) => format!("revoked {}", of.len()),
            Notice::Assigned(of) => format!("assigned {}", of.len()),
        });
        told.collect()
    }

    #[test]
    fn what_is_gone_is_told_before_what_is_new() {
        let mut inbox = Inbox::default();
        assert!(inbox.revoked(A));
        inbox.lost(B);
        inbox.assigned(B, Some(Begin::Earliest));
        assert_eq!(told(&mut inbox), ["lost 1", "revoked 1", "assigned 1"]);
        assert!(told(&mut inbox).is_empty() && inbox.news.is_empty());
    }

    #[test]
    fn what_was_never_heard_of_can_be_taken_back_without_a_word() {
        let mut inbox = Inbox::default();
        inbox.assigned(A, Some(Begin::At(Offset(4))));
        inbox.assigned(B, None);
        assert!(!inbox.revoked(A) && !inbox.revoked(B), "free already");
        assert!(told(&mut inbox).is_empty() && inbox.news.is_empty());
        // But what it had before is.
        assert!(inbox.revoked(A));
        inbox.lost(A);
        inbox.assigned(A, Some(Begin::At(Offset(4))));
        assert!(!inbox.revoked(A));
        assert_eq!(told(&mut inbox), ["lost 1"]);
    }

    #[test]
    fn where_to_begin_may_be_told_later() {
        let mut inbox = Inbox::default();
        inbox.assigned(A, None);
        assert!(told(&mut inbox).is_empty());
        assert!(inbox.begins(A, Begin::At(Offset(7))) && !inbox.begins(A, Begin::Earliest));
        assert_eq!(told(&mut inbox), ["assigned 1"]);
        assert!(!inbox.begins(A, Begin::Earliest) && !inbox.begins(B, Begin::Earliest));
    }
}
