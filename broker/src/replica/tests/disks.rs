//! Disks that are full or fail.

use super::*;

#[test]
fn a_follower_on_a_full_disk_stays_in_service_and_catches_up_when_there_is_room() {
    let (full, disk) = (NodeId(3), SimDisk::new(1));
    let mut trio = Trio::on(FlushPolicy::Ack, BTreeMap::from([(full, disk.clone())]));
    trio.run(300);
    let before = trio.produce(FIRST, AckMode::SemiSync, batch(1, None));
    trio.run(100);
    disk.limit_bytes(Some(0));
    let term = trio.replicas[&FIRST].raft.term();
    let large = |trio: &mut Trio| trio.produce(FIRST, AckMode::SemiSync, batch(9_000, None));
    let without: Vec<RequestId> = (0..5).map(|_| large(&mut trio)).collect();
    trio.run(3_000);
    for id in without.into_iter().chain([before]) {
        assert!(trio.answer(id).is_some_and(|answer| answer.is_ok()), "a majority has room");
    }
    assert_eq!(trio.replicas[&FIRST].raft.term(), term, "nobody stood for election");
    assert!(trio.replicas[&full].log.end() < trio.replicas[&FIRST].log.end());
    disk.limit_bytes(None);
    trio.run(1_000);
    trio.assert_alike();
}

#[test]
fn what_is_sent_once_more_needs_no_room() {
    let (full, disk) = (NodeId(3), SimDisk::new(1));
    let mut trio = Trio::on(FlushPolicy::Ack, BTreeMap::from([(full, disk.clone())]));
    trio.run(300);
    trio.produce(FIRST, AckMode::SemiSync, batch(1, None));
    trio.with(FIRST, Replica::finish_pass);
    let mut mail = trio.mail.iter().filter(|(_, mail)| mail.to == full);
    let sent = mail.find(|(_, mail)| matches!(mail.message, RaftMessage::Append(_)));
    let again = sent.expect("the batch goes to every follower").1.message.clone();
    trio.run(200);
    disk.limit_bytes(Some(0));
    trio.with(full, |replica, now, out| replica.receive(now, FIRST, again, out));
    trio.with(full, Replica::finish_pass);
    let answers = |(from, mail): &(NodeId, Outgoing)| {
        *from == full && matches!(mail.message, RaftMessage::AppendAnswer(_))
    };
    assert!(trio.mail.iter().any(answers), "nothing of it is new");
}

#[test]
fn a_leader_on_a_full_disk_refuses_and_takes_batches_again_when_there_is_room() {
    let disk = SimDisk::new(1);
    let mut trio = Trio::on(FlushPolicy::Ack, BTreeMap::from([(FIRST, disk.clone())]));
    trio.run(300);
    disk.limit_bytes(Some(0));
    let large = |trio: &mut Trio| trio.produce(FIRST, AckMode::SemiSync, batch(9_000, None));
    let refused = large(&mut trio);
    assert_eq!(trio.answer(refused), Some(Err(ErrorCode::DiskFull)));
    trio.run(1_000);
    assert_eq!(trio.leaders[&FIRST], Some(FIRST), "a full disk is no reason to step down");
    disk.limit_bytes(None);
    let taken = large(&mut trio);
    trio.run(300);
    assert_eq!(trio.offset(taken), 0, "the refused one was not written");
    trio.assert_alike();
}

#[test]
fn a_failed_flush_is_final_for_the_replica_and_for_nobody_else() {
    let mut trio = Trio::led();
    let waiting = trio.produce(FIRST, AckMode::SemiSync, batch(2, None));
    let now = trio.now;
    let replica = trio.replicas.get_mut(&FIRST).expect("it is open");
    replica.take_unflushed(now).expect("there is something to flush");
    let broken = io::Error::other("the device is gone");
    trio.with(FIRST, |replica, now, out| {
        replica.flushed(now, Err(&broken), out);
        assert!(out.failed.as_ref().is_some_and(|why| why.contains("the device is gone")));
    });
    assert_eq!(trio.answer(waiting), Some(Err(ErrorCode::StorageFailed)));
    let refused = trio.produce(FIRST, AckMode::Async, batch(2, None));
    assert_eq!(trio.answer(refused), Some(Err(ErrorCode::StorageFailed)));
    trio.run(1_500);
    let leader = trio.leaders[&NodeId(2)].expect("the others elect one");
    let fine = trio.produce(leader, AckMode::SemiSync, batch(2, None));
    trio.run(50);
    assert!(trio.answer(fine).is_some_and(|answer| answer.is_ok()));
}
