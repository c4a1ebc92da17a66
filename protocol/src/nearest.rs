//! Did you mean: the known name that a slip of the pen most likely meant.

/// The known name that is nearest to `typed`, unless even that one is another idea and no slip.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = typed.to_ascii_lowercase();
    let distance = |name: &'a str| (edits(&lower, &name.to_ascii_lowercase()), name);
    let (edits, name) = known.into_iter().map(distance).min()?;
    (edits <= 1 + typed.len() / 3).then_some(name)
}

/// How many letters must be added, removed or replaced to get from one to the other (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().take(TYPED_CHARS_MAX).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// No more of an unknown name is compared: it came from outside.
const TYPED_CHARS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_another_idea_finds_none() {
        let known = ["flush", "retention.ms", "retention.bytes"];
        assert_eq!(nearest("retension.ms", known), Some("retention.ms"));
        assert_eq!(nearest("FLUSH", known), Some("flush"));
        assert_eq!(nearest("compaction", known), None);
        assert_eq!(nearest("anything", []), None);
    }
}
