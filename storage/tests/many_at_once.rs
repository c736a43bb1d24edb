//! Cause: hundreds of I/O futures joined in one task were all polled whenever one of them was done. Effect: glommio keeps a
//! waker of the task for every poll of an I/O future that is not done, counts them in 16 bits, and with some 256 logs closed
//! at once the count overflowed: a panic where assertions are on, a freed task in use where they are not. Fix: only the
//! futures that were woken are polled.

mod history;

use history::disks::on_real_disk;
use minikafka_storage::disk::{Disk, DiskFile, Durability};
use minikafka_storage::wait::join_all;

#[test]
fn a_thousand_synced_files_are_joined_in_one_task() {
    on_real_disk(Durability::GroupFdatasync, async |disk, dir| {
        let one = async |at: u32| {
            let path = dir.join(at.to_string());
            let file = disk.create(&path, 4096).await?;
            file.sync().await?;
            file.close().await?;
            disk.sync_dir(&dir).await
        };
        let done = join_all((0..1_000).map(one)).await;
        assert!(done.into_iter().all(|done| done.is_ok()));
    });
}
