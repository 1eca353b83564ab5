use super::*;
use crate::fleet::Replica;
use expect_test::{Expect, expect};
use routing::compile::Reason;
use std::fmt::Write;
use uuid::Uuid;

const NOON: &str = "2026-11-21T12:00:00Z";
const LATER: &str = "2026-11-21T12:00:30.250Z";

struct Case {
    meta: Meta,
    verdict: Verdict,
    published: Option<i64>,
    held: Option<&'static str>,
    fleet: Fleet,
    circuit: Option<Circuit>,
    previous: Option<Status>,
    now: &'static str,
}

/// A source of generation 3, published with revision 42, which three gateways have.
fn case() -> Case {
    Case {
        meta: Meta {
            kind: crds::Kind::Source,
            uid: Uuid::from_u128(0x0f8f_ad5b_d9cb_469f_a165_7086_7728_950e),
            namespace: "shop".to_owned(),
            name: "github".to_owned(),
            generation: 3,
            path: Some("github".to_owned()),
        },
        verdict: Verdict {
            findings: Vec::new(),
            notes: Vec::new(),
            routed_generation: Some(3),
        },
        published: Some(42),
        held: None,
        fleet: fleet(&[42, 42, 57]),
        circuit: None,
        previous: None,
        now: NOON,
    }
}

fn fleet(revisions: &[i64]) -> Fleet {
    let replicas = revisions
        .iter()
        .enumerate()
        .map(|(n, revision)| Replica {
            id: format!("gateway-{n}"),
            epoch: 2,
            revision: *revision,
        })
        .collect();
    Fleet {
        replicas,
        since_epoch: 0,
        database: Database::Here,
    }
}

fn finding(condition: compile::Condition, reason: Reason, path: &str, message: &str) -> Finding {
    Finding {
        condition,
        reason,
        path: path.to_owned(),
        message: message.to_owned(),
    }
}

impl Case {
    fn status(&self) -> Status {
        decide(&Facts {
            meta: &self.meta,
            verdict: &self.verdict,
            published: self.published,
            held: self.held,
            fleet: &self.fleet,
            public_url: "https://hooks.example.com/",
            circuit: self.circuit,
            previous: self.previous.as_ref(),
            now: self.now.parse().unwrap(),
        })
    }

    fn check(&self, expected: Expect) {
        expected.assert_eq(&shown(&self.status()));
    }
}

fn shown(status: &Status) -> String {
    let mut text = String::new();
    for c in &status.conditions {
        assert_eq!(c.observed_generation, status.observed_generation);
        writeln!(
            text,
            "{} {} {} {} {:?}",
            c.last_transition_time.0.strftime("%H:%M:%S%.f"),
            c.type_,
            c.status,
            c.reason,
            c.message
        )
        .unwrap();
    }
    for (name, value) in [("url", &status.url), ("circuit", &status.circuit)] {
        if let Some(value) = value {
            writeln!(text, "{name} {value}").unwrap();
        }
    }
    text
}

#[test]
fn ready_once_every_gateway_has_the_revision() {
    case().check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:00 Programmed True Programmed "revision 42 on 3 of 3 gateways"
        12:00:00 Ready True Ready ""
        url https://hooks.example.com/v1/ingest/github
    "#]]);
    let status = case().status();
    assert_eq!(
        status.id.as_deref(),
        Some("src_0f8fad5bd9cb469fa16570867728950e")
    );
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn partially_programmed_names_who_is_behind() {
    Case { fleet: fleet(&[42, 41, 40]), ..case() }.check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:00 Programmed False PartiallyProgrammed "revision 42 on 1 of 3 gateways; waiting for gateway-1, gateway-2"
        12:00:00 Ready False PartiallyProgrammed "revision 42 on 1 of 3 gateways; waiting for gateway-1, gateway-2"
        12:00:00 Reconciling True PartiallyProgrammed "revision 42 on 1 of 3 gateways; waiting for gateway-1, gateway-2"
        url https://hooks.example.com/v1/ingest/github
    "#]]);
}

#[test]
fn many_who_are_behind_are_counted() {
    let mut revisions = vec![1; 50];
    revisions[49] = 42;
    let status = Case {
        fleet: fleet(&revisions),
        ..case()
    }
    .status();
    let message = &condition(&status, PROGRAMMED).unwrap().message;
    assert!(
        message.ends_with("gateway-0, gateway-1, gateway-2, gateway-3, gateway-4 and 44 more"),
        "{message}"
    );
}

#[test]
fn pending_while_no_gateway_has_it() {
    Case {
        fleet: fleet(&[41]),
        ..case()
    }
    .check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:00 Programmed False Pending "revision 42 on 0 of 1 gateways"
        12:00:00 Ready False Pending "revision 42 on 0 of 1 gateways"
        12:00:00 Reconciling True Pending "revision 42 on 0 of 1 gateways"
        url https://hooks.example.com/v1/ingest/github
    "#]]);
}

#[test]
fn no_replicas_is_said() {
    Case {
        fleet: fleet(&[]),
        ..case()
    }
    .check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:00 Programmed False NoReplicas "published; no gateway is running"
        12:00:00 Ready False NoReplicas "published; no gateway is running"
        12:00:00 Reconciling True NoReplicas "published; no gateway is running"
        url https://hooks.example.com/v1/ingest/github
    "#]]);
}

#[test]
fn acknowledgements_from_before_a_restore_count_for_nothing() {
    let fleet = Fleet {
        since_epoch: 3,
        ..fleet(&[50])
    };
    assert_eq!(
        condition(&Case { fleet, ..case() }.status(), PROGRAMMED)
            .unwrap()
            .reason,
        "Pending"
    );
}

#[test]
fn a_held_removal_is_the_reason_why_it_waits() {
    let status = Case {
        published: None,
        held: Some("the removal of 60 of 100 rows waits"),
        ..case()
    }
    .status();
    let programmed = condition(&status, PROGRAMMED).unwrap();
    assert_eq!(
        (programmed.reason.as_str(), programmed.message.as_str()),
        ("Pending", "the removal of 60 of 100 rows waits")
    );
}

#[test]
fn a_database_that_is_away_is_unknown_or_false() {
    let away = |published| {
        let fleet = Fleet {
            database: Database::Away,
            ..fleet(&[42])
        };
        let status = Case {
            published,
            fleet,
            ..case()
        }
        .status();
        let programmed = condition(&status, PROGRAMMED).unwrap();
        format!("{} {}", programmed.status, programmed.reason)
    };
    assert_eq!(away(Some(42)), "Unknown DatabaseUnavailable");
    assert_eq!(away(None), "False DatabaseUnavailable");
}

#[test]
fn a_blip_of_the_database_changes_nothing_that_was_true() {
    let before = case().status();
    let fleet = Fleet {
        database: Database::Blip,
        ..fleet(&[])
    };
    assert_eq!(
        Case {
            fleet,
            previous: Some(before.clone()),
            now: LATER,
            ..case()
        }
        .status(),
        before
    );
}

#[test]
fn an_object_that_is_not_accepted_is_stalled_and_says_what_to_change() {
    let verdict = Verdict {
        findings: vec![
            finding(
                compile::Condition::Accepted,
                Reason::InvalidFilter,
                "spec.filter.all[0].op",
                "`matches` is no operator; write one of eq, neq",
            ),
            finding(
                compile::Condition::Accepted,
                Reason::UnsupportedValue,
                "spec.retry.maxRetries",
                "at most 50",
            ),
        ],
        notes: Vec::new(),
        routed_generation: None,
    };
    Case { verdict, published: None, ..case() }.check(expect![[r#"
        12:00:00 Accepted False InvalidFilter "spec.filter.all[0].op: `matches` is no operator; write one of eq, neq; spec.retry.maxRetries: at most 50"
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:00 Programmed False Invalid "not accepted, so not in the routing table"
        12:00:00 Ready False InvalidFilter "spec.filter.all[0].op: `matches` is no operator; write one of eq, neq; spec.retry.maxRetries: at most 50"
        12:00:00 Stalled True InvalidFilter "spec.filter.all[0].op: `matches` is no operator; write one of eq, neq; spec.retry.maxRetries: at most 50"
        url https://hooks.example.com/v1/ingest/github
    "#]]);
}

#[test]
fn a_bad_update_says_which_generation_still_routes() {
    let findings = vec![finding(
        compile::Condition::Accepted,
        Reason::InvalidUrl,
        "spec.http.url",
        "not an absolute URL",
    )];
    let status = Case {
        verdict: Verdict {
            findings,
            notes: Vec::new(),
            routed_generation: Some(2),
        },
        ..case()
    }
    .status();
    assert_eq!(
        condition(&status, PROGRAMMED).unwrap().message,
        "generation 3 is not accepted; generation 2 still routes"
    );
}

#[test]
fn a_reference_that_is_missing_is_neither_stalled_nor_reconciling() {
    let findings = vec![finding(
        compile::Condition::ResolvedRefs,
        Reason::SourceNotFound,
        "spec.source",
        "there is no Source github",
    )];
    let meta = Meta {
        kind: crds::Kind::Connection,
        path: None,
        ..case().meta
    };
    Case {
        meta,
        verdict: Verdict {
            findings,
            notes: Vec::new(),
            routed_generation: None,
        },
        published: None,
        ..case()
    }
    .check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs False SourceNotFound "spec.source: there is no Source github"
        12:00:00 Programmed False Pending "not in the routing table until its references resolve"
        12:00:00 Ready False SourceNotFound "spec.source: there is no Source github"
    "#]]);
}

#[test]
fn a_time_of_transition_moves_only_with_the_status() {
    let before = Case {
        fleet: fleet(&[41]),
        ..case()
    }
    .status();
    Case {
        previous: Some(before),
        now: LATER,
        ..case()
    }
    .check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:30 Programmed True Programmed "revision 42 on 3 of 3 gateways"
        12:00:30 Ready True Ready ""
        url https://hooks.example.com/v1/ingest/github
    "#]]);
}

#[test]
fn the_same_facts_later_are_the_same_status() {
    let before = case().status();
    assert_eq!(
        Case {
            previous: Some(before.clone()),
            now: LATER,
            ..case()
        }
        .status(),
        before
    );
}

#[test]
fn a_gateway_more_or_less_rewrites_nothing() {
    let before = case().status();
    assert_eq!(
        Case {
            previous: Some(before.clone()),
            fleet: fleet(&[57, 57, 57, 57]),
            now: LATER,
            ..case()
        }
        .status(),
        before
    );
}

#[test]
fn a_new_generation_says_its_own_revision() {
    let before = case().status();
    let meta = Meta {
        generation: 4,
        ..case().meta
    };
    let verdict = Verdict {
        findings: Vec::new(),
        notes: Vec::new(),
        routed_generation: Some(4),
    };
    let status = Case {
        meta,
        verdict,
        published: Some(43),
        fleet: fleet(&[43]),
        previous: Some(before),
        ..case()
    }
    .status();
    assert_eq!(
        condition(&status, PROGRAMMED).unwrap().message,
        "revision 43 on 1 of 1 gateways"
    );
}

#[test]
fn a_path_that_another_source_has_is_not_in_the_url() {
    let findings = vec![finding(
        compile::Condition::Accepted,
        Reason::Conflicted,
        "spec.path",
        "Source shop/older has this path",
    )];
    let status = Case {
        verdict: Verdict {
            findings,
            notes: Vec::new(),
            routed_generation: None,
        },
        ..case()
    }
    .status();
    assert_eq!(
        status.url.as_deref(),
        Some("https://hooks.example.com/v1/ingest/src_0f8fad5bd9cb469fa16570867728950e")
    );
}

#[test]
fn a_topic_says_where_to_publish() {
    let meta = Meta {
        kind: crds::Kind::Topic,
        path: None,
        ..case().meta
    };
    let url = Case { meta, ..case() }.status().url;
    let name = case().meta.name;
    assert_eq!(
        url,
        Some(format!(
            "https://hooks.example.com/v1/topics/{name}/publish"
        ))
    );
}

/// The case's object, as a destination.
fn destination() -> Case {
    Case {
        meta: Meta {
            kind: crds::Kind::Destination,
            path: None,
            ..case().meta
        },
        ..case()
    }
}

#[test]
fn an_open_circuit_is_shown_and_is_no_failed_rollout() {
    let opened = Some("2026-11-21T11:59:30.5Z".parse().unwrap());
    let closed = Case {
        circuit: Some(Circuit::Closed),
        ..destination()
    };
    closed.check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:00 Programmed True Programmed "revision 42 on 3 of 3 gateways"
        12:00:00 Ready True Ready ""
        12:00:00 Healthy True CircuitClosed ""
        circuit Closed
    "#]]);
    let open = Case {
        circuit: Some(Circuit::Open(opened)),
        previous: Some(closed.status()),
        now: LATER,
        ..destination()
    };
    open.check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:00 Programmed True Programmed "revision 42 on 3 of 3 gateways"
        12:00:00 Ready True Ready ""
        12:00:30 Healthy False CircuitOpen "deliveries fail, and wait since 2026-11-21T11:59:30Z"
        circuit Open
    "#]]);
    let half = Case {
        circuit: Some(Circuit::HalfOpen(opened)),
        previous: Some(open.status()),
        ..destination()
    };
    half.check(expect![[r#"
        12:00:00 Accepted True Accepted ""
        12:00:00 ResolvedRefs True ResolvedRefs ""
        12:00:00 Programmed True Programmed "revision 42 on 3 of 3 gateways"
        12:00:00 Ready True Ready ""
        12:00:30 Healthy False CircuitHalfOpen "deliveries wait since 2026-11-21T11:59:30Z; the next one is tried"
        circuit HalfOpen
    "#]]);
}

#[test]
fn a_circuit_that_is_not_known_stays_as_it_was_shown() {
    let first = destination().status();
    assert_eq!(first.circuit.as_deref(), Some("Closed"));
    for circuit in [
        Circuit::Open(None),
        Circuit::HalfOpen(None),
        Circuit::Closed,
    ] {
        let known = Case {
            circuit: Some(circuit),
            ..destination()
        }
        .status();
        let unknown = Case {
            previous: Some(known.clone()),
            now: LATER,
            ..destination()
        }
        .status();
        assert_eq!(unknown, known);
    }
}

#[test]
fn a_message_has_a_bound() {
    let findings = vec![finding(
        compile::Condition::Accepted,
        Reason::InvalidFilter,
        "spec.filter",
        &"é".repeat(5000),
    )];
    let status = Case {
        verdict: Verdict {
            findings,
            notes: Vec::new(),
            routed_generation: None,
        },
        ..case()
    }
    .status();
    assert!(condition(&status, ACCEPTED).unwrap().message.len() <= MESSAGE_BYTES + '…'.len_utf8());
}
