//! The words of `hw cluster verify` for partitions and replicas that were compared, and what each means.

use super::{Reason, reason};

/// Every word, sorted by name.
pub const COMPARED: &[Reason] = &[
    reason(
        "agree",
        "All replicas of the partition hold the same, as far as it is committed.",
        "Nothing is to be done.",
        "hw cluster verify",
    ),
    reason(
        "away",
        "The broker's replica could not be asked, so nobody knows what it holds.",
        "Start the broker, or look at the network between you and it, and compare again.",
        "hw cluster verify",
    ),
    reason(
        "behind",
        "The replica holds the same as the others, as far as it goes: it has yet to catch up.",
        "Compare again once `hw cluster health` is satisfied.",
        "hw cluster verify",
    ),
    reason(
        "damaged",
        "A replica has a batch that its disk does not give back as it was written. It fetches that \
         batch from another replica by itself.",
        "Compare again a moment later; if it comes back, replace the disk.",
        "hw cluster verify",
    ),
    reason(
        "differ",
        "Replicas of the partition hold different records at one offset. This must never be.",
        "Keep the files of all of them and report it; then move the replica that differs off its \
         broker and back, which copies it anew.",
        "hw cluster verify",
    ),
    reason(
        "differs",
        "The replica holds other records than those that most replicas, or the leader, agree on. \
         This must never be.",
        "Keep its files and report it; then move it off its broker and back, which copies it anew.",
        "hw cluster verify",
    ),
    reason(
        "incomplete",
        "No difference was found, but not every replica was there, or had all of it.",
        "Bring the brokers that are named back, wait until they have caught up, and compare again.",
        "hw cluster verify",
    ),
];
