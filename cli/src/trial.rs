//! `hookstream test`: one event through all that a source and its connections do to it, or a topic and its subscriptions,
//! without a server.
//!
//! The very code of the gateway decides: `Table::source`, `Verifier::verify`, `publication::read`, `route`. Exit 0 when the
//! event would be recorded, also when no connection takes it; 1 when it would be refused. What depends on other requests (the
//! rate limit, whether the event is a copy) or on the network (keys that are elsewhere) is said, and not decided.

mod source;
mod steps;
mod topic;

use crate::{args, lint::Checked, output};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use routing::{EventView, Table, table::Connection};
use std::{io::Read, process::ExitCode, sync::Arc};
use uuid::Uuid;

/// A step, and what came of it.
type Said = (&'static str, String);

/// Of the event file. The gateway's own limit is the source's.
const MAX_EVENT_BYTES: u64 = 256 * 1024 * 1024;

pub(crate) fn run(options: &args::Trial) -> Result<ExitCode> {
    let body = read(options)?;
    let checked = Checked::read(&options.paths)?;
    for finding in &checked.findings {
        eprintln!("{finding}");
    }
    let table = Table::build(checked.compiler.rows().cloned());
    let mut headers = http::HeaderMap::new();
    for (name, value) in &options.headers {
        headers.append(name.clone(), value.clone());
    }
    let trial = Trial {
        options,
        checked: &checked,
        table: &table,
        headers,
        body: body.into(),
    };
    let mut lines = Vec::new();
    let passed = match (&options.source, &options.topic) {
        (Some(name), _) => trial.of_source(name, &mut lines)?,
        (None, Some(name)) => trial.of_topic(name, &mut lines)?,
        (None, None) => bail!("--source or --topic says where the event goes"),
    };
    output::print(&(lines.join("\n") + "\n"))?;
    Ok(match passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// An event, and what it is tried on.
struct Trial<'t> {
    options: &'t args::Trial,
    checked: &'t Checked,
    table: &'t Table,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Trial<'_> {
    /// Whether it would be recorded.
    fn of_source(&self, name: &str, lines: &mut Vec<String>) -> Result<bool> {
        let uid = self.declared("Source", name)?;
        let key = routing::ids::format(routing::ids::Prefix::Source, uid);
        let found = self.table.source(&key).map(|(source, _)| source);
        let source = found.with_context(|| self.absent("Source", name))?;
        let options = self.options;
        let (path, query) = options.path.split_once('?').unwrap_or((&options.path, ""));
        let event = EventView::new(
            &options.method,
            path,
            query,
            &self.headers,
            &self.body,
            options.from,
        );
        lines.push(format!("source        {} ({})", source.name, source.id));
        let judged = source::judge(source, &event);
        if said(&judged, lines) {
            let taken = source.route(&event);
            self.matched("connection", &source.connections, &taken, &event, lines);
        }
        Ok(judged.is_ok())
    }

    /// Whether it would be published, now or later.
    fn of_topic(&self, name: &str, lines: &mut Vec<String>) -> Result<bool> {
        let uid = self.declared("Topic", name)?;
        let topic = self.table.topic(uid);
        let topic = topic.with_context(|| self.absent("Topic", name))?;
        lines.push(format!("topic         {} ({})", topic.name, topic.id));
        let query = self.options.path.trim_start_matches('?');
        let batch = self.options.batch;
        let fits = match topic::judge(topic, &self.headers, query, &self.body, batch) {
            Ok(fits) => fits,
            Err(refused) => return Ok(said(&Err(refused), lines)),
        };
        said(&Ok(fits.steps), lines);
        for (place, event) in fits.events.iter().enumerate() {
            if fits.events.len() > 1 {
                lines.push(format!("event         {place} of the batch"));
            }
            let post = http::Method::POST;
            let view = EventView::new(&post, "", "", &fits.headers, &event.body, self.options.from);
            let taken = topic.route(&view);
            self.matched("subscription", &topic.subscriptions, &taken, &view, lines);
        }
        Ok(true)
    }

    /// `what`: a connection or a subscription.
    fn matched(
        &self,
        what: &str,
        all: &[Arc<Connection>],
        taken: &[&Arc<Connection>],
        event: &EventView<'_>,
        lines: &mut Vec<String>,
    ) {
        if all.is_empty() {
            lines.push(format!("no {what} begins here"));
        }
        for connection in all {
            let to = self
                .table
                .destination(connection.destination)
                .map_or("a destination that is not in the table", |destination| {
                    &destination.name
                });
            let takes = taken.iter().any(|taken| taken.uid == connection.uid);
            let verdict = if takes {
                format!("takes it      → {to}")
            } else if connection.suspended {
                "suspended".to_owned()
            } else {
                match connection.matcher.objection(event) {
                    Some(objection) => format!("filtered out  {objection}"),
                    None => "filtered out".to_owned(),
                }
            };
            lines.push(format!("{what:<12}  {}  {verdict}", connection.name));
            if takes {
                lines.extend(steps::of(connection, event, &self.checked.engine));
            }
        }
    }

    /// The UID of a resource of the manifests.
    fn declared(&self, kind: &str, name: &str) -> Result<Uuid> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        let mut declared = self.checked.declared.resources.keys();
        let found =
            declared.find(|id| id.kind == kind && id.namespace == namespace && id.name == name);
        let found = found.with_context(|| {
            format!("no {kind} {name:?} in namespace {namespace:?} of these manifests")
        })?;
        Ok(found.uid())
    }

    fn absent(&self, kind: &str, name: &str) -> String {
        format!("{kind} {name:?} is not in the table: see the findings above")
    }
}

/// Adds the steps, or why there are no more; whether there are.
fn said(judged: &Result<Vec<Said>, String>, lines: &mut Vec<String>) -> bool {
    match judged {
        Ok(steps) => {
            for (step, said) in steps {
                lines.push(format!("{step:<12}  {said}"));
            }
        }
        Err(refused) => lines.push(format!("refused       {refused}")),
    }
    judged.is_ok()
}

fn read(options: &args::Trial) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let whose = || format!("--event {}", options.event.display());
    if options.event.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(MAX_EVENT_BYTES + 1)
            .read_to_end(&mut body)
            .with_context(whose)?;
    } else {
        let file = std::fs::File::open(&options.event).with_context(whose)?;
        file.take(MAX_EVENT_BYTES + 1)
            .read_to_end(&mut body)
            .with_context(whose)?;
    }
    if body.len() as u64 > MAX_EVENT_BYTES {
        bail!("{}: larger than 256 MiB", whose());
    }
    Ok(body)
}
