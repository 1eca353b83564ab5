use super::*;
use routing::{
    Row,
    row::{ConnectionSpec, Spec},
    table::Table,
    transform::{Input, Output, Transform},
};
use uuid::Uuid;

sandbox::child_for_tests!();

fn sandbox() -> Pool {
    Pool::new(
        sandbox::testing::options("deliver::transform::tests::sandbox_child"),
        sandbox::Metrics::default(),
    )
}

fn expression(text: &str, input: Input) -> Expression {
    Expression {
        text: text.into(),
        input,
    }
}

fn shaping(spec: ConnectionSpec) -> Option<Shaping> {
    let uid = Uuid::from_u128(1);
    let table = Table::build([Row {
        uid,
        namespace: "shop".to_owned(),
        name: "all".to_owned(),
        generation: 1,
        spec: Spec::Connection(spec),
        secrets: Vec::new(),
    }]);
    Shaping::of(table.connection(uid).expect("it is there"), &sandbox())
}

fn transforming(text: &str, input: Input, output: Output) -> Shaping {
    let transform = Some(Transform {
        expression: expression(text, input),
        output,
    });
    shaping(ConnectionSpec {
        transform,
        ..ConnectionSpec::default()
    })
    .expect("it transforms")
}

fn event() -> Event {
    Event {
        method: "POST".to_owned(),
        path: "/a".to_owned(),
        query: "tenant=t1".to_owned(),
        headers: Bytes::from_static(
            b"Content-Type: application/json; charset=utf-8\r\nContent-Encoding: identity\r\nX-GitHub-Event: push\r\nDigest: x\r\n",
        ),
        body: Bytes::from_static(br#"{"type": "order", "amount": 7}"#),
        ..Event::default()
    }
}

#[test]
fn a_connection_without_expressions_has_nothing_to_evaluate() {
    assert!(shaping(ConnectionSpec::default()).is_none());
}

#[tokio::test]
async fn the_result_is_the_body_and_what_spoke_of_the_old_one_is_gone() {
    let shaping = transforming("{\"total\": amount * 2}", Input::Body, Output::Body);
    let Made::Shaped(sent, set) = shaping.shape(&event()).await else {
        panic!("it is shaped");
    };
    assert_eq!(sent.body, r#"{"total":14}"#);
    assert_eq!(
        sent.headers,
        "X-GitHub-Event: push\r\ncontent-type: application/json\r\n"
    );
    assert_eq!(
        (sent.path.as_str(), sent.query.as_str()),
        ("/a", "tenant=t1")
    );
    assert_eq!((set.method, set.headers), (None, Vec::new()));
}

#[tokio::test]
async fn an_envelope_sets_body_headers_method_path_and_query() {
    let text = r#"{"body": {"t": body.type}, "headers": {"x-tenant": query.tenant, "x-event": headers.`x-github-event`},
        "method": "PUT", "path": path & "/" & body.type, "query": {"n": body.amount}}"#;
    let shaping = transforming(text, Input::Envelope, Output::Envelope);
    let Made::Shaped(sent, set) = shaping.shape(&event()).await else {
        panic!("it is shaped");
    };
    assert_eq!(sent.body, r#"{"t":"order"}"#);
    assert_eq!(
        (sent.path.as_str(), sent.query.as_str()),
        ("/a/order", "n=7")
    );
    assert_eq!(set.method, Some(Method::PUT));
    let headers: Vec<_> = set
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    assert_eq!(headers, ["x-tenant: t1", "x-event: push"]);
}

#[tokio::test]
async fn what_gives_nothing_is_filtered_and_what_fails_says_why() {
    let nothing = transforming("type = 'other' ? $", Input::Body, Output::Body);
    let made = nothing.shape(&event()).await;
    assert_eq!(
        made,
        Made::Filtered("the transform gives nothing for this event")
    );

    let wrong = transforming("type * 2", Input::Body, Output::Body);
    let Made::Failed(why) = wrong.shape(&event()).await else {
        panic!("it fails");
    };
    assert!(why.starts_with("the transform failed: T2001"), "{why}");

    let no_envelope = transforming("type", Input::Body, Output::Envelope);
    let Made::Failed(why) = no_envelope.shape(&event()).await else {
        panic!("it fails");
    };
    assert!(why.contains("output: Envelope"), "{why}");
}

#[tokio::test]
async fn a_filters_expression_lets_pass_on_true_alone() {
    for (text, expected) in [
        ("body.amount > 5", Ok(true)),
        ("body.amount > 50", Ok(false)),
        ("body.missing", Ok(false)),
        ("body.amount", Err("a number")),
        ("body.type * 2", Err("T2001")),
    ] {
        let spec = ConnectionSpec {
            expression: Some(expression(text, Input::Envelope)),
            ..ConnectionSpec::default()
        };
        let made = shaping(spec).expect("it filters").shape(&event()).await;
        match expected {
            Ok(true) => assert_eq!(made, Made::Passed, "{text}"),
            Ok(false) => assert!(matches!(made, Made::Filtered(_)), "{text}: {made:?}"),
            Err(word) => {
                let Made::Failed(why) = made else {
                    panic!("{text}: {made:?}");
                };
                assert!(why.contains(word), "{why}");
            }
        }
    }
}
