//! The read paths, each in its own function, for `.ci/read-path` to disassemble.

use epoch_registry::{Guard, LocalHandle, LocalHandles, Reader, Registry};
use std::hash::{BuildHasher, Hasher};

/// A hasher of one multiplication, so that hashing does not hide the registry's own instructions.
struct Multiply(u64);

impl BuildHasher for Multiply {
    type Hasher = Multiply;

    fn build_hasher(&self) -> Multiply {
        Multiply(0)
    }
}

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A borrowed read by a session.
#[unsafe(no_mangle)]
#[inline(never)]
fn session_get(reader: &mut Reader<'_, u64, u64, Multiply>, key: &u64) -> u64 {
    reader.get(key).map_or(0, |entry| *entry)
}

/// A borrowed read under a held guard.
#[unsafe(no_mangle)]
#[inline(never)]
fn guard_get(guard: &Guard<'_, u64, u64, Multiply>, key: &u64) -> u64 {
    guard.get(key).map_or(0, |entry| *entry)
}

/// An owned read by a session. It writes the entry's reference count, so the check must report it.
#[unsafe(no_mangle)]
#[inline(never)]
fn session_lookup(reader: &mut Reader<'_, u64, u64, Multiply>, key: &u64) -> u64 {
    reader.lookup(key).map_or(0, |entry| *entry)
}

/// Takes a local handle: the thread itself counts the handles on an entry that it took before.
#[unsafe(no_mangle)]
#[inline(never)]
fn local_handle(
    reader: &mut Reader<'_, u64, u64, Multiply>,
    handles: &mut LocalHandles<u64, u64>,
    key: &u64,
) -> Option<LocalHandle<u64, u64>> {
    reader.get(key).map(|entry| handles.of(entry))
}

fn main() {
    let registry = Registry::<u64, u64>::builder().hasher(Multiply(0)).build();
    for key in 1..=1000 {
        assert!(registry.try_insert(key, key).is_ok());
    }
    let mut reader = registry.reader();
    let sum: u64 = (1..=1000).map(|key| session_get(&mut reader, &key) + session_lookup(&mut reader, &key)).sum();
    let guard = registry.pin();
    let again: u64 = (1..=1000).map(|key| guard_get(&guard, &key)).sum();
    assert_eq!(sum, 2 * again);
    let mut handles = LocalHandles::new(16);
    let local: u64 =
        (1..=1000).filter_map(|key| local_handle(&mut reader, &mut handles, &key)).map(|value| *value).sum();
    assert_eq!(local, again);
    println!("{again}");
}
