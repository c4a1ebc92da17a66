//! Sessions: which brokers the controller's leader considers alive.
//!
//! Heartbeats flow anyway between the leader of the controller's partition and every broker's
//! replica of it; how long ago each was heard comes in, whom to fence comes out. Only silence that
//! this leader has itself witnessed counts: after an election, and after a pause of its own, everyone
//! starts with a full session.
//!
//! Registrations are repeated while a broker lives, so that two data directories which claim the same
//! node id can be told apart although both beat: the one registered must fall silent first.

use std::collections::BTreeMap;

use highwater_protocol::ids::NodeId;

use crate::controller::image::ClusterImage;
use crate::raft::Millis;

/// What a leader knows of the other brokers' lives; made anew in every term.
#[derive(Debug, Clone)]
pub struct Sessions {
    me: NodeId,
    session_ms: u64,
    /// Silence before this is not held against anyone.
    since: Millis,
    looked_at: Millis,
    first_seen: BTreeMap<NodeId, Millis>,
    registered: BTreeMap<NodeId, Millis>,
}

/// When the leader last heard of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Which broker.
    pub node: NodeId,
    /// How long ago; `None` if never in this term.
    pub ago_ms: Option<u64>,
}

/// A change of a broker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Which broker.
    pub node: NodeId,
    /// Whether it is fenced from now on.
    pub fenced: bool,
}

impl Sessions {
    /// Sessions of a leader elected now.
    pub fn new(me: NodeId, session_ms: u64, now: Millis) -> Sessions {
        Sessions {
            me,
            session_ms,
            since: now,
            looked_at: now,
            first_seen: BTreeMap::new(),
            registered: BTreeMap::new(),
        }
    }

    /// Notes that a broker has registered or repeated its registration.
    pub fn renew(&mut self, node: NodeId, now: Millis) {
        self.registered.insert(node, now);
    }

    /// Whether the broker that is registered may still be running, so that nobody else can be it.
    pub fn may_live(&self, image: &ClusterImage, node: NodeId, now: Millis) -> bool {
        let fenced = image.broker(node).is_none_or(|broker| broker.fenced);
        let last = self.registered.get(&node).copied().unwrap_or(self.since);
        !fenced && age(now, last) < REGISTRATION_SILENT_MS
    }

    /// Whom to fence and whom to take back.
    pub fn judge(&mut self, now: Millis, image: &ClusterImage, heard: &[Heard]) -> Vec<Verdict> {
        if age(now, self.looked_at) > self.session_ms / 2 {
            // We ourselves did not run: what was not heard meanwhile proves nothing.
            self.since = now;
        }
        self.looked_at = now;
        let mut verdicts = Vec::new();
        for broker in image.brokers() {
            let node = broker.registration.node;
            let first = *self.first_seen.entry(node).or_insert(now);
            let ago_ms = match heard.iter().find(|heard| heard.node == node) {
                _ if node == self.me => Some(0),
                Some(heard) => heard.ago_ms,
                None => None,
            };
            let witnessed_ms = age(now, self.since.max(first));
            let silent_ms = ago_ms.map_or(witnessed_ms, |ms| ms.min(witnessed_ms));
            // Taking back asks for more than not fencing does, so that a broker at the edge does
            // not flap.
            let fresh = ago_ms.is_some_and(|ms| ms <= self.session_ms / 2);
            if !broker.fenced && silent_ms > self.session_ms {
                verdicts.push(Verdict { node, fenced: true });
            } else if broker.fenced && fresh {
                verdicts.push(Verdict { node, fenced: false });
            }
        }
        verdicts
    }
}

fn age(now: Millis, then: Millis) -> u64 {
    now.0.saturating_sub(then.0)
}

/// How often a living broker repeats its registration.
pub const REGISTRATION_REPEAT_MS: u64 = 3_000;
/// A registration not repeated for so long is given up to another data directory.
const REGISTRATION_SILENT_MS: u64 = 15_000;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, Incarnation};
    use uuid::Uuid;

    use super::*;
    use crate::controller::record::{BrokerRegistration, MetadataRecord};

    const SESSION_MS: u64 = 3_000;

    fn image(fenced: &[(u32, bool)]) -> ClusterImage {
        let mut image = ClusterImage::default();
        for (node, fenced) in fenced {
            let registration = BrokerRegistration {
                node: NodeId(*node),
                incarnation: Incarnation(1),
                directory: DirectoryId(Uuid::from_u128(1)),
                rack: None,
                client_address: String::new(),
                peer_address: String::new(),
            };
            let fence = MetadataRecord::FenceBroker { node: NodeId(*node), fenced: *fenced };
            image.apply(&MetadataRecord::RegisterBroker(registration)).expect("fits");
            image.apply(&fence).expect("registered just before");
        }
        image
    }

    fn heard(node: u32, ago_ms: u64) -> Heard {
        Heard { node: NodeId(node), ago_ms: Some(ago_ms) }
    }

    /// Looks every 500 ms from `from` to `to` and gives what the last look says.
    fn judge_until(
        sessions: &mut Sessions,
        from: u64,
        to: u64,
        image: &ClusterImage,
        heard: &[Heard],
    ) -> Vec<Verdict> {
        let mut last = Vec::new();
        for now in (from..=to).step_by(500) {
            last = sessions.judge(Millis(now), image, heard);
        }
        last
    }

    #[test]
    fn a_broker_silent_for_a_session_is_fenced_and_taken_back_when_heard() {
        let mut sessions = Sessions::new(NodeId(1), SESSION_MS, Millis(0));
        let image_before = image(&[(1, false), (2, false)]);
        assert_eq!(judge_until(&mut sessions, 0, 10_000, &image_before, &[heard(2, 100)]), []);
        let silent = judge_until(&mut sessions, 10_500, 11_000, &image_before, &[heard(2, 3_001)]);
        assert_eq!(silent, [Verdict { node: NodeId(2), fenced: true }]);
        let back =
            sessions.judge(Millis(11_500), &image(&[(1, false), (2, true)]), &[heard(2, 50)]);
        assert_eq!(back, [Verdict { node: NodeId(2), fenced: false }]);
    }

    #[test]
    fn a_new_leader_waits_a_whole_session_before_it_fences() {
        let mut sessions = Sessions::new(NodeId(1), SESSION_MS, Millis(50_000));
        let image = image(&[(2, false), (3, false)]);
        let unheard = [heard(2, 40_000), Heard { node: NodeId(3), ago_ms: None }];
        assert_eq!(judge_until(&mut sessions, 50_000, 53_000, &image, &unheard), []);
        assert_eq!(judge_until(&mut sessions, 53_500, 53_500, &image, &unheard).len(), 2);
    }

    #[test]
    fn a_leader_that_was_paused_does_not_blame_the_others() {
        let mut sessions = Sessions::new(NodeId(1), SESSION_MS, Millis(0));
        let image = image(&[(2, false)]);
        judge_until(&mut sessions, 0, 5_000, &image, &[heard(2, 10)]);
        assert_eq!(sessions.judge(Millis(35_000), &image, &[heard(2, 30_000)]), []);
    }

    #[test]
    fn a_leader_never_fences_itself() {
        let mut sessions = Sessions::new(NodeId(1), SESSION_MS, Millis(0));
        assert_eq!(judge_until(&mut sessions, 0, 20_000, &image(&[(1, false)]), &[]), []);
    }

    #[test]
    fn a_registration_that_is_repeated_keeps_others_off_its_node_id() {
        let mut sessions = Sessions::new(NodeId(1), SESSION_MS, Millis(0));
        let alive = image(&[(2, false)]);
        assert!(sessions.may_live(&alive, NodeId(2), Millis(14_000)), "a new leader cannot know");
        sessions.renew(NodeId(2), Millis(14_000));
        assert!(sessions.may_live(&alive, NodeId(2), Millis(28_000)));
        assert!(!sessions.may_live(&alive, NodeId(2), Millis(29_000)));
        assert!(!sessions.may_live(&image(&[(2, true)]), NodeId(2), Millis(14_500)), "fenced");
        assert!(!sessions.may_live(&alive, NodeId(3), Millis(0)), "nobody is registered as 3");
    }
}
