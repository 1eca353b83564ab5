//! The same judgement of a body that is never in one piece.
//!
//! For schemes whose word about the body is an HMAC over it, with other parts of the request before and behind. A request
//! is judged by its head when it begins, each piece is fed as it comes, and the end says whether it was genuine.

use super::{Refused, header::Candidates, hmac::Key};
use ring::hmac::Context;
use subtle::{Choice, ConstantTimeEq};

/// Of one request. Prints nothing of its keys.
pub struct Tally {
    /// One for each secret, fed with what is signed before the body.
    contexts: Vec<Context>,
    /// What is signed behind the body.
    behind: Vec<u8>,
    candidates: Candidates,
}

/// What is known of a request before its body.
#[derive(Debug)]
pub enum Begun {
    /// All: it proves who sent, not what.
    Genuine,
    /// The end of the body will tell.
    Tally(Box<Tally>),
}

impl Tally {
    pub(super) fn new(
        keys: &[Key],
        candidates: Candidates,
        before: &[u8],
        behind: Vec<u8>,
    ) -> Tally {
        let begin = |key: &Key| {
            let mut context = key.context();
            context.update(before);
            context
        };
        Tally {
            contexts: keys.iter().map(begin).collect(),
            behind,
            candidates,
        }
    }

    pub fn update(&mut self, piece: &[u8]) {
        for context in &mut self.contexts {
            context.update(piece);
        }
    }

    /// Every key against every candidate, without stopping at the first that fits.
    pub fn finish(self) -> Result<(), Refused> {
        let mut verified = Choice::from(0);
        for mut context in self.contexts {
            context.update(&self.behind);
            let tag = context.sign();
            for candidate in self.candidates.iter() {
                verified |= tag.as_ref().ct_eq(candidate);
            }
        }
        match bool::from(verified) {
            true => Ok(()),
            false => Err(Refused::SignatureMismatch),
        }
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[tally]")
    }
}
