//! Whether a replica to open may have forgotten what it said: its votes, and what it counted.
//!
//! The journal has a replica's vote, the directory its log. Where one is there without the other, what is
//! missing was lost; and that is noted before anything could make it look whole again.

use std::io;
use std::path::PathBuf;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Position, TopicPartition};

use super::Shard;
use super::event::{AdminReply, AfterClose, Effect, Identity, OpenReplica, RequestId};
use super::journal::Memory;
use crate::log;
use crate::mutant::{self, Mutant};
use crate::raft::{Counts, HardState, Suspicion};
use crate::replica::{LastLife, Logged, Remembered};

impl Shard {
    /// Whether a replica may have forgotten a vote.
    pub(super) fn identity(
        &self,
        known: Option<Remembered>,
        open: &OpenReplica,
    ) -> io::Result<Identity> {
        if open.identity == Identity::Founds {
            return Ok(Identity::Founds);
        }
        let names = match self.disk.list(&open.dir) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
            names => names,
        };
        let disagree = match (self.journal.memory(), known) {
            // A vote without a directory, or a log without a file: those are gone.
            (_, Some(known)) => match &names {
                Err(_) => known.hard != HardState::default(),
                Ok(names) => {
                    known.logged == Logged::Something
                        && !log::lies_in(&open.dir, names)
                        && !mutant::active(Mutant::EmptyDirectoryBelieved)
                }
            },
            // The journal knew every vote that was ever given, and this replica gave none.
            (Memory::Whole, None) => false,
            (Memory::Lost, None) => names.is_ok_and(|names| !names.is_empty()),
        };
        Ok(match (disagree, open.identity, known) {
            (true, _, _) => Identity::Lost,
            (false, Identity::Joins, Some(_)) => Identity::Same,
            (false, identity, _) => identity,
        })
    }

    /// Deletes what a closed replica has left, as its closing would have.
    pub(super) fn give_up(
        &mut self,
        id: RequestId,
        partition: TopicPartition,
        dir: PathBuf,
        out: &mut Vec<Effect>,
    ) {
        self.giving_up.push((id, partition, dir.clone()));
        if mutant::active(Mutant::GivesUpTooEarly) {
            out.push(Effect::Closed(partition, AfterClose::Delete));
            return;
        }
        if self.replicas.contains_key(&partition) {
            self.close_replica(partition, AfterClose::Delete, out);
            return;
        }
        self.unopened.remove(&partition);
        if self.is_there(&dir) {
            self.doom(partition, dir);
        }
        out.push(Effect::Closed(partition, AfterClose::Delete));
    }

    /// The files of a replica that is not open are deleted with this pass, once the journal says that they are nobody's copy.
    pub(super) fn doom(&mut self, partition: TopicPartition, dir: PathBuf) {
        let known = self.journal.get(partition);
        let lost = Remembered {
            hard: known.map_or(HardState::default(), |known| known.hard),
            suspicion: Suspicion::LostIdentity,
            last_life: LastLife::Clean,
            vouches: Counts::Flushed,
            recovery: known.and_then(|known| known.recovery),
            logged: Logged::Nothing,
        };
        self.journal.remember(partition, lost);
        self.doomed.insert(partition, dir);
    }

    /// Says of which replicas nothing is left, now that what this pass deletes is deleted.
    pub(super) fn answer_given_up(&mut self, out: &mut Vec<Effect>) {
        for (id, partition, dir) in std::mem::take(&mut self.giving_up) {
            let nothing_is_left = !self.replicas.contains_key(&partition) && !self.is_there(&dir);
            let answer = match nothing_is_left || mutant::active(Mutant::GivesUpTooEarly) {
                true => Ok(AdminReply::Done(Position::default())),
                false => {
                    let why = format!("{} is not deleted yet", dir.display());
                    Err(WireError::new(ErrorCode::StorageFailed, why))
                }
            };
            out.push(Effect::Answered(id, answer));
        }
    }

    /// That the files of a replica are gone is told by the lack of a directory, which an opening makes
    /// again: so it is written down before.
    pub(super) fn remember_loss(&mut self, open: &OpenReplica) -> io::Result<()> {
        match (open.identity, self.journal.get(open.partition)) {
            (Identity::Lost, Some(known)) if known.suspicion != Suspicion::LostIdentity => {
                let lost = Remembered { suspicion: Suspicion::LostIdentity, ..known };
                self.journal.remember(open.partition, lost);
                self.journal.flush()
            }
            (Identity::Lost | Identity::Same | Identity::Joins | Identity::Founds, _) => Ok(()),
        }
    }
}
