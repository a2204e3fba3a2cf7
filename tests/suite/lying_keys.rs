//! Keys whose `Hash` and `Eq` do not agree (lying keys). A lookup may not find their entries. Nothing worse may happen.
//!
//! Honest keys share a registry with them, and often a bucket and a tag. An honest key equals only itself, and no lying
//! key has its hash. So a lying key must not affect an honest one, whatever it claims to equal.

use crate::common::*;
use epoch_registry::{Cause, Cursor, Domain, Handle, Registry, Scan, WhenFull, policy};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a lying key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Equal to every key.
    AllEqual,
    /// Equal to no key, not even to itself.
    NoneEqual,
    /// Equal to a key or not, by chance.
    SomeEqual,
    /// Equal to every key, with a different hash at each call.
    HashByCall,
    /// Equal to itself, with a hash that depends on a switch.
    HashBySwitch,
}

const LIES: [Lie; 5] = [Lie::AllEqual, Lie::NoneEqual, Lie::SomeEqual, Lie::HashByCall, Lie::HashBySwitch];

thread_local! {
    static CHANCE: RefCell<Rng> = RefCell::new(Rng::new(1));
    static SWITCH: Cell<u64> = const { Cell::new(0) };
}

fn chance(of: u64) -> u64 {
    CHANCE.with_borrow_mut(|rng| rng.below(of))
}

#[derive(Clone, Copy, Debug)]
enum Is {
    Honest(u64),
    Lying(u64, Lie),
}

/// A key that counts its copies and their drops.
struct Key {
    is: Is,
    counted: Counted,
    ledger: Ledger,
}

impl Key {
    fn lies(&self) -> bool {
        matches!(self.is, Is::Lying(..))
    }
}

/// The hasher passes this number on. A bit of the low half is set in the hashes of lying keys, and not set in those of
/// honest keys.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert_eq!(self.counted.get(), 0);
        state.write_u64(match self.is {
            Is::Honest(n) => spread(n),
            Is::Lying(_, Lie::HashByCall) => spread(chance(1000)) | LYING,
            Is::Lying(n, Lie::HashBySwitch) => spread(n + SWITCH.get()) | LYING,
            Is::Lying(n, _) => spread(n) | LYING,
        });
    }
}

/// The bit lies above the bits that choose a bucket of a small table, and below the bits that choose the shard.
const LYING: u64 = 1 << 20;

/// A hash with two possible tags, and with a low half that chooses shards and buckets.
fn spread(n: u64) -> u64 {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 31 & 1) << 40 | mixed >> 32) & !LYING
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        assert_eq!(self.counted.get() + other.counted.get(), 0);
        match (&self.is, &other.is) {
            (Is::Honest(one), Is::Honest(two)) => one == two,
            (Is::Honest(_), Is::Lying(..)) => false,
            (Is::Lying(_, Lie::AllEqual | Lie::HashByCall), _) => true,
            (Is::Lying(_, Lie::NoneEqual), _) => false,
            (Is::Lying(_, Lie::SomeEqual), _) => chance(2) == 0,
            (Is::Lying(one, Lie::HashBySwitch), Is::Lying(two, _)) => one == two,
            (Is::Lying(_, Lie::HashBySwitch), Is::Honest(_)) => false,
        }
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        Key { is: self.is, counted: self.ledger.value(0), ledger: self.ledger.clone() }
    }
}

/// A hasher that returns the number that a key writes, without the bits that are masked out.
#[derive(Default)]
struct AsItIs<const MASK: u64>(u64);

impl<const MASK: u64> Hasher for AsItIs<MASK> {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys write one number");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number & MASK;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Lies<const MASK: u64> = Registry<Key, Counted, BuildHasherDefault<AsItIs<MASK>>>;

/// All bits of the hash, or ten bits of the low half and two tags, so that buckets overflow, or no bits at all.
const ALL: u64 = u64::MAX;
const FEW: u64 = 1 << 40 | 0x3ff;
const NONE: u64 = 0;

/// The key of an operation.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Honest(u64),
    Lying(u64, usize),
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Whose),
    Replace(Whose),
    TryReplace(Whose),
    GetOrInsert(Whose),
    Remove(Whose),
    RemoveIf(Whose),
    Update(Whose),
    ReplaceHandle(Whose),
    RemoveHandle(Whose),
    Get(Whose),
    Switch(u64),
    Evict(usize),
    Retain(u64),
    Drain(usize),
    Clear,
    Iterate,
    ReapIf(usize),
    ReapBy(usize),
    Reap(u64),
    ShrinkToFit,
    Reserve(usize),
    MaxEntries(Option<usize>),
    MaxWeight(Option<u64>),
}

fn whose() -> impl Strategy<Value = Whose> {
    prop_oneof![
        3 => (0..60u64).prop_map(Whose::Honest),
        4 => (0..60u64, 0..LIES.len()).prop_map(|(n, lie)| Whose::Lying(n, lie)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => whose().prop_map(Op::Insert),
        8 => whose().prop_map(Op::Replace),
        2 => whose().prop_map(Op::TryReplace),
        4 => whose().prop_map(Op::GetOrInsert),
        8 => whose().prop_map(Op::Remove),
        4 => whose().prop_map(Op::RemoveIf),
        4 => whose().prop_map(Op::Update),
        2 => whose().prop_map(Op::ReplaceHandle),
        2 => whose().prop_map(Op::RemoveHandle),
        4 => whose().prop_map(Op::Get),
        2 => (0..100u64).prop_map(Op::Switch),
        1 => (0..30usize).prop_map(Op::Evict),
        1 => (2..6u64).prop_map(Op::Retain),
        1 => (0..50usize).prop_map(Op::Drain),
        1 => Just(Op::Clear),
        1 => Just(Op::Iterate),
        1 => (0..60usize).prop_map(Op::ReapIf),
        1 => (0..60usize).prop_map(Op::ReapBy),
        1 => (0..100u64).prop_map(Op::Reap),
        2 => Just(Op::ShrinkToFit),
        1 => (0..2000usize).prop_map(Op::Reserve),
        1 => proptest::option::of(1..60usize).prop_map(Op::MaxEntries),
        1 => proptest::option::of(200..6000u64).prop_map(Op::MaxWeight),
    ]
}

/// Bursts of insertions among single operations, so that tables grow and shrink.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let burst = (any::<bool>(), 0..400u64, 0..120u64, 0..LIES.len());
    let burst = burst.prop_map(|(honest, from, len, lie)| {
        let whose = move |n| if honest { Whose::Honest(n) } else { Whose::Lying(n, lie) };
        (from..from + len).map(|n| Op::Insert(whose(n))).collect()
    });
    let part = prop_oneof![12 => op().prop_map(|op| vec![op]), 1 => burst];
    vec(part, 1..120).prop_map(|parts| parts.concat())
}

/// Honest entries that have left: key, value and cause.
type Left = Arc<Mutex<Vec<(u64, u64, Cause)>>>;

/// A registry, and a model of its honest entries.
struct Case<const MASK: u64> {
    registry: Lies<MASK>,
    keys: Ledger,
    values: Ledger,
    honest: HashMap<u64, u64>,
    left: Left,
    clock: epoch_registry::ManualClock,
    written: u64,
}

impl<const MASK: u64> Case<MASK> {
    fn new(shards: usize) -> Self {
        let left = Left::default();
        let told = Arc::clone(&left);
        let clock = epoch_registry::ManualClock::new();
        let registry = Registry::builder()
            .shards(shards)
            .domain(Domain::new())
            .clock(clock.clone())
            .max_age(Duration::from_secs(1000))
            .listener(move |cause, entry: Handle<Key, Counted>| {
                if let Is::Honest(n) = entry.key().is {
                    told.lock().unwrap().push((n, entry.get(), cause));
                }
            })
            .hasher(BuildHasherDefault::default())
            .build();
        let (keys, values) = (Ledger::new(), Ledger::new());
        Case { registry, keys, values, honest: HashMap::new(), left, clock, written: 0 }
    }

    fn key(&self, whose: Whose) -> Key {
        let is = match whose {
            Whose::Honest(n) => Is::Honest(n),
            Whose::Lying(n, lie) => Is::Lying(n, LIES[lie]),
        };
        Key { is, counted: self.keys.value(0), ledger: self.keys.clone() }
    }

    fn value(&mut self) -> Counted {
        self.written += 1;
        self.values.value(self.written)
    }

    /// Runs an operation, and updates the model of the honest entries.
    fn run(&mut self, op: &Op) {
        let mut calls = 0;
        // No call may loop endlessly.
        let mut called = || {
            calls += 1;
            assert!(calls < 1000, "a call loops endlessly");
        };
        match *op {
            Op::Insert(whose) => {
                let inserted = self.registry.try_insert(self.key(whose), self.values.value(self.written + 1));
                self.written += 1;
                match (whose, inserted) {
                    (Whose::Honest(n), Ok(entry)) => {
                        assert!(MASK != ALL || !self.honest.contains_key(&n), "{n} is present twice");
                        self.honest.insert(n, entry.get());
                    }
                    (Whose::Honest(n), Err(occupied)) if MASK == ALL => {
                        assert!(self.honest.contains_key(&n), "{n} is taken by {:?}", occupied.entry.key().is);
                    }
                    _ => {}
                }
            }
            Op::Replace(whose) | Op::TryReplace(whose) => {
                let (key, value) = (self.key(whose), self.value());
                let number = value.get();
                match op {
                    Op::TryReplace(_) => drop(self.registry.fallible().insert(key, value)),
                    _ => drop(self.registry.insert(key, value)),
                }
                if let Whose::Honest(n) = whose {
                    self.leave();
                    self.honest.insert(n, number);
                }
            }
            Op::GetOrInsert(whose) => {
                let (key, value) = (self.key(whose), self.value());
                let entry = self.registry.get_or_insert_with(key, || value);
                if let (Whose::Honest(n), Is::Honest(m)) = (whose, &entry.key().is) {
                    assert_eq!(n, *m);
                    self.leave();
                    self.honest.insert(n, entry.get());
                } else if let Whose::Honest(n) = whose {
                    assert!(MASK != ALL, "{n} is taken by {:?}", entry.key().is);
                }
            }
            Op::Remove(whose) => drop(self.registry.remove(&self.key(whose))),
            Op::RemoveIf(whose) => {
                drop(self.registry.remove_if(&self.key(whose), |_, _| {
                    called();
                    true
                }));
            }
            Op::Update(whose) => {
                let (key, values) = (self.key(whose), self.values.clone());
                let mut written = self.written;
                let updated = self.registry.update(&key, |_, _| {
                    called();
                    written += 1;
                    values.value(written)
                });
                self.written = written;
                self.leave();
                if let (Some(entry), Whose::Honest(n)) = (updated, whose) {
                    self.honest.insert(n, entry.get());
                }
            }
            Op::ReplaceHandle(whose) => {
                let key = self.key(whose);
                if let Some(entry) = self.registry.lookup(&key) {
                    let value = self.value();
                    let new = self.registry.replace_handle(&entry, value).ok().expect("the entry is in the registry");
                    self.leave();
                    if let Is::Honest(n) = new.key().is {
                        self.honest.insert(n, new.get());
                    }
                }
            }
            Op::RemoveHandle(whose) => {
                if let Some(entry) = self.registry.lookup(&self.key(whose)) {
                    assert!(
                        self.registry.remove_handle(&entry),
                        "remove_handle did not find an entry that is in the registry"
                    );
                    assert!(entry.is_unlinked());
                }
            }
            Op::Get(whose) => drop(self.registry.lookup(&self.key(whose))),
            Op::Switch(to) => SWITCH.set(to),
            Op::Evict(count) => assert!(self.registry.evict(count) <= count),
            Op::Retain(modulus) => self.registry.retain(|_, value| value.get() % modulus != 0),
            Op::Drain(count) => assert!(self.registry.drain().take(count).count() <= count),
            Op::Clear => self.registry.clear(),
            Op::Iterate => {
                let guard = self.registry.pin();
                guard.iter().for_each(|entry| assert_eq!(entry.key().counted.get(), 0));
            }
            Op::ReapIf(budget) => drop(self.registry.reap_if(budget, |entry| entry.get() % 2 == 0).to_owned()),
            Op::ReapBy(budget) => {
                let some = policy::when::<Key, Counted>(|candidate| candidate.entry().get() % 3 == 0);
                self.registry.reap_by(&some, &mut Scan::new(budget));
            }
            Op::Reap(seconds) => {
                self.clock.advance(Duration::from_secs(seconds));
                self.registry.expire(usize::MAX);
            }
            Op::ShrinkToFit => self.registry.shrink_to_fit(),
            Op::Reserve(capacity) => self.registry.reserve(capacity),
            Op::MaxEntries(bound) => self.registry.set_max_entries(bound),
            Op::MaxWeight(bound) => self.registry.set_max_weight(bound),
        }
    }

    /// Removes the honest entries that have left from the model.
    fn leave(&mut self) {
        for (n, value, _) in self.left.lock().unwrap().drain(..) {
            if self.honest.get(&n) == Some(&value) {
                self.honest.remove(&n);
            }
        }
    }

    /// Checks that `op` removed no honest entry except its own. Evicted and expired entries do not count.
    fn is_blameless(&self, op: &Op) {
        let (Op::Insert(whose)
        | Op::Replace(whose)
        | Op::TryReplace(whose)
        | Op::GetOrInsert(whose)
        | Op::Remove(whose)
        | Op::RemoveIf(whose)
        | Op::Update(whose)) = *op
        else {
            return;
        };
        for &(n, _, cause) in &*self.left.lock().unwrap() {
            let own = matches!(whose, Whose::Honest(m) if m == n);
            assert!(own || matches!(cause, Cause::Capacity | Cause::Expired), "{op:?}: honest {n} was {cause}");
        }
    }

    /// Checks that lookups find exactly the honest entries of the model.
    fn is_honest(&self, what: &dyn std::fmt::Debug) {
        for n in 0..520 {
            let found = self.registry.lookup(&self.key(Whose::Honest(n))).map(|entry| entry.get());
            assert_eq!(found, self.honest.get(&n).copied(), "honest {n}, after {what:?}");
        }
        let honest = self.registry.pin().iter().filter(|entry| !entry.key().lies()).count();
        assert_eq!(honest, self.honest.len(), "after {what:?}");
    }

    /// Checks that exactly the entries in the registry were made and not destroyed.
    fn is_exact(&self) {
        self.registry.domain().barrier();
        let (len, met) = (self.registry.len(), self.registry.pin().iter().count());
        let stats = self.registry.stats();
        assert_eq!((met, stats.live, stats.backlog), (len, len as u64, 0), "{stats}");
        assert_eq!((self.keys.live(), self.values.live()), (len as u64, len as u64), "{stats}");
    }

    fn ends(mut self) {
        self.is_exact();
        // Every entry can be removed, by its handle or by `retain`.
        let handles: Vec<_> = self.registry.pin().iter().filter_map(|entry| entry.handle()).collect();
        handles.iter().step_by(2).for_each(|entry| assert!(self.registry.remove_handle(entry)));
        drop(handles);
        self.is_exact();
        self.registry.retain(|_, _| false);
        assert_eq!((self.registry.len(), self.registry.weight()), (0, 0));
        self.is_exact();
        for n in 0..50 {
            self.run(&Op::Insert(Whose::Lying(n, n as usize % LIES.len())));
        }
        self.is_exact();
        let Case { registry, keys, values, .. } = self;
        drop(registry);
        assert_eq!((keys.live(), values.live()), (0, 0));
    }
}

/// Runs a sequence of operations, after which all counts must be exact. If only lying keys collide, honest keys must
/// not be affected.
fn lies_do_no_harm<const MASK: u64>(shards: usize, ops: &[Op]) {
    CHANCE.set(Rng::new(ops.len() as u64));
    SWITCH.set(0);
    let mut case = Case::<MASK>::new(shards);
    for op in ops {
        case.run(op);
        if MASK == ALL {
            case.is_blameless(op);
            case.leave();
        }
    }
    if MASK == ALL {
        case.is_honest(&"all");
    }
    case.ends();
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: times(100) as u32, failure_persistence: None, ..ProptestConfig::default() }
}

/// Whether the operation looks an entry up by a lying key, and then writes to that entry.
fn reads_a_lying_key(op: &Op) -> bool {
    matches!(op, Op::RemoveIf(Whose::Lying(..)) | Op::Update(Whose::Lying(..)))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_sequence_of_lies_does_no_harm(shards in 0..3u32, ops in ops()) {
        let ops: Vec<_> = ops.into_iter().filter(|op| !reads_a_lying_key(op)).collect();
        in_time(|| lies_do_no_harm::<ALL>(1 << shards, &ops));
    }

    /// `update` and `remove_if` look an entry up before they write.
    #[test]
    fn any_sequence_of_lies_with_updates_does_no_harm(shards in 0..3u32, ops in ops()) {
        in_time(|| lies_do_no_harm::<ALL>(1 << shards, &ops));
    }

    #[test]
    fn any_sequence_of_lies_in_few_buckets_loses_no_entry(shards in 0..3u32, ops in ops()) {
        in_time(|| lies_do_no_harm::<FEW>(1 << shards, &ops));
    }

    #[test]
    fn any_sequence_of_lies_with_one_hash_loses_no_entry(ops in ops()) {
        in_time(|| lies_do_no_harm::<NONE>(1, &ops));
    }
}

/// The shortest sequences that can do harm, with every kind of lie.
#[test]
fn one_lie_does_no_harm() {
    type Lying = fn(Whose) -> Op;
    let writes: [Lying; 5] = [Op::Insert, Op::Replace, Op::TryReplace, Op::GetOrInsert, Op::Remove];
    one_lie_of_does_no_harm(&writes);
}

#[test]
fn one_lie_in_an_update_or_conditional_removal_does_no_harm() {
    one_lie_of_does_no_harm(&[Op::Update, Op::RemoveIf]);
}

fn one_lie_of_does_no_harm(lying: &[fn(Whose) -> Op]) {
    let honest: [fn(Whose) -> Op; 5] = [Op::Insert, Op::Replace, Op::GetOrInsert, Op::Update, Op::Remove];
    in_time(|| {
        for lie in 0..LIES.len() {
            for &lying in lying {
                for honest in honest {
                    let mut ops = Vec::new();
                    ops.extend((0..8).map(|n| Op::Insert(Whose::Lying(n, lie))));
                    ops.extend((0..8).map(|n| Op::Insert(Whose::Honest(n))));
                    ops.extend((0..8).map(|n| lying(Whose::Lying(n, lie))));
                    ops.extend((0..8).map(|n| honest(Whose::Honest(n))));
                    // These operations move all entries.
                    ops.extend([Op::Reserve(2000), Op::ShrinkToFit, Op::Reserve(0), Op::ShrinkToFit]);
                    ops.extend((0..8).map(|n| lying(Whose::Lying(n, lie))));
                    ops.push(Op::Evict(3));
                    lies_do_no_harm::<ALL>(1, &ops);
                }
            }
        }
    });
}

/// The backlog is limited. No lie loses a place in it.
#[test]
fn lying_keys_lose_no_place_in_the_backlog() {
    in_time(|| {
        for lie in 0..LIES.len() {
            let mut case = Case::<ALL>::new(1);
            let domain = Domain::builder().backlog_objects(20).when_full(WhenFull::Refuse).build();
            let builder = Registry::builder().shards(1).domain(domain.clone());
            case.registry = builder.hasher(BuildHasherDefault::default()).build();
            for n in 0..300 {
                case.run(&Op::Insert(Whose::Honest(n % 7)));
                case.run(&Op::Replace(Whose::Lying(n % 5, lie)));
                case.run(&Op::TryReplace(Whose::Honest(n % 3)));
                case.run(&Op::Remove(Whose::Lying(n % 11, lie)));
                if n % 50 == 0 {
                    case.is_exact();
                }
            }
            let mut cursor = Cursor::new();
            while !cursor.is_done() {
                let _ = case.registry.fallible().retain(&mut cursor, |_, _| false);
                domain.barrier();
            }
            case.is_exact();
            assert_eq!(case.registry.len(), 0);
        }
    });
}

/// Lookups of some threads find lying keys that other threads write.
#[test]
fn lies_of_several_threads_lose_no_entry() {
    in_time(|| {
        let case = Case::<ALL>::new(2);
        (0..200).for_each(|n| drop(case.registry.try_insert(case.key(Whose::Honest(n)), case.values.value(n))));
        std::thread::scope(|scope| {
            for seed in 0..3 {
                let case = &case;
                scope.spawn(move || {
                    CHANCE.set(Rng::new(seed + 1));
                    let mut rng = Rng::new(seed + 1);
                    for n in 0..times(20_000) as u64 {
                        let key = case.key(Whose::Lying(rng.below(60), rng.below(LIES.len() as u64) as usize));
                        match rng.below(8) {
                            0..3 => drop(case.registry.try_insert(key, case.values.value(n))),
                            3 => drop(case.registry.insert(key, case.values.value(n))),
                            4 => drop(case.registry.get_or_insert_with(key, || case.values.value(n))),
                            5 => drop(case.registry.lookup(&key)),
                            _ => drop(case.registry.remove(&key)),
                        }
                        let honest = rng.below(200);
                        let found = case.registry.with(&case.key(Whose::Honest(honest)), |entry| entry.get());
                        assert_eq!(found, Some(honest));
                        if n % 1000 == 0 {
                            case.registry.shrink_to_fit();
                        }
                        // Only a walk can remove keys that are equal to no key.
                        if n % 500 == 0 {
                            case.registry.retain(|key, _| !key.lies());
                        }
                    }
                });
            }
        });
        case.is_exact();
        case.ends();
    });
}
