//! JSONata in child processes of the same binary.
//!
//! Expressions are written by tenants, and the one conformant engine can be made to abort, to take gigabytes and to run for
//! minutes (`$formatInteger(1/0, 'w')`, `$pad('', 1e10)`). So it never runs where events are accepted: a [`Pool`] keeps a few
//! children of `/proc/self/exe`, each with a bound on its memory, its processor time and its files, an empty environment and
//! two pipes; kills one at a deadline, starts another, and says of the evaluation that it failed.
//!
//! Guarantees: an evaluation is answered within [`Options::wait`], whatever the expression does; one that took a child down
//! fails with a message, after it was tried once more alone, and costs the others that waited with it nothing but time;
//! what is checked here compiles here. Not guaranteed: that an expression gives the same twice (`$now()`, `$random()`).
//!
//! `child` is what runs in the child, `pool` what runs outside, `frame` what they say to each other.
//!
//! Every binary that makes a pool calls [`child_main_if_asked`] in the first line of its `main`.

mod child;
mod frame;
mod metrics;
mod pool;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use metrics::Metrics;
pub use pool::{Checked, Evaluation, Input, Options, Pool, Program, Refused};

/// The longest expression; what the resources' fields allow.
pub const LONGEST_EXPRESSION: usize = 64 * 1024;

/// The first argument of a child. Hidden: nobody else has a use for it.
const CHILD: &str = "--jsonata-sandbox-child";

/// The variable that tells a child its bounds: bytes of memory, milliseconds of an evaluation.
const LIMITS: &str = "HOOKSTREAM_SANDBOX_LIMITS";

/// Becomes a child of a pool, and never returns, if this process was started as one. Before anything else of `main`: a
/// child must not read flags, open files or start threads.
pub fn child_main_if_asked() {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == CHILD)
    {
        child::main();
    }
}
