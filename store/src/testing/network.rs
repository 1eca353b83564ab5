//! A network that falls silent without a word, as after a failover or in a partition: nothing is refused, nothing is
//! closed, and no byte comes through any more.

use super::Database;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The network. Each connection belongs to the generation in which it was made, and is silent once that is over.
#[derive(Debug)]
pub struct Network {
    port: u16,
    generation: watch::Sender<u32>,
}

impl Network {
    /// Between clients and the server of this database.
    pub async fn before(database: &Database) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let server: Arc<str> = address(database.url()).into();
        let generation = watch::Sender::new(0);
        let current = generation.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&*server).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, current.subscribe()));
                tokio::spawn(forward(from_server, to_client, current.subscribe()));
            }
        });
        Network { port, generation }
    }

    /// The database's URL through this network.
    pub fn url(&self, database: &Database) -> String {
        let port = self.port.to_string();
        let address = address(database.url());
        database
            .url()
            .replace(address, &format!("127.0.0.1:{port}"))
    }

    /// All connections fall silent; new ones work.
    pub fn forget_connections(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }
}

fn address(url: &str) -> &str {
    let rest = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(address, _)| address)
}

/// Forwards until the generation is over, then holds the connection open for ever.
async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut generation: watch::Receiver<u32>,
) {
    let mut bytes = vec![0; 64 << 10];
    generation.mark_unchanged();
    loop {
        tokio::select! {
            biased;
            _ = generation.changed() => std::future::pending().await,
            read = from.read(&mut bytes) => match read {
                Ok(read) if read > 0 => {
                    if to.write_all(&bytes[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }
}
