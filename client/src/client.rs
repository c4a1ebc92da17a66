//! The way in: configuration, and the handle from which all others are made.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use highwater_protocol::batch::Compression;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::metadata::{MetadataRequest, MetadataResponse};

use crate::admin::Admin;
use crate::connection::{Call, Connection, Identity, Pool};
use crate::consumer::{Consumer, ConsumerConfig};
use crate::error::{Error, ErrorKind};
use crate::hooks::Hooks;
use crate::metadata::{Metadata, Snapshot, TopicShape};
use crate::producer::{Producer, ProducerConfig};
use crate::profile::Profile;
use crate::race;
use crate::reader::{Reader, ReaderConfig};
use crate::record::TopicName;
use crate::retry::{self, Backoff};
use crate::watch::{Metrics, Watch};

/// How to reach a cluster, as whom, and how patiently.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Some brokers of the cluster, `host:port`; the rest is learned from them.
    pub bootstrap: Vec<String>,
    /// Who we are and whom we trust.
    pub tls: TlsConfig,
    /// A name for this client in the brokers' logs.
    pub client_id: String,
    /// How long one attempt to connect may take. Default 1 s.
    pub connect_timeout: Duration,
    /// How long a broker may take to answer one request. Default 10 s.
    pub request_timeout: Duration,
    /// How old metadata may grow before it is asked for again. Default 5 minutes.
    pub metadata_age_max: Duration,
    /// What producers pack batches with that do not choose themselves. Default LZ4.
    pub compression: Option<Compression>,
    /// Who is told what the client does. Default nobody.
    pub hooks: Option<Arc<dyn Hooks>>,
}

/// The certificates of a client, from files or memory.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The cluster CA's certificate.
    pub ca: Pem,
    /// The client's certificate (chain), whose SAN URI names the cluster and the client.
    pub cert: Pem,
    /// The private key of that certificate.
    pub key: Pem,
}

/// PEM text, or where it is.
#[derive(Clone)]
pub enum Pem {
    /// In this file, read when the client connects.
    File(PathBuf),
    /// The text itself.
    Text(Vec<u8>),
}

/// A connected client; clones share its connections.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
}

/// What all handles made from a client share.
pub(crate) struct Core {
    pub(crate) config: ClientConfig,
    pub(crate) pool: Pool,
    pub(crate) metadata: Metadata,
    pub(crate) watch: Arc<Watch>,
}

impl ClientConfig {
    /// A configuration with default time-outs.
    pub fn new(
        bootstrap: impl IntoIterator<Item = impl Into<String>>,
        tls: TlsConfig,
    ) -> ClientConfig {
        ClientConfig {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            tls,
            client_id: "highwater-client".into(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(10),
            metadata_age_max: Duration::from_secs(300),
            compression: None,
            hooks: None,
        }
    }

    /// Sets the name for the brokers' logs.
    pub fn client_id(mut self, client_id: impl Into<String>) -> ClientConfig {
        self.client_id = client_id.into();
        self
    }

    /// Has somebody told what the client does.
    pub fn hooks(mut self, hooks: Arc<dyn Hooks>) -> ClientConfig {
        self.hooks = Some(hooks);
        self
    }
}

impl Client {
    /// Connects to the first bootstrap broker that answers and learns the cluster from it.
    ///
    /// # Errors
    /// `Config` for TLS material that cannot be read, `Identity` where a broker is not of the
    /// cluster that the client's certificate names, `Unreachable` where no address answers.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn connect(config: ClientConfig) -> Result<Client, Error> {
        if config.bootstrap.is_empty() {
            let text = "no bootstrap address: give host:port of at least one broker";
            return Err(Error::new(ErrorKind::Config, text));
        }
        let identity = Identity::read(&config.tls)?;
        let watch = Arc::new(Watch::new(config.hooks.clone()));
        let (name, patience) = (config.client_id.clone(), config.connect_timeout);
        let pool = Pool::new(identity, name, patience, watch.clone())?;
        let core = Arc::new(Core { config, pool, metadata: Metadata::new(), watch });
        core.first_answer().await?;
        tokio::spawn(keep_fresh(Arc::downgrade(&core)));
        Ok(Client { core })
    }

    /// Connects with the profile called `name`, or the current one.
    ///
    /// # Errors
    /// `Config` where there is no such profile; otherwise as [`Client::connect`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn from_profile(name: Option<&str>) -> Result<Client, Error> {
        Client::connect(Profile::load(name)?.config()).await
    }

    /// A new producer, ready to send.
    ///
    /// # Panics
    /// Outside of a tokio runtime, on which its sender runs.
    pub fn producer(&self, config: ProducerConfig) -> Producer {
        Producer::new(self.core.clone(), config)
    }

    /// A reader of partitions of one topic, positioned and ready.
    ///
    /// # Errors
    /// `UnknownTopic` where topic or partition do not exist, `TimedOut` where a partition's
    /// start could not be found out in time.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn reader(&self, config: ReaderConfig) -> Result<Reader, Error> {
        Reader::open(self.core.clone(), config).await
    }

    /// A member of a consumer group, which begins to take part at once.
    ///
    /// # Errors
    /// `Config` for a group without a name or a consumer without topics; `Unreachable` or `TimedOut` where no broker
    /// knew in time who keeps the group.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, Error> {
        Consumer::open(self.core.clone(), config).await
    }

    /// Topics, partitions and brokers.
    pub fn admin(&self) -> Admin {
        Admin::new(self.core.clone())
    }

    /// The id of the cluster, which the client's certificate names and every broker has proved.
    pub fn cluster_id(&self) -> &str {
        self.core.pool.cluster()
    }

    /// What this client, and all that was made from it, has done so far, in numbers.
    ///
    /// ```no_run
    /// # async fn run(client: highwater_client::Client) {
    /// let now = client.metrics();
    /// println!("{} records written, {} batches sent again", now.records_written, now.retries);
    /// # }
    /// ```
    pub fn metrics(&self) -> Metrics {
        self.core.watch.metrics()
    }

    /// Closes all connections and waits until the brokers have been told.
    ///
    /// Producers and readers made from this client fail from now on; close them first.
    ///
    /// # Cancel safety
    /// The connections are closed even if the future is dropped; only the waiting ends.
    pub async fn close(&self) {
        self.core.pool.close().await;
    }
}

impl Core {
    /// One that reaches nobody.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Core> {
        let tls = TlsConfig {
            ca: Pem::Text(Vec::new()),
            cert: Pem::Text(Vec::new()),
            key: Pem::Text(Vec::new()),
        };
        let config = ClientConfig::new(["127.0.0.1:1"], tls);
        let watch = Arc::new(Watch::default());
        let (name, patience) = ("test".into(), config.connect_timeout);
        let pool = Pool::new(Identity::for_tests(), name, patience, watch.clone());
        let pool = pool.expect("a socket can be had");
        Arc::new(Core { config, pool, metadata: Metadata::new(), watch })
    }

    /// A connection to `node`, whose address metadata must know.
    pub(crate) async fn connection(&self, node: NodeId) -> Result<Arc<Connection>, Error> {
        let Some(address) = self.metadata.now().address(node) else {
            let text = format!("no broker {node} is registered; `hw cluster brokers` lists them");
            return Err(Error::new(ErrorKind::Unreachable, text));
        };
        self.pool.get(node, &address).await
    }

    /// Learns the cluster for the first time. A broker that has just started may know of nobody yet, and
    /// says so; nobody else may have been reachable.
    async fn first_answer(&self) -> Result<(), Error> {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(retry::seed()));
        loop {
            match self.refresh(0, None).await {
                Ok(_) => return Ok(()),
                Err(error)
                    if error.code() == Some(ErrorCode::BrokerNotAvailable)
                        && begun.elapsed() < self.config.request_timeout => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Asks brokers for metadata until one answers, unless the cache has become newer than `seen`
    /// meanwhile; `avoid` is asked last.
    ///
    /// Cancel safe: another caller goes on where this one stopped.
    pub(crate) async fn refresh(
        &self,
        seen: u64,
        avoid: Option<NodeId>,
    ) -> Result<Arc<Snapshot>, Error> {
        let _single_flight = self.metadata.refreshing.lock().await;
        let now = self.metadata.now();
        if now.generation > seen {
            return Ok(now);
        }
        let question = self.metadata.question();
        let answer = self.ask_any(&question, avoid).await?;
        Ok(self.metadata.learn(&answer))
    }

    /// Puts a metadata question to one broker after another, the next one as soon as the last
    /// takes long, and gives the first answer.
    pub(crate) async fn ask_any(
        &self,
        question: &MetadataRequest,
        avoid: Option<NodeId>,
    ) -> Result<MetadataResponse, Error> {
        let mut known = self.metadata.candidates(avoid);
        // Whoever must be dialled first may well be dead; the sort keeps the order otherwise.
        known.sort_by_key(|(node, _)| (Some(*node) == avoid, self.pool.live(*node).is_none()));
        let mut asking = Vec::with_capacity(known.len() + self.config.bootstrap.len());
        for (node, address) in known {
            asking.push(self.ask(Some(node), address.to_string(), question));
        }
        for address in &self.config.bootstrap {
            asking.push(self.ask(None, address.clone(), question));
        }
        let answer = race::staggered(asking, HEDGE_AFTER).await;
        answer.expect("there is at least one bootstrap address")
    }

    async fn ask(
        &self,
        node: Option<NodeId>,
        address: String,
        question: &MetadataRequest,
    ) -> Result<MetadataResponse, Error> {
        let connection = match node {
            Some(node) => self.pool.get(node, &address).await?,
            None => self.pool.bootstrap(&address).await?,
        };
        connection.call(question, METADATA_PATIENCE).await
    }

    /// A topic's id and number of partitions, asking until `patience` has passed.
    ///
    /// A topic that nobody knows is asked for again for a moment: it may have been made just now.
    pub(crate) async fn topic(
        &self,
        name: &TopicName,
        patience: Duration,
    ) -> Result<TopicShape, Error> {
        self.metadata.follow(name);
        let act = format!("use topic {name}");
        let begun = Instant::now();
        let mut backoff = Backoff::new(retry::seed());
        loop {
            let snapshot = self.metadata.now();
            match snapshot.topic(name) {
                Some(Ok(shape)) if shape.partitions > 0 => return Ok(shape),
                Some(Err(error)) if !error.code.retriable() => {
                    return Err(Error::refused(&act, error));
                }
                Some(Err(error)) if begun.elapsed() > UNKNOWN_TOPIC_PATIENCE => {
                    return Err(Error::refused(&act, error));
                }
                Some(Ok(_) | Err(_)) | None => {}
            }
            if let Some(error) = snapshot.refusal(name).filter(|_| begun.elapsed() > ALONE_PATIENCE)
            {
                return Err(Error::refused(&act, error));
            }
            let failure = self.refresh(snapshot.generation, None).await.err();
            if let Some(error) = failure.filter(|e| e.fatal() || begun.elapsed() > patience) {
                return Err(error.during(&format!("cannot {act}")));
            }
            if self.metadata.now().topic(name).is_none_or(|topic| topic.is_err()) {
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }

    /// Carries out `call` on the leader of a partition, again and again while the refusal is
    /// retriable, until `request_timeout` has passed.
    pub(crate) async fn on_leader<C: Call>(
        &self,
        partition: TopicPartition,
        request: &C,
    ) -> Result<C::Response, Error> {
        let begun = Instant::now();
        let mut backoff = Backoff::new(retry::seed());
        loop {
            let snapshot = self.metadata.now();
            let result = match snapshot.place(partition) {
                Some(place) => match self.pool.get(place.node, &place.address).await {
                    Ok(connection) => connection.call(request, CALL_PATIENCE).await,
                    Err(error) => Err(error),
                },
                None => Err(Error::new(
                    ErrorKind::TimedOut,
                    format!("cannot {}: the partition has no leader at the moment", request.act()),
                )),
            };
            match result {
                Ok(answer) => return Ok(answer),
                Err(error) if !again(&error) => return Err(error),
                Err(error) if begun.elapsed() >= self.config.request_timeout => return Err(error),
                Err(_) => tokio::time::sleep(backoff.pause()).await,
            }
            // If nobody answers, the next round says so.
            let _ = self.refresh(snapshot.generation, None).await;
        }
    }
}

/// A partition just made may not be known to its leader yet, so that is worth another try.
pub(crate) fn again(error: &Error) -> bool {
    error.retriable() || error.kind() == ErrorKind::UnknownTopic
}

/// Asks for metadata when it has grown old, for as long as the client lives.
async fn keep_fresh(core: Weak<Core>) {
    loop {
        let Some(held) = core.upgrade() else { return };
        let (age_max, taken) = (held.config.metadata_age_max, held.metadata.now().taken);
        drop(held);
        let due = taken + age_max.max(METADATA_AGE_LEAST);
        if Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
            continue;
        }
        let Some(held) = core.upgrade() else { return };
        let generation = held.metadata.now().generation;
        if held.refresh(generation, None).await.is_err() {
            drop(held);
            tokio::time::sleep(METADATA_AGE_LEAST).await;
        }
    }
}

/// A broker that takes longer than this for metadata gets competition.
const HEDGE_AFTER: Duration = Duration::from_millis(150);
const METADATA_PATIENCE: Duration = Duration::from_secs(2);
const METADATA_AGE_LEAST: Duration = Duration::from_secs(1);
/// One attempt at a small question; the retries have the whole `request_timeout`.
const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// For this long an unknown topic may only be too new for the broker that was asked.
pub(crate) const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_millis(500);
/// After this long one broker's word suffices, because no other answers.
const ALONE_PATIENCE: Duration = Duration::from_secs(3);

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pem::File(path) => write!(f, "File({})", path.display()),
            // The text may be a private key.
            Pem::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}
