//! The verb tree of `hw`: what can be typed, and the words that explain it.
//!
//! Only shapes and their help stand here; what a verb does stands in the module of its noun.
//! Every verb has at least two examples, because people copy before they read.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::ReadOutput;
use crate::record::args::{ConsumeArgs, ProduceArgs};
use crate::target::PartitionName;
use crate::watch::Watch;

/// Work with a Highwater cluster: topics, records, partitions, health.
#[derive(Debug, Parser)]
#[command(name = "hw", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = ROOT_EXAMPLES)]
pub struct Cli {
    /// What all verbs share.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The noun.
    #[command(subcommand)]
    pub noun: Noun,
}

#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Use this profile instead of the current one
    #[arg(long, global = true, value_name = "NAME", env = "HIGHWATER_PROFILE_NAME")]
    #[arg(help_heading = "Global options")]
    pub profile: Option<String>,
    /// Brokers to ask first, HOST:PORT, several with commas; instead of the profile's
    #[arg(long, global = true, value_name = "ADDRS", env = "HIGHWATER_BOOTSTRAP")]
    #[arg(value_delimiter = ',', help_heading = "Global options")]
    pub bootstrap: Vec<String>,
    /// The cluster's CA certificate, PEM; instead of the profile's
    #[arg(long, global = true, value_name = "FILE", env = "HIGHWATER_CA")]
    #[arg(help_heading = "Global options", hide_short_help = true)]
    pub ca: Option<PathBuf>,
    /// The client's certificate, PEM; instead of the profile's
    #[arg(long, global = true, value_name = "FILE", env = "HIGHWATER_CERT")]
    #[arg(help_heading = "Global options", hide_short_help = true)]
    pub cert: Option<PathBuf>,
    /// The client's private key, PEM; instead of the profile's
    #[arg(long, global = true, value_name = "FILE", env = "HIGHWATER_KEY")]
    #[arg(help_heading = "Global options", hide_short_help = true)]
    pub key: Option<PathBuf>,
    /// Give up on an answer after this time, such as 500ms, 10s, 2m
    #[arg(long = "request-timeout", global = true, value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = crate::human::parse_duration, help_heading = "Global options")]
    pub request_timeout: std::time::Duration,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    #[arg(help_heading = "Global options")]
    pub color: ColorWhen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Create, list, describe and delete topics
    #[command(subcommand)]
    Topic(TopicVerb),
    /// Write records: one for each line of the standard input or of a file
    #[command(after_help = PRODUCE_EXAMPLES)]
    Produce(ProduceArgs),
    /// Read records and print them
    #[command(after_help = CONSUME_EXAMPLES)]
    Consume(ConsumeArgs),
    /// Look at partitions: leaders, replicas, offsets
    #[command(subcommand)]
    Partition(PartitionVerb),
    /// Look at consumer groups: members, lag, where they go on
    #[command(subcommand)]
    Group(crate::group::GroupVerb),
    /// Say how fast clients may write and read
    #[command(subcommand)]
    Quota(crate::quota::QuotaVerb),
    /// Look at the cluster, and have brokers come and go
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Keep the addresses and certificates of several clusters
    #[command(subcommand, visible_alias = "ctx")]
    Profile(crate::profile::ProfileVerb),
    /// Say what an error, a setting or a word of hw means, and what to do about it
    #[command(after_help = crate::explain::EXAMPLES)]
    Explain(crate::explain::ExplainArgs),
    /// Print the completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for every verb
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// Write hw.1, hw-topic.1, ... into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum TopicVerb {
    /// Create a topic
    #[command(after_help = TOPIC_CREATE_EXAMPLES)]
    Create(TopicCreateArgs),
    /// List all topics
    #[command(visible_alias = "ls", after_help = TOPIC_LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        watch: Watch,
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Describe a topic: settings, partitions, leaders, replicas
    #[command(visible_alias = "info", after_help = TOPIC_DESCRIBE_EXAMPLES)]
    Describe {
        /// The topic's name
        name: String,
        #[command(flatten)]
        watch: Watch,
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Delete topics and everything in them
    #[command(visible_alias = "rm", after_help = TOPIC_DELETE_EXAMPLES)]
    Delete(TopicDeleteArgs),
    /// Delete the oldest records of a topic or of one of its partitions
    #[command(after_help = crate::trim::EXAMPLES)]
    Trim(crate::trim::TrimArgs),
    /// Read a topic and say what its records are like: sizes, times, hot keys
    #[command(after_help = crate::analyze::EXAMPLES)]
    Analyze(crate::analyze::AnalyzeArgs),
    /// Change settings of a topic while it is in use, or add partitions to it
    #[command(visible_alias = "config", after_help = crate::alter::EXAMPLES)]
    Alter(crate::alter::AlterArgs),
}

#[derive(Debug, Args)]
pub struct TopicCreateArgs {
    /// The topic's name: letters, digits, dot, underscore, hyphen
    pub name: String,
    /// How many partitions
    #[arg(long, short = 'p', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// How many replicas of each partition [default: the cluster's]
    #[arg(long, short = 'r', value_parser = clap::value_parser!(u8).range(1..))]
    pub replication: Option<u8>,
    /// A setting, such as min.insync.replicas=2; may be repeated
    #[arg(long = "config", short = 'c', value_name = "KEY=VALUE")]
    #[arg(value_parser = parse_setting)]
    pub configs: Vec<(String, String)>,
    /// Check everything, show where the replicas would go, create nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct TopicDeleteArgs {
    /// The topics' names
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would be deleted, delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Subcommand)]
pub enum PartitionVerb {
    /// List the partitions of one topic or of all
    #[command(visible_alias = "ls", after_help = PARTITION_LIST_EXAMPLES)]
    List {
        /// Only this topic's
        topic: Option<String>,
        /// Only those with this problem
        #[arg(long, value_name = "PROBLEM")]
        problem: Option<Problem>,
        #[command(flatten)]
        watch: Watch,
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Describe one partition as its leader sees it
    #[command(visible_alias = "info", after_help = PARTITION_DESCRIBE_EXAMPLES)]
    Describe {
        /// TOPIC/NUMBER, such as orders/3
        #[arg(value_name = "TOPIC/P")]
        partition: PartitionName,
        #[command(flatten)]
        watch: Watch,
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Say in words where each replica stands, and what has become of the record at an offset
    #[command(after_help = crate::standing::EXAMPLES)]
    Explain(crate::standing::ExplainArgs),
    /// Move replicas to other brokers, off a broker, or change how many there are
    #[command(after_help = crate::reassign::REASSIGN_EXAMPLES)]
    Reassign(crate::reassign::ReassignArgs),
    /// Show what replicas cannot read any more and who mends it; give up what nobody has
    #[command(after_help = crate::repair::EXAMPLES)]
    Repair(crate::repair::RepairArgs),
    /// Go on with what one replica has, where a majority is lost for good: records are lost
    #[command(after_help = crate::unsafe_recover::EXAMPLES)]
    UnsafeRecover(crate::unsafe_recover::UnsafeRecoverArgs),
    /// Show what is moving
    #[command(after_help = crate::moving::MOVES_EXAMPLES)]
    Moves(crate::moving::MovesArgs),
    /// Limit how fast moves may copy, also while they run
    #[command(after_help = crate::throttle::EXAMPLES)]
    Throttle(crate::throttle::ThrottleArgs),
    /// Have moves go back to where they began
    #[command(after_help = crate::cancel::EXAMPLES)]
    Cancel(crate::cancel::CancelArgs),
    /// Show which partitions, or brokers, are written to and read from the most
    #[command(after_help = crate::top::EXAMPLES)]
    Top(crate::top::TopArgs),
    /// Hand the leadership of a partition to another of its replicas
    #[command(visible_alias = "transfer-leader", after_help = crate::partition::TRANSFER_EXAMPLES)]
    Transfer(crate::partition::TransferArgs),
}

/// What can be wrong with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Problem {
    /// Nobody leads it: it can be neither written nor read
    Leaderless,
    /// Fewer replicas keep up than it has
    UnderReplicated,
}

#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Say whether every broker is up and every partition led and fully replicated
    #[command(after_help = crate::cluster::HEALTH_EXAMPLES)]
    Health(crate::cluster::HealthArgs),
    /// Compare what the replicas of partitions hold, by hash
    #[command(after_help = crate::verify::EXAMPLES)]
    Verify(crate::verify::VerifyArgs),
    /// Spread replicas and leaders over racks and brokers
    #[command(after_help = crate::balance::EXAMPLES)]
    Balance(crate::balance::BalanceArgs),
    /// Show what the controller decided, when, and why
    #[command(after_help = crate::events::EXAMPLES)]
    Events(crate::events::EventsArgs),
    /// Show and change settings of the cluster and of brokers while they run
    #[command(subcommand)]
    Config(crate::config::ConfigVerb),
    /// List the brokers
    #[command(visible_alias = "nodes", after_help = crate::brokers::BROKERS_EXAMPLES)]
    Brokers(crate::brokers::BrokersArgs),
    /// Take the leaders off a broker and give it no new work; its replicas stay
    #[command(after_help = crate::duty::DRAIN_EXAMPLES)]
    Drain(crate::duty::DrainArgs),
    /// Give a broker work again
    #[command(after_help = crate::duty::UNDRAIN_EXAMPLES)]
    Undrain(crate::duty::UndrainArgs),
    /// Move everything off a broker that is to be taken out
    #[command(after_help = crate::retire::DECOMMISSION_EXAMPLES)]
    Decommission(crate::retire::DecommissionArgs),
    /// Take a broker that hosts nothing out of the cluster
    #[command(after_help = crate::retire::REMOVE_EXAMPLES)]
    Remove(crate::retire::RemoveArgs),
    /// Show and change which brokers vote on the cluster's metadata
    #[command(subcommand)]
    Controller(crate::controller::ControllerVerb),
}

pub(crate) fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE, such as retention.ms=86400000".to_owned()),
    }
}

const ROOT_EXAMPLES: &str = "\
Examples:
  hw topic create orders --partitions 12 --replication 3
  seq 1000 | hw produce orders --acks sync
  hw consume orders --from start --until-end
  hw cluster health --wait

Exit codes:
  0 fine   1 failed   2 wrong usage   3 not found   4 exists already or conflicts
  5 not authorised   6 timed out   7 partly failed   10 unhealthy   130 interrupted";
const TOPIC_CREATE_EXAMPLES: &str = "\
Examples:
  hw topic create orders --partitions 12 --replication 3
  hw topic create audit -p 3 -r 3 --config min.insync.replicas=2 --config flush=ack
  hw topic create orders -p 12 --dry-run -o json";
const TOPIC_LIST_EXAMPLES: &str = "\
Examples:
  hw topic list
  hw topic list -w=500ms
  hw topic list -o name | grep '^tmp-' | xargs hw topic delete -y";
const TOPIC_DESCRIBE_EXAMPLES: &str = "\
Examples:
  hw topic describe orders
  hw topic describe orders -o json
  hw topic describe orders --watch";
const TOPIC_DELETE_EXAMPLES: &str = "\
Examples:
  hw topic delete orders
  hw topic delete orders payments -y
  hw topic delete orders --dry-run";
const PRODUCE_EXAMPLES: &str = "\
Examples:
  echo 'hello' | hw produce orders
  hw produce orders lines.txt --key-sep : --acks sync
  tail -F app.log | hw produce logs --acks async
  hw produce orders lines.txt -o jsonl > receipts.jsonl
  hw produce orders -H source=shop -H attempt=1 < lines.txt
  echo 'customer-7:' | hw produce customers --key-sep : --tombstone
  END=$(echo paid | hw produce account -p 0 --expect-end \"$END\")   only if nobody else has written since

Every line is one record, byte for byte, without its newline; empty lines are records, and so is
a last line without a newline. With --key-sep, what stands before the first separator is the key;
a line without the separator has no key. With --tombstone an empty value is no value at all, which
marks its key as deleted.";
const CONSUME_EXAMPLES: &str = "\
Examples:
  hw consume orders                            new records, until Ctrl-C
  hw consume orders --from start --until-end   everything that is there, then stop
  hw consume orders --from @-1h -n 10          ten records from an hour ago on
  hw consume orders --from=-5 -n 5 --partition 0
  hw consume orders --from 100:200 --partition 3 -o jsonl
  hw consume orders -f '%T %p@%o %k=%v\\n'

Where to start (--from), and after a colon where to stop:
  start   end   N (an offset)   +N (N after the start)   -N (N before the end)
  @2026-11-21T14:00:00Z   @2026-11-21   @1732197600000 (ms)   @-1h30m (ago)
  A:B     from A up to and without B, such as start:end, @-1h:end, 100:200";
const PARTITION_LIST_EXAMPLES: &str = "\
Examples:
  hw partition list
  hw partition list orders -o wide
  hw partition list --problem leaderless -o name
  hw partition list --problem under-replicated -w=500ms";
const PARTITION_DESCRIBE_EXAMPLES: &str = "\
Examples:
  hw partition describe orders/3
  hw partition describe orders/3 -w
  hw partition describe orders/3 -o yaml";
const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  hw completions bash > ~/.local/share/bash-completion/completions/hw
  hw completions zsh > ~/.zfunc/_hw
  hw completions fish > ~/.config/fish/completions/hw.fish";
const MAN_EXAMPLES: &str = "\
Examples:
  hw man | man -l -
  hw man --dir ~/.local/share/man/man1";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_verb_tree_has_no_clashing_flags() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(|help| help.to_string());
                let examples = help.unwrap_or_default().matches("hw ").count();
                assert!(examples >= 2 || path.ends_with("man"), "{path} has {examples} examples");
            }
            command.get_subcommands().for_each(|verb| check(verb, &path));
        }
        check(&Cli::command(), "");
    }

    /// Every command of the pages for people is one that `hw` understands, so that they cannot rot.
    #[test]
    fn every_command_of_the_pages_for_operators_parses() {
        let pages = [
            include_str!("../../../../README.md"),
            include_str!("../../../../broker/OPERATIONS.md"),
        ];
        let mut parsed = 0;
        for page in pages {
            let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
            let lines = blocks.flat_map(|(block, _)| block.lines());
            let lines = lines.map(|line| line.split_once('#').map_or(line, |(line, _)| line));
            for command in lines.flat_map(|line| line.split(['|', '&'])) {
                if !command.trim().starts_with("hw ") {
                    continue;
                }
                if let Err(error) = Cli::try_parse_from(command.split_whitespace()) {
                    panic!("`{}`: {error}", command.trim());
                }
                parsed += 1;
            }
        }
        assert!(parsed > 60, "{parsed} commands were found");
    }

    #[test]
    fn a_setting_may_hold_an_equals_sign_in_its_value() {
        assert_eq!(parse_setting("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_setting("a").is_err());
        assert!(parse_setting("=a").is_err());
    }
}
