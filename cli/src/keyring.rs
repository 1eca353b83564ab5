//! The key ring of a data folder: generated once, readable by its owner only.

use anyhow::{Context, Result};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};
use store::Keyring;

/// Loads the ring at `path`, making it if there's none.
pub(crate) fn load_or_make(path: &Path) -> Result<Keyring> {
    match fs::exists(path) {
        Ok(true) => {}
        Ok(false) => {
            make(path).with_context(|| format!("making the key ring {}", path.display()))?
        }
        Err(error) => return Err(error).with_context(|| format!("key ring {}", path.display())),
    }
    Ok(Keyring::load(path)?)
}

fn make(path: &Path) -> io::Result<()> {
    write_private(path, Keyring::generate().to_text().expose())
}

/// A file that only its owner reads. Written beside and renamed: a crash leaves a whole one or none.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_ring_is_made_once_and_is_nobody_elses_business() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keyring");
        let made = load_or_make(&path).expect("made");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o600
        );
        let loaded = load_or_make(&path).expect("loaded");
        assert_eq!(format!("{made:?}"), format!("{loaded:?}"));
    }
}
