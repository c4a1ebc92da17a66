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
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    nodes: u16,
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
    ensure!(nodes > 0, "--nodes 0 makes no cluster; give at least 1");
    ensure!(
        address.is_empty() || address.len() == usize::from(nodes),
        "{} addresses for {nodes} nodes; give --address once for each node, or not at all",
        address.len()
    );
    let node = |number: u16| PlannedNode {
        address: address
            .get(usize::from(number))
            .cloned()
            .unwrap_or_else(|| format!("127.0.0.1:{}", 9400 + number)),
        http: http.map(|base| SocketAddr::from(([127, 0, 0, 1], base + number))),
    };
    let plan = Plan { dir: dir.clone(), nodes: (0..nodes).map(node).collect() };
    let created = plan.create().with_context(|| format!("make a cluster in {}", dir.display()))?;
    println!("cluster {} of {nodes} in {}", created.cluster, dir.display());
    println!("\nstart its brokers, each where its directory is:");
    for config in &created.configs {
        println!("  highwater start -c {}", config.display());
    }
    println!("\nand speak to them:");
    println!("  HIGHWATER_PROFILE={} hw topic list", created.profile.display());
    println!("\nkeep {} safe: whoever has it can join", dir.join("ca.key").display());
    Ok(ExitCode::SUCCESS)
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
