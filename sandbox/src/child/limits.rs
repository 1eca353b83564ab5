//! What a child may use. It binds itself, before it has read a byte: what binds it can't be undone by what it evaluates.

use crate::LIMITS;
use std::time::Duration;

/// Processor seconds from one renewal to the end of a child that doesn't come back. The parent's deadline is far
/// shorter; this is for a child whose parent is gone.
#[cfg(target_os = "linux")]
const SECONDS: u64 = 10;

/// What the parent says: bytes of memory, and the time of an evaluation.
pub(super) fn told() -> Option<(u64, Duration)> {
    let told = std::env::var(LIMITS).ok()?;
    let (memory, deadline_ms) = told.split_once(' ')?;
    Some((
        memory.parse().ok()?,
        Duration::from_millis(deadline_ms.parse().ok()?),
    ))
}

/// `memory` is on top of what the process has when it starts, most of which is the program itself.
#[cfg(target_os = "linux")]
pub(super) fn apply(memory: u64) -> Result<(), ()> {
    use rustix::process::{self, DumpableBehavior, Resource};
    let bind = |resource, most| {
        let limit = process::Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        process::setrlimit(resource, limit).map_err(drop)
    };
    let status = std::fs::read_to_string("/proc/self/status").map_err(drop)?;
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .ok_or(())?;
    // Where memory runs out it is a child that goes, and not the process that accepts events.
    std::fs::write("/proc/self/oom_score_adj", "1000").map_err(drop)?;
    bind(Resource::As, size * 1024 + memory)?;
    bind(Resource::Core, 0)?;
    // Pipes are no files: it can't write anything else.
    bind(Resource::Fsize, 0)?;
    // Nothing beyond the two pipes and /dev/null can be opened.
    bind(Resource::Nofile, 3)?;
    bind(Resource::Nproc, 0)?;
    rustix::thread::set_no_new_privs(true).map_err(drop)?;
    // Nobody looks into a child that has a tenant's event in its memory.
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(drop)?;
    renew_time();
    Ok(())
}

/// Grants the next stretch of processor time.
#[cfg(target_os = "linux")]
pub(super) fn renew_time() {
    use rustix::{process, time};
    let used = time::clock_gettime(time::ClockId::ProcessCPUTime).tv_sec;
    let limit = process::Rlimit {
        current: Some(u64::try_from(used).unwrap_or_default() + SECONDS),
        maximum: None,
    };
    // It can only fail if a lower hard limit was inherited, which then holds.
    let _ = process::setrlimit(process::Resource::Cpu, limit);
}

/// Other systems run `hookstream dev`, `lint` and `test` on a person's own manifests: the parent's deadline has to do.
#[cfg(not(target_os = "linux"))]
pub(super) fn apply(_: u64) -> Result<(), ()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn renew_time() {}
