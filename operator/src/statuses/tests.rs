//! What is written and what waits, without an API server: writes are taken from the queue and settled by hand.

use super::*;
use crate::{
    change::Object,
    core::{Core, Secrets},
    fleet::Replica,
};
use serde_json::json;

fn statuses() -> Statuses {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::try_from(config).unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new());
    let (events, _) = events::channel(client.clone(), "operator-0".to_owned(), metrics.clone());
    Statuses::new(
        client,
        "https://hooks.example.com".to_owned(),
        events,
        metrics,
    )
}

fn fleet() -> Fleet {
    Fleet {
        replicas: vec![Replica {
            id: "gateway-0".to_owned(),
            epoch: 1,
            revision: 7,
        }],
        since_epoch: 0,
        database: Database::Here,
    }
}

/// Tells of published sources with these numbers as UIDs.
fn told(numbers: &[u128]) -> Report {
    let mut core = Core::new([], Secrets::Told);
    for number in numbers {
        let manifest = json!({"apiVersion": "hookstream.io/v1alpha1", "kind": "Source", "metadata": {
            "name": format!("o{number}"), "namespace": format!("n{number}"), "uid": Uuid::from_u128(*number),
            "generation": 1, "creationTimestamp": "2026-11-21T12:00:00Z"}, "spec": {}});
        let object = Object::told(crds::parse(manifest).unwrap()).unwrap();
        core.apply(crate::change::Change::Apply(Box::new(object)));
    }
    core.compile();
    core.published(7, &BTreeSet::new());
    Report {
        told: core.take_report(),
        term: Some(1),
        since_epoch: 0,
        held: None,
    }
}

#[tokio::test]
async fn an_object_that_is_denied_waits_alone() {
    let mut statuses = statuses();
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    statuses.take(told(&[1, 2]), &mut BTreeSet::new());
    statuses.look_at(vec![one], &fleet(), Mode::Leading);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let write = statuses.queue.take().expect("it is tried again");
        let before = clock::instant();
        let again = statuses.settle(Outcome::Denied(write, "forbidden".to_owned()));
        assert_eq!(again, Some(one));
        statuses.look_at(vec![one], &fleet(), Mode::Leading);
        assert!(statuses.queue.is_empty(), "not at once");
        assert_eq!(statuses.paused_until, None, "nobody else waits");
        let (at, _) = statuses.later.pop_first().unwrap();
        pauses.push(at.duration_since(before).as_secs_f64().round());
        // Its time has come.
        statuses.objects.get_mut(&one).unwrap().denied_until = Some(before);
        statuses.look_at(vec![one], &fleet(), Mode::Leading);
    }
    assert_eq!(pauses, [0.0, 0.0, 1.0, 2.0, 3.0, 6.0, 13.0, 15.0]);

    statuses.look_at(vec![two], &fleet(), Mode::Leading);
    let first = statuses.queue.take().unwrap();
    let resource_version = Some(3);
    statuses.settle(Outcome::Written {
        write: first,
        resource_version,
    });
    let tracked = &statuses.objects[&one];
    assert_eq!((tracked.denials, tracked.denied_until), (0, None));
    assert_eq!(statuses.queue.take().unwrap().meta.uid, two);
}

#[tokio::test]
async fn a_deleted_object_is_not_found_by_its_revision() {
    let mut statuses = statuses();
    statuses.take(told(&[1, 2]), &mut BTreeSet::new());
    let all = [(0, i64::MAX)];
    assert_eq!(statuses.by_revision.between(&all).len(), 2);
    statuses.forget(Uuid::from_u128(1));
    assert_eq!(
        statuses.by_revision.between(&all),
        BTreeSet::from([Uuid::from_u128(2)])
    );
}

#[tokio::test]
async fn a_heartbeat_looks_at_what_was_published_in_between() {
    let mut statuses = statuses();
    let numbers: Vec<u128> = (0..1000).collect();
    let mut report = told(&numbers);
    for (entry, revision) in report.told.objects.iter_mut().zip(0..) {
        entry.published = Some(revision);
    }
    statuses.take(report, &mut BTreeSet::new());
    let (before, mut after) = (fleet(), fleet());
    after.replicas[0].revision = 10;
    let Affected::Between(ranges) = affected(&before, &after) else {
        panic!("everything");
    };
    assert_eq!(statuses.by_revision.between(&ranges).len(), 3);
}
