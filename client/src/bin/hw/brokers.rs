//! `hw cluster brokers`: who there is, what each is for, and how far that is. `duty` and `retire` have the
//! verbs that change it.

use anstream::eprintln;
use clap::Args;
use highwater_client::{Admin, BrokerDuty, BrokerInfo, BrokerStatus, NodeId};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Page, ReadOutput, Row, Rows, or_dash};
use crate::watch::Watch;

#[derive(Debug, Args)]
pub struct BrokersArgs {
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

const COLUMNS: &[Column] = &[
    Column::words("BROKER"),
    Column::words("ADDRESS"),
    Column::words("RACK"),
    Column::words("STATE"),
    Column::words("DUTY"),
    Column::words("CONTROLLER"),
    Column::number("REPLICAS"),
    Column::number("LEADS"),
    Column::words("MOVING"),
    Column::number("INCARNATION").wide(),
    Column::words("DIRECTORY").wide(),
];

/// Lists the brokers.
pub async fn list(args: BrokersArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    args.watch.show(args.output.format, async || page(&admin).await).await
}

async fn page(admin: &Admin) -> Result<(Page, Exit), Failure> {
    let info = admin.cluster().await?;
    // Addresses and states are of use without the rest, as while brokers of two builds are mixed.
    let (statuses, exit) = match admin.brokers().await {
        Ok(statuses) => (statuses, Exit::Fine),
        Err(error) => {
            eprintln!("duties and counts are not known: {error}");
            (Vec::new(), Exit::Partial)
        }
    };
    let row = |broker: &BrokerInfo| {
        let status = statuses.iter().find(|status| status.node == broker.node);
        row(broker, status, info.controller)
    };
    let rows = info.brokers.iter().map(row).collect();
    let mut page =
        Page::list("hw.cluster.brokers/1", Rows { field: "brokers", columns: COLUMNS, rows });
    page.field("cluster_id", info.cluster_id.as_str());
    Ok((page, exit))
}

fn row(broker: &BrokerInfo, status: Option<&BrokerStatus>, controller: Option<NodeId>) -> Row {
    let state = state_word(broker.fenced);
    let leads_controller = controller == Some(broker.node);
    let controls = match (leads_controller, status.is_some_and(|status| status.controller)) {
        (true, _) => "leads",
        (false, true) => "votes",
        (false, false) => "",
    };
    let count = |count: fn(&BrokerStatus) -> u32| status.map(count);
    Row {
        name: broker.node.to_string(),
        cells: vec![
            broker.node.to_string(),
            broker.address.clone(),
            or_dash(broker.rack.as_ref()),
            state.to_owned(),
            or_dash(status.map(duty)),
            controls.to_owned(),
            or_dash(count(|status| status.replicas)),
            or_dash(count(|status| status.leads)),
            status.map(moving).unwrap_or_default(),
            broker.incarnation.to_string(),
            broker.directory.to_string(),
        ],
        value: json!({
            "broker": broker.node.0,
            "address": broker.address,
            "rack": broker.rack,
            "fenced": broker.fenced,
            "duty": status.map(duty),
            "controller_leads": leads_controller,
            "controller_votes": status.map(|status| status.controller),
            "replicas_total": count(|status| status.replicas),
            "replicas_leaving": count(|status| status.going),
            "replicas_coming": count(|status| status.coming),
            "replicas_refilling": count(|status| status.lost),
            "leaders_total": count(|status| status.leads),
            "incarnation": broker.incarnation.0,
            "directory": broker.directory.to_string(),
        }),
    }
}

/// The word for whether the controller hears a broker; `fenced` is how brokers say that it does not.
pub fn state_word(fenced: bool) -> &'static str {
    if fenced { "fenced" } else { "up" }
}

/// What the broker is for and how far that is, in one word.
pub fn duty(status: &BrokerStatus) -> &'static str {
    match (status.duty, status.leads, status.replicas) {
        (BrokerDuty::Active, _, _) => "active",
        (BrokerDuty::Draining, 0, _) => "drained",
        (BrokerDuty::Draining, _, _) => "draining",
        (BrokerDuty::Leaving, _, 0) if status.coming == 0 => "decommissioned",
        (BrokerDuty::Leaving, _, _) => "decommissioning",
    }
}

fn moving(status: &BrokerStatus) -> String {
    let part = |count: u32, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let parts = [
        part(status.going, "leaving"),
        part(status.coming, "coming"),
        part(status.lost, "refilling"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Every word that says how a broker is.
#[cfg(test)]
pub const WORDS: [&str; 12] = [
    "up",
    "fenced",
    "leads",
    "votes",
    "active",
    "draining",
    "drained",
    "decommissioning",
    "decommissioned",
    "leaving",
    "coming",
    "refilling",
];

/// Refuses a broker that is not part of the cluster.
pub async fn known(admin: &Admin, node: NodeId) -> Result<(), Failure> {
    match admin.cluster().await?.brokers.iter().any(|broker| broker.node == node) {
        true => Ok(()),
        false => {
            let what = format!("broker {node} is not part of the cluster");
            Err(Failure::new(Exit::NotFound, what)
                .way_out("`hw cluster brokers` shows those that are"))
        }
    }
}

/// What the controller says of one broker, if it is part of the cluster.
pub async fn find(admin: &Admin, node: NodeId) -> Result<Option<BrokerStatus>, Failure> {
    Ok(admin.brokers().await?.into_iter().find(|status| status.node == node))
}

pub const BROKERS_EXAMPLES: &str = "\
Examples:
  hw cluster brokers
  hw cluster brokers -o wide
  hw cluster brokers -w                            while one is drained or decommissioned

DUTY is what the operator wants: active, draining or drained (leads nothing, gets nothing new),
decommissioning or decommissioned (and its replicas move off). STATE is what the cluster sees.
`hw explain WORD` says more of each.";

#[cfg(test)]
mod tests {
    use super::*;

    fn status(duty: BrokerDuty, replicas: u32, leads: u32) -> BrokerStatus {
        let node = NodeId(4);
        BrokerStatus {
            node,
            duty,
            controller: false,
            replicas,
            leads,
            going: 0,
            coming: 0,
            lost: 0,
        }
    }

    #[test]
    fn a_duty_says_how_far_it_is() {
        let said = |wanted, replicas, leads| duty(&status(wanted, replicas, leads));
        assert_eq!(said(BrokerDuty::Active, 0, 0), "active");
        assert_eq!(said(BrokerDuty::Draining, 3, 1), "draining");
        assert_eq!(said(BrokerDuty::Draining, 3, 0), "drained");
        assert_eq!(said(BrokerDuty::Leaving, 3, 0), "decommissioning");
        assert_eq!(said(BrokerDuty::Leaving, 0, 0), "decommissioned");
    }

    #[test]
    fn what_moves_is_said_in_words_and_nothing_where_nothing_does() {
        let still = status(BrokerDuty::Active, 3, 1);
        assert_eq!(moving(&still), "");
        let busy = BrokerStatus { going: 2, coming: 1, lost: 4, ..still };
        assert_eq!(moving(&busy), "2 leaving, 1 coming, 4 refilling");
    }
}
