//! What this broker knows of every partition, for whoever serves clients: where the local log is
//! read, who leads, and a bell that rings when there is more to read.
//!
//! One map from partition to `Route`, replaced as a whole when topics come or go, so that a look-up
//! takes no lock; within a route each fact is swapped on its own. Facts come from two sides: the
//! shards' notices about hosted replicas, and other brokers' news about what they lead. The higher
//! term wins; within a term only the replica itself may take back what it said. A notice about a
//! partition that has no route any more is dropped: its topic was deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::{ArcSwap, ArcSwapOption};
use highwater_protocol::ids::{NodeId, Term, TopicPartition};
use highwater_protocol::peer::LeaderNews;
use highwater_protocol::topic_name::INTERNAL_PREFIX;
use tokio::sync::Notify;

use crate::log::LogReader;
use crate::metrics::Counter;
use crate::shard::event::Leadership;
use crate::shard::handle::{Notice, NoticeSink};

/// Every partition that this broker knows of.
#[derive(Clone)]
pub struct Routes {
    inner: Arc<Inner>,
}

struct Inner {
    me: NodeId,
    map: ArcSwap<HashMap<TopicPartition, Arc<Route>>>,
    /// Partitions led here of which the others should hear soon.
    news: Mutex<BTreeSet<TopicPartition>>,
    news_came: Notify,
    controller: Notify,
}

/// One partition as this broker knows it.
pub struct Route {
    partition: TopicPartition,
    name: Arc<str>,
    reader: ArcSwapOption<LogReader>,
    leader: ArcSwap<LeaderView>,
    failed: ArcSwapOption<String>,
    changed: Notify,
    traffic: Traffic,
}

/// What clients wrote to a partition and read from it here.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Records written.
    pub records_in: Counter,
    /// Bytes of their batches.
    pub bytes_in: Counter,
    /// Records read.
    pub records_out: Counter,
    /// Bytes of their batches.
    pub bytes_out: Counter,
}

/// Who leads a partition, as far as is known here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderView {
    /// The newest term heard of.
    pub term: Term,
    /// Who leads in it, if known.
    pub leader: Option<NodeId>,
    /// The voters that keep up, as the leader last said.
    pub in_sync: Vec<NodeId>,
}

impl Routes {
    /// Routes that know only the controller's own partition.
    pub fn new(me: NodeId) -> Routes {
        let cluster = Arc::new(Route::new(TopicPartition::CLUSTER, CLUSTER_NAME.into()));
        let map = HashMap::from([(TopicPartition::CLUSTER, cluster)]);
        Routes {
            inner: Arc::new(Inner {
                me,
                map: ArcSwap::from_pointee(map),
                news: Mutex::default(),
                news_came: Notify::new(),
                controller: Notify::new(),
            }),
        }
    }

    /// Where a shard's notices go; one for each shard. It swaps pointers and rings bells;
    /// its one lock guards a set of at most all partitions and is never held across anything slow.
    pub fn sink(&self) -> NoticeSink {
        let routes = self.clone();
        Box::new(move |notice| routes.take(notice))
    }

    /// The route of a partition, unless no topic has it.
    pub fn get(&self, partition: TopicPartition) -> Option<Arc<Route>> {
        self.inner.map.load().get(&partition).cloned()
    }

    /// The route of the controller's own partition.
    pub fn cluster(&self) -> Arc<Route> {
        self.get(TopicPartition::CLUSTER).expect("its route is there from the start")
    }

    /// Takes in partitions that came and lets go of those that went.
    pub(super) fn change(
        &self,
        added: impl IntoIterator<Item = (TopicPartition, Arc<str>)>,
        removed: &[TopicPartition],
    ) {
        let mut map = HashMap::clone(&self.inner.map.load());
        for partition in removed {
            if let Some(route) = map.remove(partition) {
                route.changed.notify_waiters();
            }
        }
        for (partition, name) in added {
            map.entry(partition).or_insert_with(|| Arc::new(Route::new(partition, name)));
        }
        self.inner.map.store(Arc::new(map));
    }

    /// Takes in what another broker says that it leads. News of unknown partitions are dropped:
    /// they are told again within a second.
    pub(super) fn hear(&self, from: NodeId, news: Vec<LeaderNews>) {
        if from == self.inner.me {
            return;
        }
        let map = self.inner.map.load();
        for LeaderNews { partition, term, in_sync } in news {
            if let Some(route) = map.get(&partition) {
                let heard = LeaderView { term, leader: Some(from), in_sync };
                if route.learn(heard, Source::News) && partition == TopicPartition::CLUSTER {
                    self.inner.controller.notify_waiters();
                }
            }
        }
    }

    /// Every partition of which a replica is open here, in order.
    pub fn open_replicas(&self) -> Vec<TopicPartition> {
        let map = self.inner.map.load();
        let open = map.values().filter(|route| route.reader().is_some());
        let mut open: Vec<_> = open.map(|route| route.partition()).collect();
        open.sort_unstable();
        open
    }

    /// All that this broker leads, for the others.
    pub fn led_here(&self) -> Vec<LeaderNews> {
        let map = self.inner.map.load();
        map.values().filter_map(|route| route.news_if_led_by(self.inner.me)).collect()
    }

    /// Waits until the leadership of a partition led here has changed, and gives all such at once.
    pub(super) async fn news_to_tell(&self) -> Vec<LeaderNews> {
        loop {
            let fresh = std::mem::take(&mut *self.news());
            let map = self.inner.map.load();
            let routes = fresh.iter().filter_map(|partition| map.get(partition));
            let news: Vec<LeaderNews> =
                routes.filter_map(|route| route.news_if_led_by(self.inner.me)).collect();
            drop(map);
            if !news.is_empty() {
                return news;
            }
            self.inner.news_came.notified().await;
        }
    }

    fn news(&self) -> MutexGuard<'_, BTreeSet<TopicPartition>> {
        self.inner.news.lock().expect("no one panics while holding the news")
    }

    /// Rings when the leadership of the controller's partition changes.
    pub(super) fn controller_changed(&self) -> &Notify {
        &self.inner.controller
    }

    fn take(&self, notice: Notice) {
        let map = self.inner.map.load();
        match notice {
            Notice::Opened(partition, reader) => {
                if let Some(route) = map.get(&partition) {
                    route.failed.store(None);
                    route.reader.store(Some(Arc::new(reader)));
                    route.changed.notify_waiters();
                }
            }
            Notice::Closed(partition) => {
                if let Some(route) = map.get(&partition) {
                    route.reader.store(None);
                    route.changed.notify_waiters();
                }
            }
            Notice::Committed(partition) => {
                if let Some(route) = map.get(&partition) {
                    route.changed.notify_waiters();
                }
            }
            Notice::Leadership(leadership) => {
                if let Some(route) = map.get(&leadership.partition) {
                    self.take_leadership(route, leadership);
                }
            }
            Notice::Failed(partition, reason) => {
                tracing::error!(%partition, reason, "a replica is out of service until it is made anew from the others, or the broker restarts");
                if let Some(route) = map.get(&partition) {
                    route.failed.store(Some(Arc::new(reason)));
                    route.changed.notify_waiters();
                }
            }
        }
    }

    fn take_leadership(&self, route: &Route, leadership: Leadership) {
        let Leadership { partition, term, leader, in_sync } = leadership;
        let changed = route.learn(LeaderView { term, leader, in_sync }, Source::Replica);
        if !changed {
            return;
        }
        if leader == Some(self.inner.me) {
            self.news().insert(partition);
            self.inner.news_came.notify_one();
        }
        if partition == TopicPartition::CLUSTER {
            self.inner.controller.notify_waiters();
        }
    }
}

/// Where a view of the leadership comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Replica,
    News,
}

impl Route {
    fn new(partition: TopicPartition, name: Arc<str>) -> Route {
        Route {
            partition,
            name,
            reader: ArcSwapOption::empty(),
            leader: ArcSwap::default(),
            failed: ArcSwapOption::empty(),
            changed: Notify::new(),
            traffic: Traffic::default(),
        }
    }

    /// What clients wrote and read here, since the broker came to know the partition.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The partition.
    pub fn partition(&self) -> TopicPartition {
        self.partition
    }

    /// The partition as people write it: topic name and number.
    pub fn title(&self) -> String {
        format!("{}-{}", self.name, self.partition.partition)
    }

    /// Whether it is the cluster's own: no client writes to it.
    pub fn is_internal(&self) -> bool {
        self.name.starts_with(INTERNAL_PREFIX)
    }

    /// The local log, where a replica is hosted and open.
    pub fn reader(&self) -> Option<Arc<LogReader>> {
        self.reader.load_full()
    }

    /// Who leads.
    pub fn leader(&self) -> Arc<LeaderView> {
        self.leader.load_full()
    }

    /// Why the local replica is out of service, if it is.
    pub fn failed(&self) -> Option<Arc<String>> {
        self.failed.load_full()
    }

    /// Rings when more can be read, when the leadership changes, and when the replica comes or goes.
    /// Register with it before looking.
    pub fn changed(&self) -> &Notify {
        &self.changed
    }

    fn news_if_led_by(&self, me: NodeId) -> Option<LeaderNews> {
        let view = self.leader.load();
        let LeaderView { term, leader, in_sync } = &**view;
        let news =
            || LeaderNews { partition: self.partition, term: *term, in_sync: in_sync.clone() };
        (*leader == Some(me)).then(news)
    }

    /// Takes a view if it is news; true if anything changed.
    fn learn(&self, heard: LeaderView, source: Source) -> bool {
        let mut changed = false;
        self.leader.rcu(|known| {
            // A replica's own word replaces what was known of the same term, so that a leader that
            // steps down within its term is no longer named; hearsay only fills a gap or repeats.
            let accepted = heard.term > known.term
                || heard.term == known.term
                    && match source {
                        Source::Replica => true,
                        Source::News => known.leader.is_none() || known.leader == heard.leader,
                    };
            let mut heard = heard.clone();
            // A follower knows its leader, and not who else keeps up.
            if heard.in_sync.is_empty() && (heard.term, heard.leader) == (known.term, known.leader)
            {
                heard.in_sync.clone_from(&known.in_sync);
            }
            changed = accepted && **known != heard;
            if changed { Arc::new(heard) } else { known.clone() }
        });
        if changed {
            self.changed.notify_waiters();
        }
        changed
    }
}

/// How the controller's own partition is called before people.
pub const CLUSTER_NAME: &str = "__cluster";

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{PartitionId, TopicId};
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;

    const ME: NodeId = NodeId(1);

    fn partition() -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionId(0))
    }

    fn routes() -> Routes {
        let routes = Routes::new(ME);
        routes.change([(partition(), "orders".into())], &[]);
        routes
    }

    fn says(routes: &Routes, term: u32, leader: Option<u32>) {
        let notice = Notice::Leadership(Leadership {
            partition: partition(),
            term: Term(term),
            leader: leader.map(NodeId),
            in_sync: Vec::new(),
        });
        routes.sink()(notice);
    }

    fn hears(routes: &Routes, from: u32, term: u32) {
        let news = LeaderNews { partition: partition(), term: Term(term), in_sync: Vec::new() };
        routes.hear(NodeId(from), vec![news]);
    }

    fn known(routes: &Routes) -> (u32, Option<u32>) {
        let view = routes.get(partition()).expect("made above").leader();
        (view.term.0, view.leader.map(|leader| leader.0))
    }

    #[test]
    fn the_higher_term_wins_whoever_says_it() {
        let routes = routes();
        hears(&routes, 2, 5);
        says(&routes, 4, Some(1));
        assert_eq!(known(&routes), (5, Some(2)));
        says(&routes, 6, Some(1));
        hears(&routes, 2, 5);
        assert_eq!(known(&routes), (6, Some(1)));
    }

    #[test]
    fn within_a_term_only_the_replica_takes_back_what_it_said() {
        let routes = routes();
        says(&routes, 5, Some(1));
        says(&routes, 5, None);
        assert_eq!(known(&routes), (5, None));
        hears(&routes, 3, 5);
        assert_eq!(known(&routes), (5, Some(3)));
        hears(&routes, 2, 5);
        assert_eq!(known(&routes), (5, Some(3)), "hearsay does not replace what is known");
    }

    #[test]
    fn notices_and_news_of_unknown_partitions_are_dropped() {
        let routes = Routes::new(ME);
        says(&routes, 5, Some(1));
        hears(&routes, 2, 5);
        assert!(routes.get(partition()).is_none());
    }

    #[tokio::test]
    async fn only_what_is_led_here_is_news_for_others() {
        let routes = routes();
        says(&routes, 5, Some(2));
        assert!(routes.led_here().is_empty());
        assert!(timeout(std::time::Duration::ZERO, routes.news_to_tell()).await.is_err());
        says(&routes, 6, Some(1));
        let told = routes.news_to_tell().await;
        assert_eq!(told, routes.led_here());
        assert_eq!((told[0].partition, told[0].term), (partition(), Term(6)));
    }

    #[tokio::test]
    async fn a_commit_between_look_and_wait_is_not_slept_through() {
        let routes = routes();
        let route = routes.get(partition()).expect("made above");
        let bell = route.changed().notified();
        tokio::pin!(bell);
        bell.as_mut().enable();
        routes.sink()(Notice::Committed(partition()));
        bell.await;
    }
}
