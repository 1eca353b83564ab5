//! A gateway that dies between, or in the middle of, any two store calls.
//!
//! Each call is polled a random number of times and then dropped, as a killed process would drop it, or its connection is
//! cut by the server; then it's made again, as its caller would. What must hold at the end: every event that was recorded
//! is delivered exactly once in the books, with each of its attempts once, and nothing is left in the queue.

use crate::support::*;
use jiff::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{collections::BTreeSet, future::Future, pin::pin, task::Poll};
use store::{
    Error, Held, Pool, Store, events, lease,
    outcomes::{self, Finished},
    testing::Database,
};

/// Runs the future, unless it needs more than `polls` polls: then it's dropped where it stands.
async fn for_polls<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Makes a call until it has answered, with crashes on the way.
async fn insist<T, F: Future<Output = Result<T, Error>>>(
    random: &mut StdRng,
    pool: &Pool,
    mut call: impl FnMut() -> F,
) -> T {
    loop {
        if random.random_ratio(1, 12) {
            cut_connections(pool).await;
        }
        let polls = if random.random_bool(0.5) {
            random.random_range(1..6)
        } else {
            usize::MAX
        };
        match for_polls(call(), polls).await {
            Some(Ok(answer)) => return answer,
            Some(Err(error)) => assert!(error.is_transient(), "{error:?}"),
            None => {}
        }
    }
}

async fn cut_connections(pool: &Pool) {
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    // Our own may be among those cut a moment ago.
    let _ = sqlx::raw_sql(cut).execute(pool.raw()).await;
}

async fn run(seed: u64) {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let random = &mut StdRng::seed_from_u64(seed);
    let mut accepted = BTreeSet::new();
    let mut held = Held {
        holder: "a".into(),
        epochs: [].into(),
    };
    for round in 0..12 {
        let batch: Vec<_> = (0..random.random_range(1..8))
            .map(|n| recorded(event(b"x"), &[destination(n % 2)]))
            .collect();
        insist(random, pool, || events::record(pool, &batch)).await;
        accepted.extend(batch.iter().map(|recorded| recorded.deliveries[0].id));

        if round % 4 == 0 {
            held = take_over(random, pool, &format!("owner-{round}")).await;
        }
        for n in 0..2 {
            let page = insist(random, pool, || {
                store::queue::head(pool, SHARD, destination(n), None, 10)
            })
            .await;
            let outcomes: Vec<_> = page
                .iter()
                .map(|(pending, _)| {
                    let again = pending.attempts < 2 && random.random_bool(0.4);
                    outcome(
                        pending,
                        if again {
                            Finished::RetryAt(Timestamp::now())
                        } else {
                            Finished::Delivered
                        },
                    )
                })
                .collect();
            // A call that was dropped on the way may still be carried out, and take the lease from under us: then we are
            // late, write nothing, and the next owner goes on.
            while !outcomes.is_empty()
                && !insist(random, pool, || outcomes::write(pool, &outcomes, &held))
                    .await
                    .contains(SHARD)
            {
                held = take_over(random, pool, &format!("owner-{round}-again")).await;
            }
        }
    }
    held = take_over(random, pool, "last").await;
    // Nobody cuts these.
    let whole = Store::connect(db.options()).await.unwrap();
    let pool = &whole.pool;
    for n in 0..2 {
        let rest: Vec<_> = queued(pool, destination(n))
            .await
            .iter()
            .map(|pending| outcome(pending, Finished::Delivered))
            .collect();
        outcomes::write(pool, &rest, &held).await.unwrap();
    }
    let delivered: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM deliveries ORDER BY id")
        .fetch_all(pool.raw())
        .await
        .unwrap();
    assert_eq!(
        delivered,
        accepted.into_iter().collect::<Vec<_>>(),
        "seed {seed}"
    );
    assert_eq!(
        number(pool, "SELECT count(*) FROM queue").await,
        0,
        "seed {seed}"
    );
    let uneven = "SELECT count(*) FROM deliveries d WHERE attempts <> (SELECT count(*) FROM attempts a WHERE a.delivery_id = d.id)";
    assert_eq!(number(pool, uneven).await, 0, "seed {seed}");
}

/// The owner died; its lease ran out and another takes it, perhaps without hearing at first that it has.
async fn take_over(random: &mut StdRng, pool: &Pool, holder: &str) -> Held {
    loop {
        insist(random, pool, || expire_lease(pool)).await;
        if let Some(lease) = insist(random, pool, || {
            lease::acquire(pool, "shard/00003", holder, TTL)
        })
        .await
        {
            return Held {
                holder: holder.into(),
                epochs: [(SHARD, lease.epoch)].into(),
            };
        }
    }
}

async fn expire_lease(pool: &Pool) -> Result<(), Error> {
    let sql = "UPDATE lease SET expires_at = now() - interval '1 ms' WHERE name = 'shard/00003'";
    sqlx::query(sql)
        .execute(pool.raw())
        .await
        .map(|_| ())
        .map_err(Error::from)
}

#[tokio::test]
async fn a_crash_between_any_two_calls_loses_and_doubles_nothing() {
    for seed in 0..8 {
        run(seed).await;
    }
}
