//! What is wrong with an object, and what its author can do about it.

/// The condition that a finding turns False.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    Accepted,
    ResolvedRefs,
}

impl Condition {
    /// `type` of the condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Condition::Accepted => "Accepted",
            Condition::ResolvedRefs => "ResolvedRefs",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub condition: Condition,
    pub reason: Reason,
    /// Where in the manifest, as `spec.filter.all[0].path`; empty: the object as a whole.
    pub path: String,
    /// A sentence that says what to change. Never holds a secret's value.
    pub message: String,
}

/// `reason` of a condition, as Gateway API names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    InvalidFilter,
    InvalidTransform,
    /// An expression waits until it is known whether it compiles.
    ExpressionNotChecked,
    UnsupportedValue,
    InvalidUrl,
    InvalidVerification,
    Conflicted,
    NotImplemented,
    SourceNotFound,
    TopicNotFound,
    DestinationNotFound,
    SecretNotFound,
    SecretKeyMissing,
    RefNotPermitted,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::InvalidFilter => "InvalidFilter",
            Reason::InvalidTransform => "InvalidTransform",
            Reason::ExpressionNotChecked => "ExpressionNotChecked",
            Reason::UnsupportedValue => "UnsupportedValue",
            Reason::InvalidUrl => "InvalidUrl",
            Reason::InvalidVerification => "InvalidVerification",
            Reason::Conflicted => "Conflicted",
            Reason::NotImplemented => "NotImplemented",
            Reason::SourceNotFound => "SourceNotFound",
            Reason::TopicNotFound => "TopicNotFound",
            Reason::DestinationNotFound => "DestinationNotFound",
            Reason::SecretNotFound => "SecretNotFound",
            Reason::SecretKeyMissing => "SecretKeyMissing",
            Reason::RefNotPermitted => "RefNotPermitted",
        }
    }

    /// The condition that this is a reason of.
    pub const fn condition(self) -> Condition {
        match self {
            Reason::InvalidFilter
            | Reason::InvalidTransform
            | Reason::ExpressionNotChecked
            | Reason::UnsupportedValue
            | Reason::InvalidUrl
            | Reason::InvalidVerification
            | Reason::Conflicted
            | Reason::NotImplemented => Condition::Accepted,
            Reason::SourceNotFound
            | Reason::TopicNotFound
            | Reason::DestinationNotFound
            | Reason::SecretNotFound
            | Reason::SecretKeyMissing
            | Reason::RefNotPermitted => Condition::ResolvedRefs,
        }
    }
}

/// Findings of one object, collected while it is compiled: the first never hides the next.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    /// Sentences about what is right.
    pub(super) notes: Vec<String>,
}

impl Findings {
    pub(super) fn add(
        &mut self,
        reason: Reason,
        path: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.list.push(Finding {
            condition: reason.condition(),
            reason,
            path: path.into(),
            message: message.into(),
        });
    }

    /// A field whose behaviour isn't there yet: refused rather than ignored, since whoever wrote it counts on it.
    pub(super) fn not_implemented(&mut self, there: bool, path: &str) {
        if there {
            let message = format!(
                "`{path}` is not implemented yet; a later version brings it. Until then leave it out"
            );
            self.add(Reason::NotImplemented, path, message);
        }
    }

    /// The value of an `Ok`; an `Err` becomes a finding.
    pub(super) fn value<T, E: ToString>(
        &mut self,
        result: Result<T, E>,
        reason: Reason,
        path: &str,
    ) -> Option<T> {
        result
            .map_err(|error| self.add(reason, path, error.to_string()))
            .ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
