//! Adyen's standard notifications: each item of the body carries an HMAC-SHA256 of some of its fields. Every item must be
//! genuine, or anybody could add one to a request that was overheard.

use super::{
    Refused,
    encoding::{Encoding, SecretEncoding},
    header::Candidates,
    hmac,
};
use crate::{event::EventView, secret::Secret};
use serde_json::Value;

/// Adyen sends one, at most six.
const MOST_ITEMS: usize = 64;

/// What is signed, in this order, with colons between; a missing one is empty.
const FIELDS: [&str; 8] = [
    "/pspReference",
    "/originalReference",
    "/merchantAccountCode",
    "/merchantReference",
    "/amount/value",
    "/amount/currency",
    "/eventCode",
    "/success",
];

#[derive(Debug, Clone)]
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    pub(super) fn new(secrets: &[&Secret]) -> Keys {
        Keys(
            secrets
                .iter()
                .filter_map(|secret| SecretEncoding::Hex.key(secret))
                .map(|bytes| hmac::Key::new(hmac::Algorithm::Sha256, &bytes))
                .collect(),
        )
    }

    pub(super) fn verify(&self, event: &EventView<'_>) -> Result<(), Refused> {
        let items = event
            .json()
            .and_then(|body| body.get("notificationItems")?.as_array())
            .filter(|items| (1..=MOST_ITEMS).contains(&items.len()))
            .ok_or(Refused::SignatureMissing)?;
        items.iter().try_for_each(|item| {
            let item = item
                .get("NotificationRequestItem")
                .ok_or(Refused::SignatureMissing)?;
            self.verify_item(item)
        })
    }

    fn verify_item(&self, item: &Value) -> Result<(), Refused> {
        let signature = item
            .pointer("/additionalData/hmacSignature")
            .and_then(Value::as_str)
            .ok_or(Refused::SignatureMissing)?;
        let mut candidates = Candidates::new(32);
        let mut buffer = [0; 36];
        let decoded = Encoding::Base64
            .decode(signature.trim(), &mut buffer)
            .ok_or(Refused::SignatureMalformed)?;
        candidates.add(|place| {
            place.get_mut(..decoded.len())?.copy_from_slice(decoded);
            Some(decoded.len())
        });
        if candidates.is_empty() {
            return Err(Refused::SignatureMalformed);
        }
        let text = FIELDS.map(|field| text(item.pointer(field))).join(":");
        let verified = self.0.iter().fold(subtle::Choice::from(0), |found, key| {
            found | key.fits(&candidates, |context| context.update(text.as_bytes()))
        });
        match bool::from(verified) {
            true => Ok(()),
            false => Err(Refused::SignatureMismatch),
        }
    }
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => String::new(),
    }
}
