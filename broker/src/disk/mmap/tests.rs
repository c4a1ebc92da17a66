//! Files and names on a real file system: in parts, cut short, and gone beneath a mapping.

use super::*;

fn disk_and_dir() -> (MmapDisk, tempfile::TempDir) {
    (MmapDisk::default(), tempfile::tempdir().expect("the test's own directory"))
}

#[test]
fn what_is_written_in_parts_is_read_as_one_slice() {
    let (disk, dir) = disk_and_dir();
    let file = disk.create(&dir.path().join("a"), 8192, 1 << 20).expect("create");
    file.write_at(4090, &[b"hello", b"", b" ", b"world"]).expect("write");
    assert_eq!(&file.read(4090..4101).expect("read")[..], b"hello world");
    assert_eq!(&file.read(0..3).expect("read")[..], &[0, 0, 0]);
    assert!(file.read(5..5).expect("read").is_empty());
}

#[test]
fn more_parts_than_the_kernel_takes_at_once_are_all_written() {
    let (disk, dir) = disk_and_dir();
    let file = disk.create(&dir.path().join("a"), 8192, 8192).expect("create");
    let parts = vec![&b"xy"[..]; SLICES_MAX + 500];
    file.write_at(1, &parts).expect("write");
    assert_eq!(file.read(1..1 + 2 * parts.len() as u64).expect("read"), parts.concat());
}

#[test]
fn a_slice_outlives_its_file_and_its_name_and_sees_growth_elsewhere() {
    let (disk, dir) = disk_and_dir();
    let path = dir.path().join("a");
    let file = disk.create(&path, 4096, 1 << 24).expect("create");
    file.write_at(0, &[b"early"]).expect("write");
    let early = file.read(0..5).expect("read");
    file.extend(1 << 20).expect("extend");
    file.write_at(1 << 19, &[b"late"]).expect("write");
    assert_eq!(&file.read(1 << 19..(1 << 19) + 4).expect("read")[..], b"late");
    file.start_flush();
    file.flush().expect("flush");
    disk.remove(&path).expect("remove");
    drop(file);
    assert_eq!(&early[..], b"early");
}

#[test]
#[should_panic(expected = "a read behind the end")]
fn a_read_behind_what_is_allocated_is_a_bug() {
    let (disk, dir) = disk_and_dir();
    let file = disk.create(&dir.path().join("a"), 4096, 8192).expect("create");
    let _ = file.read(4000..4097);
}

#[test]
fn released_blocks_are_given_back_and_the_length_stays() {
    use std::os::unix::fs::MetadataExt;
    let (disk, dir) = disk_and_dir();
    let path = dir.path().join("a");
    let file = disk.create(&path, 1 << 20, 1 << 20).expect("create");
    file.write_at(0, &[b"kept"]).expect("write");
    file.release(4);
    file.flush().expect("flush");
    assert_eq!(file.len(), 1 << 20);
    assert_eq!(&file.read(0..4).expect("read")[..], b"kept");
    let blocks = fs::metadata(&path).expect("metadata").blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks are still allocated");
}

#[test]
fn a_page_that_is_gone_when_it_is_touched_reads_as_zeros_and_the_next_read_says_so() {
    let (disk, dir) = disk_and_dir();
    let path = dir.path().join("a");
    let file = disk.create(&path, 16_384, 16_384).expect("create");
    file.write_at(0, &[&[7; 16_384]]).expect("write");
    let (first, second) = (file.read(0..8_192).expect("read"), file.read(8_192..16_384));
    let (second, owner) = (second.expect("read"), OpenOptions::new().write(true).open(&path));
    let owner = owner.expect("it is ours");
    owner.set_len(4_096).expect("it is ours");
    assert!(first[..4_096].iter().all(|byte| *byte == 7), "that page is there");
    assert!(first[4_096..].iter().chain(&second[..]).all(|byte| *byte == 0));
    file.read(8_000..9_000).expect_err("it is not there");
    assert!(file.read(0..4_096).expect("that page is there").iter().all(|byte| *byte == 7));
    owner.set_len(16_384).expect("it is ours");
    file.write_at(8_192, &[&[9; 100]]).expect("write");
    assert_eq!(&file.read(8_192..8_292).expect("it is there again")[..], &[9; 100]);
}

#[test]
fn a_fault_at_an_address_that_is_not_ours_ends_the_process_as_ever() {
    use std::os::unix::process::ExitStatusExt;
    let (disk, dir) = disk_and_dir();
    let path = dir.path().join("a");
    let file = disk.create(&path, 4_096, 4_096).expect("create");
    drop(file.read(0..1).expect("read"));
    if std::env::var_os("HIGHWATER_TEST_FAULTS").is_some() {
        let held = OpenOptions::new().read(true).write(true).open(&path).expect("it is ours");
        let mut map = Map::new(&disk.hold(held), 4_096).expect("map");
        map.guarded = None;
        fs::write(&path, []).expect("it is ours");
        // SAFETY: it faults, which is what this process is for.
        std::process::exit(i32::from(unsafe { map.start.as_ptr().read_volatile() }));
    }
    let name = std::thread::current().name().expect("a test has a name").to_owned();
    let mut again = std::process::Command::new(std::env::current_exe().expect("a file"));
    let again = again.args([&name, "--exact"]).env("HIGHWATER_TEST_FAULTS", "1").output();
    let status = again.expect("it can be started").status;
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status:?}");
}

#[test]
fn errors_name_the_path_and_the_act_and_keep_their_kind() {
    let (disk, dir) = disk_and_dir();
    let error = disk.open(&dir.path().join("missing"), 1).err().expect("no such file");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().starts_with("cannot open /"), "{error}");
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn names_are_listed_sorted_and_directories_come_and_go() {
    let (disk, dir) = disk_and_dir();
    let deep = dir.path().join("x/y");
    disk.create_dir(&deep).expect("create_dir");
    disk.create_dir(&deep).expect("again");
    for name in ["b", "a"] {
        disk.create(&deep.join(name), 0, 1).expect("create");
    }
    disk.rename(&deep.join("b"), &deep.join("c")).expect("rename");
    disk.flush_dir(&deep).expect("flush_dir");
    assert_eq!(disk.list(&deep).expect("list"), ["a", "c"]);
    assert!(disk.free_bytes(&deep).expect("free") > 0);
    disk.remove_dir(&deep).expect("remove_dir");
    disk.remove_dir(&deep).expect("a missing directory is no error");
}
