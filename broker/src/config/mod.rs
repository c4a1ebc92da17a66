//! What an operator may say about a broker: one TOML file, checked once and reported whole.
//!
//! `Config` is plain data. `load` returns either a configuration in which every value makes sense,
//! or every mistake in the file at once, each with its key, its value, the reason and the way out.
//! Relative paths mean relative to the file. What the file leaves out has the defaults of `parse`.

mod parse;
mod reader;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use highwater_protocol::ids::NodeId;

pub use parse::is_log_filter;
pub use reader::{ConfigError, Problem};

/// Everything a broker is told before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who this broker is.
    pub node: Node,
    /// The UDP address that clients and peers reach.
    pub listen: SocketAddr,
    /// What others are told to connect to, `host:port`.
    pub advertise: String,
    /// Where the data lies.
    pub data_dir: PathBuf,
    /// Produces are refused while the disk under it has less than this free.
    pub disk_reserve_bytes: u64,
    /// How much of what lies on the disk is read and checked in a second; 0: nothing.
    pub scrub_bytes_per_s: u64,
    /// Which cluster it belongs to.
    pub cluster: Cluster,
    /// Every broker that this one knows from the start, itself possibly included.
    pub peers: Vec<Peer>,
    /// The files that prove who it is.
    pub tls: TlsFiles,
    /// Where metrics and health are served, if at all.
    pub http_listen: Option<SocketAddr>,
    /// Bounds on what it takes on.
    pub limits: Limits,
    /// What all brokers must agree on without being told.
    pub defaults: Defaults,
    /// How it writes its own log.
    pub log: LogOutput,
    /// What the file says, as it says it, by key; for whoever asks where a value comes from.
    pub written: BTreeMap<String, String>,
}

/// A broker's name and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id, never reused.
    pub id: NodeId,
    /// Its failure domain.
    pub rack: Option<String>,
}

/// The cluster and its controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The id that the certificates carry too.
    pub id: String,
    /// The brokers that vote on metadata.
    pub controllers: Vec<NodeId>,
}

/// Another broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Where it listens, `host:port`.
    pub address: String,
}

/// Paths of PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the cluster's own authority.
    pub ca: PathBuf,
    /// The certificate of this node or client.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Bounds on what a broker takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many threads run the core; partitions are spread over them.
    pub shards: usize,
    /// Connections of clients at one time; more are refused.
    pub connections_max: usize,
    /// Requests of one connection that are not answered yet; more are not read.
    pub requests_in_flight_max: usize,
    /// After so many crashes within an hour it starts for administration only; 0: never.
    pub crashes_an_hour_max: usize,
}

/// What all brokers must agree on without being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// How often peers hear of each other.
    pub heartbeat_ms: u64,
}

/// How the broker writes its own log, to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOutput {
    /// For people or for machines.
    pub format: LogFormat,
    /// Which lines, in the language of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

/// The shape of a line of the broker's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigError::unreadable(file, &error.to_string()))?;
        Config::parse(&text, file)
    }

    /// Checks the text of a file; relative paths are taken from where the file lies.
    pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
        parse::parse(text, file)
    }

    /// The peers without this broker.
    pub fn others(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.id != self.node.id)
    }
}
