//! Amazon SNS: each message is signed with RSA over some of its fields, by a certificate at a URL that it names.
//!
//! The signature proves that SNS sent it, not for whom: anybody with an AWS account can subscribe this URL to a topic of
//! theirs. So the secrets are the ARNs of the topics that may send.

use super::{
    Document, Refused, Verdict,
    der::PublicKey,
    document::{DocumentKind, Wanted, pinned},
    encoding::{Digest, any_equals, from_base64},
};
use crate::{event::EventView, secret::Secret};
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use serde_json::Value;

/// Fields of a notification that are signed, where they are there, in this order.
const NOTIFICATION: [&str; 6] = [
    "Message",
    "MessageId",
    "Subject",
    "Timestamp",
    "TopicArn",
    "Type",
];
/// Those of a confirmation.
const CONFIRMATION: [&str; 7] = [
    "Message",
    "MessageId",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];

#[derive(Debug, Clone)]
pub(super) struct Topics(Vec<Digest>);

impl Topics {
    pub(super) fn new(secrets: &[&Secret]) -> Topics {
        Topics(
            secrets
                .iter()
                .map(|secret| Digest::of(secret.expose().trim_ascii()))
                .collect(),
        )
    }

    /// The certificate. A message of another topic is refused before anything is fetched for it.
    pub(super) fn wants(&self, event: &EventView<'_>) -> Result<Wanted, Refused> {
        let message = event.json().ok_or(Refused::SignatureMissing)?;
        let topic = field(message, "TopicArn").ok_or(Refused::SignatureMissing)?;
        if !any_equals(&self.0, topic.as_bytes()) {
            return Err(Refused::SenderUnknown);
        }
        let url = field(message, "SigningCertURL").ok_or(Refused::SignatureMissing)?;
        match pinned(url, is_host) && is_certificate(url) {
            true => Ok(Wanted {
                url: url.to_owned(),
                kind: DocumentKind::SnsCertificate,
                key_id: None,
            }),
            false => Err(Refused::KeyLocation),
        }
    }

    pub(super) fn verify(
        &self,
        event: &EventView<'_>,
        document: Option<&Document>,
    ) -> Result<Verdict, Refused> {
        // Again, since what is judged here must not depend on who called before.
        self.wants(event)?;
        let message = event.json().ok_or(Refused::SignatureMissing)?;
        let Some(PublicKey::Rsa(key)) = document.and_then(Document::certificate) else {
            return Err(Refused::KeyUnknown);
        };
        let signature = field(message, "Signature").ok_or(Refused::SignatureMissing)?;
        let signature = from_base64(signature.as_bytes()).ok_or(Refused::SignatureMalformed)?;
        let algorithm = match field(message, "SignatureVersion") {
            Some("1") => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Some("2") => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(Refused::SignatureMalformed),
        };
        let kind = field(message, "Type").ok_or(Refused::SignatureMissing)?;
        let signed: &[&str] = match kind {
            "Notification" => &NOTIFICATION,
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => &CONFIRMATION,
            _ => return Err(Refused::SignatureMalformed),
        };
        let mut text = String::with_capacity(event.body.len());
        for name in signed {
            if let Some(value) = field(message, name) {
                text.extend([name, "\n", value, "\n"]);
            }
        }
        UnparsedPublicKey::new(algorithm, key)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| Refused::SignatureMismatch)?;
        if kind != "SubscriptionConfirmation" {
            return Ok(Verdict::Genuine);
        }
        let url = field(message, "SubscribeURL").ok_or(Refused::ChallengeRefused)?;
        match pinned(url, is_host) {
            true => Ok(Verdict::Confirm(url.to_owned())),
            false => Err(Refused::KeyLocation),
        }
    }
}

fn field<'m>(message: &'m Value, name: &str) -> Option<&'m str> {
    message.get(name)?.as_str()
}

/// `sns.<region>.amazonaws.com` or, in China, `….cn`.
pub(super) fn is_host(host: &str) -> bool {
    let region = host.strip_prefix("sns.").and_then(|rest| {
        rest.strip_suffix(".amazonaws.com")
            .or_else(|| rest.strip_suffix(".amazonaws.com.cn"))
    });
    region.is_some_and(|region| !region.is_empty() && !region.contains('.'))
}

/// As all of them are named; so that a message can't make us fetch whatever else is there.
fn is_certificate(url: &str) -> bool {
    let name = url.rsplit('/').next().unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    name.strip_prefix("SimpleNotificationService-")
        .and_then(|rest| rest.strip_suffix(".pem"))
        .is_some_and(|id| (1..=64).contains(&id.len()) && id.bytes().all(plain))
}

pub(super) fn check_secret(secret: &Secret) -> Result<(), &'static str> {
    let text = secret.expose().trim_ascii();
    match text.starts_with(b"arn:") && text.iter().filter(|b| **b == b':').count() == 5 {
        true => Ok(()),
        false => Err(
            "isn't the ARN of a topic; write the one whose messages are to be taken, as `arn:aws:sns:us-east-1:123456789012:orders`",
        ),
    }
}
