//! Every folder of `examples/` does what its trial says, run by `hookstream dev` as it stands (see `tests::trial`).

use std::{collections::BTreeSet, fs};
use tests::trial;

macro_rules! trials {
    ($($test:ident = $folder:literal),* $(,)?) => {
        /// The folders that are tried here.
        const TRIED: &[&str] = &[$($folder),*];

        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() -> anyhow::Result<()> {
                trial::run($folder).await
            }
        )*
    };
}

trials! {
    circuit_breaker = "circuit-breaker",
    cloudevents = "cloudevents",
    custom_response = "custom-response",
    deduplication = "deduplication",
    destination_templates = "destination-templates",
    egress = "egress",
    filters = "filters",
    http_auth = "http-auth",
    ip_filter = "ip-filter",
    large_payloads = "large-payloads",
    ordering = "ordering",
    quickstart = "quickstart",
    rate_limit = "rate-limit",
    rate_limited_source = "rate-limited-source",
    retries = "retries",
    scheduled = "scheduled",
    schema = "schema",
    signing = "signing",
    topics = "topics",
    transforms = "transforms",
    verification_by_hand = "verification-hmac",
    verification_by_template = "verification-templates",
}

/// Folders whose point no single request shows, with the test that tries them.
const TRIED_ELSEWHERE: &[(&str, &str)] = &[];

#[test]
fn every_example_is_tried() {
    let folders: BTreeSet<String> = fs::read_dir(trial::root().join("examples"))
        .expect("there are examples")
        .filter_map(|entry| {
            let entry = entry.expect("a readable folder");
            entry
                .path()
                .is_dir()
                .then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    let tried = TRIED
        .iter()
        .chain(TRIED_ELSEWHERE.iter().map(|(folder, _)| folder));
    let tried: BTreeSet<String> = tried.map(|folder| (*folder).to_owned()).collect();
    assert_eq!(folders, tried, "examples/ and the list above differ");
    for (folder, test) in TRIED_ELSEWHERE {
        let (file, name) = test.split_once("::").expect("FILE::TEST");
        let file = trial::root().join(file);
        let text = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            text.contains(&format!("fn {name}(")),
            "{folder}: there is no test {test}"
        );
    }
}
