//! The network: one QUIC endpoint per broker, two protocols behind it.
//!
//! Who connects says by ALPN what it speaks: `client` serves the native protocol, `peers` keeps one
//! connection with every other broker. `tls` says who is at the other end. Nothing gets past the
//! handshake without a certificate of this cluster.

mod client;
mod client_calls;
mod dialer;
pub mod frames;
mod peer_codec;
mod peers;
pub mod tls;
mod transport;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use highwater_protocol::ids::{Incarnation, NodeId};
use highwater_protocol::{native, peer};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, VarInt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::api::Api;
use crate::config::{Config, Limits};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::shard::handle::{PeerOutbox, Shards};
use dialer::Dialing;
use peers::Peers;
use tls::{Credentials, Identity, Principal};

/// A port that is ours but not yet answered.
pub struct Bound {
    endpoint: Endpoint,
    credentials: Credentials,
    /// The address, with the port that the system chose if none was given.
    pub local: SocketAddr,
}

/// What stands behind the doors.
pub struct Rooms {
    /// For clients.
    pub api: Api,
    /// For peers.
    pub node: Node,
    /// For peers' Raft frames.
    pub shards: Shards,
    /// What is to be sent to peers.
    pub outbox: PeerOutbox,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// This broker's life.
    pub incarnation: Incarnation,
}

/// The network of a running broker.
pub struct Net {
    endpoint: Endpoint,
    accepting: CancellationToken,
    tasks: TaskTracker,
}

/// Why a connection was closed by us: a number for machines, and a reason string goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The broker stops.
    Stopping = 0,
    /// The other side broke the protocol.
    Protocol = 1,
    /// The certificate is of this cluster but may not do this.
    Identity = 2,
    /// The other side opened a newer connection.
    Replaced = 3,
    /// As many clients are connected as may be.
    Full = 4,
}

impl Bound {
    /// Takes the port and reads the certificates.
    pub fn bind(config: &Config) -> io::Result<Bound> {
        Bound::on(take_port(config.listen)?, config)
    }

    /// Reads the certificates for a port that was taken before.
    pub fn on(socket: UdpSocket, config: &Config) -> io::Result<Bound> {
        let credentials = Credentials::load(&config.tls)?;
        let expected = Identity {
            cluster: config.cluster.id.clone(),
            principal: Principal::Node(config.node.id),
        };
        if credentials.identity != expected {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} names {}, this broker is {expected}: check tls.cert, node.id and cluster.id",
                    config.tls.cert.display(),
                    credentials.identity
                ),
            ));
        }
        let endpoint = transport::endpoint(socket, &credentials)?;
        let local = endpoint.local_addr()?;
        Ok(Bound { endpoint, credentials, local })
    }

    /// Opens the doors.
    pub fn serve(self, config: &Config, rooms: Rooms) -> io::Result<Net> {
        let Bound { endpoint, credentials, .. } = self;
        let client_config = transport::peer_client(&credentials)?;
        let accepting = CancellationToken::new();
        let tasks = TaskTracker::new();
        let peers = Peers::new(config, &rooms);
        let dialing = Dialing {
            me: config.node.id,
            peers: peers.clone(),
            endpoint: endpoint.clone(),
            config: client_config,
            configured: config.others().cloned().collect(),
            until: accepting.clone(),
        };
        tasks.spawn(dialing.keep_all(tasks.clone()));
        let doors = Arc::new(Doors {
            cluster: config.cluster.id.clone(),
            me: config.node.id,
            limits: config.limits,
            taken: Arc::default(),
            clients: Arc::default(),
            peers,
            api: rooms.api,
            metrics: rooms.metrics,
            tasks: tasks.clone(),
        });
        tasks.spawn(doors.accept(endpoint.clone(), accepting.clone()));
        Ok(Net { endpoint, accepting, tasks })
    }
}

impl Net {
    /// Closes every connection with a reason and returns when all tasks have ended, or at the deadline.
    pub async fn stop(self, deadline: Duration) {
        self.accepting.cancel();
        self.endpoint.set_server_config(None);
        self.endpoint.close(CloseCode::Stopping.into(), b"the broker is stopping");
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            warn!(tasks = self.tasks.len(), "connections were still served at the deadline");
        }
        // The far sides are told by now; waiting longer would only answer those who did not hear.
        let _ = tokio::time::timeout(LAST_PACKETS, self.endpoint.wait_idle()).await;
    }
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> VarInt {
        VarInt::from_u32(code as u32)
    }
}

/// Takes a port for a broker; port 0 lets the system choose one.
pub fn take_port(listen: SocketAddr) -> io::Result<UdpSocket> {
    transport::socket(listen)
}

/// What every accepted connection needs.
struct Doors {
    cluster: String,
    me: NodeId,
    limits: Limits,
    /// Handshakes under way, and clients.
    taken: Arc<AtomicUsize>,
    clients: Arc<AtomicUsize>,
    peers: Peers,
    api: Api,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
}

impl Doors {
    async fn accept(self: Arc<Self>, endpoint: Endpoint, until: CancellationToken) {
        loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                () = until.cancelled() => None,
            };
            let Some(incoming) = incoming else { return };
            self.tasks.spawn(Arc::clone(&self).admit(incoming));
        }
    }

    async fn admit(self: Arc<Self>, incoming: Incoming) {
        let remote = incoming.remote_address();
        // Handshakes under way count too: they are what an attacker can make most of.
        let set = self.api.limit_set("limits.connections");
        let clients_max = set.unwrap_or(self.limits.connections_max);
        // Who it is shows only after the handshake: clients must not keep other brokers from theirs.
        let for_brokers = self.api.brokers_known() + HANDSHAKES_SPARE;
        let Some(seat) = Seat::take(&self.taken, clients_max.saturating_add(for_brokers)) else {
            self.metrics.client_connections_refused.bump();
            warn!(%remote, "connection refused: limits.connections is reached");
            return incoming.refuse();
        };
        let connection = match incoming.await {
            Ok(connection) => connection,
            Err(error) => return self.log_failed_handshake(remote, &error),
        };
        let identity = match Identity::of_connection(&connection) {
            Some(identity) if identity.cluster == self.cluster => identity,
            Some(identity) => {
                return self.turn_away(&connection, &format!("{identity} is of another cluster"));
            }
            None => {
                let reason = "the certificate has no URI highwater://<cluster>/client/<name>";
                return self.turn_away(&connection, reason);
            }
        };
        let protocol = protocol_of(&connection);
        if protocol.as_deref() == Some(peer::ALPN) {
            let Principal::Node(node) = identity.principal else {
                let reason = format!("{identity} is no node and may not speak to brokers as one");
                return self.turn_away(&connection, &reason);
            };
            if node == self.me {
                let reason =
                    format!("node {node} is this broker itself: check node.id and tls.cert");
                return self.turn_away(&connection, &reason);
            }
            if !self.peers.welcome(node) {
                return self.turn_away(&connection, "this broker has too many peers");
            }
            drop(seat);
            self.peers.run(node, connection).await;
        } else if protocol.as_deref() == Some(native::ALPN) {
            let Some(_client) = Seat::take(&self.clients, clients_max) else {
                self.metrics.client_connections_refused.bump();
                warn!(%remote, "connection refused: limits.connections is reached");
                return connection.close(CloseCode::Full.into(), b"limits.connections is reached");
            };
            info!(%remote, principal = %identity, "client connected");
            self.metrics.client_connections_total.bump();
            self.metrics.client_connections.up();
            let (api, metrics) = (self.api.clone(), Arc::clone(&self.metrics));
            let session = client::Session::new(api, metrics, self.limits, &identity);
            session.run(connection).await;
            self.metrics.client_connections.down();
            debug!(%remote, principal = %identity, "client disconnected");
        } else {
            self.turn_away(&connection, "no protocol was agreed on");
        }
    }

    fn turn_away(&self, connection: &Connection, reason: &str) {
        self.metrics.client_connections_refused.bump();
        warn!(remote = %connection.remote_address(), reason, "connection refused");
        connection.close(CloseCode::Identity.into(), reason.as_bytes());
    }

    fn log_failed_handshake(&self, remote: SocketAddr, error: &ConnectionError) {
        self.metrics.client_connections_refused.bump();
        if is_about_certificates(error) {
            warn!(
                %remote, %error, cluster = %self.cluster,
                "connection refused: one side's certificate is not from this cluster's authority"
            );
        } else {
            debug!(%remote, %error, "a handshake was not finished");
        }
    }
}

/// A place among the connections; free again when dropped.
struct Seat {
    taken: Arc<AtomicUsize>,
}

impl Seat {
    /// A place, unless as many as `max` are taken; `max` may have become smaller than that.
    fn take(taken: &Arc<AtomicUsize>, max: usize) -> Option<Seat> {
        let free = |taken: usize| (taken < max).then_some(taken + 1);
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(Seat { taken: Arc::clone(taken) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether TLS refused the handshake, here or there; anything else is somebody who went away.
fn is_about_certificates(error: &ConnectionError) -> bool {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => return false,
    };
    TLS_ALERTS.contains(&code)
}

fn protocol_of(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// The codes by which QUIC carries TLS alerts (RFC 9001, section 4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;
/// Handshakes beside those of as many clients and brokers as there may be.
const HANDSHAKES_SPARE: usize = 8;
const LAST_PACKETS: Duration = Duration::from_millis(200);
