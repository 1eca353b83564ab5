use super::*;
use prometheus::Registry;
use service::clock;
use store::testing::{Database, SHARDS};

const LONG: Duration = Duration::from_secs(20);

fn leases(database: &Database) -> (Leases, mpsc::UnboundedReceiver<LeaseEvent>) {
    let (events, happened) = mpsc::unbounded_channel();
    let leases = Leases {
        pool: database.store.pool.clone(),
        replica: "a".into(),
        shards: SHARDS,
        ttl: Duration::from_secs(60),
        held: BTreeMap::new(),
        surplus: 0,
        dead: HashMap::new(),
        free_since: None,
        metrics: DeliveryMetrics::new(&Registry::new()),
        events: Box::new(move |event| {
            let _ = events.send(event);
        }),
    };
    (leases, happened)
}

#[tokio::test]
async fn a_shard_that_was_lost_and_taken_again_is_not_released_for_the_earlier_one() {
    let database = Database::create().await;
    let (mut leases, _happened) = leases(&database);
    assert!(leases.round(false).await);
    let earlier = leases.held[&3].lease.epoch;
    // Another replica has it, and gives it back.
    sqlx::query("UPDATE lease SET holder = NULL, epoch = epoch + 1, expires_at = now() WHERE name = 'shard/00003'")
        .execute(database.store.pool.raw())
        .await
        .unwrap();
    assert!(leases.round(false).await);
    let later = leases.held[&3].lease.epoch;
    assert!(later > earlier);
    leases.release(&[(3, earlier)]).await;
    assert!(leases.held.contains_key(&3));
    leases.release(&[(3, later)]).await;
    assert!(!leases.held.contains_key(&3));
}

#[tokio::test]
async fn a_burst_of_wakes_is_a_round_now_and_then() {
    let database = Database::create().await;
    let (leases, mut happened) = leases(&database);
    let wake = Arc::new(Notify::new());
    let (released, releases) = mpsc::unbounded_channel();
    let running = tokio::spawn(leases.run(releases, wake.clone()));
    let mut rounds = Vec::new();
    while rounds.len() < 3 {
        let event = tokio::time::timeout(LONG, happened.recv())
            .await
            .expect("no round")
            .expect("it runs");
        match event {
            // The first round, by the timer, has nothing to renew.
            LeaseEvent::Gained(_) => {}
            LeaseEvent::Trusted(_) => rounds.push(clock::instant()),
            other => panic!("{other:?}"),
        }
        // As if each of many replicas had something to say all the time.
        wake.notify_one();
    }
    assert!(
        rounds[2].duration_since(rounds[0]) >= QUIET * 3 / 2,
        "{rounds:?}"
    );
    drop(released);
    tokio::time::timeout(LONG, running).await.unwrap().unwrap();
}
