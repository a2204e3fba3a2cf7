//! A registry, and a model of its contents in std's `HashMap`.

use crate::common::*;
use epoch_registry::{Cause, Cursor, Domain, Handle, ManualClock, Registry, SlabSize};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub type Key = u16;

#[derive(Clone, Debug)]
pub enum Op {
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
    /// Reaps expired entries. Without a budget it reaps all of them.
    Reap(Option<usize>),
    MaxAge(Option<u64>),
    /// Replaces by an entry with a time to live, in milliseconds.
    ReplaceWithTtl(Key, u64),
    /// Sets the time to live of a held entry.
    SetTtl(usize, Option<u64>),
    /// Asks the lifetime function again about a held entry.
    Renew(usize),
    MaxEntries(Option<usize>),
    Evict(usize),
    ShrinkTo(usize),
    Advance(u64),
    ShrinkToFit,
    Reserve(usize),
    Barrier,
    Reclaim(usize),
}

/// What the registry should contain: for each key the number and time of insertion of its entry.
#[derive(Default)]
struct Model {
    max_age: Option<u64>,
    entries: HashMap<Key, (u64, u64)>,
    /// The last time of each entry whose end was set, by number.
    fixed: HashMap<u64, u64>,
    /// The keys, by number, of entries that have expired but were not reaped yet. They count as absent.
    expired: HashMap<u64, Key>,
    now: u64,
    numbers: u64,
    /// The keys that have been present since the cursor began.
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

    /// Returns the last time at which the entry of `key` lives, or `u64::MAX`.
    fn last_time(&self, key: Key) -> u64 {
        let (number, inserted) = self.entries[&key];
        let limit = || life(key).into_iter().chain(self.max_age).min();
        self.fixed.get(&number).copied().unwrap_or_else(|| limit().map_or(u64::MAX, |limit| inserted + limit * MILLI))
    }

    /// Sets the last time of the entry of `key`, unless the maximum age is earlier.
    fn fix(&mut self, key: Key, last: Option<u64>) {
        let (number, inserted) = self.entries[&key];
        let by_age = self.max_age.map_or(u64::MAX, |age| inserted + age * MILLI);
        self.fixed.insert(number, last.unwrap_or(u64::MAX).min(by_age));
    }

    /// Moves entries that have outlived their limit to `expired`.
    fn expire(&mut self) {
        let past: Vec<Key> = self.entries.keys().copied().filter(|&key| self.now > self.last_time(key)).collect();
        for key in past {
            if let Some(number) = self.remove(key) {
                self.expired.insert(number, key);
            }
        }
    }

    /// The number of entries in the registry, with the expired ones.
    fn len(&self) -> usize {
        self.entries.len() + self.expired.len()
    }

    /// Applies what the listener was told of an entry that left.
    fn hear(&mut self, (cause, key, number): (Cause, Key, u64)) {
        match cause {
            Cause::Expired => assert_eq!(self.expired.remove(&number), Some(key), "the entry had not expired"),
            Cause::Capacity if self.expired.remove(&number).is_some() => {}
            Cause::Capacity => assert_eq!(self.remove(key), Some(number)),
            // The operations themselves check these.
            Cause::Removed | Cause::Replaced | Cause::Reaped => {}
            other => panic!("{other}: no operation has this cause"),
        }
    }

    fn number(&self, key: Key) -> Option<u64> {
        self.entries.get(&key).map(|&(number, _)| number)
    }
}

/// Nanoseconds in a millisecond.
const MILLI: u64 = 1_000_000;

/// The lifetime of an entry with this key, in milliseconds.
fn life(key: Key) -> Option<u64> {
    (key % 5 == 0).then_some(u64::from(key))
}

/// The sizes of slabs that cases have.
pub const SLABS: [SlabSize; 2] = [SlabSize::Small, SlabSize::Large];

type Told = Arc<Mutex<Vec<(Cause, Key, u64)>>>;

pub struct Case {
    told: Told,
    registry: Registry<Key, Counted, FewBits>,
    clock: ManualClock,
    ledger: Ledger,
    model: Model,
    held: Vec<(Handle<Key, Counted>, Key, u64)>,
    cursor: Cursor,
}

impl Case {
    pub fn new(shards: usize, capacity: usize, mask: u64, slab: SlabSize) -> Self {
        let (clock, told) = (ManualClock::new(), Told::default());
        let log = told.clone();
        let registry = Registry::builder()
            .shards(shards)
            .capacity(capacity)
            .hasher(FewBits { mask })
            .slab_size(slab)
            .clock(clock.clone())
            .domain(Domain::new())
            .lifetime(|key: &Key, _: &Counted| life(*key).map(Duration::from_millis))
            .listener(move |cause, entry: Handle<Key, Counted>| {
                log.lock().unwrap().push((cause, *entry.key(), entry.get()));
            })
            .build();
        let (ledger, model) = (Ledger::new(), Model::default());
        Case { told, registry, clock, ledger, model, held: Vec::new(), cursor: Cursor::new() }
    }

    pub fn run(&mut self, op: Op) {
        let ended = matches!(op, Op::Barrier);
        self.act(op);
        for event in self.told.lock().unwrap().drain(..) {
            self.model.hear(event);
        }
        assert!(self.registry.max_entries().is_none_or(|most| self.registry.len() <= most));
        if ended {
            self.check_accounts();
        }
    }

    fn act(&mut self, op: Op) {
        let Case { told, registry, clock, ledger, model, held, cursor } = self;
        model.expire();
        let number_of = |handle: Option<Handle<Key, Counted>>| handle.map(|handle| handle.get());
        match op {
            Op::Insert(key) => {
                let number = model.fresh();
                match registry.try_insert(key, ledger.value(number)) {
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
                let old = number_of(registry.insert(key, ledger.value(number)));
                assert_eq!(old, model.put(key, number));
            }
            Op::ReplaceWithTtl(key, millis) => {
                let number = model.fresh();
                let old = registry.insert_with_ttl(key, ledger.value(number), Duration::from_millis(millis));
                assert_eq!(number_of(old), model.put(key, number));
                model.fix(key, Some(model.now + millis * MILLI));
            }
            Op::SetTtl(index, millis) => {
                if let Some((handle, key, number)) = held.get(index % held.len().max(1)) {
                    let is_there = model.number(*key) == Some(*number);
                    assert_eq!(registry.set_ttl(handle, millis.map(Duration::from_millis)), is_there);
                    let left = if is_there {
                        model.fix(*key, millis.map(|millis| model.now + millis * MILLI));
                        model.last_time(*key).saturating_sub(model.now)
                    } else {
                        0
                    };
                    let expected = (!is_there || model.last_time(*key) < u64::MAX).then(|| Duration::from_nanos(left));
                    assert_eq!(registry.remaining(handle), expected);
                }
            }
            Op::Renew(index) => {
                if let Some((handle, key, number)) = held.get(index % held.len().max(1)) {
                    let is_there = model.number(*key) == Some(*number);
                    assert_eq!(registry.renew(handle), is_there);
                    model.fixed.remove(number);
                }
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
                    assert_eq!(handle.is_unlinked(), !linked && !model.expired.contains_key(number));
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
                model.expired.clear();
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
                assert_eq!(met.len(), model.entries.len(), "the iterator met an entry twice, or missed one");
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
                    assert!(model.stable.is_subset(&model.met), "the walk missed a key that was present all the time");
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
                let now = model.now;
                let old: Vec<Key> = model
                    .entries
                    .iter()
                    .filter(|(_, (_, inserted))| now - inserted > millis * MILLI)
                    .map(|(&key, _)| key)
                    .collect();
                assert_eq!(registry.reap_older_than(age, usize::MAX).removed, old.len());
                old.into_iter().for_each(|key| assert!(model.remove(key).is_some()));
            }
            Op::Advance(millis) => {
                clock.advance(Duration::from_millis(millis));
                model.now += millis * MILLI;
            }
            Op::ShrinkToFit => registry.shrink_to_fit(),
            Op::Reserve(capacity) => {
                registry.reserve(capacity);
                assert!(registry.capacity() >= capacity);
            }
            Op::Barrier => registry.domain().barrier(),
            Op::Reap(Some(budget)) => {
                let reaped = registry.expire(budget);
                // A token holds half a hash. So all entries with an equal half hash are examined together.
                assert!(reaped.removed <= reaped.examined && reaped.examined < budget.max(1) + 300);
            }
            Op::Reap(None) => {
                let reaped = registry.expire(usize::MAX);
                let told: Vec<_> = told.lock().unwrap().drain(..).collect();
                assert_eq!(reaped.removed, told.len());
                told.into_iter().for_each(|event| model.hear(event));
                assert!(model.expired.is_empty(), "expired entries were not reaped: {:?}", model.expired);
            }
            Op::MaxAge(millis) => {
                // The iteration ends the entries that have expired by now, so that they stay absent.
                assert_eq!(registry.pin().iter().count(), model.entries.len());
                registry.set_max_age(millis.map(Duration::from_millis));
                model.max_age = millis;
                for key in model.entries.keys().copied().collect::<Vec<_>>() {
                    let fixed = model.fixed.get(&model.entries[&key].0).copied();
                    fixed.into_iter().for_each(|last| model.fix(key, Some(last)));
                }
            }
            Op::MaxEntries(most) => registry.set_max_entries(most),
            Op::Evict(count) => {
                let there = registry.len();
                assert_eq!(registry.evict(count), count.min(there));
            }
            Op::ShrinkTo(count) => {
                registry.shrink_to(count);
                assert!(registry.len() <= count);
            }
            Op::Reclaim(budget) => assert!(registry.domain().reclaim(budget) <= budget),
        }
    }

    /// Checks after a barrier that an entry is destroyed exactly if it is neither in the registry nor held.
    fn check_accounts(&self) {
        let mut alive: HashSet<u64> = self.model.entries.values().map(|&(number, _)| number).collect();
        alive.extend(self.model.expired.keys());
        alive.extend(self.held.iter().map(|(handle, ..)| handle.get()));
        assert_eq!(self.ledger.live(), alive.len() as u64);
        let stats = self.registry.stats();
        let left = stats.removed + stats.replaced + stats.reaped + stats.expired + stats.evicted;
        assert_eq!(stats.live as usize, self.model.len());
        assert_eq!(stats.live + left, stats.inserted, "{stats}");
        assert_eq!(stats.live + stats.backlog + stats.freed, stats.inserted, "{stats}");
        assert_eq!(stats.backlog as usize, alive.len() - self.model.len(), "{stats}");
        assert_eq!(self.registry.len(), self.model.len());
    }

    pub fn end(self) {
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

/// All keys in one home, few homes and no tags, few homes and shards, tags alone, a good hash.
pub const MASKS: [u64; 5] = [0, 0x3, 0xc000_0003, 0x7f << 40, u64::MAX];
