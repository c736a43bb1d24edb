//! Consumer groups over chains: nothing is told before all members have it, and a new head knows what the old one told.

use minikafka_core::group::coordinator::Answer as GroupAnswer;

use super::super::groups::*;
use super::*;

#[test]
fn nothing_is_told_before_all_members_have_it() {
    each(3, async |scene| {
        scene.change(1, &[1, 2, 3], &[1]).await;
        let head = scene.shard(1);
        let joins = Told::default();
        scene.silence(3, 2);
        head.group_heartbeat(heartbeat(Epoch(1), 1, 0, 0, 3_000), note(&joins));
        scene.sleep(300).await;
        assert!(joins.borrow().is_none(), "the tail's acknowledgement is missing");
        assert!(scene.range(1).with_coordinator(|groups| groups.table().is_empty()));
        scene.heal();
        scene.until("it is told", || joins.borrow().is_some()).await;
        let everywhere =
            || (1..=3).all(|node| scene.range(node).with_member(|member| member.state().groups().len() == 1));
        scene.until("all members have the group", everywhere).await;
    });
}

#[test]
fn a_new_head_knows_what_the_old_one_told_and_the_old_one_tells_nothing_more() {
    each(3, async |scene| {
        scene.change(1, &[1, 2, 3], &[1]).await;
        let head = scene.shard(1);
        let joins = Told::default();
        head.group_heartbeat(heartbeat(Epoch(1), 1, 0, 0, 3_000), note(&joins));
        scene.until("it is told", || joins.borrow().is_some()).await;
        assert!(matches!(ask_commit(&head, commit(Epoch(1), 2, 1, 7)).await, GroupAnswer::Committed(_)));
        // The head is cut off, and does not know it.
        for other in 2..=3 {
            scene.silence(1, other);
            scene.silence(other, 1);
        }
        scene.change(2, &[2, 3], &[2, 3]).await;
        let zombie = Told::default();
        head.group_commit(commit(Epoch(1), 3, 1, 9), note(&zombie));
        let next = scene.shard(2);
        let goes_on = ask_heartbeat(&next, heartbeat(Epoch(2), 4, 1, 4, 0)).await;
        assert_eq!((generation_of(&goes_on), committed_offset(&next, Epoch(2))), (1, Some(7)));
        assert!(matches!(ask_commit(&next, commit(Epoch(2), 5, 1, 8)).await, GroupAnswer::Committed(_)));
        scene.sleep(2_000).await;
        let told = zombie.borrow_mut().take();
        assert!(!matches!(told, Some(GroupAnswer::Committed(_))), "{told:?}");
        assert_eq!(committed_offset(&next, Epoch(2)), Some(8));
    });
}

#[test]
fn a_head_that_is_cut_off_confirms_nobody_before_long() {
    each(3, async |scene| {
        scene.change(1, &[1, 2, 3], &[1]).await;
        let head = scene.shard(1);
        let joined = ask_heartbeat(&head, heartbeat(Epoch(1), 1, 0, 0, 3_000)).await;
        let waits = Told::default();
        head.group_heartbeat(heartbeat(Epoch(1), 2, generation_of(&joined), 4, 3_000), note(&waits));
        for other in 2..=3 {
            scene.silence(1, other);
            scene.silence(other, 1);
        }
        scene.sleep(u64::from(limits::SUSPICION_TICKS) * limits::TICK_MS + 200).await;
        let stale = |told: &Told| match told.borrow_mut().take() {
            Some(GroupAnswer::Refused(refusal)) => refusal.code == ErrorCode::Stale,
            _ => false,
        };
        assert!(stale(&waits), "whoever waits looks for its successor");
        let again = Told::default();
        head.group_heartbeat(heartbeat(Epoch(1), 3, 1, 4, 3_000), note(&again));
        assert!(stale(&again), "and is not taken in again");
    });
}
