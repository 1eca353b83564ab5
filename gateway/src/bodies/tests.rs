//! Against a real Postgres, real receivers, a folder, and (in `s3`, `google` and `azure`) servers that speak as the stores do.

mod arriving;
mod attempts;
mod azure;
mod google;
mod s3;
mod stores;

use super::{sweep::Sweep, *};
use crate::{
    deliver::receiver::{Receiver, Reply},
    duty::Duty,
    egress::{self, Policy},
    run::Options,
    testing::{Gateway, Published, connection_row, destination_row, source_row},
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use object_store::ObjectMeta;
use prometheus::Registry;
use serde_json::Value;
use std::net::SocketAddr;
use store::testing::Database;
use tempfile::TempDir;

const THRESHOLD: usize = 256 << 10;

struct Test {
    database: Database,
    place: Place,
    receiver: Receiver,
    gateway: Gateway,
}

impl Test {
    async fn start(place: Place, change: impl FnOnce(&mut Options)) -> Test {
        let database = Database::create().await;
        let receiver = Receiver::always(Reply::Status(200)).await;
        let source = source_row(Uuid::now_v7(), "large", None);
        let destination = destination_row(Uuid::now_v7(), "all", &receiver.url());
        let connection = connection_row(Uuid::now_v7(), &source, &destination);
        let rows = [source, destination, connection];
        let published = Published::new(&database.store, &rows).await;
        let gateway = Gateway::start(database.options(), &published.keyring, |options| {
            options.egress.policy = Policy::with_private_networks();
            options.objects = Some(place.clone());
            change(options);
        })
        .await;
        Test {
            database,
            place,
            receiver,
            gateway,
        }
    }

    async fn post(&self, body: impl Into<Bytes>) -> (StatusCode, Value) {
        post(self.gateway.address, "", body.into()).await
    }

    async fn events(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM events")
            .fetch_one(self.database.store.pool.raw())
            .await
            .unwrap()
    }

    async fn bodies(&self) -> Bodies {
        let installation = store::installation::load(&self.database.store.pool).await;
        Bodies::new(
            self.place.clone(),
            installation.unwrap().id,
            Metrics::default(),
        )
    }

    async fn sweep(&self, grace: Duration) -> Sweep {
        Sweep {
            pool: self.database.store.pool.clone(),
            bodies: self.bodies().await,
            grace,
            from: None,
        }
    }
}

async fn post(address: SocketAddr, path: &str, body: Bytes) -> (StatusCode, Value) {
    let client = egress::client(egress::Options {
        policy: Policy::with_private_networks(),
        ..egress::Options::default()
    });
    let request = Request::post(format!("http://{address}/v1/ingest/large{path}"))
        .body(Full::new(body))
        .unwrap();
    let response = client.route("", None).request(request).await.unwrap();
    let (status, body) = (response.status(), response.into_body());
    let body = body.collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

fn folder() -> (TempDir, Place) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::folder(&folder.path().join("bodies"), THRESHOLD).unwrap();
    (folder, place)
}

async fn objects(place: &Place) -> Vec<ObjectMeta> {
    place.store.list(None).try_collect().await.unwrap()
}

fn large(bytes: usize) -> Bytes {
    // Nothing that compresses away, and nothing that repeats at a chunk's length.
    let bytes = (0..bytes as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
    bytes.collect::<Vec<u8>>().into()
}

/// An event that was never recorded, with its object.
async fn kept(bodies: &Bodies, id: Uuid, body: Bytes) -> Event {
    let event = Event {
        id,
        body,
        ..Event::default()
    };
    let mut recorded = Recorded {
        event: Arc::new(event),
        ..Recorded::default()
    };
    assert_eq!(bodies.keep(&mut recorded).await, Ok(true));
    Arc::into_inner(recorded.event).unwrap()
}

/// What holds for every store.
async fn a_large_body_goes_by_way_of_the_store(place: Place) {
    let mut test = Test::start(place, |_| {}).await;
    let small = large(THRESHOLD);
    let (status, _) = test.post(small.clone()).await;
    assert_eq!(status, 200);
    let received = test.receiver.next().await;
    assert_eq!(received.body, small);
    assert_eq!(
        objects(&test.place).await,
        [],
        "the threshold itself is small"
    );

    let body = large(2 * THRESHOLD + 1);
    let (status, answer) = test.post(body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer["event_id"].as_str().unwrap();
    let id = ids::parse(Prefix::Event, text).unwrap();
    let recorded = events_of(&test, id).await;
    assert_eq!(
        (recorded.body.len(), recorded.object_bytes),
        (0, Some(body.len() as u64))
    );
    let there = objects(&test.place).await;
    let key = there[0].location.to_string();
    let day = store::partitions::day_of_id(id);
    assert!(key.ends_with(&format!("/events/{day}/{text}")), "{key}");
    let received = test.receiver.next().await;
    assert!(received.body == body, "the receiver gets another body");
    assert_eq!(received.header("content-length"), body.len().to_string());
    assert_eq!(received.header("transfer-encoding"), "");
    let metrics = test.gateway.metrics();
    for line in [
        "hookstream_object_puts_total{result=\"ok\"} 1".to_owned(),
        format!("hookstream_object_put_bytes_total {}", body.len()),
        "hookstream_object_put_seconds_count 1".to_owned(),
        "hookstream_object_reads_total{result=\"ok\"} 1".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }

    let bodies = test.bodies().await;
    let orphan = kept(&bodies, Uuid::now_v7(), large(THRESHOLD + 1)).await;
    let ancient = Uuid::from_u128(orphan.id.as_u128() - ((40 * 86_400_000) << 80));
    kept(&bodies, ancient, large(THRESHOLD + 1)).await;
    assert_eq!(objects(&test.place).await.len(), 3);
    let mut sweep = test.sweep(super::sweep::GRACE).await;
    sweep.perform().await.unwrap();
    assert_eq!(
        objects(&test.place).await.len(),
        2,
        "a day without a partition goes, an orphan may still be recorded"
    );
    let mut sweep = test.sweep(Duration::ZERO).await;
    sweep.perform().await.unwrap();
    let left = objects(&test.place).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].location.as_ref(), key, "an event keeps its body");

    // A second pass looks at what is new only, and finds it.
    kept(&sweep.bodies, Uuid::now_v7(), large(THRESHOLD + 1)).await;
    sweep.perform().await.unwrap();
    assert_eq!(objects(&test.place).await.len(), 1);
    test.gateway.stop().await.unwrap();
}

async fn events_of(test: &Test, id: Uuid) -> Arc<Event> {
    let found = store::events::get_many(&test.database.store.pool, &[id]).await;
    found.unwrap().pop().expect("the event is recorded")
}

#[tokio::test]
async fn a_large_body_goes_by_way_of_a_folder() {
    let (_folder, place) = folder();
    a_large_body_goes_by_way_of_the_store(place).await;
}

#[tokio::test]
async fn without_the_store_a_large_body_gets_503_and_nothing_is_recorded() {
    let (folder, place) = folder();
    let test = Test::start(place, |_| {}).await;
    let path = folder.path().join("bodies");
    std::fs::remove_dir_all(&path).unwrap();
    // No folder can be made where a file is.
    std::fs::write(&path, "").unwrap();
    let (status, answer) = test.post(large(THRESHOLD + 1)).await;
    assert_eq!(
        (status.as_u16(), answer["code"].as_str().unwrap()),
        (503, "STORAGE_UNAVAILABLE")
    );
    assert!(answer["details"]["retry_after_ms"].is_u64(), "{answer}");
    assert_eq!(test.events().await, 0);
    let metrics = test.gateway.metrics();
    assert!(metrics.contains("hookstream_object_puts_total{result=\"error\"} 1"));
    assert!(metrics.contains("reason=\"object_store_away\",source=\"large\"} 1"));
    let (status, _) = test.post(large(THRESHOLD)).await;
    assert_eq!(status, 200, "a small body needs no store");
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn an_event_that_cannot_be_recorded_leaves_no_object() {
    let (_folder, place) = folder();
    let test = Test::start(place, |_| {}).await;
    sqlx::raw_sql("ALTER TABLE events ADD CONSTRAINT refused CHECK (path <> '/refused')")
        .execute(test.database.store.pool.raw())
        .await
        .unwrap();
    let (status, answer) = post(test.gateway.address, "/refused", large(THRESHOLD + 1)).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(objects(&test.place).await, []);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_crash_between_object_and_commit_leaves_an_orphan_that_is_swept() {
    let (_folder, place) = folder();
    let test = Test::start(place, |_| {}).await;
    // The commit waits for this lock; the object doesn't.
    let mut lock = test.database.store.pool.raw().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE events IN EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let address = test.gateway.address;
    let sent = tokio::spawn(async move { post(address, "", large(THRESHOLD + 1)).await });
    for _ in 0..2000 {
        if !objects(&test.place).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(objects(&test.place).await.len(), 1);
    test.gateway.kill().await;
    sent.abort();
    // What the gateway had asked for ends with it.
    sqlx::raw_sql(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .execute(&mut *lock)
    .await
    .unwrap();
    lock.rollback().await.unwrap();
    let pool = &test.database.store.pool;
    let count = "SELECT count(*) FROM events";
    let events: i64 = sqlx::query_scalar(count)
        .fetch_one(pool.raw())
        .await
        .unwrap();
    assert_eq!(events, 0);
    let installation = store::installation::load(pool).await.unwrap();
    let mut sweep = Sweep {
        pool: pool.clone(),
        bodies: Bodies::new(test.place.clone(), installation.id, Metrics::default()),
        grace: Duration::ZERO,
        from: None,
    };
    sweep.perform().await.unwrap();
    assert_eq!(objects(&test.place).await, []);
}

#[tokio::test]
async fn the_installations_largest_body_counts_where_a_source_allows_more() {
    let (_folder, place) = folder();
    let test = Test::start(place, |options| options.limits.max_body = 1 << 20).await;
    let (status, _) = test.post(large(1 << 20)).await;
    assert_eq!(status, 200);
    let (status, answer) = test.post(large((1 << 20) + 1)).await;
    assert_eq!(status, 413);
    assert_eq!(answer["details"]["limit_bytes"], 1 << 20);
    test.gateway.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_sweep_counts() {
    let (_folder, place) = folder();
    let database = Database::create().await;
    let registry = Registry::new();
    let bodies = Bodies::new(place, Uuid::now_v7(), Metrics::new(&registry));
    let orphan = kept(&bodies, Uuid::now_v7(), large(THRESHOLD + 1)).await;
    let ancient = Uuid::from_u128(orphan.id.as_u128() - ((40 * 86_400_000) << 80));
    kept(&bodies, ancient, large(THRESHOLD + 1)).await;
    let mut sweep = Sweep {
        pool: database.store.pool.clone(),
        bodies,
        grace: Duration::ZERO,
        from: None,
    };
    sweep.perform().await.unwrap();
    let metrics = service::metrics::render(&registry);
    for why in ["orphan", "retention"] {
        let line = format!("hookstream_object_swept_total{{why=\"{why}\"}} 1");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn another_installation_in_the_same_bucket_is_left_alone() {
    let (_folder, place) = folder();
    let database = Database::create().await;
    let theirs = Bodies::new(place.clone(), Uuid::now_v7(), Metrics::default());
    kept(&theirs, Uuid::now_v7(), large(THRESHOLD + 1)).await;
    let mut sweep = Sweep {
        pool: database.store.pool.clone(),
        bodies: Bodies::new(place.clone(), Uuid::now_v7(), Metrics::default()),
        grace: Duration::ZERO,
        from: None,
    };
    sweep.perform().await.unwrap();
    assert_eq!(objects(&place).await.len(), 1);
}

#[test]
fn a_url_that_means_no_store_is_refused_in_words() {
    let none = || std::iter::empty::<(String, String)>();
    for wrong in [
        "",
        "bucket",
        "ftp://bucket/x",
        "s3://",
        "s3://user:never-to-be-shown@bucket/x",
        "file://relative/x",
        "gs://bucket/x?y=z",
        "az://container?sig=never-to-be-shown",
    ] {
        let error = Place::parse(wrong, THRESHOLD, none()).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("never-to-be-shown"), "{shown}");
        assert!(
            error.to_string().contains("write s3://BUCKET/PATH"),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn credentials_come_from_the_environment_and_are_never_shown() {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "not-for-eyes"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_NO_SUCH_SETTING", "x"),
        ("PATH", "/bin"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let place = Place::parse("s3://hooks/prod/bodies/", THRESHOLD, variables).unwrap();
    let shown = format!("{place:?}");
    assert!(
        shown.contains("hooks") && shown.contains("prod/bodies"),
        "{shown}"
    );
    assert!(
        !shown.contains("not-for-eyes") && !shown.contains("AKIAEXAMPLE"),
        "{shown}"
    );
}
