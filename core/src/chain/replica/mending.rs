//! Mending a log that lost entries, from other members (R12): what is lost is copied, nothing is cut.
//!
//! ```text
//!   whole ◄──────────────── mended ───────────────┐
//!                                                 │
//!   damaged ── sealed, or told to learn, ──► asked for
//!      ▲        and somebody else is there        │
//!      └── rests ◄──────── not mended ────────────┘
//! ```
//!
//! An entry is known by its place in the chain of hashes, so it may come from anybody, in any epoch: members that are
//! sealed, active, or damaged themselves. While it is mended, a member neither reconciles nor learns. One that could not be
//! mended and is told to copy, by learning or by reconciling with another one's log, drops its own, as R7 allows to who is
//! no survivor.

use super::role::Standing;
use super::{MendOutcome, Output, Replica};
use crate::chain::ChainMember;
use crate::ids::*;
use crate::limits::MEND_RETRY_TICKS;

/// Where a damaged member is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mending {
    /// Nobody was asked yet.
    #[default]
    Untried,
    /// The interpreter is at it.
    Asked,
    /// Somebody is asked again after so many ticks.
    Resting { ticks: u32, nobody_has: bool },
}

impl Replica {
    /// Asks these for what is lost here, unless that is being done, or was just now in vain.
    pub(super) fn mend_from(&mut self, members: &[ChainMember], out: &mut Vec<Output>) {
        let others: Vec<ChainMember> = members.iter().filter(|member| **member != self.me).copied().collect();
        let is_settled = self.cutting.is_none() && self.marking.is_none() && !self.promising;
        let may = matches!(self.standing, Standing::Idle | Standing::Sealed) && is_settled;
        if !self.damaged || others.is_empty() || !may || self.mending != Mending::Untried {
            return;
        }
        self.mending = Mending::Asked;
        out.push(Output::Mend { members: others });
    }

    /// The same, from whoever was asked to promise with it.
    pub(super) fn mend_from_sealed(&mut self, out: &mut Vec<Output>) {
        let members = std::mem::take(&mut self.mend_members);
        self.mend_from(&members, out);
        self.mend_members = members;
    }

    pub(super) fn is_being_mended(&self) -> bool {
        self.mending == Mending::Asked
    }

    pub(super) fn mended(&mut self, outcome: MendOutcome) {
        if !self.is_being_mended() {
            return;
        }
        let ticks = MEND_RETRY_TICKS;
        self.mending = match outcome {
            MendOutcome::NobodyHas => Mending::Resting { ticks, nobody_has: true },
            MendOutcome::Later => Mending::Resting { ticks, nobody_has: false },
            MendOutcome::Whole(state) => {
                debug_assert_eq!(state.end(), self.state.end(), "mending moves no end");
                (self.state, self.damaged) = (*state, false);
                Mending::Untried
            }
        };
    }

    pub(super) fn mending_tick(&mut self, out: &mut Vec<Output>) {
        if let Mending::Resting { ticks, .. } = &mut self.mending {
            *ticks = ticks.saturating_sub(1);
            if *ticks == 0 {
                self.mending = Mending::Untried;
                self.mend_from_sealed(out);
            }
        }
    }

    /// A damaged member is told to learn from an active chain: it is mended from that. Where that was tried in vain it
    /// drops what it has, because nobody counts on it.
    pub(super) fn mend_to_learn(&mut self, chain: &[ChainMember], epoch: Epoch, out: &mut Vec<Output>) {
        self.learned = self.learned.max(epoch);
        self.mend_members = chain.to_vec();
        match self.mending {
            Mending::Untried => self.mend_from(chain, out),
            Mending::Asked | Mending::Resting { .. } => drop(self.drop_if_nobody_has(out)),
        }
    }

    /// A damaged member drops what it has, to copy everything, once nobody had what it lost. True when it does.
    pub(super) fn drop_if_nobody_has(&mut self, out: &mut Vec<Output>) -> bool {
        let was_asked = matches!(self.mending, Mending::Resting { nobody_has: true, .. });
        let drops = was_asked && self.cutting.is_none() && self.marking.is_none();
        if drops {
            (self.damaged, self.mending) = (false, Mending::Untried);
            self.drop_log(out);
        }
        drops
    }
}
