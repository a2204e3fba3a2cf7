//! Insertion, replacement and removal of one entry: what a write does before and after it holds the shard lock.

use super::Core;
use super::expiry::EXPIRY_CHUNK;
use crate::domain::{Failure, IfFull};
use crate::handle::Handle;
use crate::node::life::Deadline;
use crate::node::usage::FirstMarks;
use crate::node::weight::Weight;
use crate::node::{Particulars, UnpublishedNode};
use crate::reap::Cause;
use crate::shard::ShardRef;
use crate::shard::admit::NotAdmitted;
use crate::shard::reserve::{Blocker, ReservationId};
use crate::shard::reserved_write::{NotPutReserved, ReservedEntry};
use crate::shard::write::{Departed, NotReplaced, Published, Rejected, Wanted};
use crate::table::{Located, Table};
use crate::util::check;
use crate::util::clock::Time;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl<K, V> Core<K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns an entry that is ready to be published here. Calls the weigher, the clock and the lifetime: user
    /// code, which may panic.
    #[inline(always)]
    pub(crate) fn prepare(&self, hash: u64, key: K, value: V) -> UnpublishedNode<K, V> {
        let particulars = self.particulars(hash, &key, &value);
        UnpublishedNode { key, value, particulars }
    }

    /// Returns the particulars of an entry that is to be published here. Calls user code as [`prepare`](Self::prepare)
    /// does.
    #[inline(always)]
    pub(crate) fn particulars(&self, hash: u64, key: &K, value: &V) -> Particulars {
        let (weight, marks) = self.judge(key, value);
        let lifetimes = &self.settings.lifetimes;
        if !lifetimes.expires() {
            let time = self.now();
            return Particulars { hash, time, weight, marks, own_end: Deadline::NEVER };
        }
        let time = self.settings.clock.beginning();
        let own_end = Deadline::at(lifetimes.own_end((key, value), time));
        Particulars { hash, time, weight, marks, own_end }
    }

    /// Does the same as [`prepare`](Self::prepare), for an entry that expires `ttl` from now. Does not ask the
    /// lifetime function.
    pub(crate) fn prepare_with_ttl(&self, hash: u64, key: K, value: V, ttl: Duration) -> UnpublishedNode<K, V> {
        let particulars = self.particulars_with_ttl(hash, &key, &value, ttl);
        UnpublishedNode { key, value, particulars }
    }

    /// Does the same as [`particulars`](Self::particulars), for an entry that expires `ttl` from now.
    pub(crate) fn particulars_with_ttl(&self, hash: u64, key: &K, value: &V, ttl: Duration) -> Particulars {
        self.begin_to_expire_by_entry();
        let (weight, marks) = self.judge(key, value);
        let time = self.settings.clock.beginning();
        let own_end = Deadline::fixed(time.end_of(Time::ceil_from(ttl)));
        Particulars { hash, time, weight, marks, own_end }
    }

    /// Returns the weight of a new entry, and the marks with which it starts. Calls user code, which may panic.
    #[inline(always)]
    fn judge(&self, key: &K, value: &V) -> (Weight, FirstMarks) {
        let marks = FirstMarks::new(self.read_duties.begins_marked());
        match &self.settings.weigher {
            None => (self.node, marks),
            Some(weigher) => {
                check::user_code();
                let marks = self.settings.judge(marks, key, value);
                (self.weight(weigher(key, value)), marks)
            }
        }
    }

    /// Returns the weight of an entry. Calls the weigher: user code, which may panic.
    pub(super) fn weigh(&self, key: &K, value: &V) -> Weight {
        let Some(weigher) = &self.settings.weigher else { return self.node };
        check::user_code();
        self.weight(weigher(key, value))
    }

    /// Publishes an entry, unless its key is taken. Returns a handle if the caller wants one.
    #[inline(always)]
    pub(crate) fn insert(
        &self,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
    ) -> Result<Option<Handle<K, V>>, Rejected<K, V>>
    where
        K: Eq,
    {
        let (shard, time) = (self.shard_to_write(unpublished.particulars.hash), unpublished.particulars.time);
        let inserted = shard.insert(unpublished, wanted, &self.settings);
        if self.settings.lifetimes.expires() {
            self.assist(shard, time);
        }
        inserted
    }

    /// Publishes an entry, in place of the entry that has its key, if there is one.
    #[inline(always)]
    pub(crate) fn replace<E: Failure>(
        &self,
        unpublished: UnpublishedNode<K, V>,
        wanted: Wanted,
        mut if_full: IfFull<E>,
    ) -> Result<Published<K, V>, (UnpublishedNode<K, V>, E)>
    where
        K: Eq,
    {
        let locate = |table: Table<K, V>, unpublished: &UnpublishedNode<K, V>| {
            table.locate(unpublished.particulars.hash, |found| check::eq(|| found.key() == &unpublished.key))
        };
        match self.replace_located(unpublished, locate, true, wanted, &mut if_full) {
            Ok(published) => Ok(published),
            Err(NotReplaced::Full(unpublished, full)) => Err((unpublished, full)),
            Err(NotReplaced::Absent(_)) => unreachable!("a replacement by key inserts the entry if the key is absent"),
        }
    }

    /// Publishes an entry if there is room for it within the bounds. If its key is taken, replaces the entry that has
    /// the key if `or_replace` is set. Reaps expired entries before it refuses.
    pub(crate) fn admit(
        &self,
        mut unpublished: UnpublishedNode<K, V>,
        or_replace: bool,
        mut wanted: Wanted,
    ) -> Result<Published<K, V>, NotAdmitted<K, V>>
    where
        K: Eq,
    {
        unpublished.particulars.marks = unpublished.particulars.marks.refusable();
        wanted.old |= self.settings.listeners.is_some();
        let (shard, time) = (self.shard_to_write(unpublished.particulars.hash), unpublished.particulars.time);
        let mut may_reap = self.settings.lifetimes.expires();
        let published = loop {
            match shard.admit(unpublished, or_replace, wanted, &self.settings) {
                Ok(published) => break published,
                Err(NotAdmitted::NoRoom(again)) if may_reap => {
                    // After the last expired entry, one more try: another thread may have made room.
                    may_reap = self.reap_for_room();
                    unpublished = again;
                }
                Err(reason) => {
                    let is_refused = matches!(reason, NotAdmitted::NoRoom(_));
                    // ORDERING: Relaxed, a statistic.
                    self.refused.fetch_add(is_refused.into(), Ordering::Relaxed);
                    return Err(reason);
                }
            }
        };
        self.after_put(shard, time, &published);
        Ok(published)
    }

    /// Removes some expired entries. Returns false if no expired entry is left, or none can be removed now.
    fn reap_for_room(&self) -> bool {
        let now = self.now();
        loop {
            let reaped = self.expire(EXPIRY_CHUNK);
            if reaped.removed > 0 {
                return true;
            }
            if reaped.stopped || self.shards().all(|shard| shard.counts.due.get() > now) {
                return false;
            }
        }
    }

    /// Publishes an entry with the key of `old` in place of `old`, unless `old` is unlinked.
    pub(crate) fn replace_exact<E: Failure>(
        &self,
        old: &Handle<K, V>,
        unpublished: UnpublishedNode<K, V>,
        if_full: &mut IfFull<E>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>>
    where
        K: Eq,
    {
        let node = old.node();
        self.replace_located(unpublished, |table, _| table.locate_exact(node), false, Wanted::NEW, if_full)
    }

    #[inline(always)]
    fn replace_located<E: Failure>(
        &self,
        unpublished: UnpublishedNode<K, V>,
        locate: impl FnMut(Table<K, V>, &UnpublishedNode<K, V>) -> Located<K, V>,
        or_insert: bool,
        mut wanted: Wanted,
        if_full: &mut IfFull<E>,
    ) -> Result<Published<K, V>, NotReplaced<K, V, E>>
    where
        K: Eq,
    {
        wanted.old |= self.settings.listeners.is_some();
        let (shard, time) = (self.shard_to_write(unpublished.particulars.hash), unpublished.particulars.time);
        let published = shard.replace(unpublished, locate, or_insert, wanted, if_full, &self.settings)?;
        self.after_put(shard, time, &published);
        Ok(published)
    }

    /// Does what follows a write that has published an entry at `time`: tells the listener of the entry that it replaced,
    /// and does an insertion's share of the removal of expired entries.
    #[inline(always)]
    fn after_put(&self, shard: ShardRef<'_, K, V>, time: Time, published: &Published<K, V>) {
        if let Some(old) = published.old.handle() {
            self.settings.listeners.tell_replaced(old);
        }
        if self.settings.lifetimes.expires() {
            self.assist(shard, time);
        }
    }

    /// Reserves a key, unless it is reserved.
    pub(crate) fn reserve(&self, hash: u64, key: &Arc<K>) -> Result<ReservationId, Blocker>
    where
        K: Eq,
    {
        self.shard_to_write(hash).reserve(hash, key)
    }

    /// Ends a reservation without a write.
    pub(crate) fn release(&self, hash: u64, id: ReservationId) {
        self.shard(hash).release(hash, id);
    }

    /// Runs the code for which a key is reserved.
    pub(crate) fn run_reserved<R>(&self, hash: u64, id: ReservationId, f: impl FnOnce() -> R) -> R {
        self.shard(hash).run_reserved(id, f)
    }

    /// Publishes an entry whose key is reserved. Ends the reservation, also if it fails or panics: see
    /// [`ShardRef::put_reserved`].
    pub(crate) fn put_reserved<E: Failure>(
        &self,
        reserved: ReservedEntry<K, V>,
        old: Option<&Handle<K, V>>,
        mut wanted: Wanted,
        if_full: &mut IfFull<E>,
    ) -> Result<Published<K, V>, NotPutReserved<V, E>>
    where
        K: Eq,
    {
        wanted.old |= self.settings.listeners.is_some();
        let (shard, time) = (self.shard_to_write(reserved.particulars.hash), reserved.particulars.time);
        let published = shard.put_reserved(reserved, old.map(Handle::node), wanted, if_full, &self.settings)?;
        self.after_put(shard, time, &published);
        Ok(published)
    }

    /// Unlinks the entry of a key that the caller has reserved, and ends the reservation. `now` is the
    /// [time of the write](Self::time_to_write).
    pub(crate) fn remove_reserved(&self, hash: u64, key: &K, id: ReservationId, now: Time) -> Option<Handle<K, V>>
    where
        K: Eq,
    {
        let left = self.shard_to_write(hash).remove_reserved(hash, key, id, now, &self.settings);
        left.iter().for_each(|entry| self.settings.listeners.tell(Cause::Removed, entry));
        left
    }

    /// Unlinks the entry of `hash` whose key satisfies `eq`. Returns a handle to it if the caller wants one.
    #[inline(always)]
    pub(crate) fn remove<E: Failure>(
        &self,
        hash: u64,
        eq: impl Fn(&K) -> bool,
        wants_handle: bool,
        mut if_full: IfFull<E>,
    ) -> Result<Departed<K, V>, E> {
        let locate = |table: Table<K, V>| table.locate(hash, |found| check::eq(|| eq(found.key())));
        self.remove_located(hash, &eq, locate, Cause::Removed, wants_handle, &mut if_full)
    }

    /// Unlinks this entry, if it is in this registry. Returns whether it was. An entry of another registry is in
    /// no table of this one, so it is not found. Does not wait while the entry's key is reserved.
    pub(crate) fn remove_exact<E: Failure>(
        &self,
        entry: &Handle<K, V>,
        cause: Cause,
        if_full: &mut IfFull<E>,
    ) -> Result<bool, E> {
        if entry.is_unlinked() {
            return Ok(false);
        }
        let locate = |table: Table<K, V>| table.locate_exact(entry.node());
        Ok(self.remove_located(entry.hash().into(), |_| false, locate, cause, false, if_full)?.is_some())
    }

    /// Unlinks this entry, on behalf of a caller that has found it by its key: waits while the key is reserved.
    pub(crate) fn remove_exact_by_key<E: Failure>(
        &self,
        entry: &Handle<K, V>,
        is_key: impl FnMut(&K) -> bool,
        if_full: &mut IfFull<E>,
    ) -> Result<bool, E> {
        let locate = |table: Table<K, V>| table.locate_exact(entry.node());
        Ok(self.remove_located(entry.hash().into(), is_key, locate, Cause::Removed, false, if_full)?.is_some())
    }

    #[inline(always)]
    fn remove_located<E: Failure>(
        &self,
        hash: u64,
        is_key: impl FnMut(&K) -> bool,
        locate: impl FnMut(Table<K, V>) -> Located<K, V>,
        cause: Cause,
        wants_handle: bool,
        if_full: &mut IfFull<E>,
    ) -> Result<Departed<K, V>, E> {
        let wants_handle = wants_handle || self.settings.listeners.is_some();
        let now = self.time_to_write();
        let shard = self.shard_to_write(hash);
        let left = shard.remove(hash, is_key, locate, cause, wants_handle, if_full, now, &self.settings)?;
        if let Some(entry) = left.handle() {
            self.settings.listeners.tell(cause, entry);
        }
        Ok(left)
    }
}
