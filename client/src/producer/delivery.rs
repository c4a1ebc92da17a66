//! What becomes of a batch, told once to all who wait for one of its records.
//!
//! A batch has one completion and each of its records an index into it, so that a record costs no
//! allocation and no channel of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use highwater_protocol::ids::PartitionId;
use highwater_protocol::native::produce::Receipt;

use crate::error::Error;
use crate::record::{RecordMetadata, TopicName};

/// What becomes of a record, in time: a future of its place, or of why it has none.
///
/// Dropping it does not cancel the sending; a failure that nobody looked at is counted in the next
/// [`FlushReport`](crate::FlushReport).
#[must_use = "await it, or drop it on purpose: failures then show in the next flush or close"]
#[derive(Debug)]
pub struct Delivery {
    completion: Arc<Completion>,
    index: u32,
    /// Where our waker lies in the completion, once we have waited.
    waiting: Option<usize>,
}

/// The one result of a batch, and who waits for it.
#[derive(Debug)]
pub(crate) struct Completion {
    topic: TopicName,
    partition: PartitionId,
    result: OnceLock<Result<Receipt, Error>>,
    waiting: Mutex<Vec<Waker>>,
}

impl Completion {
    pub(crate) fn new(topic: TopicName, partition: PartitionId) -> Arc<Completion> {
        let waiting = Mutex::new(Vec::new());
        Arc::new(Completion { topic, partition, result: OnceLock::new(), waiting })
    }

    /// The handle of the record at `index` in the batch.
    pub(crate) fn delivery(self: &Arc<Completion>, index: u32) -> Delivery {
        Delivery { completion: self.clone(), index, waiting: None }
    }

    /// Says what became of the batch, once.
    pub(crate) fn settle(&self, result: Result<Receipt, Error>) {
        let first = self.result.set(result).is_ok();
        assert!(first, "a batch is settled once");
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Where the batch is to be written.
    pub(crate) fn place(&self) -> (&TopicName, PartitionId) {
        (&self.topic, self.partition)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, context: &Context<'_>, place: &mut Option<usize>) -> Poll<()> {
        if self.result.get().is_some() {
            return Poll::Ready(());
        }
        let mut waiting = self.lock();
        // Settled in between: `settle` has taken the wakers already, or is about to under this lock.
        if self.result.get().is_some() {
            return Poll::Ready(());
        }
        match *place {
            Some(place) => waiting[place].clone_from(context.waker()),
            None => {
                *place = Some(waiting.len());
                waiting.push(context.waker().clone());
            }
        }
        Poll::Pending
    }

    /// Waits until the batch is settled.
    pub(crate) async fn settled(&self) {
        let mut place = None;
        std::future::poll_fn(|context| self.poll(context, &mut place)).await;
    }
}

impl Delivery {
    /// The partition whose batch the record lies in; known at once, and final.
    pub fn partition(&self) -> PartitionId {
        self.completion.partition
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.completion.poll(context, &mut this.waiting).is_pending() {
            return Poll::Pending;
        }
        let result = this.completion.result.get().expect("it is ready once it is settled");
        Poll::Ready(match result {
            Ok(receipt) => Ok(RecordMetadata {
                topic: this.completion.topic.clone(),
                partition: this.completion.partition,
                offset: receipt.base_offset.advance(u64::from(this.index)),
                receipt: *receipt,
            }),
            Err(error) => Err(error.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::ids::{Offset, Term};

    fn receipt(base: u64) -> Receipt {
        let base_offset = Offset(base);
        Receipt { base_offset, term: Term(1), replicas: 2, flushed: 2, log_append_time: None }
    }

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_offset() {
        let completion = Completion::new("t".into(), PartitionId(1));
        let waiting: Vec<_> =
            (0..3).map(|index| tokio::spawn(completion.delivery(index))).collect();
        tokio::task::yield_now().await;
        completion.settle(Ok(receipt(40)));
        for (index, delivery) in waiting.into_iter().enumerate() {
            let done = delivery.await.expect("not cancelled").expect("written");
            assert_eq!(done.offset, Offset(40 + index as u64));
        }
        let late = completion.delivery(1).await.expect("settled already");
        assert_eq!(late.offset, Offset(41));
    }
}
