//! Times, sizes and counts as people write and read them.

use std::time::Duration;

/// A duration such as `500ms`, `10s`, `1m30s`, `7d`, `1d12h`; never negative.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time such as 500ms, 10s, 2m, 7d");
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => (days.parse::<u32>().map_err(|_| wrong())?, rest),
        None => (0, text),
    };
    // A day is 24 hours here, whatever clocks do on it.
    let days = Duration::from_secs(u64::from(days) * 86_400);
    if rest.is_empty() && rest != text {
        return Ok(days);
    }
    let span: jiff::SignedDuration = rest.parse().map_err(|_| wrong())?;
    Ok(days + Duration::try_from(span).map_err(|_| wrong())?)
}

/// A number of bytes such as `50MiB`, `50MB`, `1.5GiB` or `4096`, with or without `/s`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as 50MiB, 200KiB, 1GiB");
    let size = text.strip_suffix("/s").unwrap_or(text);
    let digits = size.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(size.len());
    let (number, unit) = size.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "kb" => 1e3,
        "m" | "mib" => 1024.0 * 1024.0,
        "mb" => 1e6,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "gb" => 1e9,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Ok((number * factor) as u64)
}

/// So many seconds as `45s`, `3m20s`, `2h05m`.
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Milliseconds since the epoch as `2026-11-21T14:00:00Z`.
pub fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| at.to_string())
}

/// `1234567` bytes as `1.2 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `0 partitions`, `1 partition`, `2 partitions`.
pub fn counted(number: usize, thing: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {thing}{s}", count(number as u64))
}

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("1d12h"), Ok(Duration::from_secs(36 * 3_600)));
        for wrong in ["", "10", "-1s", "soon", "d", "-1d", "1dd", "5d3"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("4096", 4096), ("50MiB", 50 << 20), ("1.5k", 1536), ("2MB/s", 2_000_000)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "fast", "5 apples", "-1", "1.2.3"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_are_printed_for_people() {
        assert_eq!([7, 200, 7_500].map(seconds), ["7s", "3m20s", "2h05m"]);
    }

    #[test]
    fn sizes_and_counts_are_printed_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_234_567), "1.2 MiB");
        assert_eq!(
            [0, 1, 2000].map(|number| counted(number, "move")),
            ["0 moves", "1 move", "2,000 moves"]
        );
        assert_eq!(count(7), "7");
        assert_eq!(count(123), "123");
        assert_eq!(count(1_234_567), "1,234,567");
    }
}
