//! DPDK's `rte_hash` with lock-free reads, of one key or of 32 keys per call. The hash is computed here, with the
//! hasher of all contenders, of which `rte_hash` uses 32 bits. Readers announce quiescent states by DPDK's own QSBR.

use super::hasher;
use crate::cases::{Idiom, Kind};
use crate::harness::{Lane, reads, timed};
use crate::keys::Sets;
use ahash::RandomState;
use std::marker::PhantomData;

#[repr(C)]
struct Table {
    _opaque: [u8; 0],
    _not_send: PhantomData<*mut u8>,
}

// These come from `shims/dpdk/hash.c`.
unsafe extern "C" {
    fn dpdk_new(entries: u32) -> *mut Table;
    fn dpdk_insert(table: *mut Table, hash: u32, key: u64, value: u64) -> i32;
    fn dpdk_enter(table: *mut Table) -> u32;
    fn dpdk_leave(table: *mut Table, reader: u32);
    fn dpdk_find(table: *mut Table, hash: u32, key: u64, missing: u64) -> u64;
    fn dpdk_get(table: *mut Table, reader: u32, hash: u32, key: u64, missing: u64) -> u64;
    fn dpdk_bulk(table: *mut Table, reader: u32, hashes: *mut u32, keys: *const u64, count: u32, missing: u64) -> u64;
    fn dpdk_free(table: *mut Table);
}

const NAME: &str = "DPDK rte_hash";
/// The number of keys in one bulk read.
const BULK: usize = 32;
/// The number that stands for an absent key, as `reads` counts it.
const MISSING: u64 = 1;

pub struct Dpdk {
    table: *mut Table,
    hasher: RandomState,
}

// SAFETY: many threads may use the table at once, and each reader has its own number.
unsafe impl Sync for Dpdk {}

/// An online reader.
struct Reader<'t> {
    table: &'t Dpdk,
    number: u32,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // SAFETY: `dpdk_enter` gave this number to this reader, and the table is borrowed.
        unsafe { dpdk_leave(self.table.table, self.number) };
    }
}

impl Dpdk {
    pub fn filled(size: usize) -> Self {
        // SAFETY: the function has no precondition, and returns null if it fails.
        let table = unsafe { dpdk_new(u32::try_from(size).expect("DPDK's limit")) };
        assert!(!table.is_null(), "DPDK failed to make a table");
        let hasher = hasher();
        for number in 0..size as u64 {
            // SAFETY: the table is not null, and no other thread uses it yet.
            let inserted = unsafe { dpdk_insert(table, hasher.hash_one(number) as u32, number, number) };
            assert!(inserted >= 0, "DPDK takes no more than {number} of {size} keys");
        }
        Dpdk { table, hasher }
    }

    #[inline]
    fn hash(&self, key: u64) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn reader(&self) -> Reader<'_> {
        // SAFETY: the table lives as long as `self`.
        Reader { table: self, number: unsafe { dpdk_enter(self.table) } }
    }

    /// Returns a contender for each way to read the table.
    pub fn lanes(&self) -> Vec<Lane<'_, Sets<u64>>> {
        let each = move |sets: &Sets<u64>| {
            let reader = self.reader();
            reads(&sets[Idiom::Each as usize], |&key| {
                // SAFETY: the reader is online.
                Some(unsafe { dpdk_get(self.table, reader.number, self.hash(key), key, MISSING) })
            })
        };
        let held = move |sets: &Sets<u64>| {
            let _reader = self.reader();
            reads(&sets[Idiom::Held as usize], |&key| {
                // SAFETY: the reader is online.
                Some(unsafe { dpdk_find(self.table, self.hash(key), key, MISSING) })
            })
        };
        let bulk = move |sets: &Sets<u64>| {
            let reader = self.reader();
            timed(&sets[Idiom::Batch as usize], |keys| {
                let mut sum = 0_u64;
                for keys in keys.chunks(BULK) {
                    let mut hashes = [0; BULK];
                    for (hash_of_key, &key) in hashes.iter_mut().zip(keys) {
                        *hash_of_key = self.hash(key);
                    }
                    let count = keys.len() as u32;
                    // SAFETY: the reader is online, and both arrays have at least `count` elements.
                    let found = unsafe {
                        dpdk_bulk(self.table, reader.number, hashes.as_mut_ptr(), keys.as_ptr(), count, MISSING)
                    };
                    sum = sum.wrapping_add(found);
                }
                sum
            })
        };
        vec![
            Lane::new(NAME, Idiom::Each, Kind::Foreign, each),
            Lane::new(NAME, Idiom::Held, Kind::Foreign, held),
            Lane::new("DPDK rte_hash, bulk of 32", Idiom::Batch, Kind::Foreign, bulk),
        ]
    }
}

impl Drop for Dpdk {
    fn drop(&mut self) {
        // SAFETY: no other thread uses the table any more.
        unsafe { dpdk_free(self.table) };
    }
}
