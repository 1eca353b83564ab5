//! What holds for any objects in any order, good or bad.

use super::*;
use proptest::prelude::*;

/// One thing that the operator may tell.
#[derive(Debug, Clone)]
enum Step {
    Source {
        n: u128,
        namespace: bool,
        path: u8,
        secret: bool,
        allowed: u8,
        bad: bool,
    },
    Destination {
        n: u128,
        namespace: bool,
        allowed: u8,
        bad: bool,
    },
    Connection {
        n: u128,
        source: (u128, bool),
        destination: (u128, bool),
        bad: bool,
    },
    Remove(u128),
    Secret(bool),
    Labels(bool, bool),
}

/// A few, so that they meet: the same one, one below another, and both.
const PATHS: [&str; 8] = ["", "a", "a/b", "a/b/c", "a/c", "ab", "b", "b/a"];

fn namespace(second: bool) -> &'static str {
    if second { "bank" } else { "shop" }
}

fn allowed(allowed: u8) -> serde_json::Value {
    match allowed % 3 {
        0 => serde_json::json!({ "from": "Same" }),
        1 => serde_json::json!({ "from": "All" }),
        _ => {
            serde_json::json!({ "from": "Selector", "selector": { "matchLabels": { "team": "payments" } } })
        }
    }
}

fn manifest(kind: &str, n: u128, second: bool, spec: serde_json::Value) -> crds::Resource {
    crds::parse(serde_json::json!({
        "apiVersion": "hookstream.io/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": format!("n{n}"),
            "namespace": namespace(second),
            "uid": Uuid::from_u128(n).to_string(),
            "generation": 1,
            "creationTimestamp": format!("2026-11-21T00:00:{:02}Z", 59 - n % 7),
        },
        "spec": spec,
    }))
    .expect("a manifest")
}

/// The UIDs tell the kinds apart: 1.. sources, 11.. destinations, 21.. connections.
fn tell(compiler: &mut Compiler, step: &Step) {
    use serde_json::json;
    match *step {
        Step::Source {
            n,
            namespace,
            path,
            secret,
            allowed: who,
            bad,
        } => {
            let mut spec = json!({ "allowedNamespaces": allowed(who), "maxBodySize": if bad { "lots" } else { "1Mi" } });
            if path > 0 {
                spec["path"] = PATHS[usize::from(path)].into();
            }
            if secret {
                spec["verification"] =
                    json!({ "template": "github", "secretRefs": [{ "name": "s", "key": "k" }] });
            }
            compiler.apply(manifest("Source", n, namespace, spec));
        }
        Step::Destination {
            n,
            namespace,
            allowed: who,
            bad,
        } => {
            let url = if bad {
                "nowhere"
            } else {
                "https://example.com"
            };
            let spec = json!({ "allowedNamespaces": allowed(who), "http": { "url": url } });
            compiler.apply(manifest("Destination", n, namespace, spec));
        }
        Step::Connection {
            n,
            source,
            destination,
            bad,
        } => {
            let end = |(n, second): (u128, bool)| json!({ "name": format!("n{n}"), "namespace": namespace(second) });
            let filter = json!({ "all": [{ "path": if bad { "type" } else { "body.type" }, "op": "eq", "value": 1 }] });
            let spec =
                json!({ "source": end(source), "destination": end(destination), "filter": filter });
            compiler.apply(manifest("Connection", n, false, spec));
        }
        Step::Remove(n) => compiler.remove(Uuid::from_u128(n)),
        Step::Secret(there) => {
            for second in [false, true] {
                let data = there.then(|| [("k".to_owned(), Secret::new("v"))].into());
                compiler.set_secret((namespace(second).to_owned(), "s".to_owned()), data);
            }
        }
        Step::Labels(second, payments) => {
            let labels = payments.then(|| [("team".to_owned(), "payments".to_owned())].into());
            compiler.set_namespace(namespace(second).to_owned(), labels);
        }
    }
}

/// An object has one namespace for life; what it says varies.
fn any_step() -> impl Strategy<Value = Step> {
    let rarely = || prop::bool::weighted(0.2);
    prop_oneof![
        4 => (1..9_u128, 0..PATHS.len() as u8, rarely(), any::<u8>(), rarely()).prop_map(|(n, path, secret, allowed, bad)| Step::Source {
            n, namespace: n % 2 == 0, path, secret, allowed, bad,
        }),
        2 => (11..14_u128, any::<u8>(), rarely()).prop_map(|(n, allowed, bad)| Step::Destination {
            n, namespace: n % 2 == 0, allowed, bad,
        }),
        4 => (21..26_u128, 1..9_u128, 11..14_u128, rarely()).prop_map(|(n, source, destination, bad)| Step::Connection {
            n, source: (source, source % 2 == 0), destination: (destination, destination % 2 == 0), bad,
        }),
        2 => prop_oneof![1..9_u128, 11..14_u128, 21..26_u128].prop_map(Step::Remove),
        1 => any::<bool>().prop_map(Step::Secret),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(second, payments)| Step::Labels(second, payments)),
    ]
}

/// What a step is about: of two with the same subject, the later one counts.
fn subject(step: &Step) -> (u8, u128) {
    match step {
        Step::Source { n, .. }
        | Step::Destination { n, .. }
        | Step::Connection { n, .. }
        | Step::Remove(n) => (0, *n),
        Step::Secret(_) => (1, 0),
        Step::Labels(second, _) => (2, u128::from(*second)),
    }
}

/// The last step about each subject: the end state.
fn end_state(steps: &[Step]) -> Vec<Step> {
    let last: BTreeMap<_, _> = steps
        .iter()
        .map(|step| (subject(step), step.clone()))
        .collect();
    last.into_values().collect()
}

fn compiled(rows: Vec<Row>, steps: &[Step]) -> (Vec<Row>, BTreeMap<Uuid, Verdict>) {
    let mut compiler = Compiler::new(rows);
    steps.iter().for_each(|step| tell(&mut compiler, step));
    let verdicts = compiler.compile().verdicts;
    (compiler.rows().cloned().collect(), verdicts)
}

fn bytes(rows: &[Row]) -> Vec<(Uuid, i64, Vec<u8>)> {
    rows.iter()
        .map(|row| (row.uid, row.generation, row.payload()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_input_never_changes_the_table(
        (steps, shuffled) in prop::collection::vec(any_step(), 1..40)
            .prop_map(|steps| end_state(&steps))
            .prop_flat_map(|steps| (Just(steps.clone()), Just(steps).prop_shuffle())),
    ) {
        let (rows, verdicts) = compiled(vec![], &steps);
        let (other_rows, other_verdicts) = compiled(vec![], &shuffled);
        prop_assert_eq!(bytes(&rows), bytes(&other_rows));
        prop_assert_eq!(verdicts, other_verdicts);
    }

    #[test]
    fn compiling_twice_is_the_same_bytes_and_then_nothing(steps in prop::collection::vec(any_step(), 1..40)) {
        let (rows, _) = compiled(vec![], &steps);
        let (again, _) = compiled(vec![], &steps);
        prop_assert_eq!(bytes(&rows), bytes(&again));

        let mut compiler = Compiler::new(rows);
        steps.iter().for_each(|step| tell(&mut compiler, step));
        compiler.compile();
        let delta = compiler.compile();
        prop_assert!(delta.changed.is_empty() && delta.removed.is_empty() && delta.verdicts.is_empty());
    }

    #[test]
    fn removing_an_object_removes_exactly_its_row(steps in prop::collection::vec(any_step(), 1..40), victim in any::<prop::sample::Index>()) {
        let mut compiler = Compiler::default();
        steps.iter().for_each(|step| tell(&mut compiler, step));
        compiler.compile();
        let rows: Vec<Row> = compiler.rows().cloned().collect();
        prop_assume!(!rows.is_empty());
        let victim = rows[victim.index(rows.len())].key();
        compiler.remove(victim.uid);
        let delta = compiler.compile();
        prop_assert_eq!(delta.removed, vec![victim]);
        // A path that becomes free may go to the next source, and so bring connections of its own.
        if victim.kind != Kind::Source {
            prop_assert!(delta.changed.is_empty());
        }
    }

    #[test]
    fn compiling_changes_gives_what_compiling_everything_gives(
        passes in prop::collection::vec(prop::collection::vec(any_step(), 1..6), 1..12),
    ) {
        let mut compiler = Compiler::default();
        let mut told: Vec<Step> = Vec::new();
        let mut verdicts: BTreeMap<Uuid, Verdict> = BTreeMap::new();
        let mut published: BTreeMap<RowKey, Row> = BTreeMap::new();
        for steps in passes {
            steps.iter().for_each(|step| tell(&mut compiler, step));
            told.extend(steps);
            let delta = compiler.compile();
            for row in delta.changed {
                prop_assert_ne!(published.insert(row.key(), row.clone()), Some(row));
            }
            for key in delta.removed {
                prop_assert!(published.remove(&key).is_some());
            }
            verdicts.extend(delta.verdicts);

            let end = end_state(&told);
            for step in &end {
                if let Step::Remove(n) = step {
                    verdicts.remove(&Uuid::from_u128(*n));
                }
            }
            let rows: Vec<Row> = compiler.rows().cloned().collect();
            // What was handed out adds up to what there is.
            prop_assert!(published.values().map(Row::key).eq(rows.iter().map(Row::key).collect::<BTreeSet<_>>()));
            prop_assert!(rows.iter().all(|row| published.get(&row.key()) == Some(row)));

            let (whole_rows, whole_verdicts) = compiled(rows.clone(), &end);
            prop_assert_eq!(&rows, &whole_rows);
            prop_assert_eq!(&verdicts, &whole_verdicts);
        }
    }

    #[test]
    fn no_two_rows_have_one_path_and_no_row_crosses_without_permission(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut compiler = Compiler::default();
        for pass in steps.chunks(3) {
            pass.iter().for_each(|step| tell(&mut compiler, step));
            compiler.compile();
            let paths: Vec<_> = compiler.rows().filter_map(own_path).collect();
            let distinct: BTreeSet<_> = paths.iter().collect();
            prop_assert_eq!(paths.len(), distinct.len());
            for row in compiler.rows() {
                prop_assert!(compiler.may_stay(row));
            }
        }
    }

    #[test]
    fn what_is_sent_below_a_path_stays_in_its_namespace(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut compiler = Compiler::default();
        for pass in steps.chunks(3) {
            pass.iter().for_each(|step| tell(&mut compiler, step));
            compiler.compile();
            let table = crate::Table::build(compiler.rows().cloned());
            for owner in compiler.rows() {
                let Some(path) = own_path(owner) else { continue };
                for sent in PATHS.iter().map(|more| format!("{path}/{more}")) {
                    let (source, _) = table.source(&sent).expect("the owner is there at least");
                    prop_assert_eq!(&source.namespace, &owner.namespace, "{}", sent);
                }
            }
        }
    }
}
