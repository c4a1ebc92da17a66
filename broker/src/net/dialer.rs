//! Who is dialled: every broker that the configuration or the image names, at the configured address,
//! or else at the one that it registered.
//!
//! Of two brokers the one with the lower id dials. The other dials, too, but only when it has been
//! without a connection for a while: a broker that joins must make itself known, and one whose
//! address the others do not have yet must be found. If both connect at once, each closes the older
//! connection, which may be both; their pauses differ, so the next attempt settles it. A broker that
//! was removed is left alone.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use highwater_protocol::ids::NodeId;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::CloseCode;
use super::peers::Peers;
use super::tls::{Identity, Principal, SERVER_NAME};
use crate::config::Peer;

/// What is needed to dial anyone.
#[derive(Clone)]
pub(super) struct Dialing {
    pub me: NodeId,
    pub peers: Peers,
    pub endpoint: Endpoint,
    pub config: ClientConfig,
    /// The peers that the configuration names.
    pub configured: Vec<Peer>,
    pub until: CancellationToken,
}

impl Dialing {
    /// Keeps connections with all peers, those that come later included, until told otherwise.
    pub(super) async fn keep_all(self, tasks: TaskTracker) {
        let mut changes = self.peers.node().image_changes();
        let mut dialled = BTreeSet::new();
        loop {
            for peer in self.known() {
                if dialled.insert(peer) && self.peers.welcome(peer) {
                    let dialer = Dialer { dialing: self.clone(), peer, last_told: None };
                    tasks.spawn(dialer.keep());
                }
            }
            tokio::select! {
                () = self.until.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    fn known(&self) -> BTreeSet<NodeId> {
        let image = self.peers.node().image();
        let registered = image.brokers().map(|broker| broker.registration.node);
        let configured = self.configured.iter().map(|peer| peer.id);
        registered.chain(configured).filter(|peer| *peer != self.me).collect()
    }
}

/// Keeps the connection with one peer, dialling again whenever it is lost.
struct Dialer {
    dialing: Dialing,
    peer: NodeId,
    last_told: Option<Instant>,
}

impl Dialer {
    /// Does so until told otherwise; a connection that is open then ends with its endpoint.
    async fn keep(mut self) {
        let until = self.dialing.until.clone();
        let pause_min = if self.dialing.me < self.peer { PAUSE_MIN } else { RELUCTANCE };
        let mut pause = pause_min;
        if self.dialing.me > self.peer && self.sleep(RELUCTANCE).await {
            return;
        }
        loop {
            // Whoever opened it, one is enough.
            while let Some(connection) = self.dialing.peers.connection(self.peer) {
                tokio::select! {
                    _ = connection.closed() => {}
                    () = until.cancelled() => return,
                }
                pause = pause_min;
                if self.sleep(pause).await {
                    return;
                }
            }
            if let Some(address) = self.address() {
                let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&address));
                let outcome = tokio::select! {
                    outcome = connecting => outcome,
                    () = until.cancelled() => return,
                };
                match outcome.unwrap_or_else(|_| Err(io::Error::other("no answer"))) {
                    Ok(connection) => {
                        let since = Instant::now();
                        self.dialing.peers.run(self.peer, connection).await;
                        self.last_told = None;
                        if since.elapsed() > PAUSE_MAX {
                            pause = pause_min;
                        }
                    }
                    Err(error) => self.tell(&address, &error),
                }
            }
            if self.sleep(pause).await {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX.max(pause_min));
        }
    }

    /// Whether it was told to end meanwhile.
    async fn sleep(&self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = self.dialing.until.cancelled() => true,
        }
    }

    /// Where the peer is reached: what the operator says here comes first, for the way from here may
    /// be another than from elsewhere. Nowhere if it was removed.
    fn address(&self) -> Option<String> {
        let image = self.dialing.peers.node().image();
        let registered = image.broker(self.peer);
        if registered.is_none() && image.was_removed(self.peer) {
            return None;
        }
        let configured = self.dialing.configured.iter().find(|peer| peer.id == self.peer);
        let configured = configured.map(|peer| peer.address.clone());
        configured.or_else(|| registered.map(|broker| broker.registration.peer_address.clone()))
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let Dialing { peers, endpoint, config, .. } = &self.dialing;
        let mut found = tokio::net::lookup_host(address).await?;
        let address = found.next().ok_or_else(|| io::Error::other("the name has no address"))?;
        let connection = endpoint
            .connect_with(config.clone(), address, SERVER_NAME)
            .map_err(io::Error::other)?
            .await?;
        let expected =
            Identity { cluster: peers.cluster().to_owned(), principal: Principal::Node(self.peer) };
        let found = Identity::of_connection(&connection);
        if found.as_ref() == Some(&expected) {
            return Ok(connection);
        }
        let found = found.map_or("nobody".to_owned(), |identity| identity.to_string());
        let reason = format!(
            "{address} is {found}, not {expected}: check [[peers]] here and `advertise` there"
        );
        connection.close(CloseCode::Identity.into(), reason.as_bytes());
        Err(io::Error::other(reason))
    }

    /// A peer may be away for long; a line now and then is enough.
    fn tell(&mut self, address: &str, error: &io::Error) {
        if self.last_told.is_some_and(|told| told.elapsed() <= TELL_AGAIN) {
            return;
        }
        self.last_told = Some(Instant::now());
        let peer = self.peer;
        match self.dialing.me < peer {
            true => warn!(%peer, address, %error, "peer not reached; trying on"),
            // The peer itself dials us when it is there.
            false => debug!(%peer, address, %error, "peer not reached; trying on"),
        }
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the broker with the higher id leaves dialling to the other.
const RELUCTANCE: Duration = Duration::from_millis(1_300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is worth a line that a peer is still not reached.
const TELL_AGAIN: Duration = Duration::from_secs(30);
