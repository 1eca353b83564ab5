//! PayPal's way without asking PayPal: RSA over `<transmission id>|<time>|<webhook id>|<CRC-32 of the body>`, by a
//! certificate at a URL that a header names. The secrets are ids of webhooks.

use super::{
    Document, Refused,
    der::PublicKey,
    document::{DocumentKind, Wanted, pinned},
    encoding::from_base64,
    header,
};
use crate::{event::EventView, secret::Secret};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

/// Whose certificate it must be: PayPal's libraries look at the domain as well.
pub(super) const DOMAIN: &str = "paypal.com";

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

#[derive(Debug, Clone)]
pub(super) struct Webhooks(Vec<Vec<u8>>);

impl Webhooks {
    pub(super) fn new(secrets: &[&Secret]) -> Webhooks {
        Webhooks(
            secrets
                .iter()
                .map(|secret| secret.expose().trim_ascii().to_vec())
                .collect(),
        )
    }

    pub(super) fn verify(
        &self,
        event: &EventView<'_>,
        document: Option<&Document>,
    ) -> Result<(), Refused> {
        wants(event)?;
        let Some(PublicKey::Rsa(key)) = document.and_then(Document::certificate) else {
            return Err(Refused::KeyUnknown);
        };
        let get = |name, refused| event.headers.get(name).map(header::text).ok_or(refused);
        // The only one that PayPal has used.
        let algorithm = get("paypal-auth-algo", Refused::SignatureMissing)?;
        if !algorithm.eq_ignore_ascii_case("SHA256withRSA") {
            return Err(Refused::SignatureMalformed);
        }
        let signature = get("paypal-transmission-sig", Refused::SignatureMissing)?;
        let signature = from_base64(signature.as_bytes()).ok_or(Refused::SignatureMalformed)?;
        let id = get("paypal-transmission-id", Refused::SignatureMissing)?;
        let time = get("paypal-transmission-time", Refused::TimestampMissing)?;
        let sum = CRC.checksum(event.body).to_string();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
        let fits = |webhook: &Vec<u8>| {
            let text = [id.as_bytes(), time.as_bytes(), webhook, sum.as_bytes()].join(&b'|');
            key.verify(&text, &signature).is_ok()
        };
        // Of a public signature: nothing to hide in the time that it takes.
        match self.0.iter().any(fits) {
            true => Ok(()),
            false => Err(Refused::SignatureMismatch),
        }
    }
}

pub(super) fn wants(event: &EventView<'_>) -> Result<Wanted, Refused> {
    let headers = event.headers;
    if !headers.contains_key("paypal-transmission-sig") {
        return Err(Refused::SignatureMissing);
    }
    let url = headers.get("paypal-cert-url").map(header::text);
    let url = url.ok_or(Refused::SignatureMissing)?;
    let theirs = |host: &str| matches!(host, "api.paypal.com" | "api.sandbox.paypal.com");
    let certificate = |url: &str| {
        let path = url.split_once(".paypal.com").map_or("", |(_, path)| path);
        let name = path.strip_prefix("/v1/notifications/certs/");
        name.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    match pinned(url, theirs) && certificate(url) {
        true => Ok(Wanted {
            url: url.to_owned(),
            kind: DocumentKind::PaypalCertificate,
            key_id: None,
        }),
        false => Err(Refused::KeyLocation),
    }
}

pub(super) fn check_secret(secret: &Secret) -> Result<(), &'static str> {
    let text = secret.expose().trim_ascii();
    match text.iter().all(u8::is_ascii_alphanumeric) {
        true => Ok(()),
        false => Err(
            "isn't the id of a webhook; write the one that PayPal's dashboard shows beside the URL, as `7VD69585CX5120734`",
        ),
    }
}
