//! Replicas whose files failed, made anew from the others while the broker goes on.
//!
//! A failed write or flush is final for the files: the kernel forgets what it could not write. So the
//! replica is closed, its files are set aside, and it is opened again with nothing, as one that has
//! lost log and votes: it neither votes nor stands before it has caught up. What must hold:
//! * nothing is set aside before a leader has led for a while without it: that one has all that was
//!   ever committed. Where the others elect none, the files stay as they are for the next start;
//! * what the failed replica said may be under way still, and counts for the new one as long as the
//!   same leader leads. So that is not trusted in the same term before it has all of it again;
//! * it has happened once at most to a replica in a life of its broker, and to few: a disk that goes
//!   on failing is for people;
//! * what was set aside is deleted once a leader's word made the new replica trusted, for then it has
//!   all of it; also if that is in a later life.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use highwater_protocol::batch::VoterSet;
use highwater_protocol::ids::{Term, TopicPartition};
use highwater_protocol::peer::RaftMessage;

use super::Shard;
use super::event::{AfterClose, Effect, Millis};
use crate::disk::Disk;
use crate::log;
use crate::mutant::{self, Mutant};
use crate::raft::{Counts, Suspicion};
use crate::replica::{LastLife, Logged, Remembered};

/// What a replica that is out of service hears of the leader of the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    term: Term,
    /// Since when it has led, as far as is known here.
    since: Millis,
    last: Millis,
}

impl Heard {
    /// Somebody spoke as the leader of a term, who may be silent for so long.
    fn again(before: Option<Heard>, now: Millis, term: Term, silence_ms_max: u64) -> Heard {
        let goes_on = |heard: &Heard| {
            heard.term == term && now.0.saturating_sub(heard.last.0) <= silence_ms_max
        };
        match before {
            Some(heard) if heard.term > term => heard,
            Some(heard) if goes_on(&heard) => Heard { last: now, ..heard },
            Some(_) | None => Heard { term, since: now, last: now },
        }
    }
}

impl Shard {
    /// A message for a replica that is out of service: it is made anew once somebody has led the others
    /// for long enough.
    pub(super) fn heard_while_failed(
        &mut self,
        now: Millis,
        partition: TopicPartition,
        message: &RaftMessage,
        out: &mut Vec<Effect>,
    ) {
        let hosted = self.replicas.get_mut(&partition).expect("the caller found it");
        let Some(term) = led_term(message) else { return };
        if term < hosted.known.map_or(Term(0), |known| known.hard.term) {
            return;
        }
        let beat_ms = self.round.every_ms();
        let silence_ms_max = SILENCE_MS_MAX.max(SILENCE_BEATS_MAX * beat_ms);
        let led_ms_min = LED_MS_MIN.max(LED_BEATS_MIN * beat_ms);
        let heard = Heard::again(hosted.heard, now, term, silence_ms_max);
        hosted.heard = Some(heard);
        // Who knows of no other voter has nobody to be made anew from; what it lost is for people to accept.
        let alone = hosted.replica.raft().voter_set().voters == [self.boot.me];
        let fails_on =
            alone || self.rebuilt.len() >= REBUILT_MAX || self.rebuilt.contains_key(&partition);
        if now.0.saturating_sub(heard.since.0) >= led_ms_min && !fails_on {
            self.rebuild(now, partition, out);
        }
    }

    fn rebuild(&mut self, now: Millis, partition: TopicPartition, out: &mut Vec<Effect>) {
        let hosted = &self.replicas[&partition];
        let (mut open, said) = (hosted.open.clone(), hosted.replica.raft().said());
        if open.voters == [self.boot.me] {
            // Others have joined since it was opened as the only one.
            let VoterSet { voters, learners } = hosted.replica.raft().voter_set().clone();
            (open.voters, open.learners) = (voters, learners);
        }
        self.rebuilt.insert(partition, said);
        out.push(Effect::Rebuilding(partition));
        self.close_replica(partition, AfterClose::Keep, out);
        let known = self.journal.get(partition);
        let hard = known.map(|known| known.hard).unwrap_or_default();
        let lost = Remembered {
            hard,
            suspicion: Suspicion::LostIdentity,
            last_life: LastLife::Clean,
            vouches: Counts::Flushed,
            recovery: known.and_then(|known| known.recovery),
            logged: Logged::Something,
        };
        let lost = match mutant::active(Mutant::RebuiltTrusted) {
            true => Remembered { suspicion: Suspicion::None, logged: Logged::Nothing, ..lost },
            false => lost,
        };
        // Before a file has moved: what a crash leaves of them is nobody's copy.
        self.journal.remember(partition, lost);
        if let Err(error) = self.journal.flush() {
            out.push(Effect::Failed(partition, error.to_string()));
            return;
        }
        let since_s =
            self.wall.map_or(self.boot.incarnation.0, |wall| wall.0.max(0) as u64 / 1_000);
        let aside = self.stray_dir.join(format!("{FAILED}{since_s}-{}", name_of(&open.dir)));
        self.to_set_aside.insert(partition, aside);
        self.open_replica(now, open, out);
    }

    /// Whether files of a failed replica have to be moved still before it can be opened.
    pub(super) fn is_half_set_aside(&self, partition: TopicPartition) -> bool {
        self.to_set_aside.contains_key(&partition)
    }

    /// Moves what is left of the files of a failed replica where nobody opens them, if it has to be made anew. After an
    /// error it is tried again, unless the names themselves could not be made durable: that is final.
    pub(super) fn set_files_aside(
        &mut self,
        partition: TopicPartition,
        dir: &Path,
    ) -> io::Result<()> {
        let Some(aside) = self.to_set_aside.get(&partition).cloned() else { return Ok(()) };
        self.disk.create_dir(&aside)?;
        let names = match self.disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.create_dir(dir)?;
                Vec::new()
            }
            names => names?,
        };
        for name in names {
            self.disk.rename(&dir.join(&name), &aside.join(&name))?;
        }
        self.to_set_aside.remove(&partition);
        self.disk.flush_dir(&aside)?;
        self.disk.flush_dir(dir)?;
        tracing::warn!(%partition, aside = %aside.display(), "the replica is made anew from the others");
        self.aside.entry(partition).or_default().push(aside);
        Ok(())
    }

    /// A replica was opened: what earlier lives have set aside of it is its own.
    pub(super) fn take_left_aside(&mut self, partition: TopicPartition, dir: &Path) {
        if let Some(left) = self.left_aside.remove(&name_of(dir)) {
            self.aside.entry(partition).or_default().extend(left);
        }
    }

    /// Deletes what was set aside of replicas that are trusted again, as the journal says durably by now.
    pub(super) fn delete_replaced(&mut self) {
        let trusted = |partition: &TopicPartition| {
            self.replicas.get(partition).is_some_and(|hosted| {
                let known = hosted.known.is_some_and(|it| it.suspicion == Suspicion::None);
                known && !hosted.replica.is_failed()
            })
        };
        let replaced: Vec<TopicPartition> = self.aside.keys().copied().filter(trusted).collect();
        for partition in replaced {
            for aside in self.aside.remove(&partition).expect("it was listed just now") {
                let Err(error) = log::remove(&*self.disk, &aside) else { continue };
                if error.kind() == io::ErrorKind::StorageFull {
                    self.aside.entry(partition).or_default().push(aside);
                    continue;
                }
                let dir = aside.display();
                tracing::warn!(%partition, %dir, %error, "what was set aside could not be deleted");
            }
        }
    }
}

/// What earlier lives have set aside and not deleted, by the names that the directories had.
pub(super) fn left_aside(disk: &dyn Disk, stray_dir: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut left: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for name in disk.list(stray_dir).unwrap_or_default() {
        let failed = name.strip_prefix(FAILED).and_then(|rest| rest.split_once('-'));
        if let Some((_, before)) = failed {
            left.entry(before.to_owned()).or_default().push(stray_dir.join(&name));
        }
    }
    left
}

fn name_of(dir: &Path) -> String {
    let name = dir.file_name().expect("a replica has a directory of its own");
    name.to_string_lossy().into_owned()
}

/// The term that the sender of a message leads.
fn led_term(message: &RaftMessage) -> Option<Term> {
    match message {
        RaftMessage::Append(request) => Some(request.term),
        RaftMessage::Heartbeat(heartbeat) => Some(heartbeat.term),
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_)
        | RaftMessage::Found(_) => None,
    }
}

/// So begins the name under which the files of a failed replica are set aside.
pub const FAILED: &str = "failed-";
/// For so long the others must have had a leader: longer than one goes on that has lost its majority.
const LED_MS_MIN: u64 = 2_000;
/// The same in heartbeats, where those are rare.
const LED_BEATS_MIN: u64 = 20;
/// A leader that is silent for longer may have lost its majority meanwhile.
const SILENCE_MS_MAX: u64 = 500;
/// The same in heartbeats.
const SILENCE_BEATS_MAX: u64 = 5;
/// So many replicas of a shard are made anew in one life.
const REBUILT_MAX: usize = 8;
