//! Reading from a member that rotted, while it is mended from the others.

use minikafka_storage::flush::FlushHeader;

use super::*;

const RECORDS: i32 = 600;
/// Many, so that some are under way at the moment at which what they read is mended.
const READS: u64 = 3_000;

/// Flips a bit in the first entry of every flush of a node's segments of a range; the offsets of those.
fn rot(scene: &Scene, node: u32, range: RangeId) -> Vec<Offset> {
    let (disk, dir) = (scene.disk(node), range.0.to_string());
    let is_its = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "segment")
            && path.parent().is_some_and(|parent| parent.ends_with(&dir))
    };
    let mut offsets = Vec::new();
    for path in disk.paths().into_iter().filter(is_its) {
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

/// Opens a partition of a range at its head, in epoch 1, and fills it.
async fn fill(scene: &Scene, head: u32, range: RangeKey, partition: PartitionKey) {
    let entry = open_entry(partition, TopicConfig::default());
    let entries = vec![AppendControlRange { range, epoch: Epoch(1), entry }];
    let opened = scene.shard(head).append_control(AppendControlRequest { entries }).await;
    assert_eq!(opened.entries[0].error, None);
    let answers = Answers::default();
    let at_head = scene.shard(head).range(range).expect("it is open there");
    for sequence in 0..RECORDS {
        let (header, body) = batch(sequence, &value(sequence));
        let header = EntryHeader { range, topic: partition.topic, partition: partition.partition, ..header };
        at_head.append_space().await;
        let deadline = scene.shard(head).clock().monotonic() + Duration::from_secs(3_600);
        let note = Note { sequence, answers: answers.clone() };
        at_head.produce(header, Epoch(1), Body::Copied(&body), Box::new(note), deadline);
    }
    scene.until("everything is acknowledged", || committed(&answers) == RECORDS as usize).await;
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

/// Cause: nothing is mended while the chain changes, nor once everything is. Effect: a read that met damage then was told that
/// records are lost which others have. Fix: damage counts as lost when nothing was mended since, and nothing may be.
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
        let rotten = rot(&scene, 2, RANGE.range);
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

/// Cause: a fetch of two ranges waited for the second one to be mended until it was too late, and then told of the damage of
/// the first, which was gone by then. Effect: consumers stopped at records that every member had (`rot-all`).
#[test]
fn what_was_mended_while_another_range_was_waited_for_is_not_told_as_lost() {
    each(3, async |scene| {
        let slow = RangeKey { range: RangeId(6), ..RANGE };
        let other = PartitionKey { partition: Partition(1), ..PARTITION };
        let both = [(RANGE, PARTITION, [2, 3]), (slow, other, [2, 1])];
        for (range, partition, chain) in both {
            scene.turn_to(range.range);
            scene.change(1, &chain, &[2]).await;
            fill(&scene, 2, range, partition).await;
        }
        scene.restart(2, 2).await;
        for (range, _, chain) in both {
            scene.turn_to(range.range);
            scene.change(2, &chain, &[chain[1]]).await;
        }
        let mut wanted = Vec::new();
        for (range, partition, _) in both {
            let offset = rot(&scene, 2, range.range)[0];
            wanted.push(FetchPartition { range, epoch: Epoch(2), partition, offset, bytes_max: 1 });
        }
        // Who could mend the second range does not answer.
        scene.silence(1, 2);
        let request = FetchRequest { wait_ms_max: 0, bytes_min: 0, bytes_max: 2, partitions: wanted };
        let fetched = scene.shard(2).fetch(None, &request, None).await;
        let errors: Vec<_> = fetched.reply.partitions.iter().map(|read| read.error).collect();
        assert_eq!(errors, [Some(ErrorCode::CatchingUp); 2]);
        let first = FetchRequest { partitions: request.partitions[..1].to_vec(), ..request };
        let fetched = scene.shard(2).fetch(None, &first, None).await;
        assert_eq!(fetched.reply.partitions[0].error, None, "it was mended meanwhile");
    });
}
