//! What a source makes of a request, in the gateway's order.

use super::Said;
use http::header;
use routing::{
    EventView,
    admission::Blocked,
    schema::{Action, Check},
    table::Source,
};
use serde_json::Value;

/// The steps of a request that would be recorded; or why it would be refused, in the gateway's words.
pub(super) fn judge(source: &Source, event: &EventView<'_>) -> Result<Vec<Said>, String> {
    admission(source, event)?;
    let mut steps = vec![("accepted", verification(source, event)?)];
    steps.extend(schema(source.schema.as_deref(), event.json())?);
    steps.extend(copies(source, event));
    if let Some(limit) = &source.rate_limit {
        let said = format!("{} at once, then one by one; not tried here", limit.burst);
        steps.push(("rate limit", said));
    }
    Ok(steps)
}

fn admission(source: &Source, event: &EventView<'_>) -> Result<(), String> {
    if source.archived {
        return Err("the source is archived: 404".to_owned());
    }
    if let Some(Err(blocked)) = source.ip_filter.as_ref().map(|f| f.judge(event.source_ip)) {
        let sender = event.source_ip;
        let why = match blocked {
            Blocked::Denied => "it is denied",
            Blocked::NotAllowed => "it is not among those that are allowed",
        };
        return Err(format!("{sender} may not send to this source, {why}: 403"));
    }
    if source.suspended {
        return Err("the source is suspended: 409".to_owned());
    }
    if !source.methods.is_empty() && !source.methods.contains(event.method) {
        let method = event.method;
        return Err(format!("{method} is not among the source's methods: 405"));
    }
    let content_type = event.headers.get(header::CONTENT_TYPE);
    let types = &source.content_types;
    if !types.is_empty()
        && !event.body.is_empty()
        && !content_type.is_some_and(|line| types.admit(line.as_bytes()))
    {
        let sent = content_type.map_or("no Content-Type".into(), |line| {
            String::from_utf8_lossy(line.as_bytes())
        });
        let types = types.written().join(", ");
        return Err(format!("{sent} is not among {types}: 415"));
    }
    let (bytes, most) = (event.body.len() as u64, source.max_body_bytes);
    if bytes > most {
        return Err(format!(
            "the body has {bytes} bytes, the source takes {most}: 413"
        ));
    }
    Ok(())
}

fn verification(source: &Source, event: &EventView<'_>) -> Result<String, String> {
    let Some(verifier) = &source.verifier else {
        return Ok("this source verifies nothing".to_owned());
    };
    match verifier.verify(event, service::clock::now(), None) {
        Ok(_) => Ok("the signature is right".to_owned()),
        Err(reason) => Err(format!("{}: 401", reason.message())),
    }
}

/// What a schema says of a body; `None`: the body is no JSON.
pub(super) fn schema(check: Option<&Check>, body: Option<&Value>) -> Result<Option<Said>, String> {
    let Some(check) = check else {
        return Ok(None);
    };
    let misfits = check.misfits(body);
    if misfits.is_empty() {
        return Ok(Some(("schema", "the body fits".to_owned())));
    }
    let mut said = String::from("the body doesn't fit the schema");
    for misfit in &misfits {
        let place = match misfit.path.as_str() {
            "" => "the body",
            path => path,
        };
        said += &format!(
            "\n              {place}: {} ({})",
            misfit.message, misfit.keyword
        );
    }
    match check.rule.action {
        Action::Reject => Err(format!("{said}\n              422")),
        Action::Warn => Ok(Some((
            "schema",
            said + "\n              recorded with a mark",
        ))),
    }
}

fn copies(source: &Source, event: &EventView<'_>) -> Option<Said> {
    let rule = source.dedup.as_ref()?;
    let said = match rule.key(source.uid, event) {
        Some(key) => format!(
            "key {}: a copy within {:?} would go nowhere",
            key.simple(),
            rule.window
        ),
        None => "the value that would tell a copy is missing: always taken as new".to_owned(),
    };
    Some(("dedup", said))
}
