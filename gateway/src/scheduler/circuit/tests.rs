use super::*;
use proptest::prelude::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn in_a_row(failures: u32) -> Spec {
    Spec {
        trip: Trip::InARow(failures),
        cooldown: Duration::from_secs(60),
    }
}

fn share(threshold: u32, minimum: u32) -> Spec {
    Spec {
        trip: Trip::Share {
            threshold,
            window: Duration::from_secs(100),
            minimum,
        },
        cooldown: Duration::from_secs(60),
    }
}

/// An attempt that begins and ends at once.
fn attempt(circuit: &mut Circuit, spec: &Spec, word: Word, now: Timestamp) -> Change {
    assert!(circuit.admits(0, now));
    let (term, _) = circuit.begin();
    circuit.end(spec, 20, term, word, now)
}

fn saved(circuit: &Circuit, now: Timestamp) -> destination_state::State {
    let mut state = destination_state::State::default();
    circuit.save(&mut state, now);
    state
}

#[test]
fn five_failures_in_a_row_open_it_and_a_success_between_begins_anew() {
    let (spec, mut circuit) = (in_a_row(5), Circuit::default());
    for _ in 0..4 {
        attempt(&mut circuit, &spec, Word::Bad, at(0));
    }
    attempt(&mut circuit, &spec, Word::Good, at(0));
    for _ in 0..4 {
        let change = attempt(&mut circuit, &spec, Word::Bad, at(1));
        assert_eq!((change.save, change.to), (true, None));
    }
    let change = attempt(&mut circuit, &spec, Word::Bad, at(1));
    assert_eq!(change.to, Some(Transition::Opened));
    assert_eq!(circuit.state(), State::Open { until: at(61) });
    assert!(!circuit.admits(0, at(60)));
    assert_eq!(circuit.opens_at(), Some(at(61)));
}

#[test]
fn a_healthy_destination_is_never_written() {
    let (spec, mut circuit) = (in_a_row(5), Circuit::default());
    for second in 0..100 {
        let change = attempt(&mut circuit, &spec, Word::Good, at(second));
        assert_eq!(change, Change::default());
    }
    assert!(circuit.is_plain());
}

#[test]
fn our_own_faults_and_what_policy_forbids_are_not_counted() {
    let (spec, mut circuit) = (in_a_row(2), Circuit::default());
    attempt(&mut circuit, &spec, Word::Bad, at(0));
    for outcome in [Outcome::Internal, Outcome::Blocked] {
        for _ in 0..10 {
            let change = attempt(&mut circuit, &spec, Word::from(&outcome), at(0));
            assert_eq!(change, Change::default(), "{outcome:?}");
        }
    }
    // Nor do they break a row.
    attempt(&mut circuit, &spec, Word::Bad, at(0));
    assert!(matches!(circuit.state(), State::Open { .. }));
}

#[test]
fn what_the_destination_answers_is_counted() {
    for status in [301, 400, 404, 410, 429, 500, 503] {
        let outcome = Outcome::Refused {
            status,
            retry_after: None,
        };
        assert_eq!(Word::from(&outcome), Word::Bad, "{status}");
    }
    assert_eq!(Word::from(&Outcome::TimedOut), Word::Bad);
    assert_eq!(Word::from(&Outcome::Unreachable), Word::Bad);
    assert_eq!(Word::from(&Outcome::Delivered { status: 204 }), Word::Good);
}

#[test]
fn after_the_cooldown_one_probe_decides() {
    let (spec, mut circuit) = (in_a_row(1), Circuit::default());
    attempt(&mut circuit, &spec, Word::Bad, at(0));
    let (term, change) = circuit.begin();
    assert_eq!(change.to, Some(Transition::Probing));
    assert!(!circuit.admits(0, at(1000)), "one probe is enough");
    let change = circuit.end(&spec, 20, term, Word::Bad, at(70));
    assert_eq!(change.to, Some(Transition::Opened));
    assert_eq!(circuit.state(), State::Open { until: at(130) });

    let (term, _) = circuit.begin();
    let change = circuit.end(&spec, 20, term, Word::Good, at(131));
    assert_eq!(change.to, Some(Transition::Closed));
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn a_probe_that_says_nothing_is_followed_by_another_soon() {
    let (spec, mut circuit) = (in_a_row(1), Circuit::default());
    attempt(&mut circuit, &spec, Word::Bad, at(0));
    let (term, _) = circuit.begin();
    circuit.end(&spec, 20, term, Word::Nothing, at(60));
    assert_eq!(circuit.state(), State::Open { until: at(61) });

    let (term, _) = circuit.begin();
    circuit.given_back(term, at(62));
    assert!(circuit.admits(0, at(62)), "broken off by us: at once");
}

#[test]
fn what_began_before_a_transition_changes_nothing() {
    let (spec, mut circuit) = (in_a_row(1), Circuit::default());
    let terms: Vec<u64> = (0..3).map(|_| circuit.begin().0).collect();
    circuit.end(&spec, 20, terms[0], Word::Bad, at(0));
    let opened = circuit.clone();
    for word in [Word::Good, Word::Bad] {
        circuit.end(&spec, 20, terms[1], word, at(30));
        assert_eq!(circuit, opened);
    }
    let (probe, _) = circuit.begin();
    circuit.end(&spec, 20, terms[2], Word::Good, at(61));
    assert_eq!(circuit.state(), State::HalfOpen, "only the probe decides");
    circuit.given_back(terms[2], at(61));
    assert_eq!(circuit.state(), State::HalfOpen);
    circuit.end(&spec, 20, probe, Word::Good, at(61));
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn after_closing_attempts_in_flight_grow_from_one() {
    let (spec, mut circuit) = (in_a_row(5), Circuit::default());
    circuit.open(at(0));
    attempt(&mut circuit, &spec, Word::Good, at(0));
    let mut rounds = Vec::new();
    for _ in 0..6 {
        let mut terms = Vec::new();
        while terms.len() < 20 && circuit.admits(terms.len(), at(1)) {
            terms.push(circuit.begin().0);
        }
        rounds.push(terms.len());
        for term in terms {
            circuit.end(&spec, 20, term, Word::Good, at(1));
        }
    }
    assert_eq!(rounds, [1, 2, 4, 8, 16, 20]);
    assert!(circuit.is_plain(), "as if nothing had been");
}

#[test]
fn a_failure_while_they_grow_halves_them() {
    let (spec, mut circuit) = (in_a_row(5), Circuit::default());
    circuit.open(at(0));
    for _ in 0..9 {
        attempt(&mut circuit, &spec, Word::Good, at(1));
    }
    assert!(circuit.admits(8, at(1)) && !circuit.admits(9, at(1)));
    attempt(&mut circuit, &spec, Word::Bad, at(1));
    assert!(circuit.admits(3, at(1)) && !circuit.admits(4, at(1)));
}

#[test]
fn a_share_of_failures_opens_it_once_there_are_enough_attempts() {
    let (spec, mut circuit) = (share(5_000, 10), Circuit::default());
    for second in 0..9 {
        attempt(&mut circuit, &spec, Word::Bad, at(second));
    }
    assert_eq!(circuit.state(), State::Closed, "nine say nothing");
    attempt(&mut circuit, &spec, Word::Good, at(9));
    assert_eq!(
        circuit.state(),
        State::Closed,
        "only a failure opens a circuit"
    );
    attempt(&mut circuit, &spec, Word::Bad, at(9));
    assert_eq!(circuit.state(), State::Open { until: at(69) });
}

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let (spec, mut circuit) = (share(5_000, 10), Circuit::default());
    for _ in 0..9 {
        attempt(&mut circuit, &spec, Word::Bad, at(0));
    }
    for _ in 0..9 {
        attempt(&mut circuit, &spec, Word::Good, at(120));
    }
    attempt(&mut circuit, &spec, Word::Bad, at(120));
    assert_eq!(circuit.state(), State::Closed, "1 of 10");
    assert_eq!(circuit.samples.sums(), (10, 1));
}

#[test]
fn a_new_owner_goes_on_where_the_last_one_was() {
    let (spec, mut circuit) = (in_a_row(5), Circuit::default());
    for _ in 0..3 {
        attempt(&mut circuit, &spec, Word::Bad, at(0));
    }
    let mut next = Circuit::restore(&saved(&circuit, at(1)));
    attempt(&mut next, &spec, Word::Bad, at(2));
    attempt(&mut next, &spec, Word::Bad, at(3));
    assert_eq!(next.state(), State::Open { until: at(63) });

    let mut third = Circuit::restore(&saved(&next, at(4)));
    assert!(!third.admits(0, at(62)));
    assert_eq!(saved(&third, at(4)).opened_at, Some(at(3)));
    third.begin();
    let fourth = Circuit::restore(&saved(&third, at(70)));
    assert!(
        fourth.admits(0, at(70)),
        "whose probe was in flight is tried anew"
    );

    let mut sampled = Circuit::default();
    for second in 0..9 {
        attempt(&mut sampled, &share(5_000, 10), Word::Bad, at(second * 10));
    }
    let mut next = Circuit::restore(&saved(&sampled, at(90)));
    assert_eq!(next, sampled);
    attempt(&mut next, &share(5_000, 10), Word::Bad, at(90));
    assert!(matches!(next.state(), State::Open { .. }));
}

#[test]
fn a_reset_closes_it_gently_and_forgets_the_failures() {
    let (spec, mut circuit) = (in_a_row(2), Circuit::default());
    attempt(&mut circuit, &spec, Word::Bad, at(0));
    assert_eq!(
        circuit.reset(),
        Change {
            save: true,
            to: None
        }
    );
    assert!(circuit.is_plain());
    assert_eq!(circuit.reset(), Change::default(), "there is nothing to do");
    circuit.open(at(1000));
    assert_eq!(circuit.reset().to, Some(Transition::Closed));
    assert!(circuit.admits(0, at(0)) && !circuit.admits(1, at(0)));
}

#[test]
fn a_clock_that_was_set_back_prolongs_no_wait() {
    let (spec, mut circuit) = (in_a_row(1), Circuit::default());
    attempt(&mut circuit, &spec, Word::Bad, at(1_000_000));
    circuit.clamp(&spec, at(0));
    assert_eq!(circuit.opens_at(), Some(at(60)));
}

proptest! {
    /// Whatever happens, an open circuit lets nothing through before its time, and one probe at most after it.
    #[test]
    fn an_open_circuit_lets_one_through_at_a_time(
        steps in prop::collection::vec((0..4_u8, 0..40_i64, 0..8_usize), 1..300),
        failures in 1..6_u32,
    ) {
        let spec = in_a_row(failures);
        let mut circuit = Circuit::default();
        let mut flying: Vec<(u64, bool)> = Vec::new();
        let mut now = 0;
        for (step, pass, place) in steps {
            now += pass;
            if step == 0 {
                let state = circuit.state();
                if circuit.admits(flying.len(), at(now)) {
                    if let State::Open { until } = state {
                        prop_assert!(until <= at(now));
                    }
                    prop_assert!(state != State::HalfOpen);
                    let (term, change) = circuit.begin();
                    flying.push((term, change.to == Some(Transition::Probing)));
                }
            } else if !flying.is_empty() {
                let (term, _) = flying.swap_remove(place % flying.len());
                let word = [Word::Good, Word::Bad, Word::Nothing][usize::from(step - 1)];
                circuit.end(&spec, 20, term, word, at(now));
            }
            let probes = flying.iter().filter(|(term, probe)| *probe && *term == circuit.term).count();
            prop_assert_eq!(probes, usize::from(circuit.state() == State::HalfOpen));
            prop_assert_eq!(Circuit::restore(&saved(&circuit, at(now))).failures, circuit.failures);
        }
    }

    #[test]
    fn no_saved_numbers_make_restoring_panic(samples in prop::collection::vec(any::<i64>(), 0..40), seconds in any::<i32>()) {
        let state = destination_state::State { samples, ..destination_state::State::default() };
        let mut circuit = Circuit::restore(&state);
        attempt(&mut circuit, &share(5_000, 10), Word::Bad, at(i64::from(seconds)));
    }
}
