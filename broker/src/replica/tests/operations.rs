//! Voters that change and logs that start later.

use super::*;

#[test]
fn voters_change_step_by_step_and_the_wish_is_answered_when_it_is_true() {
    let mut trio = Trio::led();
    let change = |voters: &[NodeId]| ReplicaCommand::ChangeVoters {
        voters: voters.to_vec(),
        learners: Vec::new(),
    };
    let nonsense = trio.command(FIRST, change(&[]));
    assert_eq!(trio.admin[&nonsense], Err(ErrorCode::InvalidRequest));
    let shrunk = trio.command(FIRST, change(&[FIRST]));
    trio.run(200);
    assert!(matches!(trio.admin[&shrunk], Ok(AdminReply::Done(_))));
    assert_eq!(trio.replicas[&FIRST].raft().voter_set().voters, [FIRST]);
    let grown = trio.command(FIRST, change(&IDS));
    trio.run(500);
    assert!(matches!(trio.admin[&grown], Ok(AdminReply::Done(_))));
    trio.assert_alike();
}

#[test]
fn a_trim_is_decided_by_the_leader_and_carried_out_everywhere() {
    let mut trio = Trio::led();
    for _ in 0..3 {
        trio.produce(FIRST, AckMode::SemiSync, batch(5, None));
    }
    trio.run(100);
    let refused = trio.command(NodeId(2), ReplicaCommand::TrimBefore(Offset(12)));
    assert_eq!(trio.admin[&refused], Err(ErrorCode::NotLeader));
    let too_far = trio.command(FIRST, ReplicaCommand::TrimBefore(Offset(16)));
    assert_eq!(trio.admin[&too_far], Err(ErrorCode::OffsetOutOfRange));
    let trimmed = trio.command(FIRST, ReplicaCommand::TrimBefore(Offset(12)));
    trio.run(300);
    assert_eq!(trio.admin[&trimmed], Ok(AdminReply::Trimmed(Offset(10))));
    for id in IDS {
        let described = trio.command(id, ReplicaCommand::Describe);
        let Ok(AdminReply::Description(description)) = &trio.admin[&described] else { panic!() };
        assert_eq!((description.log_start, description.high_watermark), (Offset(10), Offset(15)));
    }
    let again = trio.command(FIRST, ReplicaCommand::TrimBefore(Offset(3)));
    assert_eq!(trio.admin[&again], Ok(AdminReply::Trimmed(Offset(10))));
    trio.assert_alike();
}

#[test]
fn a_replica_behind_the_leaders_start_starts_there_and_knows_what_was_sent_before() {
    let mut trio = Trio::led();
    trio.produce(FIRST, AckMode::SemiSync, batch(5, stamp(1, 0)));
    trio.run(100);
    trio.cut_off = vec![NodeId(3)];
    for sequence in [5, 10, 15] {
        trio.produce(FIRST, AckMode::SemiSync, batch(5, stamp(1, sequence)));
    }
    trio.run(100);
    let trimmed = trio.command(FIRST, ReplicaCommand::TrimBefore(Offset(20)));
    trio.run(100);
    assert_eq!(trio.admin[&trimmed], Ok(AdminReply::Trimmed(Offset(20))));
    trio.cut_off.clear();
    trio.run(500);
    let reader = trio.replicas[&NodeId(3)].reader();
    assert_eq!((reader.log_start(), reader.high_watermark()), (Offset(20), Offset(20)));
    trio.assert_alike();
    trio.command(FIRST, ReplicaCommand::TransferLeader(Some(NodeId(3))));
    trio.run(500);
    let repeated = trio.produce(NodeId(3), AckMode::SemiSync, batch(5, stamp(1, 10)));
    trio.run(100);
    let answer = trio.answer(repeated).expect("answered").expect("a receipt");
    assert_eq!(answer.base_offset, Offset(10), "sent before the log's start, and known");
}

#[test]
fn the_oldest_segments_go_by_size_and_by_age_and_the_last_goes_when_all_are_old() {
    let mut trio = Trio::led();
    for replica in trio.replicas.values_mut() {
        replica.options.retention = Retention { ms: Some(1_000), bytes: Some(1), segment_ms: 50 };
    }
    trio.produce(FIRST, AckMode::SemiSync, batch(5, None));
    trio.run(100);
    let look = |trio: &mut Trio, wall: i64| {
        for id in IDS {
            trio.with(id, |replica, now, out| {
                replica.retain(now, Timestamp(wall), ByAge::All, out);
            });
        }
        trio.run(200);
        trio.replicas[&FIRST].reader().log_start()
    };
    // Records of time 0 to 4: the segment is ended, and kept as the only one of some size.
    assert_eq!(look(&mut trio, 100), Offset(0));
    trio.produce(FIRST, AckMode::SemiSync, batch(5, None));
    trio.run(100);
    assert_eq!(look(&mut trio, 110), Offset(5), "by size");
    assert_eq!(look(&mut trio, 2_000), Offset(10), "by age");
    assert_eq!(look(&mut trio, 90_000), Offset(10), "nothing is left to give up");
    for replica in trio.replicas.values_mut() {
        replica.options.retention.bytes = None;
    }
    let mut timeless = BatchBuilder::new(BuilderOptions::default());
    timeless.push(Timestamp(-1), None, Some(b"when?"), &[]);
    trio.produce(FIRST, AckMode::SemiSync, timeless.finish());
    trio.run(100);
    assert_eq!(look(&mut trio, 900_000), Offset(10), "nobody knows how old it is");
    trio.assert_alike();
}

/// Where the voters are the ones wished for in the log of a leader that others have passed by: the answer waits for
/// what it commits from then on, which is nothing.
fn is_sure_of_its_voters() -> bool {
    let mut trio = Trio::led();
    trio.cut_off = vec![FIRST];
    let term = trio.replicas[&FIRST].raft().term();
    let wish = || ReplicaCommand::MoveVoters { voters: IDS.to_vec(), term };
    let asked = trio.command(FIRST, wish());
    trio.run(50);
    let waited = !trio.admin.contains_key(&asked);
    trio.run(3_000);
    trio.cut_off.clear();
    trio.run(1_000);
    waited && trio.admin[&asked].is_err()
}

#[test]
fn a_leader_makes_sure_that_it_leads_before_it_says_who_votes() {
    assert!(is_sure_of_its_voters());
    let mut trio = Trio::led();
    let term = trio.replicas[&FIRST].raft().term();
    let asked = trio.command(FIRST, ReplicaCommand::MoveVoters { voters: IDS.to_vec(), term });
    trio.run(300);
    assert!(trio.admin[&asked].is_ok());
}

#[cfg(feature = "mutants")]
#[test]
fn a_leader_that_does_not_is_found_by_a_script() {
    mutant::choose(Some(Mutant::MoveOverUnproven));
    let sure = is_sure_of_its_voters();
    mutant::choose(None);
    assert!(!sure);
}
