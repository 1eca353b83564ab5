//! Whole gateways on one database: from a dead letter to its delivery, by hand and by jobs.

use super::*;
use crate::{
    deliver::receiver::{Receiver, Reply},
    egress::Policy,
    testing::{Gateway, Published, connection_row, destination_row, source_row},
};
use routing::{Row, delivery, row::Spec};
use service::clock;
use std::{
    collections::HashSet,
    sync::atomic::{AtomicU16, Ordering},
};
use store::{
    attempts,
    deliveries::{self, Delivery, Filter},
    jobs::{Asked, Job},
    lease,
    retries::{self, Refusal, Request},
    testing::Database,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(30);

const ANNA: Request<'static> = Request {
    namespace: None,
    delivered_too: false,
    by: "anna",
    job: None,
};

/// A source, a receiver that answers what it's told, a destination without retries, and a connection.
struct Ground {
    database: Database,
    published: Published,
    receiver: Receiver,
    status: Arc<AtomicU16>,
    destination: Row,
    connection: Row,
}

impl Ground {
    async fn new(change: impl FnOnce(&mut routing::row::DestinationSpec)) -> Ground {
        let status = Arc::new(AtomicU16::new(500));
        let answered = status.clone();
        let receiver =
            Receiver::start(move |_| Reply::Status(answered.load(Ordering::Relaxed))).await;
        Ground::with(receiver, status, change).await
    }

    async fn with(
        receiver: Receiver,
        status: Arc<AtomicU16>,
        change: impl FnOnce(&mut routing::row::DestinationSpec),
    ) -> Ground {
        let database = Database::create().await;
        let source = source_row(Uuid::now_v7(), "orders", None);
        let mut destination = destination_row(Uuid::now_v7(), "shop", &receiver.url());
        if let Spec::Destination(spec) = &mut destination.spec {
            spec.retry.max_retries = 0;
            change(spec);
        }
        let connection = connection_row(Uuid::now_v7(), &source, &destination);
        let rows = [source, destination.clone(), connection.clone()];
        let published = Published::new(&database.store, &rows).await;
        Ground {
            database,
            published,
            receiver,
            status,
            destination,
            connection,
        }
    }

    fn pool(&self) -> &Pool {
        &self.database.store.pool
    }

    async fn gateway(&self) -> Gateway {
        Gateway::start(
            self.database.options(),
            &self.published.keyring,
            |options| {
                options.egress.policy = Policy::with_private_networks();
                // Short enough for a test to wait for one that was killed.
                options.lease_ttl = Duration::from_secs(2);
            },
        )
        .await
    }

    /// Events that become dead letters: their deliveries, the oldest first.
    async fn dead_letters(&mut self, gateway: &Gateway, count: usize) -> Vec<Uuid> {
        for n in 0..count {
            send(gateway, &format!("body {n}")).await;
        }
        self.until(count, |one| one.state.as_str() == "dead_letter")
            .await;
        self.receiver.rest();
        let mut all = self.all().await;
        all.sort_by_key(|one| (one.finished_at, one.id));
        all.into_iter().map(|one| one.id).collect()
    }

    async fn all(&self) -> Vec<Delivery> {
        let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM deliveries")
            .fetch_all(self.pool().raw())
            .await
            .unwrap();
        let mut all = Vec::new();
        for id in ids {
            all.push(deliveries::get(self.pool(), id).await.unwrap().unwrap());
        }
        all
    }

    /// Waits until so many deliveries are like that. Rows have no signal of their own.
    async fn until(&self, count: usize, like: impl Fn(&Delivery) -> bool) {
        let began = clock::instant();
        loop {
            let have = self.all().await.iter().filter(|one| like(one)).count();
            if have == count {
                return;
            }
            assert!(began.elapsed() < LONG, "{have} and not {count}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn job(&self, asked: &Asked) -> Job {
        let id = Uuid::now_v7();
        let created = jobs::create(self.pool(), id, "default", asked, "anna", None).await;
        created.unwrap().job().clone()
    }

    async fn job_until(&self, id: Uuid, like: impl Fn(&Job) -> bool) -> Job {
        let began = clock::instant();
        loop {
            let job = jobs::get(self.pool(), id, None).await.unwrap().unwrap();
            if like(&job) {
                return job;
            }
            assert!(began.elapsed() < LONG, "{job:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn bodies(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        for _ in 0..count {
            let received = self.receiver.next().await;
            bodies.push(String::from_utf8(received.body.to_vec()).unwrap());
        }
        bodies
    }
}

fn asked(rate_per_second: u32) -> Asked {
    Asked {
        filter: Filter::default(),
        rate_per_second,
        most: None,
    }
}

async fn send(gateway: &Gateway, body: &str) {
    let mut stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .unwrap();
    let length = body.len();
    let request = format!(
        "POST /v1/ingest/orders HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Counted a moment after the row is there.
async fn counts(gateway: &Gateway, line: &str) {
    let began = clock::instant();
    while !gateway.metrics().lines().any(|have| have == line) {
        assert!(
            began.elapsed() < LONG,
            "no `{line}` in {}",
            gateway.metrics()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_somebody_retries_goes_at_once_and_keeps_its_history() {
    for strict in [false, true] {
        let mut ground = Ground::new(|spec| {
            spec.order = strict.then_some(delivery::Order {
                key: None,
                blocked_head: delivery::BlockedHead::Wait,
            });
        })
        .await;
        let gateway = ground.gateway().await;
        let dead = ground.dead_letters(&gateway, 1).await.remove(0);
        counts(
            &gateway,
            "hookstream_dead_letters_total{reason=\"retries_spent\"} 1",
        )
        .await;
        ground.status.store(204, Ordering::Relaxed);

        // As the command does it: by a connection of its own, nobody's replica.
        let began = clock::instant();
        let retried = retries::deliveries(ground.pool(), &[dead], ANNA)
            .await
            .unwrap();
        assert_eq!(retried.going.len(), 1, "{retried:?}");
        let received = ground.receiver.next().await;
        // Far below the half minute in which the owner looks by itself.
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(received.header("x-hookstream-delivery-attempt"), "2");
        ground
            .until(1, |one| one.state.as_str() == "delivered")
            .await;
        let made = attempts::of_delivery(ground.pool(), dead, 0).await.unwrap();
        let triggers: Vec<_> = made
            .iter()
            .map(|made| (made.number, made.trigger.as_str(), made.status))
            .collect();
        assert_eq!(
            triggers,
            [(1, "initial", Some(500)), (2, "manual", Some(204))]
        );
        let delivery = deliveries::get(ground.pool(), dead).await.unwrap().unwrap();
        assert_eq!(delivery.retries[0].by, "anna");
        counts(
            &gateway,
            "hookstream_delivery_triggers_total{trigger=\"manual\"} 1",
        )
        .await;
        gateway.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_under_way_is_not_set_going_twice() {
    let gate = Arc::new(Semaphore::new(0));
    let (held, first) = (gate.clone(), AtomicU16::new(0));
    let receiver = Receiver::start(move |_| match first.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::Status(500),
        _ => Reply::Gate(held.clone()),
    })
    .await;
    let mut ground = Ground::with(receiver, Arc::default(), |_| {}).await;
    let gateway = ground.gateway().await;
    let dead = ground.dead_letters(&gateway, 1).await.remove(0);
    let pool = ground.pool().clone();
    retries::deliveries(&pool, &[dead], ANNA).await.unwrap();
    ground.receiver.next().await;

    // It is in flight now.
    let retried = retries::deliveries(&pool, &[dead], ANNA).await.unwrap();
    assert_eq!(
        (retried.going.len(), retried.refused[0].why),
        (0, Refusal::Pending)
    );
    gate.add_permits(1);
    ground
        .until(1, |one| one.state.as_str() == "delivered")
        .await;
    let delivery = deliveries::get(&pool, dead).await.unwrap().unwrap();
    assert_eq!((delivery.attempts, delivery.round), (2, 1));
    assert_eq!(ground.receiver.rest().len(), 0);
    gateway.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_connection_or_destination_left_is_refused_and_a_job_counts_it() {
    let mut ground = Ground::new(|_| {}).await;
    let gateway = ground.gateway().await;
    let dead = ground.dead_letters(&gateway, 2).await;
    for (row, why) in [
        (ground.connection.clone(), Refusal::ConnectionGone),
        (ground.destination.clone(), Refusal::DestinationGone),
    ] {
        ground.published.publish(&[], &[row.key()]).await;
        let retried = retries::deliveries(ground.pool(), &dead, ANNA)
            .await
            .unwrap();
        let refused: Vec<Refusal> = retried.refused.iter().map(|one| one.why).collect();
        assert_eq!(refused, [why, why]);
    }
    let job = ground.job(&asked(100)).await;
    let done = ground
        .job_until(job.id, |job| job.state == State::Done)
        .await;
    assert_eq!(done.refused, [("destination_gone".to_owned(), 2)].into());
    counts(
        &gateway,
        "hookstream_job_deliveries_total{result=\"destination_gone\"} 2",
    )
    .await;
    counts(&gateway, "hookstream_jobs_ended_total{state=\"done\"} 1").await;
    gateway.stop().await.unwrap();
}

/// The replica that works on jobs.
async fn worker(pool: &Pool) -> Option<String> {
    let held = lease::list(pool, &lease::task_name(Jobs::NAME))
        .await
        .unwrap();
    held.into_iter().next().and_then(|row| row.holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_in_another_replica_when_its_own_is_killed_and_keeps_its_rate() {
    let mut ground = Ground::new(|_| {}).await;
    let first = ground.gateway().await;
    ground.dead_letters(&first, 60).await;
    let before = worker(ground.pool()).await.expect("it works on jobs");
    let second = ground.gateway().await;
    ground.status.store(204, Ordering::Relaxed);

    let job = ground.job(&asked(10)).await;
    ground.job_until(job.id, |job| job.retried >= 20).await;
    first.kill().await;
    let done = ground
        .job_until(job.id, |job| job.state == State::Done)
        .await;
    assert_eq!((done.retried, done.processed()), (60, 60));
    assert_ne!(worker(ground.pool()).await.expect("it is done"), before);
    counts(&second, "hookstream_jobs_ended_total{state=\"done\"} 1").await;

    // Each once; an attempt that the kill interrupted is made again, which is no other round.
    ground
        .until(60, |one| {
            one.state.as_str() == "delivered" && one.round == 1
        })
        .await;
    let all = ground.all().await;
    assert!(all.iter().all(|one| one.retries[0].job == Some(job.id)));
    let mut times: Vec<_> = all.iter().map(|one| one.retries[0].at).collect();
    times.sort();
    for (n, from) in times.iter().enumerate() {
        for (count, until) in (1..).zip(&times[n..]) {
            let took = until.duration_since(*from).as_secs_f64();
            // What a second has allowed and what the time since then does; `at` is when a step began, not when it counted.
            assert!(
                f64::from(count) <= 10.0 * (1.0 + took) + 3.0,
                "{count} in {took} s"
            );
        }
    }
    let expected: HashSet<String> = (0..60).map(|n| format!("body {n}")).collect();
    let have: HashSet<String> = ground.bodies(60).await.into_iter().collect();
    let rest = ground.receiver.rest().into_iter();
    let rest = rest.map(|received| String::from_utf8(received.body.to_vec()).unwrap());
    assert_eq!(
        have.into_iter().chain(rest).collect::<HashSet<_>>(),
        expected
    );
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_in_the_middle_sets_nothing_more_going_until_it_is_resumed() {
    let mut ground = Ground::new(|_| {}).await;
    let gateways = [ground.gateway().await, ground.gateway().await];
    ground.dead_letters(&gateways[0], 30).await;
    ground.status.store(204, Ordering::Relaxed);
    let job = ground.job(&asked(5)).await;
    ground.job_until(job.id, |job| job.retried >= 5).await;
    let stopped = jobs::stop(ground.pool(), job.id, None).await.unwrap();
    let stopped = stopped.unwrap();
    assert!((5..30).contains(&stopped.retried), "{stopped:?}");

    // Another job begins and ends afterwards: whoever works on them had time enough.
    let other = Asked {
        filter: Filter {
            reason: Some("gone".to_owned()),
            ..Filter::default()
        },
        ..asked(5)
    };
    let other = ground.job(&other).await;
    ground
        .job_until(other.id, |job| job.state == State::Done)
        .await;
    let still = jobs::get(ground.pool(), job.id, None).await.unwrap();
    assert_eq!(still, Some(stopped.clone()));
    let going = ground
        .all()
        .await
        .iter()
        .filter(|one| one.round > 0)
        .count();
    assert_eq!(going as u64, stopped.retried);

    jobs::set_rate(ground.pool(), job.id, None, 1000)
        .await
        .unwrap();
    jobs::resume(ground.pool(), job.id, None).await.unwrap();
    ground
        .job_until(job.id, |job| job.state == State::Done)
        .await;
    ground
        .until(30, |one| {
            one.state.as_str() == "delivered" && one.round == 1
        })
        .await;
    for gateway in gateways {
        gateway.stop().await.unwrap();
    }
}
