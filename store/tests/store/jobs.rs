//! Jobs: each dead letter once, in order, at the rate, whoever stops, crashes or works on it at the same time.

use crate::{
    retries::{ANNA, CONNECTION, dead_letters, ids, into_our_shard, route},
    support::*,
};
use routing::retry::GaveUp;
use std::{collections::BTreeSet, future::Future, pin::pin, task::Poll, time::Duration};
use store::{
    Pool,
    deliveries::{self, Cursor, Filter, State as DeliveryState},
    events,
    jobs::{self, Asked, CreateError, Created, Job, State},
    outcomes::{self, Finished},
    retries,
    testing::Database,
};
use uuid::Uuid;

fn asked(rate_per_second: u32) -> Asked {
    Asked {
        filter: Filter::default(),
        rate_per_second,
        most: None,
    }
}

async fn create(pool: &Pool, asked: &Asked) -> Job {
    let created = jobs::create(pool, fresh_id(), "team", asked, "anna", None)
        .await
        .unwrap();
    created.job().clone()
}

/// As if so much time had passed since the last step.
async fn wait(pool: &Pool, job: Uuid, seconds: f64) {
    sqlx::query(
        "UPDATE jobs SET used_until = used_until - make_interval(secs => $2) WHERE id = $1",
    )
    .bind(job)
    .bind(seconds)
    .execute(pool.raw())
    .await
    .unwrap();
}

async fn get(pool: &Pool, job: Uuid) -> Job {
    jobs::get(pool, job, Some("team")).await.unwrap().unwrap()
}

async fn run_to_the_end(pool: &Pool, job: Uuid) -> Vec<Uuid> {
    let mut going = Vec::new();
    while get(pool, job).await.state == State::Running {
        match jobs::step(pool).await.unwrap() {
            Some(step) => going.extend(step.retried.going.iter().map(|one| one.delivery_id)),
            None => wait(pool, job, 1.0).await,
        }
    }
    going
}

#[tokio::test]
async fn a_job_sets_each_dead_letter_going_once_from_the_oldest_on_and_says_how_far_it_is() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let (to, gone) = (destination(1), destination(2));
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 25).await;
    dead_letters(pool, &held, gone, 2).await;
    let job = create(pool, &asked(10)).await;
    assert_eq!((job.total, job.state), (Some(27), State::Running));
    assert_eq!(jobs::running(pool).await.unwrap(), 1);

    // The first second's worth at once, the next when it has passed.
    let step = jobs::step(pool).await.unwrap().unwrap();
    let first: Vec<Uuid> = step
        .retried
        .going
        .iter()
        .map(|one| one.delivery_id)
        .collect();
    assert_eq!(first, ids(&dead)[..10]);
    assert_eq!(get(pool, job.id).await.retried, 10);
    assert_eq!(jobs::step(pool).await.unwrap(), None);

    let rest = run_to_the_end(pool, job.id).await;
    assert_eq!(rest, ids(&dead)[10..]);
    let done = get(pool, job.id).await;
    assert_eq!(
        (done.state, done.retried, done.processed()),
        (State::Done, 25, 27)
    );
    assert_eq!(done.refused, [("destination_gone".to_owned(), 2)].into());
    assert!(done.ended_at.is_some());
    assert_eq!(jobs::running(pool).await.unwrap(), 0);
    assert_eq!(number(pool, "SELECT count(*) FROM queue").await, 25);
    let history = deliveries::get(pool, dead[0].delivery_id)
        .await
        .unwrap()
        .unwrap();
    let retry = &history.retries[0];
    assert_eq!((&*retry.by, retry.job), ("anna", Some(job.id)));
    // In the queue in that order too.
    into_our_shard(pool).await;
    assert_eq!(ids(&queued(pool, to).await), ids(&dead));
}

#[tokio::test]
async fn a_job_takes_what_its_filter_lets_through_and_no_more_than_it_may() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let (to, other) = (destination(1), destination(2));
    route(pool, &[to, other]).await;
    let dead = dead_letters(pool, &held, to, 12).await;
    dead_letters(pool, &held, other, 12).await;
    let only = |filter| Asked {
        filter,
        most: Some(5),
        ..asked(1000)
    };
    let of_destination = only(Filter {
        destination: Some(to),
        connection: Some(CONNECTION),
        reason: Some("retries_spent".into()),
        ..Filter::default()
    });
    let job = create(pool, &of_destination).await;
    assert_eq!(job.total, Some(5));
    assert_eq!(run_to_the_end(pool, job.id).await, ids(&dead)[..5]);

    // "body 1", "body 10", "body 11" of each; those that are going already aren't dead letters.
    let of_text = only(Filter {
        text: Some("body 1".into()),
        destination: Some(other),
        ..Filter::default()
    });
    let job = create(pool, &of_text).await;
    assert_eq!(job.total, None);
    assert_eq!(run_to_the_end(pool, job.id).await.len(), 3);
    let nothing = only(Filter {
        reason: Some("gone".into()),
        ..Filter::default()
    });
    let job = create(pool, &nothing).await;
    assert_eq!(run_to_the_end(pool, job.id).await, Vec::<Uuid>::new());
    assert_eq!(get(pool, job.id).await.state, State::Done);
}

#[tokio::test]
async fn what_a_job_set_going_and_failed_again_is_not_taken_twice() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    dead_letters(pool, &held, to, 6).await;
    let job = create(pool, &asked(2)).await;
    let mut steps = 0;
    while get(pool, job.id).await.state == State::Running {
        wait(pool, job.id, 1.0).await;
        jobs::step(pool).await.unwrap();
        steps += 1;
        assert!(steps < 20, "it goes round in a ring");
        into_our_shard(pool).await;
        let failed: Vec<_> = queued(pool, to)
            .await
            .iter()
            .map(|one| outcome(one, Finished::DeadLetter(GaveUp::NotRetryable)))
            .collect();
        outcomes::write(pool, &failed, &held).await.unwrap();
        // Also with a clock that has jumped back.
        execute(
            pool,
            "UPDATE deliveries SET finished_at = finished_at - interval '1 s' WHERE round = 1",
        )
        .await;
    }
    assert_eq!(get(pool, job.id).await.retried, 6);
}

#[tokio::test]
async fn a_job_that_was_stopped_sets_nothing_going_and_goes_on_where_it_was() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 9).await;
    let job = create(pool, &asked(4)).await;
    jobs::step(pool).await.unwrap().unwrap();
    // A stop while a step is under way waits for it.
    wait(pool, job.id, 1.0).await;
    let (stepped, stopped) = tokio::join!(jobs::step(pool), jobs::stop(pool, job.id, None));
    let during = stepped.unwrap().map_or(0, |step| step.retried.going.len()) as u64;
    let stopped = stopped.unwrap().unwrap();
    assert_eq!(
        (stopped.state, stopped.retried),
        (State::Stopped, 4 + during)
    );
    wait(pool, job.id, 1.0).await;
    assert_eq!(jobs::step(pool).await.unwrap(), None);
    assert_eq!(get(pool, job.id).await, stopped);

    // Faster from here on.
    let faster = jobs::set_rate(pool, job.id, Some("team"), 1000)
        .await
        .unwrap();
    assert_eq!(faster.unwrap().rate_per_second, 1000);
    let resumed = jobs::resume(pool, job.id, None).await.unwrap().unwrap();
    assert_eq!((resumed.state, resumed.ended_at), (State::Running, None));
    let rest = run_to_the_end(pool, job.id).await;
    assert_eq!(rest, ids(&dead)[4 + during as usize..]);
    // What is over stays over, and another namespace's is nobody's.
    let over = jobs::resume(pool, job.id, None).await.unwrap().unwrap();
    assert_eq!(over.state, State::Done);
    assert_eq!(
        jobs::stop(pool, job.id, None).await.unwrap().unwrap().state,
        State::Done
    );
    assert_eq!(jobs::stop(pool, job.id, Some("other")).await.unwrap(), None);
    assert_eq!(jobs::get(pool, job.id, Some("other")).await.unwrap(), None);
}

/// Polls a future `polls` times and drops it then, as a crash would.
async fn crash_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for n in 0..polls {
        let mut woken = false;
        let output = std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if woken || n + 1 == polls => Poll::Ready(None),
            Poll::Pending => {
                woken = true;
                Poll::Pending
            }
        })
        .await;
        if output.is_some() {
            return output;
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_moment_of_a_step_repeats_nothing_and_leaves_nothing_out() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 60).await;
    let job = create(pool, &asked(2)).await;
    let mut crashes = 0;
    for polls in 1.. {
        let state = get(pool, job.id).await.state;
        if state != State::Running {
            break;
        }
        wait(pool, job.id, 1.0).await;
        // From the first wait of a step to its last, round and round.
        crashes += u32::from(
            crash_after(polls % 30 + 1, jobs::step(pool))
                .await
                .is_none(),
        );
        // Whatever moment it was: what the job says that it did is what is in the queue.
        until_nobody_writes(pool).await;
        let says = get(pool, job.id).await.retried;
        let queued = number(pool, "SELECT count(*) FROM queue").await;
        assert_eq!(i64::try_from(says), Ok(queued));
        assert!(polls < 2_000, "it never ends");
    }
    assert!(crashes > 5, "{crashes}");
    into_our_shard(pool).await;
    assert_eq!(ids(&queued(pool, to).await), ids(&dead));
    assert_eq!(get(pool, job.id).await.retried, 60);
}

/// Comes back when what a crash has left under way is over.
async fn until_nobody_writes(pool: &Pool) {
    let writers = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                   AND backend_type = 'client backend' AND state <> 'idle'";
    while number(pool, writers).await > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_work_on_the_same_jobs_do_each_part_once() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 600).await;
    // Two jobs want the same, and people do.
    let jobs = [
        create(pool, &asked(1000)).await,
        create(pool, &asked(1000)).await,
    ];
    let replicas: Vec<_> = (0..3)
        .map(|_| {
            let (pool, jobs) = (pool.clone(), jobs.clone());
            tokio::spawn(async move {
                let mut going = Vec::new();
                loop {
                    match jobs::step(&pool).await {
                        Ok(Some(step)) => going.extend(step.retried.going),
                        Ok(None) => {
                            let mut running = 0;
                            for job in &jobs {
                                running +=
                                    u32::from(get(&pool, job.id).await.state == State::Running);
                                wait(&pool, job.id, 0.1).await;
                            }
                            if running == 0 {
                                return going;
                            }
                        }
                        Err(error) => assert!(error.is_transient(), "{error:?}"),
                    }
                }
            })
        })
        .collect();
    let by_hand = retries::deliveries(pool, &ids(&dead)[500..], ANNA)
        .await
        .unwrap();
    let mut going: Vec<Uuid> = by_hand.going.iter().map(|one| one.delivery_id).collect();
    for replica in replicas {
        going.extend(replica.await.unwrap().iter().map(|one| one.delivery_id));
    }
    assert_eq!(going.len(), 600);
    assert_eq!(going.iter().collect::<BTreeSet<_>>().len(), 600);
    assert_eq!(number(pool, "SELECT count(*) FROM queue").await, 600);
    let pending = "SELECT count(*) FROM deliveries WHERE state = 'pending' AND round = 1";
    assert_eq!(number(pool, pending).await, 600);
}

#[tokio::test]
async fn a_key_stands_for_one_job_and_a_namespace_runs_so_many() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let make =
        async |asked: Asked, key| jobs::create(pool, fresh_id(), "team", &asked, "anna", key).await;
    let first = make(asked(10), Some("monday")).await.unwrap();
    let Created::New(first) = first else {
        panic!("{first:?}")
    };
    assert_eq!(
        make(asked(10), Some("monday")).await.unwrap(),
        Created::Before(first.clone())
    );
    // Also when it goes at another rate by now.
    jobs::set_rate(pool, first.id, None, 3).await.unwrap();
    assert!(matches!(
        make(asked(10), Some("monday")).await,
        Ok(Created::Before(_))
    ));
    let error = make(asked(11), Some("monday")).await.unwrap_err();
    assert!(
        matches!(error, CreateError::IdempotencyMismatch { job } if job == first.id),
        "{error:?}"
    );
    for _ in 1..jobs::RUNNING {
        make(asked(10), None).await.unwrap();
    }
    let error = make(asked(10), None).await.unwrap_err();
    assert!(
        matches!(
            error,
            CreateError::TooMany {
                limit: jobs::RUNNING
            }
        ),
        "{error:?}"
    );
    jobs::create(
        pool,
        fresh_id(),
        "other",
        &asked(10),
        "anna",
        Some("monday"),
    )
    .await
    .unwrap();
    // A place becomes free, and the one who had it must wait for another.
    jobs::stop(pool, first.id, None).await.unwrap();
    make(asked(10), None).await.unwrap();
    let error = jobs::resume(pool, first.id, None).await.unwrap_err();
    assert!(matches!(error, CreateError::TooMany { .. }), "{error:?}");

    for rate in [0, 1001] {
        let error = make(asked(rate), None).await.unwrap_err();
        assert!(matches!(error, CreateError::Invalid(_)), "{error:?}");
    }
    let listed = jobs::list(pool, "team", None, None, 2).await.unwrap();
    assert_eq!(listed.len(), 2);
    let rest = jobs::list(pool, "team", None, Some(listed[1].id), 100)
        .await
        .unwrap();
    assert_eq!(rest.len(), jobs::RUNNING as usize - 1);
    let stopped = jobs::list(pool, "team", Some(State::Stopped), None, 100)
        .await
        .unwrap();
    assert_eq!(
        stopped.iter().map(|job| job.id).collect::<Vec<_>>(),
        [first.id]
    );
    execute(
        pool,
        "UPDATE jobs SET ended_at = now() - interval '31 days' WHERE state = 'stopped'",
    )
    .await;
    assert_eq!(jobs::forget(pool).await.unwrap(), 1);
    assert_eq!(jobs::get(pool, first.id, None).await.unwrap(), None);
}

#[tokio::test]
async fn a_rate_is_kept_over_any_time_also_by_a_job_that_nobody_worked_on_for_long() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    dead_letters(pool, &held, to, 200).await;
    let job = create(pool, &asked(20)).await;
    // An hour in which no gateway ran.
    wait(pool, job.id, 3600.0).await;
    let began = std::time::Instant::now();
    let mut going = 0;
    while began.elapsed() < Duration::from_millis(1500) {
        if let Some(step) = jobs::step(pool).await.unwrap() {
            going += step.retried.going.len();
        }
        let most = 20.0 * (1.0 + began.elapsed().as_secs_f64());
        assert!(
            going as f64 <= most + 1.0,
            "{going} in {:?}",
            began.elapsed()
        );
    }
    assert!(going >= 40, "{going}");
}

#[tokio::test]
async fn a_job_that_cannot_go_on_says_why_and_leaves_the_others_alone() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let bad = create(pool, &asked(10)).await;
    let good = create(pool, &asked(10)).await;
    execute(
        pool,
        "UPDATE jobs SET used_until = used_until - interval '1 s'",
    )
    .await;
    sqlx::query("UPDATE jobs SET refused = '[]' WHERE id = $1")
        .bind(bad.id)
        .execute(pool.raw())
        .await
        .unwrap();
    while let Some(step) = jobs::step(pool).await.unwrap() {
        assert_eq!(step.state == State::Failed, step.job == bad.id);
    }
    assert_eq!(get(pool, good.id).await.state, State::Done);
    let (state, error): (String, String) =
        sqlx::query_as("SELECT state, error FROM jobs WHERE id = $1")
            .bind(bad.id)
            .fetch_one(pool.raw())
            .await
            .unwrap();
    assert_eq!(state, "failed");
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn dead_letters_are_listed_newest_first_page_by_page_and_found_by_what_is_known_of_them() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let (to, other) = (destination(1), destination(2));
    route(pool, &[to]).await;
    let mut dead = dead_letters(pool, &held, to, 25).await;
    let elsewhere = dead_letters(pool, &held, other, 3).await;
    dead.extend(elsewhere);
    let mut newest = ids(&dead);
    newest.reverse();

    let mut after: Option<Cursor> = None;
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = deliveries::page(pool, "team", &Filter::default(), after, 10)
            .await
            .unwrap();
        pages += 1;
        seen.extend(page.dead_letters.iter().map(|one| one.delivery_id));
        match page.next {
            // As it goes through somebody's hands.
            Some(next) => after = Some(next.to_string().parse().unwrap()),
            None => break,
        }
    }
    assert_eq!((seen.len(), pages), (28, 3));
    seen.sort();
    newest.sort();
    assert_eq!(seen, newest);

    let found = async |filter: Filter| {
        let page = deliveries::page(pool, "team", &filter, None, 100)
            .await
            .unwrap();
        page.dead_letters
    };
    let of = |destination| Filter {
        destination: Some(destination),
        ..Filter::default()
    };
    let first = &found(of(to)).await[0];
    assert_eq!(first.delivery_id, dead[24].delivery_id);
    assert_eq!(
        (
            first.destination.name.as_deref(),
            first.destination.deleted,
            first.attempts
        ),
        (Some("destination-0"), false, 1)
    );
    let kinds = [&first.connection, &first.destination].map(|named| named.kind.as_deref());
    assert_eq!(kinds, [Some("connection"), Some("destination")]);
    assert_eq!((first.status, &*first.reason), (Some(200), "retries_spent"));
    assert_eq!(found(of(other)).await.len(), 3);
    let unnamed = &found(of(other)).await[0].destination;
    assert_eq!((unnamed.name.as_deref(), unnamed.deleted), (None, true));
    for (text, count) in [
        ("body 24", 1),
        ("body 1", 12),
        ("Body", 0),
        ("/v1/ingest/é", 28),
        ("a=2", 28),
    ] {
        let text = Filter {
            text: Some(text.to_owned()),
            ..Filter::default()
        };
        assert_eq!(found(text.clone()).await.len(), count, "{text:?}");
    }
    for (reason, connection, count) in [
        ("gone", CONNECTION, 0),
        ("retries_spent", CONNECTION, 28),
        ("retries_spent", Uuid::nil(), 0),
    ] {
        let filter = Filter {
            reason: Some(reason.to_owned()),
            connection: Some(connection),
            ..Filter::default()
        };
        assert_eq!(found(filter).await.len(), count);
    }
    let middle = deliveries::get(pool, dead[10].delivery_id)
        .await
        .unwrap()
        .unwrap()
        .finished_at;
    let since = Filter {
        from: Some(middle),
        ..of(to)
    };
    let before = Filter {
        until: Some(middle),
        ..of(to)
    };
    assert_eq!(
        (found(since).await.len(), found(before).await.len()),
        (15, 10)
    );
    let nobodys = deliveries::page(pool, "other", &of(to), None, 100)
        .await
        .unwrap();
    assert_eq!((nobodys.dead_letters, nobodys.next), (vec![], None));
}

#[tokio::test]
async fn a_page_that_finds_little_among_many_ends_and_says_where_to_go_on() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    let wanted = dead_letters(pool, &held, to, 1).await;
    execute(
        pool,
        "UPDATE deliveries SET reason = 'gone', finished_at = now() - interval '1 h'",
    )
    .await;
    execute(
        pool,
        "INSERT INTO deliveries (id, event_id, connection_id, destination_id, namespace, state, reason, attempts, created_at, finished_at)
         SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7000' || substr(md5(n::text), 1, 16))::uuid,
                event_id, connection_id, destination_id, namespace, state, 'too_old', 1, now(), now() - n * interval '1 ms'
         FROM deliveries CROSS JOIN generate_series(1, 5000) n",
    )
    .await;
    let filter = Filter {
        reason: Some("gone".into()),
        ..Filter::default()
    };
    let (mut after, mut pages, mut found) = (None, 0, Vec::new());
    loop {
        let page = deliveries::page(pool, "team", &filter, after, 10)
            .await
            .unwrap();
        pages += 1;
        found.extend(page.dead_letters.iter().map(|one| one.delivery_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((found, pages), (ids(&wanted), 3));
}

#[tokio::test]
async fn what_is_going_or_was_never_given_up_is_no_dead_letter() {
    let db = Database::create().await;
    let pool = &db.store.pool;
    let (_, held) = own(pool, "gateway-0").await;
    let to = destination(1);
    route(pool, &[to]).await;
    let dead = dead_letters(pool, &held, to, 2).await;
    events::record(pool, &[recorded(event(b"x"), &[to])])
        .await
        .unwrap();
    retries::deliveries(pool, &ids(&dead)[..1], ANNA)
        .await
        .unwrap();
    let page = deliveries::page(pool, "team", &Filter::default(), None, 100)
        .await
        .unwrap();
    let listed: Vec<Uuid> = page
        .dead_letters
        .iter()
        .map(|one| one.delivery_id)
        .collect();
    assert_eq!(listed, ids(&dead)[1..]);
    let going = deliveries::get(pool, dead[0].delivery_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(going.state, DeliveryState::Pending);
}
