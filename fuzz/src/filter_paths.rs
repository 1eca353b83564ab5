//! A filter's path and pattern, which tenants write: what reads is shown as something that reads the same.

use routing::filter::{Path, Pattern};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(path) = Path::parse(text) {
        let shown = path.to_string();
        // A key may hold both kinds of brackets and quotes; then there is no way to write it.
        if !text.contains(['"', '\'']) {
            assert_eq!(Path::parse(&shown), Ok(path), "{shown}");
        }
    }
    let _ = Pattern::parse(text);
}
