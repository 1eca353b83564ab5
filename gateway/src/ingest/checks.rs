//! What a genuine request has to be beside genuine: of the right shape, and the first of its kind.
//!
//! Whether it is the first is decided by the commit (`store::events::record`), where all replicas meet; here is only by what.

use crate::errors::Refusal;
use routing::{EventView, schema::Action, table::Source};
use store::{dedup, events::Verification};

/// Whether the body fits the source's schema. What doesn't fit is refused, or taken and marked, as the source says.
pub(super) fn schema(source: &Source, view: &EventView<'_>) -> Result<Verification, Refusal> {
    let fits = match source.verifier {
        Some(_) => Verification::Verified,
        None => Verification::None,
    };
    let Some(check) = &source.schema else {
        return Ok(fits);
    };
    let misfits = check.misfits(view.json());
    match check.rule.action {
        _ if misfits.is_empty() => Ok(fits),
        Action::Reject => Err(Refusal::SchemaInvalid(misfits)),
        Action::Warn => Ok(Verification::SchemaInvalid),
    }
}

/// `None`: the source knows no copies, or the request lacks the value that would tell.
pub(super) fn key(source: &Source, view: &EventView<'_>) -> Option<dedup::Key> {
    let rule = source.dedup.as_ref()?;
    let key = rule.key(source.uid, view)?;
    let window = rule.window;
    Some(dedup::Key { key, window })
}
