//! `hookstream dev`: operator and gateway in one process, on a folder of manifests.
//!
//! What it guarantees: a saved file is live within a second; a mistake is told with its file and line and takes nothing
//! away; an event that was answered with 200 survives everything that a cluster's would, unless `--ephemeral`; and
//! however it ends, no Postgres stays behind.
//!
//! `backing` is what it stands on, `control` the operator's half, `traffic` the gateway's; `mistakes` remembers what was
//! said about the manifests. This file starts and stops them in order, and prints.

mod backing;
mod control;
mod mistakes;
mod traffic;

use crate::{
    args,
    folder::{Declared, Folder},
    lines::Style,
    watch::Watch,
};
use anyhow::{Context, Result, bail};
use backing::Backing;
use control::Control;
use mistakes::Mistakes;
use operator::publisher::Report;
use service::clock;
use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use traffic::Traffic;
use uuid::Uuid;

/// Of waiting for the first publish before it's said what is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) fn run(options: args::Dev) -> Result<ExitCode> {
    service::log::init(&service::args::Log {
        filter: options.log.clone(),
        format: options.log_format,
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting threads")?;
    runtime.block_on(async {
        let token = service::signals::shutdown_token().context("listening for signals")?;
        let started = tokio::select! {
            started = Session::start(&options) => Some(started?),
            // Nothing was accepted yet: what was started ends as it is dropped.
            () = token.cancelled() => None,
        };
        if let Some((session, backing)) = started {
            session.run(backing, token).await?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Everything that runs, but for what it stands on.
struct Session {
    folder: Folder,
    watch: Watch,
    declared: Declared,
    mistakes: Mistakes,
    control: Control,
    traffic: Traffic,
    style: Style,
    /// What was said when the folder as a whole couldn't be read, while it can't.
    unreadable: Option<String>,
}

impl Session {
    async fn start(options: &args::Dev) -> Result<(Session, Backing)> {
        let style = Style {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            zone: jiff::tz::TimeZone::system(),
        };
        let mut folder = Folder::new(options.paths.iter().cloned());
        // Before the first reading: what is saved meanwhile is read again.
        let watch = Watch::new(folder.roots());
        let declared = folder.read(clock::now())?;
        let mut mistakes = Mistakes::default();
        print(mistakes.read(&declared, &style));

        let listeners = traffic::Listeners::bind(options).await?;
        let backing = Backing::start(options).await?;
        print([style.note(&backing.kept)]);
        let registry = prometheus::Registry::new();
        let holder = format!("dev-{}", Uuid::now_v7().simple());
        // One for both halves: a metric's name is registered once.
        let sandbox = sandbox::Pool::new(
            sandbox::Options::default(),
            sandbox::Metrics::new(&registry),
        );
        let mut control = Control::start(&backing, &holder, &registry, sandbox.clone());
        control.tell(&Declared::default(), &declared).await?;
        control.synced().await?;
        published(&mut control, &declared, &mut mistakes, &style).await?;
        // Only now: the first table that the gateway loads is the one that was just published.
        let traffic =
            Traffic::start(options, listeners, &backing, &holder, registry, sandbox).await?;
        Ok((
            Session {
                folder,
                watch,
                declared,
                mistakes,
                control,
                traffic,
                style,
                unreadable: None,
            },
            backing,
        ))
    }

    async fn run(mut self, backing: Backing, token: CancellationToken) -> Result<()> {
        print(self.traffic.greeting(&self.declared, &self.style));
        print([format!("ready: http://{}", self.traffic.address())]);
        let outcome = self.follow(&token).await;
        let drained = self.traffic.stop(&self.style).await;
        self.control.stop().await;
        backing.stop().await?;
        outcome.and(drained)
    }

    /// Until the token is cancelled.
    async fn follow(&mut self, token: &CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                seen = self.traffic.seen() => print([self.style.line(&seen?, clock::now())]),
                () = self.watch.changed() => self.reread().await?,
                report = self.control.reports.recv() => {
                    let Some(report) = report else { bail!("the publisher has ended by itself") };
                    told(&report, &self.declared, &mut self.mistakes, &self.style);
                }
                Some(notice) = self.control.notices.recv() => print([self.style.problem(&notice.note)]),
            }
        }
    }

    async fn reread(&mut self) -> Result<()> {
        let next = match tokio::task::block_in_place(|| self.folder.read(clock::now())) {
            Ok(next) => next,
            Err(error) => {
                let problem = format!("{error}: what was there before keeps routing");
                // Looked at every few seconds, said once.
                if self.unreadable.replace(problem.clone()).as_ref() != Some(&problem) {
                    print([self.style.problem(&problem)]);
                }
                return Ok(());
            }
        };
        self.unreadable = None;
        let before = std::mem::replace(&mut self.declared, next);
        print(self.mistakes.read(&self.declared, &self.style));
        match self.control.tell(&before, &self.declared).await? {
            0 => {}
            1 => print([self.style.note("saved: 1 change")]),
            n => print([self.style.note(&format!("saved: {n} changes"))]),
        }
        Ok(())
    }
}

/// Waits until the table holds what is declared.
async fn published(
    control: &mut Control,
    declared: &Declared,
    mistakes: &mut Mistakes,
    style: &Style,
) -> Result<()> {
    let mut waiting: BTreeSet<Uuid> = declared.manifests.keys().copied().collect();
    loop {
        let report = match tokio::time::timeout(PATIENCE, control.reports.recv()).await {
            Ok(report) => report.context("the publisher has ended by itself")?,
            Err(_) => {
                print([style.note("still waiting to publish the routing table: another operator may lead on this database")]);
                continue;
            }
        };
        for entry in report
            .told
            .objects
            .iter()
            .filter(|entry| entry.published.is_some())
        {
            waiting.remove(&entry.meta.uid);
        }
        told(&report, declared, mistakes, style);
        if report.term.is_some() && waiting.is_empty() {
            return Ok(());
        }
    }
}

fn told(report: &Report, declared: &Declared, mistakes: &mut Mistakes, style: &Style) {
    for entry in &report.told.objects {
        print(mistakes.compiled(entry, declared, style));
    }
    for uid in &report.told.gone {
        mistakes.gone(*uid);
    }
}

/// Lines on stdout. A reader that went away is no reason to stop delivering.
fn print(lines: impl IntoIterator<Item = String>) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    let _ = out.flush();
}
