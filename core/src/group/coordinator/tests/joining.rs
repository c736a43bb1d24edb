//! Members come, share, and go.

use super::*;

#[test]
fn the_first_member_gets_everything_and_is_told_when_it_is_committed() {
    let mut world = World::new();
    let joins = world.send(&member(1, 0, &[]));
    assert!(world.is_waiting(joins), "nothing is told before it is committed");
    assert_eq!(world.owners(), [0, 0, 0, 0]);
    world.commit_log();
    assert_eq!(world.assigned(joins), (1, vec![0, 1, 2, 3]));
    let idle = world.heartbeat(&member(1, 1, &[0, 1, 2, 3]));
    assert!(world.is_waiting(idle), "nothing new");
    world.pass(2_900);
    assert!(world.is_waiting(idle));
    world.pass(100);
    assert_eq!(world.assigned(idle), (1, vec![0, 1, 2, 3]), "its wait is over");
    assert_eq!(world.entries, 1, "an idle group writes nothing");
}

#[test]
fn a_partition_moves_when_its_owner_released_it_and_not_before() {
    let mut world = World::new();
    world.heartbeat(&member(1, 0, &[]));
    let waits = world.heartbeat(&member(1, 1, &[0, 1, 2, 3]));
    world.now += 1_000;
    let joins = world.heartbeat(&member(2, 0, &[]));
    assert_eq!(world.assigned(waits), (2, vec![0, 1]), "it is asked for two, at once");
    assert_eq!((world.owners(), world.phase()), (vec![1, 1, 1, 1], GroupPhase::Rebalancing));
    assert!(world.is_waiting(joins), "nothing is free");
    // It is not done with 2 yet.
    let revokes = world.heartbeat(&member(1, 2, &[0, 1, 2]));
    assert_eq!((world.owners(), world.assigned(joins)), (vec![1, 1, 1, 2], (3, vec![3])));
    assert!(world.is_waiting(revokes), "what others get is no news");
    world.heartbeat(&member(1, 3, &[0, 1]));
    let second = world.heartbeat(&member(2, 3, &[3]));
    assert_eq!((world.owners(), world.assigned(second)), (vec![1, 1, 2, 2], (4, vec![2, 3])));
    assert_eq!(world.phase(), GroupPhase::Stable);
}

#[test]
fn who_is_assigned_is_told_where_to_go_on() {
    let mut world = World::new();
    world.heartbeat(&member(1, 0, &[]));
    world.heartbeat(&member(1, 1, &[0, 1, 2, 3]));
    assert_eq!(world.commit(1, &[(2, 40), (3, 50)]), [None, None]);
    world.now += 1_000;
    let joins = world.heartbeat(&member(2, 0, &[]));
    world.heartbeat(&member(1, 2, &[0, 1]));
    assert_eq!(world.told(joins), (3, vec![(2, Some(40)), (3, Some(50))]));
    let again = world.heartbeat(&Says { wait_ms_max: 0, ..member(2, 3, &[2, 3]) });
    assert_eq!(world.told(again), (3, vec![(2, None), (3, None)]), "it reads them already");
}

#[test]
fn a_lost_answer_is_given_again() {
    let mut world = World::new();
    let joins = world.heartbeat(&member(1, 0, &[]));
    let again = world.heartbeat(&member(1, 0, &[]));
    assert_eq!(world.assigned(joins), world.assigned(again), "it was told nothing yet, as it says");
    assert_eq!((world.entries, world.owners()), (1, vec![1, 1, 1, 1]), "and nothing was released by not knowing of it");
}

#[test]
fn a_report_from_before_it_was_told_releases_nothing() {
    let mut world = World::new();
    world.heartbeat(&member(1, 0, &[]));
    world.now += 1_000;
    world.heartbeat(&member(2, 0, &[]));
    world.heartbeat(&member(1, 2, &[0, 1]));
    assert_eq!((world.generation(), world.owners()), (3, vec![1, 1, 2, 2]));
    // The second one's answer is lost; it says what it knows.
    let late = world.heartbeat(&member(2, 2, &[]));
    assert_eq!((world.owners(), world.assigned(late)), (vec![1, 1, 2, 2], (3, vec![2, 3])));
    // Told, it says that it does not read one of them: it is given again, as it should have it.
    world.now += 1_000;
    world.heartbeat(&member(2, 3, &[2]));
    let told = world.heartbeat(&member(2, 3, &[2]));
    assert_eq!((world.owners(), world.assigned(told)), (vec![1, 1, 2, 2], (4, vec![2, 3])));
}

#[test]
fn who_leaves_gives_its_partitions_to_others_at_once() {
    let mut world = World::new();
    let generation = world.settled();
    let waits = world.heartbeat(&member(2, generation, &[2, 3]));
    world.now += 1_000;
    let leaves = world.send(&Says { intent: MemberIntent::Leave, ..member(1, generation, &[]) });
    assert!(world.is_waiting(leaves), "it is told when it is certain");
    world.commit_log();
    assert_eq!(world.assigned(leaves), (generation + 1, vec![]));
    assert_eq!((world.owners(), world.assigned(waits)), (vec![2, 2, 2, 2], (generation + 1, vec![0, 1, 2, 3])));
    let again = world.heartbeat(&Says { intent: MemberIntent::Leave, ..member(1, generation, &[]) });
    assert_eq!(world.assigned(again).1, [0u32; 0], "leaving twice is leaving once");
}

#[test]
fn who_is_silent_for_its_session_is_expelled_and_joins_anew() {
    let mut world = World::new();
    let generation = world.settled();
    for _ in 0..11 {
        world.pass(900);
        world.heartbeat(&member(2, world.generation(), &[2, 3]));
    }
    assert_eq!(world.owners(), [1, 1, 2, 2], "9.9 s");
    world.pass(200);
    assert_eq!(world.owners(), [2, 2, 2, 2]);
    let zombie = world.heartbeat(&member(1, generation, &[0, 1]));
    assert_eq!(world.refusal(zombie), ErrorCode::UnknownMember);
    assert_eq!(world.commit(1, &[(0, 9)]), [Some(ErrorCode::NotAssigned)], "a zombie's commit");
    world.now += 1_000;
    let anew = world.heartbeat(&member(11, 0, &[]));
    world.heartbeat(&member(2, world.generation(), &[0, 1]));
    assert_eq!((world.owners(), world.assigned(anew).1), (vec![2, 2, 11, 11], vec![2, 3]));
}

/// Cause: a member that was expelled was forgotten with the sequences of its requests, so that its first joining, which came
/// again late, brought it back, owning nothing by what it said then. Effect: it was given partitions that nobody read; and
/// its process, when it woke up and left out what it owned, which had not changed, was taken to release what it had just
/// been given. Fix: sequences outlive their member, so whatever was overtaken stays so.
#[test]
fn a_joining_that_comes_again_brings_nobody_back() {
    for is_alone in [false, true] {
        let mut world = World::new();
        let joining = world.heartbeat_of(&member(1, 0, &[]));
        let arrives = |world: &mut World| {
            let (request, heartbeat) = (world.request(), joining.clone());
            world.step(Input::Heartbeat { request, heartbeat });
            world.commit_log();
            request.0
        };
        arrives(&mut world);
        let generation = world.generation();
        world.heartbeat(&member(1, generation, &[0, 1, 2, 3]));
        for _ in 0..12 {
            world.pass(900);
            if !is_alone {
                world.heartbeat(&member(2, world.generation(), &[]));
            }
        }
        let owners = if is_alone { [0; 4] } else { [2; 4] };
        assert_eq!(world.owners(), owners, "it is expelled");
        let again = arrives(&mut world);
        world.pass(100);
        assert_eq!((world.refusal(again), world.owners()), (ErrorCode::TimedOut, owners.to_vec()));
        let wakes = world.heartbeat(&Says { subscribed: None, owned: None, ..member(1, generation, &[]) });
        assert_eq!(world.refusal(wakes), ErrorCode::UnknownMember);
    }
}

#[test]
fn who_keeps_a_partition_too_long_loses_it() {
    let mut world = World::new();
    world.heartbeat(&member(1, 0, &[]));
    world.heartbeat(&member(1, 1, &[0, 1, 2, 3]));
    world.now += 1_000;
    world.heartbeat(&member(2, 0, &[]));
    for _ in 0..12 {
        assert_eq!(world.owners(), [1, 1, 1, 1]);
        world.pass(5_000);
        world.heartbeat(&member(1, 2, &[0, 1, 2, 3]));
        world.heartbeat(&member(2, 2, &[]));
    }
    assert_eq!(world.owners(), [1, 1, 2, 2], "60 s after it was asked");
    assert_eq!(world.commit(1, &[(3, 9), (0, 9)]), [Some(ErrorCode::NotAssigned), None]);
}

#[test]
fn many_who_come_at_once_cost_few_entries() {
    let mut world = World::new();
    world.heartbeat(&member(1, 0, &[]));
    for other in 2..=4 {
        world.heartbeat(&member(other, 0, &[]));
    }
    world.heartbeat(&member(1, 1, &[0, 1, 2, 3]));
    world.pass(100);
    world.heartbeat(&member(1, world.generation(), &[0]));
    let mut owners = world.owners();
    owners.sort_unstable();
    assert_eq!((owners, world.entries), (vec![1, 2, 3, 4], 3), "all, asked back, given");
}

#[test]
fn a_subscription_that_changes_moves_what_it_must() {
    let mut world = World::new();
    world.heartbeat(&Says { subscribed: Some(vec![(7, 2), (8, 2)]), ..member(1, 0, &[]) });
    let of = |topic: u64, number: u32| PartitionKey { topic: TopicId(topic), partition: Partition(number) };
    let owner =
        |world: &World, key| world.log.get(&name()).and_then(|state| state.ownership(key)).map(|owned| owned.member.0);
    assert_eq!((owner(&world, of(7, 1)), owner(&world, of(8, 1))), (Some(1), Some(1)));
    world.now += 1_000;
    // It wants topic 8 no more, and knows more partitions of topic 7.
    let told = world.heartbeat(&Says { subscribed: Some(vec![(7, 3)]), ..member(1, 1, &[0, 1]) });
    assert_eq!(world.assigned(told).1, [0, 1, 2]);
    assert_eq!(owner(&world, of(8, 1)), None, "it does not report it, and nobody wants it");
}

#[test]
fn lists_may_be_left_out_by_those_who_are_known() {
    let mut world = World::new();
    let stranger = world.heartbeat(&Says { subscribed: None, owned: None, ..member(1, 5, &[]) });
    assert_eq!(world.refusal(stranger), ErrorCode::UnknownMember);
    let generation = world.settled();
    let idle = world.heartbeat(&Says { subscribed: None, owned: None, ..member(1, generation, &[]) });
    assert!(world.is_waiting(idle));
    assert_eq!(world.owners(), [1, 1, 2, 2]);
}

#[test]
fn the_newest_heartbeat_counts_and_older_ones_change_nothing() {
    let mut world = World::new();
    let generation = world.settled();
    let delayed = world.heartbeat_of(&member(2, generation, &[]));
    let waits = world.heartbeat(&member(2, generation, &[2, 3]));
    let newer = world.heartbeat(&member(2, generation, &[2, 3]));
    assert_eq!(world.refusal(waits), ErrorCode::TimedOut, "overtaken by the member itself");
    let request = world.request();
    world.step(Input::Heartbeat { request, heartbeat: delayed });
    assert_eq!(world.refusal(request.0), ErrorCode::TimedOut, "delayed on a dead connection");
    assert!(world.is_waiting(newer) && world.owners() == [1, 1, 2, 2]);
}

#[test]
fn a_describe_tells_members_owned_and_target() {
    let mut world = World::new();
    assert_eq!(world.coordinator.describe(&name()), Err(ErrorCode::UnknownGroup));
    world.heartbeat(&member(1, 0, &[]));
    world.heartbeat(&member(1, 1, &[0, 1, 2, 3]));
    world.now += 1_000;
    world.heartbeat(&member(2, 0, &[]));
    world.pass(500);
    let described = world.coordinator.describe(&name()).expect("a group");
    let row = |of: &MemberDescription| (of.member.0, of.silent_ms, of.owned.len(), of.target.len(), of.topics.clone());
    let rows: Vec<_> = described.members.iter().map(row).collect();
    // The coordinator was told nothing for a while, so part of the second did not pass.
    assert_eq!(rows, [(1, 1_000, 4, 2, vec![TopicId(7)]), (2, 500, 0, 2, vec![TopicId(7)])]);
    assert_eq!((described.generation, described.phase), (GroupGeneration(2), GroupPhase::Rebalancing));
    let listed = GroupSummary { group: name(), phase: GroupPhase::Rebalancing, members: 2 };
    assert_eq!(world.coordinator.list(), [listed]);
}
