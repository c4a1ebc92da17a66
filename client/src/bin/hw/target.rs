//! What a verb is about: a topic, one partition of it, or all topics that fit a pattern.

use crate::cli::PartitionName;

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
