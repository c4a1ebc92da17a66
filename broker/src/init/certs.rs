//! The cluster's own certificate authority, and certificates for nodes and clients.
//!
//! Keys are ECDSA P-256. The authority's key signs only here and in `highwater init`: brokers never
//! need it, so it can be kept elsewhere.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::init::files::{Secrecy, write_new};
use crate::net::tls::{Identity, Principal, SERVER_NAME};

/// The authority of one cluster.
pub struct Authority {
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// A new authority for a cluster.
    pub fn create(cluster: &str) -> io::Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("Highwater cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.self_signed(&key).map_err(io::Error::other)?;
        let certificate_pem = certificate.pem();
        Ok(Authority {
            cluster: cluster.to_owned(),
            issuer: Issuer::new(params, key),
            certificate_pem,
        })
    }

    /// The authority whose files `write` left in a directory.
    pub fn load(dir: &Path, cluster: &str) -> io::Result<Authority> {
        let certificate_pem = read(&dir.join(CA_CERT))?;
        let key = KeyPair::from_pem(&read(&dir.join(CA_KEY))?).map_err(io::Error::other)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(io::Error::other)?;
        Ok(Authority { cluster: cluster.to_owned(), issuer, certificate_pem })
    }

    /// Writes the certificate and the key into a directory.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write_new(&dir.join(CA_CERT), self.certificate_pem.as_bytes(), Secrecy::Public)?;
        let key = self.issuer.key().serialize_pem();
        write_new(&dir.join(CA_KEY), key.as_bytes(), Secrecy::Secret)
    }

    /// The certificate alone, for those who check others against it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Writes `<stem>.pem` and `<stem>.key` for a node or client that is reached at `hosts`.
    pub fn issue(
        &self,
        principal: Principal,
        hosts: &[String],
        dir: &Path,
        stem: &str,
    ) -> io::Result<()> {
        let Issued { certificate_pem, key_pem } = self.sign(principal, hosts)?;
        let certificate_file = dir.join(format!("{stem}.pem"));
        write_new(&certificate_file, certificate_pem.as_bytes(), Secrecy::Public)?;
        write_new(&dir.join(format!("{stem}.key")), key_pem.as_bytes(), Secrecy::Secret)
    }

    /// A new key and its certificate for a node or client that is reached at `hosts`.
    pub fn sign(&self, principal: Principal, hosts: &[String]) -> io::Result<Issued> {
        let identity = Identity { cluster: self.cluster.clone(), principal };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, identity.to_string());
        params.subject_alt_names = names(&identity, hosts)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node is both: it dials its peers.
        params.extended_key_usages = match identity.principal {
            Principal::Node(_) => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Principal::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        valid(&mut params);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// A certificate and its private key.
pub struct Issued {
    /// For everyone.
    pub certificate_pem: String,
    /// For the owner alone.
    pub key_pem: String,
}

fn names(identity: &Identity, hosts: &[String]) -> io::Result<Vec<SanType>> {
    let uri = identity.to_string().try_into().map_err(io::Error::other)?;
    let mut names = vec![SanType::URI(uri)];
    let Principal::Node(_) = identity.principal else { return Ok(names) };
    let mut hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    hosts.extend([SERVER_NAME, "localhost", "127.0.0.1", "::1"]);
    hosts.sort_unstable();
    hosts.dedup();
    for host in hosts {
        names.push(match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into().map_err(io::Error::other)?),
        });
    }
    Ok(names)
}

/// Nothing renews these yet, so they must not run out in the middle of somebody's night.
fn valid(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2050, 1, 1);
}

fn read(file: &Path) -> io::Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| io::Error::new(error.kind(), format!("read {}: {error}", file.display())))
}

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
