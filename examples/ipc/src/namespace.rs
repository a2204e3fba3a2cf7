//! Namespaces, and the objects in them. An object is found by its id, which the namespace assigns, or by its key,
//! which the user chooses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use epoch_registry::{Domain, Registry};

use crate::census::Census;
use crate::ids::{Held, Ids, NoSlot};

/// Counts what happens to all namespaces and objects.
#[derive(Default)]
pub struct Fates {
    pub namespaces: Census,
    pub objects: Census,
    /// Objects that were removed. Exactly one caller of `remove` counts each.
    pub removed: AtomicU64,
    /// Objects that were still in their namespace when it ended.
    pub left: AtomicU64,
    /// Objects for which there was no slot.
    pub refused: AtomicU64,
    /// Objects without their key, and keys without their object, at the end of a namespace.
    pub mismatched: AtomicU64,
}

fn count(counter: &AtomicU64, number: u64) {
    // ORDERING: Relaxed. Only a count.
    counter.fetch_add(number, Ordering::Relaxed);
}

pub type Key = u32;

/// An object such as a message queue, but without messages.
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
    /// The objects that have a key. The registry keeps each object as long as the object has its key.
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

    /// Creates an object without a key. (Like `msgget` with `IPC_PRIVATE`.)
    ///
    /// # Errors
    ///
    /// [`NoSlot`] if the namespace is full.
    pub fn create(&self) -> Result<Held<Object>, NoSlot<()>> {
        self.add(None)
    }

    /// Returns the object with this key, or creates one if there is none. (Like `msgget` with `IPC_CREAT`.)
    ///
    /// # Errors
    ///
    /// See [`create`](Self::create).
    pub fn get_or_create(&self, key: Key) -> Result<Held<Object>, NoSlot<()>> {
        loop {
            if let Some(entry) = self.keys.lookup(&key) {
                // The value of the entry is the object's handle.
                let object = entry.value();
                if !object.is_unlinked() {
                    return Ok(object.clone());
                }
                // Another thread has removed the object, but not its key yet.
                self.keys.remove_handle(&entry);
            }
            let object = self.add(Some(key))?;
            if let Ok(entry) = self.keys.try_insert(key, object.clone()) {
                if object.is_unlinked() {
                    // Another thread has already removed the object by its id, before it had a key.
                    self.keys.remove_handle(&entry);
                }
                return Ok(object);
            }
            // Another thread has inserted this key first.
            self.remove(&object);
        }
    }

    /// Returns the object with this key.
    pub fn find(&self, key: Key) -> Option<Held<Object>> {
        self.keys.lookup(&key).map(|entry| entry.value().clone()).filter(|object| !object.is_unlinked())
    }

    /// Removes an object: its id and its key. Returns false if another thread has removed it. (Like `msgctl` with
    /// `IPC_RMID`.)
    pub fn remove(&self, object: &Held<Object>) -> bool {
        let removed = self.objects.remove(object);
        if removed {
            count(&self.fates.removed, 1);
            if let Some(key) = object.key {
                // By now the key may belong to another object.
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

/// The remaining objects are destroyed with the two registries, unless there are handles to them.
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
    fn a_key_belongs_to_one_object_at_a_time() {
        let (domain, fates) = (Domain::new(), Arc::default());
        let namespace = Namespace::new(&domain, 10, &fates);
        let first = namespace.get_or_create(7).expect("there is room");
        assert!(first.ptr_eq(&namespace.get_or_create(7).expect("the object exists")));
        assert!(namespace.remove(&first) && namespace.find(7).is_none());
        let second = namespace.get_or_create(7).expect("there is room");
        assert!(!first.ptr_eq(&second) && !namespace.remove(&first));
        assert!(namespace.find(7).is_some_and(|found| found.ptr_eq(&second)), "the second object keeps the key");
    }

    #[test]
    fn an_object_outlives_its_namespace_while_a_handle_holds_it() {
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
    fn threads_that_create_a_key_at_the_same_time_all_get_the_same_object() {
        let (domain, fates) = (Domain::new(), Arc::<Fates>::default());
        let namespace = Namespace::new(&domain, 100, &fates);
        for key in 0..200 {
            let held = std::thread::scope(|scope| {
                let get = || namespace.get_or_create(key).expect("there is room");
                [scope.spawn(get), scope.spawn(get)].map(|thread| thread.join().expect("the thread does not panic"))
            });
            assert!(held[0].ptr_eq(&held[1]) && namespace.objects.len() == 1);
            assert!(namespace.remove(&held[0]));
        }
        drop(namespace);
        domain.barrier();
        assert!(fates.objects.is_balanced());
    }
}
