//! The words by which `hw` says in what state something is, and what each of them means.
//!
//! The verbs that print such a word have it from here or are held to this table by tests.

mod compared;
mod events;

/// A word for a state, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The word as it is printed.
    pub name: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// What to do about it.
    pub advice: &'static str,
    /// Where it is seen.
    pub example: &'static str,
}

const fn reason(
    name: &'static str,
    meaning: &'static str,
    advice: &'static str,
    example: &'static str,
) -> Reason {
    Reason { name, meaning, advice, example }
}

/// Every word, states first.
pub fn all() -> impl Iterator<Item = &'static Reason> {
    REASONS.iter().chain(compared::COMPARED).chain(events::EVENTS)
}

/// Every word for a state, sorted by name.
pub const REASONS: &[Reason] = &[
    reason(
        "abandoned",
        "The record is in the log of a replica that no longer leads, and not in the leader's: \
         it is cut away when that replica follows.",
        "Nothing: nobody was told that it is committed, and its producer sends it again by \
         itself.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "active",
        "The broker takes its share of leaders and replicas.",
        "Nothing is to be done.",
        "hw cluster brokers",
    ),
    reason(
        "appended",
        "The replica has the record in its log, and not on its disk yet.",
        "Nothing; with `flush=ack` it does not count the record before the flush.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "broker",
        "The value was set for this broker while it ran, and wins over its file and the cluster.",
        "`hw cluster config set --broker` changes it, `hw cluster config reset --broker` takes it \
         back.",
        "hw cluster config list --broker 2",
    ),
    reason(
        "broker-fenced",
        "The controller has not heard of the broker for some seconds: it counts as dead, leads \
         nothing and gets no replicas.",
        "Start it, or mend the network between it and the controller; it is taken back by itself.",
        "hw cluster health",
    ),
    reason(
        "broker-refilling",
        "The broker's disk was replaced, and not all of its replicas are filled again.",
        "Wait; take no other broker down meanwhile. `hw cluster brokers` counts what is missing.",
        "hw cluster brokers -w",
    ),
    reason(
        "broker-silent",
        "The controller hears the broker, but it does not answer clients at its address.",
        "Compare its `advertise` with `hw cluster brokers`, and look for a firewall in between.",
        "hw cluster health",
    ),
    reason(
        "client",
        "The value was set for this client by its name, and wins over that of everyone.",
        "`hw quota set NAME` changes it, `hw quota reset NAME` takes it back.",
        "hw quota list",
    ),
    reason(
        "cluster",
        "The value was set for the whole cluster, and wins over defaults and files.",
        "`hw cluster config set` changes it, `hw cluster config reset` takes it back.",
        "hw cluster config list",
    ),
    reason(
        "coming",
        "So many replicas move to the broker.",
        "`hw partition moves -w` shows how far they are.",
        "hw cluster brokers -w",
    ),
    reason(
        "committed",
        "A majority of the voters counts the record: consumers see it, and no later leader \
         takes it back.",
        "Nothing is to be done.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "decommissioned",
        "The broker hosts nothing any more, and gets nothing.",
        "Stop it, then `hw cluster remove`; or take it back with `hw cluster undrain`.",
        "hw cluster brokers",
    ),
    reason(
        "decommissioning",
        "Somebody decommissioned the broker, and it still has replicas: they move to others.",
        "`hw partition moves -w` shows how far it is; if nothing moves, ask for it again. \
         `hw cluster undrain` takes the broker back.",
        "hw cluster brokers -w",
    ),
    reason(
        "default",
        "Nobody has set the value: it is the one that the program brings.",
        "Nothing is to be done; `hw explain KEY` says when to set it.",
        "hw cluster config list",
    ),
    reason(
        "diverged",
        "Two replicas hold different batches at one offset, and both call theirs committed. \
         This must never be.",
        "Stop both brokers, keep their files, and report it.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "drained",
        "The broker leads nothing and gets nothing new, because somebody drained it; its replicas \
         stay and keep up. One that crashed again and again has drained itself, and hosts nothing: \
         `hw cluster health` says so.",
        "Work on its machine, or mend what made it crash, then `hw cluster undrain`.",
        "hw cluster brokers",
    ),
    reason(
        "draining",
        "Somebody drained the broker, and it still leads partitions.",
        "Wait; a partition that it goes on leading has no other replica in sync.",
        "hw cluster brokers -w",
    ),
    reason(
        "fenced",
        "The controller has lost touch with the broker: see `broker-fenced`.",
        "Start the broker, or mend its network.",
        "hw partition explain orders/3",
    ),
    reason(
        "file",
        "The value stands in the broker's configuration file.",
        "Change the file and restart the broker; what may change while it runs can also be set for \
         the cluster or the broker, and then wins over the file.",
        "hw cluster config list --broker 2",
    ),
    reason(
        "flushed",
        "The replica has the record on its disk.",
        "Nothing is to be done.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "follower",
        "The replica votes and gets its records from the leader.",
        "Nothing is to be done.",
        "hw partition describe orders/3",
    ),
    reason(
        "given-up",
        "The record lies before the start of the replica's log: retention or a trim has given \
         it up.",
        "Keep records longer with `retention.ms` or `retention.bytes`; what is gone is gone.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "going-back",
        "The move was cancelled: the replicas go back to where they were.",
        "Wait; the partition can be written and read meanwhile.",
        "hw partition moves",
    ),
    reason(
        "healthy",
        "Every broker is up, and every partition is led and has all of its replicas in sync.",
        "Nothing is to be done.",
        "hw cluster health",
    ),
    reason(
        "leader",
        "The replica takes the writes and tells the others.",
        "Nothing is to be done; `hw partition transfer` hands the leadership over.",
        "hw partition describe orders/3",
    ),
    reason(
        "leaderless",
        "No replica leads: too few of those with a vote can be reached, or an election is under way.",
        "If it lasts longer than a second, start the brokers that have its replicas: a majority of \
         them must be up. If a majority is lost for good, `hw partition unsafe-recover` goes on with \
         what one replica has, and says what is lost.",
        "hw partition list --problem leaderless",
    ),
    reason(
        "leads",
        "The broker leads the controller: it decides about topics, moves and brokers.",
        "Nothing is to be done; another voter takes over when it stops.",
        "hw cluster brokers",
    ),
    reason(
        "learner",
        "The replica gets the records and has no vote: it is coming to the broker and not there yet.",
        "Wait; `hw partition moves` shows what it belongs to.",
        "hw partition describe orders/3",
    ),
    reason(
        "leaving",
        "So many replicas move off the broker.",
        "`hw partition moves -w` shows how far they are.",
        "hw cluster brokers -w",
    ),
    reason(
        "lost",
        "The replica knows no leader although there is one: it cannot hear it.",
        "Look at the network between this broker and the leader.",
        "hw partition explain orders/3",
    ),
    reason(
        "missing",
        "The replica does not have the record.",
        "Wait until it has caught up; `hw partition explain` shows the lag.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "no-controller",
        "No broker leads the controller: topics can be written and read, but nothing can be changed.",
        "Start the brokers that vote on the metadata (`hw cluster brokers`, column CONTROLLER, of a \
         broker that still answers): a majority of them must be up.",
        "hw cluster health",
    ),
    reason(
        "ok",
        "The replica answers, follows or leads, and forgot nothing.",
        "Nothing is to be done.",
        "hw partition explain orders/3",
    ),
    reason(
        "partition-leaderless",
        "A partition can be neither written nor read: see `leaderless`.",
        "Start the brokers that have its replicas; if they are lost for good, `hw partition \
         unsafe-recover orders/3 --dry-run` shows what would be lost without them.",
        "hw cluster health",
    ),
    reason(
        "partition-under-replicated",
        "Fewer replicas keep up than the partition has: see `under-replicated`.",
        "Look at the brokers that are missing from IN-SYNC.",
        "hw cluster health",
    ),
    reason(
        "refilling",
        "So many replicas of the broker are filled anew, because its disk came back empty: see \
         `broker-refilling`.",
        "Wait; take no other broker down meanwhile.",
        "hw cluster brokers -w",
    ),
    reason(
        "running",
        "The move is under way: new replicas catch up, then the voters change one by one.",
        "Wait, or take it back with `hw partition cancel`.",
        "hw partition moves",
    ),
    reason(
        "silent",
        "The broker did not answer for its replica; the explanation says why.",
        "Start the broker, or read its log: the replica's files may have failed.",
        "hw partition explain orders/3",
    ),
    reason(
        "suspect",
        "The replica may have forgotten what it once acknowledged, after a crash with a flush \
         interval, damage or a lost disk: it neither votes nor stands.",
        "Wait until it has caught up with a leader. If a majority is suspect, bring back a \
         broker that is not.",
        "hw partition explain orders/3",
    ),
    reason(
        "too-few-brokers",
        "Fewer brokers are up than `--brokers-min` asks for.",
        "Start the missing ones; `hw cluster brokers` shows which.",
        "hw cluster health --brokers-min 3",
    ),
    reason(
        "topic",
        "The value was set for this topic, and wins over the cluster.",
        "`hw topic alter TOPIC KEY=VALUE` changes it, `KEY-` takes it back.",
        "hw topic alter orders",
    ),
    reason(
        "topic-broken",
        "The broker that was asked cannot describe the topic; the detail says why.",
        "Ask again in a moment; a broker that has just started does not know every topic yet.",
        "hw cluster health",
    ),
    reason(
        "uncommitted",
        "Too few voters count the record yet: consumers do not see it.",
        "Wait; if it lasts, the explanation names the replicas that lack it.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "undecided",
        "Nobody leads, and no replica that answers knows the record to be committed: the next \
         election decides.",
        "Start the brokers that have replicas: a majority of them must be up.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "under-replicated",
        "Fewer replicas keep up than the partition has: it can be written and read, but outlives \
         less than it should.",
        "Start the brokers that are missing from IN-SYNC, or wait until they have caught up: \
         `hw partition describe` shows how far they are behind.",
        "hw partition list --problem under-replicated",
    ),
    reason(
        "unhealthy",
        "Something below is not as it should be; each line has a word that is explained here.",
        "Look at the lines, from the top: what is wrong with a broker comes before its partitions.",
        "hw cluster health",
    ),
    reason(
        "unknown",
        "The broker did not answer, so that nobody knows whether it has the record.",
        "Start the broker, or look at the network between you and it.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "up",
        "The controller hears the broker, so that it may lead and get replicas.",
        "Nothing is to be done.",
        "hw cluster brokers",
    ),
    reason(
        "votes",
        "The broker votes on the cluster's metadata and may lead the controller.",
        "Nothing is to be done; `hw cluster controller` changes who votes.",
        "hw cluster brokers",
    ),
    reason(
        "waiting",
        "The move begins when others are over, for few are under way at once, and when the brokers \
         under AWAITS have given up the replicas that they had before.",
        "Wait, or take it back with `hw partition cancel`. An awaited broker has to be up and to \
         hear the controller.",
        "hw partition moves",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn is_known(word: &str) -> bool {
        all().any(|reason| reason.name == word)
    }

    #[test]
    fn every_reason_is_sorted_and_explained() {
        for table in [REASONS, compared::COMPARED, events::EVENTS] {
            assert!(table.is_sorted_by(|a, b| a.name < b.name), "sorted, each name once");
        }
        for Reason { name, meaning, advice, example } in all() {
            assert!(meaning.ends_with('.') && advice.ends_with('.'), "{name}");
            assert!(example.starts_with("hw "), "{name}: {example}");
        }
    }

    #[test]
    fn every_state_that_a_table_shows_is_explained() {
        use SettingSource::{Broker, Client, Cluster, Default, File};
        use highwater_client::{MoveStage, ReplicaRole, SettingSource};
        let stages = [MoveStage::Waiting, MoveStage::Running, MoveStage::GoingBack];
        let roles = [ReplicaRole::Leader, ReplicaRole::Follower, ReplicaRole::Learner];
        let sources = [Default, File, Cluster, Broker, Client].map(crate::config::source_word);
        let words = stages.map(crate::moving::stage_word).into_iter().chain(sources);
        let words = words.chain(roles.map(crate::partition::role_word)).chain(["topic"]);
        let words = words.chain(crate::verify::VERDICTS).chain(crate::verify::FINDINGS);
        let words = words.chain(crate::cluster::VERDICTS).chain(crate::brokers::WORDS);
        words.chain(highwater_protocol::native::events::KINDS).for_each(|word| {
            assert!(is_known(word), "{word}");
        });
    }

    #[test]
    fn every_word_of_the_verbs_is_explained() {
        use clap::ValueEnum;
        for problem in crate::cli::Problem::value_variants() {
            let word = problem.to_possible_value().expect("none is hidden");
            assert!(is_known(word.get_name()), "{}", word.get_name());
        }
        // Of states and verdicts, all words in quotes that stand alone.
        let source = include_str!("standing/verdict.rs");
        let words: Vec<&str> = source.split('"').skip(1).step_by(2).collect();
        let alone = |word: &&&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        let words = words.iter().filter(|word| word.len() > 1).filter(alone);
        assert!(words.inspect(|word| assert!(is_known(word), "{word}")).count() >= 14);
        // A trouble's kind is the first word in quotes where one is made.
        let source = include_str!("cluster.rs");
        let made = source.split("kind: \"").chain(source.split("trouble(\"")).skip(1);
        let kinds: Vec<&str> = made.filter_map(|rest| Some(rest.split_once('"')?.0)).collect();
        let kinds = kinds.iter().filter(|kind| kind.contains('-') && !kind.contains(' '));
        assert_eq!(kinds.inspect(|kind| assert!(is_known(kind), "{kind}")).count(), 8);
    }
}
