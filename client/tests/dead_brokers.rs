//! Brokers that are gone while others live: nobody waits for them longer than a moment.

mod fake;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use fake::Cluster;
use highwater_client::{Client, ErrorKind, NewTopic, ProducerConfig, Record};

/// Three dead addresses cost three staggers; one connect time-out is a second.
const SOON: Duration = Duration::from_millis(900);

/// A port at which nobody answers: bound, so that nobody else gets it, and never read.
fn dead() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("the loopback has free ports");
    let address = socket.local_addr().expect("bound").to_string();
    (socket, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_bootstrap_addresses_are_not_waited_for_one_after_another() {
    let cluster = Cluster::start(1, 1).await;
    let dead: Vec<_> = (0..3).map(|_| dead()).collect();
    let mut config = cluster.config();
    config.bootstrap.splice(0..0, dead.iter().map(|(_, address)| address.clone()));
    let begun = Instant::now();
    Client::connect(config).await.expect("the last address answers");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn right_after_a_broker_died_nothing_waits_for_it() {
    let cluster = Cluster::start(3, 3).await;
    cluster.silence(1);
    // Metadata still names it, as it does until the controller has noticed.
    for partition in 0..3 {
        cluster.move_leader(partition, 2 + partition % 2);
    }
    let begun = Instant::now();
    let client = cluster.client().await;
    for _ in 0..4 {
        client.admin().describe_topic("t").await.expect("two brokers answer");
        client.admin().topics().await.expect("two brokers answer");
    }
    let producer = client.producer(ProducerConfig::default());
    producer.send_and_wait(Record::to("t").value("v")).await.expect("written");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_broker_died_is_not_waited_for_either() {
    let cluster = Cluster::start(2, 1).await;
    let client = cluster.client().await;
    client.admin().topics().await.expect("both live");
    cluster.silence(1);
    let begun = Instant::now();
    client.admin().topics().await.expect("the other answers");
    let change = client.admin().create_topic(NewTopic::new("new", 1)).await;
    let error = change.expect_err("the fake makes no topics");
    assert!(error.to_string().contains("not in the fake"), "{error}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_answers_the_error_names_an_address_and_comes_in_time() {
    let cluster = Cluster::start(1, 1).await;
    let dead: Vec<_> = (0..2).map(|_| dead()).collect();
    let mut config = cluster.config();
    config.bootstrap = dead.iter().map(|(_, address)| address.clone()).collect();
    let begun = Instant::now();
    let error = Client::connect(config).await.err().expect("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(dead.iter().any(|(_, address)| error.to_string().contains(address)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
