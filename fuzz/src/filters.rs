//! Filters over a request of any bytes: the index finds exactly those connections that match when each is asked.

use crate::request::Request;
use http::Method;
use routing::{
    EventView, Row, Table,
    filter::{Filter, Op, Rule},
    row::{ConnectionSpec, DestinationSpec, SourceSpec, Spec},
    table::Source,
};
use serde_json::json;
use std::sync::{Arc, LazyLock};
use uuid::Uuid;

static SOURCE: LazyLock<Arc<Source>> = LazyLock::new(|| {
    let table = Table::build(rows());
    table.sources().next().expect("the table's source").clone()
});

pub fn run(data: &[u8]) {
    let request = Request::read(data);
    let (path, query) = match request.line.get(1) {
        Some(target) => target.split_once('?').unwrap_or((target, "")),
        None => ("", ""),
    };
    let address = [192, 0, 2, 1].into();
    let event = EventView::new(
        &Method::POST,
        path,
        query,
        &request.headers,
        request.body,
        address,
    );
    let found: Vec<Uuid> = SOURCE.route(&event).iter().map(|c| c.uid).collect();
    let asked = SOURCE.connections.iter();
    let asked: Vec<Uuid> = asked
        .filter(|connection| connection.matcher.matches(&event))
        .map(|connection| connection.uid)
        .collect();
    assert_eq!(found, asked);
    for connection in &SOURCE.connections {
        let against = connection.matcher.objection(&event).is_some();
        assert_eq!(against, !found.contains(&connection.uid));
    }
}

/// One connection for each operator and each place to look at, and some for several.
fn rows() -> Vec<Row> {
    let rules = [
        ("body.type", Op::Eq, json!("order.paid")),
        ("body.type", Op::Neq, json!("order.paid")),
        ("body.type", Op::In, json!(["a", 1, null, true])),
        ("body.note", Op::Contains, json!("a")),
        ("body.note", Op::StartsWith, json!("a")),
        ("body.note", Op::EndsWith, json!("é")),
        ("body.note", Op::Regex, json!("^[a-z]+@(x|y)\\.com$")),
        ("body.amount", Op::Gt, json!(10)),
        ("body.amount", Op::Lte, json!(0.5)),
        ("body.amount", Op::Eq, json!(18446744073709551615_u64)),
        ("body.lines[*].sku", Op::Eq, json!("a")),
        ("body.lines[0].price", Op::Gte, json!(1e300)),
        ("body", Op::Exists, json!(true)),
        ("headers.x-event", Op::Eq, json!("10")),
        ("headers.x-event", Op::Lt, json!(11)),
        ("query.page", Op::Eq, json!(true)),
        ("query.a b", Op::Exists, json!(true)),
        ("path", Op::StartsWith, json!("/orders")),
        ("content_type", Op::Eq, json!("application/json")),
        ("source_ip", Op::Exists, json!(true)),
    ];
    let rules: Vec<Rule> = rules
        .iter()
        .map(|(path, op, value)| Rule::parse(path, *op, Some(value)).expect("a rule"))
        .collect();
    let mut filters: Vec<Filter> = rules
        .iter()
        .map(|rule| Filter {
            all: vec![rule.clone()],
            ..Filter::default()
        })
        .collect();
    filters.push(Filter {
        all: Vec::new(),
        any: rules[..4].to_vec(),
        none: rules[12..14].to_vec(),
    });
    let spec = |filter| {
        Spec::Connection(ConnectionSpec {
            source: Uuid::from_u128(1),
            destination: Uuid::from_u128(2),
            filter: Some(filter),
            ..ConnectionSpec::default()
        })
    };
    let specs = [
        Spec::Source(SourceSpec::default()),
        Spec::Destination(DestinationSpec::default()),
    ];
    specs
        .into_iter()
        .chain(filters.into_iter().map(spec))
        .zip(1..)
        .map(|(spec, uid)| Row {
            uid: Uuid::from_u128(uid),
            namespace: "default".to_owned(),
            name: uid.to_string(),
            generation: 1,
            spec,
            secrets: Vec::new(),
        })
        .collect()
}
