use super::*;
use crate::scheduler::{
    circuit::{State as Phase, Transition},
    destination::tests::row,
};
use routing::delivery::{Circuit as CircuitSpec, RateLimit, Trip};
use std::time::Duration;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn circuit(failures: u32) -> CircuitSpec {
    CircuitSpec {
        trip: Trip::InARow(failures),
        cooldown: Duration::from_secs(60),
    }
}

fn limit(deliveries: u32, seconds: u64) -> RateLimit {
    RateLimit {
        deliveries,
        per: Duration::from_secs(seconds),
    }
}

/// A destination with these gates, of a shard that was gained at second 0.
fn destination(circuit: Option<CircuitSpec>, rate_limit: Option<RateLimit>) -> Destination {
    let mut made = Destination::new(3, true, at(0));
    change(&mut made, circuit, rate_limit);
    made
}

fn change(
    destination: &mut Destination,
    circuit: Option<CircuitSpec>,
    rate_limit: Option<RateLimit>,
) {
    destination.row = Some(row(|spec| {
        (spec.circuit, spec.rate_limit) = (circuit, rate_limit);
    }));
    destination.configure();
}

fn attempt(destination: &mut Destination, word: Option<Word>, now: Timestamp) -> Change {
    assert_eq!(destination.gate(now), Gate::Open);
    let (term, _) = destination.begin(now);
    destination.conclude(term, word, now)
}

#[test]
fn an_open_circuit_asks_for_no_slot_until_its_time_has_come() {
    let mut one = destination(Some(circuit(1)), None);
    let change = attempt(&mut one, Some(Word::Bad), at(0));
    assert_eq!(change.to, Some(Transition::Opened));
    assert!(!one.is_held(), "it has to be looked at once");
    assert_eq!(one.gate(at(1)), Gate::Shut);
    assert!(one.is_held());
    assert_eq!(one.next_wake(), Some(at(60)));
    one.advance(at(60));
    assert!(!one.is_held());
    assert_eq!(one.gate(at(60)), Gate::Open);
    let (term, change) = one.begin(at(60));
    assert_eq!(change.to, Some(Transition::Probing));
    assert!(one.is_held(), "one probe is enough");
    one.conclude(term, Some(Word::Good), at(61));
    assert!(!one.is_held());
}

#[test]
fn a_probe_that_ends_while_the_destination_is_out_of_the_table_is_made_again() {
    let mut one = destination(Some(circuit(1)), None);
    attempt(&mut one, Some(Word::Bad), at(0));
    let (term, _) = one.begin(at(60));
    let row = one.row.take();
    let change = one.conclude(term, Some(Word::Bad), at(61));
    assert_eq!(change.to, Some(Transition::Opened));
    one.row = row;
    one.configure();
    assert_eq!(one.gate(at(62)), Gate::Open);
}

#[test]
fn what_began_before_the_circuit_was_switched_off_and_on_says_nothing() {
    let mut one = destination(Some(circuit(1)), None);
    let (old, _) = one.begin(at(0));
    change(&mut one, None, None);
    assert!(one.is_plain());
    change(&mut one, Some(circuit(1)), None);
    let change = one.conclude(old, Some(Word::Bad), at(1));
    assert_eq!(change, Change::default());
    assert_eq!(one.gates.circuit.state(), Phase::Closed);
}

#[test]
fn a_new_owner_holds_back_what_the_last_one_held_back() {
    let mut one = destination(Some(circuit(2)), Some(limit(1, 3600)));
    assert_eq!(one.gate(at(0)), Gate::Ask);
    assert!(one.is_held(), "until it is written");
    let state = one.state(Uuid::nil(), at(0));
    assert_eq!((state.shard, state.rate_granted), (3, Some(at(3605))));
    one.grant(state.rate_granted.unwrap());
    attempt(&mut one, Some(Word::Bad), at(0));

    let state = one.state(Uuid::nil(), at(1));
    let mut next = destination(Some(circuit(2)), Some(limit(1, 3600)));
    next.restore(&state);
    assert_eq!(next.state(Uuid::nil(), at(1)), state);
    assert_eq!(next.gate(at(10)), Gate::Limited);
    assert_eq!(next.next_wake(), Some(at(3605)));
    next.advance(at(3605));
    assert_eq!(next.gate(at(3605)), Gate::Ask);
    let asked = next.state(Uuid::nil(), at(3605)).rate_granted;
    next.grant(asked.unwrap());
    let change = attempt(&mut next, Some(Word::Bad), at(3605));
    assert_eq!(
        change.to,
        Some(Transition::Opened),
        "the second in a row, by two owners"
    );
}

#[test]
fn a_limit_that_was_taken_away_for_a_while_counts_on() {
    let mut one = destination(None, Some(limit(1, 3600)));
    assert_eq!(one.gate(at(0)), Gate::Ask);
    one.grant(at(3605));
    attempt(&mut one, None, at(0));
    change(&mut one, None, None);
    assert_eq!(one.gate(at(1)), Gate::Open);
    assert_eq!(one.state(Uuid::nil(), at(1)).rate_granted, Some(at(3605)));
    change(&mut one, None, Some(limit(1, 3600)));
    assert_eq!(one.gate(at(2)), Gate::Limited);
}

#[test]
fn a_changed_limit_asks_anew_for_what_was_asked_and_not_answered() {
    let mut one = destination(None, Some(limit(1, 3600)));
    assert_eq!(one.gate(at(0)), Gate::Ask);
    change(&mut one, None, Some(limit(60, 3600)));
    assert!(!one.is_held());
    assert_eq!(one.gate(at(0)), Gate::Ask);
    // The first answer is more than it asks for.
    one.grant(at(3600));
    assert_eq!(one.gate(at(0)), Gate::Open);
}

#[test]
fn a_destination_is_forgotten_only_when_its_bucket_is_full() {
    let mut one = destination(None, Some(limit(10, 10)));
    assert!(one.gates.is_rested(at(1)));
    attempt(&mut one, None, at(100));
    assert!(!one.gates.is_rested(at(100)) && one.gates.is_rested(at(101)));
    assert!(destination(None, None).gates.is_rested(at(0)));
}

#[test]
fn a_reset_is_carried_out_once() {
    let mut one = destination(Some(circuit(1)), None);
    attempt(&mut one, Some(Word::Bad), at(0));
    assert_eq!(one.gate(at(1)), Gate::Shut);
    let change = one.reset("first".to_owned());
    assert_eq!((change.save, change.to), (true, Some(Transition::Closed)));
    assert!(!one.is_held());
    // Closed gently, and the next failure opens it again.
    attempt(&mut one, Some(Word::Bad), at(1));
    assert_eq!(one.reset("first".to_owned()), Change::default());
    assert_eq!(one.gate(at(2)), Gate::Shut);
    assert_eq!(
        one.state(Uuid::nil(), at(2)).reset_done.as_deref(),
        Some("first")
    );
    assert_eq!(one.reset("second".to_owned()).to, Some(Transition::Closed));
}

#[test]
fn a_wall_clock_that_was_set_back_prolongs_nothing() {
    let mut one = destination(Some(circuit(1)), None);
    attempt(&mut one, Some(Word::Bad), at(100_000));
    assert_eq!(one.gate(at(100_001)), Gate::Shut);
    one.distrust_times();
    assert_eq!(one.gate(at(0)), Gate::Shut);
    assert_eq!(one.next_wake(), Some(at(60)));
}
