//! What a connection makes of an event that its rules let pass, step by step, as the gateway does at delivery.

use crate::engine::Engine;
use routing::{
    EventView,
    table::Connection,
    transform::{self, Expression, Shaped},
};
use sandbox::{Evaluation, Input};

/// Of a body, in the output.
const SHOWN: usize = 4096;

/// Lines to print below the connection's own; none for a connection that sends events as they came.
pub(super) fn of(connection: &Connection, event: &EventView<'_>, engine: &Engine) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(expression) = &connection.expression {
        let result = evaluate(expression, event, engine);
        let said = match result.and_then(|result| transform::passes(result.as_deref())) {
            Ok(true) => "true: it passes".to_owned(),
            Ok(false) => "not true: the delivery ends as filtered".to_owned(),
            Err(why) => format!("fails: {why}"),
        };
        let passes = said.starts_with("true");
        lines.push(format!("  expression  {} gives {said}", sees(expression)));
        if !passes {
            return lines;
        }
    }
    let Some(transform) = &connection.transform else {
        return lines;
    };
    let sees = sees(&transform.expression);
    match evaluate(&transform.expression, event, engine) {
        Ok(None) => lines.push(format!(
            "  transform   {sees} gives nothing: the delivery ends as filtered"
        )),
        Err(why) => lines.push(format!("  transform   {sees} fails: {why}")),
        Ok(Some(result)) => match transform::shaped(transform.output, &result) {
            Err(why) => lines.push(format!("  transform   {sees} fails: {why}")),
            Ok(shaped) => {
                lines.push(format!("  transform   {sees} gives"));
                lines.extend(sent(&shaped));
            }
        },
    }
    lines
}

fn sees(expression: &Expression) -> &'static str {
    match expression.input {
        transform::Input::Body => "of the body (input Body)",
        transform::Input::Envelope => "of the event (input Envelope)",
    }
}

fn evaluate(
    expression: &Expression,
    event: &EventView<'_>,
    engine: &Engine,
) -> Result<Option<Vec<u8>>, String> {
    let input = Input {
        head: transform::head(event, expression.input).into(),
        body: event.body.to_vec().into(),
        envelope: expression.input == transform::Input::Envelope,
    };
    match engine.evaluate(&expression.text, input) {
        Evaluation::Value(value) => Ok(Some(value.into())),
        Evaluation::Undefined => Ok(None),
        Evaluation::Failed(why) | Evaluation::Unavailable(why) => Err(why),
    }
}

fn sent(shaped: &Shaped) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |what: &str, value: &str| lines.push(format!("    {what:<8}  {value}"));
    if let Some(method) = &shaped.method {
        say("method", method.as_str());
    }
    if let Some(path) = &shaped.path {
        say("path", path);
    }
    if let Some(query) = &shaped.query {
        say("query", query);
    }
    for (name, value) in &shaped.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        say("header", &format!("{name}: {value}"));
    }
    match &shaped.body {
        Some((body, _)) => {
            let text = String::from_utf8_lossy(body);
            let end = text.floor_char_boundary(SHOWN);
            let more = if end < text.len() { "…" } else { "" };
            say("body", &format!("{}{more}", &text[..end]));
        }
        None => say("body", "as it came"),
    }
    lines
}
