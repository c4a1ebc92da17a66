//! What an operator types: `hw` and other programs that lie beside the broker's, from outside of any runtime.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cluster, PATIENCE, program};

impl Cluster {
    /// A program beside the broker's, with the profile of this cluster.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program().with_file_name(name));
        command.env("HIGHWATER_PROFILE", &self.created.profile);
        command
    }

    /// What a program prints that must succeed.
    pub fn run(&self, name: &str, args: &[&str]) -> Vec<u8> {
        let done = self.command(name).args(args).output();
        let done = done.unwrap_or_else(|error| panic!("{name}: {error}: build it first"));
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{name} {args:?}: {}\n{errors}", done.status);
        done.stdout
    }

    /// What `hw` prints.
    pub fn hw(&self, args: &[&str]) -> Vec<u8> {
        self.run("hw", args)
    }

    /// What `hw` says, for programs.
    pub fn hw_json(&self, args: &[&str]) -> Value {
        let printed = self.hw(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&printed).expect("hw prints JSON")
    }

    /// Waits until all is well with every broker that is up.
    pub fn healthy(&mut self) {
        let nodes = self.addresses.len();
        let up = (1..=nodes).filter(|node| self.is_up(*node)).count().to_string();
        self.hw(&["cluster", "health", "--wait", "--brokers-min", &up]);
    }

    /// Who leads the controller, whatever else goes on.
    pub fn controller_leader(&self) -> usize {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let listed = self.hw_json(&["cluster", "controller", "list"]);
            let voters = listed["brokers"].as_array().expect("a list");
            let leads = voters.iter().find(|voter| voter["controller_leads"] == true);
            if let Some(leader) = leads.and_then(|voter| voter["broker"].as_u64()) {
                return usize::try_from(leader).expect("brokers have small numbers");
            }
            sleep(Duration::from_millis(200));
        }
        panic!("nobody leads the controller for {PATIENCE:?}");
    }
}
