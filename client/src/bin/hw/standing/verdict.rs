//! From what each replica says of itself to words: who is in which state, whether a record is
//! committed, and what it would survive.
//!
//! A record is committed where any replica says so: none does before a majority counts it, and no
//! later leader takes it back. Everything else is a picture of one moment, and is worded like that.

use highwater_client::{HeldBatch, InspectReplicaResponse, NodeId, Offset, ReplicaRole};

use super::Seen;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::ids;

/// What has become of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// For programs, and for `hw explain`.
    pub word: &'static str,
    /// For people.
    pub words: Vec<String>,
    /// The batch that holds it, of the replica that decides.
    pub batch: Option<HeldBatch>,
}

/// Who leads, by its own word: of several the one of the newest term.
pub(super) fn leader(seen: &[Seen]) -> Option<(NodeId, &InspectReplicaResponse)> {
    let leads =
        |seen: &&Seen| seen.answer.as_ref().is_ok_and(|answer| answer.role == ReplicaRole::Leader);
    let newest = seen
        .iter()
        .filter(leads)
        .max_by_key(|seen| seen.answer.as_ref().map(|answer| answer.term).ok());
    newest.and_then(|seen| Some((seen.node, seen.answer.as_ref().ok()?)))
}

/// Words for the state of a replica.
pub(super) fn states(seen: &Seen, led: bool) -> Vec<&'static str> {
    let mut states = Vec::new();
    if seen.fenced {
        states.push("fenced");
    }
    match &seen.answer {
        Err(_) => states.push("silent"),
        Ok(answer) => {
            if answer.suspect {
                states.push("suspect");
            }
            if led && answer.leader.is_none() {
                states.push("lost");
            }
        }
    }
    if states.is_empty() {
        states.push("ok");
    }
    states
}

/// How a replica has the record at an offset.
pub(super) fn held(seen: &Seen, offset: Offset) -> &'static str {
    match &seen.answer {
        Err(_) => "unknown",
        Ok(answer) if offset < answer.log_start => "given-up",
        Ok(answer) => match answer.batch {
            Some(batch) if batch.end_index <= answer.indexes.flushed => "flushed",
            Some(_) => "appended",
            None => "missing",
        },
    }
}

/// What is to be said of a partition as a whole.
pub(super) fn of_partition(seen: &[Seen]) -> Vec<String> {
    let mut words = Vec::new();
    let answers: Vec<_> = answers(seen).collect();
    match leader(seen) {
        Some((node, answer)) => {
            let uncommitted = answer.log_end.0.saturating_sub(answer.high_watermark.0);
            words.push(format!(
                "Broker {node} leads in term {}; {} records are committed and {} are not yet.",
                answer.term,
                human::count(answer.high_watermark.0.saturating_sub(answer.log_start.0)),
                human::count(uncommitted)
            ));
            let in_sync = answer.peers.iter().filter(|peer| peer.in_sync).count();
            let voters = answer.voters.len();
            if in_sync < voters {
                words.push(format!("{in_sync} of {voters} voters keep up with it."));
            }
        }
        None => {
            let voters = answers.iter().map(|(_, answer)| answer.voters.len()).max().unwrap_or(0);
            let able = answers
                .iter()
                .filter(|(node, answer)| answer.voters.contains(node) && !answer.suspect);
            words.push(format!(
                "Nobody leads: it can be neither written nor read. {} of {voters} voters answer and \
                 may stand, {} are needed.",
                able.count(),
                majority(voters)
            ));
        }
    }
    words.extend(seen.iter().filter_map(trouble));
    words
}

/// What is wrong with a replica, in a sentence.
fn trouble(seen: &Seen) -> Option<String> {
    let node = seen.node;
    match &seen.answer {
        Err(error) if seen.fenced => {
            Some(format!("Broker {node} is fenced and does not answer: {error}."))
        }
        Err(error) => Some(format!("Broker {node} says nothing of its replica: {error}.")),
        Ok(answer) if answer.suspect => Some(format!(
            "The replica on broker {node} is Suspect: it may have forgotten what it acknowledged, so \
             it neither votes nor stands until it has caught up with a leader."
        )),
        Ok(_) if seen.fenced => Some(format!(
            "Broker {node} answers, but the controller has lost touch with it and fenced it."
        )),
        Ok(_) => None,
    }
}

/// What has become of the record at an offset; an error where there never was one, or is no more.
pub(super) fn of_offset(name: &str, offset: Offset, seen: &[Seen]) -> Result<Verdict, Failure> {
    let answers: Vec<_> = answers(seen).collect();
    let Some(end) = answers.iter().map(|(_, answer)| answer.log_end).max() else {
        let why: Vec<String> = seen.iter().filter_map(trouble).collect();
        return Err(Failure::new(
            Exit::Failed,
            format!("no replica of {name} answers: {}", why.join(" ")),
        )
        .way_out("`hw cluster brokers` shows which brokers are up"));
    };
    let start = answers.iter().map(|(_, answer)| answer.log_start).max().unwrap_or_default();
    if offset < start {
        let what = format!(
            "{name} starts at offset {start}: the record at {offset} was given up, by retention or by a trim"
        );
        return Err(Failure::new(Exit::NotFound, what)
            .way_out(format!("ask for an offset from {start} on")));
    }
    if offset >= end {
        let what = format!(
            "{name} ends at offset {end} on every replica that answers: nothing is written at {offset} yet"
        );
        return Err(Failure::new(Exit::NotFound, what)
            .way_out(format!("ask for an offset from {start} to below {end}")));
    }
    let knows = |answer: &InspectReplicaResponse| answer.high_watermark > offset;
    Ok(match answers.iter().any(|(_, answer)| knows(answer)) {
        true => committed(offset, &answers),
        false => uncommitted(seen, &answers),
    })
}

type Answer<'a> = (NodeId, &'a InspectReplicaResponse);

fn answers(seen: &[Seen]) -> impl Iterator<Item = Answer<'_>> {
    seen.iter().filter_map(|seen| Some((seen.node, seen.answer.as_ref().ok()?)))
}

fn committed(offset: Offset, answers: &[Answer<'_>]) -> Verdict {
    let sure: Vec<_> =
        answers.iter().filter(|(_, answer)| answer.high_watermark > offset).collect();
    let batches = sure.iter().filter_map(|(node, answer)| Some((*node, answer.batch?)));
    let mut batches =
        batches.map(|(node, batch)| (batch.base, batch.term, batch.checksum, node, batch));
    let first = batches.next();
    let batch = first.map(|(.., batch)| batch);
    let mut words = vec!["Committed: consumers see it, and every later leader has it.".to_owned()];
    words.extend(batch.map(written));
    if let Some((base, term, checksum, one, _)) = first
        && let Some((_, _, _, other, _)) =
            batches.find(|(b, t, c, ..)| (*b, *t, *c) != (base, term, checksum))
    {
        words.push(format!(
            "ALARM: brokers {one} and {other} hold different batches there, and both call theirs \
             committed. This must never be: keep the files of both, and report it."
        ));
        return Verdict { word: "diverged", words, batch };
    }
    if let Some(batch) = batch {
        words.extend(copies(&batch, answers));
        words.push(safety(&batch, answers));
    }
    Verdict { word: "committed", words, batch }
}

fn written(batch: HeldBatch) -> String {
    let (oldest, newest) = batch.timestamps;
    let times = match oldest == newest {
        true => format!("at {}", human::time(oldest.0)),
        false => format!("between {} and {}", human::time(oldest.0), human::time(newest.0)),
    };
    format!(
        "The leader of term {} wrote it, in a batch of offsets {} to {}; its records are timed {times}.",
        batch.term,
        batch.base,
        batch.end.0.saturating_sub(1)
    )
}

/// Who has the very same batch, on disk or not.
fn copies(batch: &HeldBatch, answers: &[Answer<'_>]) -> Vec<String> {
    let has =
        |answer: &InspectReplicaResponse| answer.batch.is_some_and(|held| is_same(&held, batch));
    let on_disk = |answer: &InspectReplicaResponse| batch.end_index <= answer.indexes.flushed;
    let of = |wanted: bool| -> Vec<NodeId> {
        let mine = answers.iter().filter(|(_, answer)| has(answer) && on_disk(answer) == wanted);
        mine.map(|(node, _)| *node).collect()
    };
    let (flushed, cached) = (of(true), of(false));
    let mut words = vec![format!("On disk at brokers {}.", ids(&flushed))];
    if !cached.is_empty() {
        words.push(format!("Appended and not flushed at brokers {}.", ids(&cached)));
    }
    words
}

fn safety(batch: &HeldBatch, answers: &[Answer<'_>]) -> String {
    let newest = answers.iter().max_by_key(|(_, answer)| answer.term).map(|(_, answer)| *answer);
    let voters: &[NodeId] = newest.map_or(&[], |answer| &answer.voters);
    let flushed = answers.iter().filter(|(node, answer)| {
        let same = answer.batch.is_some_and(|held| is_same(&held, batch));
        same && batch.end_index <= answer.indexes.flushed && voters.contains(node)
    });
    let (flushed, needed) = (flushed.count(), majority(voters.len()));
    let interval = newest.and_then(|answer| answer.flush_interval_ms);
    let minority = voters.len().saturating_sub(needed);
    match (voters.len(), flushed >= needed, interval) {
        (0 | 1, true, _) => {
            "Safe from a power cut; there is one replica, so losing its disk loses it.".to_owned()
        }
        (_, true, _) => format!(
            "Safe: it survives a power cut of all brokers, and the loss of any {minority} of its {} \
             voters for good.",
            voters.len()
        ),
        (_, false, Some(ms)) => format!(
            "It survives the loss of any {minority} of its {} voters. Until a majority has flushed it \
             (within {ms} ms of the append) a power cut of a majority at once may lose it.",
            voters.len()
        ),
        (_, false, None) => format!(
            "{flushed} of {} voters that answer have it on disk; those that do not answer must have it \
             as well, for a majority had when it was committed.",
            voters.len()
        ),
    }
}

fn uncommitted(seen: &[Seen], answers: &[Answer<'_>]) -> Verdict {
    let holders: Vec<_> =
        answers.iter().filter_map(|(node, answer)| Some((*node, answer.batch?))).collect();
    let Some((node, answer)) = leader(seen) else {
        let batch = holders.iter().map(|(_, batch)| *batch).max_by_key(|batch| batch.term);
        let mut words = vec![
            "Nobody leads, and no replica that answers knows it to be committed: the next election \
             decides whether it stays."
                .to_owned(),
        ];
        words.extend(batch.map(written));
        words.extend(batch.iter().flat_map(|batch| copies(batch, answers)));
        return Verdict { word: "undecided", words, batch };
    };
    let Some(batch) = answer.batch else {
        let batch = holders.first().map(|(_, batch)| *batch);
        let others: Vec<NodeId> = holders.iter().map(|(node, _)| *node).collect();
        let mut words = vec![format!(
            "Not committed, and not in the log of broker {node}, which leads: brokers {} cut it away \
             as soon as they follow. Nobody was told that it is committed.",
            ids(&others)
        )];
        words.extend(batch.map(written));
        return Verdict { word: "abandoned", words, batch };
    };
    let counts = |answer: &InspectReplicaResponse| {
        let same = answer.batch.is_some_and(|held| is_same(&held, &batch));
        let flushed = batch.end_index <= answer.indexes.flushed;
        same && (flushed || answer.flush_interval_ms.is_some())
    };
    let counted: Vec<NodeId> = answers
        .iter()
        .filter(|(node, seen)| answer.voters.contains(node) && counts(seen))
        .map(|(node, _)| *node)
        .collect();
    let voters = answer.voters.len();
    let mut words = vec![format!(
        "Not committed yet: {} of {voters} voters count it ({}), {} are needed. Consumers do not see \
         it, and only an `async` produce was answered. If broker {node} died now, it might be lost.",
        counted.len(),
        ids(&counted),
        majority(voters)
    )];
    words.push(written(batch));
    words.extend(copies(&batch, answers));
    words.extend(seen.iter().filter_map(trouble));
    Verdict { word: "uncommitted", words, batch: Some(batch) }
}

fn is_same(a: &HeldBatch, b: &HeldBatch) -> bool {
    (a.base, a.end, a.term, a.checksum) == (b.base, b.end, b.term, b.checksum)
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests;
