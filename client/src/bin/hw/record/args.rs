//! The arguments of `hw produce` and `hw consume`.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use highwater_protocol::batch::Compression;
use highwater_protocol::native::produce::AckMode;

use super::format::Template;
use super::position::Range;

#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic to write to
    pub topic: String,
    /// Read lines from this file; `-` or nothing for the standard input
    pub file: Option<PathBuf>,
    /// Split each line at the first SEP into key and value
    #[arg(long, short = 'k', value_name = "SEP", value_parser = parse_separator)]
    pub key_sep: Option<Separator>,
    /// What must have happened before a record counts as written
    #[arg(long, value_name = "MODE", default_value = "semi-sync")]
    pub acks: Acks,
    /// Give every record this header; may be repeated, names too. Without `=` the header has no value
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = parse_header)]
    pub headers: Vec<HeaderArg>,
    /// Write an empty value as no value at all: a tombstone
    #[arg(long, short = 'Z')]
    pub tombstone: bool,
    /// Write to this partition, whatever the key
    #[arg(long, short = 'p', value_name = "P")]
    pub partition: Option<u32>,
    /// At most this many records a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Write all lines as one batch, and only if the partition ends at N; otherwise nothing is written and the
    /// exit code is 4. Where it ends then is printed in both cases
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "receipts"])]
    pub expect_end: Option<u64>,
    /// Pack batches so, where it makes them smaller; a topic's `compression.type` has the last word
    /// [default: the profile's, else lz4]
    #[arg(long, value_name = "CODEC")]
    pub compression: Option<Codec>,
    /// Print a receipt for each record, in the order of the lines
    #[arg(short = 'o', long = "output", value_name = "FORMAT")]
    pub receipts: Option<ReceiptFormat>,
    /// No summary and no progress on the standard error
    #[arg(long, short = 'q')]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topic to read
    pub topic: String,
    /// Where to start, and after a colon where to stop; see below. With --until-end, the start
    #[arg(long, short = 'O', value_name = "FROM[:UNTIL]", default_value = "end")]
    #[arg(default_value_if("until_end", "true", "start"))]
    #[arg(default_value_if("group", clap::builder::ArgPredicate::IsPresent, "start"))]
    #[arg(allow_hyphen_values = true)]
    pub from: Range,
    /// Read as a member of this consumer group: partitions are shared with its other members, and it
    /// goes on where it was; --from says where to start in partitions that are new to it
    #[arg(long, short = 'g', value_name = "GROUP", conflicts_with_all = ["until_end", "partition"])]
    pub group: Option<String>,
    /// Read from replicas in this rack where they keep up, and from leaders where there are none
    #[arg(long, value_name = "RACK")]
    pub rack: Option<String>,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N")]
    pub number: Option<u64>,
    /// Stop at what is the end now
    #[arg(long, short = 'e')]
    pub until_end: bool,
    /// Read only these partitions; several with commas
    #[arg(long, short = 'p', value_name = "P", value_delimiter = ',')]
    pub partition: Vec<u32>,
    /// How to print a record
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "value")]
    pub output: RecordFormat,
    /// Print by this pattern: %t topic %p partition %o offset %k key %v value %T time in ms
    /// %h headers %% percent; \n \t \r \\ \0
    #[arg(short = 'f', long, value_name = "PATTERN", conflicts_with_all = ["output", "key_sep"])]
    pub format: Option<Template>,
    /// Print key and value with SEP between them, as `hw produce --key-sep` takes them
    #[arg(long, short = 'k', value_name = "SEP", value_parser = parse_separator)]
    #[arg(conflicts_with = "output")]
    pub key_sep: Option<Separator>,
    /// Say on the standard error how much was read
    #[arg(long)]
    pub stats: bool,
}

/// What stands between a key and a value; at least one byte, and no newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Separator(pub Vec<u8>);

/// A header as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderArg {
    /// Its name.
    pub name: Bytes,
    /// Its value, if it has one.
    pub value: Option<Bytes>,
}

/// The ack modes by the names that people type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Acks {
    /// The leader has appended it
    Async,
    /// A majority of the replicas counts it
    SemiSync,
    /// Every in-sync replica counts it
    Sync,
}

/// The codecs by the names that people type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// Not at all
    None,
    /// Tight, and slow to write: for readers that know nothing else
    Gzip,
    /// Fastest
    Snappy,
    /// Fast, and read by everybody
    Lz4,
    /// Tightest, at about the price of LZ4
    Zstd,
}

impl Codec {
    /// The codec itself.
    pub fn codec(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// How receipts are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReceiptFormat {
    /// One JSON value a line
    Jsonl,
}

/// How records are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// The value and a newline
    Value,
    /// One JSON value a line
    Jsonl,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// topic/partition@offset
    Name,
}

impl Acks {
    /// The mode on the wire.
    pub fn mode(self) -> AckMode {
        match self {
            Acks::Async => AckMode::Async,
            Acks::SemiSync => AckMode::SemiSync,
            Acks::Sync => AckMode::Sync,
        }
    }

    /// The name as typed.
    pub fn name(self) -> &'static str {
        match self {
            Acks::Async => "async",
            Acks::SemiSync => "semi-sync",
            Acks::Sync => "sync",
        }
    }
}

/// Takes the separator literally but for `\t`, `\0`, `\\` and `\xHH`.
pub fn parse_separator(text: &str) -> Result<Separator, String> {
    let bytes = super::format::unescape(text)?;
    if bytes.is_empty() {
        return Err("the separator must not be empty".to_owned());
    }
    if bytes.contains(&b'\n') {
        return Err("the separator cannot hold a newline: newlines end records".to_owned());
    }
    Ok(Separator(bytes))
}

fn parse_header(text: &str) -> Result<HeaderArg, String> {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(bytes(value))),
        None => (text, None),
    };
    if name.is_empty() {
        return Err("a header needs a name: NAME=VALUE".to_owned());
    }
    Ok(HeaderArg { name: bytes(name), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_split_at_the_first_equals_sign() {
        let check = |text, name: &'static str, value: Option<&'static str>| {
            let (name, value) = (Bytes::from(name), value.map(Bytes::from));
            assert_eq!(parse_header(text), Ok(HeaderArg { name, value }));
        };
        check("a=b", "a", Some("b"));
        check("a=b=c", "a", Some("b=c"));
        check("a=", "a", Some(""));
        check("a", "a", None);
        assert!(parse_header("=b").is_err());
    }

    #[test]
    fn a_separator_is_literal_but_for_escapes() {
        assert_eq!(parse_separator(":"), Ok(Separator(b":".to_vec())));
        assert_eq!(parse_separator("=>"), Ok(Separator(b"=>".to_vec())));
        assert_eq!(parse_separator("\\t"), Ok(Separator(b"\t".to_vec())));
        assert_eq!(parse_separator("\\x1f"), Ok(Separator(vec![0x1f])));
        for wrong in ["", "\\n", "a\nb", "\\q", "\\x1"] {
            assert!(parse_separator(wrong).is_err(), "{wrong:?}");
        }
    }
}
