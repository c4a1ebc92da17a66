//! Three replicas, and everything that comes out of them.

use super::*;

pub(super) type Answer = Result<Receipt, ErrorCode>;

/// Three replicas and everything that came out of them.
pub(super) struct Trio {
    pub(super) dir: TempDir,
    pub(super) now: Millis,
    pub(super) replicas: BTreeMap<NodeId, Replica>,
    pub(super) saved: BTreeMap<NodeId, HardState>,
    pub(super) mail: Vec<(NodeId, Outgoing)>,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    pub(super) admin: BTreeMap<RequestId, Result<AdminReply, ErrorCode>>,
    pub(super) leaders: BTreeMap<NodeId, Option<NodeId>>,
    pub(super) cut_off: Vec<NodeId>,
    pub(super) slow_disks: Vec<NodeId>,
    /// Disks that can be filled; the other replicas have real ones.
    pub(super) small_disks: BTreeMap<NodeId, Arc<SimDisk>>,
    pub(super) next_id: u64,
    pub(super) flush: FlushPolicy,
}

pub(super) const IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

pub(super) const FIRST: NodeId = NodeId(1);

pub(super) fn options(flush: FlushPolicy) -> ReplicaOptions {
    ReplicaOptions {
        log: log::Options { segment_bytes_max: 1 << 20, keep_free_bytes: 0 },
        flush,
        insync_replicas_min: 2,
        lag_ms_max: 10_000,
        retention: Retention::FOREVER,
        learner_bytes_per_s: None,
    }
}

pub(super) fn batch(records: u32, stamp: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(BuilderOptions { producer: stamp, ..Default::default() });
    for record in 0..records {
        builder.push(Timestamp(i64::from(record)), None, Some(&record.to_be_bytes()), &[]);
    }
    builder.finish()
}

pub(super) fn stamp(epoch: u16, base_sequence: u32) -> Option<ProducerStamp> {
    Some(ProducerStamp { id: ProducerId(7), epoch: ProducerEpoch(epoch), base_sequence })
}

impl Trio {
    pub(super) fn new(flush: FlushPolicy) -> Trio {
        Trio::on(flush, BTreeMap::new())
    }

    pub(super) fn on(flush: FlushPolicy, small_disks: BTreeMap<NodeId, Arc<SimDisk>>) -> Trio {
        let mut trio = Trio {
            dir: TempDir::new().expect("a temporary directory"),
            now: Millis(0),
            replicas: BTreeMap::new(),
            saved: BTreeMap::new(),
            mail: Vec::new(),
            answers: BTreeMap::new(),
            admin: BTreeMap::new(),
            leaders: BTreeMap::new(),
            cut_off: Vec::new(),
            slow_disks: Vec::new(),
            small_disks,
            next_id: 0,
            flush,
        };
        for id in IDS {
            trio.open(id, LastLife::Clean);
        }
        trio
    }

    /// Three replicas of which the first leads.
    pub(super) fn led() -> Trio {
        let mut trio = Trio::new(FlushPolicy::Ack);
        trio.run(300);
        assert_eq!(trio.leaders[&FIRST], Some(FIRST));
        trio
    }

    pub(super) fn open(&mut self, id: NodeId, last_life: LastLife) {
        let open = OpenReplica {
            partition: TopicPartition::new(TopicId::CLUSTER, PartitionId(1)),
            dir: self.dir.path().join(id.to_string()),
            voters: IDS.to_vec(),
            learners: Vec::new(),
            moving: Moving::No,
            identity: Identity::Same,
            recovery: None,
            options: options(self.flush),
        };
        let boot = Boot { me: id, incarnation: Incarnation(1), seed: 5 };
        let known = self.saved.get(&id);
        let vouches = match self.flush {
            FlushPolicy::Ack => Counts::Flushed,
            FlushPolicy::Interval { .. } => Counts::Appended,
        };
        let (suspicion, recovery, logged) = (Suspicion::None, None, Logged::Nothing);
        let known = known.map(|hard| Remembered {
            hard: *hard,
            suspicion,
            last_life,
            vouches,
            recovery,
            logged,
        });
        let disk: Arc<dyn Disk> = match self.small_disks.get(&id) {
            Some(disk) => disk.clone(),
            None => Arc::new(MmapDisk::default()),
        };
        let replica = Replica::open(disk, known, open, boot, self.now).expect("it opens");
        self.replicas.insert(id, replica);
    }

    pub(super) fn restart(&mut self, id: NodeId, last_life: LastLife) {
        drop(self.replicas.remove(&id));
        self.open(id, last_life);
        for replica in self.replicas.values_mut() {
            replica.peer_restarted(id);
        }
    }

    pub(super) fn with(&mut self, id: NodeId, act: impl FnOnce(&mut Replica, Millis, &mut Output)) {
        let mut out = Output::default();
        act(self.replicas.get_mut(&id).expect("it is open"), self.now, &mut out);
        self.take(id, out);
    }

    pub(super) fn take(&mut self, id: NodeId, out: Output) {
        self.mail.extend(out.messages.into_iter().map(|message| (id, message)));
        for (request, result) in out.produced {
            let answered = self.answers.insert(request, result.map_err(|error| error.code));
            assert!(answered.is_none(), "{request:?} is answered twice");
        }
        for (request, result) in out.answered {
            self.admin.insert(request, result.map_err(|error| error.code));
        }
        if let Some(news) = out.leadership {
            self.leaders.insert(id, news.leader);
        }
    }

    /// One pass of every replica, all mail delivered and all flushes done, for each 10 ms.
    pub(super) fn run(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now.0 += 10;
            for id in IDS {
                let beats = self.now.0.is_multiple_of(100);
                self.with(id, |replica, now, out| {
                    if replica.next_deadline() <= now {
                        replica.tick(now, out);
                    }
                    if beats {
                        replica.heartbeats(now, out);
                    }
                });
            }
            for _ in 0..4 {
                self.pass();
            }
        }
    }

    pub(super) fn pass(&mut self) {
        for (from, Outgoing { to, lane: _, message }) in std::mem::take(&mut self.mail) {
            if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
                self.with(to, |replica, now, out| replica.receive(now, from, message, out));
            }
        }
        for id in IDS {
            self.with(id, Replica::finish_pass);
            let replica = self.replicas.get_mut(&id).expect("it is open");
            if let Some(hard) = replica.hard_state_if_dirty() {
                self.saved.insert(id, hard);
            }
            replica.vouches_durably(self.now, replica.vouches());
            if self.slow_disks.contains(&id) {
                continue;
            }
            if let Some(files) = replica.take_unflushed(self.now) {
                files.iter().for_each(|file| file.flush().expect("a flush"));
                self.with(id, |replica, now, out| replica.flushed(now, Ok(()), out));
            }
        }
    }

    pub(super) fn produce(&mut self, at: NodeId, acks: AckMode, batch: Bytes) -> RequestId {
        self.produce_in(at, acks, batch, None)
    }

    pub(super) fn produce_in(
        &mut self,
        at: NodeId,
        acks: AckMode,
        batch: Bytes,
        leader_term: Option<Term>,
    ) -> RequestId {
        self.produce_event(at, |event| ProduceEvent { acks, batch, leader_term, ..event })
    }

    pub(super) fn produce_if(
        &mut self,
        at: NodeId,
        acks: AckMode,
        batch: Bytes,
        end: u64,
    ) -> RequestId {
        let expected_end = Some(Offset(end));
        self.produce_event(at, |event| ProduceEvent { acks, batch, expected_end, ..event })
    }

    fn produce_event(
        &mut self,
        at: NodeId,
        with: impl FnOnce(ProduceEvent) -> ProduceEvent,
    ) -> RequestId {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let event = with(ProduceEvent {
            id,
            partition: self.replicas[&at].partition(),
            batch: Bytes::new(),
            acks: AckMode::SemiSync,
            leader_term: None,
            deadline: Millis(self.now.0 + 2_000),
            expected_end: None,
        });
        self.with(at, |replica, now, out| replica.produce(now, event, out));
        id
    }

    pub(super) fn command(&mut self, at: NodeId, command: ReplicaCommand) -> RequestId {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        self.with(at, |replica, now, out| replica.command(now, id, command, out));
        id
    }

    pub(super) fn answer(&self, id: RequestId) -> Option<Answer> {
        self.answers.get(&id).copied()
    }

    pub(super) fn offset(&self, id: RequestId) -> u64 {
        let receipt = self.answer(id).expect("it is answered").expect("it is fine");
        receipt.base_offset.0
    }

    pub(super) fn log_bytes(&self, id: NodeId) -> Vec<u8> {
        let log = &self.replicas[&id].log;
        let read = log.read_frames(log.start().0, usize::MAX >> 1).expect("it reads");
        read.frames.concat()
    }

    pub(super) fn assert_alike(&self) {
        let first = self.log_bytes(FIRST);
        for id in IDS {
            assert_eq!(self.log_bytes(id), first, "{id} has another log");
            let (commit, end) = (self.replicas[&id].raft.commit(), self.replicas[&id].log.end());
            assert_eq!(commit, end, "{id} does not know the commit");
        }
    }
}
