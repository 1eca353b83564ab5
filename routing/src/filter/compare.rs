//! What a path leads to, compared with what a rule names.

use super::{InvalidRule, MOST_TEXT_BYTES, Op, Part, Path};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use std::{
    cmp::Ordering,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

/// Called with each value that a path leads to, until it answers true.
pub(super) type Visit<'v> = &'v dyn Fn(Found<'_>) -> bool;

/// One value that a path leads to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'v> {
    Json(&'v Value),
    /// From a header, the query, a form or another part of a request that has no types.
    Text(&'v str),
    /// The fields of a form, all together: they are there, and equal nothing.
    Form,
}

impl Found<'_> {
    /// The keys of all scalars that it equals, and perhaps of some that it doesn't: two at most.
    pub(super) fn keys(self, path: PathKey, mut each: impl FnMut(u64)) {
        match self {
            Found::Json(Value::Null) => each(path.null()),
            Found::Json(Value::Bool(flag)) => each(path.bool(*flag)),
            Found::Json(Value::Number(number)) => {
                Numeric::of(number)
                    .into_iter()
                    .for_each(|n| each(path.number(n)));
            }
            Found::Json(Value::String(text)) => each(path.text(text)),
            Found::Text(text) => {
                each(path.text(text));
                match text {
                    "true" => each(path.bool(true)),
                    "false" => each(path.bool(false)),
                    _ => Numeric::read(text)
                        .into_iter()
                        .for_each(|n| each(path.number(n))),
                }
            }
            Found::Json(Value::Array(_) | Value::Object(_)) | Found::Form => {}
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self, Found::Json(Value::Null))
    }

    pub(super) fn equals(self, expected: &Scalar) -> bool {
        match (self, expected) {
            (Found::Json(Value::Null), Scalar::Null) => true,
            (Found::Json(Value::Bool(found)), Scalar::Bool(expected)) => found == expected,
            (Found::Json(Value::String(found)), Scalar::Text(expected)) => found == expected,
            (Found::Text(found), Scalar::Text(expected)) => found == expected,
            (Found::Text(found), Scalar::Bool(expected)) => {
                found == if *expected { "true" } else { "false" }
            }
            (found, Scalar::Number(expected)) => found.order(expected) == Some(Ordering::Equal),
            _ => false,
        }
    }

    /// Whether it is a text that `holds`.
    pub(super) fn text(&self, holds: impl FnOnce(&str) -> bool) -> bool {
        match self {
            Found::Json(Value::String(found)) => holds(found),
            Found::Text(found) => holds(found),
            Found::Json(_) | Found::Form => false,
        }
    }

    /// How it stands to a bound; `None`: it is no number.
    pub(super) fn order(self, bound: &Number) -> Option<Ordering> {
        let found = match self {
            Found::Json(Value::Number(found)) => Numeric::of(found),
            Found::Json(_) | Found::Form => None,
            Found::Text(text) => Numeric::read(text),
        };
        Some(found?.order(Numeric::of(bound)?))
    }
}

/// A number without loss: an integer of 64 bits, signed or not, or a float.
#[derive(Debug, Clone, Copy)]
enum Numeric {
    Whole(i128),
    Float(f64),
}

impl Numeric {
    fn of(number: &Number) -> Option<Numeric> {
        let whole = number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from));
        whole
            .map(Numeric::Whole)
            .or_else(|| number.as_f64().map(Numeric::Float))
    }

    /// The numbers of JSON and no others (`inf`, `0x10`, ` 1 ` are texts), but for leading zeros and a plus sign.
    fn read(text: &str) -> Option<Numeric> {
        let plain = |b: u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        if !text.bytes().all(plain) {
            return None;
        }
        if let Ok(whole) = text.parse::<i128>() {
            return Some(Numeric::Whole(whole));
        }
        text.parse::<f64>()
            .ok()
            .filter(|float| float.is_finite())
            .map(Numeric::Float)
    }

    fn order(self, other: Numeric) -> Ordering {
        match (self, other) {
            (Numeric::Whole(a), Numeric::Whole(b)) => a.cmp(&b),
            (Numeric::Whole(a), Numeric::Float(b)) => whole_to_float(a, b),
            (Numeric::Float(a), Numeric::Whole(b)) => whole_to_float(b, a).reverse(),
            // Neither is NaN: JSON has none, and `read` lets none through.
            (Numeric::Float(a), Numeric::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        }
    }
}

/// A path, hashed, and as good as the path itself: nobody finds two that have one key. With a scalar it makes the key under
/// which rules of both are found.
///
/// Equal scalars have equal keys, as equality is here: `1` and `1.0` are one number. The reverse need not hold: whatever is
/// found by a key is compared after all. Hashed without a secret, so that keys are made once, when a connection is
/// compiled, and hold for every source: who makes rules with one key for many values slows his own down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PathKey(u128);

impl PathKey {
    pub(super) fn of(path: &Path) -> PathKey {
        let half = |which: u8| {
            let mut hasher = DefaultHasher::new();
            (which, path).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        PathKey(half(0) << 64 | half(1))
    }

    fn with(self, kind: u8, value: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.0, kind, value).hash(&mut hasher);
        hasher.finish()
    }

    fn null(self) -> u64 {
        self.with(0, ())
    }

    fn bool(self, flag: bool) -> u64 {
        self.with(1, flag)
    }

    fn text(self, text: &str) -> u64 {
        self.with(2, text)
    }

    fn number(self, number: Numeric) -> u64 {
        match number {
            Numeric::Whole(whole) => self.with(3, whole),
            // As `whole_to_float` compares them, saturation included.
            Numeric::Float(float) if float.floor() == float => self.with(3, float as i128),
            Numeric::Float(float) => self.with(4, float.to_bits()),
        }
    }
}

/// Exact, where `whole as f64` would round beyond 2^53. The cast saturates, which leaves the order right.
fn whole_to_float(whole: i128, float: f64) -> Ordering {
    let floor = float.floor();
    whole.cmp(&(floor as i128)).then(match float > floor {
        true => Ordering::Less,
        false => Ordering::Equal,
    })
}

/// A value of `eq`, `neq` or `in`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
}

impl Scalar {
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Scalar::Null => serde_json::Value::Null,
            Scalar::Bool(flag) => (*flag).into(),
            Scalar::Number(number) => number.clone().into(),
            Scalar::Text(text) => text.as_str().into(),
        }
    }

    /// The key of all values that equal it; `None`: there are none.
    pub(super) fn key(&self, path: PathKey) -> Option<u64> {
        match self {
            Scalar::Null => Some(path.null()),
            Scalar::Bool(flag) => Some(path.bool(*flag)),
            Scalar::Number(number) => Numeric::of(number).map(|number| path.number(number)),
            Scalar::Text(text) => Some(path.text(text)),
        }
    }

    pub(super) fn parse(path: &Path, op: Op, value: Option<&Value>) -> Result<Scalar, InvalidRule> {
        let op = op.as_str();
        let wrong = |message: String| Err(InvalidRule::new(Part::Value, message));
        match value {
            Some(Value::Null) if !matches!(path, Path::Body(_)) => wrong(
                "null is found in a JSON body only; to ask whether it is there, write `op: exists`"
                    .to_owned(),
            ),
            Some(Value::Null) => Ok(Scalar::Null),
            Some(Value::Bool(flag)) => Ok(Scalar::Bool(*flag)),
            Some(Value::Number(number)) => Ok(Scalar::Number(canonical(number))),
            Some(Value::String(text)) => canonical_text(path, bounded(text)?).map(Scalar::Text),
            Some(Value::Array(_)) if op != "in" => wrong(format!(
                "`{op}` compares with one value; for one of several write `op: in`"
            )),
            other => wrong(format!(
                "`{op}` compares with a text, a number, true, false or null, not {}; name the field inside, as `body.order.id`",
                described(other)
            )),
        }
    }
}

/// The text, if it isn't too long.
pub(super) fn bounded(text: &str) -> Result<&str, InvalidRule> {
    if text.len() <= MOST_TEXT_BYTES {
        return Ok(text);
    }
    let message = format!(
        "the text has {} bytes, and a filter compares with at most {MOST_TEXT_BYTES}; compare with less, or with another field",
        text.len()
    );
    Err(InvalidRule::new(Part::Value, message))
}

/// The texts of some paths have one right spelling, and a rule in another could never match.
fn canonical_text(path: &Path, text: &str) -> Result<String, InvalidRule> {
    match path {
        Path::Method => Ok(text.to_ascii_uppercase()),
        Path::SourceIp => match text.parse::<IpAddr>() {
            Ok(address) => Ok(address.to_canonical().to_string()),
            Err(_) => {
                let message = format!(
                    "`{text}` is not an address; write one as `203.0.113.7` or `2001:db8::1` (ranges: `spec.ipFilter` of the source)"
                );
                Err(InvalidRule::new(Part::Value, message))
            }
        },
        _ => Ok(text.to_owned()),
    }
}

pub(super) fn parse_number(
    path: &Path,
    op: Op,
    value: Option<&Value>,
) -> Result<Number, InvalidRule> {
    let op = op.as_str();
    if matches!(
        path,
        Path::Method | Path::Path | Path::ContentType | Path::SourceIp
    ) {
        let message = format!(
            "`{op}` compares numbers, and this path is never one; write `op: eq`, `in` or `contains`"
        );
        return Err(InvalidRule::new(Part::Op, message));
    }
    match value {
        Some(Value::Number(number)) => Ok(canonical(number)),
        Some(Value::String(text)) if Numeric::read(text).is_some() => {
            let message = format!("`{op}` compares numbers; write {text} without quotes");
            Err(InvalidRule::new(Part::Value, message))
        }
        other => {
            let message = format!(
                "`{op}` compares numbers and needs one, not {}",
                described(other)
            );
            Err(InvalidRule::new(Part::Value, message))
        }
    }
}

/// One number, one spelling: `1.0` is kept as `1`, since an API server may hand out either.
fn canonical(number: &Number) -> Number {
    match Numeric::of(number) {
        Some(Numeric::Float(float)) if float.fract() == 0.0 && float.abs() < 9.0e18 => {
            Number::from(float as i64)
        }
        _ => number.clone(),
    }
}

/// A value in a few words, for a message.
pub(super) fn described(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing (there is no `value`)",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a text",
        Some(Value::Array(items)) if items.is_empty() => "an empty list",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
}
