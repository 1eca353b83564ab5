//! The least HTTP/1.1 that a load generator and a receiver need, so that they take little of the cores they share with
//! what they measure: one read buffer a connection, `content-length` bodies only, no allocation per message.

use anyhow::{Context, bail};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

/// The reading side of a connection.
pub(crate) struct Reader {
    stream: OwnedReadHalf,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// A message's first line and body, as places in the buffer that hold until the next `next`.
pub(crate) struct Message {
    head: (usize, usize),
    body: (usize, usize),
}

pub(crate) async fn connect(
    address: std::net::SocketAddr,
) -> anyhow::Result<(Reader, OwnedWriteHalf)> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(split(stream))
}

pub(crate) fn split(stream: TcpStream) -> (Reader, OwnedWriteHalf) {
    let (read, write) = stream.into_split();
    (
        Reader {
            stream: read,
            buffer: vec![0; 16 * 1024],
            start: 0,
            end: 0,
        },
        write,
    )
}

impl Reader {
    /// The next message; `None` when the peer has closed between two.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            let have = &self.buffer[self.start..self.end];
            if let Some(head) = find(have, b"\r\n\r\n") {
                let length = content_length(&have[..head])?;
                let whole = head + 4 + length;
                if have.len() >= whole {
                    let message = Message {
                        head: (self.start, self.start + head),
                        body: (self.start + head + 4, self.start + whole),
                    };
                    self.start += whole;
                    return Ok(Some(message));
                }
            }
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.end == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            match self.stream.read(&mut self.buffer[self.end..]).await? {
                0 if self.end == 0 => return Ok(None),
                0 => bail!("the peer closed in the middle of a message"),
                n => self.end += n,
            }
        }
    }

    pub(crate) fn head(&self, message: &Message) -> &[u8] {
        &self.buffer[message.head.0..message.head.1]
    }

    pub(crate) fn body(&self, message: &Message) -> &[u8] {
        &self.buffer[message.body.0..message.body.1]
    }
}

/// The status of a response's head.
pub(crate) fn status(head: &[u8]) -> anyhow::Result<u16> {
    let digits = head
        .get(9..12)
        .context("a response's first line is shorter than its status")?;
    Ok(std::str::from_utf8(digits)?.parse()?)
}

/// The value of a header, by its lower-case name.
pub(crate) fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h [u8]> {
    head.split(|&b| b == b'\n').find_map(|line| {
        let colon = line.iter().position(|&b| b == b':')?;
        line[..colon]
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| line[colon + 1..].trim_ascii())
    })
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    header(head, "content-length").map_or(Ok(0), |value| Ok(std::str::from_utf8(value)?.parse()?))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
