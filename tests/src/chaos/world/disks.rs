//! What is done to brokers' disks.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use minikafka_client::core::limits::DISK_RESERVE_BYTES_DEFAULT;

use super::{PATIENCE, SCRUB_BYTES_PER_SECOND, World, list};
use crate::cluster::Member;
use crate::rot::{self, Share};

/// Space that is left above the broker's reserve on a disk that fills up.
const SLACK_BYTES: u64 = 4 << 20;

impl World {
    /// Flips so many bits in each range's files of a broker, and swaps blocks, within a share of all entries.
    pub fn spoil(&mut self, broker: u8, share: Share, flips: usize) -> Result<()> {
        let damage = rot::spoil(&self.cluster.data_directory(broker), share, flips, &mut self.random)?;
        ensure!(damage.flips > 0, "broker {broker} has too little to be damaged");
        let whole =
            if share.of == 1 { String::new() } else { format!(", in entries that are its own share of {}", share.of) };
        self.say(&format!(
            "rot at broker {broker}: {} bits flipped, {} pairs of blocks swapped in {} files of {} ranges{whole}",
            damage.flips,
            damage.swaps,
            damage.files.len(),
            damage.logs
        ));
        self.rotten.extend(damage.files);
        Ok(())
    }

    /// Waits until every file that was damaged is replaced by one that is whole, as long as that goes on: mended files have
    /// names of their own.
    pub fn await_mended(&mut self) -> Result<()> {
        let mut left: BTreeSet<PathBuf> = std::mem::take(&mut self.rotten);
        let count = left.len();
        while !left.is_empty() {
            let before = left.len();
            let patience = PATIENCE + self.scrub_round()?;
            let waited = self.wait_within(patience, "more of what rotted is mended", |_| {
                left.retain(|path| path.exists());
                Ok(left.len() < before)
            });
            waited.map_err(|error| error.context(format!("still damaged: {left:?}")))?;
        }
        self.say(&format!("{count} damaged files are replaced"));
        Ok(())
    }

    /// How long a broker needs to read all that it has: what rotted is met within that. Half the rate that it may read with is
    /// reckoned, because it yields to clients.
    fn scrub_round(&self) -> Result<Duration> {
        let bytes =
            self.cluster.brokers().into_iter().map(|broker| rot::log_bytes(&self.cluster.data_directory(broker)));
        let most = bytes.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
        Ok(Duration::from_secs(most / (SCRUB_BYTES_PER_SECOND / 2)))
    }

    /// What a broker and its disk exchange is bounded.
    pub fn slow_disk(&mut self, broker: u8, bytes_per_second: u64) -> Result<()> {
        self.cluster.slow_disk(broker, bytes_per_second)?;
        self.say(&format!("the disk of broker {broker} carries {bytes_per_second} bytes a second"));
        Ok(())
    }

    /// A broker that is dead gets a small disk, which is empty.
    pub fn change_to_small_disk(&mut self, broker: u8) -> Result<()> {
        self.cluster.change_to_small_disk(broker)?;
        self.say(&format!("broker {broker} gets a small, empty disk"));
        Ok(())
    }

    /// Takes the space of a small disk, up to the broker's reserve and a little.
    pub fn fill_disk(&mut self, broker: u8) -> Result<()> {
        self.cluster.small_disk(broker)?.add_ballast(DISK_RESERVE_BYTES_DEFAULT + SLACK_BYTES)?;
        self.say(&format!("the disk of broker {broker} is nearly full"));
        Ok(())
    }

    /// Gives the space back.
    pub fn free_disk(&mut self, broker: u8) -> Result<()> {
        self.cluster.small_disk(broker)?.drop_ballast()?;
        self.say(&format!("the disk of broker {broker} has space again"));
        Ok(())
    }

    /// Waits until a broker's log says a word.
    pub fn await_log(&mut self, broker: u8, word: &str) -> Result<()> {
        let what = format!("the log of {} says {word}", list(&[broker]));
        self.wait(&what, |world| Ok(world.cluster.log(Member::Broker(broker)).contains(word)))?;
        self.say(&what);
        Ok(())
    }
}
