//! How `highwater dev kill|restart|status` reaches the `highwater dev` that runs: a Unix socket.
//!
//! One line asks; a word that says how it went and text answer, until the end of the stream. That a socket answers is also the proof
//! that a cluster runs in a directory, so that two never run in one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Kill(u32),
    Restart(u32),
    Status,
}

/// The side of the cluster; removes its socket when it goes.
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

/// A request and who made it.
pub(super) struct Asked {
    pub(super) request: Request,
    stream: UnixStream,
}

impl Request {
    fn line(self) -> String {
        match self {
            Request::Kill(node) => format!("kill {node}\n"),
            Request::Restart(node) => format!("restart {node}\n"),
            Request::Status => "status\n".to_owned(),
        }
    }

    fn parse(line: &str) -> Option<Request> {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next().map(str::parse)) {
            ("kill", Some(Ok(node))) => Some(Request::Kill(node)),
            ("restart", Some(Ok(node))) => Some(Request::Restart(node)),
            ("status", None) => Some(Request::Status),
            _ => None,
        }
    }
}

impl Listener {
    /// Takes the directory's socket; an error where a cluster runs there already.
    pub(super) async fn bind(dir: &Path) -> anyhow::Result<Listener> {
        let path = socket_path(dir);
        if UnixStream::connect(&path).await.is_ok() {
            bail!("a dev cluster runs in {} already; see `highwater dev status`", dir.display());
        }
        // What a killed predecessor left behind.
        let _ = std::fs::remove_file(&path);
        let socket =
            UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        Ok(Listener { socket, path })
    }

    /// Somebody who wants something. May be dropped while it waits: nobody is lost.
    pub(super) async fn accept(&self) -> UnixStream {
        loop {
            if let Ok((stream, _)) = self.socket.accept().await {
                return stream;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing depends on it: whoever finds a dead socket removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Asked {
    /// What somebody wants; `None` for one who says nothing sensible, or nothing soon.
    pub(super) async fn read(mut stream: UnixStream) -> Option<Asked> {
        let mut line = String::new();
        let mut reader = BufReader::new((&mut stream).take(LINE_BYTES_MAX));
        timeout(PATIENCE, reader.read_line(&mut line)).await.ok()?.ok()?;
        let request = Request::parse(&line)?;
        Some(Asked { request, stream })
    }

    /// Answers; whoever asked may be gone.
    pub(super) async fn answer(mut self, outcome: Result<&str, &str>) {
        let (word, text) = match outcome {
            Ok(text) => (DONE, text),
            Err(text) => (FAILED, text),
        };
        let _ = self.stream.write_all(format!("{word}\n{text}").as_bytes()).await;
    }
}

/// Asks the cluster that runs in a directory.
pub(super) async fn ask(dir: &Path, request: Request) -> anyhow::Result<String> {
    let Ok(mut stream) = UnixStream::connect(socket_path(dir)).await else {
        bail!("no dev cluster runs in {}; start one with `highwater dev`", dir.display());
    };
    stream.write_all(request.line().as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once('\n') {
        Some((DONE, text)) => Ok(text.to_owned()),
        Some((_, text)) => bail!("{text}"),
        None => bail!("the dev cluster in {} ended before it answered", dir.display()),
    }
}

/// In the directory itself, or, where that makes too long a name for a socket, beside it.
fn socket_path(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let path = absolute.join("dev.sock");
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return path;
    }
    let hash = xxhash_rust::xxh3::xxh3_64(absolute.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("highwater-dev-{hash:016x}.sock"))
}

const DONE: &str = "done";
const FAILED: &str = "failed";
const LINE_BYTES_MAX: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(1);
const SOCKET_PATH_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_what_it_wrote() {
        for request in [Request::Kill(2), Request::Restart(3), Request::Status] {
            assert_eq!(Request::parse(&request.line()), Some(request));
        }
        for line in ["", "kill", "kill x", "status 1", "stop"] {
            assert_eq!(Request::parse(line), None, "{line}");
        }
    }

    #[tokio::test]
    async fn one_directory_runs_one_cluster() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let _first = Listener::bind(dir.path()).await.expect("nobody is there");
        assert!(Listener::bind(dir.path()).await.is_err());
    }
}
