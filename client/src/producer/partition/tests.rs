//! The pipeline of one partition, step by step without a clock or a socket.

use super::*;
use crate::producer::accumulator::{Append, Haste};
use crate::record::Record;
use highwater_protocol::batch::FrameHeader;
use highwater_protocol::ids::{Offset, PartitionId, Timestamp};

/// A pipeline, its clock, and what came out of it.
struct Bench {
    pipeline: Pipeline,
    now: Instant,
    leader: Leader,
    /// Why batches do not go through.
    blame: Option<String>,
    settled: Vec<Settled>,
}

/// What a leader would see of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    epoch: u16,
    sequence: u32,
}

fn leader(node: u32, term: u32) -> Leader {
    Leader { node: NodeId(node), term: Term(term) }
}

fn receipt(base: u64) -> Answered {
    let base_offset = Offset(base);
    let receipt =
        Receipt { base_offset, term: Term(1), replicas: 2, flushed: 2, log_append_time: None };
    Answered::Written(receipt)
}

fn refused(code: ErrorCode) -> Answered {
    Answered::Refused(WireError::new(code, "as the test wants"))
}

fn ends_at(end: u64) -> Answered {
    Answered::Refused(WireError::wrong_end(Offset(end), "as the test wants"))
}

fn lost() -> Answered {
    Answered::Lost(Error::with_outcome(ErrorKind::ConnectionLost, Outcome::Unknown, "cut"))
}

impl Bench {
    fn new() -> Bench {
        let options = Options { in_flight_max: 5, attempt_max: Duration::from_secs(10) };
        Bench {
            pipeline: Pipeline::new("t/0".into(), ProducerId(7), 1, options),
            now: Instant::now(),
            leader: leader(1, 1),
            blame: None,
            settled: Vec::new(),
        }
    }

    fn how(&self) -> Append {
        Append {
            acks: AckMode::SemiSync,
            charged: 1,
            haste: Haste::Linger,
            timestamp: Timestamp(0),
            now: self.now,
            batch_bytes_max: 1000,
            delivery_timeout: Duration::from_secs(30),
        }
    }

    /// Pushes batches of two records each.
    fn push(&mut self, batches: usize) {
        for _ in 0..batches {
            let how = self.how();
            let mut batch = Batch::new(Completion::new("t".into(), PartitionId(0)), how, 100);
            batch.push(&Record::to("t").value("a"), how);
            batch.push(&Record::to("t").value("b"), how);
            self.pipeline.push(batch);
        }
    }

    /// Pushes a batch of one record that expects the partition's end.
    fn push_if(&mut self, end: u64) {
        let how = self.how();
        let mut batch = Batch::new(Completion::new("t".into(), PartitionId(0)), how, 100);
        batch.expected_end = Some(Offset(end));
        batch.push(&Record::to("t").value("c"), how);
        self.pipeline.push(batch);
    }

    /// Sends what may be sent.
    fn send(&mut self) -> Vec<(Attempt, Seen)> {
        self.pipeline.leader(self.leader, &mut self.settled);
        self.pipeline.expire(self.now, |_| self.blame.clone(), &mut self.settled);
        let mut sent = Vec::new();
        while let Some(outgoing) = self.pipeline.next(self.now, self.leader) {
            let header = FrameHeader::parse(&outgoing.bytes).expect("a whole batch");
            header.verify_checksum(&outgoing.bytes).expect("stamped with its checksum");
            let stamp = header.producer().expect("idempotent");
            let seen = Seen { epoch: stamp.epoch.0, sequence: stamp.base_sequence };
            sent.push((outgoing.attempt, seen));
        }
        sent
    }

    fn answer(&mut self, attempt: Attempt, answer: Answered) {
        self.pipeline.answered(attempt, answer, self.now, &mut self.settled);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// What became of the batches so far: an offset, or the outcome of the error.
    fn settled(&mut self) -> Vec<Result<u64, Outcome>> {
        let results = self.settled.drain(..).map(|(_, result)| result);
        results.map(|r| r.map(|r| r.base_offset.0).map_err(|e| e.outcome())).collect()
    }
}

fn sequences(sent: &[(Attempt, Seen)]) -> Vec<(u16, u32)> {
    sent.iter().map(|(_, seen)| (seen.epoch, seen.sequence)).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn five_batches_go_out_in_order_without_waiting() {
    let mut bench = Bench::new();
    bench.push(5);
    assert!(!bench.pipeline.has_room());
    assert_eq!(sequences(&bench.send()), [(0, 0), (0, 2), (0, 4), (0, 6), (0, 8)]);
}

#[test]
fn room_opens_with_the_oldest_answer_not_with_any() {
    let mut bench = Bench::new();
    bench.push(5);
    let sent = bench.send();
    bench.answer(sent[1].0, receipt(2));
    assert!(!bench.pipeline.has_room(), "the first may need a broker that still knows it");
    bench.answer(sent[0].0, receipt(0));
    assert_eq!(bench.settled(), [Ok(2), Ok(0)]);
    bench.push(2);
    assert_eq!(sequences(&bench.send()), [(0, 10), (0, 12)]);
}

#[test]
fn after_a_lost_answer_nothing_is_sent_until_all_are_in_and_then_all_in_order() {
    let mut bench = Bench::new();
    bench.push(3);
    let sent = bench.send();
    bench.answer(sent[1].0, lost());
    bench.push(1);
    bench.pass(SECOND);
    assert_eq!(bench.send(), [], "two are still under way");
    bench.answer(sent[0].0, receipt(0));
    bench.answer(sent[2].0, refused(ErrorCode::OutOfOrderSequence));
    bench.pass(SECOND);
    assert_eq!(sequences(&bench.send()), [(0, 2), (0, 4), (0, 6)]);
}

#[test]
fn a_retry_waits_for_its_pause_unless_the_leader_changes() {
    let mut bench = Bench::new();
    bench.push(1);
    let sent = bench.send();
    bench.answer(sent[0].0, refused(ErrorCode::NotLeader));
    assert_eq!(bench.send(), []);
    bench.leader = leader(2, 2);
    assert_eq!(sequences(&bench.send()), [(0, 0)]);
}

#[test]
fn a_new_leader_gets_everything_at_once_and_late_answers_of_the_old_are_ignored() {
    let mut bench = Bench::new();
    bench.push(3);
    let old = bench.send();
    bench.leader = leader(2, 2);
    let new = bench.send();
    assert_eq!(sequences(&new), sequences(&old));
    bench.answer(old[0].0, receipt(100));
    assert_eq!(bench.settled(), []);
    bench.answer(new[0].0, receipt(0));
    assert_eq!(bench.settled(), [Ok(0)]);
}

#[test]
fn a_lost_sequence_starts_a_new_epoch_when_nothing_is_in_doubt() {
    let mut bench = Bench::new();
    bench.push(1);
    let first = bench.send();
    bench.answer(first[0].0, receipt(0));
    bench.push(2);
    let sent = bench.send();
    bench.answer(sent[0].0, refused(ErrorCode::OutOfOrderSequence));
    bench.answer(sent[1].0, refused(ErrorCode::OutOfOrderSequence));
    bench.pass(SECOND);
    assert_eq!(sequences(&bench.send()), [(1, 0), (1, 2)]);
}

#[test]
fn what_is_in_doubt_is_not_sent_under_a_new_number() {
    let mut bench = Bench::new();
    bench.push(3);
    let sent = bench.send();
    bench.answer(sent[0].0, lost());
    bench.answer(sent[1].0, lost());
    bench.answer(sent[2].0, refused(ErrorCode::OutOfOrderSequence));
    bench.pass(SECOND);
    let again = bench.send();
    for (attempt, _) in again {
        bench.answer(attempt, refused(ErrorCode::UnknownProducer));
    }
    assert_eq!(bench.settled(), [Err(Outcome::Unknown), Err(Outcome::Unknown)]);
    bench.pass(SECOND);
    assert_eq!(sequences(&bench.send()), [(1, 0)], "the third was surely not written");
}

#[test]
fn a_final_refusal_fails_one_batch_and_renumbers_the_rest() {
    let mut bench = Bench::new();
    bench.push(3);
    let sent = bench.send();
    bench.answer(sent[0].0, receipt(0));
    bench.answer(sent[1].0, refused(ErrorCode::BatchTooLarge));
    bench.answer(sent[2].0, lost());
    assert_eq!(bench.settled(), [Ok(0), Err(Outcome::NotWritten)]);
    bench.pass(SECOND);
    assert_eq!(sequences(&bench.send()), [(1, 0)], "behind a hole nothing was written");
}

#[test]
fn at_the_deadline_a_batch_never_sent_is_not_written_and_one_in_doubt_unknown() {
    let mut bench = Bench::new();
    bench.push(1);
    bench.pass(31 * SECOND);
    assert_eq!(bench.send(), []);
    assert_eq!(bench.settled(), [Err(Outcome::NotWritten)]);
    bench.push(1);
    let sent = bench.send();
    bench.answer(sent[0].0, lost());
    bench.pass(31 * SECOND);
    assert_eq!(bench.send(), []);
    assert_eq!(bench.settled(), [Err(Outcome::Unknown)]);
    bench.push(1);
    assert_eq!(bench.send().len(), 1, "life goes on");
}

#[test]
fn an_attempt_that_nobody_answers_is_given_up_and_made_again() {
    let mut bench = Bench::new();
    bench.push(1);
    let sent = bench.send();
    bench.pass(11 * SECOND);
    assert_eq!(bench.send(), []);
    bench.pass(SECOND);
    let again = bench.send();
    assert_eq!(sequences(&again), sequences(&sent));
    bench.answer(again[0].0, receipt(3));
    assert_eq!(bench.settled(), [Ok(3)]);
}

#[test]
fn what_a_broker_had_asked_not_to_be_sent_is_waited_for_from_the_end_of_the_pause_on() {
    let mut bench = Bench::new();
    bench.push(2);
    let sent = bench.send();
    bench.pipeline.excuse(NodeId(2), bench.now + 9 * SECOND);
    let silent_since = |bench: &Bench| bench.pipeline.oldest_attempt().map(|(since, _)| since);
    assert_eq!(silent_since(&bench), Some(bench.now), "another broker asked for that");
    let over = bench.now + 5 * SECOND;
    bench.pipeline.excuse(NodeId(1), over);
    assert_eq!(silent_since(&bench), Some(over), "nobody else is asked who leads until then");
    bench.pass(11 * SECOND);
    assert_eq!(bench.send(), [], "nor is it sent again");
    assert!(!bench.pipeline.in_trouble());
    bench.answer(sent[0].0, receipt(0));
    assert_eq!(bench.settled(), [Ok(0)]);
    bench.pass(5 * SECOND);
    assert_eq!(bench.send(), []);
    assert!(bench.pipeline.in_trouble(), "but then it is lost");
}

#[test]
fn a_batch_that_the_quota_held_up_for_too_long_says_so() {
    let mut bench = Bench::new();
    bench.push(1);
    bench.blame = Some("node 1 had this producer pause".into());
    bench.pass(31 * SECOND);
    assert_eq!(bench.send(), []);
    let (_, result) = bench.settled.pop().expect("it is settled");
    let error = result.expect_err("it is too late").to_string();
    assert!(error.contains("within delivery_timeout; node 1 had this producer"), "{error}");
}

#[test]
fn sequences_wrap_to_zero_after_the_largest() {
    let mut bench = Bench::new();
    bench.pipeline.next_sequence = SEQUENCE_MASK;
    bench.push(2);
    assert_eq!(sequences(&bench.send()), [(0, SEQUENCE_MASK), (0, 1)]);
}

#[test]
fn a_packed_batch_that_the_topic_does_not_take_goes_out_again_plain_with_its_sequence() {
    let mut bench = Bench::new();
    bench.pipeline.pack_with(Compression::Lz4);
    let how = Append { batch_bytes_max: 9000, ..bench.how() };
    let mut batch = Batch::new(Completion::new("t".into(), PartitionId(0)), how, 100);
    batch.push(&Record::to("t").value(vec![7; 5000]), how);
    bench.pipeline.push(batch);
    let codec = |bytes: &Bytes| FrameHeader::parse(bytes).expect("a batch").compression();
    let first = bench.pipeline.next(bench.now, bench.leader).expect("one to send");
    assert_eq!(codec(&first.bytes), Some(Compression::Lz4));
    bench.answer(first.attempt, refused(ErrorCode::UnsupportedCompression));
    assert!(bench.settled.is_empty(), "nobody but the producer has to know");
    bench.now += Duration::from_secs(1);
    let again = bench.pipeline.next(bench.now, bench.leader).expect("the same again");
    assert_eq!(codec(&again.bytes), Some(Compression::None));
    let header = FrameHeader::parse(&again.bytes).expect("a batch");
    header.verify_checksum(&again.bytes).expect("sealed anew");
    assert_eq!(header.producer(), FrameHeader::parse(&first.bytes).expect("a batch").producer());
    bench.answer(again.attempt, refused(ErrorCode::UnsupportedCompression));
    assert!(bench.settled[0].1.is_err(), "a plain one that is refused is refused for good");
}

#[test]
fn a_conditional_batch_is_under_way_alone() {
    let mut bench = Bench::new();
    bench.push(1);
    bench.push_if(2);
    bench.push(1);
    let first = bench.send();
    assert_eq!(sequences(&first), [(0, 0)], "it waits for what is under way");
    bench.answer(first[0].0, receipt(0));
    let second = bench.send();
    assert_eq!(sequences(&second), [(0, 2)], "and what comes behind waits for it");
    bench.answer(second[0].0, receipt(2));
    assert_eq!(sequences(&bench.send()), [(0, 3)]);
    assert_eq!(bench.settled(), [Ok(0), Ok(2)]);
}

#[test]
fn a_conflict_settles_the_batch_and_what_comes_behind_goes_on_in_a_new_epoch() {
    let mut bench = Bench::new();
    bench.push_if(2);
    bench.push(1);
    let sent = bench.send();
    bench.answer(sent[0].0, ends_at(7));
    let (_, result) = bench.settled.pop().expect("it is settled");
    let error = result.expect_err("it conflicts");
    assert_eq!((error.actual_end(), error.outcome()), (Some(Offset(7)), Outcome::NotWritten));
    assert_eq!(sequences(&bench.send()), [(1, 0)]);
}

#[test]
fn a_conflict_after_a_lost_answer_tells_what_became_of_it_only_behind_the_expected_end() {
    for (end, outcome) in [(7, Outcome::NotWritten), (1, Outcome::Unknown)] {
        let mut bench = Bench::new();
        bench.push_if(2);
        let sent = bench.send();
        bench.answer(sent[0].0, lost());
        bench.pass(SECOND);
        let again = bench.send();
        assert_eq!(sequences(&again), [(0, 0)], "with its sequence: a repeat is recognised");
        bench.answer(again[0].0, ends_at(end));
        assert_eq!(bench.settled(), [Err(outcome)], "it ends at {end}");
    }
}
