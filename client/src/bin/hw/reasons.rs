//! The words by which `hw` says in what state something is, and what each of them means.
//!
//! The verbs that print such a word have it from here or are held to this table by tests.

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

/// Every word, sorted by name.
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
        "appended",
        "The replica has the record in its log, and not on its disk yet.",
        "Nothing; with `flush=ack` it does not count the record before the flush.",
        "hw partition explain orders/3@1200",
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
        "committed",
        "A majority of the voters counts the record: consumers see it, and no later leader \
         takes it back.",
        "Nothing is to be done.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "diverged",
        "Two replicas hold different batches at one offset, and both call theirs committed. \
         This must never be.",
        "Stop both brokers, keep their files, and report it.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "fenced",
        "The controller has lost touch with the broker: see `broker-fenced`.",
        "Start the broker, or mend its network.",
        "hw partition explain orders/3",
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
        "learner",
        "The replica gets the records and has no vote: it is coming to the broker and not there yet.",
        "Wait; `hw partition moves` shows what it belongs to.",
        "hw partition describe orders/3",
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
        "Start the brokers of `cluster.controllers`: a majority of them must be up.",
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
        "unknown",
        "The broker did not answer, so that nobody knows whether it has the record.",
        "Start the broker, or look at the network between you and it.",
        "hw partition explain orders/3@1200",
    ),
    reason(
        "waiting",
        "The move begins when others are over: few are under way at once.",
        "Wait, or take it back with `hw partition cancel`.",
        "hw partition moves",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn is_known(word: &str) -> bool {
        REASONS.iter().any(|reason| reason.name == word)
    }

    #[test]
    fn every_reason_is_sorted_and_explained() {
        assert!(REASONS.is_sorted_by(|a, b| a.name < b.name), "sorted, each name once");
        for Reason { name, meaning, advice, example } in REASONS {
            assert!(meaning.ends_with('.') && advice.ends_with('.'), "{name}");
            assert!(example.starts_with("hw "), "{name}: {example}");
        }
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
