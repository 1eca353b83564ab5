//! What an object's status says: pure, from a verdict and the gateways' acknowledgements.
//!
//! Conditions are Gateway API's. `Programmed` is true only when every live gateway acknowledged a revision that holds
//! this generation; `Ready` is the three together. `Stalled` and `Reconciling` are there only while true, as kstatus
//! expects: Stalled when only the author can help, Reconciling while time will.
//!
//! The same facts give the same status: `lastTransitionTime` is kept while a condition's status stays, and the message
//! of a Programmed that stays true is kept too, so that a gateway that comes or goes does not rewrite ten thousand objects.

use crate::{
    change::Meta,
    circuits::Circuit,
    fleet::{Database, Fleet},
};
use crds::Status;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use routing::compile::{self, Finding, Verdict};

#[cfg(test)]
mod tests;

pub const ACCEPTED: &str = "Accepted";
pub const RESOLVED_REFS: &str = "ResolvedRefs";
pub const PROGRAMMED: &str = "Programmed";
pub const READY: &str = "Ready";
pub const STALLED: &str = "Stalled";
pub const RECONCILING: &str = "Reconciling";
/// Of a destination: whether deliveries go. Not part of Ready: a receiver that is down is nobody's failed rollout.
pub const HEALTHY: &str = "Healthy";

/// The API server's bound on a condition's message is 32,768; a page is more than anybody reads.
const MESSAGE_BYTES: usize = 2048;

/// How many gateways a message names before it only counts them.
const NAMED_GATEWAYS: usize = 5;

/// The condition of this type.
pub fn condition<'s>(status: &'s Status, type_: &str) -> Option<&'s Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Whether the condition is there and true.
pub fn is_true(status: &Status, type_: &str) -> bool {
    condition(status, type_).is_some_and(|condition| condition.status == "True")
}

/// Everything that a status follows from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub meta: &'a Meta,
    pub verdict: &'a Verdict,
    /// The revision since which the table holds what this verdict says; `None`: not published yet.
    pub published: Option<i64>,
    /// Why it isn't published although it could be, when that takes longer.
    pub held: Option<&'a str>,
    pub fleet: &'a Fleet,
    /// What senders put before `/v1/ingest/…`, without a slash at its end.
    pub public_url: &'a str,
    /// `None`: not known yet, or not a destination.
    pub circuit: Option<Circuit>,
    /// The status that the object has now.
    pub previous: Option<&'a Status>,
    pub now: Timestamp,
}

struct State {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl State {
    fn yes(reason: &'static str, message: impl Into<String>) -> State {
        State {
            status: "True",
            reason,
            message: message.into(),
        }
    }

    fn no(reason: &'static str, message: impl Into<String>) -> State {
        State {
            status: "False",
            reason,
            message: message.into(),
        }
    }

    fn unknown(reason: &'static str, message: impl Into<String>) -> State {
        State {
            status: "Unknown",
            reason,
            message: message.into(),
        }
    }
}

/// The status that these facts call for.
pub fn decide(facts: &Facts<'_>) -> Status {
    let mut accepted = of_findings(facts.verdict, compile::Condition::Accepted, ACCEPTED);
    if accepted.status == "True" {
        accepted.message = facts.verdict.notes.join("; ");
    }
    let resolved = of_findings(
        facts.verdict,
        compile::Condition::ResolvedRefs,
        RESOLVED_REFS,
    );
    let programmed = programmed(facts, &accepted, &resolved);
    let ready = ready(&accepted, &resolved, &programmed);
    let stalled =
        (accepted.status == "False").then(|| State::yes(accepted.reason, accepted.message.clone()));
    let reconciling =
        (stalled.is_none() && resolved.status == "True" && programmed.status != "True")
            .then(|| State::yes(programmed.reason, programmed.message.clone()));
    let (circuit, healthy) = match facts.meta.kind {
        crds::Kind::Destination => {
            let (circuit, healthy) = health(facts);
            (Some(circuit.to_owned()), Some(healthy))
        }
        _ => (None, None),
    };
    let all = [
        (ACCEPTED, Some(accepted)),
        (RESOLVED_REFS, Some(resolved)),
        (PROGRAMMED, Some(programmed)),
        (READY, Some(ready)),
        (STALLED, stalled),
        (RECONCILING, reconciling),
        (HEALTHY, healthy),
    ];
    Status {
        observed_generation: Some(facts.meta.generation),
        conditions: all
            .into_iter()
            .filter_map(|(type_, state)| Some(made(facts, type_, state?)))
            .collect(),
        id: Some(facts.meta.kind.id(facts.meta.uid)),
        url: url(facts),
        circuit,
    }
}

/// The word for a destination's circuit, and what it means for deliveries. What isn't known stays as it was.
fn health(facts: &Facts<'_>) -> (&'static str, State) {
    let was = facts.previous.and_then(|status| status.circuit.as_deref());
    let circuit = facts.circuit.unwrap_or(match was {
        Some("Open") => Circuit::Open(None),
        Some("HalfOpen") => Circuit::HalfOpen(None),
        _ => Circuit::Closed,
    });
    let since = |since: Option<Timestamp>| {
        since.map_or(String::new(), |since| {
            format!(" since {}", whole_second(since))
        })
    };
    let (word, mut state) = match circuit {
        Circuit::Closed => ("Closed", State::yes("CircuitClosed", "")),
        Circuit::Open(at) => {
            let message = format!("deliveries fail, and wait{}", since(at));
            ("Open", State::no("CircuitOpen", message))
        }
        Circuit::HalfOpen(at) => {
            let message = format!("deliveries wait{}; the next one is tried", since(at));
            ("HalfOpen", State::no("CircuitHalfOpen", message))
        }
    };
    if facts.circuit.is_none()
        && let Some(before) = facts
            .previous
            .and_then(|previous| condition(previous, HEALTHY))
    {
        state.message = before.message.clone();
    }
    (word, state)
}

/// True, or false with the first finding's reason and every finding's sentence.
fn of_findings(verdict: &Verdict, condition: compile::Condition, yes: &'static str) -> State {
    let mut findings = verdict
        .findings
        .iter()
        .filter(|finding| finding.condition == condition)
        .peekable();
    let Some(first) = findings.peek() else {
        return State::yes(yes, "");
    };
    let reason = reason(first.reason);
    State::no(
        reason,
        findings.map(sentence).collect::<Vec<_>>().join("; "),
    )
}

fn sentence(finding: &Finding) -> String {
    if finding.path.is_empty() {
        finding.message.clone()
    } else {
        format!("{}: {}", finding.path, finding.message)
    }
}

/// The word for a reason, as Gateway API writes them.
pub fn reason(reason: compile::Reason) -> &'static str {
    use compile::Reason::*;
    match reason {
        InvalidFilter => "InvalidFilter",
        InvalidTransform => "InvalidTransform",
        ExpressionNotChecked => "ExpressionNotChecked",
        UnsupportedValue => "UnsupportedValue",
        InvalidUrl => "InvalidUrl",
        InvalidVerification => "InvalidVerification",
        Conflicted => "Conflicted",
        NotImplemented => "NotImplemented",
        TopicNotFound => "TopicNotFound",
        SourceNotFound => "SourceNotFound",
        DestinationNotFound => "DestinationNotFound",
        SecretNotFound => "SecretNotFound",
        SecretKeyMissing => "SecretKeyMissing",
        RefNotPermitted => "RefNotPermitted",
    }
}

fn programmed(facts: &Facts<'_>, accepted: &State, resolved: &State) -> State {
    let generation = facts.meta.generation;
    match facts.verdict.routed_generation {
        Some(routed) if routed == generation => acknowledged(facts),
        Some(routed) if accepted.status == "False" => State::no(
            "Invalid",
            format!("generation {generation} is not accepted; generation {routed} still routes"),
        ),
        Some(routed) => State::no(
            "Pending",
            format!(
                "generation {routed} still routes, until the references of generation {generation} resolve"
            ),
        ),
        None if accepted.status == "False" => {
            State::no("Invalid", "not accepted, so not in the routing table")
        }
        None if resolved.status == "False" => State::no(
            "Pending",
            "not in the routing table until its references resolve",
        ),
        None => State::no("Pending", "not in the routing table yet"),
    }
}

/// Whether every live gateway routes by the revision that holds this generation.
fn acknowledged(facts: &Facts<'_>) -> State {
    let fleet = facts.fleet;
    let was_true = facts.previous.is_some_and(|previous| {
        condition(previous, PROGRAMMED).is_some_and(|c| {
            c.status == "True" && c.observed_generation == Some(facts.meta.generation)
        })
    });
    match (fleet.database, facts.published) {
        (Database::Here, _) => {}
        // What was true a moment ago most likely still is: a blip must not rewrite every object twice.
        (Database::Blip, Some(_)) if was_true => {
            return State::yes("Programmed", kept_message(facts));
        }
        (_, Some(_)) => {
            return State::unknown(
                "DatabaseUnavailable",
                "Postgres is away: what the gateways route by can't be read",
            );
        }
        (_, None) => {
            return State::no(
                "DatabaseUnavailable",
                "Postgres is away: this generation waits to be published",
            );
        }
    }
    let Some(revision) = facts.published else {
        return State::no("Pending", facts.held.unwrap_or("waits to be published"));
    };
    let total = fleet.replicas.len();
    if total == 0 {
        // Without the revision: another leader would rewrite every object for it.
        return State::no("NoReplicas", "published; no gateway is running");
    }
    let behind: Vec<&str> = fleet.behind(revision).collect();
    let there = total - behind.len();
    let message = format!("revision {revision} on {there} of {total} gateways");
    match there {
        0 => State::no("Pending", message),
        _ if there < total => State::no(
            "PartiallyProgrammed",
            format!("{message}; waiting for {}", names(&behind)),
        ),
        _ if was_true => State::yes("Programmed", kept_message(facts)),
        _ => State::yes("Programmed", message),
    }
}

fn kept_message(facts: &Facts<'_>) -> String {
    facts
        .previous
        .and_then(|previous| condition(previous, PROGRAMMED))
        .map(|condition| condition.message.clone())
        .unwrap_or_default()
}

fn names(gateways: &[&str]) -> String {
    match gateways.get(NAMED_GATEWAYS..) {
        Some(rest) if !rest.is_empty() => format!(
            "{} and {} more",
            gateways[..NAMED_GATEWAYS].join(", "),
            rest.len()
        ),
        _ => gateways.join(", "),
    }
}

/// The three together: the first that is not true gives its reason and message.
fn ready(accepted: &State, resolved: &State, programmed: &State) -> State {
    [accepted, resolved, programmed]
        .into_iter()
        .find(|state| state.status != "True")
        .map_or_else(
            || State::yes("Ready", ""),
            |state| State {
                status: state.status,
                reason: state.reason,
                message: state.message.clone(),
            },
        )
}

fn made(facts: &Facts<'_>, type_: &str, state: State) -> Condition {
    let since = facts
        .previous
        .and_then(|previous| condition(previous, type_))
        .filter(|previous| previous.status == state.status)
        .map(|previous| previous.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: state.status.to_owned(),
        reason: state.reason.to_owned(),
        message: bounded(state.message),
        observed_generation: Some(facts.meta.generation),
        last_transition_time: since.unwrap_or_else(|| Time(whole_second(facts.now))),
    }
}

/// Kubernetes keeps times of conditions to the second.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("the whole second of a time is a time")
}

fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES)
            .rev()
            .find(|&at| message.is_char_boundary(at))
            .unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

/// Where publishers publish, and where senders send to: by the source's own path, unless another source has it.
fn url(facts: &Facts<'_>) -> Option<String> {
    let meta = facts.meta;
    let public_url = facts.public_url.trim_end_matches('/');
    match meta.kind {
        crds::Kind::Source => {}
        crds::Kind::Topic => return Some(format!("{public_url}/v1/topics/{}/publish", meta.name)),
        _ => return None,
    }
    let lost = facts
        .verdict
        .findings
        .iter()
        .any(|finding| finding.reason == compile::Reason::Conflicted);
    let key = match &meta.path {
        Some(path) if !lost => path.clone(),
        _ => meta.kind.id(meta.uid),
    };
    Some(format!("{public_url}/v1/ingest/{key}"))
}
