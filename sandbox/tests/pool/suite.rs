//! The official JSONata test suite, every case of it, through the pool.

use crate::{body, options, pool};
use sandbox::{Evaluation, Options, Pool, Refused};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, path::PathBuf, sync::Arc, time::Duration};

/// What doesn't go as the suite says, and why that is right, or known.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "comments/case002",
        "the engine's message lacks the code S0106",
    ),
    (
        "function-encodeUrl/case002",
        "a lone surrogate, which JSON allows and a Rust string can't hold",
    ),
    (
        "function-encodeUrlComponent/case002",
        "a lone surrogate, which JSON allows and a Rust string can't hold",
    ),
    (
        "function-string/case002",
        "2.2 prints 1e+100, as JavaScript does, where 2.0's suite wants 1e100",
    ),
    (
        "function-string/case007",
        "2.2 prints 1e+21, as JavaScript does, where 2.0's suite wants 1e21",
    ),
    (
        "range-operator/case021",
        "ten million items are beyond our bound of a million",
    ),
    (
        "range-operator/case024",
        "ten million items are beyond our bound of a million",
    ),
    (
        "tail-recursion/case002",
        "the suite sets a depth of 302 for this case; ours is 10,000, and it ends well",
    ),
    (
        "tail-recursion/case005",
        "the code for too deep a recursion is D1011 since 2.2",
    ),
    (
        "tail-recursion/case006",
        "the code for too long an evaluation is D1012 since 2.2",
    ),
];

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Case { name: String, case: Box<Case> },
    Dataset { dataset_name: String, value: Value },
    Head { suite: String },
}

#[derive(Debug, Deserialize)]
struct Case {
    expr: String,
    #[serde(default, deserialize_with = "there")]
    data: Option<Value>,
    dataset: Option<String>,
    bindings: Option<serde_json::Map<String, Value>>,
    #[serde(default, deserialize_with = "there")]
    result: Option<Value>,
    #[serde(rename = "undefinedResult")]
    undefined: Option<bool>,
    code: Option<String>,
    error: Option<Value>,
    #[serde(default)]
    unordered: bool,
}

/// `null` is a value, and not the absence of one.
fn there<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// As packed in the repository, or the file that `HOOKSTREAM_JSONATA_SUITE` names: one of a newer release, for who looks
/// at whether to follow it.
fn suite() -> String {
    let path = std::env::var_os("HOOKSTREAM_JSONATA_SUITE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/jsonata/suite.jsonl"),
        PathBuf::from,
    );
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_suite_passes_but_for_the_exceptions_that_are_named() {
    let text = suite();
    let pool = pool(Options {
        // An unoptimised engine on a machine that does other things too.
        deadline: Duration::from_secs(20),
        wait: Duration::from_secs(120),
        ..options()
    });
    let mut datasets = BTreeMap::new();
    let mut running = Vec::new();
    let mut wrong = BTreeMap::new();
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Dataset {
                dataset_name,
                value,
            }) => {
                datasets.insert(dataset_name, value);
            }
            Ok(Line::Case { name, case }) => {
                let dataset = case.dataset.as_ref().map(|name| datasets[name].clone());
                let pool = pool.clone();
                running.push(tokio::spawn(async move {
                    let verdict = judge(&pool, &case, dataset).await;
                    (name, verdict.map_err(|why| format!("{}: {why}", case.expr)))
                }));
            }
            Ok(Line::Head { suite }) => eprintln!("{suite}"),
            // Lone surrogates, which JSON allows and a Rust string can't hold.
            Err(error) => {
                let name = line
                    .split('"')
                    .nth(3)
                    .expect("each line begins with a name");
                wrong.insert(name.to_owned(), error.to_string());
            }
        }
    }
    let cases = running.len() + wrong.len();
    for case in running {
        let (name, verdict) = case.await.expect("a case panics nowhere");
        if let Err(why) = verdict {
            wrong.insert(name, why);
        }
    }
    assert!(cases >= 1500, "the whole suite was there: {cases}");
    let mut report = String::new();
    for (name, why) in &wrong {
        if !EXCEPTIONS.iter().any(|(known, _)| known == name) {
            let _ = writeln!(report, "{name}: {why}");
        }
    }
    assert!(report.is_empty(), "{cases} cases; wrong:\n{report}");
    eprintln!("{cases} cases, {} exceptions", wrong.len());
}

async fn judge(pool: &Pool, case: &Case, dataset: Option<Value>) -> Result<(), String> {
    let mut expression = case.expr.clone();
    if let Some(bindings) = case.bindings.as_ref().filter(|map| !map.is_empty()) {
        let bound: String = bindings
            .iter()
            .map(|(name, value)| format!("${name} := {value};\n"))
            .collect();
        expression = format!("({bound}{expression}\n)");
    }
    let expression: Arc<str> = Arc::from(expression);
    let code = case
        .code
        .as_deref()
        .or_else(|| case.error.as_ref()?.get("code")?.as_str());
    let failed = |message: String| match code {
        Some(code) if message.contains(code) => Ok(()),
        Some(code) => Err(format!("{code} expected, not {message}")),
        None => Err(message),
    };
    match pool.check(&expression).await {
        Ok(_) => {}
        Err(Refused::Wrong(message)) => return failed(message),
        Err(Refused::Unavailable(message)) => return Err(message),
    }
    // No body is no input, which is not the same as null.
    let input = case.data.clone().or(dataset);
    let input = input.map_or(Vec::new(), |input| input.to_string().into_bytes());
    match pool.evaluate(&expression, body(input)).await {
        Evaluation::Failed(message) => failed(message),
        Evaluation::Unavailable(message) => Err(message),
        Evaluation::Undefined => match (case.undefined, code) {
            (Some(_), _) => Ok(()),
            (None, Some(code)) => Err(format!("{code} expected, not undefined")),
            (None, None) => Err(format!("{:?} expected, not undefined", case.result)),
        },
        Evaluation::Value(value) => {
            let value: Value = serde_json::from_slice(&value).map_err(|error| error.to_string())?;
            let same = case
                .result
                .as_ref()
                .is_some_and(|expected| same(expected, &value, case.unordered));
            if same {
                Ok(())
            } else {
                Err(format!("{:?} {code:?} expected, not {value}", case.result))
            }
        }
    }
}

/// As JSON compares: one kind of number, objects without an order.
fn same(a: &Value, b: &Value, unordered: bool) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) if unordered => {
            a.len() == b.len() && a.iter().all(|a| b.iter().any(|b| same(a, b, false)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, false))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b, false)))
        }
        (a, b) => a == b,
    }
}
