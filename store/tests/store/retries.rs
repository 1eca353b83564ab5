//! Setting finished deliveries going again: nothing twice, nothing lost, and the history stays.

use crate::support::*;
use jiff::{SignedDuration, Timestamp};
use routing::retry::GaveUp;
use std::sync::Arc;
use store::{
    Held, Pool,
    attempts::{self, Trigger},
    deliveries::{self, State},
    events::{self, Event},
    outcomes::{self, Finished},
    queue::{Pending, Round},
    retries::{self, OfEvent, Refusal, Request, Retried},
    testing::Database,
};
use uuid::Uuid;

pub(crate) const CONNECTION: Uuid = Uuid::from_u128(9);

/// A person of the tests' namespace.
pub(crate) const ANNA: Request<'static> = Request {
    namespace: Some("team"),
    delivered_too: false,
    by: "anna",
    job: None,
};

/// The table has these destinations, and the connection of [`recorded`].
pub(crate) async fn route(pool: &Pool, destinations: &[Uuid]) {
    let one = "INSERT INTO routes (kind, uid, namespace, name, generation, revision, payload, sealed, digest)
               VALUES ($1, $2, 'team', $3, 1, 1, '', '', '') ON CONFLICT DO NOTHING";
    let rows = destinations.iter().map(|id| ("destination", *id));
    for (n, (kind, uid)) in rows.chain([("connection", CONNECTION)]).enumerate() {
        sqlx::query(one)
            .bind(kind)
            .bind(uid)
            .bind(format!("{kind}-{n}"))
            .execute(pool.raw())
            .await
            .unwrap();
    }
}

async fn unroute(pool: &Pool, uid: Uuid) {
    sqlx::query("UPDATE routes SET deleted = true WHERE uid = $1")
        .bind(uid)
        .execute(pool.raw())
        .await
        .unwrap();
}

/// Events that ended as dead letters after one attempt, each a moment after the one before.
pub(crate) async fn dead_letters(pool: &Pool, held: &Held, to: Uuid, count: usize) -> Vec<Pending> {
    let batch: Vec<_> = (0..count)
        .map(|n| recorded(event(format!("body {n}").as_bytes()), &[to]))
        .collect();
    events::record(pool, &batch).await.unwrap();
    let ours: Vec<Uuid> = batch.iter().map(|one| one.event.id).collect();
    let mut pending = queued(pool, to).await;
    pending.retain(|one| ours.contains(&one.event_id));
    let outcomes: Vec<_> = pending
        .iter()
        .map(|one| outcome(one, Finished::DeadLetter(GaveUp::RetriesSpent)))
        .collect();
    outcomes::write(pool, &outcomes, held).await.unwrap();
    // Written together, they ended at the same time: apart, as they would be in life.
    sqlx::query(
        "UPDATE deliveries d SET finished_at = now() - ($2 - n) * interval '1 ms'
         FROM unnest($1::uuid[]) WITH ORDINALITY AS k (id, n) WHERE d.id = k.id",
    )
    .bind(
        pending
            .iter()
            .map(|one| one.delivery_id)
            .collect::<Vec<_>>(),
    )
    .bind(count as i64)
    .execute(pool.raw())
    .await
    .unwrap();
    pending
}

pub(crate) fn ids(pending: &[Pending]) -> Vec<Uuid> {
    pending.iter().map(|one| one.delivery_id).collect()
}

fn refusals(retried: &Retried) -> Vec<Refusal> {
    retried.refused.iter().map(|refused| refused.why).collect()
}

async fn write(pool: &Pool, held: &Held, pending: &Pending, step: Finished) {
    let written = outcomes::write(pool, &[outcome(pending, step)], held)
        .await
        .unwrap();
    assert!(written.contains(SHARD));
}

/// Puts the queue row into [`SHARD`], which the destinations of these tests do not hash to.
pub(crate) async fn into_our_shard(pool: &Pool) {
    execute(pool, "UPDATE queue SET shard = 3").await;
}

#[tokio::test]
async fn a_dead_letter_goes_again_with_all_that_it_had_and_is_delivered() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    events::record(pool, &[recorded(event(b"x"), &[to])])
        .await
        .unwrap();
    let first = queued(pool, to).await.remove(0);
    let later = first.due_at + SignedDuration::from_secs(1);
    write(pool, &held, &first, Finished::RetryAt(later)).await;
    let second = queued(pool, to).await.remove(0);
    write(
        pool,
        &held,
        &second,
        Finished::DeadLetter(GaveUp::RetriesSpent),
    )
    .await;
    let id = first.delivery_id;
    let dead = deliveries::get(pool, id).await.unwrap().unwrap();

    let before = Timestamp::now();
    let retried = retries::deliveries(pool, &[id], ANNA).await.unwrap();
    assert_eq!((retried.going.len(), retried.refused.len()), (1, 0));
    into_our_shard(pool).await;
    let again = queued(pool, to).await.remove(0);
    let round = Round {
        number: 1,
        attempts_before: 2,
        job: None,
    };
    assert_eq!(
        (again.delivery_id, again.attempts, again.round),
        (id, 2, round)
    );
    let soon = SignedDuration::from_secs(5);
    // What its age counts from, and due at once.
    assert_eq!(again.recorded_at, again.due_at);
    assert!(again.due_at.duration_since(before).abs() < soon);
    let pending = deliveries::get(pool, id).await.unwrap().unwrap();
    assert_eq!((&pending.state, pending.round), (&State::Pending, 1));
    assert_eq!(pending.created_at, dead.created_at);

    // It fails once more, and then arrives.
    write(pool, &held, &again, Finished::RetryAt(later)).await;
    let last = queued(pool, to).await.remove(0);
    assert_eq!(last.round, round);
    write(pool, &held, &last, Finished::Delivered).await;
    assert_eq!(queued(pool, to).await, []);
    let made = attempts::of_delivery(pool, id, 0).await.unwrap();
    let triggers: Vec<_> = made
        .iter()
        .map(|made| (made.number, made.trigger))
        .collect();
    let expected = [
        (1, Trigger::Initial),
        (2, Trigger::Automatic),
        (3, Trigger::Manual),
        (4, Trigger::Automatic),
    ];
    assert_eq!(triggers, expected);
    assert_eq!(attempts::of_delivery(pool, id, 3).await.unwrap().len(), 1);
    let delivered = deliveries::get(pool, id).await.unwrap().unwrap();
    assert_eq!(
        (&delivered.state, delivered.attempts, delivered.round),
        (&State::Delivered, 4, 1)
    );
    let retry = &delivered.retries[0];
    assert_eq!(
        (
            &*retry.state,
            retry.reason.as_deref(),
            retry.attempts,
            &*retry.by,
            retry.job
        ),
        ("dead_letter", Some("retries_spent"), 2, "anna", None)
    );
    assert_eq!(retry.finished_at, dead.finished_at);

    // What was delivered goes again when it is asked for, and only then.
    let refused = retries::deliveries(pool, &[id], ANNA).await.unwrap();
    assert_eq!(refusals(&refused), [Refusal::Delivered]);
    let both = Request {
        delivered_too: true,
        ..ANNA
    };
    let retried = retries::deliveries(pool, &[id], both).await.unwrap();
    assert_eq!(retried.going.len(), 1);
    let twice = deliveries::get(pool, id).await.unwrap().unwrap();
    assert_eq!((twice.round, twice.retries.len()), (2, 2));
    assert_eq!(&*twice.retries[1].state, "delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_retry_at_once_one_sets_each_going() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 20).await;
    let people = (0..8).map(|n| {
        let (pool, mut ids) = (pool.clone(), ids(&dead));
        // In whatever order: nobody waits in a ring.
        ids.rotate_left(n * 2);
        tokio::spawn(async move { retries::deliveries(&pool, &ids, ANNA).await.unwrap() })
    });
    let mut going = Vec::new();
    for person in people.collect::<Vec<_>>() {
        let retried = person.await.unwrap();
        assert_eq!(retried.going.len() + retried.refused.len(), 20);
        assert!(
            refusals(&retried)
                .iter()
                .all(|why| *why == Refusal::Pending)
        );
        going.extend(retried.going.iter().map(|going| going.delivery_id));
    }
    going.sort();
    let mut all = ids(&dead);
    all.sort();
    assert_eq!(going, all);
    let rows = "SELECT count(*) FROM queue";
    assert_eq!(number(pool, rows).await, 20);
}

#[tokio::test]
async fn an_end_that_is_written_again_late_does_not_end_the_next_round() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 1).await.remove(0);
    let late = outcome(&dead, Finished::DeadLetter(GaveUp::RetriesSpent));
    let id = dead.delivery_id;
    retries::deliveries(pool, &[id], ANNA).await.unwrap();
    into_our_shard(pool).await;

    outcomes::write(pool, std::slice::from_ref(&late), &held)
        .await
        .unwrap();
    let still = deliveries::get(pool, id).await.unwrap().unwrap();
    assert_eq!(still.state, State::Pending);
    let again = queued(pool, to).await.remove(0);
    write(pool, &held, &again, Finished::Delivered).await;
    outcomes::write(pool, &[late], &held).await.unwrap();
    let done = deliveries::get(pool, id).await.unwrap().unwrap();
    assert_eq!((done.state, done.attempts), (State::Delivered, 2));
}

#[tokio::test]
async fn what_cannot_be_sent_again_is_refused_with_the_reason() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to: Vec<Uuid> = (1..=5).map(destination).collect();
    route(pool, &to).await;
    let mut dead = Vec::new();
    for to in &to {
        dead.extend(dead_letters(pool, &held, *to, 1).await);
    }
    let old = routing::ids::delivery(Uuid::from_u128(0x0180_0000_0000_7000 << 64));
    let never = routing::ids::delivery(fresh_id());
    unroute(pool, to[0]).await;
    let drop_event = "DELETE FROM events WHERE id = $1";
    sqlx::query(drop_event)
        .bind(dead[1].event_id)
        .execute(pool.raw())
        .await
        .unwrap();
    sqlx::query("UPDATE deliveries SET attempts = 60001 WHERE id = $1")
        .bind(dead[2].delivery_id)
        .execute(pool.raw())
        .await
        .unwrap();
    sqlx::query("UPDATE deliveries SET connection_id = $2 WHERE id = $1")
        .bind(dead[3].delivery_id)
        .bind(Uuid::from_u128(77))
        .execute(pool.raw())
        .await
        .unwrap();
    for (id, why) in [
        (dead[0].delivery_id, Refusal::DestinationGone),
        (dead[1].delivery_id, Refusal::EventGone),
        (dead[2].delivery_id, Refusal::TooManyAttempts),
        (dead[3].delivery_id, Refusal::ConnectionGone),
        (old, Refusal::EventGone),
        (never, Refusal::NotFound),
    ] {
        let retried = retries::deliveries(pool, &[id], ANNA).await.unwrap();
        assert_eq!((retried.going.len(), refusals(&retried)), (0, vec![why]));
    }
    // Of another namespace it is as if it were not there; for an administrator it is.
    let elsewhere = Request {
        namespace: Some("other"),
        ..ANNA
    };
    let ours = [dead[4].delivery_id];
    let retried = retries::deliveries(pool, &ours, elsewhere).await.unwrap();
    assert_eq!(refusals(&retried), [Refusal::NotFound]);
    assert_eq!(retried.refused[0].destination_id, None);
    let everywhere = Request {
        namespace: None,
        ..ANNA
    };
    let retried = retries::deliveries(pool, &ours, everywhere).await.unwrap();
    assert_eq!(retried.going.len(), 1);
    assert_eq!(number(pool, "SELECT count(*) FROM queue").await, 1);
}

#[tokio::test]
async fn an_events_dead_letters_go_again_and_its_other_deliveries_are_left_alone() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to: Vec<Uuid> = (1..=3).map(destination).collect();
    route(pool, &to).await;
    let one: Arc<Event> = {
        let recorded = recorded(event(b"x"), &to);
        let id = recorded.event.clone();
        events::record(pool, &[recorded]).await.unwrap();
        id
    };
    let first = queued(pool, to[0]).await.remove(0);
    write(pool, &held, &first, Finished::DeadLetter(GaveUp::Gone)).await;
    let second = queued(pool, to[1]).await.remove(0);
    write(pool, &held, &second, Finished::Delivered).await;

    let OfEvent::Retried(retried) = retries::event(pool, one.id, ANNA).await.unwrap() else {
        panic!("the event is there")
    };
    assert_eq!(retried.going.len(), 1);
    assert_eq!(retried.going[0].destination_id, to[0]);
    assert_eq!(refusals(&retried), [Refusal::Delivered]);
    let both = Request {
        delivered_too: true,
        ..ANNA
    };
    let OfEvent::Retried(retried) = retries::event(pool, one.id, both).await.unwrap() else {
        panic!("the event is there")
    };
    assert_eq!(retried.going[0].destination_id, to[1]);
    assert_eq!(refusals(&retried), [Refusal::Pending]);
    // Three deliveries, one of which was never finished.
    assert_eq!(number(pool, "SELECT count(*) FROM queue").await, 3);

    let old = Uuid::from_u128(0x0180_0000_0000_7000 << 64);
    let of = async |id, request| retries::event(pool, id, request).await.unwrap();
    assert_eq!(of(old, ANNA).await, OfEvent::Gone);
    assert_eq!(of(fresh_id(), ANNA).await, OfEvent::NotFound);
    let elsewhere = Request {
        namespace: Some("other"),
        ..ANNA
    };
    assert_eq!(of(one.id, elsewhere).await, OfEvent::NotFound);
}

#[tokio::test]
async fn a_delivery_whose_destination_goes_while_it_is_going_again_is_a_dead_letter_again() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (lease, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 1).await.remove(0);
    retries::deliveries(pool, &[dead.delivery_id], ANNA)
        .await
        .unwrap();
    into_our_shard(pool).await;
    unroute(pool, to).await;
    execute(pool, "UPDATE route_head SET revision = 1").await;
    let buried = outcomes::bury(pool, SHARD, lease.epoch, "gateway-0", to, 10).await;
    assert_eq!(buried.unwrap(), 1);
    let after = deliveries::get(pool, dead.delivery_id)
        .await
        .unwrap()
        .unwrap();
    let reason = "destination_deleted".to_owned();
    assert_eq!(
        (after.state, after.attempts),
        (State::DeadLetter { reason }, 1)
    );
    assert!(after.destination.deleted);
}

#[tokio::test]
async fn the_history_of_a_delivery_that_is_retried_for_ever_is_bounded() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 1).await.remove(0);
    for _ in 0..103 {
        retries::deliveries(pool, &[dead.delivery_id], ANNA)
            .await
            .unwrap();
        execute(
            pool,
            "UPDATE deliveries SET state = 'dead_letter', reason = 'gone'; DELETE FROM queue",
        )
        .await;
    }
    let after = deliveries::get(pool, dead.delivery_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((after.round, after.retries.len()), (103, 100));
    assert_eq!(after.retries[0].reason.as_deref(), Some("gone"));
}
