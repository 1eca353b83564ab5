//! Against moto, which `testground/install.sh moto` puts on the machine.

use super::*;
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Ended when it is dropped.
pub(super) struct Moto {
    child: Child,
    address: SocketAddr,
    _log: TempDir,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    pub(super) async fn start() -> Moto {
        let cache = std::env::var_os("TG_CACHE").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache/test-ground"),
            PathBuf::from,
        );
        let server = cache.join("moto/bin/moto_server");
        assert!(
            server.exists(),
            "{} is missing: testground/install.sh moto",
            server.display()
        );
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let log = tempfile::tempdir().unwrap();
        let output = std::fs::File::create(log.path().join("moto.log")).unwrap();
        let child = Command::new(server)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let moto = Moto {
            child,
            address,
            _log: log,
        };
        // A Python server is a second or two until it listens.
        for _ in 0..600 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return moto;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("moto doesn't listen after a minute");
    }

    /// A new bucket.
    pub(super) async fn place(&self, bucket: &str) -> Place {
        let client = egress::unguarded::<Full<Bytes>>();
        let request = Request::put(format!("http://{}/{bucket}", self.address))
            .body(Full::default())
            .unwrap();
        let made = client.request(request).await.unwrap();
        assert_eq!(made.status(), 200);
        self.bucket(bucket)
    }

    fn bucket(&self, bucket: &str) -> Place {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        Place::parse(&format!("s3://{bucket}/some/where"), THRESHOLD, variables).unwrap()
    }
}

#[tokio::test]
async fn a_large_body_goes_by_way_of_s3() {
    let moto = Moto::start().await;
    let place = moto.place("hooks").await;
    a_large_body_goes_by_way_of_the_store(place).await;
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_503_and_the_sweep_says_so() {
    let moto = Moto::start().await;
    let test = Test::start(moto.bucket("nobodys"), |_| {}).await;
    let (status, answer) = test.post(large(THRESHOLD + 1)).await;
    assert_eq!(
        (status.as_u16(), answer["code"].as_str().unwrap()),
        (503, "STORAGE_UNAVAILABLE")
    );
    assert_eq!(test.events().await, 0);
    let mut sweep = test.sweep(Duration::ZERO).await;
    let error = sweep.perform().await.unwrap_err();
    assert!(format!("{error:#}").contains("NoSuchBucket"), "{error:#}");
    test.gateway.stop().await.unwrap();
}
