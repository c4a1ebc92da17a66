//! The keys of the configuration file, what each may be, and what holds between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use highwater_protocol::ids::NodeId;
use toml::{Table, Value};

use super::reader::{ConfigError, Section};
use super::{Cluster, Config, Defaults, Limits, LogFormat, LogOutput, Node, Peer, TlsFiles};

/// Checks the text of a configuration file.
pub(super) fn parse(text: &str, file: &Path) -> Result<Config, ConfigError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let place = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
        let reason = format!("line {place} is not TOML: {}", error.message());
        ConfigError::whole(file, &reason, "correct it; the rest was not checked yet")
    })?;
    let base = file.parent().unwrap_or(Path::new("")).to_owned();
    let mut written = BTreeMap::new();
    as_written("", &table, &mut written);
    let mut root = Section::root(table);
    let draft = Draft {
        node: node(&mut root),
        listen: root.required("listen", ADDRESS, socket_address),
        advertise: root.optional("advertise", HOST_PORT, host_port),
        data: data(&mut root, &base),
        cluster: cluster(&mut root),
        peers: peers(&mut root),
        tls: tls(&mut root, &base),
        http_listen: http(&mut root),
        limits: limits(&mut root),
        defaults: defaults(&mut root),
        log: log(&mut root),
    };
    let config = draft.join(&mut root, written);
    let problems = root.finish_root();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigError { file: file.to_owned(), problems }),
    }
}

/// Every value by its key, the tables of a list one behind the other.
fn as_written(prefix: &str, table: &Table, out: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => as_written(&key, inner, out),
            Value::Array(list) if list.iter().any(Value::is_table) => {
                list.iter().filter_map(Value::as_table).for_each(|one| as_written(&key, one, out));
            }
            plain => {
                let text = plain.as_str().map_or_else(|| plain.to_string(), str::to_owned);
                let known = out.entry(key).or_default();
                if !known.is_empty() {
                    known.push_str(", ");
                }
                known.push_str(&text);
            }
        }
    }
}

/// Whether this is in the language of filters for the broker's own log.
pub fn is_log_filter(text: &str) -> bool {
    tracing_subscriber::EnvFilter::try_new(text).is_ok()
}

/// What could be read of each part.
struct Draft {
    node: Option<Node>,
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    data: Option<(PathBuf, u64, u64)>,
    cluster: Option<Cluster>,
    peers: Option<Vec<Peer>>,
    tls: Option<TlsFiles>,
    http_listen: Option<SocketAddr>,
    limits: Limits,
    defaults: Defaults,
    log: LogOutput,
}

impl Draft {
    /// The whole, if all parts are there; checks what holds between parts.
    fn join(self, root: &mut Section, written: BTreeMap<String, String>) -> Option<Config> {
        if let (Some(listen), None) = (self.listen, &self.advertise)
            && listen.ip().is_unspecified()
        {
            let reason = format!("missing, and nobody can connect to {}", listen.ip());
            root.wrong("advertise", None, &reason, "set it to the address that others reach");
        }
        if let (Some(node), Some(cluster), Some(peers)) = (&self.node, &self.cluster, &self.peers) {
            check_controllers(root, node, cluster, peers);
        }
        let listen = self.listen?;
        let (data_dir, disk_reserve_bytes, scrub_bytes_per_s) = self.data?;
        Some(Config {
            node: self.node?,
            listen,
            advertise: self.advertise.unwrap_or_else(|| listen.to_string()),
            data_dir,
            disk_reserve_bytes,
            scrub_bytes_per_s,
            cluster: self.cluster?,
            peers: self.peers?,
            tls: self.tls?,
            http_listen: self.http_listen,
            limits: self.limits,
            defaults: self.defaults,
            log: self.log,
            written,
        })
    }
}

fn check_controllers(root: &mut Section, node: &Node, cluster: &Cluster, peers: &[Peer]) {
    let known: BTreeSet<NodeId> = peers.iter().map(|peer| peer.id).chain([node.id]).collect();
    for controller in cluster.controllers.iter().filter(|id| !known.contains(id)) {
        let reason = format!("names node {controller}, which is neither this node nor a peer");
        root.wrong("cluster.controllers", None, &reason, "add a [[peers]] entry for it");
    }
}

fn node(root: &mut Section) -> Option<Node> {
    let mut section = root.section("node");
    let id = section.required("id", NODE_ID, node_id);
    let rack = section.optional("rack", "a name", text);
    section.finish(root);
    Some(Node { id: id?, rack })
}

/// The data directory, the bytes to keep free on its disk, and those to read and check in a second.
fn data(root: &mut Section, base: &Path) -> Option<(PathBuf, u64, u64)> {
    let mut section = root.section("data");
    let dir = section.required("dir", "the path of a directory", |value| path(value, base));
    let reserve_mib = section
        .optional("reserve_mib", "a number from 8 to 1048576", |value| number(value, 8, 1 << 20));
    let scrub_mib = section
        .optional("scrub_mib_per_s", "a number from 0 to 1024", |value| number(value, 0, 1_024));
    section.finish(root);
    let scrub_mib = scrub_mib.unwrap_or(SCRUB_MIB_PER_S);
    Some((dir?, reserve_mib.unwrap_or(RESERVE_MIB) << 20, scrub_mib << 20))
}

fn cluster(root: &mut Section) -> Option<Cluster> {
    let mut section = root.section("cluster");
    let id = section.required("id", "the cluster's id, as `highwater init` printed it", |value| {
        text(value).filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    });
    let wants = "a list of 1, 3 or 5 node ids, such as [1, 2, 3]";
    let controllers = section.required("controllers", wants, |value| {
        let ids: Vec<NodeId> = value.as_array()?.iter().map(node_id).collect::<Option<Vec<_>>>()?;
        let distinct: BTreeSet<NodeId> = ids.iter().copied().collect();
        (distinct.len() == ids.len() && [1, 3, 5].contains(&ids.len())).then_some(ids)
    });
    section.finish(root);
    Some(Cluster { id: id?, controllers: controllers? })
}

fn peers(root: &mut Section) -> Option<Vec<Peer>> {
    let mut peers = Vec::new();
    let mut whole = true;
    let mut seen = BTreeSet::new();
    for mut section in root.sections("peers") {
        let id = section.required("id", NODE_ID, node_id);
        let address = section.required("address", HOST_PORT, host_port);
        if let Some(id) = id
            && !seen.insert(id)
        {
            let reason = format!("node {id} appears twice");
            section.wrong("id", None, &reason, "give each broker one [[peers]] entry");
        }
        section.finish(root);
        match (id, address) {
            (Some(id), Some(address)) => peers.push(Peer { id, address }),
            (Some(_) | None, _) => whole = false,
        }
    }
    whole.then_some(peers)
}

fn tls(root: &mut Section, base: &Path) -> Option<TlsFiles> {
    let mut section = root.section("tls");
    let wants = "the path of a PEM file that exists";
    let file = |value: &Value| path(value, base).filter(|path| path.is_file());
    let ca = section.required("ca", wants, file);
    let cert = section.required("cert", wants, file);
    let key = section.required("key", wants, file);
    section.finish(root);
    Some(TlsFiles { ca: ca?, cert: cert?, key: key? })
}

fn http(root: &mut Section) -> Option<SocketAddr> {
    let mut section = root.section("http");
    let listen = section.optional("listen", ADDRESS, socket_address);
    section.finish(root);
    listen
}

fn limits(root: &mut Section) -> Limits {
    let mut section = root.section("limits");
    let shards = section.optional("shards", "a number from 1 to 64", |value| number(value, 1, 64));
    let connections = section
        .optional("connections", "a number from 1 to 1000000", |value| number(value, 1, 1_000_000));
    let in_flight = section.optional("requests_in_flight", "a number from 1 to 65536", |value| {
        number(value, 1, 65_536)
    });
    let crashes = section
        .optional("crashes_an_hour", "a number from 0 to 100", |value| number(value, 0, 100));
    section.finish(root);
    Limits {
        shards: shards.map_or_else(shards_default, |shards| shards as usize),
        connections_max: connections.map_or(10_000, |n| n as usize),
        requests_in_flight_max: in_flight.map_or(1024, |n| n as usize),
        crashes_an_hour_max: crashes.map_or(5, |n| n as usize),
    }
}

fn defaults(root: &mut Section) -> Defaults {
    let mut section = root.section("defaults");
    let heartbeat_ms = section
        .optional("heartbeat_ms", "a number from 10 to 5000", |value| number(value, 10, 5_000));
    section.moved(
        "replication",
        "this is a setting of the cluster now, `default.replication.factor`",
        "remove it here, and set it once for all brokers: `hw cluster config set default.replication.factor=N`",
    );
    section.finish(root);
    Defaults { heartbeat_ms: heartbeat_ms.unwrap_or(100) }
}

fn log(root: &mut Section) -> LogOutput {
    let mut section = root.section("log");
    let format = section.optional("format", "`text` or `json`", |value| match value.as_str()? {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    let filter = section.optional("filter", "a filter such as \"info,highwater=debug\"", |value| {
        text(value).filter(|filter| is_log_filter(filter))
    });
    section.finish(root);
    LogOutput {
        format: format.unwrap_or(LogFormat::Text),
        filter: filter.unwrap_or_else(|| "info".to_owned()),
    }
}

fn node_id(value: &Value) -> Option<NodeId> {
    number(value, 1, u64::from(u32::MAX >> 1)).map(|id| NodeId(id as u32))
}

fn number(value: &Value, min: u64, max: u64) -> Option<u64> {
    let number = u64::try_from(value.as_integer()?).ok()?;
    (min..=max).contains(&number).then_some(number)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn path(value: &Value, base: &Path) -> Option<PathBuf> {
    text(value).map(|path| base.join(path))
}

fn socket_address(value: &Value) -> Option<SocketAddr> {
    value.as_str()?.parse().ok()
}

fn host_port(value: &Value) -> Option<String> {
    let address = text(value)?;
    let (host, port) = address.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(address)
}

/// One shard per core up to four; on two cores one, so that the network has the other.
fn shards_default() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= 2 { 1 } else { cores.min(4) }
}

/// At 500 MB/s half a second's worth, which is longer than the broker takes to look again.
const RESERVE_MIB: u64 = 256;
/// A terabyte in three days, at a fraction of what any disk gives.
const SCRUB_MIB_PER_S: u64 = 4;
const ADDRESS: &str = "an IP address and a port, such as \"0.0.0.0:9400\"";
const HOST_PORT: &str = "a host and a port, such as \"broker-1.example:9400\"";
const NODE_ID: &str = "a number from 1 to 2147483647";

#[cfg(test)]
mod tests {
    use highwater_protocol::settings::broker::KEYS;
    use highwater_protocol::settings::{ConfigKey, Takes};

    use super::*;

    const GOOD: &str = r#"
        listen = "127.0.0.1:9400"
        [node]
        id = 1
        [data]
        dir = "data"
        [cluster]
        id = "c0ffee"
        controllers = [1]
        [tls]
        ca = "Cargo.toml"
        cert = "Cargo.toml"
        key = "Cargo.toml"
    "#;

    fn check(text: &str) -> Result<Config, ConfigError> {
        // Any directory with files in it will do; tests run where the package lies.
        parse(text, Path::new("./config.toml"))
    }

    #[test]
    fn a_short_file_gets_sensible_defaults() {
        let config = check(GOOD).expect("nothing is wrong with it");
        assert_eq!(config.advertise, "127.0.0.1:9400");
        assert_eq!(config.data_dir, Path::new("./data"));
        assert_eq!(config.written["cluster.controllers"], "[1]");
        assert!(config.http_listen.is_none());
    }

    #[test]
    fn five_mistakes_are_reported_at_once_with_a_way_out_each() {
        let text = GOOD
            .replace("id = 1\n", "id = \"one\"\n")
            .replace("listen = \"127.0.0.1:9400\"", "listn = \"127.0.0.1:9400\"")
            .replace("controllers = [1]", "controllers = [1, 2]")
            .replace("dir = \"data\"", "dir = 7")
            .replace("key = \"Cargo.toml\"", "key = \"nowhere.key\"");
        let error = check(&text).expect_err("five mistakes");
        let keys: Vec<&str> = error.problems.iter().map(|p| p.key.as_str()).collect();
        for key in ["node.id", "listen", "listn", "cluster.controllers", "data.dir", "tls.key"] {
            assert!(keys.contains(&key), "{key} is not in {keys:?}");
        }
        let shown = error.to_string();
        assert!(shown.contains("did you mean listen?"), "{shown}");
        assert!(shown.contains("node.id = \"one\": not a number"), "{shown}");
    }

    #[test]
    fn a_key_that_moved_is_refused_with_its_new_place() {
        let error = check(&with("defaults.replication", "3")).expect_err("it moved");
        let shown = error.to_string();
        assert_eq!(error.problems.len(), 1, "{shown}");
        assert!(shown.contains("hw cluster config set default.replication.factor=N"), "{shown}");
    }

    #[test]
    fn a_controller_that_nobody_knows_is_refused() {
        let error = check(&GOOD.replace("[1]", "[1, 2, 3]")).expect_err("2 and 3 are unknown");
        assert_eq!(error.problems.len(), 2);
        assert!(error.to_string().contains("node 2"), "{error}");
    }

    #[test]
    fn a_wildcard_address_is_not_advertised() {
        let error = check(&GOOD.replace("127.0.0.1", "0.0.0.0")).expect_err("not reachable");
        assert_eq!(error.problems[0].key, "advertise");
    }

    /// A file whose every section has one value, and that of `key` in its place.
    fn with(key: &str, value: &str) -> String {
        let mut table: Table = GOOD.parse().expect("TOML");
        let peer: Table = "id = 2\naddress = \"b:1\"".parse().expect("TOML");
        table.insert("peers".to_owned(), Value::Array(vec![Value::Table(peer)]));
        let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
        let value: Table = format!("v = {value}").parse().expect("TOML");
        let place = match section {
            "" => &mut table,
            "peers" => table["peers"][0].as_table_mut().expect("made above"),
            other => {
                let place = table.entry(other).or_insert_with(|| Value::Table(Table::new()));
                place.as_table_mut().expect("sections are tables")
            }
        };
        place.insert(name.to_owned(), value["v"].clone());
        table.to_string()
    }

    #[test]
    fn the_table_for_readers_has_every_key_and_what_it_takes() {
        for key in KEYS {
            // No key takes a time, so the refusal says what this one takes.
            let error = check(&with(key.name, "07:32:00")).expect_err("no key takes a time");
            let shown = error.to_string();
            assert!(shown.contains(&format!("set it to {}", key.takes)), "{}: {shown}", key.name);
        }
        for section in ["", "node", "data", "cluster", "peers", "tls", "http", "limits", "log"] {
            let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
            let error = check(&with(&format!("{prefix}zzzzzzzzzzzz"), "1")).expect_err("unknown");
            let shown = error.to_string();
            let (_, known) = shown.split_once("known here: ").expect("names what is known");
            let known = known.lines().next().expect("a line").split(", ");
            let is_section = |name: &str| KEYS.iter().any(|key| key.name.starts_with(name));
            for name in known {
                let full = format!("{prefix}{name}");
                let listed = KEYS.iter().any(|key| key.name == full);
                assert!(listed || is_section(&format!("{full}.")), "{full} is not explained");
            }
        }
    }

    #[test]
    fn a_key_at_the_default_of_the_table_changes_nothing() {
        let plain = check(&with("node.id", "1")).expect("a good file");
        let in_words = |key: &&ConfigKey| key.default.is_empty() || key.default.contains(' ');
        for key in KEYS.iter().filter(|key| !in_words(key)) {
            let quoted = match key.takes {
                Takes::Number { .. } => key.default.to_owned(),
                Takes::Limit { .. } | Takes::WordOrNumber { .. } => unreachable!("not in a file"),
                Takes::Words(_) | Takes::Text(_) => format!("\"{}\"", key.default),
            };
            let mut said = check(&with(key.name, &quoted)).expect("it takes its default");
            assert_eq!(said.written.get(key.name).map(String::as_str), Some(key.default));
            said.written.clone_from(&plain.written);
            assert_eq!(said, plain, "{}", key.name);
        }
    }

    #[test]
    fn broken_toml_names_the_line() {
        let error = check("[node]\nid = = 1").expect_err("not TOML");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
