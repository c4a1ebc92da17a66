//! A cluster CA and certificates, made in memory.

use highwater_client::{NodeId, Pem, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub struct Pki {
    cluster: String,
    pub ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub fn new(cluster: &str) -> Pki {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = params.self_signed(&key).expect("a CA").pem();
        Pki { cluster: cluster.into(), ca_pem, issuer: Issuer::new(params, key) }
    }

    fn leaf(&self, uri: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }

    pub fn client(&self, name: &str) -> TlsConfig {
        let (cert, key) = self.leaf(&format!("highwater://{}/client/{name}", self.cluster));
        let pem = |text: &str| Pem::Text(text.as_bytes().to_vec());
        TlsConfig { ca: pem(&self.ca_pem), cert: pem(&cert), key: pem(&key) }
    }

    pub fn node(&self, node: NodeId) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let (cert, key) = self.leaf(&format!("highwater://{}/node/{node}", self.cluster));
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        (vec![cert], key)
    }
}
