//! What the controller decided, in words: a committed record and the image before it in, a sentence
//! out.
//!
//! Whoever reads the controller's log from its start gets the whole story since then. Words are for
//! people; programs go by `kind`.

use std::sync::Arc;

use highwater_protocol::ids::{NodeId, PartitionId, TopicId};
use highwater_protocol::native::brokers::BrokerDuty;
use highwater_protocol::native::moves::MoveStage;
use highwater_protocol::native::settings::SettingScope;

use crate::controller::brokers::BrokerRecord;
use crate::controller::image::{ClusterImage, Topic};
use crate::controller::moves::{Evened, MoveRecord, Why, nodes};
use crate::controller::record::{BrokerRegistration, MetadataRecord, PlacedReplica};
use crate::controller::recover::RecoverRecord;
use crate::controller::throttle::ThrottleRecord;

/// A decision, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// What kind of decision, such as `broker-fenced`.
    pub kind: &'static str,
    /// What it is about: a broker, a topic, a partition.
    pub subject: String,
    /// What was decided, and why where the record or what was before it tells.
    pub detail: String,
}

/// What a record decides, told by what was before it.
pub fn tell(before: &ClusterImage, record: &MetadataRecord) -> Story {
    match record {
        MetadataRecord::RegisterBroker(new) => registered(before, new),
        MetadataRecord::FenceBroker { node, fenced: true } => {
            let why = "the controller has not heard of it for a whole session";
            story("broker-fenced", format!("broker {node}"), why)
        }
        MetadataRecord::FenceBroker { node, fenced: false } => {
            story("broker-unfenced", format!("broker {node}"), "the controller hears it again")
        }
        MetadataRecord::CreateTopic { name, configs, .. } => {
            let detail = match configs.is_empty() {
                true => "made".to_owned(),
                false => format!("made with {}", pairs(configs)),
            };
            story("topic-created", name, detail)
        }
        MetadataRecord::CreatePartitions { topic, first, partitions } => {
            let detail = placement(first.0, partitions);
            story("partitions-placed", name_of(before, *topic), detail)
        }
        MetadataRecord::DeleteTopic { id } => {
            let count = before.topic(*id).map_or(0, |topic| topic.partitions.len());
            story("topic-deleted", name_of(before, *id), format!("deleted with {count} partitions"))
        }
        MetadataRecord::BeginImage => {
            let why = "it had grown long: it begins with an image of the whole cluster now";
            story("log-begun-anew", "the controller's log", why)
        }
        MetadataRecord::AlterTopic { id, configs } => {
            let old = before.topic(*id).map_or(&[][..], |topic| &topic.configs);
            story("topic-altered", name_of(before, *id), differences(old, configs))
        }
        MetadataRecord::AlterSettings { scope, configs } => {
            let subject = match scope {
                SettingScope::Cluster => "the cluster".to_owned(),
                SettingScope::Broker(node) => format!("broker {node}"),
                SettingScope::Client(name) => format!("client {name}"),
            };
            let old = before.settings().given(scope);
            story("settings-altered", subject, differences(old, configs))
        }
        MetadataRecord::Move(change) => moved(before, change),
        MetadataRecord::Recover(change) => recovered(before, change),
        MetadataRecord::Broker(change) => broker(before, change),
        MetadataRecord::Throttle(ThrottleRecord { broker, bytes_per_s }) => {
            let subject = match broker {
                None => "the cluster".to_owned(),
                Some(node) => format!("broker {node}"),
            };
            let detail = match bytes_per_s {
                None => "moves may copy as fast as they can".to_owned(),
                Some(rate) => format!("moves may copy {rate} bytes a second"),
            };
            story("moves-throttled", subject, detail)
        }
    }
}

fn broker(before: &ClusterImage, change: &BrokerRecord) -> Story {
    match change {
        BrokerRecord::SetDuty(node, duty) => {
            let detail = match duty {
                BrokerDuty::Active => "gets replicas and leads again",
                BrokerDuty::Draining => {
                    "drained: it keeps its replicas, gets no new ones and leads nothing"
                }
                BrokerDuty::Leaving => "retired: its replicas move to other brokers",
            };
            story("duty-changed", format!("broker {node}"), detail)
        }
        BrokerRecord::Remove { node, .. } => story(
            "broker-removed",
            format!("broker {node}"),
            "taken out of the cluster; it hosted nothing",
        ),
        BrokerRecord::Refilled { partition, node, .. } => {
            let subject = format!("{}/{}", name_of(before, partition.topic), partition.partition);
            let detail = format!("broker {node} has filled its replica again on the new disk");
            story("replica-refilled", subject, detail)
        }
        BrokerRecord::Voters(voters) => {
            let now: Vec<String> = voters.iter().map(NodeId::to_string).collect();
            let detail = format!("brokers {} vote on the metadata", now.join(", "));
            story("controller-voters", "the cluster", detail)
        }
    }
}

fn story(kind: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Story {
    Story { kind, subject: subject.into(), detail: detail.into() }
}

fn registered(before: &ClusterImage, new: &BrokerRegistration) -> Story {
    let (node, address) = (new.node, &new.client_address);
    let subject = format!("broker {node}");
    let Some(known) = before.broker(node) else {
        return story("broker-registered", subject, format!("joined the cluster at {address}"));
    };
    let old = &known.registration;
    let detail = if old.directory != new.directory {
        format!("came back at {address} with an empty disk: its replicas are filled anew")
    } else if old.incarnation != new.incarnation {
        let after = if known.fenced { ", after it had been fenced" } else { "" };
        format!("began a new life at {address}{after}")
    } else {
        format!("says something new of itself: it is at {address} now")
    };
    story("broker-registered", subject, detail)
}

fn moved(before: &ClusterImage, change: &MoveRecord) -> Story {
    let at = change.partition();
    let subject = format!("{}/{}", name_of(before, at.topic), at.partition);
    let topic = before.topic(at.topic);
    let set = topic.and_then(|topic| topic.partitions.get(at.partition.0 as usize));
    let from = list(set.map_or(&[], |set| &set[..]));
    match change {
        MoveRecord::Set(_, found) => {
            let to = list(&found.target);
            match found.stage {
                MoveStage::Waiting => {
                    let waits_for = topic.map(|topic| topic.move_waits_for(at.partition, found));
                    let why = match waits_for.unwrap_or_default().as_slice() {
                        [] => "it waits until others are over".to_owned(),
                        nodes => format!(
                            "it waits until broker {} has given up its former replica",
                            joined(nodes)
                        ),
                    };
                    story("move-asked", subject, format!("to move from {from} to {to}; {why}"))
                }
                MoveStage::Running => {
                    story("move-begun", subject, format!("moves from {from} to {to}"))
                }
                MoveStage::GoingBack => {
                    story("move-cancelled", subject, format!("goes back to {from}, not on to {to}"))
                }
            }
        }
        MoveRecord::Because(_, why) => story("move-automatic", subject, unasked(why)),
        MoveRecord::End { .. } if is_dropped(topic, at.partition) => {
            let why =
                "a move of the controller's own that had not begun is dropped: its reason is gone";
            story("move-dropped", subject, why)
        }
        MoveRecord::End { replicas, dropped, .. } => {
            let gone = match dropped.is_empty() {
                true => String::new(),
                false => format!("; broker {} deletes its replica", joined(dropped)),
            };
            story("move-ended", subject, format!("its replicas are on {}{gone}", list(replicas)))
        }
        MoveRecord::Dropped(..) => {
            story("move-remembered", subject, "earlier moves took it from some brokers")
        }
        MoveRecord::GivenUp(_, node) => {
            let detail = format!("broker {node} has deleted the replica that was taken from it");
            story("replica-given-up", subject, detail)
        }
    }
}

fn unasked(why: &Why) -> String {
    match why {
        Why::Evens(evened) => {
            let what = match evened {
                Evened::Counts => "the cluster",
                Evened::Bytes => "the bytes that brokers hold",
                Evened::Writes => "the load of writes",
                Evened::Leading => "the load of leaders",
            };
            format!("nobody asked: it evens out {what} (`balance.auto`)")
        }
        Why::Replaces(node) => format!(
            "nobody asked: broker {node} has been away for long (`balance.replace.after.ms`)"
        ),
    }
}

fn joined(nodes: &[NodeId]) -> String {
    let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    nodes.join(", ")
}

/// Whether the end of this move is one that nobody asked for, and that did not begin.
fn is_dropped(topic: Option<&Arc<Topic>>, partition: PartitionId) -> bool {
    topic.is_some_and(|topic| {
        let waits = topic.move_of(partition).is_some_and(|found| !found.opens_replicas());
        waits && topic.why_moved(partition).is_some()
    })
}

fn recovered(before: &ClusterImage, change: &RecoverRecord) -> Story {
    let (RecoverRecord::Begin { partition, recovered, .. }
    | RecoverRecord::Standing(partition, recovered)) = change;
    let subject = format!("{}/{}", name_of(before, partition.topic), partition.partition);
    let founder = recovered.founder.node;
    match change {
        RecoverRecord::Begin { dropped, .. } => {
            let gone: Vec<String> = dropped.iter().map(NodeId::to_string).collect();
            let detail = format!(
                "the operator gave up its lost majority: it goes on with what broker {founder} has, from term {}; what \
                 brokers [{}] have of it is discarded",
                recovered.since,
                gone.join(" ")
            );
            story("partition-recovered", subject, detail)
        }
        RecoverRecord::Standing(..) => {
            let detail = format!("it went on with what broker {founder} had, at some time before");
            story("recovery-remembered", subject, detail)
        }
    }
}

fn placement(first: u32, partitions: &[Vec<PlacedReplica>]) -> String {
    let shown = partitions.iter().take(PLACED_SHOWN_MAX);
    let one = |(number, set): (u32, &Vec<PlacedReplica>)| format!("{number} on {}", list(set));
    let shown: Vec<String> = (first..).zip(shown).map(one).collect();
    let more = partitions.len().saturating_sub(PLACED_SHOWN_MAX);
    let rest = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("spread over racks and brokers, the preferred leader first: {}{rest}", shown.join(", "))
}

fn list(set: &[PlacedReplica]) -> String {
    let nodes: Vec<String> = nodes(set).iter().map(NodeId::to_string).collect();
    format!("[{}]", nodes.join(" "))
}

fn pairs(configs: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        configs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(", ")
}

fn differences(before: &[(String, String)], after: &[(String, String)]) -> String {
    let old = |name: &str| before.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let set = after.iter().filter(|(name, value)| old(name) != Some(value));
    let set = set.map(|(name, value)| match old(name) {
        Some(old) => format!("{name}={value} (was {old})"),
        None => format!("{name}={value}"),
    });
    let kept = |name: &str| after.iter().any(|(known, _)| known == name);
    let unset = before.iter().filter(|(name, _)| !kept(name));
    let unset = unset.map(|(name, value)| format!("{name} reset (was {value})"));
    let all: Vec<String> = set.chain(unset).collect();
    if all.is_empty() { "nothing differs".to_owned() } else { all.join(", ") }
}

fn name_of(image: &ClusterImage, id: TopicId) -> String {
    image.topic(id).map_or_else(|| format!("topic {id}"), |topic| topic.name.to_string())
}

/// Nobody reads a line of a thousand partitions.
const PLACED_SHOWN_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, Incarnation, TopicPartition};
    use uuid::Uuid;

    use super::*;
    use crate::controller::moves::{Move, MoveId};

    const ID: TopicId = TopicId(Uuid::from_u128(7));

    fn place(node: u32) -> PlacedReplica {
        PlacedReplica { node: NodeId(node), directory: DirectoryId(Uuid::nil()) }
    }

    fn register(life: u64) -> MetadataRecord {
        MetadataRecord::RegisterBroker(BrokerRegistration {
            node: NodeId(1),
            incarnation: Incarnation(life),
            directory: DirectoryId(Uuid::nil()),
            rack: None,
            client_address: "a:1".into(),
            peer_address: "a:1".into(),
        })
    }

    #[test]
    fn every_kind_stands_in_the_list_that_programs_go_by() {
        let source = include_str!("events.rs");
        let (source, _) = source.split_once("mod tests").expect("there are tests");
        let told = source.split("story(").skip(1).filter_map(|rest| rest.trim().strip_prefix('"'));
        let mut told: Vec<&str> = told.filter_map(|rest| Some(rest.split_once('"')?.0)).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told, highwater_protocol::native::events::KINDS);
    }

    /// The stories of records that follow each other.
    fn told(records: &[MetadataRecord]) -> Vec<Story> {
        let mut image = ClusterImage::default();
        let mut one = |record| {
            let story = tell(&image, record);
            image.apply(record).expect("the records fit each other");
            story
        };
        records.iter().map(&mut one).collect()
    }

    #[test]
    fn the_life_of_a_broker_and_of_a_topic_is_told_in_words() {
        let fence = |fenced| MetadataRecord::FenceBroker { node: NodeId(1), fenced };
        let configs = vec![("retention.ms".to_string(), "5000".to_string())];
        let first = PartitionId(0);
        let partitions = vec![vec![place(1), place(2)]; 8];
        let stories = told(&[
            register(1),
            fence(true),
            register(2),
            fence(false),
            MetadataRecord::CreateTopic { id: ID, name: "orders".into(), configs },
            MetadataRecord::CreatePartitions { topic: ID, first, partitions },
            MetadataRecord::AlterTopic { id: ID, configs: vec![("flush".into(), "ack".into())] },
            MetadataRecord::AlterSettings {
                scope: SettingScope::Cluster,
                configs: vec![("leader.balance".into(), "off".into())],
            },
            MetadataRecord::DeleteTopic { id: ID },
        ]);
        let expected = [
            ("broker-registered", "joined the cluster at a:1"),
            ("broker-fenced", "has not heard of it"),
            ("broker-registered", "began a new life at a:1, after it had been fenced"),
            ("broker-unfenced", "hears it again"),
            ("topic-created", "made with retention.ms=5000"),
            ("partitions-placed", "0 on [1 2], 1 on [1 2]"),
            ("topic-altered", "flush=ack, retention.ms reset (was 5000)"),
            ("settings-altered", "leader.balance=off"),
            ("topic-deleted", "deleted with 8 partitions"),
        ];
        for (story, (kind, words)) in stories.iter().zip(expected) {
            assert_eq!(story.kind, kind);
            assert!(story.detail.contains(words), "{story:?}");
        }
        assert!(stories[5].detail.ends_with(", and 2 more"), "{:?}", stories[5]);
        assert_eq!(stories[8].subject, "orders");
    }

    #[test]
    fn a_move_is_told_from_its_begin_to_its_end() {
        let at = TopicPartition::new(ID, PartitionId(0));
        let set = |stage| {
            MetadataRecord::Move(MoveRecord::Set(
                at,
                Move { id: MoveId(1), stage, target: vec![place(3)] },
            ))
        };
        let end =
            MoveRecord::End { partition: at, replicas: vec![place(3)], dropped: vec![NodeId(1)] };
        let stories = told(&[
            MetadataRecord::CreateTopic { id: ID, name: "orders".into(), configs: Vec::new() },
            MetadataRecord::CreatePartitions {
                topic: ID,
                first: PartitionId(0),
                partitions: vec![vec![place(1)]],
            },
            set(MoveStage::Waiting),
            set(MoveStage::Running),
            MetadataRecord::Move(end),
        ]);
        let kinds: Vec<&str> = stories[2..].iter().map(|story| story.kind).collect();
        assert_eq!(kinds, ["move-asked", "move-begun", "move-ended"]);
        assert_eq!(stories[3].subject, "orders/0");
        assert_eq!(stories[3].detail, "moves from [1] to [3]");
        assert_eq!(stories[4].detail, "its replicas are on [3]; broker 1 deletes its replica");
    }
}
