use super::*;
use crate::filter::{Filter, Op};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::cell::Cell;

/// A request that owns its parts.
#[derive(Debug, Clone)]
struct Request {
    method: &'static str,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    address: u8,
}

impl Request {
    fn with_body(body: &Value) -> Request {
        Request {
            method: "POST",
            query: String::new(),
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
            address: 1,
        }
    }

    fn see<T>(&self, look: impl FnOnce(&EventView<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value).expect("a header value");
            headers.append(HeaderName::from_static(name), value);
        }
        let method = Method::from_bytes(self.method.as_bytes()).expect("a method");
        let address = [10, 0, 0, self.address].into();
        look(&EventView::new(
            &method,
            "/a",
            &self.query,
            &headers,
            &self.body,
            address,
        ))
    }
}

fn rule(path: &str, op: Op, value: Value) -> Rule {
    Rule::parse(path, op, Some(&value)).unwrap_or_else(|error| panic!("{path} {value}: {error}"))
}

fn all(rules: Vec<Rule>) -> Matcher {
    Matcher::new(&Filter {
        all: rules,
        ..Filter::default()
    })
}

/// What is found, and how many connections were evaluated for it.
fn found(matchers: &[Matcher], request: &Request) -> (Vec<u32>, usize) {
    let index = Index::new(matchers.iter().map(Some));
    let evaluated = Cell::new(0);
    let mut found = Vec::new();
    let matcher = |place: u32| {
        evaluated.set(evaluated.get() + 1);
        &matchers[place as usize]
    };
    request.see(|event| index.matching(event, matcher, |place| found.push(place)));
    found.sort_unstable();
    found.dedup();
    (found, evaluated.get())
}

#[test]
fn of_ten_thousand_connections_only_those_that_a_value_leads_to_are_evaluated() {
    let tenant = |n: u32| rule("body.tenant", Op::Eq, json!(format!("t{n}")));
    let matchers: Vec<_> = (0..10_000).map(|n| all(vec![tenant(n)])).collect();
    let request = Request::with_body(&json!({"tenant": "t4711"}));
    assert_eq!(found(&matchers, &request), (vec![4711], 1));
    let other = Request::with_body(&json!({"tenant": "nobody"}));
    assert_eq!(found(&matchers, &other), (vec![], 0));
    let none = Request::with_body(&json!([]));
    assert_eq!(found(&matchers, &none), (vec![], 0));
}

#[test]
fn the_gate_that_the_fewest_connections_share_is_used() {
    let matcher = |n: u32| {
        all(vec![
            rule("headers.x-type", Op::In, json!(["paid", "created"])),
            rule("body.amount", Op::Gt, json!(10)),
            rule("body.tenant", Op::Eq, json!(n)),
        ])
    };
    let matchers: Vec<_> = (0..1000).map(matcher).collect();
    let mut request = Request::with_body(&json!({"tenant": 7.0, "amount": 11}));
    request.headers.push(("x-type", "paid".to_owned()));
    assert_eq!(found(&matchers, &request), (vec![7], 1));
}

#[test]
fn an_in_and_an_any_of_equalities_are_gates_too() {
    let mut matchers: Vec<_> = (0..1000)
        .map(|n| all(vec![rule("body.a", Op::In, json!([n, n + 1]))]))
        .collect();
    matchers.push(Matcher::new(&Filter {
        any: vec![
            rule("headers.x-b", Op::Eq, json!("yes")),
            rule("body.a", Op::In, json!([5000, 5001])),
            rule("body.b", Op::Eq, json!(true)),
        ],
        ..Filter::default()
    }));
    let body = |value| Request::with_body(&value);
    assert_eq!(found(&matchers, &body(json!({"a": 10}))), (vec![9, 10], 2));
    assert_eq!(found(&matchers, &body(json!({"a": 5001}))), (vec![1000], 1));
    // Found by two of its keys, and taken once.
    assert_eq!(
        found(&matchers, &body(json!({"a": 5000, "b": true}))),
        (vec![1000], 2)
    );
    let mut request = body(json!(0));
    request.headers.push(("x-b", "yes".to_owned()));
    assert_eq!(found(&matchers, &request), (vec![1000], 1));
}

#[test]
fn a_value_that_a_body_repeats_leads_to_its_connections_once() {
    let matchers: Vec<_> = (0..100)
        .map(|n| all(vec![rule("body[*]", Op::Eq, json!(n % 2))]))
        .collect();
    let values: Vec<_> = (0..10_000).map(|n| n % 3).collect();
    let (found, evaluated) = found(&matchers, &Request::with_body(&json!(values)));
    assert_eq!((found.len(), evaluated), (100, 100));
}

#[test]
fn what_no_value_leads_to_is_evaluated_always() {
    let long: Vec<_> = (0..65).collect();
    let mut matchers: Vec<_> = (0..20)
        .map(|n| all(vec![rule("body.a", Op::Eq, json!(n))]))
        .collect();
    matchers.extend([
        Matcher::default(),
        all(vec![rule("body.a", Op::Neq, json!(1))]),
        all(vec![rule("body.a", Op::In, json!(long))]),
        all(vec![rule("body.a", Op::Exists, json!(false))]),
        Matcher::new(&Filter {
            any: vec![
                rule("body.a", Op::Eq, json!(1)),
                rule("body.a", Op::Lt, json!(0)),
            ],
            ..Filter::default()
        }),
    ]);
    let (places, evaluated) = found(&matchers, &Request::with_body(&json!({"a": 64})));
    assert_eq!((places, evaluated), (vec![20, 21, 22], 5));
    let (places, _) = found(&matchers, &Request::with_body(&json!({"a": -1})));
    assert_eq!(places, [20, 21, 24]);
    let (places, _) = found(&matchers, &Request::with_body(&json!({})));
    assert_eq!(places, [20, 21, 23]);
}

#[test]
fn a_connection_that_takes_no_events_is_not_found() {
    let matchers: Vec<_> = (0..20)
        .map(|_| all(vec![rule("body", Op::Eq, json!(1))]))
        .collect();
    let index = Index::new(
        matchers
            .iter()
            .zip(0..)
            .map(|(m, n)| (n % 2 == 0).then_some(m)),
    );
    let mut found = Vec::new();
    Request::with_body(&json!(1)).see(|event| {
        index.matching(
            event,
            |place| &matchers[place as usize],
            |place| found.push(place),
        );
    });
    assert_eq!(found, (0..20).step_by(2).collect::<Vec<_>>());
}

const PATHS: [&str; 15] = [
    "body.a",
    "body.b",
    "body.a[*]",
    "body.a[0]",
    "body.a[*].b",
    "body.a.b",
    "body",
    "body[*]",
    "headers.x-a",
    "query.a",
    "query.b",
    "method",
    "path",
    "content_type",
    "source_ip",
];

/// Few values, so that rules and events often meet; with numbers that equal each other in several spellings.
fn any_scalar() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-0.0),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(u64::MAX),
        json!(18_446_744_073_709_551_615.0),
        json!(9_007_199_254_740_993_u64),
        json!(9_007_199_254_740_992.0),
        json!(1e300),
        json!(""),
        json!("1"),
        json!("1.0"),
        json!("true"),
        json!("x"),
        json!("GET"),
        json!("/a"),
        json!("application/json"),
        json!("10.0.0.1"),
    ])
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let op = prop::sample::select(vec![
        Op::Eq,
        Op::Eq,
        Op::Eq,
        Op::In,
        Op::In,
        Op::Neq,
        Op::Exists,
        Op::Gt,
        Op::Lte,
        Op::StartsWith,
        Op::Regex,
    ]);
    let path = prop::sample::select(PATHS.to_vec());
    (path, op, any_scalar(), any_scalar()).prop_filter_map(
        "a rule that compiles",
        |(path, op, one, other)| {
            let value = match op {
                Op::In => json!([one, other]),
                Op::Exists => json!(one == other),
                _ => one,
            };
            Rule::parse(path, op, Some(&value)).ok()
        },
    )
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let rules = |most| prop::collection::vec(any_rule(), 0..=most);
    (rules(3), rules(2), rules(1))
        .prop_map(|(all, any, none)| Matcher::new(&Filter { all, any, none }))
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let object = |value: Value| json!({ "a": value });
    let nested = (any_scalar(), any_scalar())
        .prop_map(|(one, other)| json!([one, {"b": other}]))
        .boxed();
    let value = prop_oneof![
        any_scalar(),
        any_scalar().prop_map(object),
        nested.clone(),
        nested.prop_map(object),
        (any_scalar(), any_scalar()).prop_map(|(a, b)| json!({"a": a, "b": b})),
    ];
    prop_oneof![
        4 => value.prop_map(|value| value.to_string().into_bytes()),
        1 => any_pairs().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ]
}

/// A query, or a form.
fn any_pairs() -> impl Strategy<Value = String> {
    let texts = vec![
        "",
        "a=1",
        "a=1.0",
        "a=true",
        "b=x",
        "a=%31",
        "a=&a",
        "a=1e300",
        "b=%ff",
        "a=170141183460469231731687303715884105727",
    ];
    prop::collection::vec(prop::sample::select(texts), 0..4).prop_map(|pairs| pairs.join("&"))
}

fn any_request() -> impl Strategy<Value = Request> {
    let header = prop::sample::select(vec![
        ("x-a", "1"),
        ("x-a", "1.0"),
        ("x-a", "true"),
        ("x-a", "x"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-type", "application/x-www-form-urlencoded"),
        (
            "content-type",
            "Application/X-WWW-Form-Urlencoded; charset=utf-8",
        ),
    ]);
    let headers = prop::collection::vec(header, 0..3);
    let method = prop::sample::select(vec!["GET", "POST"]);
    (method, any_pairs(), headers, any_body(), 0..2_u8).prop_map(
        |(method, query, headers, body, address)| Request {
            method,
            query,
            headers: headers
                .into_iter()
                .map(|(name, value)| (name, value.to_owned()))
                .collect(),
            body,
            address,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_the_index_finds_is_what_asking_each_finds(
        matchers in prop::collection::vec(any_matcher(), 0..40),
        requests in prop::collection::vec(any_request(), 1..6),
    ) {
        for request in requests {
            let asked: Vec<u32> = request.see(|event| {
                let places = (0..).zip(&matchers);
                places.filter(|(_, matcher)| matcher.matches(event)).map(|(place, _)| place).collect()
            });
            prop_assert_eq!(found(&matchers, &request).0, asked, "{:?}", request);
        }
    }
}
