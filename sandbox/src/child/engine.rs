//! Expressions, parsed once, and what they make of an input.

use super::{position, roots};
use crate::frame::{Answer, LONGEST_MESSAGE, Request};
use bytes::Bytes;
use jsonata_core::{
    Expression,
    evaluator::{EvaluatorError, EvaluatorOptions},
    parser,
    value::JValue,
};
use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// Of one evaluation, as JSONata counts: a recursion of about a third of that.
const DEPTH: usize = 10_000;

/// Items in one sequence. A million numbers are 16 MiB.
const SEQUENCE: usize = 1_000_000;

const BROKE: &str = "the evaluator broke on this expression";

pub(super) struct Engine {
    /// The parent decides which slots there are, and how many.
    slots: HashMap<u32, Expression>,
    guards: EvaluatorOptions,
}

impl Engine {
    pub(super) fn new(deadline: Duration) -> Engine {
        Engine {
            slots: HashMap::new(),
            guards: EvaluatorOptions {
                timeout_ms: u64::try_from(deadline.as_millis()).ok(),
                max_stack_depth: Some(DEPTH),
                max_sequence_length: Some(SEQUENCE),
                ..EvaluatorOptions::default()
            },
        }
    }

    pub(super) fn answer(&mut self, request: &Request<'_>) -> Option<Answer> {
        match *request {
            Request::Define { slot, text } => {
                self.slots.remove(&slot);
                if let Ok(expression) = guarded(|| self.parse(text)) {
                    self.slots.insert(slot, expression);
                }
                None
            }
            Request::Evaluate {
                slot,
                envelope,
                most_output,
                head,
                body,
            } => {
                // Its memory may be half of something: it is parsed anew if it is needed again.
                let Some(expression) = self.slots.remove(&slot) else {
                    return Some(failed(
                        "the expression can't be parsed; its resource says why",
                    ));
                };
                let result = guarded(|| {
                    let input = if envelope {
                        within(head, body)
                    } else {
                        self::body(head, body)
                    };
                    let value = expression
                        .evaluate_with_options(&input, self.guards.clone())
                        .map_err(|error| told(&error))?;
                    written(&value, most_output)
                });
                if !matches!(&result, Err(message) if message == BROKE) {
                    self.slots.insert(slot, expression);
                }
                Some(result.unwrap_or_else(failed))
            }
            Request::Check { text } => Some(guarded(|| check(text)).unwrap_or_else(failed)),
        }
    }

    fn parse(&self, text: &[u8]) -> Result<Expression, String> {
        let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        Expression::compile_with_options(text, self.guards.clone())
            .map_err(|error| error.to_string())
    }
}

/// A panic of the engine is an error like another, once its memory is thrown away.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(BROKE.to_owned()))
}

fn check(text: &[u8]) -> Result<Answer, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let ast = parser::parse(text).map_err(|error| position::told(text, &error))?;
    let names = roots::of(&ast);
    let names = serde_json::to_vec(&names).map_err(|error| error.to_string())?;
    Ok(Answer::Checked(names.into()))
}

/// The body as an expression sees it: parsed if it is JSON, what the head has in its place if it knows better (a form's
/// fields), a string if it is text, else null. An event without a body has none here either.
fn body(head: &[u8], body: &[u8]) -> JValue {
    if body.is_empty() {
        return JValue::Undefined;
    }
    parsed(body).unwrap_or_else(|| {
        let mut head = object(head);
        let instead = head
            .as_object_mut()
            .and_then(|map| map.shift_remove("body"));
        instead.unwrap_or_else(|| as_text(body))
    })
}

/// The envelope: what the head says, with the body under both of its names.
fn within(head: &[u8], body: &[u8]) -> JValue {
    let mut envelope = object(head);
    if let Some(map) = envelope.as_object_mut() {
        let instead = map.shift_remove("body");
        if body.is_empty() {
            return envelope;
        }
        let body = parsed(body).or(instead).unwrap_or_else(|| as_text(body));
        // Shared, not copied.
        map.insert("body".to_owned(), body.clone());
        map.insert("payload".to_owned(), body);
    }
    envelope
}

/// A byte order mark in front is skipped, as filters do.
fn parsed(body: &[u8]) -> Option<JValue> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    JValue::from_json_str(std::str::from_utf8(text).ok()?).ok()
}

fn as_text(body: &[u8]) -> JValue {
    std::str::from_utf8(body).map_or(JValue::Null, JValue::string)
}

fn object(head: &[u8]) -> JValue {
    parsed(head)
        .filter(JValue::is_object)
        .unwrap_or_else(|| JValue::object(Default::default()))
}

fn written(value: &JValue, most: u32) -> Result<Answer, String> {
    if value.is_undefined() {
        return Ok(Answer::Undefined);
    }
    if value.is_function() || value.is_regex() {
        return Err("the result is a function, not a value: call it".to_owned());
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut out = Capped {
        bytes: Vec::new(),
        most,
    };
    match serde_json::to_writer(&mut out, value) {
        Ok(()) => Ok(Answer::Value(Bytes::from(out.bytes))),
        Err(_) => Err(format!(
            "the result has more than {most} bytes, which is the most that is sent"
        )),
    }
}

/// A buffer that refuses to grow beyond its bound: an object of a few kilobytes can print as gigabytes.
struct Capped {
    bytes: Vec<u8>,
    most: usize,
}

impl io::Write for Capped {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn told(error: &EvaluatorError) -> String {
    error.message().to_owned()
}

fn failed(message: impl Into<String>) -> Answer {
    let mut message = message.into();
    message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
    Answer::Failed(message)
}
