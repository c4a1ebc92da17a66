//! `highwater init`, `highwater format` and `highwater issue`, as a person runs them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;

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
    println!("{} is a data directory of node {}", config.data_dir.display(), config.node.id);
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
