use super::*;

const ALL: usize = 4096;

/// What `concurrency` may be at most.
const CONCURRENCY: usize = 1000;

fn id(namespace: usize, n: usize) -> Uuid {
    Uuid::from_u128((namespace as u128) << 64 | n as u128)
}

/// A destination that always has something to send begins as many attempts as it may. Returns how many.
fn hang(slots: &mut Slots, namespace: usize, n: usize, weight: usize) -> usize {
    let (id, name) = (id(namespace, n), format!("n{namespace}"));
    for begun in 0..CONCURRENCY {
        slots.wait(id, &name);
        match slots.next() {
            Some(next) => assert_eq!(next, id),
            None => return begun,
        }
        slots.begin(id, &name, weight);
    }
    CONCURRENCY
}

/// Destinations of a namespace that hang, one after another, until the next one finds no slot.
fn hang_all(slots: &mut Slots, namespace: usize, weight: usize) -> usize {
    (0..)
        .take_while(|n| hang(slots, namespace, *n, weight) > 0)
        .count()
}

/// Namespaces full of destinations that hang, until the next one finds no slot.
fn fill(weight: usize) -> usize {
    let mut slots = Slots::new(ALL);
    (0..)
        .take_while(|namespace| hang_all(&mut slots, *namespace, weight) > 0)
        .count()
}

#[test]
fn a_destination_alone_has_all_its_concurrency() {
    let mut slots = Slots::new(ALL);
    assert_eq!(hang(&mut slots, 1, 1, 1), CONCURRENCY);
}

#[test]
fn it_ends_where_the_module_says() {
    let mut slots = Slots::new(ALL);
    assert_eq!(hang_all(&mut slots, 1, 1), 455);
    assert!(
        hang(&mut slots, 2, 1, 1) > 150,
        "another namespace hardly notices"
    );
    assert_eq!(fill(1), 191);

    let heavy = slots.weight(2 << 20);
    assert_eq!(heavy, ALL / HEAVIEST);
    let mut slots = Slots::new(ALL);
    assert_eq!(hang_all(&mut slots, 1, heavy), 9);
    assert_eq!(fill(heavy), 11);
}

#[test]
fn the_next_one_finds_some_after_twelve_that_hang() {
    let mut slots = Slots::new(ALL);
    for n in 0..12 {
        assert!(hang(&mut slots, 1, n, 1) > 10, "{n}");
    }
    assert!(hang(&mut slots, 1, 12, 1) > 10);
}

#[test]
fn few_slots_are_shared_in_the_same_way() {
    let mut slots = Slots::new(16);
    assert_eq!(hang(&mut slots, 1, 1, 1), 4);
    for n in 2..6 {
        assert_eq!(hang(&mut slots, 1, n, 1), 1, "{n}");
    }
    assert_eq!(hang(&mut slots, 1, 6, 1), 0);
    assert!(hang(&mut slots, 2, 1, 1) > 0);
    // The least that there can be.
    let mut slots = Slots::new(1);
    assert_eq!(hang(&mut slots, 1, 1, 1), 1);
    assert_eq!(hang(&mut slots, 2, 1, 1), 0);
    slots.end(id(1, 1), 1, true);
    assert_eq!(slots.next(), Some(id(1, 1)), "it waited first");
}

#[test]
fn who_answers_quickly_earns_slots_and_who_hangs_loses_them() {
    let mut slots = Slots::new(ALL);
    for n in 0..400 {
        hang(&mut slots, 1, n, 1);
    }
    let (quick, name) = (id(1, 1000), "n1");
    assert_eq!(hang(&mut slots, 1, 1000, 1), 1);
    // Each time all that is in flight ends in time and the next ones begin.
    let mut flights = 1;
    for expected in [2, 4, 8, 16, 32, 33, 33] {
        for _ in 0..flights {
            slots.end(quick, 1, true);
        }
        flights = 0;
        while slots.next() == Some(quick) {
            slots.begin(quick, name, 1);
            slots.wait(quick, name);
            flights += 1;
        }
        assert_eq!(flights, expected);
    }
    // Now it hangs.
    for _ in 0..flights {
        slots.drags(quick);
    }
    for _ in 1..flights {
        slots.end(quick, 1, false);
    }
    assert!(!slots.may_begin(quick), "one is in flight still");
    slots.end(quick, 1, false);
    assert_eq!(slots.next(), Some(quick));
}

#[test]
fn one_long_attempt_among_many_costs_a_quick_destination_little() {
    let mut slots = Slots::new(ALL);
    for n in 0..400 {
        hang(&mut slots, 1, n, 1);
    }
    let quick = id(1, 1000);
    slots.begin(quick, "n1", 1);
    slots.begin(quick, "n1", 1);
    for _ in 0..100 {
        slots.end(quick, 1, true);
        slots.begin(quick, "n1", 1);
    }
    slots.drags(quick);
    assert!(slots.may_begin(quick));
}

#[test]
fn those_that_wait_go_in_turn_and_whoever_has_least_goes_first() {
    let mut slots = Slots::new(ALL);
    hang(&mut slots, 1, 1, 1);
    // It still waits; the others come later and go before it.
    slots.wait(id(1, 1), "n1");
    for n in [5, 4, 3] {
        slots.wait(id(1, n), "n1");
    }
    let order: Vec<_> = std::iter::from_fn(|| {
        let next = slots.next()?;
        slots.begin(next, "n1", 1);
        Some(next)
    })
    .collect();
    assert_eq!(order, [id(1, 5), id(1, 4), id(1, 3), id(1, 1)]);
}

#[test]
fn nothing_is_remembered_of_those_that_are_idle() {
    let mut slots = Slots::new(ALL);
    for n in 0..10 {
        slots.wait(id(n, n), &format!("n{n}"));
    }
    while let Some(next) = slots.next() {
        if next == id(3, 3) {
            slots.pass(next);
        } else {
            slots.begin(next, "any", 2);
            slots.end(next, 2, true);
        }
    }
    assert_eq!((slots.used, slots.free()), (0, ALL));
    assert!(slots.destinations.is_empty());
    assert!(slots.namespaces.is_empty() && slots.order.is_empty());
}
