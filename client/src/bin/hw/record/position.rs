//! Where to start and where to stop reading, as people type it.
//!
//! `start end N +N -N @TIME`, and `A:B` for a range; the words are those of `rpk`, so that nobody
//! has to learn others. What needs the cluster (where the end is) is resolved elsewhere.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

/// A place in every partition that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The oldest record.
    Start,
    /// The end of what can be read.
    End,
    /// This offset.
    Offset(u64),
    /// So many records after the start.
    AfterStart(u64),
    /// So many records before the end.
    BeforeEnd(u64),
    /// The first record of this time, in milliseconds since the epoch, or later.
    Time(i64),
}

/// From where up to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first record wanted.
    pub from: Position,
    /// The first record not wanted any more; `None` to go on for ever.
    pub until: Option<Position>,
}

/// The parts of a partition that exist at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest offset.
    pub start: u64,
    /// The end.
    pub end: u64,
}

impl Position {
    /// The offset meant, where no question by time is needed.
    pub fn resolve(self, bounds: Bounds) -> Option<u64> {
        match self {
            Position::Start => Some(bounds.start),
            Position::End => Some(bounds.end),
            Position::Offset(offset) => Some(offset),
            Position::AfterStart(count) => Some(bounds.start.saturating_add(count)),
            Position::BeforeEnd(count) => Some(bounds.end.saturating_sub(count).max(bounds.start)),
            Position::Time(_) => None,
        }
    }

    /// Reads one place, with times taken relative to `now`.
    pub fn parse(text: &str, now: Timestamp) -> Result<Position, String> {
        let number = |digits: &str| {
            digits
                .parse::<u64>()
                .map_err(|_| format!("`{text}` is not a position: start, end, N, +N, -N or @TIME"))
        };
        match text.as_bytes().first() {
            Some(b'@') => parse_time(&text[1..], now).map(Position::Time),
            Some(b'+') => number(&text[1..]).map(Position::AfterStart),
            Some(b'-') => number(&text[1..]).map(Position::BeforeEnd),
            Some(_) | None => match text {
                "start" | "earliest" | "beginning" => Ok(Position::Start),
                "end" | "latest" => Ok(Position::End),
                digits => number(digits).map(Position::Offset),
            },
        }
    }
}

impl Range {
    /// Reads `FROM`, `FROM:UNTIL`, `:UNTIL` and `FROM:`, with times taken relative to `now`.
    pub fn parse(text: &str, now: Timestamp) -> Result<Range, String> {
        // Times hold colons themselves, so whatever split makes sense on both sides is taken.
        if let Ok(from) = Position::parse(text, now) {
            return Ok(Range { from, until: None });
        }
        for (colon, _) in text.match_indices(':') {
            let (left, right) = (&text[..colon], &text[colon + 1..]);
            let from =
                if left.is_empty() { Ok(Position::Start) } else { Position::parse(left, now) };
            let until = match right {
                "" => Ok(None),
                right => Position::parse(right, now).map(Some),
            };
            if let (Ok(from), Ok(until)) = (from, until) {
                return Ok(Range { from, until });
            }
        }
        Err(Position::parse(text, now).err().unwrap_or_default())
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        Range::parse(text, Timestamp::now())
    }
}

/// A time as milliseconds since the epoch: RFC 3339, a date (at its start, UTC), a number of
/// milliseconds, or `-1h30m` or `-7d` for that long before `now`.
fn parse_time(text: &str, now: Timestamp) -> Result<i64, String> {
    if text == "now" {
        return Ok(now.as_millisecond());
    }
    if let Ok(milliseconds) = text.parse::<i64>()
        && milliseconds >= 0
    {
        return Ok(milliseconds);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_millisecond());
    }
    if let Ok(date) = text.parse::<civil::Date>()
        && let Ok(midnight) = date.to_zoned(TimeZone::UTC)
    {
        return Ok(midnight.timestamp().as_millisecond());
    }
    if let Ok(distance) = text.parse::<SignedDuration>()
        && let Ok(time) = now.checked_add(distance)
    {
        return Ok(time.as_millisecond());
    }
    if let Some(ago) = text.strip_prefix('-')
        && let Ok(ago) = crate::human::parse_duration(ago)
        && let Ok(time) = now.checked_sub(ago)
    {
        return Ok(time.as_millisecond());
    }
    Err(format!(
        "`@{text}` is not a time: @2026-11-21T14:00:00Z, @2026-11-21, @MILLISECONDS, @-1h30m or @-7d"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn range(text: &str) -> Result<Range, String> {
        Range::parse(text, Timestamp::from_millisecond(NOW_MS).expect("within jiff's range"))
    }

    fn check(text: &str, from: Position, until: Option<Position>) {
        assert_eq!(range(text), Ok(Range { from, until }), "{text}");
    }

    #[test]
    fn single_positions_are_understood() {
        check("start", Position::Start, None);
        check("end", Position::End, None);
        check("42", Position::Offset(42), None);
        check("+7", Position::AfterStart(7), None);
        check("-7", Position::BeforeEnd(7), None);
    }

    #[test]
    fn times_are_absolute_or_relative_to_now() {
        check("@1732197600000", Position::Time(1_732_197_600_000), None);
        check("@2024-11-21T14:00:00Z", Position::Time(1_732_197_600_000), None);
        check("@2024-11-21T15:00:00+01:00", Position::Time(1_732_197_600_000), None);
        check("@2024-11-21", Position::Time(1_732_147_200_000), None);
        check("@-1h", Position::Time(NOW_MS - 3_600_000), None);
        check("@-1h30m", Position::Time(NOW_MS - 5_400_000), None);
        check("@-7d", Position::Time(NOW_MS - 7 * 86_400_000), None);
        check("@now", Position::Time(NOW_MS), None);
    }

    #[test]
    fn ranges_are_split_where_both_sides_make_sense() {
        check("100:200", Position::Offset(100), Some(Position::Offset(200)));
        check(":end", Position::Start, Some(Position::End));
        check("5:", Position::Offset(5), None);
        check("@-1h:end", Position::Time(NOW_MS - 3_600_000), Some(Position::End));
        check(
            "@2024-11-21T14:00:00Z:@2024-11-21T15:00:00Z",
            Position::Time(1_732_197_600_000),
            Some(Position::Time(1_732_201_200_000)),
        );
    }

    #[test]
    fn nonsense_is_refused_with_what_would_be_right() {
        for wrong in ["", "begin", "@", "@yesterday", "1.5", "--1", "a:b", "@-"] {
            let error = range(wrong).expect_err(wrong);
            assert!(error.contains("is not a "), "{wrong}: {error}");
        }
    }

    #[test]
    fn positions_are_resolved_within_what_exists() {
        let bounds = Bounds { start: 100, end: 110 };
        let check = |position: Position, expected| {
            assert_eq!(position.resolve(bounds), expected, "{position:?}");
        };
        check(Position::Start, Some(100));
        check(Position::End, Some(110));
        check(Position::Offset(3), Some(3));
        check(Position::AfterStart(4), Some(104));
        check(Position::BeforeEnd(4), Some(106));
        check(Position::BeforeEnd(400), Some(100));
        check(Position::Time(0), None);
    }
}
