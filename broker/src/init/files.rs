//! Small files that must be whole or absent: written aside, flushed, renamed, directory flushed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// Everyone.
    Public,
    /// The owner alone.
    Secret,
}

/// Makes a directory and those above it, and tells which one could not be made.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir).map_err(|error| attempt("make the directory", dir, &error))
}

/// Writes a file that must not exist yet.
pub fn write_new(path: &Path, bytes: &[u8], secrecy: Secrecy) -> io::Result<()> {
    if path.exists() {
        let reason = format!("{} exists already; it was left as it is", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
    }
    replace(path, bytes, secrecy)
}

/// Writes a file, or replaces it as a whole; durable when this returns.
pub fn replace(path: &Path, bytes: &[u8], secrecy: Secrecy) -> io::Result<()> {
    write_aside(path, bytes, secrecy).map_err(|error| attempt("write", path, &error))
}

fn write_aside(path: &Path, bytes: &[u8], secrecy: Secrecy) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mode = match secrecy {
        Secrecy::Public => 0o644,
        Secrecy::Secret => 0o600,
    };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// An error that says what was attempted on which path.
pub fn attempt(act: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{act} {}: {error}", path.display()))
}
