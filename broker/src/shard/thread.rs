//! Drives one shard on a thread of its own: the only place in the core that knows threads.
//!
//! A pass takes what lies in the inboxes, up to a bound, steps all of it, ends the pass, and carries
//! out the effects in order. What peers and the flusher say comes before what clients want, so that
//! load never looks like a dead leader. Flushes are grouped: while one is under way the wishes of
//! later passes gather and go out together when it is done. A shard that panics or loses its journal
//! takes the process with it: a broker that is half alive is worse than one that is gone.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use crossbeam::sync::Unparker;
use highwater_protocol::error::WireError;
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::produce::Receipt;
use tokio::sync::oneshot;
use tracing::{debug, error, info};

use crate::crash_point::{self, CrashPoint};
use crate::disk::flusher::Flusher;
use crate::disk::{Disk, File, FlushFailure};
use crate::log::{Mend, Mended};
use crate::metrics::Metrics;
use crate::raft::Millis;
use crate::shard::event::{AdminReply, AfterClose, Effect, Event, FlushTicket, RequestId};
use crate::shard::handle::{Clock, Inbound, Inbox, Notice, NoticeSink, Reply, ShardHandle, inbox};
use crate::shard::outbox::PeerOutbox;
use crate::shard::{Shard, ShardOptions};

/// What a shard's thread needs around the shard.
pub struct Surroundings {
    /// Which of the broker's shards it is.
    pub number: usize,
    /// Where the files are.
    pub disk: Arc<dyn Disk>,
    /// Who flushes them.
    pub flusher: Arc<Flusher>,
    /// Where messages to peers go.
    pub outbox: PeerOutbox,
    /// Where notices go.
    pub notices: NoticeSink,
    /// The clock of all shards.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A running shard; it runs until it is stopped.
pub struct ShardThread {
    stop: Sender<()>,
    wake: Unparker,
    thread: JoinHandle<()>,
}

/// Opens a shard's journal and starts its thread.
pub fn start(
    options: ShardOptions,
    surroundings: Surroundings,
) -> io::Result<(ShardHandle, ShardThread)> {
    let clock = surroundings.clock;
    let shard = Shard::open(options, Arc::clone(&surroundings.disk), clock.now())?;
    let (handle, inbox) = inbox(clock);
    let (stop, stopping) = bounded(1);
    let (flushed_in, flushed) = unbounded();
    let (mended_in, mended) = unbounded();
    let wake = inbox.shared.wake.clone();
    let flushed_in = Outcomes { queue: flushed_in, wake: wake.clone() };
    let mended_in = Outcomes { queue: mended_in, wake: wake.clone() };
    let name = format!("shard-{}", surroundings.number);
    let driver = Driver {
        shard,
        around: surroundings,
        inbox,
        stopping,
        flushed,
        mended,
        mending: Mending { done: mended_in, under_way: false, waiting: VecDeque::new() },
        flushing: Flushing { done: flushed_in, under_way: None, waiting: Vec::new() },
        produces: HashMap::new(),
        admins: HashMap::new(),
        open: BTreeSet::new(),
        effects: Vec::new(),
    };
    let thread = thread::Builder::new().name(name).spawn(move || {
        let _guard = AbortOnPanic;
        driver.run();
    })?;
    Ok((handle, ShardThread { stop, wake, thread }))
}

impl ShardThread {
    /// Closes every replica cleanly and returns when the thread has ended. Blocks.
    pub fn stop(self) {
        // A second wish to stop would find the channel full, which is as good.
        let _ = self.stop.try_send(());
        self.wake.unpark();
        self.thread.join().expect("a shard that panics has aborted the process");
    }
}

struct Driver {
    shard: Shard,
    around: Surroundings,
    inbox: Inbox,
    stopping: Receiver<()>,
    flushed: Receiver<Vec<FlushFailure>>,
    mended: Receiver<(TopicPartition, Mended)>,
    mending: Mending,
    flushing: Flushing,
    produces: HashMap<RequestId, oneshot::Sender<Result<Receipt, WireError>>>,
    admins: HashMap<RequestId, oneshot::Sender<Result<AdminReply, WireError>>>,
    open: BTreeSet<TopicPartition>,
    effects: Vec<Effect>,
}

/// Where other threads put what they have done for the shard.
struct Outcomes<T> {
    queue: Sender<T>,
    wake: Unparker,
}

impl<T> Outcomes<T> {
    /// Puts one outcome there, from whichever thread it is called on.
    fn put_one(&self) -> impl FnOnce(T) + use<T> {
        let (queue, wake) = (self.queue.clone(), self.wake.clone());
        move |outcome| {
            // Nobody listens after the shard was stopped.
            let _ = queue.send(outcome);
            wake.unpark();
        }
    }
}

/// Flushes of this shard: one group under way, the next one gathering.
struct Flushing {
    done: Outcomes<Vec<FlushFailure>>,
    under_way: Option<UnderWay>,
    waiting: Vec<(FlushTicket, Vec<Arc<dyn File>>)>,
}

/// Copying for damaged segments: one at a time, on a thread of its own. Each replica has one at most.
struct Mending {
    done: Outcomes<(TopicPartition, Mended)>,
    under_way: bool,
    waiting: VecDeque<(TopicPartition, Mend)>,
}

struct UnderWay {
    tickets: Vec<Wanted>,
    since: Instant,
}

/// What one ticket wants of a group: passes that wrote to the same file share it.
struct Wanted {
    ticket: FlushTicket,
    /// The place in the group of each of its files.
    places: Vec<usize>,
}

impl Driver {
    fn run(mut self) {
        loop {
            let events = self.take_events();
            if self.stopping.try_recv().is_ok() {
                return self.close_all();
            }
            if events == 0 && !self.is_due() {
                self.sleep();
                continue;
            }
            let now = self.around.clock.now();
            if now >= self.shard.next_deadline() {
                self.shard.step(now, Event::Tick, &mut self.effects);
            }
            self.finish_pass(now);
            self.around.metrics.shard_passes.bump();
            self.around.metrics.shard_events.add(events);
        }
    }

    /// Steps what lies in the inboxes, up to the bounds of a pass; says how many events it was.
    fn take_events(&mut self) -> u64 {
        let now = self.around.clock.now();
        let mut events = 0;
        while let Ok(failures) = self.flushed.try_recv() {
            self.take_flushed(now, &failures);
            events += 1;
        }
        while let Ok((partition, mended)) = self.mended.try_recv() {
            self.mending.under_way = false;
            self.shard.step(now, Event::Mended(partition, mended), &mut self.effects);
            events += 1;
        }
        while events < EVENTS_MAX
            && let Ok(inbound) = self.inbox.cluster.try_recv()
        {
            self.take_inbound(now, inbound);
            events += 1;
        }
        let mut bytes = 0;
        while events < EVENTS_MAX
            && bytes < PASS_BYTES_MAX
            && let Ok(inbound) = self.inbox.clients.try_recv()
        {
            if let Event::Produce(produce) = &inbound.event {
                bytes += produce.batch.len();
            }
            self.take_inbound(now, inbound);
            events += 1;
        }
        self.inbox.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        events
    }

    fn take_inbound(&mut self, now: Millis, Inbound { event, reply }: Inbound) {
        match reply {
            Reply::None => {}
            Reply::Produced(id, sender) => drop(self.produces.insert(id, sender)),
            Reply::Answered(id, sender) => drop(self.admins.insert(id, sender)),
        }
        self.shard.step(now, event, &mut self.effects);
    }

    fn take_flushed(&mut self, now: Millis, failures: &[FlushFailure]) {
        crash_point::reached(CrashPoint::FlushDone);
        let UnderWay { tickets, since } =
            self.flushing.under_way.take().expect("only what is under way ends");
        self.around.metrics.flushes.record(since.elapsed());
        for wanted in tickets {
            let failures = wanted.failures(failures);
            self.shard.step(now, Event::Flushed(wanted.ticket, failures), &mut self.effects);
        }
    }

    fn is_due(&self) -> bool {
        self.around.clock.now() >= self.shard.next_deadline()
    }

    /// Sleeps until something arrives or the shard's next deadline. What arrived since it was looked for
    /// has been told to the parker, which then does not sleep.
    fn sleep(&self) {
        let due = self.around.clock.instant(self.shard.next_deadline());
        self.inbox.parker.park_deadline(due.min(Instant::now() + SLEEP_MAX));
    }

    fn finish_pass(&mut self, now: Millis) {
        if let Err(error) = self.shard.finish_pass(now, &mut self.effects) {
            error!(shard = self.around.number, %error, "the journal of terms and votes failed");
            eprintln!("highwater: shard {}: journal failed: {error}", self.around.number);
            std::process::abort();
        }
        crash_point::reached(CrashPoint::PassEnded);
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects = effects;
        self.flushing.start_next(&self.around.flusher);
        self.mending.start_next();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, lane, incarnation, messages } => {
                let Surroundings { outbox, number, metrics, .. } = &self.around;
                if !outbox.send_raft(to, lane, *number, incarnation, messages) {
                    metrics.peer_frames_dropped.bump();
                }
            }
            Effect::Flush(ticket, files) => self.flushing.waiting.push((ticket, files)),
            Effect::Mend(partition, mend) => self.mending.waiting.push_back((partition, mend)),
            Effect::Repaired(partition, batches) => {
                info!(%partition, batches, "damaged batches are whole again");
                self.around.metrics.batches_repaired.add(batches);
            }
            // Whoever asked may be gone; that is their affair.
            Effect::Produced(id, result) => {
                if let Some(reply) = self.produces.remove(&id) {
                    let _ = reply.send(result);
                }
            }
            Effect::Answered(id, result) => {
                if let Some(reply) = self.admins.remove(&id) {
                    let _ = reply.send(result);
                }
            }
            Effect::Opened(partition, reader) => {
                debug!(%partition, "replica opened");
                if self.open.insert(partition) {
                    self.around.metrics.replicas.up();
                }
                (self.around.notices)(Notice::Opened(partition, reader));
            }
            Effect::Closed(partition, _) => {
                debug!(%partition, "replica closed");
                if self.open.remove(&partition) {
                    self.around.metrics.replicas.down();
                }
                (self.around.notices)(Notice::Closed(partition));
            }
            Effect::Committed(partition) => (self.around.notices)(Notice::Committed(partition)),
            Effect::Leadership(news) => {
                debug!(partition = %news.partition, term = %news.term, leader = ?news.leader, "leadership");
                self.around.metrics.leader_changes.bump();
                (self.around.notices)(Notice::Leadership(news));
            }
            Effect::Rebuilding(partition) => {
                info!(%partition, "a failed replica begins anew");
                self.around.metrics.replicas_rebuilt.bump();
            }
            Effect::Failed(partition, reason) => {
                error!(%partition, %reason, "replica failed; it is out of service until it is made anew from the others, or a restart");
                self.around.metrics.replicas_failed.bump();
                (self.around.notices)(Notice::Failed(partition, reason));
            }
        }
    }

    /// The last pass: every log is closed cleanly, and who still waits learns that nobody will answer.
    fn close_all(mut self) {
        let now = self.around.clock.now();
        let partitions: Vec<TopicPartition> = self.open.iter().copied().collect();
        for partition in &partitions {
            let close = Event::Close(*partition, AfterClose::Keep);
            self.shard.step(now, close, &mut self.effects);
        }
        self.finish_pass(now);
        info!(shard = self.around.number, replicas = partitions.len(), "shard closed");
    }
}

impl Flushing {
    /// Sends what has gathered to the flusher, unless a group is under way.
    fn start_next(&mut self, flusher: &Flusher) {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return;
        }
        let (tickets, files) = gather(&mut self.waiting);
        self.under_way = Some(UnderWay { tickets, since: Instant::now() });
        flusher.flush(files, Box::new(self.done.put_one()));
        crash_point::reached(CrashPoint::FlushBegun);
    }
}

impl Mending {
    /// Starts the next copying, unless one is under way. Whatever becomes of it, the replica hears that it
    /// is over: it would wait for ever, and not begin again.
    fn start_next(&mut self) {
        if self.under_way {
            return;
        }
        let Some((partition, mend)) = self.waiting.pop_front() else { return };
        let (unspawned, panicked) = (mend.undone(), mend.undone());
        let done = self.done.put_one();
        let spawned = thread::Builder::new().name("mend".to_owned()).spawn(move || {
            let ran = panic::catch_unwind(AssertUnwindSafe(|| mend.run()));
            done((partition, ran.unwrap_or(panicked)));
        });
        self.under_way = true;
        if let Err(error) = spawned {
            error!(%partition, %error, "no thread for mending a segment");
            self.done.put_one()((partition, unspawned));
        }
    }
}

/// One group out of all that waits: each file once, however many tickets want it.
fn gather(
    waiting: &mut Vec<(FlushTicket, Vec<Arc<dyn File>>)>,
) -> (Vec<Wanted>, Vec<Arc<dyn File>>) {
    let mut tickets = Vec::with_capacity(waiting.len());
    let mut seen = HashMap::new();
    let mut files: Vec<Arc<dyn File>> = Vec::new();
    for (ticket, wanted) in waiting.drain(..) {
        let mut places = Vec::with_capacity(wanted.len());
        for file in wanted {
            let place =
                *seen.entry(Arc::as_ptr(&file).cast::<()>() as usize).or_insert(files.len());
            if place == files.len() {
                files.push(file);
            }
            places.push(place);
        }
        tickets.push(Wanted { ticket, places });
    }
    (tickets, files)
}

impl Wanted {
    /// Of the files of the group that failed, those that this ticket wanted, by their places in it.
    fn failures(&self, failures: &[FlushFailure]) -> Vec<FlushFailure> {
        let failed = |place: &usize| failures.iter().find(|failure| failure.file == *place);
        let own = self.places.iter().enumerate().filter_map(|(file, place)| {
            // Several tickets may share the error, and an `io::Error` cannot be copied.
            let error = &failed(place)?.error;
            Some(FlushFailure { file, error: io::Error::new(error.kind(), error.to_string()) })
        });
        own.collect()
    }
}

/// Ends the process when the thread that holds it panics.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "highwater: a shard has panicked; the process stops so that others take over"
            );
            std::process::abort();
        }
    }
}

/// Events of one pass.
const EVENTS_MAX: u64 = 1024;
/// Bytes of produces in one pass: what follows them to the disk and the peers starts early.
const PASS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest sleep, should a shard have nothing due at all.
const SLEEP_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mmap::MmapDisk;

    #[test]
    fn a_failed_file_is_told_to_every_ticket_that_wanted_it_and_to_no_other() {
        let dir = tempfile::tempdir().expect("the test's own directory");
        let file = |name: &str| {
            MmapDisk::default().create(&dir.path().join(name), 4096, 4096).expect("create")
        };
        let (a, b, c) = (file("a"), file("b"), file("c"));
        let mut waiting = vec![
            (FlushTicket(1), vec![Arc::clone(&a), Arc::clone(&b)]),
            (FlushTicket(2), vec![Arc::clone(&c)]),
            (FlushTicket(3), vec![c, b, a]),
        ];
        let (tickets, files) = gather(&mut waiting);
        assert_eq!((files.len(), waiting.len()), (3, 0));
        let failures = [FlushFailure { file: 1, error: io::Error::other("the device failed") }];
        let told = tickets.iter().map(|wanted| {
            let own = wanted.failures(&failures);
            (wanted.ticket.0, own.iter().map(|failure| failure.file).collect())
        });
        assert_eq!(told.collect::<Vec<_>>(), [(1, vec![1]), (2, vec![]), (3, vec![1])]);
    }
}
