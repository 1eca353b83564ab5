//! Says when a folder of manifests may have changed.
//!
//! The file system's notifications are hints: editors save by renaming, by truncating, by writing twice, so a hint is
//! passed on once it has been quiet for a moment. Where notifications don't work (some network and container file
//! systems, a machine out of watches), a timer takes their place; it also runs beside them, slower, in case one was
//! lost. Whoever is woken reads everything and finds out by itself whether anything differs.

use crate::folder;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};

/// Of no notification before a change counts as saved. Editors are done within a few milliseconds.
const QUIET: Duration = Duration::from_millis(100);

/// A tool that writes without end is not waited for longer than this: a saved file is to be live within a second.
const LONGEST_WAIT: Duration = Duration::from_millis(400);

const POLL: Duration = Duration::from_millis(500);
const SAFETY_POLL: Duration = Duration::from_secs(5);

/// A watch over files and folders; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    changed: Arc<Notify>,
    _task: JoinSet<()>,
}

impl Watch {
    /// Watches from now on. A file is watched through its folder, because saving often replaces it.
    pub(crate) fn new(roots: &[PathBuf]) -> Watch {
        let roots: Vec<PathBuf> = roots
            .iter()
            .map(|root| std::path::absolute(root).unwrap_or_else(|_| root.clone()))
            .collect();
        let hint = Arc::new(Notify::new());
        let changed = Arc::new(Notify::new());
        let watcher = match watcher(&roots, hint.clone()) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "no notifications of saved files here: looking every half second");
                None
            }
        };
        let mut task = JoinSet::new();
        task.spawn(settle(watcher, hint, changed.clone()));
        Watch {
            changed,
            _task: task,
        }
    }

    /// Returns when something may have changed, and has been quiet since. Dropped half-way, it loses nothing.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn watcher(roots: &[PathBuf], hint: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let known = roots.to_vec();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error means that something was missed: look.
        if event.map_or(true, |event| matters(&event, &known)) {
            hint.notify_one();
        }
    })?;
    for root in roots {
        if root.is_dir() {
            watcher.watch(root, RecursiveMode::Recursive)?;
        } else {
            watcher.watch(
                root.parent().unwrap_or(Path::new("/")),
                RecursiveMode::NonRecursive,
            )?;
        }
    }
    Ok(watcher)
}

/// Turns hints into changes: many into one, none into one now and then.
async fn settle(watcher: Option<RecommendedWatcher>, hint: Arc<Notify>, changed: Arc<Notify>) {
    let period = if watcher.is_some() { SAFETY_POLL } else { POLL };
    loop {
        if tokio::time::timeout(period, hint.notified()).await.is_ok() {
            let quiet =
                async { while tokio::time::timeout(QUIET, hint.notified()).await.is_ok() {} };
            // Cut off at the bound, what comes later is the next change.
            let _ = tokio::time::timeout(LONGEST_WAIT, quiet).await;
        }
        changed.notify_one();
    }
}

/// Reading a file notifies too, and so does every other file beside the manifests: a data folder, a repository.
fn matters(event: &Event, roots: &[PathBuf]) -> bool {
    if event.need_rescan() {
        return true;
    }
    let writes = match event.kind {
        EventKind::Access(kind) => matches!(
            kind,
            notify::event::AccessKind::Close(notify::event::AccessMode::Write)
        ),
        _ => true,
    };
    writes
        && event
            .paths
            .iter()
            .any(|path| roots.contains(path) || is_inside(path, roots))
}

/// A manifest, or a folder that may hold some (it has no extension, or is one by its looks), with nothing hidden on the way.
fn is_inside(path: &Path, roots: &[PathBuf]) -> bool {
    let Some(below) = roots.iter().find_map(|root| path.strip_prefix(root).ok()) else {
        return false;
    };
    let hidden = below.components().any(|part| {
        part.as_os_str()
            .to_str()
            .is_none_or(|name| name.starts_with('.'))
    });
    !hidden && (folder::is_manifest(path) || path.extension().is_none() || path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};

    fn event(kind: EventKind, path: &str) -> Event {
        Event::new(kind).add_path(path.into())
    }

    #[test]
    fn a_save_matters_whichever_way_the_editor_does_it() {
        let roots = [PathBuf::from("/m"), PathBuf::from("/other/one.yaml")];
        for (kind, path) in [
            (
                EventKind::Access(AccessKind::Close(AccessMode::Write)),
                "/m/a.yaml",
            ),
            (
                EventKind::Modify(ModifyKind::Name(RenameMode::To)),
                "/m/below/a.yml",
            ),
            (EventKind::Create(CreateKind::File), "/m/a.yaml"),
            (
                EventKind::Modify(ModifyKind::Name(RenameMode::To)),
                "/other/one.yaml",
            ),
            (EventKind::Create(CreateKind::Folder), "/m/below"),
        ] {
            assert!(matters(&event(kind, path), &roots), "{kind:?} {path}");
        }
    }

    #[test]
    fn reading_and_strangers_do_not_matter() {
        let roots = [PathBuf::from("/m"), PathBuf::from("/other/one.yaml")];
        for (kind, path) in [
            (
                EventKind::Access(AccessKind::Open(AccessMode::Read)),
                "/m/a.yaml",
            ),
            (
                EventKind::Create(CreateKind::File),
                "/m/.hookstream/base/pg.yaml",
            ),
            (EventKind::Create(CreateKind::File), "/m/.a.yaml.swp"),
            (EventKind::Create(CreateKind::File), "/m/a.yaml~"),
            (EventKind::Create(CreateKind::File), "/other/two.yaml"),
        ] {
            assert!(!matters(&event(kind, path), &roots), "{kind:?} {path}");
        }
    }

    #[tokio::test]
    async fn a_replaced_file_wakes_the_watch() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "a: 1").expect("written");
        let watch = Watch::new(std::slice::from_ref(&file));
        let draft = folder.path().join("a.yaml.new");
        std::fs::write(&draft, "a: 2").expect("written");
        std::fs::rename(&draft, &file).expect("replaced");
        // Below the safety timer: the notification did it.
        tokio::time::timeout(SAFETY_POLL - Duration::from_secs(1), watch.changed())
            .await
            .expect("woken by the rename");
    }
}
