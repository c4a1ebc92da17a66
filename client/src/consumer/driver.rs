//! The task behind a consumer: it keeps the membership alive, commits what it is given, and finds out where
//! assigned partitions begin. It runs while the program works on its records.
//!
//! One request to the coordinator is under way at a time, so that they come in the order of their numbers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_protocol::native::groups::{
    Beat, CommitOffsetsRequest, CommitOffsetsResponse, GroupHeartbeatRequest,
    GroupHeartbeatResponse, OffsetToCommit, Returns,
};
use tokio::sync::{mpsc, oneshot};

use super::ConsumerConfig;
use super::coordinator::Coordinator;
use super::membership::{Membership, Ms, News, Refusal};
use super::place::{self, Found, Placed};
use super::polling::{Presence, patience};
use crate::client::Core;
use crate::connection::Call;
use crate::error::{Error, ErrorKind};
use crate::hooks::Rebalance;

/// What a consumer tells its driver.
pub(super) enum Word {
    /// These were given up, as they were to be with the revocation of this number.
    GaveUp(u64, Vec<TopicPartition>),
    /// Commit this, and say what became of it.
    Commit(Vec<OffsetToCommit>, oneshot::Sender<Result<(), Error>>),
    /// The program is back, and may have been taken for stuck.
    Polled,
    /// Leave the group, and say when that is done.
    Close(oneshot::Sender<()>),
}

/// What a driver tells its consumer.
pub(super) enum Tidings {
    /// These are its own, to be read from there.
    Assigned(Vec<Placed>),
    /// These are to be given up; which revocation that is.
    Revoked(u64, Vec<TopicPartition>),
    /// These were given up, or lost.
    Gone(Vec<TopicPartition>, Why),
    /// The program was away for so long, and what follows is what it lost.
    Stalled(Duration),
    /// It cannot be a member any more.
    Failed(Error),
}

/// Why partitions are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It said so itself.
    GivenUp,
    /// Somebody else may own them.
    Lost,
}

/// The driver's own state.
pub(super) struct Driver {
    core: Arc<Core>,
    config: Arc<ConsumerConfig>,
    coordinator: Coordinator,
    membership: Membership,
    words: mpsc::UnboundedReceiver<Word>,
    tidings: mpsc::UnboundedSender<Tidings>,
    presence: Arc<Presence>,
    /// The program, or a worker, is away for too long, and the member is none.
    stuck: bool,
    commits: VecDeque<Committing>,
    under_way: Option<BoxFuture<'static, Done>>,
    placing: FuturesUnordered<BoxFuture<'static, Searched>>,
    /// Which assignment of a partition is the newest.
    assigned: BTreeMap<TopicPartition, u64>,
    assignments: u64,
    /// Which revocation of a partition is the newest.
    revoked: BTreeMap<TopicPartition, u64>,
    revocations: u64,
    leaving: Option<oneshot::Sender<()>>,
}

struct Committing {
    offsets: Vec<OffsetToCommit>,
    reply: oneshot::Sender<Result<(), Error>>,
    begun: Instant,
}

/// Where partitions of an assignment begin, and which assignment that was.
type Searched = (u64, Result<Found, Error>);

enum Done {
    Beat(Beat, Result<GroupHeartbeatResponse, Error>),
    Commit(Committing, Result<CommitOffsetsResponse, Error>),
    Left,
}

impl Driver {
    pub fn new(
        core: Arc<Core>,
        config: Arc<ConsumerConfig>,
        coordinator: Coordinator,
        membership: Membership,
        ways: (mpsc::UnboundedReceiver<Word>, mpsc::UnboundedSender<Tidings>),
        presence: Arc<Presence>,
    ) -> Driver {
        let (words, tidings) = ways;
        Driver {
            core,
            config,
            coordinator,
            membership,
            words,
            tidings,
            presence,
            stuck: false,
            commits: VecDeque::new(),
            under_way: None,
            placing: FuturesUnordered::new(),
            assigned: BTreeMap::new(),
            assignments: 0,
            revoked: BTreeMap::new(),
            revocations: 0,
            leaving: None,
        }
    }

    /// Runs until the consumer has left the group, is dropped, or can be a member no more.
    pub async fn run(mut self) {
        loop {
            let now = self.now();
            if let Some(news) = self.membership.look(now) {
                self.tell([news]);
            }
            self.look_after(now);
            self.ask(now);
            let wake = self.presence.begun + Duration::from_millis(self.wakes_at(now));
            tokio::select! {
                done = under_way(&mut self.under_way) => {
                    self.under_way = None;
                    if !self.done(done) {
                        return;
                    }
                }
                Some((number, found)) = self.placing.next() => self.found(number, found),
                word = self.words.recv() => match word {
                    Some(word) => self.take(word),
                    // Dropped without a close: the others need not wait for the session's end.
                    None => return self.say_goodbye().await,
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    fn now(&self) -> Ms {
        self.presence.now()
    }

    fn wakes_at(&self, now: Ms) -> Ms {
        if self.stuck {
            // A program that is back says so, and a worker is looked for.
            return now + IDLE_MS;
        }
        let since = self.presence.away_since();
        let stuck = since.map_or(Ms::MAX, |since| since + self.patience());
        self.membership.wakes_at().min(stuck).clamp(now + 1, now + IDLE_MS)
    }

    fn patience(&self) -> Ms {
        patience(self.config.poll_interval_max)
    }

    /// Who has not asked for long has no use for his partitions.
    fn look_after(&mut self, now: Ms) {
        let for_long = |since: &Ms| now >= since + self.patience();
        if self.stuck {
            self.stuck = self.presence.away_since().is_some_and(|since| for_long(&since));
            return;
        }
        let Some(since) = self.presence.away_since().filter(for_long) else { return };
        let owned = self.membership.owned().len();
        tracing::warn!(
            group = self.config.group,
            for_ms = now - since,
            partitions = owned,
            "the program, or a worker of it, has not asked for records for longer than its poll_interval_max; it leaves \
             the group until it does"
        );
        self.stuck = true;
        let away = Duration::from_millis(now - since);
        self.core.watch.rebalanced(&self.config.group, &Rebalance::Stalled(away));
        // Whoever has ended needs no news.
        let _ = self.tidings.send(Tidings::Stalled(away));
        let news = self.membership.lose(now);
        self.tell(news);
        self.under_way = Some(self.goodbye(now));
    }

    /// Sends what is due: commits first, because a heartbeat may give up what they are about.
    fn ask(&mut self, now: Ms) {
        if self.under_way.is_some() {
            return;
        }
        while let Some(committing) = self.commits.pop_front() {
            match self.membership.committer() {
                Some(by) => {
                    let group = self.config.group_id();
                    let offsets = committing.offsets.clone();
                    let request = CommitOffsetsRequest { group, by, offsets };
                    let coordinator = self.coordinator.clone();
                    self.under_way = Some(Box::pin(async move {
                        let result = coordinator.ask(&request).await;
                        Done::Commit(committing, result)
                    }));
                    return;
                }
                None => {
                    let text = format!(
                        "cannot commit offsets of group {}: this consumer is no member of it at the moment",
                        self.config.group
                    );
                    // Whoever asked may have gone on.
                    let error = Error::new(ErrorKind::Refused(ErrorCode::UnknownMember), text);
                    let _ = committing.reply.send(Err(error));
                }
            }
        }
        if self.leaving.is_some() {
            self.under_way = Some(self.goodbye(now));
        } else if !self.stuck {
            self.beat(now);
        }
    }

    fn goodbye(&mut self, now: Ms) -> BoxFuture<'static, Done> {
        let request = self.membership.leave(self.returns(), now);
        let coordinator = self.coordinator.clone();
        Box::pin(async move {
            leave(&coordinator, &request).await;
            Done::Left
        })
    }

    /// One that has a name keeps its place for a session.
    fn returns(&self) -> Returns {
        if self.config.instance.is_some() { Returns::Soon } else { Returns::No }
    }

    async fn say_goodbye(mut self) {
        let now = self.now();
        let request = self.membership.leave(self.returns(), now);
        leave(&self.coordinator, &request).await;
    }

    /// Takes in what has come of a request; says whether there is anything left to do.
    fn done(&mut self, done: Done) -> bool {
        let now = self.now();
        match done {
            Done::Beat(beat, Ok(answer)) => {
                let news = self.membership.answered(beat, &answer, now);
                self.tell(news);
            }
            Done::Beat(beat, Err(error)) => return self.refused(beat, error, now),
            Done::Commit(committing, result) => self.committed(committing, result, now),
            Done::Left => {
                if let Some(reply) = self.leaving.take() {
                    // Whoever closed it may not have waited.
                    let _ = reply.send(());
                    return false;
                }
                self.membership.hurry(now);
            }
        }
        true
    }

    fn refused(&mut self, beat: Beat, error: Error, now: Ms) -> bool {
        let Some(code) = error.code() else {
            self.membership.failed(beat, now);
            return !error.fatal() || self.fail(error);
        };
        match self.membership.refused(beat, code, now) {
            Refusal::GoesOn(news) => self.tell(news),
            Refusal::Final => return self.fail(error),
        }
        true
    }

    fn fail(&mut self, error: Error) -> bool {
        let lost = self.membership.lose(self.now());
        self.tell(lost);
        // The consumer may be dropped already.
        let _ = self.tidings.send(Tidings::Failed(error));
        false
    }

    fn committed(
        &mut self,
        committing: Committing,
        result: Result<CommitOffsetsResponse, Error>,
        now: Ms,
    ) {
        let result = match result {
            Ok(answer) => match answer.results.into_iter().find_map(Result::err) {
                None => Ok(()),
                Some(why) => {
                    let act = format!("commit offsets of group {}", self.config.group);
                    Err(Error::refused(&act, &why))
                }
            },
            // Another coordinator leads, which this member has not heard yet: after the next heartbeat it has.
            Err(error)
                if error.code() == Some(ErrorCode::StaleMemberEpoch)
                    && committing.begun.elapsed() < self.core.config.request_timeout =>
            {
                self.membership.hurry(now);
                self.beat(now);
                self.commits.push_front(committing);
                return;
            }
            Err(error) => Err(error),
        };
        // Whoever asked may have gone on.
        let _ = committing.reply.send(result);
    }

    fn beat(&mut self, now: Ms) {
        if let Some(request) = self.membership.request(now) {
            let coordinator = self.coordinator.clone();
            self.under_way = Some(Box::pin(async move {
                let beat = request.beat;
                Done::Beat(beat, coordinator.ask(&request).await)
            }));
        }
    }

    fn take(&mut self, word: Word) {
        let now = self.now();
        match word {
            Word::GaveUp(number, mut partitions) => {
                // A late word of what was lost meanwhile says nothing of what came to be its own again, nor of what
                // is to be given up once more.
                partitions.retain(|it| self.revoked.get(it) == Some(&number));
                let gone = self.membership.gave_up(&partitions, now);
                for partition in &gone {
                    self.revoked.remove(partition);
                }
                let _ = self.tidings.send(Tidings::Gone(gone, Why::GivenUp));
            }
            Word::Commit(offsets, reply) => {
                self.commits.push_back(Committing { offsets, reply, begun: Instant::now() });
            }
            // It shows where it is looked for, which is done before anything else.
            Word::Polled => {}
            Word::Close(reply) => self.leaving = Some(reply),
        }
    }

    fn tell(&mut self, news: impl IntoIterator<Item = News>) {
        for news in news {
            let tidings = match news {
                News::Assigned(partitions) => {
                    self.place(partitions);
                    continue;
                }
                News::Revoked(partitions) => {
                    self.revocations += 1;
                    let number = self.revocations;
                    self.revoked.extend(partitions.iter().map(|partition| (*partition, number)));
                    Tidings::Revoked(number, self.forget(partitions))
                }
                News::Lost(partitions) => {
                    for partition in &partitions {
                        self.revoked.remove(partition);
                    }
                    Tidings::Gone(self.forget(partitions), Why::Lost)
                }
            };
            // The consumer may be dropped already; the next word says so.
            let _ = self.tidings.send(tidings);
        }
    }

    /// Of what was being placed, none is told any more.
    fn forget(&mut self, partitions: Vec<TopicPartition>) -> Vec<TopicPartition> {
        for partition in &partitions {
            self.assigned.remove(partition);
        }
        partitions
    }

    fn place(&mut self, partitions: Vec<TopicPartition>) {
        self.assignments += 1;
        let number = self.assignments;
        self.assigned.extend(partitions.iter().map(|partition| (*partition, number)));
        self.search(number, partitions);
    }

    fn search(&self, number: u64, partitions: Vec<TopicPartition>) {
        let (core, config) = (self.core.clone(), self.config.clone());
        let (coordinator, heard) = (self.coordinator.clone(), self.membership.heard());
        self.placing.push(Box::pin(async move {
            (number, place::place(&core, &config, &coordinator, partitions, heard).await)
        }));
    }

    fn found(&mut self, number: u64, found: Result<Found, Error>) {
        let is_due = |it: &TopicPartition| self.assigned.get(it) == Some(&number);
        match found {
            Ok(Found { mut placed, mut missing, mut failed }) => {
                missing.retain(is_due);
                placed.retain(|it| is_due(&it.partition));
                failed.retain(|(it, _)| is_due(it));
                if !missing.is_empty() {
                    self.search(number, missing);
                }
                let _ = self.tidings.send(Tidings::Assigned(placed));
                for (_, error) in failed {
                    let _ = self.tidings.send(Tidings::Failed(error));
                }
            }
            Err(error) => {
                let _ = self.tidings.send(Tidings::Failed(error));
            }
        }
    }
}

/// Says that a member is none any more; if nobody hears it, its session ends by itself.
async fn leave(coordinator: &Coordinator, request: &GroupHeartbeatRequest) {
    match tokio::time::timeout(GOODBYE_MAX, coordinator.ask(request)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "cannot {}: it leaves", request.act()),
        Err(_) => tracing::debug!("no coordinator heard that a member leaves"),
    }
}

async fn under_way(under_way: &mut Option<BoxFuture<'static, Done>>) -> Done {
    match under_way {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

const IDLE_MS: Ms = 1_000;
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// The record that comes next in a partition, to be committed.
pub(super) fn to_commit(partition: TopicPartition, offset: Offset) -> OffsetToCommit {
    OffsetToCommit { partition, offset, term: None, note: String::new() }
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{PartitionId, Term, TopicId};
    use highwater_protocol::native::groups::{MemberEpoch, MemberId};
    use uuid::Uuid;

    use super::*;

    type Told = mpsc::UnboundedReceiver<Tidings>;

    fn partition() -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::nil()), PartitionId(0))
    }

    /// A driver that does not run, and what it tells.
    fn driver() -> (Driver, Told) {
        let core = Core::for_tests();
        let config = Arc::new(ConsumerConfig::new("g", ["orders"]));
        let coordinator = Coordinator::at(core.clone(), partition());
        let member = MemberId(Uuid::from_u128(1));
        let membership = Membership::new(config.group_id(), member, config.profile("c"), 0);
        let (_, heard) = mpsc::unbounded_channel();
        let (told, tidings) = mpsc::unbounded_channel();
        let presence = Arc::new(Presence::new(config.prefetch_bytes_max));
        let driver = Driver::new(core, config, coordinator, membership, (heard, told), presence);
        (driver, tidings)
    }

    /// The coordinator says what is the member's own.
    fn assign(driver: &mut Driver, assigned: &[TopicPartition]) {
        driver.membership.hurry(0);
        let request = driver.membership.request(0).expect("it is time");
        let answer = GroupHeartbeatResponse {
            term: Term(1),
            epoch: MemberEpoch(1),
            heartbeat_ms: 1_000,
            assigned: assigned.to_vec(),
        };
        let news = driver.membership.answered(request.beat, &answer, 0);
        driver.tell(news);
    }

    #[tokio::test]
    async fn who_drops_an_old_revocation_does_not_give_up_what_a_newer_one_holds() {
        let (mut driver, mut told) = driver();
        let mut revoked = Vec::new();
        for _ in 0..2 {
            assign(&mut driver, &[partition()]);
            assign(&mut driver, &[]);
            while let Ok(tidings) = told.try_recv() {
                if let Tidings::Revoked(number, partitions) = tidings {
                    assert_eq!(partitions, [partition()]);
                    revoked.push(number);
                }
            }
            if revoked.len() == 1 {
                let lost = driver.membership.lose(0);
                driver.tell(lost);
            }
        }
        driver.take(Word::GaveUp(revoked[0], vec![partition()]));
        assert!(driver.membership.owned().contains(&partition()), "the newer one is held");
        driver.take(Word::GaveUp(revoked[1], vec![partition()]));
        assert!(driver.membership.owned().is_empty());
    }

    #[tokio::test]
    async fn who_was_taken_for_stuck_is_answered_and_may_leave_but_does_not_join() {
        let (mut driver, _tidings) = driver();
        driver.stuck = true;
        driver.ask(0);
        assert!(driver.under_way.is_none(), "it does not join");

        let mut replies = Vec::new();
        for _ in 0..2 {
            let (reply, result) = oneshot::channel();
            driver.take(Word::Commit(vec![to_commit(partition(), Offset(1))], reply));
            replies.push(result);
        }
        driver.ask(0);
        for mut reply in replies {
            let refused = reply.try_recv().expect("it is answered").expect_err("no member");
            assert_eq!(refused.code(), Some(ErrorCode::UnknownMember));
        }
        driver.take(Word::Close(oneshot::channel().0));
        driver.ask(0);
        assert!(driver.under_way.is_some(), "it leaves");
    }

    #[tokio::test]
    async fn who_stays_away_gives_all_up_is_told_and_joins_when_it_is_back() {
        let (mut driver, mut told) = driver();
        assign(&mut driver, &[partition()]);
        let patience = driver.patience();
        driver.look_after(patience - 1);
        assert!(!driver.stuck, "it may come back");

        driver.look_after(patience);
        assert!(driver.membership.owned().is_empty());
        let (first, second) = (told.try_recv().expect("news"), told.try_recv().expect("news"));
        assert!(matches!(first, Tidings::Stalled(away) if away.as_millis() == patience.into()));
        assert!(matches!(second, Tidings::Gone(lost, Why::Lost) if lost == [partition()]));
        assert_eq!(driver.core.watch.metrics().stalls, 1);
        driver.under_way = None;
        driver.look_after(patience + 1);
        driver.ask(patience + 1);
        assert!(driver.under_way.is_none(), "it does not join while it is away");

        driver.presence.set_polled(patience + 2);
        driver.look_after(patience + 2);
        driver.ask(patience + 2);
        assert!(driver.under_way.is_some(), "it joins");
    }
}
