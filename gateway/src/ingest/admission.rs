//! What can be said before a byte of the body is read: the cheap checks, in the order in which a sender is told.
//!
//! A source that is gone, then who may send (denied before allowed), then what is no event at all (a preflight), then what
//! the source takes, and last how much of it: what is refused for another reason takes nothing of the rate limit.
//! Whatever a check needs is compiled when the table is built; here are comparisons only.

use super::{answer::Marks, answer::Reply, cors, head, rate::Bucket};
use crate::{args::Limits, errors::Refusal};
use http::{Method, header, request::Parts};
use routing::table::Source;
use std::{net::IpAddr, time::Duration};

/// A request of which the head has arrived.
pub struct Asked<'a> {
    pub head: &'a Parts,
    /// Something follows the head.
    pub has_body: bool,
    pub sender: IpAddr,
    /// On the process's own clock.
    pub at: Duration,
}

/// What the source's rate limit is kept in, and among how many replicas it is shared.
pub struct Share<'a> {
    pub bucket: &'a Bucket,
    pub replicas: u32,
}

/// Whether the body is worth reading. `Some`: this is the answer already. What every answer to this request has to say is
/// left in `marks`, also when it is refused.
pub fn judge(
    asked: &Asked<'_>,
    source: &Source,
    share: &Share<'_>,
    limits: &Limits,
    marks: &mut Marks,
) -> Result<Option<Reply>, Refusal> {
    bounds(asked.head, limits)?;
    if source.archived {
        return Err(Refusal::SourceArchived);
    }
    address(asked.sender, source)?;
    if let Some(reply) = web_page(asked.head, source, marks)? {
        return Ok(Some(reply));
    }
    if source.suspended {
        return Err(Refusal::SourcePaused);
    }
    method(asked.head, source)?;
    content_type(asked, source)?;
    rate(asked, source, share, marks)?;
    Ok(None)
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

fn address(sender: IpAddr, source: &Source) -> Result<(), Refusal> {
    let Some(filter) = &source.ip_filter else {
        return Ok(());
    };
    filter
        .judge(sender)
        .map_err(|why| Refusal::AddressBlocked { sender, why })
}

fn web_page(head: &Parts, source: &Source, marks: &mut Marks) -> Result<Option<Reply>, Refusal> {
    let Some(rules) = &source.cors else {
        return Ok(None);
    };
    marks.cors = true;
    marks.origin = cors::allowed_origin(rules, &head.headers);
    cors::preflight(rules, head, marks.origin.as_ref()).transpose()
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

/// A request without a body has no content that could be of a wrong type.
fn content_type(asked: &Asked<'_>, source: &Source) -> Result<(), Refusal> {
    let types = &source.content_types;
    if types.is_empty() || !asked.has_body {
        return Ok(());
    }
    // One line: of several, readers take another one each.
    let mut lines = asked.head.headers.get_all(header::CONTENT_TYPE).iter();
    let admitted = match (lines.next(), lines.next()) {
        (Some(line), None) => types.admit(line.as_bytes()),
        _ => false,
    };
    if admitted {
        return Ok(());
    }
    Err(Refusal::UnsupportedMediaType {
        content_types: types.written(),
    })
}

fn rate(
    asked: &Asked<'_>,
    source: &Source,
    share: &Share<'_>,
    marks: &mut Marks,
) -> Result<(), Refusal> {
    let Some(limit) = &source.rate_limit else {
        return Ok(());
    };
    let standing = share.bucket.take(limit, share.replicas, asked.at);
    marks.standing = Some(standing);
    standing.retry_after.map_or(Ok(()), |retry_after| {
        Err(Refusal::RateLimited {
            source_id: source.id.clone(),
            limit: standing.limit,
            current: standing.limit - standing.remaining,
            retry_after,
        })
    })
}
