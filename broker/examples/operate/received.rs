//! How many bytes moving replicas receive, as the brokers that receive them say.
//!
//! Twice a second every broker is asked how large its replicas are, and the controller's image what moves. What a
//! replica that moves to a broker has grown by since the last look was received in between; so was all that a
//! replica has that was not there before. What it is sent as a member, in the moment before its move is over, counts
//! as well, so the sum is rather too high. A broker that does not answer is asked again, and nothing is lost
//! of what it received meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use highwater_client::{Admin, MoveStage, NodeId, TopicPartition};

/// Looks in a thread of its own until it is told to end.
pub struct Received {
    running: Arc<AtomicBool>,
    looking: JoinHandle<Flow>,
}

impl Received {
    /// Begins to look; `admin` is made in the runtime of the thread that looks.
    pub fn watch(admin: impl AsyncFnOnce() -> Admin + Send + 'static) -> Received {
        let running = Arc::new(AtomicBool::new(true));
        let go_on = Arc::clone(&running);
        let looking = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a thread can have a runtime");
            runtime.block_on(async { look_on(&admin().await, &go_on).await })
        });
        Received { running, looking }
    }

    /// What was received.
    pub fn end(self) -> Flow {
        self.running.store(false, Ordering::Relaxed);
        self.looking.join().expect("looking does no harm")
    }
}

async fn look_on(admin: &Admin, running: &AtomicBool) -> Flow {
    let mut looks = Looks::default();
    let mut flow = Flow { looks: vec![(Instant::now(), 0)], copying: Duration::ZERO };
    while running.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK_EVERY).await;
        looks.what_moves(admin).await;
        let received = looks.received(admin).await;
        flow.take(Instant::now(), received);
    }
    flow
}

/// A replica, by where it is and what it is of.
type Place = (NodeId, TopicPartition);

/// What the last look has seen.
#[derive(Default)]
struct Looks {
    /// Replicas on their way, now and by the look before: what moves may be over by now.
    comes: BTreeSet<Place>,
    came: BTreeSet<Place>,
    /// The bytes of every replica of each broker that has answered.
    held: BTreeMap<NodeId, BTreeMap<TopicPartition, u64>>,
}

impl Looks {
    async fn what_moves(&mut self, admin: &Admin) {
        let Ok(moves) = admin.list_moves().await else { return };
        self.came = std::mem::take(&mut self.comes);
        for info in moves {
            let (from, to) = (&info.planned.from, &info.planned.to);
            let comes = to.iter().filter(|node| !from.contains(node));
            let leaves = from.iter().filter(|node| !to.contains(node));
            let place = |node: &NodeId| (*node, info.planned.partition);
            match info.stage {
                MoveStage::Waiting => {}
                MoveStage::Running => self.comes.extend(comes.map(place)),
                // Whoever had left already when the move was cancelled learns again.
                MoveStage::GoingBack => self.comes.extend(comes.chain(leaves).map(place)),
            }
        }
    }

    /// What the replicas on their way have received since the last look.
    async fn received(&mut self, admin: &Admin) -> u64 {
        let Ok(cluster) = admin.cluster().await else { return 0 };
        let mut received = 0;
        for node in cluster.brokers.iter().map(|broker| broker.node) {
            let Ok(listed) = admin.replicas_on(node).await else { continue };
            let now = listed.replicas.into_iter().map(|it| (it.partition, it.bytes));
            let now: BTreeMap<TopicPartition, u64> = now.collect();
            // What a broker had at the first look it did not receive meanwhile.
            if let Some(before) = self.held.get(&node) {
                received += now
                    .iter()
                    .map(|(at, bytes)| self.grown(node, *at, *bytes, before))
                    .sum::<u64>();
            }
            self.held.insert(node, now);
        }
        received
    }

    fn grown(
        &self,
        node: NodeId,
        at: TopicPartition,
        bytes: u64,
        before: &BTreeMap<TopicPartition, u64>,
    ) -> u64 {
        let moves = self.comes.contains(&(node, at)) || self.came.contains(&(node, at));
        match before.get(&at) {
            None => bytes,
            Some(before) if moves => bytes.saturating_sub(*before),
            Some(_) => 0,
        }
    }
}

/// Bytes over time.
pub struct Flow {
    /// When there was a look, and what had been received in all by then.
    looks: Vec<(Instant, u64)>,
    /// How long something was received from one look to the next one.
    copying: Duration,
}

impl Flow {
    fn take(&mut self, at: Instant, received: u64) {
        let (before, sum) = self.looks[self.looks.len() - 1];
        if received > 0 {
            self.copying += at - before;
        }
        self.looks.push((at, sum + received));
    }

    /// All that was received.
    pub fn bytes(&self) -> u64 {
        self.looks[self.looks.len() - 1].1
    }

    /// While anything was, for how long.
    pub fn copying(&self) -> Duration {
        self.copying
    }

    /// The most bytes a second over any stretch of `OVER` or little more.
    pub fn highest(&self) -> f64 {
        let mut highest = 0.0_f64;
        for (begin, (from, before)) in self.looks.iter().enumerate() {
            let end = self.looks[begin..].iter().find(|(to, _)| *to - *from >= OVER);
            if let Some((to, after)) = end {
                highest = highest.max((after - before) as f64 / (*to - *from).as_secs_f64());
            }
        }
        highest
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A rate is one over so long: what nobody used for a moment is saved up for a quarter of a second.
pub const OVER: Duration = Duration::from_secs(5);
