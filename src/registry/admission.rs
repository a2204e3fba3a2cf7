//! What happens at the bound: entries are evicted, by their priority, or insertions are refused.

use crate::handle::Handle;
use crate::node::UnpublishedNode;
use crate::reap::Priority;
use crate::registry::Registry;
use crate::registry::builder::Builder;
use crate::registry::error::{Refused, RegistryFull};
use crate::registry::view::hash_of;
use crate::shard::admit::NotAdmitted;
use crate::shard::write::Wanted;
use std::hash::{BuildHasher, Hash};

/// What a registry does at its bounds, by [`Builder::at_capacity`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum AtCapacity {
    /// It evicts other entries to make room for a new one, as a cache does. The default.
    #[default]
    Evict,
    /// It evicts none, and refuses the new entry, as a server that serves a limited number of sessions does.
    Refuse,
}

impl<K, V, S> Builder<K, V, S> {
    /// Sets what the registry does at the bounds [`max_entries`](Self::max_entries) and
    /// [`max_weight`](Self::max_weight). By default it evicts.
    ///
    /// A registry that refuses never evicts an entry by itself.
    ///
    /// - [`admit`](Registry::admit) and [`admit_or_replace`](Registry::admit_or_replace) insert an entry if there is
    ///   room, and return it if there is none. The kernel's conntrack does the same at its maximum: "table full,
    ///   dropping packet".
    /// - All other operations cannot be refused. They insert beyond the bounds, and are
    ///   [counted](crate::Stats::overruns). A program that must keep the bound uses none of them for insertions.
    ///   Such an entry takes its place like any other: nothing is admitted until enough entries have left.
    /// - The value of an [`exempt`](Self::exempt) entry says that it is inserted even if the registry is full.
    /// - Entries that have expired are reaped before an entry is refused.
    /// - A lower bound, [set](Registry::set_max_entries) later, evicts none.
    ///
    /// The bounds are exact. A bound of N entries admits N, however the keys spread over the shards, and never more,
    /// also under writers of many threads. An entry is refused only if there is no room at that moment. (Where both
    /// bounds are set, an admission that is refused for its weight holds a place for a moment, and may cause another to
    /// be refused. An entry that is heavier than the bound is refused always.) For this the shards share a count of
    /// entries and one of weight. An insertion and a removal each update them, under the lock of the shard.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{AtCapacity, Refused, Registry};
    ///
    /// let sessions = Registry::builder().max_entries(2).at_capacity(AtCapacity::Refuse).build();
    /// let ada = sessions.admit(1, "ada").unwrap();
    /// sessions.admit(2, "bob").unwrap();
    /// let Err(Refused::Full(full)) = sessions.admit(3, "eve") else { panic!() };
    /// assert_eq!((full.key, full.value, full.to_string().as_str()), (3, "eve", "the registry is full"));
    ///
    /// sessions.remove_handle(&ada);
    /// assert!(sessions.admit(3, "eve").is_ok());
    /// assert_eq!((sessions.len(), sessions.stats().refused), (2, 1));
    /// ```
    pub fn at_capacity(mut self, policy: AtCapacity) -> Self {
        self.at_capacity = policy;
        self
    }

    /// Sets a function that returns how early an entry is evicted. Without one, all entries have the priority
    /// [`Normal`](Priority::Normal).
    ///
    /// The function is called once, before an entry is inserted, outside every lock. If the answer depends on state of
    /// the value that has changed, call [`reprioritize`](Registry::reprioritize). A panic in it goes to the caller.
    ///
    /// If all entries of a shard are [never](Priority::Never) evicted, [`admit`](Registry::admit) refuses an entry. An
    /// operation that cannot be refused exceeds the bound, and is [counted](crate::Stats::overruns).
    ///
    /// # Cost
    ///
    /// Nothing without the function. With it, the first read of an entry since an eviction has looked at it costs one
    /// atomic operation, where it would otherwise be a store.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Priority, Registry};
    ///
    /// let dns = Registry::builder()
    ///     .max_entries(100)
    ///     .priority(|name: &String, _| if name.ends_with(".local") { Priority::Never } else { Priority::Normal })
    ///     .build();
    /// dns.insert("printer.local".to_string(), [10, 0, 0, 9]);
    /// for host in 0..1000 {
    ///     dns.insert(format!("host{host}.example"), [192, 0, 2, 1]);
    /// }
    /// assert!(dns.contains_key("printer.local"));
    /// ```
    pub fn priority(mut self, priority: impl Fn(&K, &V) -> Priority + Send + Sync + 'static) -> Self {
        self.prioritizer = Some(Box::new(priority));
        self
    }

    /// Sets a function that returns whether an entry is admitted even if there is no room for it. Without one, no entry
    /// is exempt.
    ///
    /// An exempt entry takes a place like any other: while it is there, one entry fewer is admitted. This is the rule of
    /// the kernel's `fs.file-max`, by which the administrator may open files beyond the maximum. It concerns
    /// [`admit`](Registry::admit) and [`admit_or_replace`](Registry::admit_or_replace), which are the only operations
    /// that refuse. To keep an entry from being evicted, see [`priority`](Self::priority).
    ///
    /// The function is called once, before an entry is inserted, outside every lock. A panic in it goes to the caller.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{AtCapacity, Registry};
    ///
    /// let sessions = Registry::builder()
    ///     .max_entries(1)
    ///     .at_capacity(AtCapacity::Refuse)
    ///     .exempt(|_: &u64, user: &&str| *user == "root")
    ///     .build();
    /// assert!(sessions.admit(1, "ada").is_ok());
    /// assert!(sessions.admit(2, "bob").is_err());
    /// assert!(sessions.admit(2, "root").is_ok());
    /// assert_eq!((sessions.len(), sessions.stats().overruns), (2, 1));
    /// ```
    pub fn exempt(mut self, exempt: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.exempts = Some(Box::new(exempt));
        self
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Inserts an entry if its key is not in the registry and there is room for the entry within the bounds. Returns the
    /// new entry.
    ///
    /// A registry that [refuses](AtCapacity::Refuse) has room as long as it is not full. One that evicts makes room, and
    /// has none only if the shard's other entries are [never](Priority::Never) evicted. Without a bound, there is always
    /// room. An expired entry takes no room: it is reaped before an entry is refused. (Exceptions: within a
    /// [`lifetime`](Builder::lifetime), or within a [`listener`](Builder::listener) that a reaper has called; for up to a
    /// second, if the entry was [spared](Builder::spare_held) when it was last looked at; and while the domain's backlog has
    /// no room for it.)
    ///
    /// # Errors
    ///
    /// Returns [`Refused`], with the rejected key and value: `Occupied` if the key is already in the registry, even if
    /// there is no room, and otherwise `Full`.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert). Before it refuses, it removes all expired entries, a few at a time.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{AtCapacity, ManualClock, Refused, Registry};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let builder = Registry::builder().max_entries(1).at_capacity(AtCapacity::Refuse);
    /// let leases = builder.max_age(Duration::from_secs(60)).clock(clock.clone()).build();
    /// leases.admit("10.0.0.1", "printer").unwrap();
    /// assert!(matches!(leases.admit("10.0.0.1", "laptop"), Err(Refused::Occupied(_))));
    /// assert!(matches!(leases.admit("10.0.0.2", "laptop"), Err(Refused::Full(_))));
    /// clock.advance(Duration::from_secs(61));
    /// assert!(leases.admit("10.0.0.2", "laptop").is_ok());
    /// ```
    pub fn admit(&self, key: K, value: V) -> Result<Handle<K, V>, Refused<K, V>> {
        let hash = hash_of(&self.hasher, &key);
        match self.core.admit(self.core.prepare(hash, key, value), false, Wanted::NEW) {
            Ok(published) => Ok(published.new.expect("the handle that was wanted")),
            Err(NotAdmitted::Taken(rejected)) => Err(Refused::Occupied(rejected.into())),
            Err(NotAdmitted::NoRoom(unpublished)) => Err(Refused::Full(unpublished.into())),
        }
    }

    /// Inserts an entry, or replaces the one that has the key, if there is room within the bounds. Returns the replaced
    /// entry, or `None` if the key was absent.
    ///
    /// Works as [`admit`](Self::admit). A replacement needs no room for another entry, but may need room for more weight.
    ///
    /// # Errors
    ///
    /// Returns [`RegistryFull`], with the rejected key and value, if there is no room. Then the entry that has the key
    /// stays.
    ///
    /// # Progress
    ///
    /// As [`admit`](Self::admit).
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{AtCapacity, Registry};
    ///
    /// let registry = Registry::builder().max_entries(1).at_capacity(AtCapacity::Refuse).build();
    /// assert!(registry.admit_or_replace("a", 1).unwrap().is_none());
    /// assert_eq!(*registry.admit_or_replace("a", 2).unwrap().unwrap(), 1);
    /// assert_eq!(registry.admit_or_replace("b", 3).unwrap_err().value, 3);
    /// ```
    pub fn admit_or_replace(&self, key: K, value: V) -> Result<Option<Handle<K, V>>, RegistryFull<K, V>> {
        let hash = hash_of(&self.hasher, &key);
        match self.core.admit(self.core.prepare(hash, key, value), true, Wanted::OLD) {
            Ok(published) => Ok(published.old.into_handle()),
            Err(NotAdmitted::NoRoom(unpublished)) => Err(unpublished.into()),
            Err(NotAdmitted::Taken(_)) => unreachable!("an entry that has the key is replaced"),
        }
    }

    /// Asks the [priority function](Builder::priority) again for the priority of an entry, because its answer may have
    /// changed. Returns false if there is no such function, or the entry is not in this registry.
    ///
    /// The function is called outside every lock. If two threads call this for one entry at the same time, the entry has
    /// the answer of one of them.
    ///
    /// # Panics
    ///
    /// Panics if the function does. The entry keeps its priority.
    ///
    /// # Progress
    ///
    /// As [`insert`](Self::insert).
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Priority, Registry};
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// let pinned = |_: &u64, pinned: &AtomicBool| match pinned.load(Ordering::Relaxed) {
    ///     true => Priority::Never,
    ///     false => Priority::Normal,
    /// };
    /// let cache = Registry::builder().shards(1).max_entries(10).priority(pinned).build();
    /// let one = cache.insert_and_get(1, AtomicBool::new(false));
    /// one.store(true, Ordering::Relaxed);
    /// assert!(cache.reprioritize(&one));
    /// (2..1000).for_each(|key| drop(cache.insert(key, AtomicBool::new(false))));
    /// assert!(cache.contains_key(&1));
    /// ```
    pub fn reprioritize(&self, entry: &Handle<K, V>) -> bool {
        self.core.reprioritize(entry)
    }
}

impl<K, V> From<UnpublishedNode<K, V>> for RegistryFull<K, V> {
    fn from(unpublished: UnpublishedNode<K, V>) -> Self {
        RegistryFull { key: unpublished.key, value: unpublished.value }
    }
}
