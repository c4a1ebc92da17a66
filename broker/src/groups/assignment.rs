//! Who gets what: from members and topics to a target, with no state of its own.
//!
//! `uniform` gives everyone as much as the next, moves nothing that need not move for that, and among
//! equals prefers who is in a rack with a replica (KIP-881). `range` gives out each topic in runs, so that the same
//! member gets the partitions of the same number of all topics.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{PartitionId, TopicId, TopicPartition};
use highwater_protocol::native::groups::{Assignor, MemberId};

use super::record::Partitions;
use crate::mutant::{self, Mutant};

/// A topic that somebody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its id.
    pub id: TopicId,
    /// The racks in which each of its partitions has replicas.
    pub racks: Vec<BTreeSet<String>>,
}

/// A member, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Who.
    pub member: MemberId,
    /// The order in which `range` goes: it should survive a restart.
    pub order: (Option<&'a str>, MemberId),
    /// Its failure domain.
    pub rack: Option<&'a str>,
    /// The topics that it reads.
    pub topics: BTreeSet<TopicId>,
    /// What it was to have before.
    pub before: &'a Partitions,
}

/// Who is to have what.
pub fn assign(
    assignor: Assignor,
    candidates: &[Candidate<'_>],
    subjects: &[Subject],
) -> BTreeMap<MemberId, Partitions> {
    match assignor {
        Assignor::Uniform => Uniform::new(candidates, subjects).assigned(),
        Assignor::Range => range(candidates, subjects),
    }
}

fn range(candidates: &[Candidate<'_>], subjects: &[Subject]) -> BTreeMap<MemberId, Partitions> {
    let mut given: BTreeMap<MemberId, Partitions> =
        candidates.iter().map(|it| (it.member, Partitions::new())).collect();
    for subject in subjects {
        let reads = |it: &&Candidate<'_>| it.topics.contains(&subject.id);
        let mut readers: Vec<_> = candidates.iter().filter(reads).collect();
        readers.sort_by_key(|it| it.order);
        let (count, over) = match readers.len() {
            0 => continue,
            readers => (subject.racks.len() / readers, subject.racks.len() % readers),
        };
        let mut next = 0;
        for (at, reader) in readers.iter().enumerate() {
            let end = next + count + usize::from(at < over);
            let run = (next..end).map(|number| subject.partition(number));
            given.get_mut(&reader.member).expect("every candidate is there").extend(run);
            next = end;
        }
    }
    given
}

/// The uniform assignor at work: how much each has, and who reads what.
struct Uniform<'a> {
    subjects: &'a [Subject],
    racks: BTreeMap<MemberId, Option<&'a str>>,
    given: BTreeMap<MemberId, Partitions>,
    /// The readers of each topic by how much they have of all topics.
    readers: BTreeMap<TopicId, BTreeSet<(usize, MemberId)>>,
    topics: BTreeMap<MemberId, BTreeSet<TopicId>>,
}

impl<'a> Uniform<'a> {
    /// Everybody keeps what it has and may have.
    fn new(candidates: &'a [Candidate<'a>], subjects: &'a [Subject]) -> Uniform<'a> {
        let counts: BTreeMap<TopicId, usize> =
            subjects.iter().map(|subject| (subject.id, subject.racks.len())).collect();
        let mut uniform = Uniform {
            subjects,
            racks: candidates.iter().map(|it| (it.member, it.rack)).collect(),
            given: BTreeMap::new(),
            readers: counts.keys().map(|topic| (*topic, BTreeSet::new())).collect(),
            topics: BTreeMap::new(),
        };
        let mut taken = Partitions::new();
        for candidate in candidates {
            let known = candidate.topics.iter().filter(|topic| counts.contains_key(topic));
            let topics: BTreeSet<TopicId> = known.copied().collect();
            let may_have = |at: &&TopicPartition| {
                topics.contains(&at.topic) && (at.partition.0 as usize) < counts[&at.topic]
            };
            let before = candidate.before.iter().filter(may_have).copied();
            let before = before.filter(|_| !mutant::active(Mutant::NotSticky));
            let kept: Partitions = before.filter(|partition| taken.insert(*partition)).collect();
            for topic in &topics {
                let readers = uniform.readers.get_mut(topic).expect("known topics only");
                readers.insert((kept.len(), candidate.member));
            }
            uniform.given.insert(candidate.member, kept);
            uniform.topics.insert(candidate.member, topics);
        }
        uniform.give_out(&taken);
        if !mutant::active(Mutant::NotEvened) {
            uniform.even_out();
        }
        uniform
    }

    fn assigned(self) -> BTreeMap<MemberId, Partitions> {
        self.given
    }

    /// What nobody has goes to whoever has least.
    fn give_out(&mut self, taken: &Partitions) {
        for subject in self.subjects {
            for number in 0..subject.racks.len() {
                let partition = subject.partition(number);
                if !taken.contains(&partition)
                    && let Some(member) = self.least(subject, number)
                {
                    self.change(member, |given| given.insert(partition));
                }
            }
        }
    }

    /// Of those who read a topic and have least, one that is in a rack with a replica.
    fn least(&self, subject: &Subject, number: usize) -> Option<MemberId> {
        let readers = &self.readers[&subject.id];
        let (load, first) = *readers.first()?;
        let near = |member: &MemberId| {
            self.racks[member].is_some_and(|rack| subject.racks[number].contains(rack))
        };
        let equals = readers.iter().take_while(|(other, _)| *other == load);
        let nearest = equals.map(|(_, member)| *member).find(near);
        Some(nearest.unwrap_or(first))
    }

    /// Moves partitions one by one, as long as that makes it more even: each lowers the sum of the squares.
    fn even_out(&mut self) {
        while let Some((from, to, partition)) = self.better() {
            self.change(from, |given| given.remove(&partition));
            self.change(to, |given| given.insert(partition));
        }
    }

    /// A partition that would be better with somebody who has at least two fewer.
    fn better(&self) -> Option<(MemberId, MemberId, TopicPartition)> {
        let mut by_load: Vec<(usize, MemberId)> =
            self.given.iter().map(|(member, given)| (given.len(), *member)).collect();
        by_load.sort_unstable_by(|one, other| other.cmp(one));
        for (load, from) in by_load {
            let lighter = |topic: &TopicId| {
                let (least, to) = *self.readers[topic].first()?;
                (least + 2 <= load).then_some(to)
            };
            let open: BTreeMap<TopicId, MemberId> = self.topics[&from]
                .iter()
                .filter_map(|topic| Some((*topic, lighter(topic)?)))
                .collect();
            // The last one: whoever joins takes from the ends, and what is kept stays together.
            let movable = self.given[&from].iter().rev().find(|at| open.contains_key(&at.topic));
            if let Some(partition) = movable {
                return Some((from, open[&partition.topic], *partition));
            }
        }
        None
    }

    fn change(&mut self, member: MemberId, change: impl FnOnce(&mut Partitions) -> bool) {
        let given = self.given.get_mut(&member).expect("every candidate is there");
        let before = given.len();
        assert!(change(given), "it was looked at before");
        let after = given.len();
        for topic in &self.topics[&member] {
            let readers = self.readers.get_mut(topic).expect("known topics only");
            readers.remove(&(before, member));
            readers.insert((after, member));
        }
    }
}

impl Subject {
    fn partition(&self, number: usize) -> TopicPartition {
        let number = u32::try_from(number).expect("a topic has far fewer partitions");
        TopicPartition::new(self.id, PartitionId(number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn topic(number: usize) -> TopicId {
        TopicId(Uuid::from_u128(number as u128))
    }

    fn member(number: usize) -> MemberId {
        MemberId(Uuid::from_u128(number as u128))
    }

    fn subjects(counts: &[usize]) -> Vec<Subject> {
        let subject = |(number, count): (usize, &usize)| Subject {
            id: topic(number),
            racks: (0..*count).map(|at| BTreeSet::from([format!("r{}", at % 3)])).collect(),
        };
        counts.iter().enumerate().map(subject).collect()
    }

    fn run(
        assignor: Assignor,
        reads: &[BTreeSet<usize>],
        before: &BTreeMap<MemberId, Partitions>,
        subjects: &[Subject],
    ) -> BTreeMap<MemberId, Partitions> {
        let nothing = Partitions::new();
        let candidates: Vec<Candidate<'_>> = reads
            .iter()
            .enumerate()
            .map(|(number, topics)| Candidate {
                member: member(number),
                order: (None, member(number)),
                rack: None,
                topics: topics.iter().map(|topic_number| topic(*topic_number)).collect(),
                before: before.get(&member(number)).unwrap_or(&nothing),
            })
            .collect();
        assign(assignor, &candidates, subjects)
    }

    /// Everything that somebody reads is given out once, and only to those who read it.
    fn check(
        given: &BTreeMap<MemberId, Partitions>,
        reads: &[BTreeSet<usize>],
        subjects: &[Subject],
    ) {
        let mut all = Partitions::new();
        for (number, topics) in reads.iter().enumerate() {
            for partition in &given[&member(number)] {
                assert!(topics.iter().any(|it| topic(*it) == partition.topic), "it reads it");
                assert!(all.insert(*partition), "given twice");
            }
        }
        let read: BTreeSet<usize> = reads.iter().flatten().copied().collect();
        let wanted: usize =
            read.iter().filter_map(|number| subjects.get(*number)).map(|it| it.racks.len()).sum();
        assert_eq!(all.len(), wanted);
    }

    proptest! {
        #[test]
        fn every_partition_has_one_reader_and_equals_have_equally_many(
            counts in vec(0..20_usize, 1..4),
            members in 1..12_usize,
            range in any::<bool>(),
        ) {
            let subjects = subjects(&counts);
            let reads = vec![(0..counts.len()).collect::<BTreeSet<_>>(); members];
            let assignor = if range { Assignor::Range } else { Assignor::Uniform };
            let given = run(assignor, &reads, &BTreeMap::new(), &subjects);
            check(&given, &reads, &subjects);
            if !range {
                let (least, most) = (
                    given.values().map(Partitions::len).min().unwrap_or(0),
                    given.values().map(Partitions::len).max().unwrap_or(0),
                );
                prop_assert!(most - least <= 1, "{least} to {most}");
            }
        }

        #[test]
        fn whoever_reads_what_it_likes_gets_only_that_and_all_of_it_is_given_out(
            counts in vec(1..12_usize, 1..5),
            reads in vec(btree_set(0..5_usize, 0..4), 1..8),
        ) {
            let subjects = subjects(&counts);
            let given = run(Assignor::Uniform, &reads, &BTreeMap::new(), &subjects);
            check(&given, &reads, &subjects);
            let given = run(Assignor::Range, &reads, &BTreeMap::new(), &subjects);
            check(&given, &reads, &subjects);
        }

        #[test]
        fn only_what_must_moves_when_members_come_and_go(
            count in 1..60_usize,
            before in 1..10_usize,
            after in 1..10_usize,
        ) {
            let subjects = subjects(&[count]);
            let all = |members| vec![BTreeSet::from([0_usize]); members];
            let first = run(Assignor::Uniform, &all(before), &BTreeMap::new(), &subjects);
            let second = run(Assignor::Uniform, &all(after), &first, &subjects);
            check(&second, &all(after), &subjects);
            let kept: usize = (0..before.min(after))
                .map(|at| first[&member(at)].intersection(&second[&member(at)]).count())
                .sum();
            let most = count.div_ceil(after);
            let stays = |at: usize| first[&member(at)].len().min(most);
            let could: usize = (0..before.min(after)).map(stays).sum();
            // With a remainder, whether one keeps one more or another one does is all the same.
            prop_assert!(kept + after >= could, "{kept} of {could} stayed");
            if after >= before {
                let moved = count - kept;
                let fair = (after - before) * (count / after + 1);
                prop_assert!(moved <= fair, "{moved} moved, {fair} would do");
            }
        }
    }

    #[test]
    fn of_those_who_have_as_much_the_one_in_a_rack_with_a_replica_gets_it() {
        let subjects = subjects(&[3]);
        let nothing = Partitions::new();
        let candidate = |number: usize, rack| Candidate {
            member: member(number),
            order: (None, member(number)),
            rack: Some(rack),
            topics: BTreeSet::from([topic(0)]),
            before: &nothing,
        };
        let candidates = [candidate(1, "r2"), candidate(2, "r1"), candidate(3, "r0")];
        let given = assign(Assignor::Uniform, &candidates, &subjects);
        for (number, partition) in [(1, 2), (2, 1), (3, 0)] {
            let wanted = TopicPartition::new(topic(0), PartitionId(partition));
            assert_eq!(given[&member(number)], BTreeSet::from([wanted]));
        }
    }
}
