//! Random sequences of operations, against std's `HashMap`.

mod common;

use common::*;
use epoch_registry::{Cursor, Domain, Handle, ManualClock, Registry};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

type Key = u16;

#[derive(Clone, Debug)]
enum Op {
    Insert(Key),
    Replace(Key),
    Update(Key),
    GetOrInsert(Key),
    Remove(Key),
    RemoveIf(Key, bool),
    RemoveHandle(usize),
    Retain(u64),
    Clear,
    Drain(usize),
    Get(Key),
    Hold(Key),
    LetGo(usize),
    Iter,
    ScanOn(usize),
    GetMany(Vec<Key>),
    ReapIf(usize, u64),
    ReapOlder(u64),
    Advance(u64),
    ShrinkToFit,
    Reserve(usize),
    Barrier,
    Reclaim(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..300u16;
    prop_oneof![
        12 => key().prop_map(Op::Insert),
        6 => key().prop_map(Op::Replace),
        4 => key().prop_map(Op::Update),
        4 => key().prop_map(Op::GetOrInsert),
        10 => key().prop_map(Op::Remove),
        3 => (key(), any::<bool>()).prop_map(|(key, yes)| Op::RemoveIf(key, yes)),
        3 => any::<usize>().prop_map(Op::RemoveHandle),
        1 => (2..6u64).prop_map(Op::Retain),
        1 => Just(Op::Clear),
        1 => (0..100usize).prop_map(Op::Drain),
        6 => key().prop_map(Op::Get),
        4 => key().prop_map(Op::Hold),
        3 => any::<usize>().prop_map(Op::LetGo),
        1 => Just(Op::Iter),
        6 => (1..40usize).prop_map(Op::ScanOn),
        2 => vec(key(), 0..40).prop_map(Op::GetMany),
        2 => (0..60usize, 1..5u64).prop_map(|(budget, modulus)| Op::ReapIf(budget, modulus)),
        2 => (0..200u64).prop_map(Op::ReapOlder),
        2 => (0..100u64).prop_map(Op::Advance),
        1 => Just(Op::ShrinkToFit),
        1 => (0..500usize).prop_map(Op::Reserve),
        1 => Just(Op::Barrier),
        2 => (0..50usize).prop_map(Op::Reclaim),
    ]
}

/// Bursts of inserts and of removals among single operations, so that tables grow and shrink.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let burst = (0..300u16, 0..150u16);
    let some = prop_oneof![
        8 => op().prop_map(|op| vec![op]),
        1 => burst.clone().prop_map(|(from, len)| (from..from + len).map(Op::Insert).collect()),
        1 => burst.prop_map(|(from, len)| (from..from + len).map(Op::Remove).collect()),
    ];
    vec(some, 1..60).prop_map(|parts| parts.concat())
}

/// What the registry should hold: number and time of insertion by key.
#[derive(Default)]
struct Model {
    entries: HashMap<Key, (u64, u64)>,
    now: u64,
    numbers: u64,
    /// Keys that have been there since the cursor began.
    stable: HashSet<Key>,
    met: HashSet<Key>,
}

impl Model {
    fn fresh(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn put(&mut self, key: Key, number: u64) -> Option<u64> {
        self.entries.insert(key, (number, self.now)).map(|(number, _)| number)
    }

    fn remove(&mut self, key: Key) -> Option<u64> {
        self.stable.remove(&key);
        self.entries.remove(&key).map(|(number, _)| number)
    }

    fn number(&self, key: Key) -> Option<u64> {
        self.entries.get(&key).map(|&(number, _)| number)
    }
}

const TICK: u64 = 1 << 24;

struct Case {
    registry: Registry<Key, Counted, FewBits>,
    clock: ManualClock,
    ledger: Ledger,
    model: Model,
    held: Vec<(Handle<Key, Counted>, Key, u64)>,
    cursor: Cursor,
}

impl Case {
    fn new(shards: usize, capacity: usize, mask: u64) -> Self {
        let clock = ManualClock::new();
        let registry = Registry::builder()
            .shards(shards)
            .capacity(capacity)
            .hasher(FewBits { mask })
            .clock(clock.clone())
            .domain(Domain::new())
            .build();
        let (ledger, model) = (Ledger::new(), Model::default());
        Case { registry, clock, ledger, model, held: Vec::new(), cursor: Cursor::new() }
    }

    fn run(&mut self, op: Op) {
        let Case { registry, clock, ledger, model, held, cursor } = self;
        let number_of = |handle: Option<Handle<Key, Counted>>| handle.map(|handle| handle.get());
        match op {
            Op::Insert(key) => {
                let number = model.fresh();
                match registry.insert(key, ledger.value(number)) {
                    Ok(handle) => {
                        assert_eq!((*handle.key(), handle.get()), (key, number));
                        assert_eq!(model.put(key, number), None);
                    }
                    Err(occupied) => {
                        assert_eq!((occupied.key, occupied.value.get()), (key, number));
                        assert_eq!(Some(occupied.entry.get()), model.number(key));
                    }
                }
            }
            Op::Replace(key) => {
                let number = model.fresh();
                let old = number_of(registry.replace(key, ledger.value(number)));
                assert_eq!(old, model.put(key, number));
            }
            Op::Update(key) => {
                let number = model.fresh();
                let mut seen = None;
                let new = registry.update(&key, |_, old| {
                    seen = Some(old.get());
                    ledger.value(number)
                });
                assert_eq!(seen, model.number(key));
                assert_eq!(number_of(new), seen.map(|_| number));
                if seen.is_some() {
                    model.put(key, number);
                }
            }
            Op::GetOrInsert(key) => {
                let number = model.fresh();
                let entry = registry.get_or_insert_with(key, || ledger.value(number));
                let expected = model.number(key).unwrap_or(number);
                assert_eq!(entry.get(), expected);
                if expected == number {
                    model.put(key, number);
                }
            }
            Op::Remove(key) => assert_eq!(number_of(registry.remove(&key)), model.remove(key)),
            Op::RemoveIf(key, yes) => {
                let removed = number_of(registry.remove_if(&key, |_, _| yes));
                assert_eq!(removed, if yes { model.remove(key) } else { None });
            }
            Op::RemoveHandle(index) => {
                if let Some((handle, key, number)) = held.get(index % held.len().max(1)) {
                    let linked = model.number(*key) == Some(*number);
                    assert_eq!(handle.is_unlinked(), !linked);
                    assert_eq!(registry.remove_handle(handle), linked);
                    if linked {
                        model.remove(*key);
                    }
                }
            }
            Op::Retain(modulus) => {
                registry.retain(|_, value| value.get() % modulus != 0);
                let gone: Vec<Key> = model
                    .entries
                    .iter()
                    .filter(|(_, (number, _))| number % modulus == 0)
                    .map(|(&key, _)| key)
                    .collect();
                gone.into_iter().for_each(|key| assert!(model.remove(key).is_some()));
            }
            Op::Clear => {
                registry.clear();
                model.entries.clear();
                model.stable.clear();
            }
            Op::Drain(most) => {
                for handle in registry.drain().take(most) {
                    assert_eq!(Some(handle.get()), model.remove(*handle.key()));
                }
            }
            Op::Get(key) => {
                let guard = registry.pin();
                assert_eq!(guard.get(&key).map(|entry| entry.get()), model.number(key));
                assert_eq!(registry.reader().get(&key).map(|entry| entry.get()), model.number(key));
                assert_eq!(registry.contains_key(&key), model.number(key).is_some());
            }
            Op::Hold(key) => {
                let handle = registry.lookup(&key);
                assert_eq!(handle.as_ref().map(|handle| handle.get()), model.number(key));
                held.extend(handle.map(|handle| (handle.clone(), key, handle.get())));
            }
            Op::LetGo(index) => {
                if !held.is_empty() {
                    held.swap_remove(index % held.len());
                }
            }
            Op::Iter => {
                let met: Vec<_> = registry.pin().iter().map(|entry| (*entry.key(), entry.get())).collect();
                assert_eq!(met.len(), model.entries.len(), "nothing is met twice");
                assert!(met.iter().all(|&(key, number)| model.number(key) == Some(number)));
            }
            Op::ScanOn(budget) => {
                if *cursor == Cursor::new() {
                    model.stable = model.entries.keys().copied().collect();
                    model.met.clear();
                }
                registry.scan(cursor, budget, |entry| {
                    assert_eq!(model.entries[entry.key()].0, entry.get());
                    model.met.insert(*entry.key());
                });
                if cursor.is_done() {
                    assert!(model.stable.is_subset(&model.met), "a key that was there all the time is missed");
                    *cursor = Cursor::new();
                }
            }
            Op::GetMany(keys) => {
                let guard = registry.pin();
                let mut results = Vec::new();
                guard.get_batch(&keys, |key, entry| results.push((*key, entry.map(|entry| entry.get()))));
                let mut handles = Vec::new();
                guard.lookup_batch(&keys, |key, entry| handles.push((*key, entry.map(|entry| entry.get()))));
                let expected: Vec<_> = keys.iter().map(|&key| (key, model.number(key))).collect();
                assert_eq!((&results, &handles), (&expected, &expected));
                if let [a, b, c, ..] = &keys[..] {
                    let found = guard.get_many([a, b, c]).map(|entry| entry.map(|entry| entry.get()));
                    assert_eq!(found, [a, b, c].map(|&key| model.number(key)));
                }
            }
            Op::ReapIf(budget, modulus) => {
                let mut condemned = HashSet::new();
                let reaped = registry.reap_if(budget, |entry| {
                    assert_eq!(Some(entry.get()), model.number(*entry.key()));
                    let yes = entry.get() % modulus == 0;
                    yes && condemned.insert(*entry.key())
                });
                assert_eq!(reaped.removed, condemned.len());
                condemned.into_iter().for_each(|key| assert!(model.remove(key).is_some()));
            }
            Op::ReapOlder(millis) => {
                let age = Duration::from_millis(millis);
                let ticks = (age.as_nanos() as u64).div_ceil(TICK);
                let now = model.now / TICK;
                let old: Vec<Key> = model
                    .entries
                    .iter()
                    .filter(|(_, (_, stamp))| now - stamp / TICK > ticks)
                    .map(|(&key, _)| key)
                    .collect();
                assert_eq!(registry.reap_older_than(age, usize::MAX).removed, old.len());
                old.into_iter().for_each(|key| assert!(model.remove(key).is_some()));
            }
            Op::Advance(millis) => {
                clock.advance(Duration::from_millis(millis));
                model.now += millis * 1_000_000;
            }
            Op::ShrinkToFit => registry.shrink_to_fit(),
            Op::Reserve(capacity) => {
                registry.reserve(capacity);
                assert!(registry.capacity() >= capacity);
            }
            Op::Barrier => {
                registry.domain().barrier();
                self.check_accounts();
            }
            Op::Reclaim(budget) => assert!(registry.domain().reclaim(budget) <= budget),
        }
    }

    /// After a barrier: everything that is neither in the registry nor held is destroyed, and nothing else.
    fn check_accounts(&self) {
        let mut alive: HashSet<u64> = self.model.entries.values().map(|&(number, _)| number).collect();
        alive.extend(self.held.iter().map(|(handle, ..)| handle.get()));
        assert_eq!(self.ledger.live(), alive.len() as u64);
        let stats = self.registry.stats();
        assert_eq!(stats.live as usize, self.model.entries.len());
        assert_eq!(stats.live + stats.removed + stats.replaced + stats.reaped, stats.inserted, "{stats}");
        assert_eq!(stats.live + stats.backlog + stats.freed, stats.inserted, "{stats}");
        assert_eq!(stats.backlog as usize, alive.len() - self.model.entries.len(), "{stats}");
        assert_eq!(self.registry.len(), self.model.entries.len());
    }

    fn end(self) {
        self.registry.domain().barrier();
        self.check_accounts();
        let Case { registry, ledger, held, .. } = self;
        let domain = registry.domain().clone();
        drop(registry);
        assert!(held.iter().all(|(handle, key, number)| handle.key() == key && handle.get() == *number));
        drop(held);
        domain.barrier();
        assert_eq!(ledger.live(), 0);
    }
}

/// All keys in one home; few homes and no tags; few homes and shards; tags alone; a good hash.
const MASKS: [u64; 5] = [0, 0x3, 0xc000_0003, 0x7f << 40, u64::MAX];

proptest! {
    #![proptest_config(ProptestConfig { cases: times(2000) as u32, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_agrees_with_a_hash_map(
        shards in select(&[1usize, 2, 8][..]),
        capacity in select(&[0usize, 100][..]),
        mask in select(&MASKS[..]),
        ops in ops(),
    ) {
        let mut case = Case::new(shards, capacity, mask);
        for op in ops {
            case.run(op);
        }
        case.end();
    }
}
