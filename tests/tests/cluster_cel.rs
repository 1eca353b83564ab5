//! The CRDs as the API server judges by them: every rule's examples, and the contract's manifests as they stand.

use kube::core::Request;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tests::cluster::{self, DATA};

/// Every YAML file below a folder, in order.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.expect("a folder's entry").path();
        match path.is_dir() {
            true => found.extend(manifests(&path)),
            false
                if path
                    .extension()
                    .is_some_and(|extension| extension == "yaml") =>
            {
                found.push(path)
            }
            false => {}
        }
    }
    found.sort();
    found
}

/// The namespace, which is there when this returns.
async fn made<'n>(client: &kube::Client, namespace: &'n str) -> &'n str {
    let body = serde_json::json!({"metadata": {"name": namespace}}).to_string();
    let request = http::Request::post("/api/v1/namespaces")
        .header("content-type", "application/json")
        .body(body.into_bytes())
        .expect("a path and a header");
    match client.request::<Value>(request).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => panic!("the API server: {error}"),
    }
    namespace
}

/// Asks the API server to create it, strictly, for show: `Err` with what it says against it.
async fn judge(client: &kube::Client, text: &str) -> Result<(), String> {
    let manifest: Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let kind = manifest["kind"].as_str().ok_or("no kind")?;
    let namespace = match manifest["metadata"]["namespace"].as_str() {
        Some(namespace) => made(client, namespace).await,
        None => "default",
    };
    let url = match crds::Kind::parse(kind) {
        Some(kind) => format!(
            "/apis/{}/{}/namespaces/{namespace}/{}",
            crds::GROUP,
            crds::VERSION,
            kind.plural()
        ),
        None => format!("/api/v1/namespaces/{namespace}/{}s", kind.to_lowercase()),
    };
    let request = Request::new(url)
        .create(&Default::default(), text.as_bytes().to_vec())
        .map_err(|error| error.to_string())?;
    let (mut head, body) = request.into_parts();
    head.uri = format!("{}?dryRun=All&fieldValidation=Strict", head.uri.path())
        .parse()
        .expect("a path and a query");
    head.headers.insert(
        "content-type",
        "application/yaml".parse().expect("a header"),
    );
    match client
        .request::<Value>(http::Request::from_parts(head, body))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("the API server: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_judged_as_its_name_says() {
    let client = cluster::shared().await.client().await;
    let examples = manifests(&Path::new(DATA).join("cel"));
    let (mut passed, mut wrong) = (0, Vec::new());
    for path in &examples {
        let text = std::fs::read_to_string(path).unwrap();
        let name = path.strip_prefix(DATA).unwrap().display();
        let expected = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# expect: "));
        match (judge(&client, &text).await, expected) {
            (Ok(()), None) => passed += 1,
            (Err(said), Some(expected)) if said.contains(expected) => {}
            (Ok(()), Some(_)) => wrong.push(format!("{name}: accepted")),
            (Err(said), expected) => wrong.push(format!(
                "{name}: {said}\n    expected: {}",
                expected.unwrap_or("accepted")
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        passed >= 8 && examples.len() - passed >= 8,
        "the examples have gone: {} files, {passed} pass",
        examples.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_accepted_as_it_stands() {
    let client = cluster::shared().await.client().await;
    let folders = [
        Path::new(DATA).join("contract"),
        Path::new(DATA).join("../../examples"),
    ];
    let mut documents = 0;
    for path in folders.iter().flat_map(|folder| manifests(folder)) {
        let text = std::fs::read_to_string(&path).unwrap();
        for document in text.split("\n---\n") {
            documents += 1;
            if let Err(said) = judge(&client, document).await {
                panic!("{}: {said}\n{document}", path.display());
            }
        }
    }
    assert!(documents >= 20, "only {documents} documents");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_knows_the_kinds_by_their_names() {
    let cluster = cluster::shared().await;
    let listed = cluster
        .kubectl(
            &["api-resources", "--api-group=hookstream.io", "--no-headers"],
            "",
        )
        .await
        .unwrap();
    for kind in crds::Kind::ALL {
        let line = listed
            .lines()
            .find(|line| line.split_whitespace().last() == Some(kind.as_str()))
            .unwrap_or_else(|| panic!("no {kind} in\n{listed}"));
        assert!(
            line.contains(kind.plural()) && line.contains(kind.short_name()),
            "{line}"
        );
    }
    cluster
        .kubectl(&["get", "hookstream", "--all-namespaces"], "")
        .await
        .unwrap();
    // The API server writes its documentation some time after it serves a kind.
    let explaining = async {
        loop {
            match cluster
                .kubectl(&["explain", "source.spec.verification"], "")
                .await
            {
                Ok(explained) => return explained,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    };
    let explained = tokio::time::timeout(cluster::SOON, explaining)
        .await
        .expect("kubectl explain knows sources");
    assert!(explained.contains("DESCRIPTION"), "{explained}");
}
