//! What holds for every store's server. `testground/install.sh` puts them on the machine.

use super::*;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Ended when it is dropped.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Runs a program of `install.sh PART`, which has to listen at the port that it is told.
    pub(super) async fn start(
        part: &str,
        program: &str,
        options: &[(&str, &str)],
        arguments: impl FnOnce(String) -> Vec<String>,
    ) -> Server {
        let cache = std::env::var_os("TG_CACHE").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache/test-ground"),
            PathBuf::from,
        );
        let program = cache.join(program);
        assert!(
            program.exists(),
            "{} is missing: testground/install.sh {part}",
            program.display()
        );
        let address = free_address().await;
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(arguments(address.port().to_string()))
            .envs(options.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Server {
            child,
            address,
            folder,
        };
        // One in Python or JavaScript is seconds until it listens.
        for _ in 0..600 {
            if TcpStream::connect(address).await.is_ok() {
                return server;
            }
            if server.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(server.folder.path().join("log")).unwrap();
        panic!("{part} doesn't listen within a minute: {log}");
    }

    pub(super) async fn request(&self, request: http::request::Builder, body: Bytes) -> Bytes {
        let client = egress::unguarded::<Full<Bytes>>();
        let request = request.body(Full::new(body)).unwrap();
        let answer = client.request(request).await.unwrap();
        let status = answer.status();
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "{status}: {answer:?}");
        answer
    }
}

/// Never the same one twice, or one test would speak to another's server.
async fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        if GIVEN.lock().unwrap().insert(address.port()) {
            return address;
        }
    }
}

/// A server, and in it an empty bucket [`BUCKET`].
pub(super) struct Store {
    pub(super) server: Server,
    /// A bucket at an address, which may be a proxy's.
    pub(super) at: fn(SocketAddr, &str) -> Place,
}

pub(super) const BUCKET: &str = "hooks";

impl Store {
    pub(super) fn place(&self) -> Place {
        (self.at)(self.server.address, BUCKET)
    }
}

/// As the environment would have them.
pub(super) fn place<const N: usize>(url: &str, variables: [(&str, &str); N]) -> Place {
    parse(url, variables).unwrap()
}

pub(super) fn parse<const N: usize>(
    url: &str,
    variables: [(&str, &str); N],
) -> Result<Place, InvalidPlace> {
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Place::parse(url, THRESHOLD, variables)
}

/// A sender is told to come again, and the sweep says why in these words, without the secret.
pub(super) async fn a_store_that_refuses_is_503(place: Place, words: &str, secret: &str) {
    let test = Test::start(place, |_| {}).await;
    let (status, answer) = test.post(large(THRESHOLD + 1)).await;
    assert_eq!(
        (status.as_u16(), answer["code"].as_str().unwrap()),
        (503, "STORAGE_UNAVAILABLE")
    );
    assert_eq!(test.events().await, 0);
    let bodies = test.bodies().await;
    let event = Event {
        id: Uuid::now_v7(),
        object_bytes: Some(1),
        ..Event::default()
    };
    let mut sweep = test.sweep(Duration::ZERO).await;
    let swept = sweep.perform().await.unwrap_err();
    assert!(format!("{swept:#}").contains(words), "{swept:#}");
    let lost = bodies.load(&event).await.unwrap_err();
    let key = Path::from("x");
    let refused = test.place.store.put(&key, "x".into()).await.unwrap_err();
    for shown in [
        service::log::chain(&refused),
        format!("{refused:?}"),
        answer.to_string(),
        format!("{swept:?}"),
        service::log::chain(&lost),
        format!("{lost:?}"),
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }
    test.gateway.stop().await.unwrap();
}

/// For a server that speaks S3. Azure has no word for it, and forgets the parts by itself.
pub(super) async fn an_upload_that_is_given_up_leaves_nothing(store: Store) {
    let place = store.place();
    let key = Path::from("given/up");
    let begun = place.store.put_multipart_opts(&key, Default::default());
    let mut upload = begun.await.unwrap();
    upload.put_part(large(PART).into()).await.unwrap();
    let uploads = async || {
        let all = format!("http://{}/{BUCKET}?uploads", store.server.address);
        let listed = store.server.request(Request::get(all), Bytes::new()).await;
        let listed = String::from_utf8(listed.to_vec()).unwrap();
        listed.matches("<UploadId>").count()
    };
    assert_eq!(uploads().await, 1);
    upload.abort().await.unwrap();
    assert_eq!(uploads().await, 0);
}

/// As many as take more than one request to list or to remove.
pub(super) async fn many_orphans_are_swept_and_no_more(store: Store, many: u32) {
    let database = Database::create().await;
    let sweep = |installation| Sweep {
        pool: database.store.pool.clone(),
        bodies: Bodies::new(store.place(), installation, Metrics::default()),
        grace: Duration::ZERO,
        from: None,
    };
    let (mut ours, theirs) = (sweep(Uuid::now_v7()), sweep(Uuid::now_v7()));
    for (bodies, count) in [(&ours.bodies, many), (&theirs.bodies, 1)] {
        let inner = bodies.0.as_ref().unwrap();
        let all = futures::stream::iter((0..count).map(Ok::<_, NotKept>));
        all.try_for_each_concurrent(8, |_| inner.put(Uuid::now_v7(), Bytes::from_static(b"x")))
            .await
            .unwrap();
    }
    ours.perform().await.unwrap();
    let left = objects(&store.place()).await;
    assert_eq!(left.len(), 1, "{left:?}");
    let root = &theirs.bodies.0.as_ref().unwrap().root;
    assert!(left[0].location.prefix_matches(root), "{left:?}");
}

/// What comes before the store's connection breaks is not asked for again.
pub(super) async fn a_connection_that_breaks_half_way_costs_no_attempt(
    store: &Store,
    put: impl AsyncFnOnce(&Bodies, Uuid, Bytes) -> Event,
) {
    let (installation, body) = (Uuid::now_v7(), large(3 * THRESHOLD));
    let at = |address| {
        Bodies::new(
            (store.at)(address, BUCKET),
            installation,
            Metrics::default(),
        )
    };
    let event = put(&at(store.server.address), Uuid::now_v7(), body.clone()).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bodies = at(proxy.local_addr().unwrap());
    let there = store.server.address;
    let cut = tokio::spawn(async move {
        let (mut asked, _) = proxy.accept().await.unwrap();
        let (mut there_reads, mut there_writes) =
            TcpStream::connect(there).await.unwrap().into_split();
        let (mut reads, mut writes) = asked.split();
        let answer = async {
            let mut some = (&mut there_reads).take(THRESHOLD as u64);
            tokio::io::copy(&mut some, &mut writes).await.unwrap();
            writes.shutdown().await.unwrap();
        };
        tokio::select! {
            () = answer => {}
            _ = tokio::io::copy(&mut reads, &mut there_writes) => {}
        }
        drop(asked);
        // The second connection says what is asked for on it.
        let (mut asked, _) = proxy.accept().await.unwrap();
        let mut head = vec![0; 8192];
        let bytes = asked.read(&mut head).await.unwrap();
        head.truncate(bytes);
        let mut there = TcpStream::connect(there).await.unwrap();
        there.write_all(&head).await.unwrap();
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let _ = tokio::io::copy_bidirectional(&mut asked, &mut there).await;
        head
    });
    let read = bodies.open(&event).await.unwrap().collect().await.unwrap();
    assert!(read.to_bytes() == body, "another body");
    drop(bodies);
    let head = cut.await.unwrap();
    assert!(head.contains("range: bytes="), "{head}");
    assert!(!head.contains("range: bytes=0-"), "{head}");
}
