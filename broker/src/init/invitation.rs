//! Invitations: all that a machine needs to become one more broker of a cluster, in one line of text.
//!
//! An invitation is written where the authority's key lies, and holds a certificate and its private
//! key for one node id. So whoever has it can join as that node, and it proves the cluster to the
//! node as much as the node to the cluster; no broker ever needs the authority's key. It is a secret
//! like the key in it, and good for one node.

use std::io;
use std::path::{Path, PathBuf};

use highwater_protocol::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::certs::Authority;
use super::data_dir::DataDir;
use super::files::{Secrecy, attempt, make_dir, replace, write_new};
use super::{NodeText, PlannedNode};
use crate::config::Config;
use crate::net::tls::Principal;
use crate::node::Made;

/// An invitation, as its text says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    highwater_invitation: u32,
    cluster: String,
    node: u32,
    address: String,
    rack: Option<String>,
    controllers: Vec<u32>,
    peers: Vec<Seed>,
    ca: String,
    cert: String,
    key: String,
}

/// A broker that the new one knows from the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seed {
    id: u32,
    address: String,
}

/// Who is invited.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its id; otherwise the next that was never given out.
    pub id: Option<NodeId>,
    /// Where others will reach it, `host:port`.
    pub address: String,
    /// Its failure domain.
    pub rack: Option<String>,
}

impl Invitation {
    /// Invites a node to the cluster that `highwater init` made in `dir`. The certificate stays there as
    /// a note that the id was given out.
    pub fn issue(dir: &Path, guest: Guest) -> io::Result<Invitation> {
        let Guest { id, address, rack } = guest;
        let (host, _) = super::host_and_port(&address)?;
        let config = Config::load(&dir.join("node-1/config.toml")).map_err(io::Error::other)?;
        let authority = Authority::load(dir, &config.cluster.id)?;
        let id = match id {
            Some(id) => id,
            None => next_id(dir)?,
        };
        let note = dir.join(format!("node-{id}"));
        if note.exists() {
            let reason = format!(
                "node {id} was made or invited already ({} is there); leave out the id for the next free one",
                note.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
        }
        let issued = authority.sign(Principal::Node(id), &[host])?;
        make_dir(&note)?;
        write_new(&note.join("node.pem"), issued.certificate_pem.as_bytes(), Secrecy::Public)?;
        let seed =
            |peer: &crate::config::Peer| Seed { id: peer.id.0, address: peer.address.clone() };
        Ok(Invitation {
            highwater_invitation: VERSION,
            cluster: config.cluster.id.clone(),
            node: id.0,
            address,
            rack,
            controllers: config.cluster.controllers.iter().map(|id| id.0).collect(),
            peers: config.peers.iter().map(seed).collect(),
            ca: authority.certificate_pem().to_owned(),
            cert: issued.certificate_pem,
            key: issued.key_pem,
        })
    }

    /// The node that is invited.
    pub fn node(&self) -> NodeId {
        NodeId(self.node)
    }

    /// The cluster that invites.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// One line.
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string(self).expect("plain data always encodes");
        text.push('\n');
        text
    }

    /// Reads what `to_text` wrote.
    pub fn parse(text: &str) -> io::Result<Invitation> {
        let refusal = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let invitation: Invitation = serde_json::from_str(text.trim()).map_err(|error| {
            refusal(format!("this is no invitation ({error}); `highwater invite` writes them"))
        })?;
        match invitation.highwater_invitation {
            VERSION => Ok(invitation),
            found => Err(refusal(format!(
                "the invitation has version {found} and this build knows {VERSION}: start a newer build"
            ))),
        }
    }

    /// Makes the node's directory, unless it is there already: then nothing is changed. Returns its
    /// configuration file, which is written last, so that one which is there is whole.
    pub fn accept(&self, dir: &Path) -> io::Result<PathBuf> {
        let file = dir.join("config.toml");
        if file.exists() {
            let config = Config::load(&file).map_err(io::Error::other)?;
            if config.cluster.id == self.cluster && config.node.id == self.node() {
                return Ok(file);
            }
            let reason = format!(
                "{} is that of node {} of cluster {}, and the invitation is for node {} of cluster {}: use another \
                 directory",
                file.display(),
                config.node.id,
                config.cluster.id,
                self.node,
                self.cluster
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
        }
        make_dir(dir)?;
        replace(&dir.join("ca.pem"), self.ca.as_bytes(), Secrecy::Public)?;
        replace(&dir.join("node.pem"), self.cert.as_bytes(), Secrecy::Public)?;
        replace(&dir.join("node.key"), self.key.as_bytes(), Secrecy::Secret)?;
        let data = dir.join("data");
        if !DataDir::is_formatted(&data) {
            // Another machine may have had this id, and voted.
            DataDir::format(&data, &self.cluster, self.node(), Made::Anew)?;
        }
        let controllers: Vec<NodeId> = self.controllers.iter().copied().map(NodeId).collect();
        let peers = self.peers.iter().map(|seed| (NodeId(seed.id), seed.address.as_str()));
        let text = NodeText {
            cluster: &self.cluster,
            id: self.node(),
            node: &PlannedNode { address: self.address.clone(), http: None },
            rack: self.rack.as_deref(),
            controllers: &controllers,
            peers: peers.collect(),
        };
        replace(&file, text.write()?.as_bytes(), Secrecy::Public)?;
        Ok(file)
    }
}

/// One more than the highest id that was given out here.
fn next_id(dir: &Path) -> io::Result<NodeId> {
    let entries = std::fs::read_dir(dir).map_err(|error| attempt("list", dir, &error))?;
    let mut highest = 0;
    for entry in entries {
        let name = entry.map_err(|error| attempt("list", dir, &error))?.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("node-")?.parse().ok());
        highest = highest.max(id.unwrap_or(0));
    }
    Ok(NodeId(highest + 1))
}

const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Plan;
    use crate::net::tls::{Credentials, Identity};

    fn cluster(dir: &Path) {
        let node = |port| PlannedNode { address: format!("127.0.0.1:{port}"), http: None };
        let plan = Plan { dir: dir.to_owned(), nodes: vec![node(1), node(2), node(3)] };
        plan.create().expect("an empty directory will do");
    }

    fn invite(dir: &Path) -> io::Result<Invitation> {
        let guest = Guest { id: None, address: "127.0.0.1:9404".into(), rack: Some("b".into()) };
        Invitation::issue(dir, guest)
    }

    #[test]
    fn an_invited_node_gets_a_configuration_that_holds_and_a_certificate_in_its_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        cluster(dir.path());
        let text = invite(dir.path()).expect("the key is there").to_text();
        assert_eq!(text.lines().count(), 1);
        let invitation = Invitation::parse(&text).expect("it was just written");
        let elsewhere = dir.path().join("elsewhere");
        let file = invitation.accept(&elsewhere).expect("an empty directory will do");
        let config = Config::load(&file).expect("what is written is right");
        assert_eq!((config.node.id, config.node.rack.as_deref()), (NodeId(4), Some("b")));
        assert_eq!(config.cluster.controllers, [NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(config.others().count(), 3);
        let credentials = Credentials::load(&config.tls).expect("they fit each other");
        let cluster = invitation.cluster().to_owned();
        let expected = Identity { cluster, principal: Principal::Node(NodeId(4)) };
        assert_eq!(credentials.identity, expected);
        assert_eq!(invitation.accept(&elsewhere).expect("it is its own"), file, "again");
        DataDir::open(&config.data_dir, &config.cluster.id, NodeId(4)).expect("formatted");
    }

    #[test]
    fn an_id_is_given_out_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        cluster(dir.path());
        let ids = [invite(dir.path()), invite(dir.path())].map(|it| it.expect("free").node().0);
        assert_eq!(ids, [4, 5]);
        let guest = Guest { id: Some(NodeId(5)), address: "h:1".into(), rack: None };
        let error = Invitation::issue(dir.path(), guest).expect_err("taken");
        assert!(error.to_string().contains("node 5 was made or invited already"), "{error}");
    }

    #[test]
    fn what_is_no_invitation_and_a_directory_of_another_node_are_refused() {
        let error = Invitation::parse("hello").expect_err("no invitation");
        assert!(error.to_string().contains("highwater invite"), "{error}");
        let dir = tempfile::tempdir().expect("a temporary directory");
        cluster(dir.path());
        let invitation = invite(dir.path()).expect("the key is there");
        let error = invitation.accept(&dir.path().join("node-1")).expect_err("it is node 1's");
        assert!(error.to_string().contains("use another directory"), "{error}");
    }
}
