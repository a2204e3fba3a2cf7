//! One entry in a registry and in a list at once, as the kernel's dcache keeps its LRU: one handle, and one reference count.
//!
//! The registry finds an object by its key. The list has the order of use. Both hold references to the same entry, which is
//! destroyed once it has left both, after a grace period.

use epoch_registry::{Domain, Handle, ListHandle, RcuList, Registry};
use std::sync::Mutex;

type Kept = Handle<u32, Object>;

struct Object {
    name: String,
    /// The object's place in the order of use.
    place: Mutex<Option<ListHandle<Kept>>>,
}

struct Cache {
    objects: Registry<u32, Object>,
    /// The one that was used last is at the end.
    recent: RcuList<Kept>,
}

impl Cache {
    fn new(domain: &Domain) -> Self {
        Cache { objects: Registry::builder().domain(domain.clone()).build(), recent: RcuList::new_in(domain) }
    }

    fn insert(&self, key: u32, name: String) {
        let object = self.objects.insert_and_get(key, Object { name, place: Mutex::new(None) });
        self.touch(&object);
    }

    /// Moves an object to the end of the order. (It gets a new element: readers may still walk over the old one.)
    fn touch(&self, object: &Kept) {
        let mut place = object.place.lock().unwrap();
        let new = self.recent.push_back(object.clone());
        if let Some(old) = place.replace(new) {
            self.recent.remove(&old);
        }
    }

    /// Removes the objects that were not used for the longest time, down to `most` objects.
    fn shrink(&self, most: usize) {
        while self.objects.len() > most {
            let Some(oldest) = self.recent.pop_front() else { break };
            // The object and its place refer to each other until here.
            oldest.place.lock().unwrap().take();
            self.objects.remove_handle(&oldest);
        }
    }
}

fn main() {
    let domain = Domain::new();
    let cache = Cache::new(&domain);
    for key in 0..8 {
        cache.insert(key, format!("object {key}"));
    }
    for key in [2, 0] {
        let object = cache.objects.lookup(&key).unwrap();
        cache.touch(&object);
    }

    // One critical section serves the registry and the list. Both lead to the same entry.
    {
        let guard = cache.objects.pin();
        let order: Vec<u32> = cache.recent.iter(&guard).map(|entry| *entry.key()).collect();
        println!("least recently used first: {order:?}");
        assert_eq!(order, [1, 3, 4, 5, 6, 7, 2, 0]);
        let last = cache.recent.iter(&guard).last().unwrap();
        assert!(std::ptr::eq::<Object>(&**last, &*guard.get(&0).unwrap()));
    }

    let kept = cache.objects.lookup(&1).unwrap();
    cache.shrink(3);
    domain.barrier();
    let left = cache.objects.stats();
    println!("{} objects left, {} destroyed, one more is kept by a handle: {}", left.live, left.freed, kept.name);
    assert_eq!((left.live, left.freed, kept.name.as_str()), (3, 4, "object 1"));
    assert!([7, 2, 0].iter().all(|key| cache.objects.contains_key(key)));

    // The last reference, of whichever kind.
    drop(kept);
    domain.barrier();
    assert_eq!(cache.objects.stats().freed, 5);
    cache.shrink(0);
    domain.barrier();
    assert_eq!((cache.objects.stats().freed, cache.recent.len()), (8, 0));
}
