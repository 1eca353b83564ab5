//! Expressions are checked before anything is compiled, in the sandbox in which gateways evaluate them: what is accepted
//! compiles there.
//!
//! An object whose expression could not be checked keeps the row it has, and the check is made again.

use crate::core::Core;
use routing::compile;
use sandbox::{Pool, Refused};
use std::time::Duration;

/// For all that are new: a few that are slow to check don't hold up everything else.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells the core what is found out; whether something is left to be found out.
pub(super) async fn check(core: &mut Core, sandbox: &Pool) -> bool {
    let wanted = core.wanted_expressions();
    let count = wanted.len();
    if count == 0 {
        return false;
    }
    let mut known = 0;
    for (text, checked) in sandbox.check_all(wanted, PATIENCE).await {
        let checked = match checked {
            Ok(checked) => compile::Checked::Roots(checked.roots),
            Err(Refused::Wrong(message)) => compile::Checked::Wrong(message),
            Err(Refused::Unavailable(why)) => {
                tracing::warn!(why, "an expression can't be checked; will try again");
                continue;
            }
        };
        known += 1;
        core.set_expression(text, checked);
    }
    known < count
}
