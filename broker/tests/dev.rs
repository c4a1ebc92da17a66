//! `highwater dev` as a newcomer runs it: the round trip, a kill, and nothing left behind.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[test]
fn once_ends_well_when_every_record_came_back_and_cleans_up() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let output = highwater(temp.path())
        .args(["dev", "--once", "--records", "300"])
        .env("TMPDIR", temp.path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for mode in ["async", "semi-sync", "sync"] {
        assert!(said.contains(&format!("  {mode:<9}      300        300")), "{mode}: {said}");
    }
    let left = std::fs::read_dir(temp.path()).expect("readable").count();
    assert_eq!(left, 0, "a passing check leaves nothing");
}

#[test]
fn brokers_are_killed_and_restarted_by_number_and_end_with_their_parent() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let dir = temp.path().join("cluster");
    let mut dev = Running(
        highwater(temp.path())
            .args(["dev", "--records", "10", "--dir"])
            .arg(&dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs"),
    );
    let profile = temp.path().join("profile.toml");
    eventually("the cluster is up and its profile written", || profile.exists());

    let killed = tell(temp.path(), &dir, &["kill", "2"]);
    assert!(killed.status.success());
    assert!(!tell(temp.path(), &dir, &["kill", "2"]).status.success(), "it is dead already");
    assert!(!tell(temp.path(), &dir, &["kill", "9"]).status.success(), "there is none");
    assert_eq!(pids(&tell(temp.path(), &dir, &["status"])).len(), 2);
    assert!(tell(temp.path(), &dir, &["restart", "2"]).status.success());
    let pids = pids(&tell(temp.path(), &dir, &["status"]));
    assert_eq!(pids.len(), 3);

    dev.0.kill().expect("it is ours");
    dev.0.wait().expect("it was killed");
    eventually("no broker outlives the process that started it", || {
        pids.iter().all(|pid| !is_alive(pid))
    });
    assert!(!tell(temp.path(), &dir, &["status"]).status.success(), "nobody answers");
}

/// Killed when dropped, so that a failed test leaves nothing running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn highwater(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.env("HOME", home).env("HIGHWATER_PROFILE", home.join("profile.toml"));
    command
}

fn tell(home: &Path, dir: &Path, words: &[&str]) -> Output {
    highwater(home).arg("dev").args(words).arg("--dir").arg(dir).output().expect("it runs")
}

/// The last column of a status line, where it is a number.
fn pids(status: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&status.stdout);
    let last = text.lines().filter_map(|line| line.split_whitespace().last());
    last.filter(|word| word.parse::<u32>().is_ok()).map(str::to_owned).collect()
}

/// Whether a process runs; one that only waits to be buried does not.
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") && stat.contains("highwater"))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
