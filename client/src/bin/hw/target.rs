//! What a verb is about: a topic, or one partition of it.

use crate::cli::PartitionName;

/// A topic or one of its partitions, as in `orders` and `orders/3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub topic: String,
    /// All of them where there is none.
    pub partition: Option<u32>,
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
