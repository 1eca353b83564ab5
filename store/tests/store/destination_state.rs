//! What owners remember of destinations, and what others ask of them.

use crate::support::*;
use jiff::{Timestamp, ToSpan};
use routing::row::{DestinationSpec, Row, Spec};
use store::{
    Held, Keyring, Pool,
    destination_state::{self, Circuit, Open, Reset, State},
    events, lease,
    listen::{Hint, Listener},
    routes,
    testing::Database,
};
use uuid::Uuid;

fn open_state(n: u128) -> State {
    let now = store::time::stored(Timestamp::now());
    State {
        destination_id: destination(n),
        shard: SHARD,
        circuit: Circuit::Open,
        open_until: Some(now + 1.minute()),
        opened_at: Some(now),
        failures: 5,
        ramping: false,
        samples: vec![30_000, 60_000_000, 12, 7],
        rate_granted: Some(now + 1.hour()),
        reset_done: Some("once".to_owned()),
    }
}

fn plain(n: u128, shard: u16) -> State {
    State {
        destination_id: destination(n),
        shard,
        ..State::default()
    }
}

async fn states(pool: &Pool, shard: u16) -> Vec<State> {
    let mut states = destination_state::of_shard(pool, shard).await.unwrap();
    states.sort_by_key(|state| state.destination_id);
    states
}

fn reset(n: u128, mark: &str) -> Reset {
    Reset {
        destination_id: destination(n),
        shard: SHARD,
        mark: mark.to_owned(),
    }
}

#[tokio::test]
async fn a_state_is_read_as_it_was_written_and_the_last_write_counts() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "a").await;
    let batch = [plain(2, SHARD), open_state(1)];
    let written = destination_state::write(pool, &batch, &held).await.unwrap();
    assert!(written.contains(SHARD));
    assert_eq!(
        states(pool, SHARD).await,
        [batch[1].clone(), plain(2, SHARD)]
    );
    let changed = State {
        failures: 0,
        circuit: Circuit::Closed,
        open_until: None,
        ramping: true,
        samples: vec![],
        ..batch[1].clone()
    };
    destination_state::write(pool, std::slice::from_ref(&changed), &held)
        .await
        .unwrap();
    assert_eq!(states(pool, SHARD).await, [changed, plain(2, SHARD)]);
    assert_eq!(states(pool, SHARD + 1).await, []);
}

#[tokio::test]
async fn a_late_owner_changes_nothing_and_learns_of_it() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (lease, late) = own(pool, "a").await;
    expire(pool, &lease.name).await;
    let (_, held) = own(pool, "b").await;
    destination_state::write(pool, &[plain(1, SHARD)], &held)
        .await
        .unwrap();
    // Its epoch is over; nor does the new epoch help, which is another holder's.
    let guess = Held {
        holder: "a".into(),
        ..held.clone()
    };
    for late in [&late, &guess] {
        let written = destination_state::write(pool, &[open_state(1), open_state(2)], late)
            .await
            .unwrap();
        assert!(!written.contains(SHARD));
    }
    assert_eq!(states(pool, SHARD).await, [plain(1, SHARD)]);
}

#[tokio::test]
async fn of_a_batch_the_shards_that_are_still_held_are_written() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, mut held) = own(pool, "a").await;
    held.epochs.insert(SHARD + 1, 7);
    let batch = [plain(1, SHARD), plain(2, SHARD + 1)];
    let written = destination_state::write(pool, &batch, &held).await.unwrap();
    assert_eq!(written.0, [SHARD]);
    assert_eq!(
        (
            states(pool, SHARD).await.len(),
            states(pool, SHARD + 1).await
        ),
        (1, vec![])
    );
}

#[tokio::test]
async fn whoever_takes_a_shard_reads_what_its_owner_was_just_writing() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (lease, held) = own(pool, "a").await;
    destination_state::write(pool, &[plain(1, SHARD)], &held)
        .await
        .unwrap();
    expire(pool, &lease.name).await;
    // Keeps the write waiting with its lease locked.
    let mut lock = pool.raw().begin().await.unwrap();
    sqlx::query("SELECT FROM destination_state FOR UPDATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let (writing, name) = (pool.clone(), lease.name.clone());
    let write = tokio::spawn(async move {
        destination_state::write(&writing, &[open_state(1)], &held)
            .await
            .unwrap()
    });
    until_somebody_waits(pool).await;
    let taking = pool.clone();
    let take = tokio::spawn(async move {
        let taken = lease::acquire(&taking, &name, "b", TTL).await.unwrap();
        assert!(taken.is_some());
        states(&taking, SHARD).await
    });
    lock.rollback().await.unwrap();
    assert!(write.await.unwrap().contains(SHARD));
    let seen = take.await.unwrap();
    assert_eq!((seen.len(), seen[0].circuit), (1, Circuit::Open));
}

#[tokio::test]
async fn open_circuits_are_told_apart_from_those_that_are_being_tried() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "a").await;
    let over = State {
        open_until: Some(store::time::stored(Timestamp::now() - 1.second())),
        ..open_state(2)
    };
    let batch = [open_state(1), over, plain(3, SHARD)];
    destination_state::write(pool, &batch, &held).await.unwrap();
    let mut open = destination_state::open(pool).await.unwrap();
    open.sort_by_key(|open| open.destination_id);
    let expected = [(0, false), (1, true)].map(|(n, half): (usize, bool)| Open {
        destination_id: batch[n].destination_id,
        opened_at: batch[n].opened_at,
        half,
    });
    assert_eq!(open, expected);
}

#[tokio::test]
async fn a_reset_is_asked_for_once_and_told_to_the_owners() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let mut listener = Listener::connect(&db.store).await.unwrap();
    let asked = |resets: Vec<Reset>| async move {
        let mut asked = destination_state::ask_for_resets(pool, &resets)
            .await
            .unwrap();
        asked.sort();
        asked
    };
    assert_eq!(
        asked(vec![reset(2, "x"), reset(1, "x")]).await,
        [destination(1), destination(2)]
    );
    let mut told = Vec::new();
    while told.len() < 2 {
        if let Hint::Resets(destinations) = listener.next().await.unwrap() {
            told.extend(destinations);
        }
    }
    told.sort();
    assert_eq!(told, [destination(1), destination(2)]);
    assert_eq!(
        asked(vec![reset(1, "x"), reset(2, "y")]).await,
        [destination(2)]
    );

    // The owner does one; what it writes of the other leaves the wish alone.
    let (_, held) = own(pool, "a").await;
    let done = State {
        reset_done: Some("x".to_owned()),
        ..plain(1, SHARD)
    };
    destination_state::write(pool, &[done, open_state(2)], &held)
        .await
        .unwrap();
    assert_eq!(
        destination_state::resets(pool, SHARD).await.unwrap(),
        [reset(2, "y")]
    );
    assert!(asked(vec![reset(1, "x")]).await.is_empty());
}

#[tokio::test]
async fn only_what_was_deleted_and_has_nothing_pending_is_forgotten() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "a").await;
    let batch: Vec<State> = (1..=4).map(|n| plain(n, SHARD)).collect();
    destination_state::write(pool, &batch, &held).await.unwrap();
    let late = "UPDATE destination_state SET updated_at = now() - interval '2 hours' WHERE destination_id <> (SELECT destination_id FROM destination_state ORDER BY 1 DESC LIMIT 1)";
    execute(pool, late).await;
    assert_eq!(
        destination_state::forget(pool).await.unwrap(),
        0,
        "nothing was ever published"
    );
    let lease = lease::acquire(pool, lease::OPERATOR, "o", TTL)
        .await
        .unwrap()
        .unwrap();
    let epoch = routes::begin_epoch(pool, "o", &lease).await.unwrap();
    let row = Row {
        uid: destination(1),
        namespace: "team".to_owned(),
        name: "one".to_owned(),
        generation: 1,
        spec: Spec::Destination(DestinationSpec::default()),
        secrets: vec![],
    };
    routes::publish(pool, epoch, "o", &[row], &[], &Keyring::generate())
        .await
        .unwrap();
    events::record(pool, &[recorded(event(b"x"), &[destination(2)])])
        .await
        .unwrap();
    assert_eq!(destination_state::forget(pool).await.unwrap(), 1);
    let left: Vec<Uuid> = states(pool, SHARD)
        .await
        .iter()
        .map(|state| state.destination_id)
        .collect();
    assert_eq!(left, [1, 2, 4].map(destination));
}
