//! The ways of known providers, by name: data, and nothing that isn't in a [`Scheme`] or a [`Handshake`].
//!
//! A template fills what a manifest leaves out; the compiler lays the manifest's own fields over it. What each was checked
//! against is in `tests/data/verification` and `docs/verification.md`.

use super::{
    Algorithm, ApiKeyScheme, Audience, BasicScheme, DEFAULT_TOLERANCE_MS, Encoding, Handshake,
    HmacScheme, JwtScheme, Piece, Place, PublicKeyAlgorithm, PublicKeyScheme, Scheme,
    SecretEncoding, SignedTimestamp, StandardWebhooksScheme, TimeUnit, parse_content,
};

/// One provider's way.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    pub name: &'static str,
    /// What to put into the Secret, in the provider's words.
    pub secret: &'static str,
    pub handshake: Option<Handshake>,
    scheme: fn() -> Scheme,
}

impl Template {
    pub fn named(name: &str) -> Option<&'static Template> {
        TEMPLATES.iter().find(|template| template.name == name)
    }

    /// `None`: the manifest must say all of it, as with `custom`.
    pub fn scheme(&self) -> Option<Scheme> {
        (self.name != "custom").then(self.scheme)
    }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

fn hmac(signature: Place, encoding: Encoding, prefix: &str, content: &str) -> HmacScheme {
    HmacScheme {
        algorithm: Algorithm::Sha256,
        signatures: vec![signature],
        encoding,
        prefix: prefix.to_owned(),
        content: parse_content(content).expect("a test makes every template"),
        timestamp: None,
        id: None,
        secret: SecretEncoding::Text,
        twilio: false,
    }
}

/// Hexadecimal in a header, over the body.
fn hex(header: &str, prefix: &str) -> HmacScheme {
    hmac(Place::header(header), Encoding::Hex, prefix, "{body}")
}

/// Base64 in a header, over the body.
fn base64(header: &str, prefix: &str) -> HmacScheme {
    hmac(Place::header(header), Encoding::Base64, prefix, "{body}")
}

fn at(at: Place, unit: TimeUnit, tolerance_ms: u64) -> Option<SignedTimestamp> {
    Some(SignedTimestamp {
        at,
        unit,
        tolerance_ms: Some(tolerance_ms),
    })
}

/// `t=…,v1=…` in one header.
fn pairs(header: &str, time: &str, signature: &str, content: &str) -> Scheme {
    let place = |key| Place::pair(header, key);
    Scheme::Hmac(HmacScheme {
        timestamp: at(place(time), TimeUnit::Seconds, DEFAULT_TOLERANCE_MS),
        ..hmac(place(signature), Encoding::Hex, "", content)
    })
}

fn svix() -> Scheme {
    Scheme::StandardWebhooks(StandardWebhooksScheme {
        tolerance_ms: DEFAULT_TOLERANCE_MS,
        svix: true,
    })
}

fn api_key(header: &str) -> Scheme {
    Scheme::ApiKey(ApiKeyScheme {
        at: Place::header(header),
    })
}

/// All of them, in the order of the documentation: the fifteen of the documents, then the others by name.
pub const TEMPLATES: &[Template] = &[
    Template {
        name: "stripe",
        secret: "the endpoint's signing secret, `whsec_…`",
        handshake: None,
        scheme: || pairs("stripe-signature", "t", "v1", "{timestamp}.{body}"),
    },
    Template {
        name: "shopify",
        secret: "the app's client secret",
        handshake: None,
        scheme: || Scheme::Hmac(base64("x-shopify-hmac-sha256", "")),
    },
    Template {
        name: "github",
        secret: "the webhook's secret",
        handshake: None,
        scheme: || Scheme::Hmac(hex("x-hub-signature-256", "sha256=")),
    },
    Template {
        name: "slack",
        secret: "the app's signing secret",
        handshake: Some(Handshake::Slack),
        scheme: || {
            Scheme::Hmac(HmacScheme {
                timestamp: at(
                    Place::header("x-slack-request-timestamp"),
                    TimeUnit::Seconds,
                    DEFAULT_TOLERANCE_MS,
                ),
                ..hmac(
                    Place::header("x-slack-signature"),
                    Encoding::Hex,
                    "v0=",
                    "v0:{timestamp}:{body}",
                )
            })
        },
    },
    Template {
        name: "twilio",
        secret: "the account's auth token",
        handshake: None,
        scheme: || {
            Scheme::Hmac(HmacScheme {
                algorithm: Algorithm::Sha1,
                twilio: true,
                ..hmac(
                    Place::header("x-twilio-signature"),
                    Encoding::Base64,
                    "",
                    "{url}{form}",
                )
            })
        },
    },
    Template {
        name: "sendgrid",
        secret: "the verification key of the event webhook, a public key in base64",
        handshake: None,
        scheme: || {
            Scheme::PublicKey(PublicKeyScheme {
                algorithm: PublicKeyAlgorithm::EcdsaP256,
                header: "x-twilio-email-event-webhook-signature".to_owned(),
                encoding: Encoding::Base64,
                content: vec![Piece::Timestamp, Piece::Body],
                // SendGrid repeats a batch for a day and doesn't say whether it signs it anew: the time is not judged.
                timestamp: Some(SignedTimestamp {
                    at: Place::header("x-twilio-email-event-webhook-timestamp"),
                    unit: TimeUnit::Seconds,
                    tolerance_ms: None,
                }),
            })
        },
    },
    Template {
        name: "intercom",
        secret: "the app's client secret",
        handshake: None,
        scheme: || {
            Scheme::Hmac(HmacScheme {
                algorithm: Algorithm::Sha1,
                ..hex("x-hub-signature", "sha1=")
            })
        },
    },
    Template {
        name: "linear",
        secret: "the webhook's signing secret",
        handshake: None,
        scheme: || {
            Scheme::Hmac(HmacScheme {
                timestamp: at(
                    Place::Field("/webhookTimestamp".to_owned()),
                    TimeUnit::Milliseconds,
                    MINUTE,
                ),
                ..hex("linear-signature", "")
            })
        },
    },
    Template {
        name: "clerk",
        secret: "the endpoint's signing secret, `whsec_…`",
        handshake: None,
        scheme: svix,
    },
    Template {
        name: "svix",
        secret: "the endpoint's signing secret, `whsec_…`",
        handshake: None,
        scheme: svix,
    },
    Template {
        name: "paddle",
        secret: "the notification destination's secret key, `pdl_ntfset_…`",
        handshake: None,
        scheme: || pairs("paddle-signature", "ts", "h1", "{timestamp}:{body}"),
    },
    Template {
        name: "resend",
        secret: "the webhook's signing secret, `whsec_…`",
        handshake: None,
        scheme: svix,
    },
    Template {
        name: "postmark",
        secret: "`user:password`, as in the webhook's basic auth credentials",
        handshake: None,
        scheme: || Scheme::Basic(BasicScheme::default()),
    },
    Template {
        name: "typeform",
        secret: "the webhook's secret",
        handshake: None,
        scheme: || Scheme::Hmac(base64("typeform-signature", "sha256=")),
    },
    Template {
        name: "custom",
        secret: "as the way beside it says",
        handshake: None,
        // Never asked for: the manifest says all of it.
        scheme: || api_key("authorization"),
    },
    Template {
        name: "adyen",
        secret: "the HMAC key of the standard webhook, in hexadecimal",
        handshake: None,
        scheme: || Scheme::Adyen,
    },
    Template {
        name: "adyen-platform",
        secret: "the HMAC key of the platform or management webhook, in hexadecimal",
        handshake: None,
        scheme: || {
            Scheme::Hmac(HmacScheme {
                secret: SecretEncoding::Hex,
                ..base64("hmacsignature", "")
            })
        },
    },
    Template {
        name: "aws-sns",
        secret: "the topic's ARN: messages of other topics are refused",
        handshake: None,
        scheme: || Scheme::Sns,
    },
    Template {
        name: "bitbucket",
        secret: "the webhook's secret",
        handshake: None,
        scheme: || Scheme::Hmac(hex("x-hub-signature", "sha256=")),
    },
    Template {
        name: "calendly",
        secret: "the signing key of the webhook subscription",
        handshake: None,
        scheme: || {
            pairs(
                "calendly-webhook-signature",
                "t",
                "v1",
                "{timestamp}.{body}",
            )
        },
    },
    Template {
        name: "discord",
        secret: "the application's public key, in hexadecimal",
        handshake: Some(Handshake::Discord),
        scheme: || {
            Scheme::PublicKey(PublicKeyScheme {
                algorithm: PublicKeyAlgorithm::Ed25519,
                header: "x-signature-ed25519".to_owned(),
                encoding: Encoding::Hex,
                content: vec![Piece::Timestamp, Piece::Body],
                timestamp: at(
                    Place::header("x-signature-timestamp"),
                    TimeUnit::Seconds,
                    DEFAULT_TOLERANCE_MS,
                ),
            })
        },
    },
    Template {
        name: "docusign",
        secret: "the HMAC key of the Connect configuration",
        handshake: None,
        scheme: || {
            let mut scheme = base64("x-docusign-signature-1", "");
            // One for each active key of the account, of which the Secret may hold any.
            scheme.signatures = (1..=4)
                .map(|n| Place::Header(format!("x-docusign-signature-{n}")))
                .collect();
            Scheme::Hmac(scheme)
        },
    },
    Template {
        name: "dropbox",
        secret: "the app's secret",
        handshake: Some(Handshake::Dropbox),
        scheme: || Scheme::Hmac(hex("x-dropbox-signature", "")),
    },
    Template {
        name: "gitlab",
        secret: "the webhook's secret token",
        handshake: None,
        scheme: || api_key("x-gitlab-token"),
    },
    Template {
        name: "hubspot",
        secret: "the app's client secret",
        handshake: None,
        scheme: || {
            Scheme::Hmac(HmacScheme {
                timestamp: at(
                    Place::header("x-hubspot-request-timestamp"),
                    TimeUnit::Milliseconds,
                    5 * MINUTE,
                ),
                ..hmac(
                    Place::header("x-hubspot-signature-v3"),
                    Encoding::Base64,
                    "",
                    "{method}{url}{body}{timestamp}",
                )
            })
        },
    },
    Template {
        name: "launchdarkly",
        secret: "the webhook's secret",
        handshake: None,
        scheme: || Scheme::Hmac(hex("x-ld-signature", "")),
    },
    Template {
        name: "mailgun",
        secret: "the account's HTTP webhook signing key",
        handshake: None,
        scheme: || {
            // The body is not a part of what is signed: a signature that was overheard is good for any body, so the time counts.
            Scheme::Hmac(HmacScheme {
                timestamp: at(
                    Place::Field("/signature/timestamp".to_owned()),
                    TimeUnit::Seconds,
                    60 * MINUTE,
                ),
                id: Some(Place::Field("/signature/token".to_owned())),
                content: vec![Piece::Timestamp, Piece::Id],
                ..hmac(
                    Place::Field("/signature/signature".to_owned()),
                    Encoding::Hex,
                    "",
                    "{body}",
                )
            })
        },
    },
    Template {
        name: "meta",
        secret: "the app's secret",
        handshake: Some(Handshake::Meta),
        scheme: || Scheme::Hmac(hex("x-hub-signature-256", "sha256=")),
    },
    Template {
        name: "okta",
        secret: "the value of the event hook's `Authorization` field",
        handshake: Some(Handshake::Okta),
        scheme: || api_key("authorization"),
    },
    Template {
        name: "pagerduty",
        secret: "the signing secret of the V3 webhook subscription",
        handshake: None,
        scheme: || Scheme::Hmac(hex("x-pagerduty-signature", "v1=")),
    },
    Template {
        name: "paypal",
        secret: "the webhook's id, as `7VD69585CX5120734`",
        handshake: None,
        scheme: || Scheme::Paypal,
    },
    Template {
        name: "pubsub",
        secret: "the e-mail address of the service account that the subscription pushes as",
        handshake: None,
        scheme: || {
            Scheme::Jwt(JwtScheme {
                header: "authorization".to_owned(),
                jwks_url: Some("https://www.googleapis.com/oauth2/v3/certs".to_owned()),
                issuers: vec![
                    "https://accounts.google.com".to_owned(),
                    "accounts.google.com".to_owned(),
                ],
                audience: Audience::Url,
                emails: true,
            })
        },
    },
    Template {
        name: "sentry",
        secret: "the integration's client secret",
        handshake: None,
        scheme: || Scheme::Hmac(hex("sentry-hook-signature", "")),
    },
    Template {
        name: "square",
        secret: "the webhook subscription's signature key",
        handshake: None,
        scheme: || {
            Scheme::Hmac(hmac(
                Place::header("x-square-hmacsha256-signature"),
                Encoding::Base64,
                "",
                "{url}{body}",
            ))
        },
    },
    Template {
        name: "twitch",
        secret: "the secret of the EventSub subscription",
        handshake: Some(Handshake::Twitch),
        scheme: || {
            Scheme::Hmac(HmacScheme {
                timestamp: at(
                    Place::header("twitch-eventsub-message-timestamp"),
                    TimeUnit::Rfc3339,
                    10 * MINUTE,
                ),
                id: Some(Place::header("twitch-eventsub-message-id")),
                ..hmac(
                    Place::header("twitch-eventsub-message-signature"),
                    Encoding::Hex,
                    "sha256=",
                    "{id}{timestamp}{body}",
                )
            })
        },
    },
    Template {
        name: "vercel",
        secret: "the webhook's or the integration's secret",
        handshake: None,
        scheme: || {
            Scheme::Hmac(HmacScheme {
                algorithm: Algorithm::Sha1,
                ..hex("x-vercel-signature", "")
            })
        },
    },
    Template {
        name: "whatsapp",
        secret: "the app's secret",
        handshake: Some(Handshake::Meta),
        scheme: || Scheme::Hmac(hex("x-hub-signature-256", "sha256=")),
    },
    Template {
        name: "woocommerce",
        secret: "the webhook's secret",
        handshake: Some(Handshake::WooCommerce),
        scheme: || Scheme::Hmac(base64("x-wc-webhook-signature", "")),
    },
    Template {
        name: "zendesk",
        secret: "the webhook's signing secret",
        handshake: None,
        scheme: || {
            Scheme::Hmac(HmacScheme {
                timestamp: at(
                    Place::header("x-zendesk-webhook-signature-timestamp"),
                    TimeUnit::Rfc3339,
                    60 * MINUTE,
                ),
                ..hmac(
                    Place::header("x-zendesk-webhook-signature"),
                    Encoding::Base64,
                    "",
                    "{timestamp}{body}",
                )
            })
        },
    },
    Template {
        name: "zoom",
        secret: "the app's secret token",
        handshake: Some(Handshake::Zoom),
        scheme: || {
            Scheme::Hmac(HmacScheme {
                timestamp: at(
                    Place::header("x-zm-request-timestamp"),
                    TimeUnit::Seconds,
                    DEFAULT_TOLERANCE_MS,
                ),
                ..hmac(
                    Place::header("x-zm-signature"),
                    Encoding::Hex,
                    "v0=",
                    "v0:{timestamp}:{body}",
                )
            })
        },
    },
];
