//! What `/readyz` waits for: named parts, each with a reason while it isn't there.

use service::admin::Readiness;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Health {
    readiness: Readiness,
    missing: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Health {
    /// Not ready until each of the parts was called ready.
    pub fn new(parts: &[(&'static str, &str)]) -> Health {
        let missing = parts
            .iter()
            .map(|(part, reason)| (*part, (*reason).to_owned()))
            .collect();
        let health = Health {
            readiness: Readiness::new("starting"),
            missing: Arc::new(Mutex::new(missing)),
        };
        health.show();
        health
    }

    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    pub fn ready(&self, part: &'static str) {
        self.lock().remove(part);
        self.show();
    }

    pub fn not_ready(&self, part: &'static str, reason: String) {
        self.lock().insert(part, reason);
        self.show();
    }

    fn show(&self) {
        let missing = self.lock();
        if missing.is_empty() {
            self.readiness.ready();
        } else {
            self.readiness
                .not_ready(missing.values().cloned().collect::<Vec<_>>().join("\n"));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.missing
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
