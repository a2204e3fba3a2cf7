//! Writes of keys that their callers have reserved.

use crate::domain::{Failure, IfFull};
use crate::handle::Handle;
use crate::node::{Node, Particulars, UnpublishedNode};
use crate::reap::Cause;
use crate::shard::ShardRef;
use crate::shard::evict::Evicted;
use crate::shard::reserve::{Ending, ReservationId};
use crate::shard::settings::RegistrySettings;
use crate::shard::special::{NoSite, Put};
use crate::shard::write::{Published, Wanted};
use crate::table::Table;
use crate::util::check;
use crate::util::clock::Time;
use std::convert::Infallible;
use std::ptr::NonNull;
use std::sync::Arc;

/// An entry whose key its caller has reserved.
pub(crate) struct ReservedEntry<K, V> {
    pub(crate) key: Arc<K>,
    pub(crate) value: V,
    pub(crate) particulars: Particulars,
    pub(crate) id: ReservationId,
}

/// An entry that was not published, although its key was reserved. The reservation has ended.
pub(crate) struct NotPutReserved<V, E> {
    pub(crate) value: V,
    /// Why the backlog is full. `None` if there was no entry to replace.
    pub(crate) full: Option<E>,
}

impl<K, V> ShardRef<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Publishes an entry of a key that the caller has reserved. Replaces the entry `old`, or, if `old` is not given, the
    /// entry of the key, if there is one.
    ///
    /// Ends the reservation: in the hold of the lock in which it publishes the entry, or otherwise before it drops
    /// anything, calls the listener, or returns. Code of the user that runs before is within
    /// [`run_reserved`](ShardRef::run_reserved) (K5).
    ///
    /// # Errors
    ///
    /// If `old` has left the table, or if the backlog has no room and `if_full` lets the operation fail.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn put_reserved<E: Failure>(
        self,
        reserved: ReservedEntry<K, V>,
        old: Option<NonNull<Node<K, V>>>,
        mut wanted: Wanted,
        if_full: &mut IfFull<E>,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Published<K, V>, NotPutReserved<V, E>>
    where
        K: Eq,
    {
        wanted.new |= settings.listeners.tells_insertions();
        let ReservedEntry { key, value, particulars, id } = reserved;
        let mut evicted = Evicted::new(&settings.listeners, Cause::Capacity);
        evicted.defers_reclamation = true;
        // After the value and `evicted`, and so dropped before them.
        let ending = Ending { shard: self, hash: particulars.hash, id };
        let locate = |table: Table<K, V>| match old {
            Some(old) => table.locate_exact(old),
            None => table.locate(particulars.hash, |found| check::eq(|| *found.key() == *key)),
        };
        let put = if old.is_some() { Put::Old } else { Put::Any };
        // No other reservation has this key (K1).
        let is_key = |_: &K| false;
        let site = self.run_reserved(id, || {
            self.find_site(self.lock(), &particulars, is_key, locate, put, if_full, &mut evicted, settings)
        });
        let full = match site {
            Ok(mut site) => {
                let key = site.locked.end_to_publish(particulars.hash, id, key);
                let published =
                    self.fill(site, UnpublishedNode { key, value, particulars }, wanted, &mut evicted, settings);
                std::mem::forget(ending);
                return Ok(published);
            }
            Err(NoSite::Full(full)) => Some(full),
            Err(NoSite::Absent | NoSite::Taken(_) | NoSite::NoRoom | NoSite::Reserved(_)) => None,
        };
        drop(ending);
        Err(NotPutReserved { value, full })
    }

    /// Unlinks the entry of a key that the caller has reserved, and ends the reservation in the same hold of the lock.
    /// Returns a handle to the entry, if there is one.
    pub(crate) fn remove_reserved(
        self,
        hash: u64,
        key: &K,
        id: ReservationId,
        now: Time,
        settings: &RegistrySettings<K, V>,
    ) -> Option<Handle<K, V>>
    where
        K: Eq,
    {
        let ending = Ending { shard: self, hash, id };
        let locate = |table: Table<K, V>| table.locate(hash, |found| check::eq(|| found.key() == key));
        let if_full = &mut IfFull::<Infallible>::go_on();
        let locked = self.lock();
        let Ok(left) = self.remove_special(
            locked,
            hash,
            |_| false,
            locate,
            Cause::Removed,
            true,
            Some(id),
            if_full,
            now,
            settings,
        );
        // The removal has ended the reservation. `ending` is for a panic.
        std::mem::forget(ending);
        left.into_handle()
    }
}
