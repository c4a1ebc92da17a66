//! The connections of a client: at most one per broker, dialled when wanted.
//!
//! Dialling is single flight and does not hurry: after a failure the same broker is left alone for
//! a backoff, and who asks meanwhile is told so at once, because there may be another broker to ask.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater_protocol::ids::NodeId;
use rustls_pki_types::CertificateDer;

use super::tls::{DATAGRAM_BYTES_MAX, Identity, node_of};
use super::{Connection, wire};
use crate::error::{Error, ErrorKind, Outcome};
use crate::race;
use crate::retry::Backoff;
use crate::watch::Watch;

/// All connections of a client.
pub(crate) struct Pool {
    endpoint: quinn::Endpoint,
    identity: Identity,
    client_id: String,
    connect_timeout: Duration,
    watch: Arc<Watch>,
    slots: Mutex<HashMap<NodeId, Arc<Slot>>>,
    /// Who was found at a bootstrap address.
    found: Mutex<HashMap<String, NodeId>>,
}

/// One broker: its connection, if there is one, and when it may be dialled again.
struct Slot {
    current: Mutex<Option<Arc<Connection>>>,
    dial: tokio::sync::Mutex<Dial>,
}

struct Dial {
    backoff: Backoff,
    not_before: Option<Instant>,
    last_error: Option<Error>,
}

impl Pool {
    /// Binds a socket; nothing is dialled yet.
    pub(crate) fn new(
        identity: Identity,
        client_id: String,
        connect_timeout: Duration,
        watch: Arc<Watch>,
    ) -> Result<Pool, Error> {
        let endpoint = endpoint().map_err(|error| {
            Error::new(ErrorKind::Config, format!("cannot open a UDP socket: {error}"))
        })?;
        let (slots, found) = (Mutex::new(HashMap::new()), Mutex::new(HashMap::new()));
        Ok(Pool { endpoint, identity, client_id, connect_timeout, watch, slots, found })
    }

    /// The cluster that every broker must belong to.
    pub(crate) fn cluster(&self) -> &str {
        self.identity.cluster()
    }

    /// The connection to `node`, if it lives.
    pub(crate) fn live(&self, node: NodeId) -> Option<Arc<Connection>> {
        let slot = self.lock_slots().get(&node).cloned()?;
        slot.live()
    }

    /// The connection to `node`, dialled if need be.
    ///
    /// Cancel safe: a dial that nobody waits for is given up.
    pub(crate) async fn get(&self, node: NodeId, address: &str) -> Result<Arc<Connection>, Error> {
        let slot = self.slot(node);
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        let mut dial = slot.dial.lock().await;
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        if let (Some(not_before), Some(error)) = (dial.not_before, &dial.last_error)
            && Instant::now() < not_before
        {
            return Err(error.clone());
        }
        match self.dial(address, Some(node)).await {
            Ok(connection) => {
                dial.backoff.reset();
                dial.not_before = None;
                Ok(slot.keep(connection))
            }
            Err(error) => {
                dial.not_before = Some(Instant::now() + dial.backoff.pause());
                dial.last_error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Dials an address of which only the cluster is known.
    pub(crate) async fn bootstrap(&self, address: &str) -> Result<Arc<Connection>, Error> {
        let found = || self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let node = found().get(address).copied();
        if let Some(connection) = node.and_then(|node| self.live(node)) {
            return Ok(connection);
        }
        let connection = self.dial(address, None).await?;
        found().insert(address.to_owned(), connection.node());
        Ok(self.slot(connection.node()).keep(connection))
    }

    /// Closes everything; what is under way fails.
    pub(crate) async fn close(&self) {
        self.endpoint.close(quinn::VarInt::from_u32(0), b"closed");
        self.endpoint.wait_idle().await;
    }

    async fn dial(&self, address: &str, node: Option<NodeId>) -> Result<Connection, Error> {
        let dialling = self.dial_each(address, node);
        let dialled = tokio::time::timeout(self.connect_timeout, dialling).await;
        let dialled = dialled.unwrap_or_else(|_| {
            let patience = self.connect_timeout;
            Err(Error::new(
                ErrorKind::Unreachable,
                format!(
                    "cannot connect to {address}: no answer in {patience:?}; is a broker running \
                     there, and UDP let through?"
                ),
            ))
        });
        dialled.inspect_err(|why| self.watch.dial_failed(address, why))
    }

    async fn dial_each(&self, address: &str, node: Option<NodeId>) -> Result<Connection, Error> {
        let unresolved = |reason: String| {
            Error::new(
                ErrorKind::Unreachable,
                format!("cannot resolve {address}: {reason}; an address looks like host:port"),
            )
        };
        let addresses = tokio::net::lookup_host(address).await;
        let addresses = addresses.map_err(|error| unresolved(error.to_string()))?;
        // A name may stand for several addresses of which some lead nowhere: `localhost` where the
        // broker listens on IPv4 alone is the commonest. Silence must not use up the time of all.
        let mut dials = Vec::new();
        for each in addresses {
            dials.push(self.dial_one(address, each, node));
        }
        let dialled = race::staggered(dials, ADDRESSES_APART).await;
        dialled.unwrap_or_else(|| Err(unresolved("no address".into())))
    }

    async fn dial_one(
        &self,
        name: &str,
        address: SocketAddr,
        node: Option<NodeId>,
    ) -> Result<Connection, Error> {
        let refused = |reason: String| {
            Error::new(ErrorKind::Unreachable, format!("cannot connect to {name}: {reason}"))
        };
        // The name plays no part: the verifier goes by the node named in the certificate.
        let connecting = self
            .endpoint
            .connect_with(self.identity.quic(node)?, address, "highwater")
            .map_err(|error| refused(error.to_string()))?;
        let lost = |error: quinn::ConnectionError| connection_error(&error, name);
        let quinn = connecting.await.map_err(lost)?;
        let peer = quinn.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer>>().ok());
        let node = peer.as_ref().and_then(|chain| chain.first()).and_then(node_of);
        let node = node.expect("the handshake has checked that the certificate names a node");
        let connection = Connection::open(quinn, node, &self.watch).await?;
        // With TLS 1.3 a broker that dislikes our certificate says so only after the handshake, so
        // the answer to the first request is what proves the connection.
        connection.call(&wire::hello(&self.client_id), self.connect_timeout).await?;
        connection.watch_over(&self.watch);
        Ok(connection)
    }

    fn slot(&self, node: NodeId) -> Arc<Slot> {
        self.lock_slots().entry(node).or_insert_with(|| Arc::new(Slot::new(node))).clone()
    }

    fn lock_slots(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(node: NodeId) -> Slot {
        let backoff = Backoff::new(crate::retry::seed() ^ u64::from(node.0));
        let dial = Dial { backoff, not_before: None, last_error: None };
        Slot { current: Mutex::new(None), dial: tokio::sync::Mutex::new(dial) }
    }

    fn live(&self) -> Option<Arc<Connection>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|connection| !connection.is_dead()).cloned()
    }

    /// Keeps the new connection, or the one that is there and lives.
    fn keep(&self, connection: Connection) -> Arc<Connection> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.as_ref().filter(|held| !held.is_dead()) {
            Some(held) => held.clone(),
            None => current.insert(Arc::new(connection)).clone(),
        }
    }
}

/// What a broken connection means, in our words.
pub(super) fn connection_error(error: &quinn::ConnectionError, broker: &str) -> Error {
    use quinn::ConnectionError as Quic;
    let identity = |reason: String| {
        Error::with_outcome(
            ErrorKind::Identity,
            Outcome::NotWritten,
            format!(
                "{broker} and this client do not trust each other: {reason}; check that the \
                 profile's certificates come from this cluster's CA and are in date"
            ),
        )
    };
    // TLS alerts travel as QUIC error codes 0x100 to 0x1ff (RFC 9001, section 4.8).
    let is_tls = |code: quinn::TransportErrorCode| (0x100..0x200).contains(&u64::from(code));
    let lost = |reason: String| {
        let text = format!("lost the connection to {broker}: {reason}");
        Error::with_outcome(ErrorKind::ConnectionLost, Outcome::Unknown, text)
    };
    match error {
        Quic::TransportError(error) if is_tls(error.code) => identity(error.reason.clone()),
        Quic::ConnectionClosed(close) if is_tls(close.error_code) => {
            identity(format!("it refused ours: {close}"))
        }
        Quic::TimedOut => lost("it has fallen silent".into()),
        Quic::VersionMismatch
        | Quic::TransportError(_)
        | Quic::ConnectionClosed(_)
        | Quic::ApplicationClosed(_)
        | Quic::Reset
        | Quic::LocallyClosed
        | Quic::CidsExhausted => lost(error.to_string()),
    }
}

fn endpoint() -> std::io::Result<quinn::Endpoint> {
    let socket = socket()?;
    let mut config = quinn::EndpointConfig::default();
    config
        .max_udp_payload_size(DATAGRAM_BYTES_MAX)
        .expect("the size lies between QUIC's limits, 1,200 and 65,527");
    quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))
}

/// A socket for both families where the host has IPv6, with buffers for bursts.
fn socket() -> std::io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let bind = |domain, address: SocketAddr| -> std::io::Result<Socket> {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let socket = bind(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into())
        .or_else(|_| bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into()))?;
    // The kernel caps this at its own maximum without an error; smaller buffers only cost speed.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    Ok(socket.into())
}

/// As RFC 8305 has it, at the short end: our handshakes take a round trip or two.
const ADDRESSES_APART: Duration = Duration::from_millis(100);
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
