//! What runs in the child: reads requests from its standard input, evaluates, answers in order.
//!
//! One thread, no file but its pipes, no environment. It ends when its input does, so it never outlives its parent for
//! longer than one evaluation takes. (Not by a signal at the parent's death: that comes when the *thread* that started the
//! child ends, and a runtime's threads come and go.) What goes wrong beyond an expression's own mistake ends it: the parent knows what to do.

mod engine;
mod limits;
mod position;
mod roots;

use crate::frame::{self, HELLO, Request};
use engine::Engine;
use service::clock;
use std::{
    process,
    time::{Duration, Instant},
};

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// Answers that wait are written out when there are that many bytes of them, or when the first has waited that long, or
/// when there is nothing else to do.
const FLUSH_BYTES: usize = 64 * 1024;
const FLUSH_AFTER: Duration = Duration::from_millis(2);

/// An evaluation longer than this has used processor time that the next must not pay for.
const LONG: Duration = Duration::from_millis(50);

/// A frame that the parent would never send.
const LONGEST_FRAME: usize = 1 << 30;

/// Never returns.
pub(crate) fn main() -> ! {
    // Its place is the parent's log, and the parent knows more of it.
    std::panic::set_hook(Box::new(|_| {}));
    let Some((memory, deadline)) = limits::told() else {
        process::exit(2);
    };
    if limits::apply(memory).is_err() {
        process::exit(3);
    }
    let mut child = Child {
        input: Vec::new(),
        at: 0,
        output: HELLO.to_vec(),
        first_waits_since: None,
        engine: Engine::new(deadline),
    };
    process::exit(child.run());
}

struct Child {
    input: Vec<u8>,
    /// What is before it was dealt with.
    at: usize,
    output: Vec<u8>,
    first_waits_since: Option<Instant>,
    engine: Engine,
}

impl Child {
    /// Gives the exit code.
    fn run(&mut self) -> i32 {
        loop {
            match self.next_frame() {
                Some(Ok(frame)) => {
                    let Some(request) = Request::read(&self.input[frame]) else {
                        return 4;
                    };
                    let began = clock::instant();
                    if let Some(answer) = self.engine.answer(&request) {
                        let took = began.elapsed();
                        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                        answer.write(took_us, &mut self.output);
                        let since = *self.first_waits_since.get_or_insert(began);
                        if took > LONG {
                            limits::renew_time();
                        }
                        if self.output.len() >= FLUSH_BYTES || since.elapsed() > FLUSH_AFTER {
                            self.flush();
                        }
                    }
                }
                Some(Err(())) => return 4,
                None => {
                    self.flush();
                    limits::renew_time();
                    if !self.read() {
                        return 0;
                    }
                }
            }
        }
    }

    /// The next frame that is here as a whole, without its length.
    fn next_frame(&mut self) -> Option<Result<std::ops::Range<usize>, ()>> {
        let long = frame::announced(&self.input[self.at..])?;
        if long > LONGEST_FRAME {
            return Some(Err(()));
        }
        let (from, to) = (self.at + 4, self.at + 4 + long);
        if self.input.len() < to {
            return None;
        }
        self.at = to;
        Some(Ok(from..to))
    }

    /// Waits for more; false: there won't be any.
    fn read(&mut self) -> bool {
        self.input.drain(..self.at);
        self.at = 0;
        let had = self.input.len();
        if had == 0 && self.input.capacity() > 4 * CHUNK {
            // A large event has gone by.
            self.input = Vec::new();
        }
        self.input.resize(had + CHUNK, 0);
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut self.input[had..]) {
                Ok(read) => {
                    self.input.truncate(had + read);
                    return read > 0;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Without a parent to read it there is nothing left to do.
    fn flush(&mut self) {
        let mut rest = &self.output[..];
        while !rest.is_empty() {
            match rustix::io::write(rustix::stdio::stdout(), rest) {
                Ok(written) => rest = &rest[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => process::exit(0),
            }
        }
        self.output.clear();
        self.output.shrink_to(4 * FLUSH_BYTES);
        self.first_waits_since = None;
    }
}
