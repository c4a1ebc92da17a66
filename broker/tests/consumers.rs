//! Real brokers and a consumer group of real clients: partitions are shared out and move, coordinators die, members
//! come and go, and every record is handled.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::load::{Load, create};
use common::{Cluster, PATIENCE, Place};
use highwater_client::{
    AckMode, Client, Commit, Consumer, ConsumerConfig, ErrorKind, Event, GroupState, Offset,
    OffsetToCommit, OwnedPartition, PartitionId, ProducerConfig, Profiles, Record, RecordBatch,
    StartAt, TopicPartition,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const GROUP: &str = "billing";
const TOPIC: &str = "orders";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_handled_while_members_come_and_go_and_the_coordinator_dies() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, TOPIC, 6).await;
    let load = Load::start(&client, TOPIC, AckMode::SemiSync);
    let handled = Handled::default();
    let one = Worker::start(&client, &handled, "one").await;
    let two = Doomed::start(&cluster, &handled, "two").await;
    shares(&cluster, &client, &[3, 3]).await;
    handled.wait_for(&cluster, 200).await;

    // Whoever keeps the group: some coordinators go with each broker.
    for node in 1..=3 {
        cluster.kill(node);
        let seen = handled.count();
        handled.wait_for(&cluster, seen + 200).await;
        cluster.start(node);
        shares(&cluster, &client, &[3, 3]).await;
    }
    let three = Worker::start(&client, &handled, "three").await;
    shares(&cluster, &client, &[2, 2, 2]).await;
    one.end().await.expect("it leaves");
    shares(&cluster, &client, &[3, 3]).await;
    // Its session ends.
    two.end_without_a_word();
    let seen = handled.count();
    handled.wait_for(&cluster, seen + 200).await;
    shares(&cluster, &client, &[6]).await;

    let acked = load.stop().await;
    cluster
        .eventually("every record is handled", async || {
            let handled = handled.records.lock().expect("nobody panics with it");
            acked.iter().all(|(place, value)| handled.get(place) == Some(value)).then_some(())
        })
        .await;
    three.end().await.expect("it leaves");
    goes_on_where_it_was(&cluster, &client, handled.ends()).await;
}

/// What is written after everybody left is all that the next member sees.
async fn goes_on_where_it_was(
    cluster: &Cluster,
    client: &Client,
    ends: BTreeMap<PartitionId, u64>,
) {
    assert_eq!(
        client.admin().describe_group(GROUP).await.expect("it has offsets").state,
        GroupState::Empty
    );
    let committed = client.admin().group_offsets(GROUP).await.expect("it has offsets");
    let committed = committed.iter().map(|it| (it.partition.partition, it.offset.0)).collect();
    assert_eq!(ends, committed, "what was handled was marked, and is committed");
    let producer = client.producer(ProducerConfig::default());
    for number in 0..20 {
        let record = Record::to(TOPIC).value(format!("late {number}"));
        producer.send_and_wait(record).await.expect("acknowledged");
    }
    let late = Handled::default();
    let worker = Worker::start(client, &late, "four").await;
    late.wait_for(cluster, 20).await;
    worker.end().await.expect("it leaves");
    let records = late.records.lock().expect("nobody panics with it");
    assert!(records.values().all(|value| value.starts_with("late")), "{records:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_set_and_forgotten_from_outside_only_while_nobody_is_there() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    let topic = highwater_client::NewTopic::new(TOPIC, 1).replication(1);
    let id = client.admin().create_topic(topic).await.expect("created").id;
    let producer = client.producer(ProducerConfig::default());
    for number in 0..10 {
        let record = Record::to(TOPIC).value(format!("{number}"));
        producer.send_and_wait(record).await.expect("acknowledged");
    }
    let (admin, partition) = (client.admin(), TopicPartition::new(id, PartitionId(0)));
    let seventh = || {
        let (offset, note) = (Offset(7), "by hand".to_owned());
        vec![OffsetToCommit { partition, offset, term: None, note }]
    };
    let unknown = admin.describe_group(GROUP).await.expect_err("there is none");
    assert!(unknown.to_string().contains("GROUP_ID_NOT_FOUND"), "{unknown}");
    admin.set_group_offsets(GROUP, seventh()).await.expect("nobody is there");

    let mut consumer = client.consumer(config()).await.expect("it begins");
    let batch = timeout(PATIENCE, consumer.next_batch()).await.expect("in time").expect("readable");
    assert_eq!(batch.iter().next().expect("not empty").offset, Offset(7));
    for refused in [
        admin.set_group_offsets(GROUP, seventh()).await.expect_err("a member is there"),
        admin.delete_group(GROUP).await.expect_err("a member is there"),
        admin.delete_group_offsets(GROUP, vec![partition]).await.expect_err("it reads it"),
    ] {
        assert!(refused.to_string().contains("NON_EMPTY_GROUP"), "{refused}");
    }
    consumer.mark_before(&batch, Offset(8));
    consumer.commit().await.expect("it is its own");
    drop(batch);
    consumer.close(PATIENCE).await.expect("it leaves");
    let offsets = admin.group_offsets(GROUP).await.expect("it has offsets");
    assert_eq!(offsets[0].offset, Offset(8));
    let listed = admin.groups().await.expect("all are there");
    assert_eq!((listed.len(), listed[0].group.0.as_str()), (1, GROUP));
    assert_eq!(admin.delete_group(GROUP).await.expect("nobody is there"), 1);
    assert!(admin.groups().await.expect("all are there").is_empty());

    let nothing = client.consumer(ConsumerConfig::new("", [TOPIC])).await.expect_err("no name");
    assert_eq!(nothing.kind(), ErrorKind::Config);
    let internal =
        producer.send(Record::to("__groups").value("forged")).await.expect("taken").await;
    assert!(internal.expect_err("refused").to_string().contains("takes no records from clients"));
    let deleted = admin.delete_topic("__groups").await.expect_err("refused");
    assert!(deleted.to_string().contains("the cluster's own"), "{deleted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_pauses_resumes_and_seeks_what_it_owns() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    let topic = highwater_client::NewTopic::new(TOPIC, 2).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let producer = client.producer(ProducerConfig::default());
    let write = async |count: u32| {
        for partition in (0..2).flat_map(|partition| vec![partition; count as usize]) {
            let record = Record::to(TOPIC).partition(partition).value("some");
            producer.send_and_wait(record).await.expect("acknowledged");
        }
    };
    write(5).await;
    let manual = config().commit(Commit::Manual);
    let mut consumer = client.consumer(manual).await.expect("it begins");
    let (mut next, mut before) = (BTreeMap::new(), None);
    read_until(
        &mut consumer,
        &mut next,
        |next| next.values().sum::<u64>() == 10,
        |batch| {
            if batch.partition == PartitionId(0) {
                before = Some(batch);
            }
        },
    )
    .await;
    let paused = consumer.owned().into_iter().find(|it| it.partition == PartitionId(0));
    let paused = paused.expect("it owns both");
    consumer.pause(&paused).expect("its own");
    write(5).await;
    let other = |next: &BTreeMap<u32, u64>| next[&1] == 10;
    read_until(&mut consumer, &mut next, other, |batch| {
        assert_eq!(batch.partition, PartitionId(1), "the other one is paused");
    })
    .await;
    consumer.resume(&paused).expect("its own");
    read_until(&mut consumer, &mut next, |next| next[&0] == 10, drop).await;

    // What was done before the pause counts, and what was done before a seek does not.
    let before = before.expect("there was one");
    consumer.mark(&before);
    consumer.commit().await.expect("its own");
    let committed = client.admin().group_offsets(GROUP).await.expect("there are some");
    assert_eq!(committed[0].offset, before.next_offset());
    consumer.seek(&paused, StartAt::Offset(Offset(2))).await.expect("its own");
    consumer.mark(&before);
    let again = timeout(PATIENCE, consumer.next_batch()).await.expect("in time").expect("readable");
    assert_eq!(again.iter().next().expect("not empty").offset, Offset(2));
    consumer.mark_before(&again, Offset(3));
    consumer.commit().await.expect("its own");
    let committed = client.admin().group_offsets(GROUP).await.expect("there are some");
    assert_eq!(committed[0].offset, Offset(3));
    let nobodys = OwnedPartition { partition: PartitionId(9), ..paused };
    let refused = consumer.pause(&nobodys).expect_err("there is none");
    assert!(refused.to_string().contains("orders/9"), "{refused}");
    consumer.close(PATIENCE).await.expect("it leaves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_asking_gives_its_partitions_up_and_is_told_when_it_is_back() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    let topic = highwater_client::NewTopic::new(TOPIC, 2).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let (away, handled) = (Duration::from_secs(1), Handled::default());
    let mut slow = client.consumer(config().poll_interval_max(away)).await.expect("it begins");
    let quick = Worker::start(&client, &handled, "quick").await;
    settle(&cluster, &client, &mut slow).await;
    let producer = client.producer(ProducerConfig::default());
    let write = async {
        for number in 0..40 {
            let record = Record::to(TOPIC).partition(number % 2).value(format!("{number}"));
            producer.send_and_wait(record).await.expect("acknowledged");
        }
    };
    // It is there until it has its batch.
    let (batch, ()) = tokio::join!(timeout(PATIENCE, slow.next_batch()), write);
    let batch = batch.expect("in time").expect("readable");
    let own = OwnedPartition { topic: batch.topic.clone(), partition: batch.partition };
    slow.mark_before(&batch, Offset(batch.first_offset().0 + 1));

    // It holds on to the batch; somebody else does all of it, and what came after.
    shares(&cluster, &client, &[2]).await;
    handled.wait_for(&cluster, 40).await;
    let done = committed(&cluster, &client, 40).await;
    let event = timeout(PATIENCE, slow.next_event()).await.expect("in time").expect("it goes on");
    assert!(matches!(event, Event::Stalled(told) if told >= away), "{event:?}");
    let event = timeout(PATIENCE, slow.next_event()).await.expect("in time").expect("it goes on");
    assert!(matches!(&event, Event::Lost(lost) if *lost == [own]), "{event:?}");
    slow.mark(&batch);
    slow.commit().await.expect("there is nothing to commit");
    settle(&cluster, &client, &mut slow).await;
    slow.mark(&batch);
    slow.close(PATIENCE).await.expect("it leaves");
    quick.end().await.expect("it leaves");
    assert_eq!(committed(&cluster, &client, 40).await, done, "no offset goes back");
}

/// Has a member take part until it owns one of two partitions, and nothing moves any more.
async fn settle(cluster: &Cluster, client: &Client, member: &mut Consumer) {
    let shared = shares(cluster, client, &[1, 1]);
    let mut shared = std::pin::pin!(shared);
    loop {
        tokio::select! {
            () = &mut shared => return,
            event = member.next_event() => drop(event.expect("it goes on")),
        }
    }
}

/// The offsets of all partitions, once they add up to what was written.
async fn committed(cluster: &Cluster, client: &Client, sum: u64) -> Vec<(PartitionId, Offset)> {
    cluster
        .eventually("all is committed", async || {
            let offsets = client.admin().group_offsets(GROUP).await.ok()?;
            let offsets: Vec<_> =
                offsets.iter().map(|it| (it.partition.partition, it.offset)).collect();
            (offsets.iter().map(|(_, offset)| offset.0).sum::<u64>() == sum).then_some(offsets)
        })
        .await
}

/// Reads until what comes next in each partition is as wanted.
async fn read_until(
    consumer: &mut Consumer,
    next: &mut BTreeMap<u32, u64>,
    wanted: impl Fn(&BTreeMap<u32, u64>) -> bool,
    mut look: impl FnMut(RecordBatch),
) {
    while !wanted(next) {
        let batch = timeout(PATIENCE, consumer.next_batch()).await;
        let batch = batch.expect("in time").expect("readable");
        next.insert(batch.partition.0, batch.next_offset().0);
        look(batch);
    }
}

fn config() -> ConsumerConfig {
    ConsumerConfig::new(GROUP, [TOPIC]).commit(Commit::AutoMarked(Duration::from_millis(100)))
}

/// Waits until the group is at rest with members that own so many partitions.
async fn shares(cluster: &Cluster, client: &Client, wanted: &[usize]) {
    cluster
        .eventually(&format!("members own {wanted:?}"), async || {
            let group = client.admin().describe_group(GROUP).await.ok()?;
            let mut owned: Vec<usize> = group.members.iter().map(|it| it.assigned.len()).collect();
            owned.sort_unstable();
            (group.state == GroupState::Stable && owned == wanted).then_some(())
        })
        .await;
}

/// What all workers have handled.
#[derive(Clone, Default)]
struct Handled {
    records: Arc<Mutex<BTreeMap<Place, String>>>,
}

impl Handled {
    fn count(&self) -> usize {
        self.records.lock().expect("nobody panics with it").len()
    }

    async fn wait_for(&self, cluster: &Cluster, count: usize) {
        let enough = async || (self.count() >= count).then_some(());
        cluster.eventually(&format!("{count} records are handled"), enough).await;
    }

    /// What comes next in each partition.
    fn ends(&self) -> BTreeMap<PartitionId, u64> {
        let records = self.records.lock().expect("nobody panics with it");
        records.keys().map(|(partition, offset)| (*partition, offset.0 + 1)).collect()
    }
}

/// A program that is a member of the group.
struct Worker {
    stop: CancellationToken,
    task: JoinHandle<Result<(), highwater_client::Error>>,
}

impl Worker {
    async fn start(client: &Client, handled: &Handled, name: &'static str) -> Worker {
        Worker::start_with(client, config(), handled, name).await
    }

    async fn start_with(
        client: &Client,
        config: ConsumerConfig,
        handled: &Handled,
        name: &'static str,
    ) -> Worker {
        let consumer = client.consumer(config).await.expect("it begins");
        let stop = CancellationToken::new();
        let task = tokio::spawn(work(consumer, handled.clone(), stop.clone(), name));
        Worker { stop, task }
    }

    async fn end(self) -> Result<(), highwater_client::Error> {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("it ends in time").expect("it does not panic")
    }
}

/// A program that is a member and will not take its leave.
struct Doomed {
    runtime: Runtime,
}

impl Doomed {
    async fn start(cluster: &Cluster, handled: &Handled, name: &'static str) -> Doomed {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread can be had");
        let profiles = Profiles::load_from(&cluster.created.profile).expect("init wrote it");
        let config = profiles.get(None).expect("one profile").config();
        let handled = handled.clone();
        let started = runtime.spawn(async move {
            let client = Client::connect(config).await.expect("the cluster is healthy");
            // Its session is to end while somebody waits for that.
            let short = self::config().session_timeout(Duration::from_secs(3));
            Worker::start_with(&client, short, &handled, name).await
        });
        started.await.expect("it starts");
        Doomed { runtime }
    }

    /// Nothing of it runs from now on, as if it had been killed.
    fn end_without_a_word(self) {
        self.runtime.shutdown_background();
    }
}

async fn work(
    mut consumer: Consumer,
    handled: Handled,
    stop: CancellationToken,
    name: &'static str,
) -> Result<(), highwater_client::Error> {
    loop {
        let batch = tokio::select! {
            () = stop.cancelled() => return consumer.close(PATIENCE).await,
            batch = consumer.next_batch() => batch?,
        };
        for record in &batch {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            let place = (batch.partition, record.offset);
            let mut records = handled.records.lock().expect("nobody panics with it");
            let known = records.insert(place, value.clone());
            assert!(known.is_none_or(|known| known == value), "{name} read something else");
        }
        consumer.mark(&batch);
    }
}
