use super::*;
use routing::{
    retry::{Backoff, Policy},
    row::{DestinationSpec, HttpSpec, Provider},
};
use std::time::Duration;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn entry(seconds: i64, bytes: usize) -> Entry {
    Entry {
        due_at: at(seconds),
        delivery_id: Uuid::from_u128(u128::from(seconds.unsigned_abs()) + 1),
        connection_id: Uuid::nil(),
        recorded_at: at(seconds),
        attempts: 0,
        retry_at: None,
        round: Round::default(),
        lane: 0,
        event: Arc::new(Event {
            id: Uuid::nil(),
            namespace: "n".into(),
            revision: 0,
            received_at: at(seconds),
            method: String::new(),
            body: vec![0; bytes].into(),
            remote_addr: [0, 0, 0, 0].into(),
            ..Event::default()
        }),
    }
}

/// A retry that is due at `seconds`.
fn retry(seconds: i64) -> Entry {
    Entry {
        recorded_at: at(0),
        attempts: 1,
        ..entry(seconds, 1)
    }
}

fn destination(complete: bool) -> Destination {
    let mut destination = Destination::new(0, complete, at(0));
    destination.row = Some(row(|_| {}));
    destination
}

/// A row of the table.
pub(super) fn row(change: impl FnOnce(&mut DestinationSpec)) -> Arc<Row> {
    let mut row = table::Destination {
        uid: Uuid::nil(),
        namespace: "n".into(),
        name: "d".into(),
        generation: 1,
        spec: DestinationSpec {
            provider: Provider::Http(HttpSpec {
                url: "http://a/".into(),
                timeout: Duration::from_secs(1),
                ..HttpSpec::default()
            }),
            retry: Policy {
                backoff: Backoff::Fixed,
                intervals_ms: vec![1],
                max_retries: 1,
                retry_on: vec![],
                respect_retry_after: false,
                ..Policy::default()
            },
            concurrency: 4,
            ..DestinationSpec::default()
        },
        secrets: vec![],
    };
    change(&mut row.spec);
    let row = Arc::new(row);
    Arc::new(Row {
        target: Target::prepare(&row),
        row,
    })
}

const ROOM: Room = Room {
    window: 4,
    bytes: 1000,
};

fn times(now: i64) -> Times {
    Times {
        now: at(now),
        soon: at(now + 60),
        confirm: at(now + 1),
    }
}

fn load(destination: &mut Destination, page: Vec<Entry>, now: i64) -> Loaded {
    destination.load(page, 4, times(now), ROOM, false)
}

#[test]
fn what_is_recorded_is_sent_in_the_order_of_its_due_times() {
    let mut destination = destination(true);
    for seconds in [3, 1, 2] {
        assert!(destination.record(entry(seconds, 1), ROOM));
    }
    let order: Vec<_> = std::iter::from_fn(|| destination.take())
        .map(|entry| entry.due_at)
        .collect();
    assert_eq!(order, [at(1), at(2), at(3)]);
    assert_eq!((destination.in_flight, destination.bytes), (3, 0));
}

#[test]
fn what_finds_no_room_is_missing_and_comes_with_a_page() {
    let mut destination = destination(true);
    for seconds in 1..=6 {
        destination.record(entry(seconds, 1), ROOM);
    }
    assert_eq!(destination.ready(), 4);
    let missing = destination.missing().unwrap();
    assert!(missing < entry(5, 1).key() && missing > entry(4, 1).key());
    while destination.take().is_some() {}
    assert!(destination.wants_load(4, 1000));
    destination.begin_load();
    assert_eq!(
        load(&mut destination, vec![entry(5, 1), entry(6, 1)], 10).admitted,
        2
    );
    // A short page is almost surely the last; the one that proves it can wait.
    assert!(!destination.wants_load(4, 1000));
    destination.advance(at(11));
    while destination.take().is_some() {}
    assert!(destination.wants_load(4, 1000));
    destination.begin_load();
    load(&mut destination, vec![], 12);
    assert_eq!(destination.missing(), None);
}

#[test]
fn an_unwritten_or_just_finished_delivery_is_not_loaded_again() {
    let mut destination = destination(true);
    destination.record(entry(1, 1), ROOM);
    destination.record(entry(2, 1), ROOM);
    let (first, second) = (destination.take().unwrap(), destination.take().unwrap());
    destination.note_missing(BEGINNING);
    destination.begin_load();
    // Its row was still there when the page was read.
    destination.settle(first.delivery_id);
    assert_eq!(
        load(&mut destination, vec![entry(1, 1), entry(2, 1)], 5),
        Loaded::default()
    );
    // A later page shows it only if it is really there.
    destination.settle(second.delivery_id);
    destination.note_missing(BEGINNING);
    destination.begin_load();
    assert_eq!(load(&mut destination, vec![entry(2, 1)], 6).admitted, 1);
}

#[test]
fn a_hint_during_a_load_is_not_lost() {
    let mut destination = destination(false);
    destination.begin_load();
    destination.note_missing((at(3), Uuid::nil()));
    load(&mut destination, vec![], 5);
    assert_eq!(destination.missing(), Some((at(3), Uuid::nil())));
    destination.begin_load();
    destination.note_missing((at(4), Uuid::nil()));
    destination.load_failed();
    assert_eq!(destination.missing(), Some((at(3), Uuid::nil())));
}

#[test]
fn new_deliveries_wait_behind_a_backlog_but_not_behind_its_end() {
    let mut destination = destination(false);
    assert!(!destination.record(entry(50, 1), ROOM));
    destination.begin_load();
    load(&mut destination, (1..=4).map(|n| entry(n, 1)).collect(), 50);
    destination.take();
    assert!(
        !destination.record(entry(51, 1), ROOM),
        "the page was full: there may be more before it"
    );
    while destination.take().is_some() {}
    destination.begin_load();
    load(&mut destination, vec![entry(50, 1)], 51);
    assert!(destination.record(entry(52, 1), ROOM));
}

#[test]
fn retries_wait_in_memory_only_when_they_are_due_soon() {
    let mut destination = destination(true);
    assert!(destination.retry(retry(30), at(60), ROOM));
    assert!(!destination.retry(retry(100), at(60), ROOM));
    assert_eq!(
        (
            destination.ready(),
            destination.held(),
            destination.next_wake()
        ),
        (0, 1, Some(at(30)))
    );
    destination.advance(at(30));
    assert_eq!(
        (destination.ready(), destination.next_wake()),
        (1, Some(at(100)))
    );
    assert_eq!(destination.missing(), None);
    destination.advance(at(100));
    assert!(destination.missing().unwrap() < retry(100).key());
}

#[test]
fn a_sweep_ends_where_no_more_retries_can_wait() {
    let mut destination = destination(false);
    for seconds in 20..24 {
        assert!(destination.retry(retry(seconds), at(60), ROOM));
    }
    destination.begin_load();
    let page = (20..=30).map(retry).collect();
    assert_eq!(load(&mut destination, page, 10), Loaded::default());
    assert_eq!(
        (destination.missing(), destination.held()),
        (None, 4),
        "the next page is read when the first that was left out is due"
    );
    for seconds in 20..24 {
        assert_eq!(destination.next_wake(), Some(at(seconds)));
        destination.advance(at(seconds));
        destination.take();
    }
    assert_eq!(destination.next_wake(), Some(at(24)));
    destination.advance(at(24));
    destination.begin_load();
    let page = (24..=30).map(retry).collect();
    let loaded = load(&mut destination, page, 24);
    assert_eq!(
        (loaded.admitted, destination.ready(), destination.missing()),
        (5, 1, None),
        "as many as can wait come with it"
    );
}

#[test]
fn the_earliest_retries_wait_whichever_came_first() {
    let mut destination = destination(true);
    for seconds in 50..54 {
        assert!(destination.retry(retry(seconds), at(60), ROOM));
    }
    assert!(!destination.retry(retry(54), at(60), ROOM));
    // One that was written now, and one from the table.
    assert!(destination.retry(retry(30), at(60), ROOM));
    destination.note_missing(BEGINNING);
    destination.begin_load();
    let page = [30, 31, 50, 51, 52, 53, 54].map(retry).into();
    assert_eq!(load(&mut destination, page, 10).admitted, 1);
    assert_eq!((destination.held(), destination.bytes), (4, 4));
    for seconds in [30, 31, 50, 51] {
        assert_eq!(destination.next_wake(), Some(at(seconds)));
        destination.advance(at(seconds));
    }
    assert_eq!(destination.missing(), None);
    // What gave its place away is read again when it is due.
    assert_eq!(destination.next_wake(), Some(at(52)));
    destination.advance(at(52));
    assert!(destination.missing().unwrap() < retry(52).key());
}

#[test]
fn waiting_retries_keep_no_fresh_delivery_of_their_page_out() {
    let mut destination = destination(false);
    for seconds in 20..24 {
        destination.retry(retry(seconds), at(60), ROOM);
    }
    destination.begin_load();
    // Recorded by a replica whose clock is ahead.
    let loaded = load(&mut destination, vec![retry(25), entry(26, 1)], 10);
    assert_eq!((loaded.admitted, destination.ready()), (1, 1));
    assert_eq!(destination.missing(), None);
}

#[test]
fn a_page_ends_where_deliveries_are_not_due_soon() {
    let mut destination = destination(false);
    destination.begin_load();
    load(
        &mut destination,
        vec![entry(1, 1), retry(500), retry(600)],
        10,
    );
    assert_eq!(
        (
            destination.missing(),
            destination.held(),
            destination.next_wake()
        ),
        (None, 1, Some(at(500)))
    );
}

#[test]
fn a_body_that_finds_no_room_waits_but_one_at_a_time_always_fits() {
    let mut destination = destination(false);
    destination.begin_load();
    let none = Room {
        window: 4,
        bytes: 0,
    };
    assert_eq!(
        destination.load(vec![entry(1, 50)], 4, times(5), none, false),
        Loaded {
            admitted: 0,
            no_room: true
        }
    );
    assert_eq!(destination.missing(), Some(BEGINNING));
    destination.begin_load();
    assert_eq!(
        destination.load(vec![entry(1, 50), entry(2, 50)], 4, times(5), none, true),
        Loaded {
            admitted: 1,
            no_room: true
        }
    );
    assert_eq!(destination.missing(), Some(entry(1, 50).key()));
}

#[test]
fn trimming_gives_the_end_of_the_window_back_to_the_table() {
    let mut destination = destination(true);
    for seconds in 1..=4 {
        destination.record(entry(seconds, 100), ROOM);
    }
    destination.retry(
        Entry {
            event: entry(0, 100).event,
            ..retry(9)
        },
        at(60),
        ROOM,
    );
    destination.trim(200);
    assert_eq!(
        (destination.ready(), destination.held(), destination.bytes),
        (2, 2, 200)
    );
    assert!(destination.missing().unwrap() < entry(3, 1).key());
    destination.trim(0);
    assert_eq!(destination.ready(), 1, "the next delivery stays");
}

#[test]
fn a_suspended_destination_holds_nothing() {
    let mut destination = destination(true);
    destination.record(entry(1, 10), ROOM);
    destination.record(entry(2, 10), ROOM);
    let sent = destination.take().unwrap();
    destination.row = None;
    destination.forget();
    assert_eq!(
        (
            destination.held(),
            destination.bytes,
            destination.next_wake()
        ),
        (0, 0, None)
    );
    assert!(!destination.record(entry(3, 10), ROOM) && !destination.wants_load(4, 1000));
    assert!(!destination.retry(
        Entry {
            attempts: 1,
            ..sent
        },
        at(60),
        ROOM
    ));
    assert_eq!(destination.missing(), Some(BEGINNING));
}

#[test]
fn a_first_attempt_does_not_wait_for_another_replicas_clock() {
    let mut destination = destination(false);
    destination.begin_load();
    load(&mut destination, vec![entry(90, 1)], 10);
    assert_eq!(destination.ready(), 1);
}
