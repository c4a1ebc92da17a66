//! The rules for names of topics: Kafka's, so that topics can be carried over, and names of the
//! cluster's own.
//!
//! Brokers refuse by these rules, and clients and tools may check before they ask.

/// How many bytes a topic's name may have, as in Kafka.
pub const NAME_BYTES_MAX: usize = 249;

/// Topics of the cluster's own begin so; nobody else may give such a name.
pub const INTERNAL_PREFIX: &str = "__";

/// Checks a name that somebody wants to give; the error says what is wrong with it.
pub fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a topic needs a name".to_string());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "a topic's name of {} bytes is too long: {NAME_BYTES_MAX} are allowed",
            name.len()
        ));
    }
    let allowed = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
    if let Some(found) = name.chars().find(|letter| !allowed(letter)) {
        return Err(format!(
            "`{}` cannot name a topic because of `{}`: ASCII letters, digits, `.`, `_` and `-` are allowed",
            name.escape_debug(),
            found.escape_debug()
        ));
    }
    if matches!(name, "." | "..") {
        return Err(format!("`{name}` cannot name a topic: it means a directory"));
    }
    if name.starts_with(INTERNAL_PREFIX) {
        return Err(format!(
            "`{name}` cannot name a topic: names that begin with `{INTERNAL_PREFIX}` are the cluster's own"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["a", "Orders.2024_v1-x", "_a", "...", &"x".repeat(249)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\0", "__cluster", &"x".repeat(250)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_letter_that_is_not_allowed_is_named() {
        let why = check("café/1").expect_err("two letters are not allowed");
        assert!(why.contains("because of `é`"), "{why}");
        let why = check("a\n").expect_err("a line feed is not allowed");
        assert!(why.contains(r"because of `\n`"), "{why}");
    }
}
