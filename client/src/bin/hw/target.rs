//! What a verb is about: a topic, one partition of it, all topics that fit a pattern, or a broker.

/// A partition as people write it: `topic/3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionName {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
}

impl std::str::FromStr for PartitionName {
    type Err = String;

    fn from_str(text: &str) -> Result<PartitionName, String> {
        let shape = || format!("`{text}` is not TOPIC/NUMBER, such as orders/3");
        let (topic, partition) = text.rsplit_once('/').ok_or_else(shape)?;
        let partition = partition.parse().map_err(|_| shape())?;
        if topic.is_empty() {
            return Err(shape());
        }
        Ok(PartitionName { topic: topic.to_owned(), partition })
    }
}

impl std::fmt::Display for PartitionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A topic or one of its partitions, as in `orders` and `orders/3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub topic: String,
    /// All of them where there is none.
    pub partition: Option<u32>,
}

impl Target {
    /// Whether the topic is a pattern and not a name: `*` stands for any characters, `?` for one.
    pub fn is_pattern(&self) -> bool {
        self.topic.contains(['*', '?'])
    }

    /// Whether the topic is meant.
    pub fn matches(&self, topic: &str) -> bool {
        glob(self.topic.as_bytes(), topic.as_bytes())
    }
}

/// A broker's id, as in `--broker 2`.
pub fn parse_broker(text: &str) -> Result<u32, String> {
    let id = text.parse().ok().filter(|id| (1..=i32::MAX as u32).contains(id));
    id.ok_or_else(|| {
        format!("`{text}` is no broker's id: ids are numbers, and `hw cluster brokers` shows them")
    })
}

/// Goes back to the last `*` only: the time is at most the product of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            Some(_) | None => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if text.contains('/') {
            let PartitionName { topic, partition } = text.parse()?;
            return Ok(Target { topic, partition: Some(partition) });
        }
        Ok(Target { topic: text.to_owned(), partition: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_named_by_its_number_and_an_error_says_where_to_find_it() {
        assert_eq!(parse_broker("4"), Ok(4));
        for wrong in ["", "0", "-1", "n1", "4294967295"] {
            let why = parse_broker(wrong).expect_err("no id");
            assert!(why.contains(wrong) && why.contains("hw cluster brokers"), "{why}");
        }
    }

    #[test]
    fn a_partition_is_written_as_topic_slash_number() {
        let name: PartitionName = "a/b/3".parse().expect("a topic's name ends at the last slash");
        assert_eq!(name, PartitionName { topic: "a/b".to_owned(), partition: 3 });
        for wrong in ["orders", "orders/", "/3", "orders/-1", "orders/x"] {
            assert!(wrong.parse::<PartitionName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        let matches = |pattern: &str, topic| {
            let target: Target = pattern.parse().expect("a target");
            target.matches(topic)
        };
        for (pattern, topic) in [
            ("orders", "orders"),
            ("orders-*", "orders-eu"),
            ("orders-*", "orders-"),
            ("*-eu", "orders-eu"),
            ("o*-*u/3", "orders-a-eu"),
            ("order?", "orders"),
            ("*", "x"),
        ] {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in
            [("orders", "orders2"), ("orders-*", "orders"), ("order?", "order"), ("*-eu", "a-us")]
        {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }
}
