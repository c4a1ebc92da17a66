//! Replicas as lists of frames, each of one record, with the hashes that a broker would make of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use highwater_client::Unreadable;

use super::*;

/// A replica that begins behind `start` and holds one frame for each value.
#[derive(Debug, Clone)]
struct Fake {
    start: u64,
    frames: Vec<u32>,
    /// The frame that cannot be read.
    damaged: Option<u64>,
}

impl Fake {
    fn new(frames: impl IntoIterator<Item = u32>) -> Fake {
        Fake { start: 0, frames: frames.into_iter().collect(), damaged: None }
    }

    fn answer(&self, range: Option<DigestRange>) -> DigestReplicaResponse {
        let end = self.start + self.frames.len() as u64;
        DigestReplicaResponse {
            start: LogIndex(self.start),
            log_start: Offset(self.start),
            committed: LogIndex(end),
            high_watermark: Offset(end),
            digest: range.map(|range| self.digest(range, end)),
        }
    }

    fn digest(&self, range: DigestRange, end: u64) -> Digest {
        let from = range.from.0.max(self.start);
        let (mut at, mut bytes, mut hash) = (from, 0, range.seed);
        let mut unreadable = None;
        while at < end.min(range.until.0) && (bytes == 0 || bytes < u64::from(range.bytes_max)) {
            if self.damaged == Some(at) {
                let offsets = (Offset(at), Offset(at + 1));
                unreadable = Some(Unreadable { offsets, file: "1.log".to_owned() });
                break;
            }
            let mut hasher = DefaultHasher::new();
            (hash, self.frames[(at - self.start) as usize]).hash(&mut hasher);
            (at, bytes, hash) = (at + 1, bytes + FRAME_BYTES, hasher.finish().into());
        }
        Digest { end: LogIndex(at), offsets: (Offset(from), Offset(at)), bytes, hash, unreadable }
    }
}

/// Compares replicas on brokers 1 and up; those that are missing are away.
async fn compared(replicas: &[Option<Fake>]) -> Compared {
    let nodes = (1..=replicas.len()).map(|node| NodeId(node as u32)).collect();
    compare(nodes, async |node: NodeId, range| match &replicas[node.0 as usize - 1] {
        Some(replica) => Ok(replica.answer(range)),
        None => Err("nobody answers".to_owned()),
    })
    .await
}

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[tokio::test]
async fn replicas_that_hold_the_same_agree_over_many_windows() {
    let replica = Some(Fake::new(0..FRAMES));
    let found = compared(&[replica.clone(), replica.clone(), replica]).await;
    assert_eq!((found.verdict(), found.agree), ("agree", nodes(&[1, 2, 3])));
    assert_eq!(found.offsets, Some((Offset(0), Offset(FRAMES.into()))));
    assert_eq!(found.bytes, u64::from(FRAMES) * FRAME_BYTES);
}

#[tokio::test]
async fn the_one_of_three_that_differs_is_named_with_the_first_batch_also_if_it_leads() {
    for at in [0, 1, 17, 40, FRAMES - 1] {
        let mut other = Fake::new(0..FRAMES);
        other.frames[at as usize] += 1_000;
        for frame in &mut other.frames[at as usize + 1..] {
            *frame += 7;
        }
        let same = Some(Fake::new(0..FRAMES));
        let found = compared(&[Some(other), same.clone(), same]).await;
        assert_eq!((found.verdict(), found.agree), ("differ", nodes(&[2, 3])));
        let first = (Offset(at.into()), Offset(u64::from(at) + 1));
        assert_eq!(found.findings, [(NodeId(1), Finding::Differs(first))]);
    }
}

#[tokio::test]
async fn of_two_that_differ_the_leader_is_believed() {
    let mut other = Fake::new(0..FRAMES);
    other.frames[3] = 99;
    let found = compared(&[Some(Fake::new(0..FRAMES)), Some(other)]).await;
    assert_eq!(found.agree, nodes(&[1]));
    assert_eq!(found.findings[0].0, NodeId(2));
}

#[tokio::test]
async fn one_that_starts_later_is_compared_over_what_all_have() {
    let mut trimmed = Fake::new(10..FRAMES);
    trimmed.start = 10;
    let found = compared(&[Some(Fake::new(0..FRAMES)), Some(trimmed)]).await;
    assert_eq!(found.verdict(), "agree");
    assert_eq!(found.offsets, Some((Offset(10), Offset(FRAMES.into()))));
}

#[tokio::test]
async fn one_that_is_behind_is_compared_as_far_as_it_goes_and_one_that_is_away_is_named() {
    let whole = Some(Fake::new(0..FRAMES));
    let found = compared(&[whole.clone(), Some(Fake::new(0..30)), None, whole]).await;
    assert_eq!((found.verdict(), found.agree), ("incomplete", nodes(&[1, 4])));
    let behind = Finding::Behind { compared: Offset(30), end: Offset(FRAMES.into()) };
    assert_eq!(found.findings[0], (NodeId(2), behind));
    assert_eq!(found.findings[1], (NodeId(3), Finding::Away("nobody answers".to_owned())));

    let mut other = Fake::new(0..30);
    other.frames[20] = 99;
    let whole = Some(Fake::new(0..FRAMES));
    let found = compared(&[whole.clone(), Some(other), whole]).await;
    let differs = Finding::Differs((Offset(20), Offset(21)));
    assert_eq!((found.verdict(), &found.findings[..]), ("differ", &[(NodeId(2), differs)][..]));
}

#[tokio::test]
async fn a_damaged_batch_is_named_and_the_others_are_compared_on() {
    let mut damaged = Fake::new(0..FRAMES);
    damaged.damaged = Some(5);
    let whole = Some(Fake::new(0..FRAMES));
    let found = compared(&[whole.clone(), Some(damaged), whole]).await;
    assert_eq!((found.verdict(), found.agree), ("damaged", nodes(&[1, 3])));
    let range = (Offset(5), Offset(6));
    assert_eq!(found.findings, [(NodeId(2), Finding::Damaged(range, "1.log".to_owned()))]);
}

#[tokio::test]
async fn what_is_given_up_meanwhile_is_no_difference() {
    let replicas = RefCell::new(BTreeMap::from([1, 2].map(|node| (node, Fake::new(0..FRAMES)))));
    let found = compare(nodes(&[1, 2]), async |NodeId(node), range: Option<DigestRange>| {
        let mut replicas = replicas.borrow_mut();
        // One of them carries out a trim when the second window is asked for.
        if node == 2 && range.is_some_and(|range| range.from > LogIndex(0)) {
            let mut trimmed = Fake::new(60..FRAMES);
            trimmed.start = 60;
            replicas.insert(2, trimmed);
        }
        Ok(replicas[&node].answer(range))
    });
    let found = found.await;
    assert_eq!((found.verdict(), found.agree), ("agree", nodes(&[1, 2])));
    assert_eq!(found.offsets, Some((Offset(60), Offset(FRAMES.into()))));
}

#[tokio::test]
async fn an_empty_partition_agrees() {
    let found = compared(&[Some(Fake::new(0..0)), Some(Fake::new(0..0))]).await;
    assert_eq!((found.verdict(), found.bytes), ("agree", 0));
}

/// Three windows of 32 frames.
const FRAMES: u32 = 96;
const FRAME_BYTES: u64 = WINDOW_BYTES as u64 / 32;
