//! Namespaces, and the objects in them: found by id, which the namespace chooses, or by key, which the user does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use epoch_registry::{Domain, Registry};

use crate::census::Census;
use crate::ids::{Held, Ids, NoSlot};

/// What becomes of all namespaces and objects.
#[derive(Default)]
pub struct Fates {
    pub namespaces: Census,
    pub objects: Census,
    /// Objects that were removed, each by one who was told so.
    pub removed: AtomicU64,
    /// Objects that were in their namespace at its end.
    pub left: AtomicU64,
    /// Objects for which there was no slot.
    pub refused: AtomicU64,
    /// Objects that had lost their key at the end of their namespace, or keys their object.
    pub mismatched: AtomicU64,
}

fn count(counter: &AtomicU64, number: u64) {
    // ORDERING: Relaxed, a count.
    counter.fetch_add(number, Ordering::Relaxed);
}

pub type Key = u32;

/// A message queue, say, without messages.
pub struct Object {
    pub serial: u64,
    pub key: Option<Key>,
    /// The serial number of its namespace.
    pub namespace: u64,
    fates: Arc<Fates>,
}

impl Drop for Object {
    fn drop(&mut self) {
        self.fates.objects.drop(self.serial);
    }
}

pub struct Namespace {
    pub serial: u64,
    pub objects: Ids<Object>,
    /// Keeps the objects that have a key, for as long as they have it.
    keys: Registry<Key, Held<Object>>,
    fates: Arc<Fates>,
}

impl Namespace {
    pub fn new(domain: &Domain, range: u32, fates: &Arc<Fates>) -> Self {
        Namespace {
            serial: fates.namespaces.make(),
            objects: Ids::new(domain, range),
            keys: Registry::builder().domain(domain.clone()).shards(1).build(),
            fates: Arc::clone(fates),
        }
    }

    /// A new object without a key. (As `msgget` with `IPC_PRIVATE`.)
    ///
    /// # Errors
    ///
    /// [`NoSlot`] if there are as many objects as the namespace may have.
    pub fn create(&self) -> Result<Held<Object>, NoSlot<()>> {
        self.add(None)
    }

    /// The object that has the key, and a new one if there is none. (As `msgget` with `IPC_CREAT`.)
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn get_or_create(&self, key: Key) -> Result<Held<Object>, NoSlot<()>> {
        loop {
            if let Some(entry) = self.keys.lookup(&key) {
                // The object's handle, which is the entry's value.
                let object = entry.value();
                if !object.is_unlinked() {
                    return Ok(object.clone());
                }
                // Who removes the object has not come to the key yet.
                self.keys.remove_handle(&entry);
            }
            let object = self.add(Some(key))?;
            if let Ok(entry) = self.keys.try_insert(key, object.clone()) {
                if object.is_unlinked() {
                    // Somebody has removed it by its id already, and found no key.
                    self.keys.remove_handle(&entry);
                }
                return Ok(object);
            }
            // Somebody else was first.
            self.remove(&object);
        }
    }

    /// The object that has the key.
    pub fn find(&self, key: Key) -> Option<Held<Object>> {
        self.keys.lookup(&key).map(|entry| entry.value().clone()).filter(|object| !object.is_unlinked())
    }

    /// Removes an object, that is its id and its key. False if somebody else did. (As `msgctl` with `IPC_RMID`.)
    pub fn remove(&self, object: &Held<Object>) -> bool {
        let removed = self.objects.remove(object);
        if removed {
            count(&self.fates.removed, 1);
            if let Some(key) = object.key {
                // The key may be another object's by now.
                self.keys.remove_if(&key, |_, holder| holder.ptr_eq(object));
            }
        }
        removed
    }

    fn add(&self, key: Option<Key>) -> Result<Held<Object>, NoSlot<()>> {
        let fates = Arc::clone(&self.fates);
        let object = Object { serial: fates.objects.make(), key, namespace: self.serial, fates };
        self.objects.add(object).map_err(|NoSlot(_)| {
            count(&self.fates.refused, 1);
            NoSlot(())
        })
    }
}

/// Objects that are left are destroyed with the two registries, unless there are handles of them.
impl Drop for Namespace {
    fn drop(&mut self) {
        let left = self.objects.all();
        let keyed = left.iter().filter_map(|object| Some((object.key?, object)));
        let (with, without): (Vec<_>, Vec<_>) =
            keyed.partition(|(key, object)| self.find(*key).is_some_and(|holder| holder.ptr_eq(object)));
        count(&self.fates.mismatched, (without.len() + self.keys.len() - with.len()) as u64);
        count(&self.fates.left, left.len() as u64);
        self.fates.namespaces.drop(self.serial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_object_s_at_a_time() {
        let (domain, fates) = (Domain::new(), Arc::default());
        let namespace = Namespace::new(&domain, 10, &fates);
        let first = namespace.get_or_create(7).expect("there is room");
        assert!(first.ptr_eq(&namespace.get_or_create(7).expect("it is there")));
        assert!(namespace.remove(&first) && namespace.find(7).is_none());
        let second = namespace.get_or_create(7).expect("there is room");
        assert!(!first.ptr_eq(&second) && !namespace.remove(&first));
        assert!(namespace.find(7).is_some_and(|found| found.ptr_eq(&second)), "it keeps the key");
    }

    #[test]
    fn an_object_outlives_its_namespace_as_long_as_there_is_a_handle() {
        let (domain, fates) = (Domain::new(), Arc::<Fates>::default());
        let namespace = Namespace::new(&domain, 10, &fates);
        let held = namespace.get_or_create(1).expect("there is room");
        namespace.create().expect("there is room");
        drop(namespace);
        domain.barrier();
        assert_eq!((held.key, fates.objects.dropped(), fates.namespaces.is_balanced()), (Some(1), 1, true));
        drop(held);
        domain.barrier();
        assert!(fates.objects.is_balanced());
    }

    #[test]
    fn of_threads_that_create_a_key_at_once_all_get_the_same_object() {
        let (domain, fates) = (Domain::new(), Arc::<Fates>::default());
        let namespace = Namespace::new(&domain, 100, &fates);
        for key in 0..200 {
            let held = std::thread::scope(|scope| {
                let get = || namespace.get_or_create(key).expect("there is room");
                [scope.spawn(get), scope.spawn(get)].map(|thread| thread.join().expect("it does not panic"))
            });
            assert!(held[0].ptr_eq(&held[1]) && namespace.objects.len() == 1);
            assert!(namespace.remove(&held[0]));
        }
        drop(namespace);
        domain.barrier();
        assert!(fates.objects.is_balanced());
    }
}
