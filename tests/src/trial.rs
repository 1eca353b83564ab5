//! Trials: what a folder of `examples/` promises, tried on a running `hookstream dev`.
//!
//! A trial is a YAML file in `tests/data/trials/`, named as its folder. The folder runs as it stands, except that
//! `127.0.0.1:9900`, where the examples' destinations are, becomes the address of a receiver of ours. A step sends one
//! request and says what its sender gets and what arrives at which destination. At the end nothing may have arrived that
//! no step named, so a delivery that should have been filtered fails the trial.
//!
//! ```yaml
//! dev: [--public-url, "https://x"]  # flags of `hookstream dev`; `{example}` stands for the folder
//! answers: {ci: [500, 200]}         # what destinations answer, in turn; the last one stays. Default: 200
//! steps:
//! - name: a push goes to CI         # what is shown when it fails
//!   request:
//!     method: POST                  # default
//!     path: /v1/ingest/github       # with the query
//!     headers: {x-github-event: push}
//!     body: '{"a": 1}'              # text, sent as it stands; anything else is sent as JSON. Default: empty
//!     body_bytes: 300000            # in the body's place: so many, of JSON
//!     repeat: 2                     # so many times. Default: 1
//!   sign:                           # a keyed hash in a header, made as the request is sent
//!     secret: It's a Secret
//!     whsec: true                   # the key is the base64 behind `whsec_`. Default: the secret's text
//!     header: X-Hub-Signature-256
//!     prefix: sha256=               # `{timestamp}` stands for the time, in seconds. Default: nothing
//!     content: "{body}"             # may hold {timestamp} and {id}. Default: {body}
//!     id: msg_1
//!     timestamp_header: X-Timestamp
//!     encoding: hex                 # or base64
//!   expect:
//!     status: 200                   # of every repetition
//!     headers: {content-type: application/json}
//!     body_contains: event_id       # a text or a list of them
//!     delivered:                    # in any order; each names one request that arrives
//!     - {destination: ci, method: POST, path: /hooks, body: '{"a": 1}', body_bytes: 8, body_contains: a, headers: {x: y}}
//!     printed: blocked              # what is in a line of `hookstream dev`: a text or a list of them
//! ```

use crate::{
    process::{Process, binary},
    receiver::{Received, Receiver},
    sender::{Answer, Sender},
};
use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::process::Command;

/// Of any wait: a start makes a database, on two cores that are busy.
const BOUND: Duration = Duration::from_secs(60);

/// Where the examples' destinations are.
const RECEIVER: &str = "127.0.0.1:9900";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    #[serde(default)]
    dev: Vec<String>,
    #[serde(default)]
    answers: HashMap<String, Vec<u16>>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    request: Request,
    sign: Option<Sign>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: Option<String>,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    body_bytes: Option<usize>,
    #[serde(default = "once")]
    repeat: usize,
}

/// JSON of this size, 20 bytes at least, no part of which is like another.
fn large(bytes: usize) -> String {
    use std::fmt::Write;
    let mut body = "{\"large\":\"".to_owned();
    let mut n = 0;
    while body.len() + 2 < bytes {
        n += 1;
        let _ = write!(body, "{n} ");
    }
    body.truncate(bytes.saturating_sub(2));
    body.push_str("\"}");
    body
}

fn once() -> usize {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sign {
    secret: String,
    #[serde(default)]
    whsec: bool,
    header: String,
    #[serde(default)]
    prefix: String,
    #[serde(default = "body_alone")]
    content: String,
    #[serde(default)]
    id: String,
    timestamp_header: Option<String>,
    #[serde(default)]
    encoding: Encoding,
}

fn body_alone() -> String {
    "{body}".to_owned()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Hex,
    Base64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body_contains: Texts,
    #[serde(default)]
    delivered: Vec<Delivered>,
    #[serde(default)]
    printed: Texts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delivered {
    destination: String,
    method: Option<String>,
    path: Option<String>,
    body: Option<Value>,
    /// The whole body of a request that had so many.
    body_bytes: Option<usize>,
    #[serde(default)]
    body_contains: Texts,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Texts {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn all(&self) -> &[String] {
        match self {
            Texts::None => &[],
            Texts::One(one) => std::slice::from_ref(one),
            Texts::Many(many) => many,
        }
    }

    fn missing<'t>(&'t self, text: &str) -> Option<&'t str> {
        let texts = self.all().iter().map(String::as_str);
        texts.into_iter().find(|one| !text.contains(*one))
    }
}

/// Where the repository is.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the repository")
        .to_owned()
}

/// Runs the trial of `examples/<name>`.
pub async fn run(name: &str) -> Result<()> {
    let file = root()
        .join("tests/data/trials")
        .join(format!("{name}.yaml"));
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    // By way of JSON, as manifests are: YAML's own tags have no place here.
    let trial: Value = serde_yaml::from_str(&text).with_context(|| file.display().to_string())?;
    let trial: Trial = serde_json::from_value(trial).with_context(|| file.display().to_string())?;
    ensure!(!trial.steps.is_empty(), "{} has no steps", file.display());

    let example = root().join("examples").join(name);
    let place = Place::new(&example)?;
    let receiver = Arc::new(place.receiver(&trial).await?);
    place.write(&receiver.address.to_string())?;
    let shown = example.display().to_string();
    let flags = trial
        .dev
        .iter()
        .map(|flag| flag.replace("{example}", &shown));
    let (dev, url) = place.start(flags).await?;
    let mut seen = Arrivals::new(&place, &receiver);
    for step in &trial.steps {
        let run = async {
            step.run(&url, &mut seen).await?;
            for text in step.expect.printed.all() {
                dev.line(BOUND, |line| line.contains(text)).await?;
            }
            anyhow::Ok(())
        };
        run.await.with_context(|| format!("`{}`", step.name))?;
    }
    seen.nothing_else()
}

impl Step {
    async fn run(&self, url: &str, seen: &mut Arrivals<'_>) -> Result<()> {
        for _ in 0..self.request.repeat {
            let answer = self.send(url).await?;
            self.judge(&answer)?;
        }
        for wanted in &self.expect.delivered {
            seen.take(wanted).await?;
        }
        Ok(())
    }

    async fn send(&self, url: &str) -> Result<Answer> {
        let request = &self.request;
        let body = match &request.body {
            Value::Null => request.body_bytes.map(large).unwrap_or_default(),
            Value::String(text) => text.clone(),
            other => serde_json::to_string(other)?,
        };
        let mut headers = request.headers.clone();
        if let Some(sign) = &self.sign {
            headers.extend(sign.headers(&body)?);
        }
        let method = request.method.as_deref().unwrap_or("POST");
        Sender::default()
            .send(
                Method::from_bytes(method.as_bytes())?,
                &format!("{url}{}", request.path),
                &headers,
                body,
            )
            .await
    }

    fn judge(&self, answer: &Answer) -> Result<()> {
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(
            answer.status == self.expect.status,
            "answered {} {body}, not {}",
            answer.status,
            self.expect.status
        );
        for (name, value) in &self.expect.headers {
            let have = answer
                .headers
                .get(name)
                .map(|have| have.to_str())
                .transpose()?;
            ensure!(have == Some(value), "the answer's `{name}` is {have:?}");
        }
        match self.expect.body_contains.missing(&body) {
            Some(missing) => bail!("the answer has no `{missing}`: {body}"),
            None => Ok(()),
        }
    }
}

impl Sign {
    fn headers(&self, body: &str) -> Result<Vec<(String, String)>> {
        let timestamp = service::clock::now().as_second().to_string();
        let fill = |text: &str| {
            text.replace("{timestamp}", &timestamp)
                .replace("{id}", &self.id)
                .replace("{body}", body)
        };
        let key = match self.whsec {
            true => BASE64_STANDARD.decode(self.secret.trim_start_matches("whsec_"))?,
            false => self.secret.clone().into_bytes(),
        };
        let mut hmac = Hmac::<Sha256>::new_from_slice(&key)?;
        hmac.update(fill(&self.content).as_bytes());
        let tag = hmac.finalize().into_bytes();
        let tag = match self.encoding {
            Encoding::Hex => hex::encode(tag),
            Encoding::Base64 => BASE64_STANDARD.encode(tag),
        };
        let mut headers = vec![(self.header.clone(), fill(&self.prefix) + &tag)];
        if let Some(name) = &self.timestamp_header {
            headers.push((name.clone(), timestamp));
        }
        Ok(headers)
    }
}

/// The example's folder with another receiver, and a home for the process.
struct Place {
    root: tempfile::TempDir,
    /// Names and contents.
    files: Vec<(String, String)>,
    /// The paths of the destinations' URLs, by name.
    destinations: HashMap<String, String>,
}

impl Place {
    fn new(folder: &Path) -> Result<Place> {
        let mut files = Vec::new();
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.ends_with(".yaml") {
                files.push((name.to_owned(), fs::read_to_string(&path)?));
            }
        }
        ensure!(!files.is_empty(), "{} has no manifests", folder.display());
        let mut destinations = HashMap::new();
        for (_, text) in &files {
            for document in serde_yaml::Deserializer::from_str(text) {
                let object = Value::deserialize(document)?;
                let url = object.pointer("/spec/http/url").and_then(Value::as_str);
                let name = object.pointer("/metadata/name").and_then(Value::as_str);
                let path = url
                    .and_then(|url| url.split_once(RECEIVER))
                    .map(|(_, path)| path);
                if let (Some(name), Some(path)) = (name, path) {
                    let fixed = path.split(['{', '?']).next().unwrap_or_default();
                    destinations.insert(name.to_owned(), fixed.to_owned());
                }
            }
        }
        let root = tempfile::tempdir()?;
        for folder in ["", "manifests", "home", "tmp"] {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder)?;
            // Postgres doesn't run as root.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        }
        Ok(Place {
            root,
            files,
            destinations,
        })
    }

    async fn receiver(&self, trial: &Trial) -> Result<Receiver> {
        let mut answers = HashMap::new();
        for (name, statuses) in &trial.answers {
            let statuses = statuses.iter().map(|status| StatusCode::from_u16(*status));
            let statuses = statuses.collect::<Result<Vec<_>, _>>()?;
            answers.insert(self.path(name)?.to_owned(), (0, statuses));
        }
        let answers = Mutex::new(answers);
        Receiver::answering(move |received, _| {
            let mut answers = answers.lock().expect("no holder panics");
            let known = answers
                .iter_mut()
                .find(|(path, _)| received.path.starts_with(*path));
            let Some((_, (next, statuses))) = known else {
                return StatusCode::OK;
            };
            let status = statuses.get(*next).or(statuses.last()).copied();
            *next += 1;
            status.unwrap_or(StatusCode::OK)
        })
        .await
    }

    fn path(&self, destination: &str) -> Result<&str> {
        let path = self.destinations.get(destination);
        path.map(String::as_str).with_context(|| {
            format!("the example has no destination `{destination}` at {RECEIVER}")
        })
    }

    fn write(&self, receiver: &str) -> Result<()> {
        for (name, text) in &self.files {
            let path = self.root.path().join("manifests").join(name);
            fs::write(path, text.replace(RECEIVER, receiver))?;
        }
        Ok(())
    }

    /// Starts `hookstream dev` and waits until it is ready; gives its URL.
    async fn start(&self, flags: impl Iterator<Item = String>) -> Result<(Process, String)> {
        let mut command = Command::new(binary("hookstream"));
        for name in [
            "DATABASE_URL",
            "XDG_DATA_HOME",
            "HOOKSTREAM_KEYRING",
            "HOOKSTREAM_LISTEN",
            "HOOKSTREAM_LOG",
        ] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.root.path().join("home"))
            .env("TMPDIR", self.root.path().join("tmp"))
            .args([
                "dev",
                "--ephemeral",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .args(flags)
            .arg(self.root.path().join("manifests"));
        let dev = Process::spawn(&mut command, "hookstream dev")?;
        let ready = dev.line(BOUND, |line| line.starts_with("ready: ")).await?;
        let url = ready.trim_start_matches("ready: ").to_owned();
        Ok((dev, url))
    }
}

/// What arrived, and which of it a step has named.
struct Arrivals<'t> {
    place: &'t Place,
    receiver: &'t Receiver,
    named: Vec<bool>,
}

impl<'t> Arrivals<'t> {
    fn new(place: &'t Place, receiver: &'t Receiver) -> Arrivals<'t> {
        Arrivals {
            place,
            receiver,
            named: Vec::new(),
        }
    }

    /// Waits for a request that fits and that no step has named yet.
    async fn take(&mut self, wanted: &Delivered) -> Result<()> {
        let path = self.place.path(&wanted.destination)?;
        let mut count = 0;
        loop {
            let received = self.receiver.received();
            self.named.resize(received.len(), false);
            let found = received
                .iter()
                .zip(&self.named)
                .position(|(received, named)| {
                    !named && received.path.starts_with(path) && wanted.problem(received).is_none()
                });
            if let Some(found) = found {
                self.named[found] = true;
                return Ok(());
            }
            count = received.len().max(count) + 1;
            if self.receiver.until(count, BOUND).await.is_err() {
                let rest = received
                    .iter()
                    .zip(&self.named)
                    .filter(|(_, named)| !**named);
                let rest: Vec<_> = rest
                    .map(|(received, _)| {
                        format!("{}: {:?}", shown(received), wanted.problem(received))
                    })
                    .collect();
                bail!("{wanted:?} did not arrive; there are {rest:#?}");
            }
        }
    }

    fn nothing_else(&mut self) -> Result<()> {
        let received = self.receiver.received();
        self.named.resize(received.len(), false);
        let rest = received
            .iter()
            .zip(&self.named)
            .filter(|(_, named)| !**named);
        let rest: Vec<_> = rest.map(|(received, _)| shown(received)).collect();
        ensure!(
            rest.is_empty(),
            "this arrived, and no step names it: {rest:#?}"
        );
        Ok(())
    }
}

impl Delivered {
    /// Why this is another request.
    fn problem(&self, received: &Received) -> Option<String> {
        let body = String::from_utf8_lossy(&received.body);
        if self
            .method
            .as_ref()
            .is_some_and(|method| *method != received.method.as_str())
        {
            return Some(format!("the method is {}", received.method));
        }
        if self
            .path
            .as_ref()
            .is_some_and(|path| *path != received.path)
        {
            return Some(format!("the path is {}", received.path));
        }
        let same = match &self.body {
            None => true,
            Some(Value::String(text)) => *text == body,
            Some(json) => serde_json::from_str::<Value>(&body).is_ok_and(|body| body == *json),
        };
        let same = same && self.body_bytes.is_none_or(|bytes| body == large(bytes));
        if !same {
            return Some("the body is another".to_owned());
        }
        if let Some(missing) = self.body_contains.missing(&body) {
            return Some(format!("the body has no `{missing}`"));
        }
        let wrong = self.headers.iter().find(|(name, value)| {
            received
                .headers
                .get(*name)
                .is_none_or(|have| have.as_bytes() != value.as_bytes())
        });
        wrong.map(|(name, _)| format!("`{name}` is {:?}", received.headers.get(name)))
    }
}

fn shown(received: &Received) -> String {
    format!(
        "{} {} {}",
        received.method,
        received.path,
        String::from_utf8_lossy(&received.body)
    )
}
