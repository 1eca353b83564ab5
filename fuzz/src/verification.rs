//! A signed request of any provider, against the keys of the vectors (`tests/data/verification`). The first line of a seed
//! names the vector's file, the method and the target.

use crate::request::Request;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use routing::{
    EventView,
    row::SecretIndex,
    secret::Secret,
    verify::{
        Begun, Document, Refused, Scheme, Verdict, Verification, Verifier, templates::Template,
    },
};
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path, sync::LazyLock};

#[derive(Deserialize)]
struct File {
    template: Option<String>,
    scheme: Option<Scheme>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    method: String,
    public_url: String,
    target: String,
    headers: Vec<(String, String)>,
    body_base64: String,
    secrets: Vec<String>,
    now: Timestamp,
    #[serde(default)]
    documents: BTreeMap<String, String>,
}

struct Keys {
    verifier: Verifier,
    public_url: String,
    now: Timestamp,
    documents: BTreeMap<String, String>,
    /// Of the vector, which verifies.
    seed: Vec<u8>,
}

static KEYS: LazyLock<BTreeMap<String, Keys>> = LazyLock::new(|| {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/data/verification"
    ));
    let mut keys = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the folder is committed") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("it reads");
        let file: File = serde_json::from_str(&text).expect("a file of vectors");
        let stem = path.file_stem().expect("a name").to_string_lossy();
        for (number, vector) in file.vectors.iter().enumerate() {
            let name = format!("{stem}-{number}");
            keys.insert(name.clone(), Keys::new(&name, &file, vector));
        }
    }
    keys
});

impl Keys {
    fn new(name: &str, file: &File, vector: &Vector) -> Keys {
        let template = file.template.as_deref().and_then(Template::named);
        let scheme = template
            .and_then(Template::scheme)
            .or_else(|| file.scheme.clone())
            .expect("a template or a scheme");
        let secrets: Vec<Secret> = vector.secrets.iter().map(|s| Secret::new(&**s)).collect();
        let verification = Verification {
            scheme,
            secrets: (0..).take(secrets.len()).map(SecretIndex).collect(),
            handshake: template.and_then(|template| template.handshake),
            verify_token: None,
        };
        let mut seed = format!("{name} {} {}\n", vector.method, vector.target).into_bytes();
        for (name, value) in &vector.headers {
            seed.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
        seed.push(b'\n');
        let body = BASE64_STANDARD.decode(&vector.body_base64);
        seed.extend_from_slice(&body.expect("a body in base64"));
        Keys {
            verifier: Verifier::new(&verification, &secrets),
            public_url: vector.public_url.clone(),
            now: vector.now,
            documents: vector.documents.clone(),
            seed,
        }
    }
}

/// The vectors as inputs, so that there is one for every provider from the beginning.
pub fn seeds() -> Vec<Vec<u8>> {
    KEYS.values().map(|keys| keys.seed.clone()).collect()
}

pub fn run(data: &[u8]) {
    let request = Request::read(data);
    let Some(keys) = request.line.first().and_then(|name| KEYS.get(*name)) else {
        return;
    };
    let verdict = judge(keys, &request);
    // A body in pieces is judged as a whole one; handshakes are none.
    if let Some(in_pieces) = judge_in_pieces(keys, &request) {
        let same = match &verdict {
            Ok(Verdict::Genuine) => in_pieces.is_ok(),
            Ok(_) | Err(Refused::ChallengeRefused) => true,
            Err(_) => in_pieces.is_err(),
        };
        assert!(same, "{verdict:?} as a whole, {in_pieces:?} in pieces");
    }
    // Whoever knows no secret can't turn a request that nobody signed into a genuine one.
    if let Ok(Verdict::Genuine) = verdict {
        let mut unsigned = Request::read(data);
        let names: Vec<HeaderName> = unsigned.headers.keys().cloned().collect();
        for name in names {
            unsigned.headers.insert(name, HeaderValue::from_static(""));
        }
        unsigned.body = b"";
        let verdict = judge(keys, &unsigned);
        assert!(!matches!(verdict, Ok(Verdict::Genuine)), "nothing is proof");
    }
}

fn judge(keys: &Keys, request: &Request<'_>) -> Result<Verdict, Refused> {
    let method = method(request);
    let event = view(keys, request, &method, request.body);
    let document = keys.verifier.wants(&event)?.and_then(|wanted| {
        let text = keys.documents.get(&wanted.url)?;
        Document::parse(wanted.kind, text.as_bytes()).ok()
    });
    keys.verifier.verify(&event, keys.now, document.as_ref())
}

fn judge_in_pieces(keys: &Keys, request: &Request<'_>) -> Option<Result<(), Refused>> {
    let method = method(request);
    let event = view(keys, request, &method, b"");
    let judged = match keys.verifier.begin(&event, keys.now)? {
        Ok(Begun::Genuine) => Ok(()),
        Ok(Begun::Tally(mut tally)) => {
            request.body.chunks(7).for_each(|piece| tally.update(piece));
            tally.finish()
        }
        Err(refused) => Err(refused),
    };
    Some(judged)
}

fn method(request: &Request<'_>) -> Method {
    let method = request.line.get(1).and_then(|word| word.parse().ok());
    method.unwrap_or(Method::POST)
}

fn view<'v>(
    keys: &'v Keys,
    request: &'v Request<'_>,
    method: &'v Method,
    body: &'v [u8],
) -> EventView<'v> {
    let target = request.line.get(2).copied().unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    EventView::new(
        method,
        "",
        query,
        &request.headers,
        body,
        [127, 0, 0, 1].into(),
    )
    .called_at(&keys.public_url, target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_are_seeds_that_verify_as_they_stand() {
        let mut genuine = 0;
        for seed in seeds() {
            let request = Request::read(&seed);
            let keys = &KEYS[request.line[0]];
            genuine += usize::from(judge(keys, &request).is_ok());
        }
        assert!(genuine >= 40, "{genuine} of {}", seeds().len());
    }
}
