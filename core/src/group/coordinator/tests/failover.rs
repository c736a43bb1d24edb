//! The death of a coordinator: what its successor knows, and that it moves nothing.

use super::*;

#[test]
fn the_death_of_a_coordinator_moves_nothing() {
    let mut world = World::new();
    let generation = world.settled();
    let (waits, entries) = (world.heartbeat(&member(1, generation, &[0, 1])), world.entries);
    world.step(Input::Deposed { code: ErrorCode::NotOwner, epoch: Epoch(9) });
    assert_eq!(world.refusal(waits), ErrorCode::NotOwner);
    let refused = world.heartbeat(&member(1, generation, &[0, 1]));
    assert_eq!(world.refusal(refused), ErrorCode::NotOwner, "it coordinates no more");
    world.activate();
    // The second one comes late, but in time.
    world.heartbeat(&member(1, generation, &[0, 1]));
    world.pass(2_500);
    world.heartbeat(&member(1, generation, &[0, 1]));
    world.pass(2_500);
    assert_eq!(world.commit(2, &[(2, 9)]), [None], "also before it was heard: the log says whose it is");
    let heard = world.heartbeat(&member(2, generation, &[2, 3]));
    world.heartbeat(&member(1, generation, &[0, 1]));
    assert_eq!((world.owners(), world.phase()), (vec![1, 1, 2, 2], GroupPhase::Stable));
    assert!(world.is_waiting(heard), "nothing is new");
    assert_eq!(world.entries, entries + 1, "the commit alone");
}

#[test]
fn who_died_with_the_coordinator_loses_its_partitions_after_a_session_of_its_own() {
    let mut world = World::new();
    let generation = world.settled();
    world.activate();
    for _ in 0..11 {
        world.heartbeat(&member(1, world.generation(), &[0, 1]));
        world.pass(900);
    }
    assert_eq!(world.owners(), [1, 1, 2, 2], "9.9 s");
    let told = world.heartbeat(&member(1, generation, &[0, 1]));
    world.pass(200);
    assert_eq!((world.owners(), world.assigned(told).1), (vec![1, 1, 1, 1], vec![0, 1, 2, 3]));
}

#[test]
fn while_some_were_not_heard_what_is_free_is_given_and_nothing_else_moves() {
    let mut world = World::new();
    let generation = world.settled();
    world.now += 1_000;
    world.heartbeat(&Says { intent: MemberIntent::Leave, ..member(2, generation, &[]) });
    world.heartbeat(&member(1, world.generation(), &[0, 1]));
    assert_eq!(world.owners(), [1, 1, 1, 1]);
    world.activate();
    // Somebody joins before the owner is heard, with more partitions than were known.
    let joins = world.heartbeat(&Says { subscribed: Some(vec![(7, 5)]), ..member(3, 0, &[]) });
    assert_eq!((world.owners(), world.assigned(joins).1), (vec![1, 1, 1, 1], vec![4]));
    world.now += 1_000;
    let told = world.heartbeat(&member(1, world.generation(), &[0, 1, 2, 3]));
    assert_eq!(world.assigned(told).1.len(), 3, "now it is asked for one");
}

#[test]
fn what_was_decided_and_not_told_is_told_by_the_successor() {
    let mut world = World::new();
    world.heartbeat(&member(1, 0, &[]));
    world.now += 1_000;
    world.heartbeat(&member(2, 0, &[]));
    let generation = world.generation();
    world.heartbeat(&member(1, generation, &[0, 1]));
    // The second one owns two by the log; its answer was lost with the coordinator.
    world.activate();
    let told = world.heartbeat(&member(2, generation, &[]));
    assert_eq!((world.owners(), world.assigned(told)), (vec![1, 1, 2, 2], (world.generation(), vec![2, 3])));
}

#[test]
fn what_was_asked_back_and_released_goes_on_with_the_successor() {
    let mut world = World::new();
    world.heartbeat(&member(1, 0, &[]));
    world.now += 1_000;
    world.heartbeat(&member(2, 0, &[]));
    let generation = world.generation();
    world.activate();
    world.heartbeat(&member(2, generation, &[]));
    // The first one was asked for 2 and 3 by the dead coordinator, and gives them back to the new one.
    world.now += 1_000;
    world.heartbeat(&member(1, generation, &[0, 1]));
    assert_eq!(world.owners(), [1, 1, 2, 2]);
}

#[test]
fn an_entry_that_was_on_its_way_counts_if_it_is_in_the_log() {
    for is_committed in [false, true] {
        let mut world = World::new();
        let joins = world.send(&member(1, 0, &[]));
        let commit = world.send_commit(0, &[(0, 5)]);
        let (_, entry) = world.on_its_way[0].clone();
        world.step(Input::Deposed { code: ErrorCode::Stale, epoch: Epoch(2) });
        assert_eq!((world.refusal(joins), world.refusal(commit)), (ErrorCode::Stale, ErrorCode::Stale));
        if is_committed {
            world.log.apply(&entry, Timestamp(world.wall));
        }
        world.activate();
        assert_eq!(world.owners(), if is_committed { [1, 1, 1, 1] } else { [0, 0, 0, 0] });
        let told = world.heartbeat(&member(1, 0, &[]));
        assert_eq!(world.assigned(told), (1, vec![0, 1, 2, 3]), "told now, the same either way");
    }
}

#[test]
fn who_owned_nothing_is_taken_as_it_is() {
    let mut world = World::new();
    for id in 1..=5 {
        world.now += 1_000;
        world.heartbeat(&member(id, 0, &[]));
        world.heartbeat(&member(1, world.generation(), &[0]));
    }
    assert!(!world.owners().contains(&5));
    let generation = world.generation();
    world.activate();
    let idle = world.heartbeat(&member(5, generation, &[]));
    assert!(world.is_waiting(idle));
    let believes = world.heartbeat(&member(6, generation, &[3]));
    assert_eq!(world.refusal(believes), ErrorCode::UnknownMember, "whoever lost what it had joins anew");
}

#[test]
fn nobody_is_expelled_for_what_only_the_coordinator_slept_through() {
    let mut world = World::new();
    world.settled();
    world.now += 60_000;
    world.step(Input::Tick { wall: Timestamp(world.wall), hears_chain: true });
    world.commit_log();
    assert_eq!(world.owners(), [1, 1, 2, 2]);
    world.pass(10_000);
    assert_eq!(world.owners(), [0, 0, 0, 0], "but for silence that it was awake to hear");
}

#[test]
fn who_does_not_hear_its_chain_confirms_nobody_and_expels_nobody() {
    let mut world = World::new();
    let generation = world.settled();
    let waits = world.heartbeat(&member(1, generation, &[0, 1]));
    for _ in 0..200 {
        world.now += TICK_MS;
        world.step(Input::Tick { wall: Timestamp(world.wall), hears_chain: false });
    }
    assert_eq!((world.refusal(waits), world.owners()), (ErrorCode::Stale, vec![1, 1, 2, 2]));
    world.pass(9_000);
    assert_eq!(world.owners(), [1, 1, 2, 2], "20 s of doubt are no silence");
    world.pass(2_000);
    assert_eq!(world.owners(), [0, 0, 0, 0]);
}
