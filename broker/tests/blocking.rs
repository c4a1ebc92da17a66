//! The client without `async`, against a real broker: from any thread, with time-outs, and loud where it must not be used.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use highwater_broker::testing::TestCluster;
use highwater_client::blocking::Client;
use highwater_client::{
    ClientConfig, ConsumerConfig, ErrorKind, NewTopic, ProducerConfig, ReaderConfig, Record,
    RecordBatch, StartAt,
};
use tokio::runtime::Runtime;

#[test]
fn threads_share_a_client_that_sends_and_reads() {
    let cluster = Broker::start();
    let client = cluster.client();
    let producer = client.producer(ProducerConfig::default());
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let producer = &producer;
            threads.spawn(move || {
                let records =
                    (0..250).map(|number| Record::to("orders").value(format!("{thread}-{number}")));
                for done in producer.send_all(records) {
                    assert_eq!(done.expect("written").topic.to_string(), "orders");
                }
            });
        }
    });
    let delivery = producer.send(Record::to("orders").partition(1).value("last")).expect("taken");
    assert_eq!(delivery.partition().0, 1);
    let report = producer.flush(PATIENCE).expect("in time");
    assert_eq!((report.acked, report.failed), (1_001, 0));
    assert!(delivery.wait().is_ok());
    let refused = client.producer(ProducerConfig::default()).send_and_wait(Record::to("nobody"));
    assert_eq!(refused.expect_err("there is no such topic").kind(), ErrorKind::UnknownTopic);
    producer.close(PATIENCE).expect("nothing is left");
    let closed = producer.send(Record::to("orders")).expect_err("it was closed");
    assert_eq!(closed.kind(), ErrorKind::Closed);

    let mut reader =
        client.reader(ReaderConfig::new("orders", StartAt::Start).until_end()).expect("there");
    let read: usize = reader.by_ref().map(|batch| batch.expect("readable").len()).sum();
    assert_eq!(read, 1_001);
    assert_eq!(reader.positions().iter().map(|(_, next)| next.0).sum::<u64>(), 1_001);
    client.close();
}

#[test]
fn a_consumer_waits_as_long_as_it_is_told_and_goes_on_where_it_was_marked() {
    let cluster = Broker::start();
    let client = cluster.client();
    let producer = client.producer(ProducerConfig::default());
    let send = |value: &str| {
        let record = Record::to("orders").partition(0).value(value.to_owned());
        producer.send_and_wait(record).expect("written");
    };
    let member = || client.consumer(ConsumerConfig::new("billing", ["orders"])).expect("a member");
    let mut consumer = member();
    let begun = Instant::now();
    assert!(consumer.poll(Duration::from_millis(50)).expect("no error").is_none());
    assert!(begun.elapsed() >= Duration::from_millis(50));
    send("one");
    for batch in consumer.batches() {
        match values(&batch.expect("readable")).concat().as_str() {
            // It is marked when the next one is asked for.
            "one" => send("two"),
            // The loop is left amid this one.
            "two" => break,
            other => panic!("nobody sent {other}"),
        }
    }
    consumer.commit().expect("committed");
    assert_eq!(consumer.owned().len(), 2);
    consumer.close(PATIENCE).expect("it leaves");
    let mut consumer = member();
    let again = consumer.poll(PATIENCE).expect("no error").expect("in time");
    assert_eq!(values(&again), ["two"], "what was not marked comes again, and nothing else");
    consumer.mark(&again);
    consumer.close(PATIENCE).expect("committed");
    let lag = client.block_on(client.admin().group_lag("billing")).expect("it has offsets");
    assert_eq!(lag.iter().map(|it| it.records()).sum::<u64>(), 0);
}

#[test]
fn a_call_from_async_code_panics_at_once_and_drops_there_do_not() {
    let cluster = Broker::start();
    let client = cluster.client();
    let config = cluster.config.clone();
    let producer = client.producer(ProducerConfig::default());
    let consumer = client.consumer(ConsumerConfig::new("billing", ["orders"])).expect("a member");
    let misused = cluster.runtime.block_on(async move {
        let sent = catch_unwind(AssertUnwindSafe(|| producer.send(Record::to("orders")).is_ok()));
        drop((producer, consumer, client));
        sent
    });
    let said = misused.expect_err("it would stop a thread of the runtime");
    let text = said.downcast_ref::<&str>().copied();
    let said = text.or(said.downcast_ref::<String>().map(String::as_str)).expect("in words");
    assert!(said.contains("runtime"), "{said}");
    let beside = cluster.runtime.spawn(async move {
        tokio::task::spawn_blocking(move || Client::connect(config).is_ok()).await
    });
    let connected = cluster.runtime.block_on(beside).expect("no panic").expect("no panic");
    assert!(connected, "threads for what blocks may block");
}

#[test]
fn what_is_dropped_ends_at_once_although_the_brokers_are_gone() {
    let cluster = Broker::start();
    let client = cluster.client();
    let producer = client.producer(ProducerConfig::default());
    producer.send_and_wait(Record::to("orders").value("one")).expect("written");
    drop(cluster);
    let delivery = producer.send(Record::to("orders").value("two")).expect("taken");
    let late = producer.flush(Duration::from_millis(50)).expect_err("nobody answers");
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    let begun = Instant::now();
    drop((delivery, producer, client));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// A broker with the topic `orders` of two partitions.
struct Broker {
    config: ClientConfig,
    // Before the runtime on which it was started.
    _cluster: TestCluster,
    runtime: Runtime,
}

impl Broker {
    fn start() -> Broker {
        let runtime = Runtime::new().expect("threads");
        let cluster = runtime.block_on(TestCluster::start()).expect("a broker");
        let broker = Broker { config: cluster.client_config(), _cluster: cluster, runtime };
        let client = broker.client();
        let topic = NewTopic::new("orders", 2);
        client.block_on(client.admin().create_topic(topic)).expect("created");
        broker
    }

    fn client(&self) -> Client {
        Client::connect(self.config.clone()).expect("connected")
    }
}

fn values(batch: &RecordBatch) -> Vec<String> {
    let text =
        |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    batch.iter().map(|record| text(record.value)).collect()
}

const PATIENCE: Duration = Duration::from_secs(30);
