//! The shape of a log: which term wrote which stretch of it, without its entries.
//!
//! Raft compares logs by `(term, index)` only, so a list of the terms and where each began answers
//! every question it has. Terms rise strictly along the list, and no stretch is empty.

use highwater_protocol::ids::{LogIndex, Position, Term};

/// Where a term's entries begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermStart {
    /// The term.
    pub term: Term,
    /// The end of the entry before its first.
    pub start: LogIndex,
}

/// The terms of a log from its base to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TermStarts {
    base: Position,
    starts: Vec<TermStart>,
    end: LogIndex,
}

impl TermStarts {
    /// The shape of a log whose oldest entry lies just behind `base`.
    pub fn new(base: Position, starts: Vec<TermStart>, end: LogIndex) -> TermStarts {
        let mut shape = TermStarts { base, starts: Vec::new(), end: base.index };
        // A trimmed log may begin in the middle of a term, which then has no start in it.
        let first = starts.first().map_or(end, |start| start.start);
        if first > base.index {
            shape.extend(base.term, first);
        }
        for (at, start) in starts.iter().enumerate() {
            let stretch_end = starts.get(at + 1).map_or(end, |next| next.start);
            if stretch_end > shape.end {
                shape.extend(start.term, stretch_end);
            }
        }
        assert_eq!(shape.end, end, "the terms do not reach the log's end");
        shape
    }

    /// Where the log begins: everything before was trimmed.
    pub fn base(&self) -> Position {
        self.base
    }

    /// Where the log ends, with the term of its last entry.
    pub fn last(&self) -> Position {
        let term = self.starts.last().map_or(self.base.term, |start| start.term);
        Position { term, index: self.end }
    }

    /// The term of the entry that ends at or around `end`; `None` outside the log.
    pub fn term_at(&self, end: LogIndex) -> Option<Term> {
        if end < self.base.index || end > self.end {
            return None;
        }
        let after = self.starts.partition_point(|start| start.start < end);
        Some(after.checked_sub(1).map_or(self.base.term, |at| self.starts[at].term))
    }

    /// The last position at or before `index` whose term is not above `term_max`.
    pub fn last_not_above(&self, index: LogIndex, term_max: Term) -> Position {
        let mut at = index.min(self.end);
        for start in self.starts.iter().rev() {
            if start.start < at && start.term > term_max {
                at = start.start;
            }
        }
        let at = at.max(self.base.index);
        Position { term: self.term_at(at).expect("clamped to the log"), index: at }
    }

    /// Entries of `term` were appended up to `end`.
    pub fn extend(&mut self, term: Term, end: LogIndex) {
        let last = self.last();
        assert!(term >= last.term, "term {term} cannot follow {last}");
        assert!(end > last.index, "an append ends at {end}, not behind {last}");
        if self.starts.is_empty() || term > last.term {
            self.starts.push(TermStart { term, start: last.index });
        }
        self.end = end;
    }

    /// Everything from `to` on is gone.
    pub fn truncate(&mut self, to: LogIndex) {
        assert!(self.base.index <= to && to <= self.end, "cannot cut at {to}");
        self.starts.retain(|start| start.start < to);
        self.end = to;
    }

    /// Everything before `base` is gone.
    pub fn trim(&mut self, base: LogIndex) {
        assert!(base <= self.end, "cannot trim beyond the end");
        if base <= self.base.index {
            return;
        }
        self.base = Position { term: self.term_at(base).expect("within the log"), index: base };
        let behind = self.starts.partition_point(|start| start.start <= base);
        self.starts.drain(..behind.saturating_sub(1));
        if let Some(first) = self.starts.first_mut() {
            first.start = first.start.max(base);
        }
        if base == self.end {
            self.starts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trimmed_log_may_begin_in_the_middle_of_a_term() {
        let base = Position { term: Term(3), index: LogIndex(50) };
        let shape = TermStarts::new(base, Vec::new(), LogIndex(95));
        assert_eq!(shape.last(), Position { term: Term(3), index: LogIndex(95) });
        let later = TermStart { term: Term(4), start: LogIndex(60) };
        let shape = TermStarts::new(base, vec![later], LogIndex(95));
        assert_eq!(shape.term_at(LogIndex(60)), Some(Term(3)));
        assert_eq!(shape.term_at(LogIndex(61)), Some(Term(4)));
    }

    /// Terms 1, 1, 1, 3, 3, 4 as in figure 7 of the Raft paper, behind a trimmed base of term 1.
    fn shape() -> TermStarts {
        let base = Position { term: Term(1), index: LogIndex(10) };
        let mut shape = TermStarts::new(base, Vec::new(), LogIndex(10));
        shape.extend(Term(1), LogIndex(13));
        shape.extend(Term(3), LogIndex(14));
        shape.extend(Term(3), LogIndex(15));
        shape.extend(Term(4), LogIndex(16));
        shape
    }

    #[test]
    fn every_boundary_has_the_term_of_the_entry_before_it() {
        let expected = [None, Some(1), Some(1), Some(1), Some(1), Some(3), Some(3), Some(4), None];
        for (at, term) in (9..=17).zip(expected) {
            assert_eq!(shape().term_at(LogIndex(at)), term.map(Term), "at {at}");
        }
        assert_eq!(shape().last(), Position { term: Term(4), index: LogIndex(16) });
    }

    #[test]
    fn a_hint_skips_whole_terms_above_the_one_asked_for() {
        let check = |index, term, expected: (u32, u64)| {
            let got = shape().last_not_above(LogIndex(index), Term(term));
            assert_eq!((got.term.0, got.index.0), expected, "at {index} below {term}");
        };
        check(16, 4, (4, 16));
        check(16, 3, (3, 15));
        check(16, 2, (1, 13));
        check(14, 9, (3, 14));
        check(99, 9, (4, 16));
        check(3, 9, (1, 10));
        check(16, 0, (1, 10));
    }

    #[test]
    fn truncation_forgets_the_terms_behind_the_cut() {
        let mut cut = shape();
        cut.truncate(LogIndex(13));
        assert_eq!(cut.last(), Position { term: Term(1), index: LogIndex(13) });
        cut.extend(Term(5), LogIndex(14));
        assert_eq!(cut.term_at(LogIndex(14)), Some(Term(5)));
        cut.truncate(LogIndex(10));
        assert_eq!(cut.last(), Position { term: Term(1), index: LogIndex(10) });
    }

    #[test]
    fn trimming_keeps_what_is_asked_about_the_rest() {
        for base in 10..=16 {
            let mut trimmed = shape();
            trimmed.trim(LogIndex(base));
            for at in base..=16 {
                let at = LogIndex(at);
                assert_eq!(trimmed.term_at(at), shape().term_at(at), "{at} behind {base}");
            }
            assert_eq!(trimmed.last(), shape().last());
            let again = TermStarts::new(trimmed.base(), trimmed.starts.clone(), LogIndex(16));
            assert_eq!(again, trimmed);
        }
    }
}
