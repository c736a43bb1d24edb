//! Bounds: what is too much is refused, and costs others nothing.

use super::*;

#[test]
fn what_is_too_much_in_itself_is_refused() {
    let mut world = World::new();
    let invalid = |world: &mut World, change: &dyn Fn(&mut GroupHeartbeatRequest)| {
        let mut heartbeat = world.heartbeat_of(&member(1, 0, &[]));
        change(&mut heartbeat);
        let request = world.request();
        world.step(Input::Heartbeat { request, heartbeat });
        world.commit_log();
        assert_eq!(world.refusal(request.0), ErrorCode::InvalidArgument);
    };
    let topics = |count: u64, partitions: u32| {
        Some((1..=count).map(|topic| TopicSubscription { topic: TopicId(topic), partitions }).collect::<Vec<_>>())
    };
    invalid(&mut world, &|heartbeat| heartbeat.member = MemberId(0));
    invalid(&mut world, &|heartbeat| heartbeat.session_timeout_ms = 999);
    invalid(&mut world, &|heartbeat| heartbeat.session_timeout_ms = 600_001);
    invalid(&mut world, &|heartbeat| heartbeat.subscribed = topics(4_097, 1));
    invalid(&mut world, &|heartbeat| heartbeat.subscribed = topics(1, 10_001));
    invalid(&mut world, &|heartbeat| heartbeat.subscribed = topics(7, 10_000));
    invalid(&mut world, &|heartbeat| heartbeat.owned = Some(vec![partition(0); 65_537]));
    assert_eq!(world.coordinator.list(), [], "nothing is left of them");
    let offsets: Vec<(u32, u64)> = (0..10_001).map(|number| (number, 1)).collect();
    let commit = world.send_commit(0, &offsets);
    assert_eq!(world.refusal(commit), ErrorCode::InvalidArgument);
}

#[test]
fn partitions_of_all_members_together_are_bounded() {
    let mut world = World::new();
    let topics = |first: u64| (first..first + 4).map(|topic| (topic, 10_000)).collect::<Vec<_>>();
    world.heartbeat(&Says { subscribed: Some(topics(1)), ..member(1, 0, &[]) });
    let same = world.send(&Says { subscribed: Some(topics(1)), ..member(2, 0, &[]) });
    let others = world.send(&Says { subscribed: Some(topics(11)), ..member(3, 0, &[]) });
    assert!(world.is_waiting(same));
    assert_eq!(world.refusal(others), ErrorCode::InvalidArgument);
    assert_eq!(world.entries, 3, "40,000 partitions in three entries");
}

#[test]
fn commits_of_a_group_are_bounded() {
    let mut world = World::new();
    for first in 0..6 {
        let offsets: Vec<(u32, u64)> = (first * 10_000..(first + 1) * 10_000).map(|number| (number, 1)).collect();
        assert!(world.commit(0, &offsets).iter().all(Option::is_none));
    }
    let offsets: Vec<(u32, u64)> = (60_000..70_000).map(|number| (number, 1)).collect();
    let refused = world.commit(0, &offsets).iter().filter(|error| **error == Some(ErrorCode::InvalidArgument)).count();
    assert_eq!(refused, 70_000 - GROUP_PARTITIONS_MAX);
    assert_eq!(world.commit(0, &[(5, 9)]), [None], "what is there can be replaced");
}

#[test]
fn members_and_waiting_requests_are_bounded() {
    let mut world = World::new();
    for id in 1..=GROUP_MEMBERS_MAX as u64 {
        world.heartbeat(&member(id, 0, &[]));
    }
    let one_more = world.heartbeat(&member(5_000, 0, &[]));
    assert_eq!(world.refusal(one_more), ErrorCode::Overloaded);
    while world.coordinator.waiting() < GROUP_REQUESTS_WAITING_MAX {
        world.send_commit(0, &[(9, 1)]);
    }
    let refused = world.send_commit(0, &[(9, 1)]);
    assert_eq!(world.refusal(refused), ErrorCode::Overloaded);
    world.commit_log();
    assert_eq!(world.commit(0, &[(9, 1)]), [None], "it goes on when others are answered");
}

#[test]
fn memory_is_counted_and_bounded() {
    let mut world = World::new();
    let topics: Vec<(u64, u32)> = (1..=4_000).map(|topic| (topic, 1)).collect();
    let mut accepted = 0;
    for id in 1..=1_000 {
        let joins = world.send(&Says { subscribed: Some(topics.clone()), ..member(id, 0, &[]) });
        if !world.is_waiting(joins) {
            assert_eq!(world.refusal(joins), ErrorCode::Overloaded);
            break;
        }
        accepted += 1;
    }
    let most = GROUPS_MEMORY_BYTES_MAX / (4_000 * 32);
    assert!((most / 2..=most + 1).contains(&accepted), "{accepted} of about {most}");
    // All of them are gone: so is what they took.
    world.commit_log();
    world.pass(11_000);
    assert_eq!(world.coordinator.memory_bytes, 0, "{:?}", world.coordinator.list());
}
