//! How our QUIC is tuned, and why.
//!
//! Measured on loopback: 6,000-byte datagrams carry 2.4 times what 1,452-byte ones do, above about
//! 6,500 quinn's batch of ten segments no longer fits 64 KiB and speed falls by two thirds, small
//! windows and small socket buffers cost half. So: path-MTU discovery up to 6,500, GSO on, 4 MiB
//! socket buffers, windows of megabytes. Few long-lived streams everywhere: a stream per message
//! costs five to ten times as much.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::{native, peer};
use quinn::congestion::CubicConfig;
use quinn::crypto::HmacKey;
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;
use uuid::Uuid;

use super::tls::{Credentials, DerivedKey};

/// The endpoint of a broker: takes connections of clients and peers, and dials peers.
pub(super) fn endpoint(
    socket: std::net::UdpSocket,
    credentials: &Credentials,
) -> io::Result<Endpoint> {
    let crypto = credentials.server(&[native::ALPN, peer::ALPN])?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    // A peer asks for a shorter one, and the shorter one holds.
    server.transport_config(Arc::new(transport(CLIENT_IDLE, CLIENT_IDLE / 3)));
    server.max_incoming(INCOMING_MAX);
    Endpoint::new(endpoint_config(credentials)?, Some(server), socket, Arc::new(TokioRuntime))
}

/// How a broker dials a peer.
pub(super) fn peer_client(credentials: &Credentials) -> io::Result<ClientConfig> {
    let mut client = ClientConfig::new(Arc::new(credentials.client(peer::ALPN)?));
    client.transport_config(Arc::new(transport(PEER_IDLE, PEER_KEEP_ALIVE)));
    Ok(client)
}

/// A broker that restarts answers packets of its former life with a stateless reset, so that the
/// other side notices at once instead of after a time-out. For that the reset key must outlive the
/// process, so it is derived from the node's private key; and connection ids must not be such that
/// only the process that made them takes them for its own, as quinn's are by default.
fn endpoint_config(credentials: &Credentials) -> io::Result<EndpointConfig> {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(credentials.derived_key("reset"))));
    config.cid_generator(|| Box::new(PlainIds));
    config.max_udp_payload_size(DATAGRAM_BYTES_MAX).map_err(io::Error::other)?;
    config.min_reset_interval(RESET_INTERVAL);
    Ok(config)
}

fn transport(idle: Duration, keep_alive: Duration) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM_BYTES_MAX);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .max_idle_timeout(Some(IdleTimeout::try_from(idle).expect("seconds fit")))
        .keep_alive_interval(Some(keep_alive))
        // Until the first round trip is measured; the default of 333 ms makes a lost first packet
        // cost a second.
        .initial_rtt(Duration::from_millis(50))
        .datagram_receive_buffer_size(None);
    transport
}

/// Takes a port, with buffers that suit.
pub(super) fn socket(listen: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let attempt = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another process has the port: stop it or change `listen`"
            }
            _ => "",
        };
        io::Error::new(error.kind(), format!("listen on UDP {listen}: {error}{hint}"))
    };
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))
        .map_err(attempt)?;
    socket.set_nonblocking(true).map_err(attempt)?;
    socket.bind(&listen.into()).map_err(attempt)?;
    socket.set_recv_buffer_size(SOCKET_BYTES).map_err(attempt)?;
    socket.set_send_buffer_size(SOCKET_BYTES).map_err(attempt)?;
    // Linux reports twice what is usable.
    let got = socket.recv_buffer_size().map_err(attempt)?;
    if got < SOCKET_BYTES {
        warn!(
            wanted = SOCKET_BYTES,
            got, "small UDP buffers cost speed: raise the sysctls net.core.rmem_max and wmem_max"
        );
    }
    Ok(socket.into())
}

/// Random connection ids, without a mark by which one process knows its own.
struct PlainIds;

impl ConnectionIdGenerator for PlainIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&Uuid::new_v4().as_bytes()[..self.cid_len()])
    }

    fn cid_len(&self) -> usize {
        6
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

struct ResetKey(DerivedKey);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.0.sign(data));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        // Timing tells nothing here: only we ever verify what we signed.
        if signature == self.0.sign(data) { Ok(()) } else { Err(quinn::crypto::CryptoError) }
    }
}

const DATAGRAM_BYTES_MAX: u16 = 6_500;
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// A client's four produce lanes may all be muted over a quota, each full of what nobody reads: 4 x 8 MiB. The
/// 8 MiB beside them are for the lanes that are read all the time, for heartbeats, metadata and fetches; with less
/// than the four there, what is muted would hold those up for as long as the debt lasts.
const CONNECTION_WINDOW: u32 = (MUTED_LANES_MAX + 1) * STREAM_WINDOW;
/// As many lanes for batches has a connection of our client; more than it has would stop only their own connection.
const MUTED_LANES_MAX: u32 = 4;
/// What is sent and not acknowledged by the far side's transport, read or not.
const SEND_WINDOW: u64 = 16 * 1024 * 1024;
/// Our networks are short and fat: begin with what a slow start would reach after a few round trips.
const INITIAL_WINDOW: u64 = 1024 * 1024;
const STREAMS_MAX: u32 = 128;
const INCOMING_MAX: usize = 1024;
/// At most one reset in this time: garbage must not make us talk.
const RESET_INTERVAL: Duration = Duration::from_millis(5);
const CLIENT_IDLE: Duration = Duration::from_secs(30);
const PEER_IDLE: Duration = Duration::from_secs(2);
const PEER_KEEP_ALIVE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use quinn::Connection;
    use rustls::RootCertStore;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_lane_that_is_read_has_room_beside_four_that_are_full_and_muted() {
        let (_endpoints, client, server) = connected().await;
        let mut muted = Vec::new();
        for _ in 0..MUTED_LANES_MAX {
            let (mut lane, _answers) = client.open_bi().await.expect("a lane");
            let batches = vec![7; STREAM_WINDOW as usize];
            let filled = timeout(PATIENCE, lane.write_all(&batches)).await;
            filled.expect("the window takes what one lane may hold").expect("it is open");
            muted.push((lane, server.accept_bi().await.expect("nobody reads it")));
        }
        let beats = async {
            let (mut control, _answers) = client.open_bi().await.expect("a lane");
            control.write_all(b"heartbeat").await.expect("it is open");
            let (_, mut requests) = server.accept_bi().await.expect("the control lane");
            let mut came = [0; 9];
            requests.read_exact(&mut came).await.expect("it is open");
            came
        };
        let came = timeout(PATIENCE, beats).await.expect("it does not wait for the others");
        assert_eq!(&came, b"heartbeat");
    }

    /// Two endpoints, and the two ends of a connection between them.
    async fn connected() -> ([Endpoint; 2], Connection, Connection) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let server = ServerConfig::with_single_cert(vec![made.cert.der().clone()], key.into());
        let mut server = server.expect("a key and its certificate");
        server.transport_config(Arc::new(transport(CLIENT_IDLE, CLIENT_IDLE / 3)));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Endpoint::server(server, any).expect("a port is free");
        let mut client = Endpoint::client(any).expect("a port is free");
        let trusting = ClientConfig::with_root_certificates(Arc::new(roots));
        client.set_default_client_config(trusting.expect("roots"));
        let address = server.local_addr().expect("it is bound");
        let dialling = client.connect(address, "localhost").expect("a name");
        let accepting = async { server.accept().await.expect("it is open").await };
        let (dialled, accepted) = tokio::join!(dialling, accepting);
        let (dialled, accepted) = (dialled.expect("dialled"), accepted.expect("accepted"));
        ([server, client], dialled, accepted)
    }

    const PATIENCE: Duration = Duration::from_secs(30);
}
