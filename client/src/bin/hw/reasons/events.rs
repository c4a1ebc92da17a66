//! The kinds of decisions that `hw cluster events` shows, and what each of them means.

use super::{Reason, reason};

/// Every kind but those that are states as well, sorted by name.
pub const EVENTS: &[Reason] = &[
    reason(
        "broker-registered",
        "A broker joined the cluster, came back after a restart, or says something new of itself.",
        "Nothing is to be done; \"with an empty disk\" means that its replicas are filled anew.",
        "hw cluster events --kind broker-registered",
    ),
    reason(
        "broker-removed",
        "A broker was taken out of the cluster: its data directory registers no more.",
        "Nothing is to be done; to have its machine back, give it an empty directory and invite it.",
        "hw cluster events --kind broker-removed",
    ),
    reason(
        "broker-unfenced",
        "The controller hears a broker again that it had lost touch with.",
        "Nothing is to be done; it leads again what it is preferred for in a moment.",
        "hw cluster events --kind broker-unfenced",
    ),
    reason(
        "controller-voters",
        "Other brokers vote on the cluster's metadata from here on.",
        "Keep their number odd: an even one bears no more failures than one fewer.",
        "hw cluster events --kind controller-voters",
    ),
    reason(
        "duty-changed",
        "Somebody drained a broker, decommissioned it, or took it back.",
        "`hw cluster brokers` shows how far that is.",
        "hw cluster events --kind duty-changed",
    ),
    reason(
        "log-begun-anew",
        "The controller's log had grown long, and begins with an image of the whole cluster now.",
        "Nothing is to be done; what was decided earlier is not told any more.",
        "hw cluster events --kind log-begun-anew",
    ),
    reason(
        "move-asked",
        "A partition is to move, and waits: few are under way at once.",
        "Wait, or take it back with `hw partition cancel`.",
        "hw cluster events --kind move-asked",
    ),
    reason(
        "move-automatic",
        "Nobody asked for a move: the cluster evens itself out, by number, bytes or load, or replaces a broker that is away for long.",
        "`hw cluster config get balance.auto balance.replace.after.ms` shows what makes it do so.",
        "hw cluster events --kind move-automatic",
    ),
    reason(
        "move-begun",
        "A partition began to move: new replicas copy its log.",
        "`hw partition moves -w` shows how far it is.",
        "hw cluster events --kind move-begun",
    ),
    reason(
        "move-cancelled",
        "A move was cancelled: the replicas go back to where they were.",
        "Wait; the partition can be written and read meanwhile.",
        "hw cluster events --kind move-cancelled",
    ),
    reason(
        "move-dropped",
        "A move that nobody asked for and that had not begun was given up: its broker came back.",
        "Nothing is to be done.",
        "hw cluster events --kind move-dropped",
    ),
    reason(
        "move-ended",
        "A partition is where it was to be, and the replicas that it left are deleted.",
        "Nothing is to be done.",
        "hw cluster events --kind move-ended",
    ),
    reason(
        "move-remembered",
        "An image of the cluster was written, and with it what earlier moves took from brokers.",
        "Nothing is to be done.",
        "hw cluster events --kind move-remembered",
    ),
    reason(
        "moves-throttled",
        "Somebody changed how fast moves may copy.",
        "`hw partition throttle` shows what holds; it holds until somebody changes it.",
        "hw cluster events --kind moves-throttled",
    ),
    reason(
        "partition-recovered",
        "Somebody gave up the lost majority of a partition: it goes on with what one replica had.",
        "Records that only the lost ones had are gone; `hw partition moves -w` shows the new replicas.",
        "hw cluster events --kind partition-recovered",
    ),
    reason(
        "partitions-placed",
        "A topic was made or got more partitions, and their replicas were given to brokers.",
        "Nothing is to be done; `hw cluster balance --dry-run` shows whether another spread is better.",
        "hw cluster events --kind partitions-placed",
    ),
    reason(
        "recovery-remembered",
        "An image of the cluster was written, and with it that a partition was recovered earlier.",
        "Nothing is to be done.",
        "hw cluster events --kind recovery-remembered",
    ),
    reason(
        "replica-given-up",
        "A broker has deleted a replica that a move or a recovery took from it.",
        "Nothing is to be done; from now on the partition can come back to that broker.",
        "hw cluster events --kind replica-given-up",
    ),
    reason(
        "replica-refilled",
        "A replica has all records again on a disk that came back empty.",
        "Nothing is to be done; `hw cluster brokers` counts those that are still missing.",
        "hw cluster events --kind replica-refilled",
    ),
    reason(
        "settings-altered",
        "Somebody changed settings of the cluster or of a broker.",
        "`hw cluster config list --set` shows what holds.",
        "hw cluster events --kind settings-altered",
    ),
    reason(
        "topic-altered",
        "Somebody changed settings of a topic.",
        "`hw topic alter TOPIC` shows what holds, and where it comes from.",
        "hw cluster events --kind topic-altered",
    ),
    reason(
        "topic-created",
        "Somebody made a topic.",
        "Nothing is to be done.",
        "hw cluster events --kind topic-created",
    ),
    reason(
        "topic-deleted",
        "Somebody deleted a topic with everything in it.",
        "It cannot be taken back; `delete.protection=on` keeps it from happening to others.",
        "hw cluster events --kind topic-deleted",
    ),
];
