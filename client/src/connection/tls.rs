//! Who we are, whom we trust, and how a QUIC connection is tuned.
//!
//! A broker proves with its certificate which node of which cluster it is: the CA's signature alone
//! is not enough, because another node, or another client, has that too. The cluster is the one
//! that our own certificate names, so no setting can point a client at a wrong cluster unnoticed.

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::ids::NodeId;
use highwater_protocol::native;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::client::{Pem, TlsConfig};
use crate::error::{Error, ErrorKind};

/// TLS material, read and checked once.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    cluster: String,
}

/// What a broker's certificate says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeName {
    cluster: String,
    node: NodeId,
}

/// Accepts one node of one cluster, or any node of it.
#[derive(Debug)]
struct NodeVerifier {
    cluster: String,
    node: Option<NodeId>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    /// Reads certificates and key, from files where the configuration says so.
    pub(crate) fn read(config: &TlsConfig) -> Result<Identity, Error> {
        let ca = certificates(&config.ca, "the cluster CA's certificate")?;
        let chain = certificates(&config.cert, "the client's certificate")?;
        let what = "the client's private key";
        let key = PrivateKeyDer::from_pem_slice(&text(&config.key, what)?)
            .map_err(|error| unusable(&config.key, what, &error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for cert in ca {
            roots.add(cert).map_err(|error| {
                unusable(&config.ca, "the cluster CA's certificate", &error.to_string())
            })?;
        }
        let cluster =
            uris(&chain[0]).iter().find_map(|uri| cluster_of_client(uri)).ok_or_else(|| {
                let reason = "it has no SAN URI like highwater://CLUSTER/client/NAME; make one \
                              with the cluster's CA";
                unusable(&config.cert, "the client's certificate", reason)
            })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(Identity { chain, key, roots: Arc::new(roots), provider, cluster })
    }

    /// The cluster that our certificate belongs to.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// A configuration that accepts `node` only, or any node of our cluster.
    pub(crate) fn quic(&self, node: Option<NodeId>) -> Result<quinn::ClientConfig, Error> {
        let failed = |error: String| {
            let reason = format!("the client's certificate and key cannot be used: {error}");
            Error::new(ErrorKind::Config, reason)
        };
        let verifier = NodeVerifier {
            cluster: self.cluster.clone(),
            node,
            roots: self.roots.clone(),
            provider: self.provider.clone(),
        };
        let mut tls = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| failed(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| failed(error.to_string()))?;
        tls.alpn_protocols = vec![native::ALPN.to_vec()];
        let quic = QuicClientConfig::try_from(tls).map_err(|error| failed(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(quic));
        config.transport_config(Arc::new(transport()));
        Ok(config)
    }
}

/// The node that a certificate, already verified, belongs to.
pub(crate) fn node_of(cert: &CertificateDer<'_>) -> Option<NodeId> {
    uris(cert).iter().find_map(|uri| NodeName::parse(uri)).map(|name| name.node)
}

impl NodeName {
    /// Parses `highwater://CLUSTER/node/ID`, exactly.
    fn parse(uri: &str) -> Option<NodeName> {
        let (cluster, node) = uri.strip_prefix("highwater://")?.split_once("/node/")?;
        let canonical = node.parse::<u32>().ok().filter(|id| id.to_string() == node)?;
        (!cluster.is_empty() && !cluster.contains('/'))
            .then(|| NodeName { cluster: cluster.to_owned(), node: NodeId(canonical) })
    }
}

fn cluster_of_client(uri: &str) -> Option<String> {
    let (cluster, name) = uri.strip_prefix("highwater://")?.split_once("/client/")?;
    let whole = !cluster.is_empty() && !cluster.contains('/') && !name.is_empty();
    whole.then(|| cluster.to_owned())
}

fn uris(cert: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, cert)) = X509Certificate::from_der(cert) else { return Vec::new() };
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &cert,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        let uris = uris(end_entity);
        let Some(name) = uris.iter().find_map(|uri| NodeName::parse(uri)) else {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        };
        let wanted = self.node.is_none_or(|node| node == name.node);
        if name.cluster == self.cluster && wanted {
            return Ok(ServerCertVerified::assertion());
        }
        let who = self.node.map_or("a node".into(), |node| format!("node {node}"));
        Err(rustls::Error::General(format!(
            "expected {who} of cluster {}, found node {} of cluster {}",
            self.cluster, name.node, name.cluster
        )))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC speaks TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(pem: &Pem, what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = text(pem, what)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| unusable(pem, what, &error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(pem, what, "there is no PEM certificate in it"));
    }
    Ok(chain)
}

fn text(pem: &Pem, what: &str) -> Result<Vec<u8>, Error> {
    match pem {
        Pem::Text(text) => Ok(text.clone()),
        Pem::File(path) => {
            std::fs::read(path).map_err(|error| unusable(pem, what, &error.to_string()))
        }
    }
}

fn unusable(pem: &Pem, what: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{what} ({pem:?}) cannot be used: {reason}"))
}

/// Datagrams larger than this spoil GSO: ten of them no longer fit 64 KiB.
pub(crate) const DATAGRAM_BYTES_MAX: u16 = 6_500;

fn transport() -> quinn::TransportConfig {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_BYTES_MAX);
    let mut transport = quinn::TransportConfig::default();
    transport
        // Short enough for a killed broker to be noticed by silence alone; the producer's probing
        // of other brokers is quicker still.
        .keep_alive_interval(Some(Duration::from_millis(200)))
        .max_idle_timeout(Some(quinn::VarInt::from_u32(2_000).into()))
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(quinn::VarInt::from_u32(16 << 20))
        .receive_window(quinn::VarInt::from_u32(64 << 20))
        .send_window(16 << 20)
        .max_concurrent_bidi_streams(quinn::VarInt::from_u32(0))
        .max_concurrent_uni_streams(quinn::VarInt::from_u32(0));
    transport
}

#[cfg(test)]
impl Identity {
    /// One that nobody knows.
    pub(crate) fn for_tests() -> Identity {
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let uri = "highwater://c1/client/test".try_into().expect("it is ASCII");
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        let cert = params.self_signed(&key).expect("it is sound").pem();
        let text = |pem: String| Pem::Text(pem.into_bytes());
        let config =
            TlsConfig { ca: text(cert.clone()), cert: text(cert), key: text(key.serialize_pem()) };
        Identity::read(&config).expect("it was just made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_names_a_node() {
        let name = |uri| NodeName::parse(uri);
        let one = NodeName { cluster: "c1".into(), node: NodeId(3) };
        assert_eq!(name("highwater://c1/node/3"), Some(one));
        for wrong in [
            "highwater://c1/node/03",
            "highwater://c1/node/3/x",
            "highwater://c1/client/3",
            "highwater:///node/3",
            "highwater://c1/x/node/3",
            "https://c1/node/3",
            "highwater://c1/node/-1",
        ] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_clients_certificate_names_its_cluster() {
        assert_eq!(cluster_of_client("highwater://c1/client/me"), Some("c1".into()));
        assert_eq!(cluster_of_client("highwater://c1/node/1"), None);
        assert_eq!(cluster_of_client("highwater://c1/client/"), None);
    }
}
