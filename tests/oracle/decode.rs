//! Reads sequences of operations from the bytes of a fuzzer.

use crate::case::{Case, Key, MASKS, Op, SLABS};

/// The rest of the input. Reads beyond its end return zero.
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn below(&mut self, end: u16) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()]) % end
    }

    fn key(&mut self) -> Key {
        self.below(300)
    }

    fn size(&mut self) -> usize {
        usize::from(self.byte())
    }

    fn perhaps<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.byte() % 2 == 1).then(|| some(self))
    }

    /// The next operations: one, or a burst of many inserts or removals.
    fn ops(&mut self) -> Vec<Op> {
        let code = self.byte();
        if code >= 250 {
            let make = if code < 253 { Op::Insert } else { Op::Remove };
            let (from, count) = (self.key(), u16::from(self.byte()));
            return (from..from + count).map(|key| make(key % 300)).collect();
        }
        vec![match code % 28 {
            0 | 1 => Op::Insert(self.key()),
            2 => Op::Replace(self.key()),
            3 => Op::Update(self.key()),
            4 => Op::GetOrInsert(self.key()),
            5 => Op::Remove(self.key()),
            6 => Op::RemoveIf(self.key(), self.byte() % 2 == 0),
            7 => Op::RemoveHandle(self.size()),
            8 => Op::Retain(2 + u64::from(self.byte() % 4)),
            9 => Op::Clear,
            10 => Op::Drain(self.size()),
            11 => Op::Get(self.key()),
            12 => Op::Hold(self.key()),
            13 => Op::LetGo(self.size()),
            14 => Op::Iter,
            15 => Op::ScanOn(1 + self.size()),
            16 => Op::GetMany((0..self.byte() % 40).map(|_| self.key()).collect()),
            17 => Op::ReapIf(self.size(), 1 + u64::from(self.byte() % 4)),
            18 => Op::ReapOlder(u64::from(self.byte())),
            19 => Op::Advance(u64::from(self.byte())),
            20 => Op::ShrinkToFit,
            21 => Op::Reserve(usize::from(self.below(500))),
            22 => Op::Barrier,
            23 => Op::Reclaim(self.size()),
            24 => Op::Reap(self.perhaps(Self::size)),
            25 => Op::MaxAge(self.perhaps(|input| 1 + u64::from(input.below(500)))),
            26 => Op::MaxEntries(self.perhaps(|input| 1 + usize::from(input.below(300)))),
            _ => match self.byte() {
                count @ 0..116 => Op::Evict(count.into()),
                116..120 => Op::ReplaceWithTtl(self.key(), self.byte().into()),
                120..124 => Op::SetTtl(self.size(), self.perhaps(|input| input.byte().into())),
                124..128 => Op::Renew(self.size()),
                count => Op::ShrinkTo(count.into()),
            },
        }]
    }
}

/// Runs the sequence that these bytes encode, and returns the number of its operations.
pub fn run(bytes: &[u8]) -> u64 {
    let mut input = Input(bytes);
    let first = usize::from(input.byte());
    let (mask, slab) = (MASKS[first / 6 % MASKS.len()], SLABS[first / 6 / MASKS.len() % SLABS.len()]);
    let mut case = Case::new([1, 2, 8][first % 3], [0, 100][first / 3 % 2], mask, slab);
    let mut operations = 0;
    while !input.0.is_empty() {
        for op in input.ops() {
            case.run(op);
            operations += 1;
        }
    }
    case.end();
    operations
}
