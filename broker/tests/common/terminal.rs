//! A program in a terminal of its own, and somebody who reads and types there.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::spawn;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use super::PATIENCE;

/// A terminal in which a program runs; dropping it kills the program.
pub struct Terminal {
    program: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Terminal {
    /// Starts a program whose input, output and errors are one terminal.
    pub fn run(mut command: Command) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("there are terminals left");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it was just made");
        let theirs = File::from(ioctl_tiocgptpeer(&ours, flags).expect("it is unlocked"));
        let again = || theirs.try_clone().expect("there are descriptors left");
        command.stdin(again()).stdout(again()).stderr(again());
        let program = command.spawn().expect("the program is there");
        // The terminal hangs up when nobody has its other side any more, so neither may we.
        drop((command, theirs));
        let keyboard = File::from(ours);
        let screen = read_on(keyboard.try_clone().expect("there are descriptors left"));
        Terminal { program, keyboard, screen, shown: Vec::new() }
    }

    /// Waits until something is shown, then types a line.
    pub fn answer(&mut self, question: &str, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown().contains(question) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(more) => self.shown.extend(more),
                Err(why) => panic!("{question:?} is not asked, {why}:\n{}", self.shown()),
            }
        }
        writeln!(self.keyboard, "{line}").expect("the program waits for it");
    }

    /// Waits until the program has ended; how it did, and all that was shown.
    pub fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(more) => self.shown.extend(more),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it does not end:\n{}", self.shown())
                }
            }
        }
        let ended = self.program.wait().expect("it was started");
        (ended, self.shown())
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// What is shown, bit by bit, until the terminal hangs up: an error of reading is how it says so.
fn read_on(mut screen: File) -> Receiver<Vec<u8>> {
    let (shows, shown) = channel();
    spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            if shows.send(bytes[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    shown
}
