//! Which object store a URL means.
//!
//! `s3://bucket/path`, `gs://bucket/path`, `az://container/path` and `file:///folder`. Whatever else the store needs (the
//! region, an endpoint, credentials) comes from the environment, by the names that the store's own tools use, and from
//! where a pod gets its identity.

use super::transport::Transport;
use object_store::{
    ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, local::LocalFileSystem, path::Path,
};
use std::{
    fmt, fs::DirBuilder, io, os::unix::fs::DirBuilderExt, str::FromStr, sync::Arc, time::Duration,
};

/// The threshold when nobody says otherwise: Postgres keeps smaller bodies well, and an object costs a round trip.
pub const DEFAULT_THRESHOLD: usize = 256 << 10;

/// Tries of one request beyond the first, within [`RETRYING`]: a sender waits for them.
const RETRIES: usize = 3;
const RETRYING: Duration = Duration::from_secs(10);

/// Where bodies go, and which ones. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The URL's path.
    pub(super) prefix: Path,
    /// Bodies with more bytes than this go there.
    pub(super) threshold: usize,
}

/// Shorter values are no secrets.
const SECRET: usize = 8;

/// What is wrong with `--object-store`. Holds no credentials.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPlace {
    #[error(
        "`{0}` is no URL of an object store; write s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or file:///FOLDER"
    )]
    Scheme(String),
    #[error("`{0}` has a path that no object may have")]
    Path(String),
    #[error("the folder {0} can't be used")]
    Folder(String, #[source] io::Error),
    #[error("what the store needs is missing or wrong: {0}")]
    Store(String),
}

impl Place {
    /// Looks at the URL and the environment's variables, and reaches for nothing but a folder.
    pub fn parse(
        url: &str,
        threshold: usize,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Place, InvalidPlace> {
        let wrong = || InvalidPlace::Scheme(shown(url));
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        if scheme == "file" {
            return match rest.starts_with('/') {
                true => Place::folder(rest.as_ref(), threshold),
                false => Err(wrong()),
            };
        }
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || bucket.contains(['@', '?', '#']) || path.contains(['?', '#']) {
            return Err(wrong());
        }
        let prefix = Path::from_url_path(path.trim_end_matches('/'))
            .map_err(|_| InvalidPlace::Path(shown(url)))?;
        let (transport, retry) = (
            Transport::new(),
            RetryConfig {
                max_retries: RETRIES,
                retry_timeout: RETRYING,
                ..RetryConfig::default()
            },
        );
        let variables = Variables::of(variables);
        // Three builders with the same methods and no trait for them.
        macro_rules! build {
            ($builder:ident, $variables:literal, $with_bucket:ident) => {
                variables
                    .known($variables)
                    .fold($builder::new(), |builder, (key, value)| {
                        builder.with_config(key, value)
                    })
                    .$with_bucket(bucket)
                    .with_retry(retry)
                    .with_http_connector(transport)
                    .build()
                    .map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            };
        }
        let store = match scheme {
            "s3" => build!(AmazonS3Builder, "aws_", with_bucket_name),
            "gs" => build!(GoogleCloudStorageBuilder, "google_", with_bucket_name),
            "az" => build!(MicrosoftAzureBuilder, "azure_", with_container_name),
            _ => return Err(wrong()),
        };
        let store = store.map_err(|error| variables.missing_or_wrong(&error))?;
        Ok(Place {
            store,
            prefix,
            threshold,
        })
    }

    /// A folder, which is made if it's missing. It must be the same for all gateways: one machine, or a shared volume.
    pub fn folder(folder: &std::path::Path, threshold: usize) -> Result<Place, InvalidPlace> {
        let failed = |error| InvalidPlace::Folder(folder.display().to_string(), error);
        // Bodies are nobody else's to read.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        // A sender forgets its event when we answer: the body must be on disk by then.
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| InvalidPlace::Store(error.to_string()))?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(Place {
            store: Arc::new(store),
            prefix: Path::default(),
            threshold,
        })
    }
}

/// A URL; of one that holds what has no place in it, and may be a credential, the scheme alone.
fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) if rest.contains(['@', '?', '#']) => format!("{scheme}://…"),
        _ => url.to_owned(),
    }
}

/// The stores' own in the environment, their names in lower case.
struct Variables(Vec<(String, String)>);

impl Variables {
    fn of(all: impl IntoIterator<Item = (String, String)>) -> Variables {
        let all = all
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value));
        let stores = ["aws_", "google_", "azure_"];
        Variables(
            all.filter(|(name, _)| stores.iter().any(|store| name.starts_with(store)))
                .collect(),
        )
    }

    /// Of their names the library knows which are about it.
    fn known<K: FromStr>(&self, store: &str) -> impl Iterator<Item = (K, &str)> {
        let of_it = self
            .0
            .iter()
            .filter(move |(name, _)| name.starts_with(store));
        of_it.filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str())))
    }

    /// In the library's words. They quote what they can't read: a key, where somebody gave one for the path of its file.
    fn missing_or_wrong(&self, error: &object_store::Error) -> InvalidPlace {
        let mut quoted: Vec<_> = self.0.iter().collect();
        quoted.retain(|(_, value)| value.len() >= SECRET);
        // A short one may be part of a long one, which would not be found any more.
        quoted.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        let text = quoted
            .iter()
            .fold(error.to_string(), |text, (name, value)| {
                text.replace(value.as_str(), &format!("${}", name.to_ascii_uppercase()))
            });
        InvalidPlace::Store(text)
    }
}

/// The stores' own `Debug` tells all of their configuration.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("store", &self.store.to_string())
            .field("prefix", &self.prefix)
            .field("threshold", &self.threshold)
            .finish()
    }
}
