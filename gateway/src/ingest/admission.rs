//! What can be said before a byte of the body is read: the cheap checks, in the order in which a sender is told.
//!
//! Whatever a check needs is compiled when the table is built; here are comparisons only.

use crate::{args::Limits, errors::Refusal, ingest::head};
use http::{Method, request::Parts};
use routing::table::Source;

/// Whether the body is worth reading.
pub fn judge(head: &Parts, source: &Source, limits: &Limits) -> Result<(), Refusal> {
    bounds(head, limits)?;
    lifecycle(source)?;
    method(head, source)
}

fn bounds(head: &Parts, limits: &Limits) -> Result<(), Refusal> {
    let (max_bytes, max_count) = (limits.max_header_bytes, limits.max_headers);
    if head.headers.len() > max_count || head::size(&head.headers) > max_bytes {
        return Err(Refusal::HeadersTooLarge {
            max_bytes,
            max_count,
        });
    }
    Ok(())
}

fn lifecycle(source: &Source) -> Result<(), Refusal> {
    if source.suspended {
        return Err(Refusal::SourcePaused);
    }
    Ok(())
}

fn method(head: &Parts, source: &Source) -> Result<(), Refusal> {
    if source.methods.is_empty() || source.methods.contains(&head.method) {
        return Ok(());
    }
    let allow = source
        .methods
        .iter()
        .map(Method::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    Err(Refusal::MethodNotAllowed { allow })
}
