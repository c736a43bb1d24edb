//! Static members: a new process takes the place of an old one, which is fenced.

use super::*;

/// A member of instance `instance`.
fn named(instance: &'static str, says: Says) -> Says {
    Says { instance, ..says }
}

/// Two static members with two partitions each.
fn settled(world: &mut World) -> u64 {
    world.heartbeat(&named("a", member(1, 0, &[])));
    world.now += 1_000;
    world.heartbeat(&named("b", member(2, 0, &[])));
    world.heartbeat(&named("a", member(1, world.generation(), &[0, 1])));
    let generation = world.generation();
    world.heartbeat(&named("b", member(2, generation, &[2, 3])));
    assert_eq!(world.owners(), [1, 1, 2, 2]);
    generation
}

#[test]
fn a_new_process_takes_over_and_fences_the_old_one_and_nobody_else_notices() {
    let mut world = World::new();
    let generation = settled(&mut world);
    world.commit(1, &[(0, 5)]);
    let other = world.heartbeat(&named("b", member(2, generation, &[2, 3])));
    let older = world.heartbeat(&named("a", member(1, generation, &[0, 1])));
    world.now += 1_000;
    let newer = world.heartbeat(&named("a", member(11, 0, &[])));
    assert_eq!(world.refusal(older), ErrorCode::MemberFenced);
    assert_eq!((world.owners(), world.told(newer).1), (vec![11, 11, 2, 2], vec![(0, Some(5)), (1, None)]));
    assert!(world.is_waiting(other));
    assert_eq!(world.commit(1, &[(0, 6)]), [Some(ErrorCode::NotAssigned)]);
    let again = world.heartbeat(&named("a", member(1, generation, &[0, 1])));
    assert_eq!(world.refusal(again), ErrorCode::MemberFenced);
}

#[test]
fn a_fenced_process_is_fenced_by_the_next_coordinator_too() {
    let mut world = World::new();
    let generation = settled(&mut world);
    world.now += 1_000;
    world.heartbeat(&named("a", member(11, 0, &[])));
    world.activate();
    let older = world.heartbeat(&named("a", member(1, generation, &[0, 1])));
    assert_eq!((world.refusal(older), world.owners()), (ErrorCode::MemberFenced, vec![11, 11, 2, 2]));
}

#[test]
fn two_processes_that_begin_under_one_name_do_not_take_turns() {
    let mut world = World::new();
    let first = world.send(&named("a", member(1, 0, &[])));
    world.send(&named("a", member(2, 0, &[])));
    world.commit_log();
    world.pass(100);
    assert_eq!((world.refusal(first), world.owners()), (ErrorCode::MemberFenced, vec![2, 2, 2, 2]));
    let again = world.heartbeat(&named("a", member(1, 0, &[])));
    assert_eq!((world.refusal(again), world.owners()), (ErrorCode::MemberFenced, vec![2, 2, 2, 2]));
    // A third one may, and then a fourth before it is certain that the third has anything.
    world.now += 1_000;
    world.send(&named("a", member(3, 0, &[])));
    world.send(&named("a", member(4, 0, &[])));
    world.commit_log();
    world.pass(100);
    assert_eq!(world.owners(), [4, 4, 4, 4]);
}

#[test]
fn who_leaves_keeps_its_partitions_for_its_next_process_unless_it_leaves_for_good() {
    let mut world = World::new();
    let generation = settled(&mut world);
    let leaves = world.heartbeat(&named("a", Says { intent: MemberIntent::Leave, ..member(1, generation, &[]) }));
    assert_eq!((world.assigned(leaves).1, world.owners()), (vec![], vec![1, 1, 2, 2]));
    world.pass(5_000);
    world.heartbeat(&named("b", member(2, generation, &[2, 3])));
    let back = world.heartbeat(&named("a", member(11, 0, &[])));
    assert_eq!((world.owners(), world.assigned(back).1), (vec![11, 11, 2, 2], vec![0, 1]));
    let generation = world.generation();
    let for_good = Says { intent: MemberIntent::LeaveForGood, ..member(11, generation, &[]) };
    world.now += 1_000;
    world.heartbeat(&named("a", for_good));
    assert_eq!(world.owners(), [2, 2, 2, 2]);
}

#[test]
fn what_a_static_member_left_behind_is_not_given_to_who_joins_meanwhile() {
    let mut world = World::new();
    let generation = settled(&mut world);
    world.heartbeat(&named("a", Says { intent: MemberIntent::Leave, ..member(1, generation, &[]) }));
    world.now += 1_000;
    world.heartbeat(&named("c", member(3, 0, &[])));
    world.heartbeat(&named("d", member(4, 0, &[])));
    world.pass(1_000);
    assert_eq!(world.owners()[..2], [1, 1]);
    let back = world.heartbeat(&named("a", member(11, 0, &[])));
    assert!(!world.assigned(back).1.is_empty(), "{:?}", world.owners());
}

#[test]
fn a_static_member_that_left_and_does_not_come_back_is_expelled() {
    let mut world = World::new();
    let generation = settled(&mut world);
    world.heartbeat(&named("a", Says { intent: MemberIntent::Leave, ..member(1, generation, &[]) }));
    for _ in 0..11 {
        world.pass(900);
        world.heartbeat(&named("b", member(2, world.generation(), &[2, 3])));
    }
    assert_eq!(world.owners(), [1, 1, 2, 2]);
    world.pass(200);
    assert_eq!(world.owners(), [2, 2, 2, 2]);
}

#[test]
fn a_member_does_not_change_its_name() {
    let mut world = World::new();
    let generation = settled(&mut world);
    let renamed = world.heartbeat(&named("c", member(1, generation, &[0, 1])));
    assert_eq!(world.refusal(renamed), ErrorCode::InvalidArgument);
}
