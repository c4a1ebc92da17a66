//! Workers of a consumer whose driver and fetcher are the test.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use highwater_protocol::ids::Offset;
use tokio::sync::mpsc;

use super::super::driver::{Tidings, Why, Word};
use super::super::tests::{Bench, assigned, partition};
use super::super::{Fetched, Stint};
use super::*;
use crate::reader::Budget;

type Working = BoxFuture<'static, Result<(), Error>>;

/// Workers whose program is the test: each hands its partition over, and ends when it is told how.
struct Stage<F> {
    workers: Workers<Error, F>,
    words: mpsc::UnboundedReceiver<Word>,
    driver: mpsc::UnboundedSender<Tidings>,
    fetched: mpsc::UnboundedSender<Fetched>,
    budget: Arc<Budget>,
    begun: mpsc::UnboundedReceiver<(PartitionConsumer, mpsc::Sender<Result<(), Error>>)>,
}

fn stage() -> Stage<impl FnMut(PartitionConsumer) -> Working> {
    let Bench { mut consumer, words, driver } = Bench::new();
    consumer.owned.get_mut(&partition()).expect("its own").marked = None;
    let (fetched, budget) = (consumer.output.clone(), consumer.presence.budget.clone());
    let (begins, begun) = mpsc::unbounded_channel();
    let work = move |far_end: PartitionConsumer| {
        let (end, mut told) = mpsc::channel(1);
        let _ = begins.send((far_end, end));
        async move { told.recv().await.unwrap_or(Ok(())) }.boxed()
    };
    Stage { workers: Workers::of(consumer, work), words, driver, fetched, budget, begun }
}

impl<F: FnMut(PartitionConsumer) -> Working> Stage<F> {
    fn fetch(&self, stint: u64, offsets: std::ops::Range<u64>) {
        let batch = RecordBatch::for_tests("orders", offsets);
        self.budget.hold(batch.bytes());
        let fetched = Fetched { partition: partition(), stint: Stint(stint), result: Ok(batch) };
        self.fetched.send(fetched).expect("it listens");
    }

    fn tell(&self, tidings: Tidings) {
        self.driver.send(tidings).expect("it listens");
    }

    /// Goes on until nothing is left to do.
    async fn settle(&mut self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
            let _ = self.workers.step().now_or_never();
        }
    }

    fn reads(&self) -> bool {
        let owned = &self.workers.consumer.owned[&partition()];
        owned.reading == super::super::Reading::On
    }
}

fn of(batch: Option<RecordBatch>) -> std::ops::Range<u64> {
    let batch = batch.expect("there is one");
    batch.first_offset().0..batch.next_offset().0
}

#[tokio::test]
async fn a_partition_is_given_up_when_its_worker_has_ended_and_its_marks_are_committed() {
    let mut stage = stage();
    stage.fetch(1, 0..3);
    stage.fetch(1, 3..5);
    stage.settle().await;
    let (mut worker, end) = stage.begun.try_recv().expect("it has records");
    let batch = worker.next_batch().await.expect("the first one");
    stage.tell(Tidings::Revoked(1, vec![partition()]));
    stage.settle().await;
    assert!(stage.words.try_recv().is_err(), "it waits for the worker");
    assert!(worker.next_batch().await.is_none(), "and that gets nothing more");
    worker.mark(&batch);
    end.send(Ok(())).await.expect("it runs");
    stage.settle().await;
    let Ok(Word::Commit(offsets, reply)) = stage.words.try_recv() else { panic!("it commits") };
    assert_eq!(offsets[0].offset, Offset(3));
    assert!(stage.words.try_recv().is_err(), "it waits for the commit");
    reply.send(Ok(())).expect("somebody waits");
    stage.settle().await;
    let given_up = stage.words.try_recv();
    assert!(matches!(given_up, Ok(Word::GaveUp(1, ids)) if ids == [partition()]));
    assert!(stage.begun.try_recv().is_err(), "no worker begins where nothing is its own");
}

#[tokio::test]
async fn of_a_lost_partition_marks_count_no_more_and_its_next_worker_waits_for_the_last() {
    let mut stage = stage();
    stage.fetch(1, 0..3);
    stage.settle().await;
    let (mut worker, end) = stage.begun.try_recv().expect("it has records");
    let batch = worker.next_batch().await.expect("the first one");
    stage.tell(Tidings::Gone(vec![partition()], Why::Lost));
    stage.tell(assigned());
    stage.settle().await;
    assert!(!stage.reads(), "two workers would not keep the order");
    worker.mark(&batch);
    end.send(Ok(())).await.expect("it runs");
    stage.settle().await;
    assert!(stage.reads());
    assert_eq!(stage.workers.consumer.owned[&partition()].marked, None);
    stage.fetch(3, 0..3);
    stage.settle().await;
    let (mut next, _end) = stage.begun.try_recv().expect("now it begins");
    assert_eq!(of(next.next_batch().await), 0..3);
}

#[tokio::test]
async fn a_worker_that_ends_early_is_followed_by_one_behind_what_it_marked() {
    let mut stage = stage();
    stage.fetch(1, 0..3);
    stage.fetch(1, 3..5);
    stage.settle().await;
    let (mut worker, end) = stage.begun.try_recv().expect("it has records");
    let batch = worker.next_batch().await.expect("the first one");
    worker.mark_before(&batch, Offset(2));
    end.send(Ok(())).await.expect("it runs");
    stage.settle().await;
    assert!(!stage.reads(), "there is a pause between them");
    assert_eq!(stage.workers.consumer.owned[&partition()].next, Offset(2));
    while !stage.reads() {
        stage.workers.step().await;
    }
    stage.fetch(2, 2..5);
    stage.settle().await;
    let (mut next, _end) = stage.begun.try_recv().expect("now it begins");
    assert_eq!(of(next.next_batch().await), 2..5);
}

#[tokio::test]
async fn a_partition_is_paused_while_too_much_of_it_lies_before_its_worker() {
    let mut stage = stage();
    let one = RecordBatch::for_tests("orders", 0..3).bytes();
    let config = Arc::get_mut(&mut stage.workers.consumer.config).expect("nobody else has it");
    config.prefetch_bytes_max = 2 * one;
    stage.fetch(1, 0..3);
    stage.fetch(1, 3..6);
    stage.settle().await;
    assert!(stage.reads(), "there is room");
    stage.fetch(1, 6..9);
    stage.settle().await;
    assert!(!stage.reads());
    let (mut worker, _end) = stage.begun.try_recv().expect("it has records");
    assert_eq!(of(worker.next_batch().await), 0..3);
    stage.settle().await;
    assert!(!stage.reads(), "two of three are more than half of its share");
    assert_eq!(of(worker.next_batch().await), 3..6);
    stage.settle().await;
    assert!(stage.reads());
    assert_eq!(of(worker.next_batch().await), 6..9);
}

#[tokio::test]
async fn a_worker_that_does_not_ask_is_awaited_until_it_does_or_has_ended() {
    let mut stage = stage();
    let presence = stage.workers.consumer.presence.clone();
    stage.fetch(1, 0..3);
    stage.settle().await;
    assert!(presence.has_workers_away(), "it has not asked yet");
    let (mut worker, end) = stage.begun.try_recv().expect("it has records");
    worker.next_batch().await.expect("the first one");
    stage.settle().await;
    assert!(presence.has_workers_away(), "it does something else");
    {
        let mut asking = Box::pin(worker.next_batch());
        assert!((&mut asking).now_or_never().is_none(), "nothing is there");
        stage.settle().await;
        assert!(!presence.has_workers_away());
    }

    // While it is away, all is lost: it is awaited until it has ended.
    stage.tell(Tidings::Stalled(Duration::from_secs(400)));
    stage.tell(Tidings::Gone(vec![partition()], Why::Lost));
    stage.settle().await;
    assert!(presence.has_workers_away());
    assert!(worker.next_batch().await.is_none());
    end.send(Ok(())).await.expect("it runs");
    stage.settle().await;
    assert!(!presence.has_workers_away());
}

#[tokio::test]
async fn a_failure_ends_the_other_workers_and_is_what_comes_out() {
    let stage = stage();
    stage.fetch(1, 0..3);
    let Stage { workers, mut begun, mut words, driver: _driver, .. } = stage;
    let Workers { consumer, work, .. } = workers;
    let all = tokio::spawn(consumer.for_each_partition(std::future::pending(), work));
    let (mut worker, end) = begun.recv().await.expect("it has records");
    let batch = worker.next_batch().await.expect("the first one");
    worker.mark(&batch);
    let failure = Error::new(ErrorKind::InvalidCall, "no room on the shelf");
    end.send(Err(failure)).await.expect("it runs");
    let Some(Word::Commit(offsets, reply)) = words.recv().await else { panic!("it commits") };
    assert_eq!(offsets[0].offset, Offset(3), "what was done before is not done again");
    reply.send(Ok(())).expect("somebody waits");
    let Some(Word::Close(left)) = words.recv().await else { panic!("it leaves") };
    left.send(()).expect("somebody waits");
    let failed = all.await.expect("it does not panic").expect_err("it failed");
    assert!(failed.to_string().contains("shelf"), "{failed}");
}
