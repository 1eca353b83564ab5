//! A forward proxy on the way out, that decides nothing: it is asked for an address that was judged here.
//!
//! The name is looked up here and its address judged as without a proxy; then the proxy is told `CONNECT address:port`, and
//! TLS with the name goes through that tunnel. A proxy that is told names would look them up itself, and reach what
//! the policy forbids. Plain http goes through a tunnel as well.

use super::policy::Rule;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{fmt, io, net::SocketAddr, str::FromStr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The largest head of an answer to CONNECT.
const MOST_ANSWER: usize = 8 * 1024;

/// Where it is, and who we are to it. Prints without the password.
#[derive(Clone)]
pub struct Proxy {
    /// Host and port.
    address: String,
    /// A whole header line.
    authorization: Option<String>,
    /// Reached without the proxy.
    pub except: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is written as http://host:port or http://user:password@host:port")]
pub struct InvalidProxy;

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("except", &self.except)
            .finish_non_exhaustive()
    }
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Proxy, InvalidProxy> {
        let rest = text.trim().strip_prefix("http://").ok_or(InvalidProxy)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let uri: http::uri::Authority = address.parse().map_err(|_| InvalidProxy)?;
        if uri.port_u16().is_none_or(|port| port == 0) || uri.host().is_empty() {
            return Err(InvalidProxy);
        }
        let authorization = user
            .map(|user| {
                let (name, password) = user.split_once(':').ok_or(InvalidProxy)?;
                let pair = [decoded(name)?, b":".to_vec(), decoded(password)?].concat();
                let pair = BASE64_STANDARD.encode(pair);
                Ok(format!("Proxy-Authorization: Basic {pair}\r\n"))
            })
            .transpose()?;
        Ok(Proxy {
            address: address.to_owned(),
            authorization,
            except: Vec::new(),
        })
    }
}

/// Percent-decoded, as a password with an `@` must be written.
fn decoded(text: &str) -> Result<Vec<u8>, InvalidProxy> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let digits = [
            bytes.next().ok_or(InvalidProxy)?,
            bytes.next().ok_or(InvalidProxy)?,
        ];
        let digits = std::str::from_utf8(&digits).map_err(|_| InvalidProxy)?;
        plain.push(u8::from_str_radix(digits, 16).map_err(|_| InvalidProxy)?);
    }
    Ok(plain)
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("the proxy can't be reached")]
    Unreachable(#[source] io::Error),
    #[error("the proxy wants other credentials (407)")]
    Credentials,
    #[error("the proxy refused the connection ({0})")]
    Refused(u16),
    #[error("the proxy gave no answer of HTTP")]
    NotHttp,
}

impl Proxy {
    /// A tunnel to an address that may be dialled.
    pub(super) async fn connect(&self, to: SocketAddr) -> Result<TcpStream, ProxyError> {
        let mut stream = TcpStream::connect(&self.address)
            .await
            .map_err(ProxyError::Unreachable)?;
        let _ = stream.set_nodelay(true);
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{authorization}\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(ProxyError::Unreachable)?;
        // A byte at a time: what follows the head belongs to the tunnel.
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await.map_err(ProxyError::Unreachable)?;
            head.push(byte);
            if head.len() > MOST_ANSWER {
                return Err(ProxyError::NotHttp);
            }
        }
        match status(&head) {
            Some(200..=299) => Ok(stream),
            Some(407) => Err(ProxyError::Credentials),
            Some(status) => Err(ProxyError::Refused(status)),
            None => Err(ProxyError::NotHttp),
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|word| word.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_with_its_password_and_prints_without() {
        let proxy: Proxy = "http://me:p%40ss@proxy.internal:3128/".parse().unwrap();
        assert_eq!(proxy.address, "proxy.internal:3128");
        // printf me:p@ss | base64
        assert_eq!(
            proxy.authorization.as_deref(),
            Some("Proxy-Authorization: Basic bWU6cEBzcw==\r\n")
        );
        let printed = format!("{proxy:?}");
        assert!(
            !printed.contains("bWU6") && !printed.contains("p@ss"),
            "{printed}"
        );
        assert!("http://[::1]:3128".parse::<Proxy>().is_ok());
        for text in [
            "",
            "proxy:3128",
            "http://proxy",
            "http://:3128",
            "https://proxy:1",
            "http://me@proxy:1",
            "http://a:%4@p:1",
            "http://p:1/x",
        ] {
            assert!(text.parse::<Proxy>().is_err(), "{text}");
        }
    }
}
