//! A right history, told in full: one range of two partitions, three members, epochs that pass, readers at different
//! speeds, retention, and all dumps. Decisions follow from a seed. A test changes what is in it before it is written.

use crate::*;

pub(super) const PARTITIONS: u32 = 2;
pub(super) const RANGE: u32 = 5;

/// SplitMix64.
#[derive(Clone)]
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub record: RecordId,
    pub invoked: Time,
    pub answer: Option<Answer>,
}

#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub poll: Poll,
    pub records: Vec<(u64, Result<RecordId, Damage>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub name: String,
    pub partition: u32,
    pub from: u64,
    pub last: bool,
    pub answers: Vec<Answered>,
}

/// A history that can still be changed.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub sent: Vec<Sent>,
    pub readers: Vec<Reader>,
    pub owners: Vec<(Owner, Time, Time)>,
    pub logs: Vec<LogDump>,
    pub dumps: Vec<RecordDump>,
    pub stored: Vec<Vec<RecordId>>,
    pub now: Time,
    pub epoch: u64,
}

pub(super) fn member(node: u64) -> Member {
    Member { node: node as u32, life: 100 + node }
}

pub(super) fn owner(epoch: u64) -> Owner {
    Owner { range: RANGE, epoch, head: member(epoch % 3) }
}

impl World {
    /// `deeds` things done at random, then final reads and dumps.
    pub fn new(seed: u64, deeds: usize) -> Self {
        let mut random = Random(seed);
        let mut world = Self { epoch: 1, now: 1, stored: vec![Vec::new(); PARTITIONS as usize], ..Self::default() };
        for (name, partition) in (0..4).map(|reader| (format!("reader {reader}"), reader % PARTITIONS)) {
            world.readers.push(Reader { name, partition, from: 0, last: false, answers: Vec::new() });
        }
        let mut sequences = [0u64; 3];
        for _ in 0..deeds {
            match random.below(20) {
                0 => world.epoch += 1,
                1..=6 => {
                    let reader = random.below(world.readers.len() as u64) as usize;
                    world.poll(reader, 1 + random.below(8) as usize);
                }
                _ => {
                    let producer = random.below(3) as usize;
                    sequences[producer] += 1;
                    world.send(producer as u32, sequences[producer], &mut random);
                }
            }
        }
        world.end();
        world
    }

    fn send(&mut self, producer: u32, sequence: u64, random: &mut Random) {
        let partition = random.below(u64::from(PARTITIONS)) as u32;
        let record = RecordId { producer, partition, sequence };
        // Others begin before this one ends.
        let invoked = self.now.saturating_sub(random.below(3)).max(1);
        self.now += 2;
        let log = &mut self.stored[partition as usize];
        let fate = random.below(12);
        let place = (fate > 1).then_some(log.len() as u64);
        if place.is_some() {
            log.push(record);
        }
        let outcome = match (fate, place) {
            (0, _) => Some(Outcome::Failed),
            (3, _) => Some(Outcome::Stored),
            (4.., Some(place)) => Some(Outcome::Acknowledged(place)),
            _ => None,
        };
        let returned = self.now;
        let by = Some(owner(self.epoch)).filter(|_| outcome.is_some_and(Outcome::is_acknowledged));
        let answer = outcome.map(|outcome| Answer { outcome, returned, owner: by });
        self.sent.push(Sent { record, invoked, answer });
    }

    /// A reader asks for some records more.
    fn poll(&mut self, reader: usize, records_max: usize) {
        let (invoked, committed) = (self.now, self.stored[self.readers[reader].partition as usize].len() as u64);
        self.now += 1;
        let poll = Poll {
            invoked,
            returned: self.now,
            member: Some(member(reader as u64 % 3)),
            epoch: Some(self.epoch),
            committed: Some(committed),
            log_start: Some(0),
        };
        self.now += 1;
        let reader = &mut self.readers[reader];
        let log = &self.stored[reader.partition as usize];
        let at = reader.from + reader.answers.iter().map(|answer| answer.records.len() as u64).sum::<u64>();
        let left = log.iter().zip(0u64..).skip(at as usize);
        let records = left.take(records_max).map(|(&record, offset)| (offset, Ok(record))).collect();
        reader.answers.push(Answered { poll, records });
    }

    fn end(&mut self) {
        for partition in 0..PARTITIONS {
            let name = format!("last {partition}");
            self.readers.push(Reader { name, partition, from: 0, last: true, answers: Vec::new() });
            self.poll(self.readers.len() - 1, usize::MAX);
            let log = &self.stored[partition as usize];
            for node in 0..3 {
                let records = log.iter().zip(0u64..).map(|(&record, offset)| (offset, Ok(record))).collect();
                let end = log.len() as u64;
                self.dumps.push(RecordDump { partition, member: member(node), first: 0, end, records });
            }
        }
        for node in 0..3 {
            let entry = |index| LogEntry { index, epoch: 1 + index / 10, hash: index * 77 };
            let entries = (1..=40).map(entry).collect();
            // One of them keeps a tail that was never committed, and one has forgotten the beginning.
            let (first, committed) = ([1, 1, 7][node as usize], [40, 30, 40][node as usize]);
            self.logs.push(LogDump { range: RANGE, member: member(node), first, committed, entries });
        }
        self.logs[1].entries[35].hash = 1;
    }

    pub fn history(&self) -> History {
        let mut history = History::default();
        for sent in &self.sent {
            history.attempt_at(sent.record, sent.invoked);
            sent.answer.into_iter().for_each(|answer| history.answered(sent.record, answer));
        }
        for reader in &self.readers {
            let session = history.session(&*reader.name, reader.partition, reader.from);
            for answer in &reader.answers {
                history.poll(session, answer.poll);
                answer.records.iter().for_each(|(at, record)| history.read_record(session, *at, record.clone()));
            }
            if reader.last {
                history.finished(session);
            }
        }
        self.owners.iter().for_each(|&(owner, invoked, known)| history.owner(owner, invoked, known));
        self.logs.iter().for_each(|dump| history.log_dump(dump.clone()));
        self.dumps.iter().for_each(|dump| history.record_dump(dump.clone()));
        history
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.history().check().kinds().into_keys().collect()
    }

    /// One more record at the end of a partition, and of all that read and hold it in the end.
    pub fn append(&mut self, record: RecordId) {
        let log = &mut self.stored[record.partition as usize];
        log.push(record);
        let offset = log.len() as u64 - 1;
        for answer in self.last(record.partition) {
            answer.records.push((offset, Ok(record)));
            answer.poll.committed = Some(offset + 1);
        }
        for dump in self.dumps.iter_mut().filter(|dump| dump.partition == record.partition) {
            dump.records.push((offset, Ok(record)));
            dump.end = offset + 1;
        }
    }

    /// Notes that a record is sent, after all else, and its answer.
    pub fn attempt(&mut self, record: RecordId, outcome: Option<Outcome>) {
        let (invoked, returned) = (self.now + 1, self.now + 2);
        self.now += 3;
        let answer = outcome.map(|outcome| Answer { outcome, returned, owner: None });
        self.sent.push(Sent { record, invoked, answer });
    }

    /// The answers to the final reader of a partition.
    pub fn last(&mut self, partition: u32) -> impl Iterator<Item = &mut Answered> {
        let last = self.readers.iter_mut().filter(move |reader| reader.last && reader.partition == partition);
        last.flat_map(|reader| &mut reader.answers)
    }

    /// A reader that was not there before gets these records of partition 0, before the final one is done.
    pub fn early(&mut self, from: u64, records: &[(u64, RecordId)]) {
        let records = records.iter().map(|&(offset, record)| (offset, Ok(record))).collect();
        let answers = vec![Answered { poll: Poll::default(), records }];
        self.readers.insert(0, Reader { name: "early".into(), partition: 0, from, last: false, answers });
    }

    /// What retention took from partition 0, told by its final reader, which begins behind it.
    pub fn retain_from(&mut self, start: u64) {
        for answer in self.last(0) {
            answer.poll.log_start = Some(start);
            answer.records.retain(|(offset, _)| *offset >= start);
        }
    }
}
