//! Metrics and health over HTTP, for those who watch: `/metrics`, `/health/live`, `/health/ready`.
//!
//! Plain HTTP on an address of its own, meant for a private network. Live means that the process
//! answers; ready means that the broker is registered in its cluster and follows the controller.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::metrics::Metrics;
use crate::node::NodeState;

/// A port that is ours but not yet answered.
pub struct Bound {
    listener: TcpListener,
}

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    state: watch::Receiver<NodeState>,
    started: Instant,
}

impl Bound {
    /// Takes the port.
    pub async fn bind(listen: SocketAddr) -> io::Result<Bound> {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            let reason = format!("listen on HTTP {listen}: {error}; change http.listen");
            io::Error::new(error.kind(), reason)
        })?;
        Ok(Bound { listener })
    }

    /// Answers until told to stop.
    pub async fn serve(
        self,
        metrics: Arc<Metrics>,
        state: watch::Receiver<NodeState>,
        until: CancellationToken,
    ) -> io::Result<()> {
        let shown = Shown { metrics, state, started: Instant::now() };
        let router = Router::new()
            .route("/metrics", get(metrics_text))
            .route("/health/live", get(|| async { "live\n" }))
            .route("/health/ready", get(ready))
            .with_state(shown);
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let door = Door { listener: self.listener, seats };
        axum::serve(door, router).with_graceful_shutdown(until.cancelled_owned()).await
    }
}

/// Lets so many in at a time: each takes a descriptor, and those belong to storage first. Who comes
/// when it is full is turned away at once, so that nobody waits behind connections that nobody uses.
struct Door {
    listener: TcpListener,
    seats: Arc<Semaphore>,
}

impl Listener for Door {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        loop {
            let (stream, remote) = Listener::accept(&mut self.listener).await;
            match Arc::clone(&self.seats).try_acquire_owned() {
                Ok(seat) => return (Visitor { stream, _seat: seat }, remote),
                Err(_) => debug!(%remote, "HTTP connection refused: too many are open"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its seat.
struct Visitor {
    stream: TcpStream,
    _seat: OwnedSemaphorePermit,
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn metrics_text(State(shown): State<Shown>) -> String {
    let mut text = format!(
        "# HELP highwater_build_info What runs.\n# TYPE highwater_build_info gauge\n\
         highwater_build_info{{version=\"{}\"}} 1\n\
         # HELP highwater_uptime_seconds Since when.\n# TYPE highwater_uptime_seconds gauge\n\
         highwater_uptime_seconds {}\n",
        env!("CARGO_PKG_VERSION"),
        shown.started.elapsed().as_secs()
    );
    text.push_str(&shown.metrics.render());
    text
}

async fn ready(State(shown): State<Shown>) -> (StatusCode, String) {
    let state = shown.state.borrow().clone();
    match state {
        NodeState::Serving => (StatusCode::OK, "ready\n".to_owned()),
        NodeState::Starting => (
            StatusCode::SERVICE_UNAVAILABLE,
            "starting: not caught up with the controller's log, or not registered yet\n".to_owned(),
        ),
        NodeState::Failed(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("failed: {reason}\n"))
        }
    }
}

/// Connections for metrics and health at one time; those who ask for them are few.
pub const CONNECTIONS_MAX: usize = 64;
