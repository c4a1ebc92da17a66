//! `highwater init`, `format`, `issue` and `invite`, as a person runs them, and what `start --join` does first.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use highwater_protocol::ids::NodeId;

use super::files::{Secrecy, write_new};
use super::invitation::{Guest, Invitation};
use super::{Plan, PlannedNode, add_client, format_data_dir};
use crate::config::Config;

/// What `highwater init` is told.
#[derive(Args)]
pub struct InitArguments {
    /// Where to put the authority, the nodes' directories and a first client
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How many nodes [default: as many as addresses, else 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u16>,
    /// Where a node is reached; once for each node, else 127.0.0.1 with ports from 9400
    #[arg(long, value_name = "HOST:PORT")]
    address: Vec<String>,
    /// Serve metrics and health on 127.0.0.1, with ports from this one
    #[arg(long, value_name = "PORT")]
    http: Option<u16>,
    /// Leave a cluster that is there already as it is, and succeed
    #[arg(long)]
    if_missing: bool,
}

/// What `highwater issue` is told.
#[derive(Args)]
pub struct IssueArguments {
    /// The directory that `highwater init` made, with the authority's key
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The name that brokers will know the client by
    name: String,
    /// Where to put client.pem and client.key
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

/// What `highwater invite` is told.
#[derive(Args)]
pub struct InviteArguments {
    /// The directory that `highwater init` made, with the authority's key
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where others will reach the new broker
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// Its failure domain
    #[arg(long, value_name = "NAME")]
    rack: Option<String>,
    /// Its id [default: the next that was never given out]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    id: Option<u32>,
    /// Where to write the invitation, `-` for the standard output [default: DIR/node-N.invitation]
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

/// Makes a cluster.
pub fn init(arguments: InitArguments) -> anyhow::Result<ExitCode> {
    let InitArguments { dir, nodes, address, http, if_missing } = arguments;
    if if_missing && dir.join("ca.pem").exists() {
        println!("a cluster is in {} already", dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let nodes = planned(&address, nodes, http)?;
    let plan = Plan { dir: dir.clone(), nodes };
    let created = plan.create().with_context(|| format!("make a cluster in {}", dir.display()))?;
    println!("cluster {} of {} in {}", created.cluster, plan.nodes.len(), dir.display());
    println!("\nstart its brokers, each where its directory is:");
    for config in &created.configs {
        println!("  highwater start -c {}", config.display());
    }
    println!("\nand speak to them:");
    println!("  HIGHWATER_PROFILE={} hw topic list", created.profile.display());
    println!("\nkeep {} safe: whoever has it can join", dir.join("ca.key").display());
    Ok(ExitCode::SUCCESS)
}

/// Where each node listens.
fn planned(
    addresses: &[String],
    nodes: Option<u16>,
    http: Option<u16>,
) -> anyhow::Result<Vec<PlannedNode>> {
    let nodes = match (nodes, addresses.len()) {
        (Some(nodes), 0) => nodes,
        (None, 0) => NODES_DEFAULT,
        (nodes, given) => {
            ensure!(
                nodes.is_none_or(|nodes| usize::from(nodes) == given) && given <= NODES_MAX.into(),
                "{given} addresses; give --address once for each of --nodes, at most {NODES_MAX}, or leave one of them out"
            );
            given as u16
        }
    };
    let port = |base: u16, number: u16| {
        let port = base.checked_add(number);
        port.with_context(|| format!("--http {base} and {nodes} nodes need ports beyond 65535"))
    };
    let node = |number: u16| {
        let address = addresses.get(usize::from(number)).cloned();
        let http = http.map(|base| port(base, number)).transpose()?;
        Ok(PlannedNode {
            address: address.unwrap_or_else(|| format!("127.0.0.1:{}", PORTS_FROM + number)),
            http: http.map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        })
    };
    (0..nodes).map(node).collect()
}

/// Makes a data directory anew.
pub fn format(file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    format_data_dir(&config)?;
    let (dir, node) = (config.data_dir.display(), config.node.id);
    println!(
        "{dir} is a data directory of node {node}; what it hosted is filled again from the others"
    );
    Ok(ExitCode::SUCCESS)
}

/// Issues a certificate for one more client.
pub fn issue(arguments: IssueArguments) -> anyhow::Result<ExitCode> {
    let IssueArguments { dir, name, into } = arguments;
    let config = Config::load(&dir.join("node-1/config.toml"))?;
    add_client(&dir, &config.cluster.id, &name, &into)
        .with_context(|| format!("issue a certificate for {name}"))?;
    println!("{} and client.key are those of client {name}", into.join("client.pem").display());
    Ok(ExitCode::SUCCESS)
}

/// Invites one more broker.
pub fn invite(arguments: InviteArguments) -> anyhow::Result<ExitCode> {
    let InviteArguments { dir, address, rack, id, into } = arguments;
    let guest = Guest { id: id.map(NodeId), address, rack };
    let invitation = Invitation::issue(&dir, guest)
        .with_context(|| format!("invite a broker to the cluster in {}", dir.display()))?;
    let node = invitation.node();
    let file = into.unwrap_or_else(|| dir.join(format!("node-{node}.invitation")));
    if file == Path::new("-") {
        print!("{}", invitation.to_text());
        return Ok(ExitCode::SUCCESS);
    }
    write_new(&file, invitation.to_text().as_bytes(), Secrecy::Secret)?;
    println!("broker {node} of cluster {} is invited by {}", invitation.cluster(), file.display());
    println!("\nbring that file to its machine, and there:");
    println!("  highwater start --join {} --dir node-{node}", file.display());
    println!("\nit holds the broker's private key: delete it once the broker runs");
    Ok(ExitCode::SUCCESS)
}

/// Makes the directory of an invited broker, unless it is there; returns its configuration file.
pub fn join(invitation: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    let mut text = String::new();
    let whole = || format!("read the invitation {}", invitation.display());
    if invitation == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).with_context(whole)?;
    } else if invitation.exists() || !dir.join("config.toml").exists() {
        text = std::fs::read_to_string(invitation).with_context(whole)?;
    } else {
        // It joined before, and the invitation was deleted since, as it should be.
        return Ok(dir.join("config.toml"));
    }
    let invitation = Invitation::parse(&text)?;
    Ok(invitation.accept(dir)?)
}

const NODES_DEFAULT: u16 = 3;
const NODES_MAX: u16 = 1000;
const PORTS_FROM: u16 = 9400;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u16) -> Vec<String> {
        (0..count).map(|number| format!("host-{number}:9400")).collect()
    }

    #[test]
    fn as_many_nodes_as_addresses_and_three_without_either() {
        let count = |given, nodes| planned(&addresses(given), nodes, None).map(|nodes| nodes.len());
        assert_eq!(count(0, None).expect("fine"), 3);
        assert_eq!(count(0, Some(5)).expect("fine"), 5);
        assert_eq!(count(5, None).expect("fine"), 5);
        assert_eq!(count(5, Some(5)).expect("fine"), 5);
        let refused = count(5, Some(3)).expect_err("one of the two is wrong");
        assert!(refused.to_string().starts_with("5 addresses"), "{refused}");
    }

    #[test]
    fn ports_that_are_none_are_refused() {
        let refused = planned(&[], Some(3), Some(65_534)).expect_err("65536 is no port");
        assert!(refused.to_string().contains("--http 65534"), "{refused}");
    }
}
