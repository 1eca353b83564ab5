//! What an expression sees and gives, and how children come and go.

use crate::{body, evaluate, options, pool};
use bytes::Bytes;
use sandbox::{Evaluation, Input, Metrics, Options, Pool, Refused};
use std::{sync::Arc, time::Duration};

#[tokio::test]
async fn an_expression_sees_the_body_or_the_envelope() {
    let pool = pool(options());
    let head = r#"{"method": "POST", "headers": {"x-a": "1"}, "body": {"field": "of a form"}}"#;
    let with = |body: &'static [u8], envelope| Input {
        head: Bytes::from_static(head.as_bytes()),
        body: Bytes::from_static(body),
        envelope,
    };
    for (expression, input, expected) in [
        ("type", with(br#"{"type": "a"}"#, false), r#""a""#),
        (
            "body.type & method",
            with(br#"{"type": "a"}"#, true),
            r#""aPOST""#,
        ),
        (
            "payload.type",
            with(b"\xef\xbb\xbf{\"type\": \"a\"}", true),
            r#""a""#,
        ),
        ("headers.`x-a`", with(b"1", true), r#""1""#),
        ("headers", with(b"1", false), "<undefined>"),
        ("field", with(b"field=of+a+form", false), r#""of a form""#),
        (
            "body.field",
            with(b"field=of+a+form", true),
            r#""of a form""#,
        ),
        ("$", body("plain text"), r#""plain text""#),
        ("$", body(&b"\xff\x00"[..]), "null"),
        ("nothing", body("{}"), "<undefined>"),
        (
            "$sum",
            body("{}"),
            "<failed: the result is a function, not a value: call it>",
        ),
        ("{\"a\": 1.5, \"b\": 3}", body("{}"), r#"{"a":1.5,"b":3}"#),
    ] {
        assert_eq!(
            evaluate(&pool, expression, input).await,
            expected,
            "{expression}"
        );
    }
}

#[tokio::test]
async fn a_body_can_not_forge_its_envelope() {
    let pool = pool(options());
    let input = Input {
        head: Bytes::from_static(br#"{"method": "POST"}"#),
        body: Bytes::from_static(br#"1}, "method": "PUT", "x": {"#),
        envelope: true,
    };
    assert_eq!(
        evaluate(&pool, "method & '|' & body", input).await,
        r#""POST|1}, \"method\": \"PUT\", \"x\": {""#
    );
}

#[tokio::test]
async fn a_check_tells_roots_or_what_is_wrong_and_where() {
    let pool = pool(options());
    let checked = pool
        .check(&Arc::from("{ \"a\": body.type, \"b\": id }"))
        .await;
    assert_eq!(checked.expect("it compiles").roots, ["body", "id"]);
    let refused = pool.check(&Arc::from("{ \"a\": body.type")).await;
    let Err(Refused::Wrong(message)) = refused else {
        panic!("{refused:?}");
    };
    assert!(message.ends_with("(line 1, column 17)"), "{message}");
}

#[tokio::test]
async fn inputs_and_outputs_have_bounds() {
    let options = Options {
        most_input: 100,
        most_output: 100,
        ..options()
    };
    let pool = pool(options);
    let large = evaluate(&pool, "$", body(format!("\"{}\"", "x".repeat(200)))).await;
    assert_eq!(
        large,
        "<failed: the event has 204 bytes, and expressions take at most 100>"
    );
    let large = evaluate(&pool, "$pad('', 200, 'x')", body("{}")).await;
    assert_eq!(
        large,
        "<failed: the result has more than 100 bytes, which is the most that is sent>"
    );
    let fits = evaluate(&pool, "$length($pad('', 200, 'x'))", body("{}")).await;
    assert_eq!(fits, "200");
}

#[tokio::test]
async fn more_expressions_than_a_child_keeps_take_turns() {
    let pool = pool(options());
    for round in 0..2 {
        let mut running = Vec::new();
        for number in 0..3000 {
            let pool = pool.clone();
            running.push(tokio::spawn(async move {
                let expression = format!("n + {number}");
                evaluate(&pool, &expression, body(format!("{{\"n\": {round}}}"))).await
            }));
        }
        for (number, result) in running.into_iter().enumerate() {
            assert_eq!(
                result.await.expect("no panic"),
                (number + round).to_string()
            );
        }
    }
}

#[tokio::test]
async fn a_program_that_is_no_sandbox_is_our_own_fault() {
    let registry = prometheus::Registry::new();
    let options = Options {
        program: sandbox::Program::of("/bin/true"),
        ..Options::default()
    };
    let pool = Pool::new(options, Metrics::new(&registry));
    let result = pool.evaluate(&Arc::from("1"), body("{}")).await;
    assert!(matches!(result, Evaluation::Unavailable(_)), "{result:?}");
    let text = service::metrics::render(&registry);
    assert!(
        text.contains(r#"hookstream_sandbox_children_ended_total{reason="not_started"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn what_has_to_wait_too_long_is_turned_away() {
    let options = Options {
        children: 1,
        deadline: Duration::from_secs(5),
        wait: Duration::from_millis(200),
        ..options()
    };
    let pool = pool(options);
    let result = evaluate(
        &pool,
        "($f := function($n) { $f($n + 1) }; $f(0))",
        body("{}"),
    )
    .await;
    assert_eq!(
        result,
        "<unavailable: the sandbox had no time for it within 0.2 s>"
    );
}

#[tokio::test]
async fn a_child_ends_with_its_pool() {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry);
    let pool = Pool::new(options(), metrics);
    assert_eq!(evaluate(&pool, "1", body("{}")).await, "1");
    let children = || service::metrics::render(&registry).contains("hookstream_sandbox_children 1");
    assert!(children());
    drop(pool);
    // The task is aborted, which the runtime does when it comes to it.
    while children() {
        tokio::task::yield_now().await;
    }
}
