//! Why a filter lets an event not pass, in words: for a person who tries a filter, never while a sender waits.

use super::{Matcher, Op, Path, Rule, Segment, Test};
use crate::event::EventView;
use serde_json::Value;
use std::fmt;

/// The first thing that keeps an event from passing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objection<'f> {
    /// This rule of `all` doesn't hold.
    All(&'f Rule),
    /// None of so many rules of `any` holds.
    Any(usize),
    /// This rule of `none` holds.
    None(&'f Rule),
}

impl fmt::Display for Objection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Objection::All(rule) => write!(f, "`{rule}` does not hold"),
            Objection::Any(1) => f.write_str("the one rule of `any` does not hold"),
            Objection::Any(rules) => write!(f, "none of the {rules} rules of `any` holds"),
            Objection::None(rule) => write!(f, "`{rule}` holds, and is among `none`"),
        }
    }
}

impl Matcher {
    /// What is against the event; `None`: it passes.
    pub fn objection(&self, event: &EventView<'_>) -> Option<Objection<'_>> {
        if let Some(rule) = self.all.iter().find(|rule| !rule.matches(event)) {
            return Some(Objection::All(rule));
        }
        if !self.any.is_empty() && !self.any.iter().any(|rule| rule.matches(event)) {
            return Some(Objection::Any(self.any.len()));
        }
        let against = self.none.iter().find(|rule| rule.matches(event));
        against.map(Objection::None)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, value) = self.test.parts();
        write!(f, "{} {} {value}", self.path, op.as_str())
    }
}

impl Test {
    fn parts(&self) -> (Op, Value) {
        match self {
            Test::Eq(value) => (Op::Eq, value.to_json()),
            Test::Neq(value) => (Op::Neq, value.to_json()),
            Test::Contains(text) => (Op::Contains, text.as_str().into()),
            Test::StartsWith(text) => (Op::StartsWith, text.as_str().into()),
            Test::EndsWith(text) => (Op::EndsWith, text.as_str().into()),
            Test::Regex(pattern) => (Op::Regex, pattern.as_str().into()),
            Test::Gt(number) => (Op::Gt, number.clone().into()),
            Test::Gte(number) => (Op::Gte, number.clone().into()),
            Test::Lt(number) => (Op::Lt, number.clone().into()),
            Test::Lte(number) => (Op::Lte, number.clone().into()),
            Test::Exists(wanted) => (Op::Exists, (*wanted).into()),
            Test::In(choices) => (Op::In, choices.iter().map(|one| one.to_json()).collect()),
        }
    }
}

/// As it is written in a manifest.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Method => f.write_str("method"),
            Path::Path => f.write_str("path"),
            Path::ContentType => f.write_str("content_type"),
            Path::SourceIp => f.write_str("source_ip"),
            Path::Header(name) => write!(f, "headers.{name}"),
            Path::Query(name) => write!(f, "query.{name}"),
            Path::Body(segments) => {
                f.write_str("body")?;
                for segment in segments {
                    match segment {
                        Segment::Key(key) if key.contains(['.', '[', ']', '"']) => {
                            write!(f, "[\"{key}\"]")?;
                        }
                        Segment::Key(key) => write!(f, ".{key}")?,
                        Segment::Index(place) => write!(f, "[{place}]")?,
                        Segment::Each => f.write_str("[*]")?,
                    }
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Filter, Op};
    use http::{HeaderMap, Method};
    use serde_json::json;

    fn rule(path: &str, op: Op, value: Value) -> Rule {
        Rule::parse(path, op, Some(&value)).unwrap()
    }

    fn said(filter: Filter) -> Option<String> {
        let (method, headers) = (Method::POST, HeaderMap::new());
        let body = br#"{"type": "order.paid", "lines": [{"sku": "a"}]}"#;
        let address = [127, 0, 0, 1].into();
        let event = EventView::new(&method, "", "", &headers, body, address);
        let matcher = Matcher::new(&filter);
        let objection = matcher.objection(&event);
        assert_eq!(objection.is_none(), matcher.matches(&event));
        objection.map(|objection| objection.to_string())
    }

    #[test]
    fn the_rule_that_is_against_an_event_is_told_as_it_is_written() {
        let paid = || rule("body.type", Op::Eq, json!("order.paid"));
        let dear = || rule("body.amount", Op::Gt, json!(10));
        let lines = || rule("body.lines[*].sku", Op::In, json!(["b", "c"]));
        let of = |all: Vec<Rule>, any: Vec<Rule>, none: Vec<Rule>| said(Filter { all, any, none });
        assert_eq!(of(vec![paid()], vec![paid(), dear()], vec![dear()]), None);
        let told = |said: Option<String>| said.expect("an objection");
        assert_eq!(
            told(of(vec![paid(), lines()], vec![], vec![])),
            r#"`body.lines[*].sku in ["b","c"]` does not hold"#
        );
        assert_eq!(
            told(of(vec![], vec![dear(), lines()], vec![])),
            "none of the 2 rules of `any` holds"
        );
        assert_eq!(
            told(of(vec![paid()], vec![], vec![dear(), paid()])),
            r#"`body.type eq "order.paid"` holds, and is among `none`"#
        );
    }

    #[test]
    fn a_path_reads_back_as_it_is_shown() {
        for written in [
            "body",
            "body.a[0].b[*]",
            r#"body["a.b"].c"#,
            "headers.x-a",
            "query.page",
            "method",
            "content_type",
        ] {
            let path = Path::parse(written).unwrap();
            assert_eq!(Path::parse(&path.to_string()), Ok(path), "{written}");
        }
    }
}
