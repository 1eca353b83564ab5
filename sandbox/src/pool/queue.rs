//! Jobs that wait for a worker.

use super::{Input, Options};
use crate::frame::Answer;
use prometheus::IntGauge;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, oneshot};

/// An expression whose evaluations take longer than this on average is slow.
const SLOW_US: u32 = 20_000;

/// Slow expressions that are remembered. Beyond that all are forgotten, and found out again.
const MOST_SLOW: usize = 4096;

#[derive(Debug, Clone)]
pub(super) enum Work {
    Check(Arc<str>),
    Evaluate(Arc<str>, Input),
}

impl Work {
    pub(super) fn expression(&self) -> &Arc<str> {
        match self {
            Work::Check(text) | Work::Evaluate(text, _) => text,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Work::Check(text) => text.len(),
            Work::Evaluate(_, input) => input.head.len() + input.body.len(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    /// It was in a child that died, and is tried once more, alone.
    pub(super) suspected: bool,
    pub(super) answer: oneshot::Sender<Result<Answer, String>>,
}

#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// One for each worker.
    news: Vec<Notify>,
    depth: IntGauge,
}

#[derive(Debug, Default)]
struct Waiting {
    quick: VecDeque<Job>,
    slow: VecDeque<Job>,
    suspects: VecDeque<Job>,
    bytes: usize,
    /// Microseconds, by where an expression's text is in memory; only of slow ones. A new text in an old place may be
    /// taken for slow, until it has been evaluated once or twice.
    averages: HashMap<usize, u32>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.quick.len() + self.slow.len() + self.suspects.len()
    }

    fn push(&mut self, job: Job, first: bool) {
        self.bytes += job.work.bytes();
        let slow = self.averages.contains_key(&place(job.work.expression()));
        let jobs = match (job.suspected, slow) {
            (true, _) => &mut self.suspects,
            (false, true) => &mut self.slow,
            (false, false) => &mut self.quick,
        };
        if first {
            jobs.push_front(job);
        } else {
            jobs.push_back(job);
        }
    }
}

fn place(text: &Arc<str>) -> usize {
    text.as_ptr().addr()
}

impl Queue {
    pub(super) fn new(workers: usize, depth: IntGauge) -> Queue {
        Queue {
            waiting: Mutex::default(),
            news: (0..workers.max(1)).map(|_| Notify::new()).collect(),
            depth,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: there is no room.
    pub(super) fn add(&self, job: Job, options: &Options) -> bool {
        {
            let mut waiting = self.lock();
            if waiting.len() >= options.queue || waiting.bytes > options.queue_bytes {
                return false;
            }
            waiting.push(job, false);
            self.depth.set(waiting.len() as i64);
        }
        self.tell();
        true
    }

    /// Of jobs that were in a child when it died: whoever has to do with its end is among them.
    pub(super) fn suspect(&self, jobs: impl Iterator<Item = Job>) {
        {
            let mut waiting = self.lock();
            for job in jobs {
                waiting.push(
                    Job {
                        suspected: true,
                        ..job
                    },
                    false,
                );
            }
        }
        self.tell();
    }

    /// Jobs that were taken and not begun go back to where they were.
    pub(super) fn give_back(&self, jobs: VecDeque<Job>) {
        {
            let mut waiting = self.lock();
            for job in jobs.into_iter().rev() {
                waiting.push(job, true);
            }
        }
        self.tell();
    }

    fn tell(&self) {
        for news in &self.news {
            news.notify_one();
        }
    }

    pub(super) async fn news(&self, worker: usize) {
        self.news[worker].notified().await;
    }

    /// Up to `room` jobs for this worker. A suspect comes alone, and only to a worker that has nothing else: `idle`.
    pub(super) fn take(&self, worker: usize, room: usize, idle: bool, jobs: &mut VecDeque<Job>) {
        let last = worker + 1 == self.news.len();
        let mut waiting = self.lock();
        let before = jobs.len();
        if last
            && idle
            && let Some(job) = next(&mut waiting, Class::Suspect)
        {
            jobs.push_back(job);
        } else {
            // A suspect's turn comes when what is under way has ended.
            let suspects = last && !waiting.suspects.is_empty();
            while jobs.len() - before < room && !suspects {
                let slow = || last.then_some(Class::Slow);
                let job = next(&mut waiting, Class::Quick)
                    .or_else(|| slow().and_then(|class| next(&mut waiting, class)));
                let Some(job) = job else { break };
                jobs.push_back(job);
            }
        }
        self.depth.set(waiting.len() as i64);
    }

    /// What an evaluation took.
    pub(super) fn took(&self, text: &Arc<str>, us: u32) {
        if us < SLOW_US / 4 {
            // The usual case, in which nothing has to be remembered and usually nothing forgotten.
            let mut waiting = self.lock();
            if !waiting.averages.is_empty() {
                waiting.learn(place(text), us);
            }
            return;
        }
        self.lock().learn(place(text), us);
    }
}

impl Waiting {
    fn learn(&mut self, place: usize, us: u32) {
        let average = match self.averages.get(&place) {
            Some(average) => average - average / 4 + us / 4,
            None => us,
        };
        if average < SLOW_US {
            self.averages.remove(&place);
            return;
        }
        if self.averages.len() >= MOST_SLOW {
            self.averages.clear();
        }
        self.averages.insert(place, average);
    }
}

#[derive(Debug, Clone, Copy)]
enum Class {
    Quick,
    Slow,
    Suspect,
}

/// The next of a class that somebody still waits for.
fn next(waiting: &mut Waiting, class: Class) -> Option<Job> {
    loop {
        let job = match class {
            Class::Quick => waiting.quick.pop_front(),
            Class::Slow => waiting.slow.pop_front(),
            Class::Suspect => waiting.suspects.pop_front(),
        }?;
        waiting.bytes -= job.work.bytes();
        if !job.answer.is_closed() {
            return Some(job);
        }
    }
}
