//! One worker: feeds one child, reads its answers, replaces it.
//!
//! Several requests are in the pipe at once, since a pipe's way there and back costs more than a small evaluation. A
//! child answers in order, so the first that is not answered is being evaluated, or its answer waits to be flushed.

use super::{
    Options,
    queue::{Job, Queue, Work},
};
use crate::{
    LIMITS, Metrics,
    frame::{self, Answer, HEAD, HELLO, LONGEST_MESSAGE, Request},
};
use bytes::{Buf, BytesMut};
use std::{
    collections::{HashMap, VecDeque},
    io,
    os::unix::process::ExitStatusExt,
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::Instant,
};

/// Requests in a child at once.
const DEPTH: usize = 64;

/// Bytes on their way to a child, beyond which no further request follows.
const IN_PIPE: usize = 1 << 20;

/// Expressions that a child keeps, and the bytes of their texts: what is parsed is some fifty times as large.
const SLOTS: usize = 1024;
const SLOT_BYTES: usize = 1 << 20;

/// A child is replaced after that many requests, or bytes of them: memory that the engine doesn't give back goes then.
const REQUESTS: u64 = 1_000_000;
const BYTES: u64 = 8 << 30;

/// Beyond an evaluation's deadline the child is killed: the engine stops itself by then where it can.
const GRACE: Duration = Duration::from_millis(250);

/// Until a child that was started says hello.
const STARTING: Duration = Duration::from_secs(10);

/// After a child that could not be started.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs until it is aborted; its child goes with it.
pub(super) async fn run(number: usize, queue: Arc<Queue>, options: Arc<Options>, metrics: Metrics) {
    loop {
        let mut jobs = VecDeque::new();
        // Before the child, so that a pool without work has none.
        loop {
            queue.take(number, 1, true, &mut jobs);
            if !jobs.is_empty() {
                break;
            }
            queue.news(number).await;
        }
        let child = match Running::start(&options).await {
            Ok(child) => child,
            Err(error) => {
                metrics.not_started.inc();
                tracing::error!(%error, "the sandbox's process can't be started");
                for job in jobs {
                    let _ = job.answer.send(Err(format!(
                        "the sandbox's process can't be started: {error}"
                    )));
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        metrics.children.inc();
        let _running = Counted(&metrics);
        queue.give_back(jobs);
        let mut feeder = Feeder {
            number,
            queue: &queue,
            options: &options,
            metrics: &metrics,
            child,
            pending: VecDeque::new(),
            out: BytesMut::new(),
            answers: BytesMut::new(),
            slots: Slots::default(),
            requests: 0,
            bytes: 0,
        };
        let end = feeder.feed().await;
        feeder.mourn(end).await;
    }
}

struct Counted<'a>(&'a Metrics);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.children.dec();
    }
}

struct Running {
    process: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Running {
    async fn start(options: &Options) -> io::Result<Running> {
        let mut process = Command::new(&options.program.path)
            .args(&options.program.args)
            .env_clear()
            .envs(
                options
                    .program
                    .env
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .env(
                LIMITS,
                format!("{} {}", options.memory, options.deadline.as_millis()),
            )
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (stdin, mut stdout) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let hello = async {
            let mut said = Vec::new();
            while !said.ends_with(HELLO) {
                let byte = stdout.read_u8().await?;
                said.push(byte);
                if said.len() > 4096 {
                    return Err(io::Error::other("this binary is no sandbox"));
                }
            }
            Ok(())
        };
        tokio::time::timeout(STARTING, hello)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Running {
            process,
            stdin,
            stdout,
        })
    }
}

/// Why a child is fed no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Deadline,
    Died,
    Recycled,
}

struct Feeder<'a> {
    number: usize,
    queue: &'a Queue,
    options: &'a Options,
    metrics: &'a Metrics,
    child: Running,
    /// In the order in which they were asked.
    pending: VecDeque<Job>,
    /// Not written yet.
    out: BytesMut,
    /// Read, and not a whole answer yet.
    answers: BytesMut,
    slots: Slots,
    requests: u64,
    bytes: u64,
}

impl Feeder<'_> {
    async fn feed(&mut self) -> End {
        let patience = self.options.deadline + GRACE;
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        loop {
            if self.requests >= REQUESTS || self.bytes >= BYTES {
                if self.pending.is_empty() {
                    return End::Recycled;
                }
            } else {
                let idle = self.pending.is_empty();
                self.take();
                if idle && !self.pending.is_empty() {
                    deadline.as_mut().reset(Instant::now() + patience);
                }
            }
            let busy = !self.pending.is_empty();
            tokio::select! {
                read = self.child.stdout.read_buf(&mut self.answers), if busy => {
                    match read {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => return End::Died,
                    }
                    match self.answer() {
                        Some(0) => {}
                        Some(_) => deadline.as_mut().reset(Instant::now() + patience),
                        None => return End::Died,
                    }
                }
                written = self.child.stdin.write(&self.out), if !self.out.is_empty() => {
                    match written {
                        Ok(written) => self.out.advance(written),
                        // The end of its output says the same, after the answers that it has given.
                        Err(_) if busy => self.out.clear(),
                        Err(_) => return End::Died,
                    }
                }
                () = self.queue.news(self.number), if self.has_room() => {}
                () = &mut deadline, if busy => return End::Deadline,
            }
        }
    }

    fn has_room(&self) -> bool {
        let alone = self.pending.front().is_some_and(|job| job.suspected);
        !alone && self.pending.len() < DEPTH && self.out.len() < IN_PIPE
    }

    /// Takes what there is room for, and writes it out as requests.
    fn take(&mut self) {
        // By pieces, so that a few large events don't come all at once.
        while self.has_room() {
            let from = self.pending.len();
            let room = (DEPTH - from).min(8);
            self.queue
                .take(self.number, room, from == 0, &mut self.pending);
            if self.pending.len() == from {
                return;
            }
            for place in from..self.pending.len() {
                self.write(place);
            }
        }
    }

    fn write(&mut self, place: usize) {
        let job = &self.pending[place];
        self.requests += 1;
        self.bytes += job.work.bytes() as u64;
        match &job.work {
            Work::Check(text) => Request::Check {
                text: text.as_bytes(),
            }
            .write(&mut self.out),
            Work::Evaluate(text, input) => {
                let slot = self.slots.of(text, &mut self.out);
                let most = self.options.most_output;
                Request::Evaluate {
                    slot,
                    envelope: input.envelope,
                    most_output: u32::try_from(most).unwrap_or(u32::MAX),
                    head: &input.head,
                    body: &input.body,
                }
                .write(&mut self.out);
            }
        }
    }

    /// Hands on the answers that are here as a whole: how many. `None`: that is no answer.
    fn answer(&mut self) -> Option<usize> {
        let mut count = 0;
        while let Some(long) = frame::announced(&self.answers) {
            if long > self.options.most_output.max(1 << 20) + HEAD + LONGEST_MESSAGE {
                return None;
            }
            if self.answers.len() < 4 + long {
                self.answers.reserve(4 + long - self.answers.len());
                break;
            }
            self.answers.advance(4);
            let (answer, took_us) = Answer::read(self.answers.split_to(long).freeze())?;
            let job = self.pending.pop_front()?;
            if let Work::Evaluate(text, _) = &job.work {
                self.metrics.seconds.observe(f64::from(took_us) / 1e6);
                self.queue.took(text, took_us);
            }
            let _ = job.answer.send(Ok(answer));
            count += 1;
        }
        Some(count)
    }

    /// Ends the child, and says what becomes of what it leaves.
    async fn mourn(mut self, end: End) {
        let _ = self.child.process.start_kill();
        let status = self.child.process.wait().await.ok();
        let left = std::mem::take(&mut self.pending);
        match end {
            End::Recycled => return self.metrics.recycled.inc(),
            End::Deadline => self.metrics.over_deadline.inc(),
            End::Died => self.metrics.died.inc(),
        }
        let (alone, others): (Vec<Job>, Vec<Job>) = left.into_iter().partition(|job| job.suspected);
        for job in alone {
            let message = match end {
                End::Deadline => format!(
                    "the expression was stopped: it took longer than {} s; make it do less",
                    self.options.deadline.as_secs_f32()
                ),
                End::Died | End::Recycled => {
                    let signal = status.and_then(|status| status.signal());
                    format!(
                        "the expression was stopped: it needed more than {} MiB of memory, or broke the evaluator{}; make it do less",
                        self.options.memory >> 20,
                        signal.map_or(String::new(), |signal| format!(" (signal {signal})")),
                    )
                }
            };
            tracing::warn!(message, "a sandbox process was ended by what it evaluated");
            let us = u32::try_from(self.options.deadline.as_micros()).unwrap_or(u32::MAX);
            self.queue.took(job.work.expression(), us);
            let _ = job.answer.send(Ok(Answer::Failed(message)));
        }
        self.queue.suspect(others.into_iter());
    }
}

/// Which expressions a child has. The one that was not used for longest makes room.
#[derive(Default)]
struct Slots {
    /// By where the text is in memory, which stays that text's for as long as it is in here.
    taken: HashMap<usize, Slot>,
    free: Vec<u32>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

struct Slot {
    number: u32,
    text: Arc<str>,
    used: u64,
}

impl Slots {
    /// The slot of an expression, which the child is told if it doesn't have it.
    fn of(&mut self, text: &Arc<str>, out: &mut BytesMut) -> u32 {
        self.now += 1;
        let place = text.as_ptr().addr();
        if let Some(slot) = self.taken.get_mut(&place) {
            slot.used = self.now;
            return slot.number;
        }
        while self.taken.len() >= SLOTS
            || (self.bytes + text.len() > SLOT_BYTES && !self.taken.is_empty())
        {
            let oldest = self.taken.iter().min_by_key(|(_, slot)| slot.used);
            let Some(oldest) = oldest.map(|(place, _)| *place) else {
                break;
            };
            if let Some(slot) = self.taken.remove(&oldest) {
                self.bytes -= slot.text.len();
                self.free.push(slot.number);
                Request::Define {
                    slot: slot.number,
                    text: b"",
                }
                .write(out);
            }
        }
        let number = self
            .free
            .pop()
            .unwrap_or_else(|| u32::try_from(self.taken.len()).unwrap_or(u32::MAX));
        Request::Define {
            slot: number,
            text: text.as_bytes(),
        }
        .write(out);
        self.bytes += text.len();
        self.taken.insert(
            place,
            Slot {
                number,
                text: text.clone(),
                used: self.now,
            },
        );
        number
    }
}
