//! What is committed, and what is decided on top of it: a decision that is not committed leaves no trace.

use std::collections::BTreeMap;

use highwater_protocol::native::groups::GroupId;

use super::image::{Contradiction, Group, Groups};
use super::record::{GroupChange, GroupRecord};

/// Groups with the changes that are not committed yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    groups: Groups,
    /// The groups that change, as they will be; `None` for one that goes.
    changed: BTreeMap<GroupId, Option<Group>>,
    decided: Vec<GroupRecord>,
    /// How much of a batch they take, at most.
    bytes: usize,
}

impl Ledger {
    pub fn new(groups: Groups) -> Ledger {
        Ledger { groups, ..Ledger::default() }
    }

    /// What is committed.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// A group with all that is decided.
    pub fn group(&self, id: &GroupId) -> Option<&Group> {
        match self.changed.get(id) {
            Some(changed) => changed.as_ref(),
            None => self.groups.get(id),
        }
    }

    /// Decides on a change.
    pub fn put(&mut self, id: &GroupId, change: GroupChange) {
        let known = || self.groups.get(id).cloned();
        let group = self.changed.entry(id.clone()).or_insert_with(known);
        match &change {
            GroupChange::Gone => *group = None,
            change => {
                let applied = group.get_or_insert_default().apply(change);
                applied.expect("a decision fits the group that it was made on");
            }
        }
        let record = GroupRecord { group: id.clone(), change };
        self.bytes += record.encode().len() + RECORD_OVERHEAD;
        self.decided.push(record);
    }

    /// The records to commit.
    pub fn decided(&self) -> &[GroupRecord] {
        &self.decided
    }

    /// How much of a batch they take, at most.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// They are committed.
    pub fn settle(&mut self) -> Result<(), Contradiction> {
        self.changed.clear();
        self.bytes = 0;
        std::mem::take(&mut self.decided).iter().try_for_each(|record| self.groups.apply(record))
    }

    /// They are not, and never will be.
    pub fn forget(&mut self) {
        self.forget_after(0);
    }

    /// All but the first so many are not to be.
    pub fn forget_after(&mut self, count: usize) {
        self.changed.clear();
        self.bytes = 0;
        let kept: Vec<_> = self.decided.drain(..).take(count).collect();
        kept.into_iter().for_each(|it| self.put(&it.group, it.change));
    }
}

/// What a record takes in a batch beside its value, at most.
const RECORD_OVERHEAD: usize = 32;
