//! The progress of moves that a verb has begun, until all are where they should be.
//!
//! Whoever stops looking stops nothing: moves are the cluster's, and Ctrl-C says how to see them again.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anstream::{eprint, eprintln};
use highwater_client::{Admin, MoveInfo, MoveStage, NodeId, PlannedMove};

use crate::exit::{Exit, Failure};
use crate::human;
use crate::moving::{Looks, eta, left, per_second};
use crate::reassign::Names;

/// Looks again and again until every partition is where it should be, or Ctrl-C.
pub async fn follow(admin: &Admin, plan: &[PlannedMove], names: &Names) -> Result<Exit, Failure> {
    let going_on = "the moves go on: `hw partition moves -w` shows them, and `hw partition cancel --all` \
                    has everything that moves go back";
    until_ctrl_c(look_on(admin, plan, names), going_on).await
}

/// Waits for `looking`; on Ctrl-C says what goes on without anybody looking.
pub async fn until_ctrl_c(
    looking: impl Future<Output = Result<Exit, Failure>>,
    going_on: &str,
) -> Result<Exit, Failure> {
    tokio::select! {
        // Whoever waits around this one listens as well, and would end it without a word.
        biased;
        Ok(()) = tokio::signal::ctrl_c() => {
            eprintln!("\n{going_on}");
            Ok(Exit::Interrupted)
        }
        seen = looking => seen,
    }
}

async fn look_on(admin: &Admin, plan: &[PlannedMove], names: &Names) -> Result<Exit, Failure> {
    let mut looks = Looks::default();
    let mut shown = Shown::default();
    let mut changed = Instant::now();
    let mut before = 0;
    loop {
        let arrived = arrived(admin, plan, names).await?;
        if arrived != before {
            (before, changed) = (arrived, Instant::now());
        }
        let moving = admin.list_moves().await?;
        let ours = |info: &&MoveInfo| {
            plan.iter().any(|planned| planned.partition == info.planned.partition)
        };
        let ours: Vec<_> = moving.iter().filter(ours).collect();
        shown.show(&progress(admin, plan.len(), arrived, &ours, &mut looks).await);
        let all = plan.len();
        if arrived == all {
            shown.end();
            return Ok(Exit::Fine);
        }
        // A broker that is a moment late may show neither a move nor its end.
        if ours.is_empty() && changed.elapsed() > LATE_MAX {
            shown.end();
            let what = format!("{} of {all} did not move: they were cancelled", all - arrived);
            return Err(Failure::new(Exit::Conflict, what)
                .way_out("`hw partition list` shows where they are"));
        }
        if !ours.is_empty() {
            changed = Instant::now();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many partitions of a plan are where they should be.
async fn arrived(admin: &Admin, plan: &[PlannedMove], names: &Names) -> Result<usize, Failure> {
    let mut arrived = 0;
    for (topic, name) in names {
        let wanted = || plan.iter().filter(|planned| planned.partition.topic == *topic);
        if wanted().next().is_none() {
            continue;
        }
        let detail = admin.describe_topic(name).await?;
        let is_there = |planned: &&PlannedMove| {
            let same = |set: &[NodeId]| {
                set.len() == planned.to.len() && set.iter().all(|n| planned.to.contains(n))
            };
            let at = planned.partition.partition;
            detail.partitions.iter().any(|info| info.partition == at && same(&info.replicas))
        };
        arrived += wanted().filter(is_there).count();
    }
    Ok(arrived)
}

async fn progress(
    admin: &Admin,
    all: usize,
    arrived: usize,
    ours: &[&MoveInfo],
    looks: &mut Looks,
) -> String {
    let (mut left_all, mut rate_all) = (0, None);
    let of_stage = |stage| ours.iter().filter(move |info| info.stage == stage);
    for info in of_stage(MoveStage::Running) {
        if let Some(left) = left(admin, &info.topic, &info.planned).await {
            left_all += left;
            if let Some(rate) = looks.rate(info.planned.partition, Instant::now(), left) {
                rate_all = Some(rate_all.unwrap_or(0) + rate);
            }
        }
    }
    let (running, waiting, back) = (
        of_stage(MoveStage::Running).count(),
        of_stage(MoveStage::Waiting).count(),
        of_stage(MoveStage::GoingBack).count(),
    );
    let mut line = format!("{arrived} of {all} moved, {running} under way, {waiting} waiting");
    if back > 0 {
        line += &format!(", {back} going back because they were cancelled");
    }
    if running > 0 {
        line += &format!("; {} left of those under way", human::bytes(left_all));
        if let Some(rate) = rate_all {
            line += &format!(", {}", per_second(rate));
        }
        if let Some(eta) = eta(left_all, rate_all) {
            line += &format!(", {}", human::seconds(eta));
        }
    }
    line
}

/// The line of progress: drawn anew on a terminal, elsewhere printed when there is news worth a line.
#[derive(Debug, Default)]
struct Shown {
    last: String,
    printed: Option<Instant>,
}

impl Shown {
    fn show(&mut self, line: &str) {
        if line == self.last {
            return;
        }
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K{line}");
            // Only the looks are at stake.
            let _ = io::stderr().flush();
        } else {
            let counts = |line: &str| line.split(';').next().map(str::to_owned);
            let lately = self.printed.is_some_and(|at| at.elapsed() < LINE_EVERY);
            if lately && counts(line) == counts(&self.last) {
                return;
            }
            eprintln!("{line}");
        }
        (self.last, self.printed) = (line.to_owned(), Some(Instant::now()));
    }

    fn end(&self) {
        if io::stderr().is_terminal() {
            eprintln!();
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const LINE_EVERY: Duration = Duration::from_secs(5);
const LATE_MAX: Duration = Duration::from_secs(5);
