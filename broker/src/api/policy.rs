//! What a topic's settings say of a batch that a producer brings: its codec, and its timestamps.
//!
//! Everything goes by the batch's header, and nothing is unpacked. Only a topic whose records go by
//! the leader's clock has its batches changed: timestamp, attribute and checksum, on the edge and
//! before anybody else sees the batch, so the core appends them like any others.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::{Compression, FrameHeader, stamp_append_time};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::Timestamp;

use crate::controller::config::{ClockBounds, RecordClock, TopicConfig};

/// Refuses a checked batch that the topic does not take, or makes it what the log is to hold.
pub(super) fn admit(
    topic: &TopicConfig,
    title: &dyn Fn() -> String,
    header: &FrameHeader,
    batch: Bytes,
    now: Timestamp,
) -> Result<Bytes, WireError> {
    check_codec(topic, title, header)?;
    match topic.record_clock {
        RecordClock::Producer => {
            check_clock(topic.clock_bounds, title, header, now)?;
            Ok(batch)
        }
        RecordClock::Leader => {
            let mut batch = BytesMut::from(batch);
            stamp_append_time(&mut batch, now);
            Ok(batch.freeze())
        }
    }
}

/// The wall clock, of which only this edge and its bounds know.
pub(super) fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// A plain batch is taken everywhere: not every batch gets smaller.
fn check_codec(
    topic: &TopicConfig,
    title: &dyn Fn() -> String,
    header: &FrameHeader,
) -> Result<(), WireError> {
    let (Some(wanted), Some(sent)) = (topic.codec, header.compression()) else { return Ok(()) };
    if sent == wanted || sent == Compression::None {
        return Ok(());
    }
    let takes = match wanted {
        Compression::None => "no packed batches (`compression.type` is `uncompressed`)".into(),
        Compression::Gzip | Compression::Snappy | Compression::Lz4 | Compression::Zstd => {
            format!("batches packed with {wanted} or not at all (`compression.type`)")
        }
    };
    let why = format!(
        "{}: the batch is packed with {sent}, and the topic takes {takes}; nothing was written. Brokers \
         pack nothing anew: set the producer's codec, or the topic's `compression.type` to `producer`",
        title()
    );
    Err(WireError::new(ErrorCode::UnsupportedCompression, why))
}

fn check_clock(
    bounds: ClockBounds,
    title: &dyn Fn() -> String,
    header: &FrameHeader,
    now: Timestamp,
) -> Result<(), WireError> {
    let refuse = |what: String| {
        let why = format!("{}: {what}; nothing was written", title());
        Err(WireError::new(ErrorCode::InvalidTimestamp, why))
    };
    if header.is_log_append_time() {
        return refuse(
            "the batch says that a leader stamped it, which only a topic with \
             `message.timestamp.type=LogAppendTime` has its leaders do"
                .into(),
        );
    }
    for time in [header.base_timestamp, header.max_timestamp] {
        // As wide as any two timestamps are apart.
        let ahead = i128::from(time.0) - i128::from(now.0);
        let (bound, name, side) = match ahead > 0 {
            true => (bounds.after_ms_max, "message.timestamp.after.max.ms", "ahead of"),
            false => (bounds.before_ms_max, "message.timestamp.before.max.ms", "behind"),
        };
        if ahead.unsigned_abs() > u128::from(bound) {
            let apart = ahead.unsigned_abs();
            return refuse(format!(
                "a record's time is {time}, which is {apart} ms {side} this broker's clock ({now}), and \
                 `{name}` is {bound}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use highwater_protocol::batch::{BatchBuilder, BatchView, BuilderOptions};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn batch(times: &[i64], compression: Compression) -> Bytes {
        let options = BuilderOptions { compression, ..BuilderOptions::default() };
        let mut builder = BatchBuilder::new(options);
        for time in times {
            builder.push(Timestamp(*time), None, Some(&[7; 500]), &[]);
        }
        builder.finish()
    }

    fn admitted(settings: &[(&str, &str)], batch: &Bytes) -> Result<Bytes, WireError> {
        let settings: Vec<(String, String)> =
            settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let topic = TopicConfig::parse(&settings).expect("settings that there are");
        let header = *BatchView::parse(batch).expect("a batch").header();
        admit(&topic, &|| "orders-0".into(), &header, batch.clone(), NOW)
    }

    fn refused(settings: &[(&str, &str)], batch: &Bytes) -> (ErrorCode, String) {
        let error = admitted(settings, batch).expect_err("a rule");
        assert!(!error.code.retriable());
        (error.code, error.detail)
    }

    #[test]
    fn a_topic_takes_its_own_codec_and_plain_batches_and_no_other() {
        let wanted = ["uncompressed", "gzip", "snappy", "lz4", "zstd"];
        for (wanted, codec) in wanted.into_iter().zip(Compression::ALL) {
            for sent in Compression::ALL {
                let batch = batch(&[NOW.0], sent);
                let settings = [("compression.type", wanted)];
                if sent == codec || sent == Compression::None {
                    assert_eq!(admitted(&settings, &batch), Ok(batch));
                    continue;
                }
                let (code, why) = refused(&settings, &batch);
                assert_eq!(code, ErrorCode::UnsupportedCompression);
                assert!(why.contains("orders-0") && why.contains(sent.name()), "{why}");
                assert!(why.contains(wanted), "{why}");
            }
        }
        for sent in Compression::ALL {
            let batch = batch(&[NOW.0], sent);
            assert_eq!(admitted(&[], &batch), Ok(batch), "by default producers choose");
        }
    }

    #[test]
    fn a_clock_far_ahead_is_refused_by_default_and_one_behind_where_asked() {
        let hour = 3_600_000;
        for time in [0, NOW.0 - 400 * 24 * hour, NOW.0, NOW.0 + hour] {
            let batch = batch(&[time], Compression::Lz4);
            assert_eq!(admitted(&[], &batch), Ok(batch), "{time}");
        }
        let ahead = batch(&[NOW.0, NOW.0 + hour + 1], Compression::None);
        let (code, why) = refused(&[], &ahead);
        assert_eq!(code, ErrorCode::InvalidTimestamp);
        assert!(why.contains("1800003600001") && why.contains("after.max.ms` is 3600000"), "{why}");
        let bound = [("message.timestamp.before.max.ms", "1000")];
        let behind = batch(&[NOW.0 - 1001, NOW.0], Compression::None);
        let (code, why) = refused(&bound, &behind);
        assert_eq!(code, ErrorCode::InvalidTimestamp);
        assert!(why.contains("before.max.ms` is 1000"), "{why}");
        let behind = batch(&[NOW.0 - 1000], Compression::None);
        assert_eq!(admitted(&bound, &behind), Ok(behind));
        for time in [i64::MIN, i64::MAX] {
            refused(
                &[("message.timestamp.before.max.ms", "0")],
                &batch(&[time], Compression::None),
            );
        }
    }

    #[test]
    fn the_leaders_clock_overrules_every_record_and_the_checksum_holds() {
        let settings = [("message.timestamp.type", "LogAppendTime")];
        for codec in Compression::ALL {
            let sent = batch(&[-1, i64::MAX, 5], codec);
            let stored = admitted(&settings, &sent).expect("whatever their times");
            let view = BatchView::parse(&stored).expect("still a batch");
            view.verify_checksum().expect("made anew");
            assert_eq!(view.header().compression(), Some(codec));
            assert_eq!(view.header().producer(), None);
            let plain =
                view.unpacked(1 << 20).expect("still packed well").unwrap_or(stored.clone());
            let view = BatchView::parse(&plain).expect("a batch");
            for record in view.records().expect("unpacked") {
                assert_eq!(record.expect("sound").timestamp, NOW);
            }
            let (code, _) = refused(&[], &stored);
            assert_eq!(code, ErrorCode::InvalidTimestamp, "no client says what a leader says");
        }
    }
}
