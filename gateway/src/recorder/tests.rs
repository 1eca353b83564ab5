//! The writers against a book that fails, hangs and refuses as it is told.

use super::*;
use bytes::Bytes;
use prometheus::{IntGauge, Registry};
use std::{collections::HashSet, sync::Mutex as StdMutex};
use store::{
    Error,
    events::{Event, NewDelivery},
};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Records in memory. Each call takes a permit of `gate`, then the next of `answers` (none left: success).
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    gate: Semaphore,
    answers: StdMutex<Vec<Answer>>,
    calls: StdMutex<Vec<usize>>,
    kept: StdMutex<HashSet<Uuid>>,
    partitions: StdMutex<u32>,
    /// What making partitions answers next; none left: success.
    making: StdMutex<Vec<Answer>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Away,
    /// Committed, and the answer lost.
    Lost,
    NoPartition,
    Hangs,
}

const POISON: &str = "POISON";

impl Fake {
    fn new(answers: &[Answer]) -> Fake {
        let answers = answers.iter().rev().copied().collect();
        Fake(Arc::new(Inner {
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            answers: StdMutex::new(answers),
            calls: StdMutex::default(),
            kept: StdMutex::default(),
            partitions: StdMutex::default(),
            making: StdMutex::default(),
        }))
    }

    /// Holds every call until [`Fake::open`].
    fn shut(self) -> Fake {
        self.0.gate.forget_permits(Semaphore::MAX_PERMITS);
        self
    }

    fn open(&self) {
        self.0.gate.add_permits(1_000_000);
    }

    fn calls(&self) -> Vec<usize> {
        self.0.calls.lock().unwrap().clone()
    }

    fn kept(&self) -> usize {
        self.0.kept.lock().unwrap().len()
    }
}

impl Book for Fake {
    async fn record(&mut self, batch: &[Recorded]) -> store::Result<Vec<Kept>> {
        self.0.calls.lock().unwrap().push(batch.len());
        self.0.gate.acquire().await.unwrap().forget();
        if batch.iter().any(|recorded| recorded.event.method == POISON) {
            return Err(Error::Data("invalid byte sequence".into()));
        }
        let answer = self.0.answers.lock().unwrap().pop();
        match answer {
            Some(Answer::Away) => return Err(Error::Unavailable("refused".into())),
            Some(Answer::NoPartition) => {
                return Err(Error::MissingPartition("no partition".into()));
            }
            Some(Answer::Hangs) => std::future::pending().await,
            Some(Answer::Lost) | None => {}
        }
        self.0
            .kept
            .lock()
            .unwrap()
            .extend(batch.iter().map(|recorded| recorded.event.id));
        if answer == Some(Answer::Lost) {
            Err(Error::Unavailable("reset".into()))
        } else {
            Ok(vec![Kept::New; batch.len()])
        }
    }

    async fn make_partitions(&self, _: &[Recorded]) -> store::Result<()> {
        let answer = self.0.making.lock().unwrap().pop();
        match answer {
            Some(Answer::Hangs) => std::future::pending().await,
            Some(_) => return Err(Error::Unavailable("refused".into())),
            None => {}
        }
        *self.0.partitions.lock().unwrap() += 1;
        Ok(())
    }
}

struct Test {
    handle: Handle,
    running: Running,
    token: CancellationToken,
    handed_over: Arc<StdMutex<Vec<Uuid>>>,
}

fn start_with(options: Options, book: &Fake) -> Test {
    let handed_over = Arc::<StdMutex<Vec<Uuid>>>::default();
    let told = handed_over.clone();
    let hand_over: HandOver = Arc::new(move |batch| {
        told.lock()
            .unwrap()
            .extend(batch.iter().map(|recorded| recorded.event.id))
    });
    let token = CancellationToken::new();
    let (handle, running) = start(
        options,
        book.clone(),
        hand_over,
        metrics::Metrics::new(&Registry::new()),
        token.clone(),
    );
    Test {
        handle,
        running,
        token,
        handed_over,
    }
}

fn event(method: &str, body: usize) -> Recorded {
    let id = Uuid::now_v7();
    let event = Event {
        id,
        namespace: "default".into(),
        revision: 1,
        received_at: store::time::stored(service::clock::now()),
        method: method.to_owned(),
        body: vec![0; body].into(),
        remote_addr: std::net::Ipv4Addr::LOCALHOST.into(),
        ..Event::default()
    };
    let delivery = NewDelivery {
        id: routing::ids::delivery(id),
        connection_id: Uuid::nil(),
        destination_id: Uuid::nil(),
        shard: 0,
        ordered: false,
    };
    Recorded {
        event: Arc::new(event),
        deliveries: vec![delivery],
        ..Recorded::default()
    }
}

impl Test {
    fn send(&self, recorded: Recorded) -> oneshot::Receiver<Result<Kept, Refusal>> {
        self.handle
            .enqueue(recorded, Vec::new(), None)
            .expect("the queue has room")
    }

    async fn send_all(
        &self,
        events: impl IntoIterator<Item = Recorded>,
    ) -> Vec<Result<(), &'static str>> {
        let answers: Vec<_> = events.into_iter().map(|event| self.send(event)).collect();
        let mut results = Vec::new();
        for answer in answers {
            results.push(
                answer
                    .await
                    .expect("a writer answers")
                    .map(|committed| assert_eq!(committed, Kept::New))
                    .map_err(|refusal| refusal.reason()),
            );
        }
        results
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_during_a_commit_goes_into_the_next_one() {
    let book = Fake::new(&[]).shut();
    let test = start_with(
        Options {
            max_batch_events: 100,
            ..Options::default()
        },
        &book,
    );
    let first = test.send(event("POST", 1));
    while book.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    let rest: Vec<_> = (0..250).map(|_| test.send(event("POST", 1))).collect();
    book.open();
    first.await.unwrap().unwrap();
    for answer in rest {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(book.calls(), [1, 100, 100, 50]);
    assert_eq!(test.handed_over.lock().unwrap().len(), 251);
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_bounded_in_bytes_and_one_event_always_fits() {
    let book = Fake::new(&[]);
    let test = start_with(
        Options {
            max_batch_bytes: 1000,
            ..Options::default()
        },
        &book,
    );
    let results = test
        .send_all([600, 300, 300, 5000, 10].map(|bytes| event("POST", bytes)))
        .await;
    assert_eq!(results, [Ok(()); 5]);
    assert_eq!(book.calls(), [2, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_again_with_the_same_ids() {
    let book = Fake::new(&[Answer::Lost, Answer::Away]);
    let test = start_with(Options::default(), &book);
    assert_eq!(
        test.send_all([event("POST", 1), event("POST", 1)]).await,
        [Ok(()); 2]
    );
    assert_eq!((book.calls(), book.kept()), (vec![2, 2, 2], 2));
    assert_eq!(
        test.handed_over.lock().unwrap().len(),
        2,
        "handed over once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_database_that_stays_away_is_503_within_the_patience_and_sooner_the_next_time() {
    let book = Fake::new(&[Answer::Away; 1000]);
    let test = start_with(Options::default(), &book);
    let begin = Instant::now();
    assert_eq!(
        test.send_all([event("POST", 1)]).await,
        [Err("database_away")]
    );
    let first = begin.elapsed();
    assert!(
        first > Duration::from_secs(4) && first <= Duration::from_secs(5),
        "{first:?}"
    );
    assert_eq!(
        test.send_all([event("POST", 1)]).await,
        [Err("database_away")]
    );
    assert!(
        begin.elapsed() - first <= Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    book.0.answers.lock().unwrap().clear();
    assert_eq!(test.send_all([event("POST", 1)]).await, [Ok(())]);
    assert_eq!(
        (book.kept(), test.handed_over.lock().unwrap().len()),
        (1, 1),
        "nothing of the others"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_given_up() {
    let book = Fake::new(&[Answer::Hangs]);
    let test = start_with(Options::default(), &book);
    let begin = Instant::now();
    assert_eq!(
        test.send_all([event("POST", 1)]).await,
        [Err("database_away")]
    );
    assert!(
        begin.elapsed() <= Duration::from_secs(11),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(test.send_all([event("POST", 1)]).await, [Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_partition_is_made_and_nobody_notices() {
    let book = Fake::new(&[Answer::NoPartition]);
    let test = start_with(Options::default(), &book);
    assert_eq!(test.send_all([event("POST", 1)]).await, [Ok(())]);
    assert_eq!(*book.0.partitions.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn making_a_partition_is_tried_again_like_a_commit_and_given_up_like_one() {
    let book = Fake::new(&[Answer::NoPartition, Answer::NoPartition]);
    *book.0.making.lock().unwrap() = vec![Answer::Away];
    let test = start_with(Options::default(), &book);
    assert_eq!(test.send_all([event("POST", 1)]).await, [Ok(())]);

    let book = Fake::new(&[Answer::NoPartition]);
    *book.0.making.lock().unwrap() = vec![Answer::Hangs];
    let test = start_with(Options::default(), &book);
    let begin = Instant::now();
    assert_eq!(
        test.send_all([event("POST", 1)]).await,
        [Err("database_away")]
    );
    assert!(
        begin.elapsed() <= Duration::from_secs(11),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_row_fails_alone() {
    let book = Fake::new(&[]);
    let test = start_with(Options::default(), &book);
    let events = (0..100).map(|n| event(if n == 37 { POISON } else { "POST" }, 1));
    for (n, result) in test.send_all(events).await.into_iter().enumerate() {
        assert_eq!(
            result,
            if n == 37 { Err("not_storable") } else { Ok(()) },
            "{n}"
        );
    }
    assert_eq!(
        (book.kept(), test.handed_over.lock().unwrap().len()),
        (99, 99)
    );
    assert!(
        book.calls().len() < 20,
        "halved, not one by one: {:?}",
        book.calls()
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once() {
    let book = Fake::new(&[]).shut();
    let test = start_with(
        Options {
            queue: 2,
            ..Options::default()
        },
        &book,
    );
    let first = test.send(event("POST", 1));
    while book.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    let waiting = [test.send(event("POST", 1)), test.send(event("POST", 1))];
    assert!(matches!(
        test.handle.enqueue(event("POST", 1), Vec::new(), None),
        Err(Refusal::QueueFull)
    ));
    book.open();
    first.await.unwrap().unwrap();
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_after_everything_queued_is_answered() {
    let book = Fake::new(&[]).shut();
    let test = start_with(
        Options {
            max_batch_events: 3,
            writers: 2,
            ..Options::default()
        },
        &book,
    );
    let answers: Vec<_> = (0..20).map(|_| test.send(event("POST", 1))).collect();
    test.token.cancel();
    book.open();
    test.running.finish().await;
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert!(
        test.handle
            .enqueue(event("POST", 1), Vec::new(), None)
            .is_err(),
        "nothing is taken after the end"
    );
}

#[tokio::test(start_paused = true)]
async fn the_body_is_charged_until_the_answer() {
    let held = IntGauge::new("held", "held").unwrap();
    let budget = crate::ingest::body::Budget::new(10, held.clone());
    let body = http_body_util::Full::new(Bytes::from_static(b"12345"));
    let buffered = crate::ingest::body::read(2, body, 10, Duration::from_secs(1), &budget)
        .await
        .unwrap();
    let book = Fake::new(&[]).shut();
    let test = start_with(Options::default(), &book);
    let record = test.handle.record(event("POST", 5), buffered.charge);
    let (result, ()) = tokio::join!(record, async {
        while book.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(held.get(), 7, "the body and its head");
        book.open();
    });
    result.unwrap();
    assert_eq!(held.get(), 0);
}

#[tokio::test]
async fn postgres_refuses_one_row_and_keeps_the_others() {
    let database = store::testing::Database::create().await;
    let hand_over: HandOver = Arc::new(drop);
    let metrics = metrics::Metrics::new(&Registry::new());
    let token = CancellationToken::new();
    let (handle, running) = start(
        Options::default(),
        store::events::Recorder::new(database.store.pool.clone()),
        hand_over,
        metrics,
        token.clone(),
    );
    // No HTTP library lets a zero byte into a method; if one ever does, this is what happens.
    let events = ["POST", "PO\0ST", "POST"].map(|method| event(method, 10));
    let ids = [0, 1, 2].map(|n: usize| events[n].event.id);
    let answers = events.map(|event| handle.enqueue(event, Vec::new(), None).unwrap());
    let mut results = Vec::new();
    for answer in answers {
        results.push(answer.await.unwrap().map_err(|refusal| refusal.reason()));
    }
    assert_eq!(results, [Ok(Kept::New), Err("not_storable"), Ok(Kept::New)]);
    let kept = store::events::get_many(&database.store.pool, &ids)
        .await
        .unwrap();
    assert_eq!(kept.len(), 2);
    token.cancel();
    running.finish().await;
}

#[tokio::test]
async fn a_day_is_made_for_rows_of_today_and_for_no_others() {
    let database = store::testing::Database::create().await;
    let pool = &database.store.pool;
    let now = service::clock::now();
    let in_days = |days: i64| {
        use jiff::{ToSpan, tz::TimeZone};
        now.to_zoned(TimeZone::UTC).date() + days.days()
    };
    store::partitions::drop_before(pool, in_days(30), |_| {})
        .await
        .unwrap();
    let token = CancellationToken::new();
    let (handle, running) = start(
        Options::default(),
        store::events::Recorder::new(pool.clone()),
        Arc::new(drop),
        metrics::Metrics::new(&Registry::new()),
        token.clone(),
    );
    let of = |days: i64| {
        let mut recorded = event("POST", 10);
        let day = u128::try_from(now.as_millisecond() + days * 86_400_000).unwrap();
        let mut changed = Event::clone(&recorded.event);
        changed.id = Uuid::from_u128(day << 80 | changed.id.as_u128() & ((1 << 80) - 1));
        recorded.deliveries[0].id = routing::ids::delivery(changed.id);
        recorded.event = Arc::new(changed);
        recorded
    };
    for (days, result) in [
        (-40, Err("database_away")),
        (0, Ok(Kept::New)),
        (-40, Err("database_away")),
        (40, Err("database_away")),
        (1, Ok(Kept::New)),
    ] {
        let answer = handle
            .enqueue(of(days), Vec::new(), None)
            .unwrap()
            .await
            .unwrap();
        assert_eq!(answer.map_err(|refusal| refusal.reason()), result, "{days}");
    }
    for days in [-40, -2, 2, 40] {
        let book = store::events::Recorder::new(pool.clone());
        let refused = book.make_partitions(&[of(0), of(days)]).await.unwrap_err();
        let told = service::log::chain(&refused);
        assert!(told.contains("this machine's: set the one"), "{told}");
    }
    token.cancel();
    running.finish().await;
}

#[tokio::test]
async fn a_writer_that_waits_for_work_keeps_no_connection() {
    let database = store::testing::Database::create().await;
    let alone = store::Store::connect(store::Options {
        max_connections: 1,
        ..database.options()
    });
    let pool = alone.await.unwrap().pool;
    let token = CancellationToken::new();
    let (handle, running) = start(
        Options::default(),
        store::events::Recorder::new(pool.clone()),
        Arc::new(drop),
        metrics::Metrics::new(&Registry::new()),
        token.clone(),
    );
    for _ in 0..3 {
        let answer = handle.enqueue(event("POST", 10), Vec::new(), None).unwrap();
        assert_eq!(answer.await.unwrap().unwrap(), Kept::New);
        // It would wait for the pool's only connection, and say so after 5 s.
        store::partitions::database_clock(&pool).await.unwrap();
    }
    token.cancel();
    running.finish().await;
}
