use super::*;
use std::sync::Arc;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// By `body.k`, or among all.
fn lanes(keyed: bool) -> Lanes {
    Lanes::new(&Order {
        key: keyed.then(|| Key::parse("body.k").unwrap()),
        blocked_head: BlockedHead::Wait,
    })
}

/// The delivery received at `seconds`, of key `k`.
fn entry(lanes: &Lanes, seconds: i64, k: &str) -> Entry {
    let event = Event {
        body: format!(r#"{{"k": "{k}"}}"#).into_bytes().into(),
        ..Event::default()
    };
    Entry {
        due_at: at(seconds),
        delivery_id: id(seconds),
        connection_id: Uuid::nil(),
        recorded_at: at(seconds),
        attempts: 0,
        retry_at: None,
        round: store::queue::Round::default(),
        lane: lanes.sorter().lane_of(&event),
        event: Arc::new(event),
    }
}

fn id(seconds: i64) -> Uuid {
    Uuid::from_u128(u128::from(seconds.unsigned_abs()) << 16)
}

fn admit(lanes: &mut Lanes, deliveries: &[(i64, &str)]) {
    for (seconds, k) in deliveries {
        let entry = entry(lanes, *seconds, k);
        lanes.admit(entry, at(1000));
    }
}

/// The seconds of all that may go now.
fn taken(lanes: &mut Lanes) -> Vec<i64> {
    std::iter::from_fn(|| lanes.take())
        .map(|entry| entry.due_at.as_second() - at(0).as_second())
        .collect()
}

fn forgotten(ids: Forgotten) -> Vec<i64> {
    let mut seconds: Vec<i64> = ids
        .into_iter()
        .map(|id| (id.as_u128() >> 16) as i64)
        .collect();
    seconds.sort_unstable();
    seconds
}

#[test]
fn without_a_key_one_goes_at_a_time() {
    let mut lanes = lanes(false);
    admit(&mut lanes, &[(1, "a"), (2, "b"), (3, "a")]);
    for seconds in 1..=3 {
        assert_eq!(taken(&mut lanes), [seconds]);
        assert!(lanes.pass(id(seconds), at(1000)).is_empty());
    }
    assert_eq!((lanes.held(), lanes.bytes(), lanes.lanes.len()), (0, 0, 0));
}

#[test]
fn keys_go_beside_each_other_and_each_in_its_order() {
    let mut lanes = lanes(true);
    admit(
        &mut lanes,
        &[(1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "a")],
    );
    assert_eq!(taken(&mut lanes), [1, 2]);
    lanes.pass(id(2), at(1000));
    assert_eq!(taken(&mut lanes), [4]);
    lanes.pass(id(1), at(1000));
    lanes.pass(id(4), at(1000));
    assert_eq!(taken(&mut lanes), [3]);
    lanes.pass(id(3), at(1000));
    assert_eq!(taken(&mut lanes), [5]);
}

#[test]
fn events_without_the_key_are_in_order_among_themselves() {
    let mut lanes = lanes(true);
    for seconds in 1..=2 {
        let mut entry = entry(&lanes, seconds, "x");
        entry.event = Arc::new(Event::default());
        entry.lane = lanes.sorter().lane_of(&entry.event);
        lanes.admit(entry, at(1000));
    }
    admit(&mut lanes, &[(3, "a")]);
    assert_eq!(taken(&mut lanes), [1, 3]);
}

#[test]
fn a_key_that_waits_keeps_only_keys_and_holds_up_no_other() {
    let mut lanes = lanes(true);
    admit(&mut lanes, &[(1, "a"), (2, "a"), (3, "b")]);
    assert_eq!(taken(&mut lanes), [1, 3]);
    assert_eq!(lanes.wait(id(1), at(2000)), (true, vec![]));
    admit(&mut lanes, &[(4, "a")]);
    assert_eq!((lanes.held(), lanes.parked(), lanes.bytes()), (0, 2, 0));
    assert_eq!((lanes.blocked(), lanes.next_wake()), (1, Some(at(2000))));
    lanes.pass(id(3), at(1000));
    admit(&mut lanes, &[(5, "b")]);
    assert_eq!(taken(&mut lanes), [5]);

    assert!(lanes.wake(at(1999)).is_empty());
    // The table has the bodies.
    assert_eq!(forgotten(lanes.wake(at(2000))), [1, 2, 4]);
    assert_eq!((lanes.parked(), lanes.next_wake()), (0, None));
    admit(&mut lanes, &[(1, "a"), (2, "a"), (4, "a")]);
    assert_eq!(taken(&mut lanes), [1]);
}

#[test]
fn without_a_key_nothing_is_kept_behind_one_that_waits() {
    let mut lanes = lanes(false);
    admit(&mut lanes, &[(1, "a"), (2, "a")]);
    taken(&mut lanes);
    let (first, gone) = lanes.wait(id(1), at(2000));
    assert_eq!((first, forgotten(gone)), (true, vec![2]));
    assert!(lanes.is_blocked() && lanes.is_torn(0));
    assert_eq!(forgotten(lanes.wake(at(2000))), [1]);
    assert!(!lanes.is_blocked());
}

#[test]
fn a_retry_that_is_read_before_its_time_waits_for_it() {
    let mut lanes = lanes(true);
    let mut retry = entry(&lanes, 1, "a");
    retry.retry_at = Some(at(2000));
    lanes.admit(retry, at(1000));
    admit(&mut lanes, &[(2, "a")]);
    assert_eq!(taken(&mut lanes), [0_i64; 0]);
    assert_eq!((lanes.next_wake(), lanes.parked()), (Some(at(2000)), 1));
}

#[test]
fn one_that_was_committed_late_goes_first_unless_a_later_one_is_under_way() {
    let mut lanes = lanes(true);
    admit(&mut lanes, &[(5, "a"), (3, "a")]);
    assert_eq!(taken(&mut lanes), [3]);
    admit(&mut lanes, &[(1, "a")]);
    assert_eq!(taken(&mut lanes), [0_i64; 0]);
    lanes.pass(id(3), at(1000));
    assert_eq!(taken(&mut lanes), [1]);
    lanes.pass(id(1), at(1000));
    assert_eq!(taken(&mut lanes), [5]);
}

#[test]
fn a_lane_that_lost_something_while_a_page_is_read_takes_nothing_from_it() {
    let mut lanes = lanes(true);
    admit(&mut lanes, &[(1, "a"), (2, "b")]);
    let (a, b) = (entry(&lanes, 1, "a").lane, entry(&lanes, 2, "b").lane);
    taken(&mut lanes);
    lanes.wait(id(1), at(2000));
    lanes.begin_page();
    lanes.wake(at(2000));
    assert!(lanes.is_torn(a) && !lanes.is_torn(b));
    // That the page didn't show it says nothing.
    assert!(lanes.swept(None, at(2000)).is_empty());
    assert!(!lanes.is_blocked());
    lanes.begin_page();
    assert!(!lanes.is_torn(a));
}

#[test]
fn what_has_left_the_table_holds_up_nothing_behind_it() {
    let mut lanes = lanes(true);
    admit(&mut lanes, &[(1, "a"), (2, "b")]);
    taken(&mut lanes);
    for seconds in 10..10 + 2 * BODIES as i64 {
        lanes.wait(id(1), at(2000));
        admit(&mut lanes, &[(seconds, "a")]);
    }
    let first: Vec<i64> = (10..10 + BODIES as i64).collect();
    let gone = forgotten(lanes.wake(at(2000)));
    assert_eq!((gone[0], &gone[1..]), (1, &first[..]));
    lanes.begin_page();
    // Neither the first nor those behind it come, though the page reaches further; the next do.
    assert!(lanes.swept(Some((at(0), id(0))), at(2000)).is_empty());
    let second: Vec<i64> = (10 + BODIES as i64..10 + 2 * BODIES as i64).collect();
    assert_eq!(
        forgotten(lanes.swept(Some((at(500), id(500))), at(2000))),
        second
    );
    lanes.begin_page();
    assert!(lanes.swept(None, at(2000)).is_empty());
    lanes.pass(id(2), at(2000));
    assert_eq!((lanes.parked(), lanes.lanes.len()), (0, 0));
}

#[test]
fn where_too_much_waits_pages_are_read_only_for_retries_that_have_come() {
    let mut lanes = lanes(true);
    lanes.most_parked = 2;
    admit(&mut lanes, &[(1, "a"), (2, "b")]);
    taken(&mut lanes);
    lanes.wait(id(1), at(3000));
    lanes.wait(id(2), at(2000));
    admit(&mut lanes, &[(3, "a"), (4, "a")]);
    assert!(lanes.is_crowded() && lanes.is_blocked());
    let late = entry(&lanes, 5, "a");
    assert!(lanes.would_park(late.lane, late.key()));
    assert_eq!(forgotten(lanes.wake(at(2000))), [2]);
    assert!(lanes.is_crowded() && !lanes.is_blocked());
    lanes.begin_page();
    let retry = entry(&lanes, 2, "b");
    assert!(!lanes.would_park(retry.lane, retry.key()));
    lanes.admit(retry, at(2000));
    assert_eq!(taken(&mut lanes), [2]);
    assert!(lanes.is_blocked());
}

#[test]
fn a_long_lane_comes_back_in_parts() {
    let mut lanes = lanes(true);
    let many: Vec<(i64, &str)> = (1..=40).map(|seconds| (seconds, "a")).collect();
    admit(&mut lanes, &many);
    assert_eq!((lanes.held(), lanes.parked()), (1 + BODIES, 39 - BODIES));
    let mut sent = Vec::new();
    let mut missing = Vec::new();
    while sent.len() < 40 {
        for seconds in taken(&mut lanes) {
            sent.push(seconds);
            missing.extend(forgotten(lanes.pass(id(seconds), at(1000))));
        }
        lanes.begin_page();
        for seconds in std::mem::take(&mut missing) {
            admit(&mut lanes, &[(seconds, "a")]);
        }
    }
    assert!(sent.into_iter().eq(1..=40));
    assert_eq!((lanes.held(), lanes.parked(), lanes.bytes()), (0, 0, 0));
}

#[test]
fn memory_that_is_short_keeps_one_that_may_go() {
    for keyed in [false, true] {
        let mut lanes = lanes(keyed);
        admit(&mut lanes, &[(1, "a"), (2, "b"), (3, "a"), (4, "b")]);
        let gone = forgotten(lanes.trim(0));
        let expected: &[i64] = if keyed { &[2, 4] } else { &[2, 3, 4] };
        assert_eq!(gone, expected, "{keyed}");
        assert_eq!((lanes.ready(), lanes.held()), (1, 1), "{keyed}");
    }
}

#[test]
fn what_is_under_way_already_holds_up_its_lane() {
    let mut lanes = lanes(true);
    // Two of a key, from a time without an order.
    for seconds in [7, 5] {
        let flying = entry(&lanes, seconds, "a");
        lanes.adopt(&flying);
    }
    admit(&mut lanes, &[(1, "a"), (2, "b")]);
    assert_eq!(taken(&mut lanes), [2]);
    assert!(lanes.give_back(id(5)).is_empty());
    assert_eq!(forgotten(lanes.give_back(id(7))), [1, 7]);
    admit(&mut lanes, &[(1, "a"), (7, "a")]);
    assert_eq!(taken(&mut lanes), [1]);
}

#[test]
fn forgetting_leaves_what_is_under_way() {
    let mut lanes = lanes(true);
    admit(&mut lanes, &[(1, "a"), (2, "a"), (3, "b")]);
    lanes.take();
    assert_eq!(forgotten(lanes.forget()), [2, 3]);
    admit(&mut lanes, &[(2, "a"), (3, "b")]);
    assert_eq!(taken(&mut lanes), [3]);
    lanes.pass(id(1), at(1000));
    assert_eq!(taken(&mut lanes), [2]);
}
