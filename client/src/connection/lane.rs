//! A lane: one long-lived stream of a connection, with many requests under way on it.
//!
//! Requests leave in the order of `submit`, which is what keeps a partition's batches in order;
//! answers come back in any order and are paired by correlation id. When the stream ends, for
//! whatever reason, every request under way fails with outcome unknown, and the lane stays dead:
//! a new connection has new lanes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use highwater_protocol::error::WireError;
use highwater_protocol::ids::NodeId;
use highwater_protocol::native::frame::FRAME_BYTES_MAX;
use tokio::sync::mpsc;

use super::frames::Frames;
use super::wire::{self, Request};
use crate::error::{Error, ErrorKind, Outcome};
use crate::watch::{UnderWay, Watch};

/// A broker's answer: the body, or its refusal.
pub(crate) type Answer = Result<Bytes, WireError>;

/// What is called, once, with the answer or with why there is none.
pub(crate) type Reply = Box<dyn FnOnce(Result<Answer, Error>) + Send>;

/// The sending end of a stream; the tasks behind it end when it is dropped or the stream ends.
pub(crate) struct Lane {
    queue: mpsc::Sender<(Bytes, Option<Bytes>)>,
    pending: Arc<Pending>,
}

/// The broker at the other end, and who is told what is said with it.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    /// For error messages.
    pub(super) broker: String,
    pub(super) watch: Arc<Watch>,
}

/// The requests under way on one stream.
struct Pending {
    peer: Peer,
    connection: quinn::Connection,
    state: Mutex<State>,
}

struct State {
    next: u32,
    replies: HashMap<u32, (Reply, UnderWay)>,
    dead: Option<Error>,
}

impl Lane {
    /// Opens a stream of `connection`.
    pub(super) async fn open(
        connection: &quinn::Connection,
        peer: &Peer,
        priority: i32,
    ) -> Result<Lane, quinn::ConnectionError> {
        let (send, receive) = connection.open_bi().await?;
        // A stream that is reset already shows at the first write.
        let _ = send.set_priority(priority);
        let (queue, queued) = mpsc::channel(PENDING_MAX);
        let state = State { next: 0, replies: HashMap::new(), dead: None };
        let pending = Arc::new(Pending {
            peer: peer.clone(),
            connection: connection.clone(),
            state: Mutex::new(state),
        });
        tokio::spawn(write(send, queued, pending.clone()));
        tokio::spawn(read(receive, pending.clone()));
        Ok(Lane { queue, pending })
    }

    /// Sends a request; `reply` is called exactly once, perhaps before this returns.
    pub(crate) fn submit(&self, request: Request, reply: Reply) {
        let mut state = self.pending.lock();
        if let Some(dead) = &state.dead {
            let error = dead.but(Outcome::NotWritten);
            drop(state);
            return reply(Err(error));
        }
        let correlation = state.next;
        state.next = state.next.wrapping_add(1);
        // Queued under the lock, so that the order of correlation ids is the order on the wire.
        let (api, bytes) = (request.api(), request.bytes());
        let full = state.replies.len() >= PENDING_MAX
            || self.queue.try_send(request.into_chunks(correlation)).is_err();
        if full {
            drop(state);
            return reply(Err(self.pending.overfull()));
        }
        let Peer { node, broker, watch } = &self.pending.peer;
        let under_way = watch.begin(broker, api, correlation, bytes);
        let clash = state.replies.insert(correlation, (reply, under_way));
        assert!(clash.is_none(), "a correlation id is free after four billion requests");
        drop(state);
        watch.sent(*node, api, bytes);
    }
}

impl Pending {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while it holds this lock but for a broken invariant, which is fatal anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overfull(&self) -> Error {
        let broker = &self.peer.broker;
        Error::new(
            ErrorKind::Unreachable,
            format!("{PENDING_MAX} requests wait for {broker} already; it is slow or has stalled"),
        )
    }

    /// Fails everything under way and refuses what comes later. The whole connection is closed,
    /// so that the pool dials a new one with new lanes.
    fn fail(&self, kind: ErrorKind, reason: &str) {
        self.connection.close(quinn::VarInt::from_u32(1), reason.as_bytes());
        let text = format!("lost the connection to {}: {reason}", self.peer.broker);
        let error = Error::with_outcome(kind, Outcome::Unknown, text);
        let mut state = self.lock();
        state.dead.get_or_insert_with(|| error.clone());
        let replies = std::mem::take(&mut state.replies);
        drop(state);
        for (reply, under_way) in replies.into_values() {
            self.peer.watch.answered(self.peer.node, under_way, 0, Err(kind));
            reply(Err(error.clone()));
        }
    }

    /// Hands an answer to whoever waits for it.
    fn answer(&self, frame: Bytes) -> Result<(), String> {
        let bytes = LENGTH_BYTES + frame.len();
        let (correlation, answer) = wire::answer(frame).map_err(|error| error.to_string())?;
        let reply = self.lock().replies.remove(&correlation);
        let (reply, under_way) =
            reply.ok_or_else(|| format!("it answered request {correlation} twice"))?;
        let result = match &answer {
            Ok(_) => Ok(()),
            Err(refusal) => Err(ErrorKind::Refused(refusal.code)),
        };
        self.peer.watch.answered(self.peer.node, under_way, bytes, result);
        reply(Ok(answer));
        Ok(())
    }
}

async fn write(
    mut stream: quinn::SendStream,
    mut queued: mpsc::Receiver<(Bytes, Option<Bytes>)>,
    pending: Arc<Pending>,
) {
    let mut requests = Vec::with_capacity(WRITE_REQUESTS_MAX);
    let mut chunks = Vec::new();
    while queued.recv_many(&mut requests, WRITE_REQUESTS_MAX).await > 0 {
        chunks
            .extend(requests.drain(..).flat_map(|(head, payload)| [Some(head), payload]).flatten());
        if let Err(error) = stream.write_all_chunks(&mut chunks).await {
            return pending.fail(ErrorKind::ConnectionLost, &error.to_string());
        }
        chunks.clear();
    }
}

async fn read(mut stream: quinn::RecvStream, pending: Arc<Pending>) {
    let mut frames = Frames::new(FRAME_BYTES_MAX);
    loop {
        let chunk = match stream.read_chunk(READ_BYTES_MAX, true).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return pending.fail(ErrorKind::ConnectionLost, "the broker ended it"),
            Err(error) => return pending.fail(ErrorKind::ConnectionLost, &error.to_string()),
        };
        frames.push(chunk.bytes);
        if let Err(reason) = answer_all(&mut frames, &pending) {
            return pending.fail(ErrorKind::Malformed, &reason);
        }
    }
}

fn answer_all(frames: &mut Frames, pending: &Pending) -> Result<(), String> {
    let too_long = |error: super::frames::FrameTooLong| {
        format!("an answer of {} bytes is over the limit of {FRAME_BYTES_MAX}", error.bytes)
    };
    while let Some(frame) = frames.next().map_err(too_long)? {
        pending.answer(frame)?;
    }
    Ok(())
}

/// Requests under way on one lane; a producer has five per partition, so this is a bound for
/// runaways. What comes on top is refused before it is sent.
const PENDING_MAX: usize = 4_096;
/// Before each frame lies its length.
const LENGTH_BYTES: usize = 4;
const WRITE_REQUESTS_MAX: usize = 64;
const READ_BYTES_MAX: usize = 256 * 1024;
