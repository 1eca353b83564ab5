//! What the operator has to say about itself, for whoever can show it: Events on its pod, or a terminal.

use tokio::sync::mpsc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub warning: bool,
    /// In the manner of a condition's reason.
    pub reason: &'static str,
    pub note: String,
}

impl Notice {
    pub fn warning(reason: &'static str, note: String) -> Notice {
        Notice {
            warning: true,
            reason,
            note,
        }
    }

    pub fn normal(reason: &'static str, note: String) -> Notice {
        Notice {
            warning: false,
            reason,
            note,
        }
    }
}

/// Where notices go. Full: the notice is dropped, since each is in the log as well.
#[derive(Debug, Clone)]
pub struct Notices(mpsc::Sender<Notice>);

impl Notices {
    /// Room for a few; more at once is an outage that one of them tells as well as all.
    pub fn channel() -> (Notices, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(16);
        (Notices(sender), receiver)
    }

    pub fn send(&self, notice: Notice) {
        let _ = self.0.try_send(notice);
    }
}
