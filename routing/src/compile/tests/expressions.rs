//! Expressions: who waits for them, what they are found to see, what is said of a wrong one.

use super::*;
use crate::transform::{Input, Output};

const BODY: &str = "{ 'id': data.id }";
const ENVELOPE: &str = "{ 'id': body.id }";

fn roots(names: &[&str]) -> Checked {
    Checked::Roots(names.iter().map(|name| (*name).to_owned()).collect())
}

fn connected(spec: &str) -> Ground {
    let mut ground = Ground::of(
        "
kind: Source
metadata: {name: src}
spec: {}
---
kind: Destination
metadata: {name: dst}
spec: {http: {url: 'https://e.com'}}
",
    );
    ground.compile();
    ground.apply(&connection(spec));
    ground
}

fn connection(spec: &str) -> String {
    format!(
        "
kind: Connection
metadata: {{name: con}}
spec: {{source: {{name: src}}, destination: {{name: dst}}, {spec}}}
"
    )
}

fn told(ground: &mut Ground, text: &str, checked: Checked) {
    ground.compiler.set_expression(text.into(), checked);
}

fn row(ground: &mut Ground) -> Option<crate::row::ConnectionSpec> {
    match ground.row("Connection/shop/con")?.spec {
        Spec::Connection(spec) => Some(spec),
        other => panic!("{other:?}"),
    }
}

fn notes(ground: &mut Ground) -> Vec<String> {
    let uid = ground.uid("Connection/shop/con");
    let delta = ground.compiler.compile();
    delta.verdicts[&uid].notes.clone()
}

#[test]
fn an_expression_is_asked_for_and_waited_for() {
    let mut ground = connected(&format!("transform: {{jsonata: \"{BODY}\"}}"));
    assert_eq!(ground.compiler.wanted_expressions(), [Arc::from(BODY)]);
    let said = ground.compile();
    assert!(
        said.contains("ExpressionNotChecked: spec.transform.jsonata"),
        "{said}"
    );
    assert!(row(&mut ground).is_none());
    told(&mut ground, BODY, roots(&["data"]));
    assert!(ground.compiler.wanted_expressions().is_empty());
    assert_eq!(
        ground.compile(),
        "changed Connection/shop/con generation 1\n"
    );
    let transform = row(&mut ground)
        .and_then(|row| row.transform)
        .expect("it has one");
    assert_eq!(&*transform.expression.text, BODY);
    assert_eq!(
        (transform.expression.input, transform.output),
        (Input::Body, Output::Body)
    );
}

#[test]
fn the_roots_decide_the_input_unless_the_author_does_and_a_note_says_so() {
    for (written, roots_told, input, note) in [
        (
            "",
            &["data"][..],
            Input::Body,
            "sees the body (input Body), since no path begins with a name of the envelope",
        ),
        (
            "",
            &["body", "id"],
            Input::Envelope,
            "sees the whole event (input Envelope), since a path begins with `body`",
        ),
        (
            ", input: Body",
            &["body"],
            Input::Body,
            "sees the body (input Body), as `input` says",
        ),
        (
            ", input: Envelope",
            &["data"],
            Input::Envelope,
            "sees the whole event (input Envelope), as `input` says",
        ),
    ] {
        let mut ground = connected(&format!(
            "transform: {{jsonata: \"{ENVELOPE}\", output: Envelope{written}}}"
        ));
        told(&mut ground, ENVELOPE, roots(roots_told));
        assert_eq!(
            notes(&mut ground),
            [format!("`spec.transform.jsonata` {note}")]
        );
        let transform = row(&mut ground)
            .and_then(|row| row.transform)
            .expect("it has one");
        assert_eq!(
            (transform.expression.input, transform.output),
            (input, Output::Envelope)
        );
    }
}

#[test]
fn a_wrong_expression_is_a_finding_and_the_last_good_row_stays() {
    let mut ground = connected(&format!("transform: {{jsonata: \"{BODY}\"}}"));
    told(&mut ground, BODY, roots(&[]));
    ground.compile();
    ground.apply(&connection(
        "transform: {jsonata: 'a ['}, filter: {expression: 'b ['}",
    ));
    told(
        &mut ground,
        "a [",
        Checked::Wrong("S0203 (line 1, column 4)".to_owned()),
    );
    told(
        &mut ground,
        "b [",
        Checked::Wrong("S0203 (line 1, column 4)".to_owned()),
    );
    let said = ground.compile();
    for line in [
        "InvalidFilter: spec.filter.expression: it is no JSONata: S0203 (line 1, column 4)",
        "InvalidTransform: spec.transform.jsonata: it is no JSONata: S0203 (line 1, column 4)",
        "Connection/shop/con routes generation 1",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert!(row(&mut ground).is_some_and(|row| row.transform.is_some()));
}

#[test]
fn a_filter_may_be_an_expression_alone() {
    let mut ground = connected("filter: {expression: 'body.a != body.b'}");
    told(&mut ground, "body.a != body.b", roots(&["body"]));
    ground.compile();
    let row = row(&mut ground).expect("it compiles");
    let expression = row.expression.expect("it has one");
    assert_eq!(expression.input, Input::Envelope);
}

#[test]
fn expressions_that_nobody_has_any_more_are_forgotten_in_time() {
    let mut ground = connected("");
    for number in 0..200 {
        let text = format!("a + {number}");
        ground.apply(&connection(&format!("transform: {{jsonata: '{text}'}}")));
        assert_eq!(ground.compiler.wanted_expressions().len(), 1);
        told(&mut ground, &text, roots(&["a"]));
        ground.compile();
    }
    assert!(ground.compiler.expressions.len() < 100);
    assert!(ground.compiler.wanted_expressions().is_empty());
}
