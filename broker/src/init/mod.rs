//! Makes a cluster before it runs: its authority, a directory for each node, a client to begin with.
//!
//! ```text
//! DIR/ca.pem ca.key          the authority; the key is needed only to issue more certificates
//! DIR/node-1/                all that node 1 needs: config.toml, ca.pem, node.pem, node.key, data/
//! DIR/admin/                 a client's certificate, and a profile for `hw`
//! ```
//! More nodes are invited later (`invitation`). Nothing that exists is ever overwritten.

pub mod certs;
pub mod command;
pub mod data_dir;
pub mod files;
pub mod invitation;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use highwater_protocol::ids::NodeId;
use uuid::Uuid;

use crate::net::tls::Principal;
use crate::node::Made;
use certs::Authority;
use data_dir::DataDir;
use files::{Secrecy, make_dir, write_new};

/// The cluster wanted.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where everything goes.
    pub dir: PathBuf,
    /// The nodes, numbered from 1 in this order.
    pub nodes: Vec<PlannedNode>,
}

/// One node of the cluster wanted.
#[derive(Debug, Clone)]
pub struct PlannedNode {
    /// Where clients and peers reach it, `host:port`.
    pub address: String,
    /// Where it serves metrics and health, if at all.
    pub http: Option<SocketAddr>,
}

/// The cluster made.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its id.
    pub cluster: String,
    /// The configuration file of each node.
    pub configs: Vec<PathBuf>,
    /// The profile of the first client.
    pub profile: PathBuf,
}

impl Plan {
    /// Makes the cluster's directory.
    pub fn create(&self) -> io::Result<Created> {
        for node in &self.nodes {
            node.listen()?;
        }
        make_dir(&self.dir)?;
        let cluster = Uuid::new_v4().to_string();
        let authority = Authority::create(&cluster)?;
        authority.write(&self.dir)?;
        let mut configs = Vec::new();
        for (id, node) in self.numbered() {
            configs.push(self.create_node(&authority, &cluster, id, node)?);
        }
        let profile = self.create_admin(&authority)?;
        Ok(Created { cluster, configs, profile })
    }

    fn create_node(
        &self,
        authority: &Authority,
        cluster: &str,
        id: NodeId,
        node: &PlannedNode,
    ) -> io::Result<PathBuf> {
        let dir = self.dir.join(format!("node-{id}"));
        make_dir(&dir)?;
        write_new(&dir.join("ca.pem"), authority.certificate_pem().as_bytes(), Secrecy::Public)?;
        let (host, _) = host_and_port(&node.address)?;
        authority.issue(Principal::Node(id), &[host], &dir, "node")?;
        DataDir::format(&dir.join("data"), cluster, id, Made::New)?;
        let config = dir.join("config.toml");
        write_new(&config, self.config(cluster, id, node)?.as_bytes(), Secrecy::Public)?;
        Ok(config)
    }

    fn create_admin(&self, authority: &Authority) -> io::Result<PathBuf> {
        let dir = self.dir.join("admin");
        make_dir(&dir)?;
        write_new(&dir.join("ca.pem"), authority.certificate_pem().as_bytes(), Secrecy::Public)?;
        authority.issue(Principal::Client("admin".to_owned()), &[], &dir, "client")?;
        let bootstrap: Vec<String> =
            self.nodes.iter().map(|node| format!("{:?}", node.address)).collect();
        let text = format!(
            "current = \"default\"\n\n[profiles.default]\nbootstrap = [{}]\nca = \"ca.pem\"\n\
             cert = \"client.pem\"\nkey = \"client.key\"\n",
            bootstrap.join(", ")
        );
        let profile = dir.join("profile.toml");
        write_new(&profile, text.as_bytes(), Secrecy::Public)?;
        Ok(profile)
    }

    fn config(&self, cluster: &str, id: NodeId, node: &PlannedNode) -> io::Result<String> {
        // The most controllers that are of use, and always an odd number.
        let controllers = match self.nodes.len() {
            0..3 => 1,
            3..5 => 3,
            _ => 5,
        };
        let controllers: Vec<NodeId> = (1..=controllers).map(NodeId).collect();
        let peers = self.numbered().map(|(peer, node)| (peer, node.address.as_str())).collect();
        NodeText { cluster, id, node, rack: None, controllers: &controllers, peers }.write()
    }

    fn numbered(&self) -> impl Iterator<Item = (NodeId, &PlannedNode)> {
        (1..).map(NodeId).zip(&self.nodes)
    }
}

/// What the configuration of a node is written from.
struct NodeText<'a> {
    cluster: &'a str,
    id: NodeId,
    node: &'a PlannedNode,
    rack: Option<&'a str>,
    controllers: &'a [NodeId],
    /// Who is known from the start, itself possibly included.
    peers: Vec<(NodeId, &'a str)>,
}

impl NodeText<'_> {
    fn write(&self) -> io::Result<String> {
        let NodeText { cluster, id, node, rack, controllers, peers } = self;
        let controllers: Vec<String> = controllers.iter().map(NodeId::to_string).collect();
        let rack = match rack {
            Some(rack) => format!("rack = {rack:?}"),
            None => "# rack = \"a\"".to_owned(),
        };
        let mut text = format!(
            "# Written by `highwater init`; `highwater check-config` checks it after a change.\n\
             # Relative paths mean relative to this file.\n\n\
             listen = \"{listen}\"       # UDP, for clients and peers alike\n\
             advertise = {address:?}\n\n\
             [node]\nid = {id}\n{rack}\n\n\
             [data]\ndir = \"data\"\n# reserve_mib = 256  # with less free on its disk, records are refused\n\n\
             [cluster]\nid = {cluster:?}\ncontrollers = [{controllers}]\n\n\
             [tls]\nca = \"ca.pem\"\ncert = \"node.pem\"\nkey = \"node.key\"\n\n",
            listen = node.listen()?,
            address = node.address,
            controllers = controllers.join(", "),
        );
        if let Some(http) = node.http {
            text.push_str(&format!("[http]\nlisten = \"{http}\"\n\n"));
        }
        for (peer, address) in peers {
            text.push_str(&format!("[[peers]]\nid = {peer}\naddress = {address:?}\n\n"));
        }
        Ok(text)
    }
}

/// The parts of an address.
fn host_and_port(address: &str) -> io::Result<(String, u16)> {
    let parts = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let parsed = parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parsed.ok_or_else(|| {
        let reason = format!("{address:?} is not host:port, such as broker-1:9400");
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    })
}

impl PlannedNode {
    /// A loopback address stays on the loopback; behind any other name the node listens everywhere.
    fn listen(&self) -> io::Result<SocketAddr> {
        let (host, port) = host_and_port(&self.address)?;
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        Ok(match ip {
            Ok(ip) if ip.is_loopback() => SocketAddr::new(ip, port),
            Ok(IpAddr::V6(_)) => SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port),
            Ok(IpAddr::V4(_)) | Err(_) => {
                SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port)
            }
        })
    }
}

/// Makes the data directory of a node anew, for a disk that was replaced.
pub fn format_data_dir(config: &crate::config::Config) -> io::Result<()> {
    DataDir::format(&config.data_dir, &config.cluster.id, config.node.id, Made::Anew)
}

/// Issues one more client certificate from the authority in a cluster's directory.
pub fn add_client(dir: &Path, cluster: &str, name: &str, into: &Path) -> io::Result<()> {
    make_dir(into)?;
    let authority = Authority::load(dir, cluster)?;
    authority.issue(Principal::Client(name.to_owned()), &[], into, "client")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::net::tls::{Credentials, Identity};

    fn three(dir: &Path) -> Plan {
        let node = |port| PlannedNode { address: format!("127.0.0.1:{port}"), http: None };
        Plan { dir: dir.to_owned(), nodes: vec![node(1), node(2), node(3)] }
    }

    #[test]
    fn every_node_gets_a_configuration_that_holds_and_a_certificate_in_its_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let created = three(dir.path()).create().expect("an empty directory will do");
        for (number, file) in created.configs.iter().enumerate() {
            let config = Config::load(file).expect("what init writes is right");
            let credentials = Credentials::load(&config.tls).expect("init wrote them");
            let id = NodeId(number as u32 + 1);
            let expected =
                Identity { cluster: created.cluster.clone(), principal: Principal::Node(id) };
            assert_eq!(credentials.identity, expected);
            assert_eq!(config.others().count(), 2);
            DataDir::open(&config.data_dir, &config.cluster.id, id).expect("formatted");
        }
    }

    #[test]
    fn an_existing_cluster_is_not_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        three(dir.path()).create().expect("an empty directory will do");
        let error = three(dir.path()).create().expect_err("there is one already");
        assert!(error.to_string().contains("exists already"), "{error}");
    }

    #[test]
    fn the_authority_goes_on_issuing_after_it_was_loaded_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let created = three(dir.path()).create().expect("an empty directory will do");
        let into = dir.path().join("reporter");
        add_client(dir.path(), &created.cluster, "reporter", &into).expect("the key is there");
        assert!(into.join("client.key").exists());
    }
}
