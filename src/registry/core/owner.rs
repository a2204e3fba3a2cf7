//! The holds on a core, and its beginning and end.

#![allow(unsafe_code)]

use super::Core;
use super::expiry::IN_FOREGROUND;
use crate::domain::{Domain, Operations, Reclaimed, RegistryHeader};
use crate::node::Node;
use crate::node::usage::ReadDuties;
use crate::node::weight::Weight;
use crate::reap::{Cause, Cursor};
use crate::shard::Shard;
use crate::shard::evict::Bounds;
use crate::shard::operations;
use crate::shard::settings::RegistrySettings;
use crate::sync::{self, Mutex};
use crate::table::{Root, Table};
use crate::util::panics::contain;
use crossbeam_utils::CachePadded;
use std::alloc::Layout;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// The hold on a core that a registry, its background reaper, and weak handles that are being upgraded share. The last
/// of them that drops it closes the core.
pub(crate) struct CoreReference<K: Send + Sync + 'static, V: Send + Sync + 'static>(NonNull<Core<K, V>>);

// SAFETY: a core is shared between threads by design, and any thread may close it by dropping the hold.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Send for CoreReference<K, V> {}
// SAFETY: all methods of a core take `&self`, and any number of threads may call them.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Sync for CoreReference<K, V> {}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> CoreReference<K, V> {
    pub(crate) fn core(&self) -> &Core<K, V> {
        // SAFETY: the hold keeps the core alive.
        unsafe { self.0.as_ref() }
    }
}

/// A registry's hold on its core. When the last hold is dropped, the core is closed. Its nodes may keep the
/// memory longer.
pub(crate) struct CoreOwner<K: Send + Sync + 'static, V: Send + Sync + 'static> {
    /// The pointer of `hold`, copied to save a load.
    core: NonNull<Core<K, V>>,
    hold: Arc<CoreReference<K, V>>,
}

// SAFETY: the pointer is that of `hold`, and a `CoreReference` is `Send` and `Sync`.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Send for CoreOwner<K, V> {}
// SAFETY: the pointer is that of `hold`, and a `CoreReference` is `Send` and `Sync`.
unsafe impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Sync for CoreOwner<K, V> {}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> CoreOwner<K, V> {
    /// Returns a core with `shards` shards (a power of two, at most 2^16), with tables for `capacity` nodes in
    /// all.
    pub(crate) fn new(
        domain: Domain,
        settings: RegistrySettings<K, V>,
        shards: usize,
        capacity: usize,
        bounds: Bounds,
        stale_reads: bool,
    ) -> Self {
        let buckets = Table::<K, V>::buckets_for(capacity.div_ceil(shards));
        domain.inner().budget.add_shards(shards);
        let core = Box::leak(Box::new(Core {
            header: RegistryHeader::new(domain, operations::<K, V>()),
            shift: 32 - shards.trailing_zeros(),
            roots: Box::default(),
            shards: Box::default(),
            read_duties: CachePadded::new(ReadDuties::new(stale_reads)),
            settings: ManuallyDrop::new(settings),
            node: Weight::at_least(0),
            reaped_to: Mutex::new(Cursor::new()),
            refused: AtomicU64::new(0),
            expired_to: AtomicUsize::new(0),
            evicted_to: AtomicUsize::new(0),
            background_at: AtomicU64::new(IN_FOREGROUND),
        }));
        core.read_duties.set_unmarked(bounds.are_set());
        if core.settings.lookups.is_some() {
            core.read_duties.count_lookups();
        }
        core.node = core.weight(0);
        if bounds.by_priority {
            core.read_duties.share_marks();
        }
        let expires = core.settings.lifetimes.expires();
        if expires {
            core.read_duties.check_expiry(core.settings.lifetimes.limits_idleness());
        }
        let tables: Vec<_> = (0..shards).map(|_| Table::new(buckets)).collect();
        core.roots = tables.iter().map(|&table| Root::new(table)).collect();
        let core = NonNull::from(core);
        // SAFETY: no other thread knows the core yet, and the reference is not used after the shards are made.
        let settings = &unsafe { core.as_ref() }.settings;
        let new = |&table| CachePadded::new(Shard::new(core.cast(), table, bounds, expires, settings));
        let shards = tables.iter().map(new).collect();
        // SAFETY: no other thread knows the core yet, and no reference to it is in use.
        unsafe { (*core.as_ptr()).shards = shards };
        CoreOwner { core, hold: Arc::new(CoreReference(core)) }
    }

    /// Returns a reference that does not keep the registry.
    pub(crate) fn downgrade(&self) -> Weak<CoreReference<K, V>> {
        Arc::downgrade(&self.hold)
    }

    /// Has the domain's reclaimer remove expired entries in the background.
    pub(crate) fn reap_in_background(&self) {
        // ORDERING: Relaxed, a hint: `add_reaper` wakes the reclaimer, which looks at once.
        self.background_at.store(0, Ordering::Relaxed);
        self.header.domain.add_reaper(&self.hold);
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Deref for CoreOwner<K, V> {
    type Target = Core<K, V>;

    #[inline]
    fn deref(&self) -> &Core<K, V> {
        // SAFETY: `hold` keeps the core alive.
        unsafe { self.core.as_ref() }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Drop for CoreReference<K, V> {
    fn drop(&mut self) {
        let (header, core) = (self.0.cast::<RegistryHeader>(), self.core());
        let domain = core.header.domain.clone();
        // The registry is gone, so no reader is in it. Neither its retired nodes nor the nodes in its tables need
        // a grace period.
        let mut teardowns: Vec<_> = core.shards().map(|shard| (shard, shard.begin_teardown())).collect();
        domain.inner().budget.remove_shards(teardowns.len());
        core.header.close();
        domain.inner().collect_dropped();
        domain.inner().destroy_closed(header, Default::default());
        let (mut inserted, tells) = (0, core.settings.listeners.tells_dropped());
        for (shard, teardown) in &mut teardowns {
            if teardown.is_by_slab() && !Node::<K, V>::NEEDS_DROP && !tells {
                core.header.enter();
                // SAFETY: the registry is being dropped. Guards, sessions and views borrow it, so no reader and
                // no writer is left. The visit that `enter` began keeps the header alive.
                let destroyed = unsafe { shard.destroy_all() };
                // SAFETY: pairs with `enter`. The core's own hold on the header ends only at `retire_self`,
                // below.
                unsafe { RegistryHeader::leave(header, Reclaimed { destroyed, panics: 0 }) };
            } else {
                loop {
                    let mut left = tells.then(|| core.evicted(Cause::Dropped));
                    // SAFETY: the registry is being dropped: no reader and no writer is left.
                    let bags = unsafe { shard.unlink_some(teardown, left.as_mut()) };
                    // Tells the listener, outside every lock. The bags still own a reference to each entry.
                    drop(left);
                    if bags.is_empty() {
                        break;
                    }
                    domain.inner().destroy_closed(header, bags);
                }
            }
            // SAFETY: no reader and no writer is left, no node is in the table, and each shard is ended once.
            unsafe { shard.end_teardown() };
            inserted += shard.counts.inserted.get();
        }
        drop(teardowns);
        domain.inner().wait_for_hands(header);
        // The settings hold the user's closures, which may own handles. A handle may keep the core alive, so the
        // closures are dropped here and not with the core.
        // SAFETY: only the registry and its reaper use this field, and both are gone. Nodes use only the core's
        // first field and its shards.
        let settings = unsafe { &mut (*self.0.as_ptr()).settings };
        // SAFETY: dropped here and nowhere else.
        contain(|| unsafe { ManuallyDrop::drop(settings) });
        // SAFETY: the header is closed, `inserted` counts every node that was ever inserted, and the core is not
        // used below.
        unsafe { RegistryHeader::retire_self(header, inserted) };
    }
}

/// Returns what a domain does with the nodes and shards of a core.
fn operations<K, V>() -> Operations
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    Operations {
        collect: operations::collect::<K, V>,
        reclaim: operations::reclaim::<K, V>,
        recycle: operations::recycle::<K, V>,
        destroy: operations::destroy::<K, V>,
        free: free::<K, V>,
    }
}

/// Frees a core.
///
/// # Safety
///
/// `header` is the first field of a `Core<K, V>` from [`CoreOwner::new`], and nothing uses the core any more.
unsafe fn free<K: 'static, V: 'static>(header: NonNull<RegistryHeader>) {
    let core = header.cast::<Core<K, V>>();
    // SAFETY: the caller guarantees that nothing uses the core. It is `repr(C)`, so its address is that of its
    // header.
    unsafe { core.drop_in_place() };
    // SAFETY: `CoreOwner::new` allocated it in a `Box`, and it is dropped. (`sync::dealloc`, because a loom model
    // keeps the memory until its execution ends.)
    unsafe { sync::dealloc(core.cast(), Layout::new::<Core<K, V>>()) };
}
