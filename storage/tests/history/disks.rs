//! The disks that the suites run on: a simulated one, and the real one under the target directory.

use std::path::PathBuf;

use glommio::{LocalExecutorBuilder, Placement};
use minikafka_storage::disk::Durability;
use minikafka_storage::disk::dma::DmaDisk;
use minikafka_storage::disk::sim::{SimDisk, SimExecutor};

/// Runs a test on a real disk, in a directory of its own.
pub fn on_real_disk<F: Future<Output = ()> + 'static>(
    durability: Durability,
    test: impl FnOnce(DmaDisk, PathBuf) -> F + Send + 'static,
) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on a real disk");
    let path = dir.path().to_owned();
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 20);
    let thread = builder.spawn(move || async move {
        let disk = DmaDisk::open(&path, durability).await.expect("a disk");
        test(disk, path).await;
    });
    thread.expect("an executor").join().expect("the test passes");
}

pub fn on_simulated_disk<F: Future<Output = ()> + 'static>(seed: u64, test: impl FnOnce(SimDisk, PathBuf) -> F) {
    let executor = SimExecutor::new(seed);
    let durability = if seed.is_multiple_of(2) { Durability::Dsync } else { Durability::GroupFdatasync };
    executor.run(test(SimDisk::new(&executor, durability), super::sim_dir()));
}

/// Makes three tests of each function: on the simulated disk, and on the real one with both durabilities.
macro_rules! on_every_disk {
    ($($test:ident;)*) => {$(
        mod $test {
            use super::*;

            #[test]
            fn simulated() {
                (0..4).for_each(|seed| on_simulated_disk(seed, super::$test::<SimDisk>));
            }

            #[test]
            fn real_dsync() {
                on_real_disk(Durability::Dsync, super::$test::<DmaDisk>);
            }

            #[test]
            fn real_group_fdatasync() {
                on_real_disk(Durability::GroupFdatasync, super::$test::<DmaDisk>);
            }
        }
    )*};
}
