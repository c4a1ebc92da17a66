//! A client's connection: frames in, calls of `api`, answers out in whatever order they are ready.
//!
//! Each stream has one task that reads, calls and writes. Produces are handed to `api` in the order
//! in which they were read, which is what keeps a partition's batches in order; answers may overtake
//! each other. When too many requests wait, on the stream or on the whole connection, nothing more is
//! read until some are answered: the far side feels it as back-pressure. Nor is a stream read on that has
//! just written, while its principal is beyond its quota. A frame that cannot be
//! understood but has a correlation id is answered with an error; a stream of garbage closes the
//! connection with a reason.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use highwater_protocol::native::frame::{ApiKey, FRAME_BYTES_MAX};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::{debug, warn};

use super::CloseCode;
use super::client_calls::{Answer, Answering, Calls};
use super::frames::{FrameError, FrameReader, Gather};
use super::tls::Identity;
use crate::api::Api;
use crate::config::Limits;
use crate::metrics::Metrics;

/// One client's connection.
pub(super) struct Session {
    calls: Calls,
    metrics: Arc<Metrics>,
    seats: Arc<Semaphore>,
}

/// A request under way: its answer when it comes, holding its place among those in flight.
struct Pending {
    answering: Answering,
    _seat: OwnedSemaphorePermit,
}

impl Future for Pending {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        self.answering.poll_unpin(context)
    }
}

/// Why a stream was given up.
#[derive(Debug, thiserror::Error)]
enum StreamFailed {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the answer could not be written: {0}")]
    Write(#[from] quinn::WriteError),
    #[error("a frame of {0} bytes is too short for a request")]
    NoHeader(usize),
}

impl Session {
    pub(super) fn new(
        api: Api,
        metrics: Arc<Metrics>,
        limits: Limits,
        caller: &Identity,
    ) -> Session {
        let set = api.limit_set("limits.requests_in_flight");
        let seats = Arc::new(Semaphore::new(set.unwrap_or(limits.requests_in_flight_max)));
        let calls = Calls::new(api, Arc::clone(&metrics), caller);
        Session { calls, metrics, seats }
    }

    /// Serves the connection until it is closed.
    pub(super) async fn run(self, connection: Connection) {
        let session = Arc::new(self);
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                accepted = connection.accept_bi() => {
                    let Ok((send, recv)) = accepted else { break };
                    let session = Arc::clone(&session);
                    let connection = connection.clone();
                    streams.spawn(async move {
                        if let Err(error) = session.serve(send, recv).await {
                            give_up(&connection, &error);
                        }
                    });
                }
                // Ended streams are collected as they end; there may be many in a long life.
                Some(_) = streams.join_next() => {}
            }
        }
        streams.shutdown().await;
    }

    async fn serve(&self, mut send: SendStream, recv: RecvStream) -> Result<(), StreamFailed> {
        let mut frames = FrameReader::new(recv, FRAME_BYTES_MAX);
        let mut pending: FuturesUnordered<Pending> = FuturesUnordered::new();
        let mut gather = Gather::default();
        let mut held = None;
        let mut more = true;
        let mut muted = Instant::now();
        while more || !pending.is_empty() {
            tokio::select! {
                biased;
                Some(answer) = pending.next() => {
                    self.write(answer, &mut pending, &mut gather, &mut send).await?;
                    // What was refused costs nothing.
                    muted = muted.min(Instant::now() + self.calls.owes());
                }
                // Whoever does not pause by itself is not read from until it has paid.
                () = sleep_until(muted.into()), if more && muted > Instant::now() => {}
                next = self.next_request(&mut frames, &mut held), if more && muted <= Instant::now() && pending.len() < STREAM_IN_FLIGHT_MAX => {
                    match next? {
                        Some((frame, seat)) => {
                            let produces = is_produce(&frame);
                            pending.push(self.call(frame, seat)?);
                            if produces {
                                muted = Instant::now() + self.calls.owes();
                            }
                        }
                        None => more = false,
                    }
                }
            }
        }
        // The far side may be gone, which ends the stream as well.
        let _ = send.finish();
        Ok(())
    }

    /// The next frame, once there is a seat for it: an idle stream must not keep one from others.
    /// May be dropped without loss, because a frame that waits for its seat is held outside.
    async fn next_request(
        &self,
        frames: &mut FrameReader,
        held: &mut Option<Bytes>,
    ) -> Result<Option<(Bytes, OwnedSemaphorePermit)>, StreamFailed> {
        if held.is_none() {
            *held = frames.next().await?;
        }
        if held.is_none() {
            return Ok(None);
        }
        let seats = Arc::clone(&self.seats);
        let seat = seats.acquire_owned().await.expect("the semaphore is never closed");
        Ok(held.take().map(|frame| (frame, seat)))
    }

    /// Begins a request; what must happen in order has happened when this returns.
    fn call(&self, frame: Bytes, seat: OwnedSemaphorePermit) -> Result<Pending, StreamFailed> {
        self.metrics.bytes_in.add(frame.len() as u64);
        let length = frame.len();
        let begun = Instant::now();
        let answering = self.calls.begin(frame, begun).ok_or(StreamFailed::NoHeader(length))?;
        Ok(Pending { answering, _seat: seat })
    }

    /// Writes an answer together with all that are ready by now.
    async fn write(
        &self,
        first: Answer,
        pending: &mut FuturesUnordered<Pending>,
        gather: &mut Gather,
        send: &mut SendStream,
    ) -> Result<(), StreamFailed> {
        first.into_iter().for_each(|chunk| gather.push(chunk));
        while gather.bytes() < WRITE_BYTES
            && let Some(Some(answer)) = pending.next().now_or_never()
        {
            answer.into_iter().for_each(|chunk| gather.push(chunk));
        }
        let bytes = gather.write_to(send).await?;
        self.metrics.bytes_out.add(bytes as u64);
        Ok(())
    }
}

fn is_produce(frame: &Bytes) -> bool {
    frame.first_chunk() == Some(&ApiKey::Produce.number().to_be_bytes())
}

/// Closes a connection over what went wrong on one of its streams, unless it is gone anyway.
fn give_up(connection: &Connection, error: &StreamFailed) {
    let remote = connection.remote_address();
    match error {
        StreamFailed::Frame(FrameError::TooLarge { .. } | FrameError::CutOff)
        | StreamFailed::NoHeader(_) => {
            warn!(%remote, %error, "client broke the protocol; its connection is closed");
            let reason = format!("{error}; is this {}?", ALPN_NAME);
            connection.close(CloseCode::Protocol.into(), reason.as_bytes());
        }
        StreamFailed::Frame(FrameError::Read(_)) | StreamFailed::Write(_) => {
            debug!(%remote, %error, "a client's stream ended");
        }
    }
}

const ALPN_NAME: &str = "the protocol highwater/1";
/// Requests of one stream under way at once; more are not read.
const STREAM_IN_FLIGHT_MAX: usize = 512;
/// Answers are gathered up to this before they are handed to the stream.
const WRITE_BYTES: usize = 1024 * 1024;
