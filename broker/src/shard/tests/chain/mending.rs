//! Reading from a member that rotted, while it is mended from the others.

use minikafka_storage::flush::FlushHeader;

use super::*;

const RECORDS: i32 = 600;
/// Many, so that some are under way at the moment at which what they read is mended.
const READS: u64 = 3_000;

/// Flips a bit in the first entry of every flush of a node's segments; the offsets of those.
fn rot(scene: &Scene, node: u32) -> Vec<Offset> {
    let disk = scene.disk(node);
    let segments = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "segment"));
    let mut offsets = Vec::new();
    for path in segments {
        let blocks = disk.contents(&path).chunks(4096).map(FlushHeader::decode).collect::<Vec<_>>();
        for (block, header) in (0..).zip(blocks) {
            // Entry 1 opened the partition.
            if let Some(header) = header.filter(|header| header.length > 256 && header.first_index.0 > 1) {
                disk.flip_bit(&path, block * 4096 + 64 + 128 + 20, 3);
                offsets.push(Offset(header.first_index.0 - 2));
            }
        }
    }
    offsets
}

/// Asks until there is something: how often it was asked to come again.
async fn read_until_served(life: &Life, offset: Offset) -> u32 {
    for asked in 0..1_000 {
        let wanted = FetchPartition { range: RANGE, epoch: life.epoch, partition: PARTITION, offset, bytes_max: 1 };
        let request = FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: 1, partitions: vec![wanted] };
        let fetched = life.shard.fetch(None, &request, None).await;
        match fetched.reply.partitions[0].error {
            None => return asked,
            Some(error) => assert_eq!(error, ErrorCode::CatchingUp, "offset {offset}, asked {asked} times"),
        }
        life.shard.disk().sleep(Duration::from_millis(1)).await;
    }
    panic!("offset {offset} is never served");
}

/// Cause: damage of one range was mended while the fetch waited for another range of it, until it was too late; or before the
/// read that met it had ended; or nothing is mended while the chain changes. Effect: consumers were told that records are
/// lost which others had, and stopped (`rot-all`). Fix: damage counts as lost when nothing was mended since the read began,
/// and nothing may be. Told by this test: only whether waiting works at all.
#[test]
fn who_reads_what_is_being_mended_is_never_told_that_it_is_lost() {
    each(3, async |scene| {
        three(&scene).await;
        let answers = Answers::default();
        scene.produce(1, 1, 0..RECORDS, &answers).await;
        scene.until("everything is acknowledged", || committed(&answers) == RECORDS as usize).await;
        // What was written just now is still in memory.
        scene.restart(2, 2).await;
        scene.change(2, &[1, 2, 3], &[1, 3]).await;
        let rotten = rot(&scene, 2);
        let served = Rc::new(Cell::new(0));
        for read in 0..READS {
            let (life, served, offset) = (scene.life(2, 2), served.clone(), rotten[read as usize % rotten.len()]);
            scene.spawn(async move {
                read_until_served(&life, offset).await;
                served.set(served.get() + 1);
            });
            scene.sleep(u64::from(read % 15 == 0)).await;
        }
        scene.until("everything is served", || served.get() == READS).await;
        scene.until("all is mended", || !scene.range(2).log().has_damage()).await;
    });
}
