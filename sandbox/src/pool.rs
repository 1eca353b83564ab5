//! The parent's side: jobs wait in one queue, a few workers each feed a child.
//!
//! A job is answered within [`Options::wait`]. One that was in a child when that child died is suspected and tried once
//! more, alone: then it is known who did it. An expression that is slow is kept to the last worker, so that one tenant's
//! slow expressions never hold up everybody's quick ones.

mod queue;
mod worker;

use crate::{CHILD, LONGEST_EXPRESSION, Metrics, frame::Answer};
use bytes::Bytes;
use queue::{Job, Queue, Work};
use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    task::{AbortHandle, JoinHandle, JoinSet},
};

/// Checks under way at once, of one caller.
const CHECKS: usize = 64;

/// What a child is started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    /// All that the child's environment holds, beside its limits.
    pub(crate) env: Vec<(String, String)>,
}

impl Program {
    /// Another binary of ours, which calls [`crate::child_main_if_asked`].
    pub fn of(path: impl Into<PathBuf>) -> Program {
        Program {
            path: path.into(),
            args: vec![CHILD.to_owned()],
            env: Vec::new(),
        }
    }
}

impl Default for Program {
    /// The running binary, also when its file was replaced meanwhile.
    fn default() -> Program {
        Program::of(if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe().unwrap_or_default()
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Processes, of which the last one also takes what is slow.
    pub children: usize,
    /// Of one evaluation. The engine stops itself then where it can; the process is killed a little later.
    pub deadline: Duration,
    /// Bytes that a child may use beyond the program.
    pub memory: u64,
    /// Of one evaluation; a larger one fails.
    pub most_input: usize,
    pub most_output: usize,
    /// Jobs that wait for a worker, and their bytes. Beyond that they are turned away.
    pub queue: usize,
    pub queue_bytes: usize,
    /// From the asking to the answer; then it is our own fault.
    pub wait: Duration,
    pub program: Program,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            children: 2,
            deadline: Duration::from_secs(1),
            memory: 256 << 20,
            most_input: 8 << 20,
            most_output: 8 << 20,
            queue: 10_000,
            queue_bytes: 64 << 20,
            wait: Duration::from_secs(10),
            program: Program::default(),
        }
    }
}

/// An expression that compiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The names that its paths begin with where they look at the input, in order.
    pub roots: Vec<String>,
}

/// Why an expression was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// What is wrong with it, and where.
    Wrong(String),
    /// Our own fault: nothing is known of it.
    Unavailable(String),
}

/// What an expression is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// A JSON object. Its `body` stands for a body that is not JSON; the rest is seen in an envelope only.
    pub head: Bytes,
    pub body: Bytes,
    /// The whole event: the head, with the body as `body` and `payload`. Else the body alone.
    pub envelope: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluation {
    /// JSON.
    Value(Bytes),
    /// The expression gives nothing.
    Undefined,
    /// The expression's mistake, or its greed.
    Failed(String),
    /// Our own fault.
    Unavailable(String),
}

/// Handle to the children. The last one to go ends them.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Arc<Queue>,
    options: Arc<Options>,
    metrics: Metrics,
    workers: OnceLock<Vec<AbortHandle>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for worker in self.workers.get().into_iter().flatten() {
            worker.abort();
        }
    }
}

impl Pool {
    /// Starts nothing: the first job does.
    pub fn new(options: Options, metrics: Metrics) -> Pool {
        Pool(Arc::new(Inner {
            queue: Arc::new(Queue::new(options.children, metrics.waiting.clone())),
            options: Arc::new(options),
            metrics,
            workers: OnceLock::new(),
        }))
    }

    /// Whether the expression compiles. Must be called within a tokio runtime.
    pub async fn check(&self, text: &Arc<str>) -> Result<Checked, Refused> {
        if text.len() > LONGEST_EXPRESSION {
            return Err(Refused::Wrong(format!(
                "the expression has {} bytes, and at most {LONGEST_EXPRESSION} are possible; shorten it",
                text.len()
            )));
        }
        match self.ask(Work::Check(text.clone())).await {
            Ok(Answer::Checked(roots)) => match serde_json::from_slice(&roots) {
                Ok(roots) => Ok(Checked { roots }),
                Err(error) => Err(Refused::Unavailable(error.to_string())),
            },
            Ok(Answer::Failed(message)) => Err(Refused::Wrong(message)),
            Ok(_) => Err(Refused::Unavailable(
                "the sandbox answered something else".to_owned(),
            )),
            Err(why) => Err(Refused::Unavailable(why)),
        }
    }

    /// Checks many, a few at a time. What is not known after `within` is missing from the answer.
    pub async fn check_all(
        &self,
        texts: Vec<Arc<str>>,
        within: Duration,
    ) -> Vec<(Arc<str>, Result<Checked, Refused>)> {
        let mut known = Vec::with_capacity(texts.len());
        let mut texts = texts.into_iter();
        let mut checks = JoinSet::new();
        let all = async {
            loop {
                while checks.len() < CHECKS
                    && let Some(text) = texts.next()
                {
                    let pool = self.clone();
                    checks.spawn(async move { (pool.check(&text).await, text) });
                }
                match checks.join_next().await {
                    Some(Ok((checked, text))) => known.push((text, checked)),
                    // It panicked, which is not known either.
                    Some(Err(_)) => {}
                    None => break,
                }
            }
        };
        // Past it the checks under way are dropped with their set.
        let _ = tokio::time::timeout(within, all).await;
        known
    }

    /// Evaluates an expression that was checked. The same `Arc` each time: it is what a child knows an expression by. Must
    /// be called within a tokio runtime.
    pub async fn evaluate(&self, expression: &Arc<str>, input: Input) -> Evaluation {
        let evaluation = self.evaluate_on(expression, input).await;
        self.0.metrics.evaluated(&evaluation);
        evaluation
    }

    async fn evaluate_on(&self, expression: &Arc<str>, input: Input) -> Evaluation {
        let (bytes, most) = (
            input.head.len() + input.body.len(),
            self.0.options.most_input,
        );
        if bytes > most {
            return Evaluation::Failed(format!(
                "the event has {bytes} bytes, and expressions take at most {most}"
            ));
        }
        if expression.len() > LONGEST_EXPRESSION {
            return Evaluation::Failed("the expression is too long".to_owned());
        }
        match self.ask(Work::Evaluate(expression.clone(), input)).await {
            Ok(Answer::Value(value)) => Evaluation::Value(value),
            Ok(Answer::Undefined) => Evaluation::Undefined,
            Ok(Answer::Failed(message)) => Evaluation::Failed(message),
            Ok(Answer::Checked(_)) => {
                Evaluation::Unavailable("the sandbox answered something else".to_owned())
            }
            Err(why) => Evaluation::Unavailable(why),
        }
    }

    async fn ask(&self, work: Work) -> Result<Answer, String> {
        let inner = &self.0;
        inner.workers.get_or_init(|| {
            let work = (0..inner.options.children.max(1)).map(|number| {
                let worker = worker::run(
                    number,
                    inner.queue.clone(),
                    inner.options.clone(),
                    inner.metrics.clone(),
                );
                let task: JoinHandle<()> = tokio::spawn(worker);
                task.abort_handle()
            });
            work.collect()
        });
        let (answer, answered) = oneshot::channel();
        let job = Job {
            work,
            suspected: false,
            answer,
        };
        if !inner.queue.add(job, &inner.options) {
            return Err("the sandbox has more to do than it can".to_owned());
        }
        match tokio::time::timeout(inner.options.wait, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the sandbox has ended".to_owned()),
            Err(_) => Err(format!(
                "the sandbox had no time for it within {} s",
                inner.options.wait.as_secs_f32()
            )),
        }
    }
}
