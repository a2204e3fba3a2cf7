//! The exact bound of a registry that refuses, whose shards take places from one count.

use crate::world::{Identity, Watched, World, part};
use epoch_registry::{AtCapacity, Domain, Registry};
use std::sync::Arc;

/// Two keys in different shards: the top bit of the half of the hash that selects the shard differs.
const KEYS: [u64; 2] = [1, 1 << 31 | 2];

/// Returns a world with two shards and one place.
fn one_place() -> Arc<World> {
    let domain = Domain::builder().name("model").build();
    let builder = Registry::<u64, Watched>::builder().domain(domain.clone()).hasher(Identity::default());
    let registry = builder.shards(2).max_entries(1).at_capacity(AtCapacity::Refuse).build();
    Arc::new(World { registry: Some(registry), domain, drops: Arc::default(), dropped: Arc::default() })
}

fn admit(world: &World, key: u64) -> bool {
    world.registry().admit(key, world.value(key as u32)).is_ok()
}

pub fn admit_admit() {
    let world = one_place();
    let other = Arc::clone(&world);
    let admitting = part(&world.domain, move || admit(&other, KEYS[0]));
    let second = admit(&world, KEYS[1]);
    let first = admitting.join().unwrap();
    assert!(first != second, "one place admits exactly one of two");
    assert_eq!(world.registry().len(), 1);
    world.account(2);
}

pub fn admit_remove() {
    let world = one_place();
    assert!(admit(&world, KEYS[0]));
    let other = Arc::clone(&world);
    let removing = part(&world.domain, move || {
        assert!(other.registry().delete(&KEYS[0]));
    });
    let admitted = admit(&world, KEYS[1]);
    if admitted {
        assert!(!world.registry().contains_key(&KEYS[0]), "an entry was admitted while another still had its place");
    }
    removing.join().unwrap();
    assert!(admitted || admit(&world, KEYS[1]), "the place of an entry that has left is free");
    assert_eq!(world.registry().len(), 1);
    world.account(if admitted { 2 } else { 3 });
}
