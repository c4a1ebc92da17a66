//! What can be asked for on the command line, and the connection that all modes need.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use highwater_client::{
    AckMode, Client, Compression, ErrorKind, NewTopic, ProducerConfig, Profiles, TopicDetail,
};
use highwater_protocol::error::ErrorCode;
use serde::Serialize;

use crate::workload::STAMP_BYTES;

/// Measures a Highwater cluster from the client's side: load, latency, and loss.
#[derive(Debug, Parser)]
#[command(name = "highwater-bench", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub mode: Mode,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Mode {
    /// Write records and measure the time from their intended moment to their acknowledgement
    Produce {
        /// The topic and the report.
        #[command(flatten)]
        common: Common,
        /// The load.
        #[command(flatten)]
        load: Load,
    },
    /// Read what a bench wrote, as fast as possible, and check it
    Consume {
        /// The topic and the report.
        #[command(flatten)]
        common: Common,
        /// What to read.
        #[command(flatten)]
        read: Read,
    },
    /// Write and read at once; measure until the consumer has it, and check that nothing is lost
    E2e {
        /// The topic and the report.
        #[command(flatten)]
        common: Common,
        /// The load.
        #[command(flatten)]
        load: Load,
    },
    /// Record every operation of a run, and judge the history: is anything lost, repeated, out of order?
    Verify {
        /// Record or judge.
        #[command(subcommand)]
        verify: crate::verifying::Verify,
    },
}

/// What all modes share.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Common {
    /// Brokers to ask first, HOST:PORT, several with commas; instead of the profile's
    #[arg(long, value_delimiter = ',', env = "HIGHWATER_BOOTSTRAP")]
    pub bootstrap: Vec<String>,
    /// Use this profile instead of the current one
    #[arg(long, env = "HIGHWATER_PROFILE_NAME")]
    pub profile: Option<String>,
    /// The topic
    #[arg(long, short = 't', default_value = "bench")]
    pub topic: String,
    /// Create the topic first; one of that name must not exist
    #[arg(long)]
    pub create: bool,
    /// Delete the topic in the end
    #[arg(long)]
    pub delete: bool,
    /// Partitions of the topic to create
    #[arg(long, default_value_t = 12, requires = "create")]
    pub partitions: u32,
    /// Replicas of the topic to create [default: the cluster's]
    #[arg(long, requires = "create")]
    pub replication: Option<u8>,
    /// A setting of the topic to create, KEY=VALUE; may be repeated
    #[arg(long = "config", value_name = "KEY=VALUE", requires = "create")]
    pub configs: Vec<String>,
    /// Write the report as JSON into this file; `-` for the standard output instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Watch these brokers' processor time and memory
    #[arg(long, value_name = "PIDS", value_delimiter = ',')]
    pub broker_pids: Vec<u32>,
    /// A word for this run in the report
    #[arg(long, default_value = "")]
    pub label: String,
    /// No line per second on the standard error
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

/// The load of `produce` and `e2e`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Load {
    #[command(flatten)]
    pace: Pace,
    /// Bytes of each record's value
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// Producers, each with its own thread and identity
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub producers: u8,
    /// Give records one of N keys, evenly at random; 0 for no keys
    #[arg(long, default_value_t = 0)]
    pub keys: u32,
    /// What an acknowledgement means
    #[arg(long, default_value = "semi-sync")]
    pub acks: Acks,
    /// How long a batch waits for more records
    #[arg(long, default_value_t = 5)]
    pub linger_ms: u64,
    /// A batch is sent when it has grown to this many bytes
    #[arg(long, default_value_t = 64 << 10)]
    pub batch_bytes: usize,
    /// What batches are packed with
    #[arg(long, default_value = "none")]
    pub compression: Codec,
    /// Bytes that each producer may have under way
    #[arg(long, default_value_t = 32 << 20)]
    pub buffer_bytes: usize,
    /// Records that each producer may have under way with --max
    #[arg(long, default_value_t = 10_000)]
    pub window: u64,
    /// Seconds before the measuring
    #[arg(long, default_value_t = 5.0)]
    pub warmup: f64,
    /// Seconds of measuring
    #[arg(long, default_value_t = 30.0)]
    pub duration: f64,
    /// Stop after this many records, warm-up included
    #[arg(long)]
    pub records: Option<u64>,
    /// Seconds to wait in the end for what is under way
    #[arg(long, default_value_t = 30.0)]
    pub drain: f64,
    /// Print every stall: something waited and nothing was acknowledged for at least --gap-ms
    #[arg(long)]
    pub report_gaps: bool,
    /// The shortest stall that is remembered
    #[arg(long, default_value_t = 200)]
    pub gap_ms: u64,
}

#[derive(Debug, Clone, Copy, Args, Serialize)]
#[group(required = true, multiple = false)]
struct Pace {
    /// Open loop: this many records a second, due at fixed times whatever the cluster does
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Closed loop: as fast as acknowledgements come; its latencies say nothing of an open system
    #[arg(long)]
    max: bool,
}

/// What `consume` reads.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Read {
    /// Where to start
    #[arg(long, default_value = "start")]
    pub from: From,
    /// Stop at what is the end now
    #[arg(long)]
    pub until_end: bool,
    /// Stop after this many seconds
    #[arg(long, default_value_t = 30.0)]
    pub duration: f64,
}

/// Where a consumer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// The oldest record
    Start,
    /// What comes from now on
    End,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acks {
    /// The leader has appended it
    Async,
    /// A majority counts it
    SemiSync,
    /// Every in-sync replica counts it
    Sync,
}

/// What batches are packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// Nothing
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

impl Codec {
    fn codec(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// How the load is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loop {
    /// By a schedule.
    Open {
        /// Records a second of all producers.
        rate: u64,
    },
    /// By acknowledgements.
    Closed,
}

impl Load {
    /// How the load is driven.
    pub fn driven(&self) -> Loop {
        match self.pace.rate {
            Some(rate) => Loop::Open { rate },
            None => Loop::Closed,
        }
    }

    /// Refuses what cannot be measured.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.record_bytes >= STAMP_BYTES,
            "--record-bytes must be at least {STAMP_BYTES}: a record carries who sent it and when"
        );
        ensure!(self.duration > 0.0 && self.warmup >= 0.0, "--duration must be more than 0");
        ensure!(self.drain >= 0.0 && self.window > 0, "--drain and --window must be positive");
        Ok(())
    }

    /// The configuration of each producer.
    pub fn producer_config(&self) -> ProducerConfig {
        ProducerConfig::default()
            .acks(self.acks.into())
            .linger(Duration::from_millis(self.linger_ms))
            .batch_bytes_max(self.batch_bytes)
            .buffer_bytes_max(self.buffer_bytes)
            .compression(self.compression.codec())
    }
}

impl std::convert::From<Acks> for AckMode {
    fn from(acks: Acks) -> AckMode {
        match acks {
            Acks::Async => AckMode::Async,
            Acks::SemiSync => AckMode::SemiSync,
            Acks::Sync => AckMode::Sync,
        }
    }
}

impl Common {
    /// A client of its own for each caller, with connections of its own.
    pub async fn connect(&self) -> Result<Client> {
        let profiles = Profiles::load()?;
        let mut config = profiles.get(self.profile.as_deref())?.config();
        if !self.bootstrap.is_empty() {
            config.bootstrap = self.bootstrap.clone();
        }
        Ok(Client::connect(config.client_id("highwater-bench")).await?)
    }

    /// Makes the topic if that was asked for, and describes it once all partitions are led.
    pub async fn topic(&self, client: &Client) -> Result<TopicDetail> {
        let admin = client.admin();
        if self.create {
            let mut topic = NewTopic::new(self.topic.as_str(), self.partitions);
            topic.replication = self.replication;
            for setting in &self.configs {
                let pair = setting.split_once('=');
                let (key, value) = pair.with_context(|| format!("{setting} is not KEY=VALUE"))?;
                topic = topic.config(key, value);
            }
            admin.create_topic(topic).await.context("cannot create the topic")?;
        }
        let deadline = std::time::Instant::now() + LEADERS_WITHIN;
        loop {
            match admin.describe_topic(&self.topic).await {
                Ok(detail) if detail.partitions.iter().all(|p| p.leader.is_some()) => {
                    return Ok(detail);
                }
                Ok(_) if std::time::Instant::now() > deadline => {
                    bail!("topic {} has partitions without a leader", self.topic)
                }
                Ok(_) => {}
                // The broker that is asked may learn of a new topic a moment later.
                Err(error) if self.create && is_unknown(error.kind()) => {}
                Err(error) => return Err(error).context("cannot describe the topic"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Deletes the topic if that was asked for.
    pub async fn clean_up(&self, client: &Client) -> Result<()> {
        if self.delete {
            client.admin().delete_topic(&self.topic).await.context("cannot delete the topic")?;
        }
        Ok(())
    }
}

fn is_unknown(kind: ErrorKind) -> bool {
    kind == ErrorKind::UnknownTopic
        || kind == ErrorKind::Refused(ErrorCode::UnknownTopicOrPartition)
}

const LEADERS_WITHIN: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  highwater-bench produce --create --partitions 12 --replication 3 --rate 20000
  highwater-bench e2e --rate 20000 --acks sync --keys 1000 --report-gaps --json run.json
  highwater-bench produce --max --acks async --broker-pids 101,102,103
  highwater-bench consume --until-end
  highwater-bench verify run --create --replication 3 --duration 60

Exit codes: 0 fine; 1 could not run; 2 wrong usage; 3 records lost, duplicated, out of order or
otherwise wrong; 4 nothing wrong with the data, but some records were not acknowledged";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_clash() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_load_is_either_open_or_closed() {
        let parse = |args: &[&str]| {
            let args = ["highwater-bench", "produce"].iter().chain(args);
            Cli::try_parse_from(args).map(|cli| match cli.mode {
                Mode::Produce { load, .. } | Mode::E2e { load, .. } => load.driven(),
                Mode::Consume { .. } | Mode::Verify { .. } => Loop::Closed,
            })
        };
        assert_eq!(parse(&["--rate", "5"]).ok(), Some(Loop::Open { rate: 5 }));
        assert_eq!(parse(&["--max"]).ok(), Some(Loop::Closed));
        assert!(parse(&[]).is_err());
        assert!(parse(&["--max", "--rate", "5"]).is_err());
        assert!(parse(&["--rate", "0"]).is_err());
        assert!(parse(&["--max", "--partitions", "3"]).is_err(), "only with --create");
    }
}
