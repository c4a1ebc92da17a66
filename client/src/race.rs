//! Attempts that overlap: the next begins as soon as the last has failed or takes long, and the first
//! to succeed ends the rest. So one dead address costs a fraction of a second, not a time-out.
//!
//! This is what RFC 8305 ("happy eyeballs") does for connections; we do it for questions as well.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::error::{Error, ErrorKind};

/// Makes the attempts in their order, the next one `apart` after the last or when the last failed.
/// `None` where there was nothing to attempt; otherwise the first success, or what failed: whom we
/// don't trust matters more than what a broker said, that more than who cannot be reached, and the first
/// failure more than later ones.
///
/// Cancel safe as far as the attempts are.
pub(crate) async fn staggered<T, F>(
    attempts: impl IntoIterator<Item = F>,
    apart: Duration,
) -> Option<Result<T, Error>>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let mut failure: Option<Error> = None;
    loop {
        match waiting.next() {
            Some(attempt) => running.push(attempt),
            None if running.is_empty() => return failure.map(Err),
            None => {}
        }
        let more = waiting.peek().is_some();
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(found) => return Some(Ok(found)),
                Err(error) => match &failure {
                    Some(first) if tells(error.kind()) <= tells(first.kind()) => {}
                    Some(_) | None => failure = Some(error),
                },
            },
            () = tokio::time::sleep(apart), if more => {}
        }
    }
}

/// How much a failure tells: that somebody is not who it should be, what a broker said, or nothing.
fn tells(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Identity => 2,
        ErrorKind::Refused(_) => 1,
        ErrorKind::Config
        | ErrorKind::Unreachable
        | ErrorKind::ConnectionLost
        | ErrorKind::TimedOut
        | ErrorKind::UnknownTopic
        | ErrorKind::RecordTooLarge
        | ErrorKind::BufferFull
        | ErrorKind::Closed
        | ErrorKind::Malformed
        | ErrorKind::InvalidCall => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::error::ErrorCode;

    /// How an attempt goes.
    #[derive(Clone, Copy)]
    enum Goes {
        Well(u32),
        Wrong(ErrorKind),
        OnForEver,
    }
    use Goes::{OnForEver, Well, Wrong};

    async fn check(attempts: &[Goes], expected: Option<Result<u32, ErrorKind>>) {
        let attempts = attempts.iter().map(|goes| async move {
            match *goes {
                Well(number) => Ok(number),
                Wrong(kind) => Err(Error::new(kind, "as the test wants")),
                OnForEver => std::future::pending().await,
            }
        });
        let result = staggered(attempts, Duration::from_millis(2)).await;
        assert_eq!(result.map(|it| it.map_err(|error| error.kind())), expected);
    }

    #[tokio::test]
    async fn silence_and_failures_before_a_success_do_not_matter() {
        check(&[Well(1), Well(2)], Some(Ok(1))).await;
        check(&[OnForEver, OnForEver, Well(3), Well(4)], Some(Ok(3))).await;
        let dead = Wrong(ErrorKind::Unreachable);
        check(&[dead, OnForEver, dead, Well(4)], Some(Ok(4))).await;
        check(&[dead, Wrong(ErrorKind::Identity), Well(3)], Some(Ok(3))).await;
    }

    #[tokio::test]
    async fn when_all_fail_distrust_is_reported_before_silence() {
        let (dead, late) = (Wrong(ErrorKind::Unreachable), Wrong(ErrorKind::TimedOut));
        check(&[], None).await;
        check(&[late, dead], Some(Err(ErrorKind::TimedOut))).await;
        let said = ErrorKind::Refused(ErrorCode::BrokerNotAvailable);
        check(&[dead, Wrong(said), late], Some(Err(said))).await;
        let strange = ErrorKind::Identity;
        check(&[Wrong(said), Wrong(strange), late], Some(Err(strange))).await;
    }
}
