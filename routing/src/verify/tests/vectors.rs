//! Requests that the providers' own libraries have signed or accepted: `tests/data/verification`, made by
//! `testground/vectors`. Each is taken as it is, and refused with one byte of it changed.

use super::*;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    template: Option<String>,
    scheme: Option<Scheme>,
    source: String,
    by: String,
    note: Option<String>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    method: String,
    public_url: String,
    target: String,
    headers: Vec<(String, String)>,
    body_base64: String,
    secrets: Vec<String>,
    now: Timestamp,
    /// By URL; what the gateway would fetch.
    #[serde(default)]
    documents: BTreeMap<String, String>,
    /// The time is judged, and this is the most that it may be off.
    tolerance_s: Option<i64>,
    /// Changing any of these refuses the request.
    #[serde(default)]
    signed_headers: Vec<String>,
    #[serde(default)]
    body_unsigned: bool,
    #[serde(default)]
    url_signed: bool,
    #[serde(default)]
    expect: Expected,
}

#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
struct Expected {
    kind: Option<String>,
    body: Option<String>,
    confirm: Option<String>,
    /// A challenge that nobody signs.
    #[serde(default)]
    unsigned: bool,
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/data/verification"
    ))
}

fn files() -> BTreeMap<String, File> {
    let entries = std::fs::read_dir(folder()).expect("the folder is committed");
    let files: BTreeMap<_, _> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("it reads");
            let file = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path.file_stem().expect("a name").to_string_lossy();
            (name.into_owned(), file)
        })
        .collect();
    assert!(files.len() > 40, "{}", files.len());
    files
}

impl File {
    fn verifier(&self, secrets: &[String]) -> Verifier {
        let template = self
            .template
            .as_ref()
            .map(|name| templates::Template::named(name).expect("it is there"));
        let scheme = match template {
            Some(template) => template.scheme().expect("it says all"),
            None => self.scheme.clone().expect("a template or a scheme"),
        };
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        for secret in &secrets {
            assert_eq!(scheme.check_secret(&Secret::new(*secret)), Ok(()));
        }
        let (mut verification, secrets) = verification(scheme, &secrets);
        verification.handshake = template.and_then(|template| template.handshake);
        Verifier::new(&verification, &secrets)
    }
}

impl Vector {
    /// As a gateway does it: what is wanted is fetched first.
    fn judge(&self, verifier: &Verifier) -> Result<Verdict, Refused> {
        let body = BASE64.decode(&self.body_base64).expect("base64");
        self.seen(&body, |event| {
            let document = verifier.wants(event)?.map(|wanted| {
                let text = self.documents.get(&wanted.url).expect("what is wanted");
                Document::parse(wanted.kind, text.as_bytes()).expect("it parses")
            });
            verifier.verify(event, self.now, document.as_ref())
        })
    }

    /// As a gateway does it where a body is too large for memory. `None`: this scheme has to see it whole.
    fn judge_in_pieces(&self, verifier: &Verifier, piece: usize) -> Option<Result<(), Refused>> {
        let body = BASE64.decode(&self.body_base64).expect("base64");
        let begun = self.seen(b"", |event| verifier.begin(event, self.now))?;
        Some(begun.and_then(|begun| match begun {
            Begun::Genuine => Ok(()),
            Begun::Tally(mut tally) => {
                body.chunks(piece).for_each(|piece| tally.update(piece));
                tally.finish()
            }
        }))
    }

    /// The request with this body, as a verifier sees it.
    fn seen<T>(&self, body: &[u8], look: impl FnOnce(&EventView<'_>) -> T) -> T {
        let list: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let map = headers(&list);
        let method: Method = self.method.parse().expect("a method");
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let event = EventView::new(&method, "", query, &map, body, [127, 0, 0, 1].into())
            .called_at(&self.public_url, &self.target);
        look(&event)
    }

    fn expected(&self) -> Verdict {
        match &self.expect {
            Expected {
                confirm: Some(url), ..
            } => Verdict::Confirm(url.clone()),
            Expected { kind: Some(_), .. } => Verdict::Answer(Answer {
                kind: "",
                status: 200,
                content_type: None,
                body: self.expect.body.clone().unwrap_or_default(),
            }),
            _ => Verdict::Genuine,
        }
    }

    fn with_body(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vector {
        let mut body = BASE64.decode(&self.body_base64).expect("base64");
        change(&mut body);
        Vector {
            body_base64: BASE64.encode(body),
            ..self.clone()
        }
    }
}

/// Each vector with its file and a verifier.
fn each(mut check: impl FnMut(&str, &File, &Vector, &Verifier)) {
    for (name, file) in files() {
        assert!(!file.vectors.is_empty(), "{name}");
        for vector in &file.vectors {
            let verifier = file.verifier(&vector.secrets);
            check(
                &format!("{name}: {}", vector.name),
                &file,
                vector,
                &verifier,
            );
        }
    }
}

#[test]
fn every_template_has_requests_and_each_is_taken() {
    let mut with_requests = std::collections::BTreeSet::new();
    each(|name, file, vector, verifier| {
        let verdict = vector.judge(verifier);
        match (&verdict, vector.expected()) {
            (Ok(Verdict::Answer(answer)), Verdict::Answer(expected)) => {
                assert_eq!(answer.body, expected.body, "{name}");
                assert_eq!(Some(answer.kind), vector.expect.kind.as_deref(), "{name}");
            }
            (Ok(verdict), expected) => assert_eq!(*verdict, expected, "{name}"),
            (Err(refused), _) => panic!("{name}: {refused:?}"),
        }
        with_requests.extend(file.template.clone());
    });
    for template in templates::TEMPLATES {
        let has = with_requests.contains(template.name);
        assert!(has || template.name == "custom", "{}", template.name);
    }
}

#[test]
fn a_body_in_pieces_is_judged_as_a_whole_one() {
    let mut schemes = std::collections::BTreeSet::new();
    each(|name, file, vector, verifier| {
        if vector.expected() != Verdict::Genuine {
            return;
        }
        for piece in [1, 7, 1 << 20] {
            let Some(judged) = vector.judge_in_pieces(verifier, piece) else {
                return;
            };
            assert_eq!(judged, Ok(()), "{name}: pieces of {piece}");
            if vector.body_unsigned {
                continue;
            }
            for changed in [
                vector.with_body(|body| *body.last_mut().expect("a body") ^= 1),
                vector.with_body(|body| body.push(b' ')),
                vector.with_body(Vec::clear),
            ] {
                let judged = changed.judge_in_pieces(verifier, piece);
                assert_eq!(judged, Some(Err(Refused::SignatureMismatch)), "{name}");
            }
        }
        schemes.extend(file.template.clone());
    });
    for wanted in ["github", "stripe", "slack", "shopify", "svix"] {
        assert!(
            schemes.contains(wanted),
            "{wanted} is not among {schemes:?}"
        );
    }
}

#[test]
fn what_has_to_be_read_out_of_a_body_is_not_judged_in_pieces() {
    let map = headers(&[("x-signature", "00")]);
    let event = EventView::new(&Method::POST, "", "", &map, b"", [127, 0, 0, 1].into());
    for change in [
        |scheme: &mut HmacScheme| scheme.signatures = vec![Place::Field("/signature".into())],
        |scheme: &mut HmacScheme| scheme.id = Some(Place::Field("/id".into())),
        |scheme: &mut HmacScheme| scheme.content = vec![Piece::Form],
        |scheme: &mut HmacScheme| scheme.content = vec![Piece::Body, Piece::Body],
        |scheme: &mut HmacScheme| scheme.content = vec![Piece::Url],
        |scheme: &mut HmacScheme| scheme.twilio = true,
    ] {
        let mut scheme = scheme();
        change(&mut scheme);
        let verifier = verifier(Scheme::Hmac(scheme), &["secret"]);
        assert!(verifier.begin(&event, at(0)).is_none());
    }
}

#[test]
fn a_changed_body_is_refused_where_the_body_is_signed() {
    let mut checked = 0;
    each(|name, _, vector, verifier| {
        if vector.body_unsigned || vector.expect.unsigned {
            return;
        }
        for place in [0, 1, 2] {
            let changed = vector.with_body(|body| match place {
                0 => body[0] ^= 1,
                1 => *body.last_mut().expect("a body") ^= 1,
                _ => body.push(b' '),
            });
            assert!(changed.judge(verifier).is_err(), "{name}: {place}");
            checked += 1;
        }
    });
    assert!(checked > 100, "{checked}");
}

#[test]
fn a_changed_field_of_a_body_is_refused_where_fields_are_signed() {
    let files = files();
    for (name, from, to) in [
        ("adyen", "\"value\":1137", "\"value\":1138"),
        ("adyen", "\"success\":\"true\"", "\"success\":\"false\""),
        ("aws-sns", "Hello world!", "Hello World!"),
        ("aws-sns", "\"Subject\":\"My", "\"Subject\":\"No"),
        ("mailgun", "\"token\":\"a8", "\"token\":\"a9"),
    ] {
        let file = &files[name];
        let vector = &file.vectors[0];
        let changed = vector.with_body(|body| {
            let text = String::from_utf8(body.clone()).expect("text");
            assert!(text.contains(from), "{name}: {from}");
            *body = text.replacen(from, to, 1).into_bytes();
        });
        let refused = changed.judge(&file.verifier(&vector.secrets));
        assert_eq!(refused, Err(Refused::SignatureMismatch), "{name}: {to}");
    }
    // The second item alone is forged.
    let two = &files["adyen"].vectors[1];
    let forged = two.with_body(|body| {
        let text = String::from_utf8(body.clone()).expect("text");
        *body = text
            .replace("\"value\":1132", "\"value\":9999")
            .into_bytes();
    });
    let refused = forged.judge(&files["adyen"].verifier(&two.secrets));
    assert_eq!(refused, Err(Refused::SignatureMismatch));
}

#[test]
fn a_changed_or_missing_header_is_refused_where_it_is_signed() {
    let mut checked = 0;
    each(|name, _, vector, verifier| {
        for header in &vector.signed_headers {
            let mut changed = vector.clone();
            for (own, value) in &mut changed.headers {
                if own == header {
                    let last = value.pop().expect("a value");
                    // Not the last character of base64, of which some bits are padding.
                    let before = value.pop().unwrap_or('x');
                    value.push(if before == '1' { '2' } else { '1' });
                    value.push(last);
                }
            }
            assert!(changed.judge(verifier).is_err(), "{name}: {header} changed");
            changed.headers.retain(|(own, _)| own != header);
            assert!(changed.judge(verifier).is_err(), "{name}: no {header}");
            checked += 1;
        }
    });
    assert!(checked > 40, "{checked}");
}

#[test]
fn another_secret_is_refused() {
    each(|name, file, vector, _| {
        if vector.expect.unsigned || vector.secrets.is_empty() {
            return;
        }
        let other: Vec<String> = vector
            .secrets
            .iter()
            .map(|secret| match secret.as_str() {
                pem if pem.starts_with("-----") => pem.to_owned(),
                jwks if jwks.starts_with('{') => json!({"keys": [{
                    "kty": "OKP", "crv": "Ed25519", "x": "snsoFCuzzd6pjsLmHxvl6hPwbyy_mcTim4orW9_uyrE"
                }]})
                .to_string(),
                // In its middle, where it stays what it is: hexadecimal, base64, an ARN, a key in its wrapping.
                text => {
                    let mut bytes = text.as_bytes().to_vec();
                    let middle = bytes.len() * 3 / 4;
                    bytes[middle] = if bytes[middle] == b'1' { b'2' } else { b'1' };
                    String::from_utf8(bytes).expect("text")
                }
            })
            .collect();
        if other == vector.secrets {
            return;
        }
        let verifier = file.verifier(&other);
        assert!(vector.judge(&verifier).is_err(), "{name}: {other:?}");
    });
}

#[test]
fn a_time_beyond_the_tolerance_is_refused_and_one_at_it_is_not() {
    let mut checked = 0;
    each(|name, _, vector, verifier| {
        let Some(tolerance) = vector.tolerance_s else {
            return;
        };
        let at = |seconds: i64| {
            let now = vector.now.as_second() + seconds;
            let vector = Vector {
                now: Timestamp::from_second(now).expect("a time"),
                ..vector.clone()
            };
            vector.judge(verifier)
        };
        for sign in [1, -1] {
            assert!(at(sign * tolerance).is_ok(), "{name}: {sign}");
            let refused = at(sign * (tolerance + 1));
            assert_eq!(refused, Err(Refused::TimestampOutsideTolerance), "{name}");
        }
        checked += 1;
    });
    assert!(checked > 15, "{checked}");
}

#[test]
fn another_url_is_refused_where_it_is_signed() {
    let mut checked = 0;
    each(|name, _, vector, verifier| {
        if !vector.url_signed {
            return;
        }
        let moved = Vector {
            target: vector.target.replacen("orders", "others", 1),
            ..vector.clone()
        };
        assert!(moved.judge(verifier).is_err(), "{name}");
        checked += 1;
    });
    assert!(checked > 6, "{checked}");
}

/// `docs/verification.md` has a row for each template, made of the template itself and of where its vectors come from.
#[test]
fn the_documentation_says_what_each_template_does_and_who_judged_it() {
    let files = files();
    let mut table = String::from(
        "| template | signature in | what is signed | secret to paste | handshake | checked against |\n|---|---|---|---|---|---|\n",
    );
    for template in templates::TEMPLATES.iter().filter(|t| t.name != "custom") {
        let file = files
            .values()
            .find(|file| file.template.as_deref() == Some(template.name))
            .expect(template.name);
        let (place, content) = described(&template.scheme().expect(template.name));
        let judged = match file.source.as_str() {
            "made" => format!("signatures made by {}", file.by),
            "accepted" => format!("requests accepted by {}", file.by),
            "example" => format!("an example of {}", file.by),
            "ours" => "nobody's: our reading of the provider's documentation".to_owned(),
            other => panic!("{other}"),
        };
        let note = file
            .note
            .as_ref()
            .map(|note| format!(". {note}"))
            .unwrap_or_default();
        let handshake = template.handshake.map_or("none", Handshake::describe);
        let handshake = match template.name {
            "aws-sns" => "`SubscriptionConfirmation`",
            _ => handshake,
        };
        table.push_str(&format!(
            "| `{}` | {place} | {content} | {} | {handshake} | {judged}{note} |\n",
            template.name, template.secret
        ));
    }
    let path = folder().join("../../../docs/verification.md");
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let (begin, end) = ("<!-- templates -->\n", "<!-- end of templates -->");
    let (before, rest) = page.split_once(begin).expect("where the table begins");
    let (now, after) = rest.split_once(end).expect("where it ends");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}{end}{after}")).expect("it writes");
        return;
    }
    assert_eq!(now, table, "run with UPDATE_EXPECT=1");
}

fn described(scheme: &Scheme) -> (String, String) {
    let content = |pieces: &[Piece]| {
        let text: String = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.clone(),
                Piece::Timestamp => "{timestamp}".to_owned(),
                Piece::Id => "{id}".to_owned(),
                Piece::Body => "{body}".to_owned(),
                Piece::Url => "{url}".to_owned(),
                Piece::Method => "{method}".to_owned(),
                Piece::Path => "{path}".to_owned(),
                Piece::Form => "{form}".to_owned(),
            })
            .collect();
        format!("`{text}`")
    };
    let tolerance = |timestamp: Option<&SignedTimestamp>| match timestamp {
        Some(SignedTimestamp {
            at,
            tolerance_ms: Some(ms),
            ..
        }) => {
            format!(", time in {} within {} min", at.describe(), ms / 60_000)
        }
        Some(SignedTimestamp { at, .. }) => format!(", time in {}, not judged", at.describe()),
        None => String::new(),
    };
    match scheme {
        Scheme::Hmac(hmac) => {
            let algorithm = match hmac.algorithm {
                Algorithm::Sha1 => "SHA-1",
                Algorithm::Sha256 => "SHA-256",
                Algorithm::Sha512 => "SHA-512",
            };
            let place = match hmac.signatures.as_slice() {
                [one] => one.describe(),
                many => format!("{} to `-{}`", many[0].describe(), many.len()),
            };
            (
                place,
                format!(
                    "HMAC {algorithm} of {}{}",
                    content(&hmac.content),
                    tolerance(hmac.timestamp.as_ref())
                ),
            )
        }
        Scheme::StandardWebhooks(standard) => (
            (if standard.svix {
                "`svix-signature` or `webhook-signature`"
            } else {
                "`webhook-signature`"
            })
            .to_owned(),
            "HMAC SHA-256 of `{id}.{timestamp}.{body}` within 5 min".to_owned(),
        ),
        Scheme::PublicKey(key) => (
            format!("`{}`", key.header),
            format!(
                "{} of {}{}",
                match key.algorithm {
                    PublicKeyAlgorithm::Ed25519 => "Ed25519",
                    PublicKeyAlgorithm::EcdsaP256 => "ECDSA P-256",
                },
                content(&key.content),
                tolerance(key.timestamp.as_ref())
            ),
        ),
        Scheme::Basic(_) => (
            "`authorization`".to_owned(),
            "nothing: basic authentication".to_owned(),
        ),
        Scheme::ApiKey(key) => (key.at.describe(), "nothing: a token".to_owned()),
        Scheme::Jwt(_) => (
            "`authorization`".to_owned(),
            "a JWT by Google for this URL and this account".to_owned(),
        ),
        Scheme::Adyen => (
            "each item of the body".to_owned(),
            "HMAC SHA-256 of eight fields of the item".to_owned(),
        ),
        Scheme::Sns => (
            "the body".to_owned(),
            "RSA of six or seven fields of the body".to_owned(),
        ),
        Scheme::Paypal => (
            "`paypal-transmission-sig`".to_owned(),
            "RSA of transmission id, time, webhook id and the body's CRC-32".to_owned(),
        ),
    }
}
