//! What a program sees of a consumer whose driver says what the test wants.

use std::pin::pin;

use futures_util::FutureExt;
use highwater_protocol::ids::PartitionId;

use super::committing::NEVER;
use super::*;

/// A consumer, and what it tells its driver and hears from it.
pub(super) struct Bench {
    pub(super) consumer: Consumer,
    pub(super) words: mpsc::UnboundedReceiver<Word>,
    pub(super) driver: mpsc::UnboundedSender<Tidings>,
}

pub(super) fn partition() -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::nil()), PartitionId(0))
}

/// News of the partition, from its start on.
pub(super) fn assigned() -> Tidings {
    let (topic, start) = ("orders".into(), Offset(0));
    Tidings::Assigned(vec![Placed { partition: partition(), topic, start, committed: None }])
}

impl Bench {
    /// One that owns a partition, of which it has marked what lies before offset 7.
    pub(super) fn new() -> Bench {
        let (words, said) = mpsc::unbounded_channel();
        let (driver, tidings) = mpsc::unbounded_channel();
        let config = Arc::new(ConsumerConfig::new("g", ["orders"]));
        let presence = Arc::new(Presence::new(config.prefetch_bytes_max));
        let core = Core::for_tests();
        let member = MemberId(Uuid::nil());
        let mut consumer = Consumer::of(core, config, member, (words, tidings), presence);
        consumer.take(assigned()).expect("it is news");
        consumer.owned.get_mut(&partition()).expect("its own").marked = Some(Offset(7));
        Bench { consumer, words: said, driver }
    }

    fn tell(&self, tidings: Tidings) {
        self.driver.send(tidings).expect("it listens");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_amid_a_revocation_gives_nothing_up_before_the_commit() {
    let mut bench = Bench::new();
    bench.tell(Tidings::Revoked(1, vec![partition()]));
    assert!(bench.consumer.next_batch().now_or_never().is_none(), "it waits for the commit");
    let Ok(Word::Commit(offsets, reply)) = bench.words.try_recv() else { panic!("it commits") };
    assert_eq!(offsets[0].offset, Offset(7));
    for _ in 0..10 {
        assert!(
            bench.consumer.next_batch().now_or_never().is_none(),
            "it waits for the same commit"
        );
        assert!(bench.words.try_recv().is_err(), "nothing is given up, or committed twice");
    }

    let mut call = pin!(bench.consumer.next_batch());
    reply.send(Ok(())).expect("somebody waits");
    assert!(call.as_mut().now_or_never().is_none(), "there are no records");
    let given_up = bench.words.try_recv();
    assert!(matches!(given_up, Ok(Word::GaveUp(1, ids)) if ids == [partition()]));
}

#[tokio::test]
async fn what_a_dropped_call_was_giving_up_is_the_next_event() {
    let mut bench = Bench::new();
    bench.tell(Tidings::Revoked(1, vec![partition()]));
    assert!(bench.consumer.next_batch().now_or_never().is_none());
    let event = bench.consumer.next_event().now_or_never().expect("it waits there");
    assert!(matches!(event, Ok(Event::Revoking(it)) if it.partitions.len() == 1));
}

#[tokio::test]
async fn who_was_away_too_long_is_told_so_and_what_it_lost() {
    let mut bench = Bench::new();
    let away = Duration::from_secs(400);
    bench.tell(Tidings::Stalled(away));
    bench.tell(Tidings::Gone(vec![partition()], Why::Lost));
    let event = bench.consumer.next_event().now_or_never().expect("it is there");
    assert!(matches!(event, Ok(Event::Stalled(told)) if told == away), "{event:?}");
    let event = bench.consumer.next_event().now_or_never().expect("it is there");
    assert!(matches!(event, Ok(Event::Lost(lost)) if lost.len() == 1));
    assert!(bench.consumer.owned().is_empty());
}

#[test]
fn a_pause_that_no_clock_can_tell_is_one_without_end() {
    let config = ConsumerConfig::new("g", ["orders"]).commit(Commit::AutoMarked(Duration::MAX));
    let now = Instant::now();
    assert_eq!(commit_due(now, &config), now + NEVER);
}
