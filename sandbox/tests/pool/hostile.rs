//! Expressions that mean harm: each gives an error in bounded time, and the pool goes on.

use crate::{body, evaluate, options, pool};
use sandbox::{Options, Refused};
use std::{sync::Arc, time::Duration};

/// Measured on the engine as it is today: each takes memory, time or the whole process if it is let.
const HOSTILE: &[&str] = &[
    "$pad('', 1e10)",
    "$pad('', 1e9)",
    "$pad('x', 1/0)",
    "$formatInteger(1/0, 'w')",
    "$formatInteger(1/0, 'I')",
    "$formatInteger(1e12, 'I')",
    "$fromMillis(0, '[M,13885776000002]')",
    // Infinite recursion: by tail calls, and by those that need a stack.
    "($f := function($n) { $f($n + 1) }; $f(0))",
    "($f := function($n) { 1 + $f($n + 1) }; $f(0))",
    "($f := function($n) { [$f($n + 1)] }; $f(0))",
    // Doubling: strings, arrays, and an object graph that prints as gigabytes.
    "($f := function($s, $n) { $n = 0 ? $s : $f($s & $s, $n - 1) }; $length($f('xxxxxxxx', 40)))",
    "($f := function($a, $n) { $n = 0 ? $a : $f($append($a, $a), $n - 1) }; $count($f([1..10], 40)))",
    "($f := function($o, $n) { $n = 0 ? $o : $f({'a': $o, 'b': $o}, $n - 1) }; $length($string($f({}, 40))))",
    "($f := function($o, $n) { $n = 0 ? $o : $f({'a': $o, 'b': $o}, $n - 1) }; $f({}, 40))",
    // $eval of what makes itself longer.
    "($s := '1'; $f := function($s) { $eval('$f($s & $s)') }; $f('1+1'))",
    "($x := '$eval($x)'; $eval($x))",
    "$map([1..10000000], function($i) { $i })",
    "$count([1..1000000].([1..1000000]))",
    "$count($map([1..1000000], function($i) { $map([1..1000000], function($j) { $i * $j }) }))",
    "$join([1..10000000].'xxxxxxxxxxxxxxxxxxxxxxxx')",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_expression_gives_an_error_in_bounded_time_and_the_next_one_works() {
    let options = Options {
        deadline: Duration::from_millis(500),
        wait: Duration::from_secs(20),
        ..options()
    };
    let pool = pool(options);
    for expression in HOSTILE {
        let result = tokio::time::timeout(
            Duration::from_secs(20),
            evaluate(&pool, expression, body("{}")),
        )
        .await
        .unwrap_or_else(|_| panic!("no end to {expression}"));
        // A few of them are no harm in themselves: then they have a result, of a bounded size.
        assert!(
            result.starts_with("<failed: ") || result.len() < 64,
            "{expression}: {}",
            &result[..result.len().min(200)]
        );
        eprintln!("{expression}: {}", &result[..result.len().min(120)]);
        assert_eq!(evaluate(&pool, "a + 1", body(r#"{"a": 1}"#)).await, "2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_checked_may_be_hostile_too() {
    let pool = pool(options());
    for (expression, fine) in [
        ("(".repeat(60_000), false),
        ("[".repeat(60_000), false),
        ("-".repeat(60_000), false),
        // Deeper than the parser goes, too.
        (format!("{}1", "1+".repeat(30_000)), false),
        (format!("{}1", "1+".repeat(300)), true),
        (format!("a{}", ".a".repeat(300)), true),
        ("'".to_owned() + &"\\u0000".repeat(10_000), false),
        (format!("/{}/", "(a*)*".repeat(1_000)), true),
        ("x".repeat(70_000), false),
    ] {
        let checked = pool.check(&Arc::from(expression.as_str())).await;
        let start = &expression[..8];
        match checked {
            Ok(_) => assert!(fine, "{start}"),
            Err(Refused::Wrong(message)) => assert!(!fine, "{start}: {message}"),
            Err(Refused::Unavailable(message)) => panic!("{start}: {message}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_waited_in_the_same_child_get_their_answers() {
    let options = Options {
        children: 1,
        deadline: Duration::from_millis(300),
        wait: Duration::from_secs(30),
        ..options()
    };
    let pool = pool(options);
    let mut running = Vec::new();
    for number in 0..60 {
        let pool = pool.clone();
        running.push(tokio::spawn(async move {
            let expression = match number {
                20 => "$pad('', 1e10)",
                40 => "$pad('', 1e9)",
                _ => "n * 2",
            };
            (
                number,
                evaluate(&pool, expression, body(format!(r#"{{"n": {number}}}"#))).await,
            )
        }));
    }
    for one in running {
        let (number, result) = one.await.expect("no panic");
        match number {
            20 | 40 => assert!(
                result.starts_with("<failed: the expression was stopped"),
                "{result}"
            ),
            _ => assert_eq!(result, (number * 2).to_string()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_expressions_do_not_hold_up_quick_ones() {
    let options = Options {
        deadline: Duration::from_secs(2),
        wait: Duration::from_secs(60),
        ..options()
    };
    let pool = pool(options);
    let slow: Arc<str> = Arc::from("$sum($map([1..200000], function($i) { $i % 7 }))");
    // It shows itself to be slow.
    pool.evaluate(&slow, body("{}")).await;
    let many: Vec<_> = (0..100)
        .map(|_| {
            let (pool, slow) = (pool.clone(), slow.clone());
            tokio::spawn(async move { pool.evaluate(&slow, body("{}")).await })
        })
        .collect();
    let quick: Arc<str> = Arc::from("1 + 1");
    for _ in 0..20 {
        pool.evaluate(&quick, body("{}")).await;
    }
    let ended = many.iter().filter(|task| task.is_finished()).count();
    assert!(ended < 50, "twenty quick ones waited for {ended} slow ones");
    for task in &many {
        task.abort();
    }
}
