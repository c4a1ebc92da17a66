//! Bad input at a broker's doors and at its start: a clear answer each time, and the broker goes on.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use common::{Cluster, PATIENCE, broker, edit, read_all};
use highwater_broker::config::TlsFiles;
use highwater_broker::net::tls::{Credentials, SERVER_NAME};
use highwater_client::{NewTopic, NodeId, PartitionId, ProducerConfig, Record};
use highwater_protocol::batch::crc32c;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::native;
use highwater_protocol::native::frame::{AnswerHeader, CorrelationId, RequestHeader, error_of};
use highwater_protocol::wire::Writer;
use quinn::{Connection, ConnectionError, Endpoint};
use tokio::time::timeout;

#[tokio::test]
async fn an_unknown_api_is_answered_and_the_connection_goes_on() {
    let cluster = Cluster::started(1);
    let connection = connect(&cluster, &cluster).await.expect("its own certificate");
    for (api, version, expected) in
        [(999, 0, "API 999"), (1, 77, "Produce version 77"), (3, 0, "cannot be read")]
    {
        let header = RequestHeader { api, version, correlation: CorrelationId(5) };
        let (code, detail) = ask(&connection, header, b"\xff\xff").await;
        assert!(
            matches!(code, ErrorCode::UnsupportedVersion | ErrorCode::InvalidRequest),
            "{code}: {detail}"
        );
        assert!(detail.contains(expected), "{detail}");
    }
}

#[tokio::test]
async fn garbage_closes_the_connection_with_a_reason_and_nobody_elses() {
    let cluster = Cluster::started(1);
    let other = connect(&cluster, &cluster).await.expect("its own certificate");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 2, 1, 1], &[0xff; 64]] {
        let connection = connect(&cluster, &cluster).await.expect("its own certificate");
        let (mut send, _recv) = connection.open_bi().await.expect("a stream");
        send.write_all(garbage).await.expect("written");
        let closed = timeout(PATIENCE, connection.closed()).await.expect("it is closed");
        let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
        assert!(String::from_utf8_lossy(&close.reason).contains("highwater/1"), "{close}");
    }
    let header = RequestHeader { api: 999, version: 0, correlation: CorrelationId(1) };
    ask(&other, header, b"").await;
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_on_both_sides() {
    let ours = Cluster::started(1);
    let theirs = Cluster::made(1);
    drop(connect(&ours, &ours).await.expect("its own certificate"));
    let error = connect(&ours, &theirs).await.expect_err("another authority");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn a_broker_says_why_it_does_not_start() {
    let cluster = Cluster::made(2);
    let config = |node: usize| cluster.created.configs[node - 1].clone();
    let (first, second) = (config(1), config(2));

    let taken = std::net::UdpSocket::bind(cluster.addresses[0]).expect("free a moment ago");
    refuses(&first, "another process has the port");
    drop(taken);

    edit(&first, "dir = \"data\"", "dir = \"../node-2/data\"");
    refuses(&first, "belongs to node 2");
    edit(&first, "dir = \"../node-2/data\"", "dir = \"nowhere\"");
    refuses(&first, "highwater format");

    edit(&second, "id = 2\n#", "id = 1\n#");
    refuses(&second, "this broker is highwater://");
    edit(&second, "listen", "lisen");
    refuses(&second, "did you mean listen?");
}

#[test]
fn every_mistake_in_a_configuration_is_reported_at_once() {
    let cluster = Cluster::made(1);
    let config = &cluster.created.configs[0];
    edit(config, "\nid = 1\n", "\nid = \"one\"\n");
    edit(config, "listen =", "lisen =");
    edit(config, "\"data\"", "7");
    edit(config, "controllers = [1]", "controllers = [1, 2]");
    edit(config, "\"node.key\"", "\"lost.key\"");
    for wrong in ["7 mistakes", "node.id", "lisen", "listen", "data.dir", "controllers", "tls.key"]
    {
        refuses(config, wrong);
    }
}

#[tokio::test]
async fn a_data_directory_in_use_names_its_user_and_nothing_happens_to_it() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    let second = cluster.created.configs[0].with_file_name("second.toml");
    std::fs::copy(&cluster.created.configs[0], &second).expect("writable");
    edit(&second, &cluster.addresses[0].to_string(), &common::free_port().to_string());
    refuses(&second, &format!("is in use by process {}", cluster.pid(1)));
    client.admin().cluster().await.expect("the first one goes on");
}

#[test]
fn a_newer_data_directory_is_refused() {
    let cluster = Cluster::made(1);
    let meta = cluster.dir.path().join("node-1/data/meta.json");
    edit(&meta, "\"format\": 1", "\"format\": 2");
    refuses(&cluster.created.configs[0], "format 2");
}

#[tokio::test]
async fn a_log_of_a_newer_build_is_left_alone_and_the_rest_is_served() {
    let mut cluster = Cluster::started(1);
    let client = cluster.client().await;
    for topic in ["newer", "known"] {
        let topic = NewTopic::new(topic, 1).replication(1);
        client.admin().create_topic(topic).await.expect("created");
    }
    let producer = client.producer(ProducerConfig::default());
    for topic in ["newer", "known"] {
        producer.send_and_wait(Record::to(topic).value("v")).await.expect("written");
    }
    let id = client.admin().describe_topic("newer").await.expect("made").id;
    client.close().await;
    assert!(cluster.stop(1));
    let segment = first_segment(&cluster.dir.path().join("node-1/data/topics"), "newer-0.");
    let mut bytes = std::fs::read(&segment).expect("readable");
    // The version lies in the first page, whose checksum covers it; see FORMAT.md.
    bytes[12..16].copy_from_slice(&2_u32.to_le_bytes());
    let checksum = crc32c(&bytes[12..PAGE_BYTES]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&segment, &bytes).expect("writable");

    cluster.start(1);
    let client = cluster.client().await;
    let asked = client.admin().describe_partition_on(NodeId(1), id, PartitionId(0)).await;
    let error = asked.expect_err("it is out of service").to_string();
    let name = segment.file_name().expect("a file").to_string_lossy().into_owned();
    for word in ["newer-0", &name, "format version is 2", "start a newer build"] {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
    assert_eq!(read_all(&client, "known").await.len(), 1, "another topic is served");
    client.close().await;
    cluster.stop(1);
    assert!(std::fs::read(&segment).expect("readable") == bytes, "it was left as it is");
}

/// Connects to one cluster's broker with another's client certificate and authority.
async fn connect(to: &Cluster, with: &Cluster) -> Result<Connection, ConnectionError> {
    let dir = with.created.profile.parent().expect("a file has a directory");
    let files = TlsFiles {
        ca: dir.join("ca.pem"),
        cert: dir.join("client.pem"),
        key: dir.join("client.key"),
    };
    let crypto = Credentials::load(&files).and_then(|it| it.client(native::ALPN)).expect("valid");
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let dial = async || {
        endpoint
            .connect_with(config.clone(), to.addresses[0], SERVER_NAME)
            .expect("a valid configuration")
            .await
    };
    // The broker may still be starting: then nobody answers and quinn asks again.
    timeout(PATIENCE, dial()).await.expect("an answer of some kind")
}

async fn ask(connection: &Connection, header: RequestHeader, body: &[u8]) -> (ErrorCode, String) {
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    let mut writer = Writer::new();
    header.encode(&mut writer);
    writer.raw(body);
    let frame = writer.finish();
    send.write_all(&(frame.len() as u32).to_be_bytes()).await.expect("written");
    send.write_all(&frame).await.expect("written");
    send.finish().expect("still open");
    let read = timeout(PATIENCE, recv.read_to_end(1 << 16)).await.expect("an answer");
    let mut answer = bytes::Bytes::from(read.expect("an answer")).split_off(4);
    let AnswerHeader { correlation, error } = AnswerHeader::take(&mut answer).expect("a header");
    assert_eq!(correlation, header.correlation);
    let code = error.expect("an error");
    (code, error_of(code, &answer).expect("a detail").detail)
}

fn refuses(config: &Path, why: &str) {
    let Output { status, stderr, .. } = broker(config).output().expect("it runs");
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(why), "expected {why:?} in: {said}");
}

/// The first `.log` file in the directory below `topics` whose name begins so.
fn first_segment(topics: &Path, name: &str) -> PathBuf {
    let named = |dir: &Path, wanted: &dyn Fn(&str) -> bool| {
        let entries = std::fs::read_dir(dir).expect("it is there").map(|it| it.expect("readable"));
        let found = entries
            .map(|it| it.path())
            .filter(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())));
        found.min().expect("there is one")
    };
    named(&named(topics, &|it| it.starts_with(name)), &|it| it.ends_with(".log"))
}

const PAGE_BYTES: usize = 4096;
