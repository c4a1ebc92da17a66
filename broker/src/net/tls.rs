//! Who is at the other end: TLS 1.3 with certificates of the cluster's own authority, both ways.
//!
//! The chain is checked during the handshake (webpki, against the cluster's authority alone, so
//! that a certificate of another cluster never gets past it). What the certificate says about its
//! owner is a URI in its subject alternative names, `highwater://<cluster>/node/<id>` or
//! `highwater://<cluster>/client/<name>`, and is read here after the handshake. Nothing else in a
//! certificate decides anything.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_protocol::ids::NodeId;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::TlsFiles;

/// The name that every node's certificate carries, so that a node may move between addresses.
pub const SERVER_NAME: &str = "highwater";

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster whose authority signed it.
    pub cluster: String,
    /// Who in that cluster.
    pub principal: Principal,
}

/// Who, within a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A broker.
    Node(NodeId),
    /// A person or program.
    Client(String),
}

/// A certificate chain, its key and the authority that others are checked against.
pub struct Credentials {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// What the certificate says of its owner.
    pub identity: Identity,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.principal {
            Principal::Node(node) => write!(f, "highwater://{}/node/{node}", self.cluster),
            Principal::Client(name) => write!(f, "highwater://{}/client/{name}", self.cluster),
        }
    }
}

impl Identity {
    /// The identity that a URI spells, if it spells one.
    pub fn parse(uri: &str) -> Option<Identity> {
        let mut parts = uri.strip_prefix("highwater://")?.split('/');
        let (cluster, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || cluster.is_empty() || name.is_empty() {
            return None;
        }
        let principal = match kind {
            "node" => Principal::Node(NodeId(name.parse().ok()?)),
            "client" => Principal::Client(name.to_owned()),
            _ => return None,
        };
        Some(Identity { cluster: cluster.to_owned(), principal })
    }

    /// The client's name, if it is none of the brokers.
    pub fn client(&self) -> Option<&str> {
        match &self.principal {
            Principal::Client(name) => Some(name),
            Principal::Node(_) => None,
        }
    }

    /// The one identity in a certificate; none if there are two that differ.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Identity> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        let mut found = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Identity::parse(uri),
            _ => None,
        });
        let identity = found.next()?;
        found.next().is_none().then_some(identity)
    }

    /// The identity of whoever is at the other end of a connection.
    pub fn of_connection(connection: &quinn::Connection) -> Option<Identity> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        Identity::of_certificate(chain.first()?)
    }
}

impl Credentials {
    /// Reads the files; every error names its file.
    pub fn load(files: &TlsFiles) -> io::Result<Credentials> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate).map_err(|error| in_file(&files.ca, &error))?;
        }
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| in_file(&files.key, &error))?;
        let identity = chain.first().and_then(Identity::of_certificate).ok_or_else(|| {
            in_file(
                &files.cert,
                &"it has no URI highwater://<cluster>/node/<id> among its names; \
                  use the certificate that `highwater init` wrote for this node",
            )
        })?;
        Ok(Credentials { roots: Arc::new(roots), chain, key, identity })
    }

    /// What a server shows and asks for; callers choose a protocol by ALPN.
    pub fn server(&self, protocols: &[&[u8]]) -> io::Result<QuicServerConfig> {
        let provider = provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
                .build()
                .map_err(io::Error::other)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(io::Error::other)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config).map_err(io::Error::other)
    }

    /// What a client shows and asks for.
    pub fn client(&self, protocol: &[u8]) -> io::Result<QuicClientConfig> {
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        QuicClientConfig::try_from(config).map_err(io::Error::other)
    }

    /// A key that stays the same as long as the private key does and tells nothing about it.
    pub fn derived_key(&self, purpose: &str) -> DerivedKey {
        let root = DerivedKey { bytes: [0; 32] };
        let secret = root.sign(self.key.secret_der());
        DerivedKey { bytes: DerivedKey { bytes: secret }.sign(purpose.as_bytes()) }
    }
}

/// A secret for one purpose, with HMAC-SHA-256.
#[derive(Clone)]
pub struct DerivedKey {
    bytes: [u8; 32],
}

impl DerivedKey {
    /// The code of a message under this key.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        let suite = cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
        let key = rustls::crypto::tls13::OkmBlock::new(&self.bytes);
        let tag = suite.hkdf_provider.hmac_sign(&key, message);
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// aws-lc-rs with AES-128-GCM first: on CPUs with AES the fastest of the three, and ample.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| in_file(file, &error))?;
    if found.is_empty() {
        return Err(in_file(file, &"it holds no certificate"));
    }
    Ok(found)
}

fn in_file(file: &Path, reason: &dyn fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_what_it_wrote() {
        for principal in [Principal::Node(NodeId(7)), Principal::Client("admin".to_owned())] {
            let identity = Identity { cluster: "c0ffee-1".to_owned(), principal };
            assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
        }
    }

    #[test]
    fn what_is_not_exactly_an_identity_is_none() {
        for uri in [
            "",
            "highwater://",
            "highwater://c/node/x",
            "highwater://c/node/1/2",
            "highwater:///node/1",
            "https://c/node/1",
            "highwater://c/root/1",
        ] {
            assert_eq!(Identity::parse(uri), None, "{uri}");
        }
    }
}
