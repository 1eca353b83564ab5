//! Where `hookstream dev` keeps what outlives it: the private Postgres and the key ring.
//!
//! One folder for each set of manifests, so that two projects don't see each other's events, and the same one when it's
//! started again. Held by one process at a time.

use anyhow::{Context, Result, bail};
use std::{
    fs::{DirBuilder, File},
    hash::{Hash, Hasher},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// A folder that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Data {
    folder: PathBuf,
    /// Released by the kernel, however we end.
    _lock: File,
}

impl Data {
    /// Makes the folder if it's missing and takes it.
    pub(crate) fn open(folder: &Path) -> Result<Data> {
        // Others may pass through but not look: Postgres runs as another user when we are root, and what is inside guards itself.
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(folder)
            .with_context(|| format!("data folder {}", folder.display()))?;
        let folder = folder
            .canonicalize()
            .with_context(|| format!("data folder {}", folder.display()))?;
        let path = folder.join("dev.lock");
        let lock = File::create(&path).with_context(|| format!("{}", path.display()))?;
        if lock.try_lock().is_err() {
            bail!(
                "another `hookstream dev` works in {}: stop it, or give this one a --data-dir of its own or --ephemeral",
                folder.display()
            );
        }
        Ok(Data {
            folder,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The folder for these manifests: `dev-<hash of their paths>` under the user's data folder. Root's own home is closed to
/// the user that Postgres runs as, so root's is under `/var/lib`.
pub(crate) fn default_folder(
    paths: &[PathBuf],
    root: bool,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<PathBuf> {
    let set = |name| environment(name).filter(|value| Path::new(value).is_absolute());
    let base = if root {
        PathBuf::from("/var/lib")
    } else if let Some(folder) = set("XDG_DATA_HOME") {
        folder.into()
    } else if let Some(home) = set("HOME") {
        Path::new(&home).join(".local/share")
    } else {
        bail!(
            "neither HOME nor XDG_DATA_HOME says where to keep data: give --data-dir DIR or --ephemeral"
        );
    };
    let mut names: Vec<PathBuf> = Vec::new();
    for path in paths {
        names.push(
            path.canonicalize()
                .with_context(|| format!("{}", path.display()))?,
        );
    }
    names.sort();
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    names.hash(&mut hash);
    Ok(base
        .join("hookstream")
        .join(format!("dev-{:016x}", hash.finish())))
}

/// FNV-1a: `std`'s hash may change with the next compiler, and the folder must be found again.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_same_manifests_have_the_same_folder_and_others_another() {
        let manifests = tempfile::tempdir().expect("a folder");
        let (a, b) = (
            manifests.path().join("a.yaml"),
            manifests.path().join("b.yaml"),
        );
        fs::write(&a, "").expect("written");
        fs::write(&b, "").expect("written");
        let home = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let both = default_folder(&[a.clone(), b.clone()], false, home).expect("a folder");
        assert_eq!(
            default_folder(&[b, a.clone()], false, home).expect("a folder"),
            both
        );
        assert_ne!(default_folder(&[a], false, home).expect("a folder"), both);
        assert!(
            both.starts_with("/home/me/.local/share/hookstream"),
            "{both:?}"
        );
    }

    #[test]
    fn without_a_home_the_user_is_told_which_flag_to_give() {
        let error = default_folder(&[], false, |_| None).expect_err("no place");
        assert!(
            error.to_string().contains("--data-dir DIR or --ephemeral"),
            "{error}"
        );
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("dev");
        let held = Data::open(&folder).expect("taken");
        assert!(
            Data::open(&folder)
                .expect_err("taken already")
                .to_string()
                .contains("another `hookstream dev`")
        );
        drop(held);
        Data::open(&folder).expect("free again");
    }
}
