//! Closes the last handles of deleted files, so that no shard waits for it.
//!
//! Removing a name is quick; the file system frees the blocks when the last handle or map of the
//! file goes, and that takes the thread that drops it 0.2 s for each GiB (ext4). What must hold:
//! every handle is a `Held`, and its drop closes files that still have a name on the spot and hands
//! the others to one thread of their own. The queue is bounded; when it is full, or the machine has
//! no thread for us, the dropping thread closes after all.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam::channel::{Sender, bounded};

/// The thread that closes. It starts with the first deleted file and ends once the disk and all its
/// files are gone.
#[derive(Debug, Default)]
pub(super) struct Closer {
    files: OnceLock<Option<Sender<File>>>,
}

/// An open file that does not make whoever drops it last wait for its blocks.
#[derive(Debug)]
pub(super) struct Held {
    file: Option<File>,
    closer: Arc<Closer>,
}

impl Closer {
    fn close(&self, file: File) {
        if let Some(files) = self.files.get_or_init(start) {
            // A file that finds no room comes back in the error, and is closed with it.
            let _ = files.try_send(file);
        }
    }
}

impl Held {
    /// Holds a file; what is left of it goes to `closer`.
    pub fn new(file: File, closer: &Arc<Closer>) -> Held {
        Held { file: Some(file), closer: Arc::clone(closer) }
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_ref().expect("only drop takes the file").as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        if file.metadata().is_ok_and(|found| found.nlink() == 0) {
            self.closer.close(file);
        }
    }
}

fn start() -> Option<Sender<File>> {
    let (sender, files) = bounded(FILES_MAX);
    let run = move || files.into_iter().for_each(drop::<File>);
    thread::Builder::new().name("close".to_owned()).spawn(run).ok().map(|_| sender)
}

/// Deleted files that wait with an open handle: a part of the descriptors that a broker may have.
const FILES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn closer(room: usize) -> (Arc<Closer>, crossbeam::channel::Receiver<File>) {
        let (sender, files) = bounded(room);
        (Arc::new(Closer { files: OnceLock::from(Some(sender)) }), files)
    }

    #[test]
    fn only_the_handles_of_deleted_files_are_closed_elsewhere() {
        let dir = tempfile::tempdir().expect("the test's own directory");
        let (closer, files) = closer(8);
        let path = dir.path().join("a");
        let first = Held::new(File::create(&path).expect("create"), &closer);
        let second = Held::new(File::open(&path).expect("open"), &closer);
        drop(first);
        assert!(files.is_empty(), "a file with a name is closed at once");
        fs::remove_file(&path).expect("remove");
        drop(second);
        assert_eq!(files.len(), 1);
    }

    #[test]
    fn a_full_queue_closes_on_the_spot() {
        let dir = tempfile::tempdir().expect("the test's own directory");
        let (closer, files) = closer(1);
        for name in ["a", "b"] {
            let path = dir.path().join(name);
            let held = Held::new(File::create(&path).expect("create"), &closer);
            fs::remove_file(&path).expect("remove");
            drop(held);
        }
        assert_eq!(files.len(), 1);
    }
}
