//! `hookstream test`: one event through all that a source and its connections do to it, without a server.
//!
//! The very code of the gateway decides: `Table::source`, `Verifier::verify`, `Source::route`. Exit 0 when the event
//! would be recorded, also when no connection takes it; 1 when it would be refused. What depends on other requests (the
//! rate limit, whether the event is a copy) or on the network (keys that are elsewhere) is said, and not decided.

mod source;
mod steps;

use crate::{args, engine::Engine, lint::Checked};
use anyhow::{Context, Result, bail};
use routing::{
    EventView, Table,
    table::{Connection, Source},
};
use std::{io::Read, process::ExitCode};

/// Of the event file. The gateway's own limit is the source's.
const MAX_EVENT_BYTES: u64 = 256 * 1024 * 1024;

pub(crate) fn run(options: &args::Trial) -> Result<ExitCode> {
    let body = read(options)?;
    let checked = Checked::read(&options.paths)?;
    for finding in &checked.findings {
        eprintln!("{finding}");
    }
    let table = Table::build(checked.compiler.rows().cloned());
    let (namespace, name) = options
        .source
        .split_once('/')
        .unwrap_or(("default", &options.source));
    let source = find(&table, namespace, name, &checked).with_context(|| match checked.findings.len() {
        0 => format!("no Source {name:?} in namespace {namespace:?} of these manifests"),
        _ => format!("Source {name:?} in namespace {namespace:?} is not in the table: see the findings above"),
    })?;
    let mut headers = http::HeaderMap::new();
    for (name, value) in &options.headers {
        headers.append(name.clone(), value.clone());
    }
    let (path, query) = options.path.split_once('?').unwrap_or((&options.path, ""));
    let event = EventView::new(&options.method, path, query, &headers, &body, options.from);
    println!("source        {} ({})", source.name, source.id);
    match source::judge(source, &event) {
        Ok(steps) => {
            for (step, said) in steps {
                println!("{step:<12}  {said}");
            }
        }
        Err(refused) => {
            println!("refused       {refused}");
            return Ok(ExitCode::FAILURE);
        }
    }
    matched(
        &table,
        source,
        &source.route(&event),
        &event,
        &checked.engine,
    );
    Ok(ExitCode::SUCCESS)
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

fn find<'t>(
    table: &'t Table,
    namespace: &str,
    name: &str,
    checked: &Checked,
) -> Option<&'t Source> {
    let id = checked
        .declared
        .resources
        .keys()
        .find(|id| id.kind == "Source" && id.namespace == namespace && id.name == name)?;
    let key = routing::ids::format(routing::ids::Prefix::Source, id.uid());
    table.source(&key).map(|(source, _)| &**source)
}

fn matched(
    table: &Table,
    source: &Source,
    taken: &[&std::sync::Arc<Connection>],
    event: &EventView<'_>,
    engine: &Engine,
) {
    if source.connections.is_empty() {
        println!("no connection begins at this source");
    }
    for connection in &source.connections {
        let to = table
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
        println!("connection    {}  {verdict}", connection.name);
        if takes {
            for line in steps::of(connection, event, engine) {
                println!("{line}");
            }
        }
    }
}
