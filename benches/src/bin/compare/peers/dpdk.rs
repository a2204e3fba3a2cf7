//! DPDK's `rte_hash`, with lock-free reads: key by key, and 32 in one call. The hash is taken here, by the same hasher as all
//! others have, of which it takes 32 bits; readers announce quiescent states by DPDK's own QSBR.

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

// Of `shims/dpdk/hash.c`.
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
/// Keys of one bulk read.
const BULK: usize = 32;
/// What stands for a key that is not there: the figure that `reads` counts.
const MISSING: u64 = 1;

pub struct Dpdk {
    table: *mut Table,
    hasher: RandomState,
}

// SAFETY: the table is one for many threads, each with a number of its own.
unsafe impl Sync for Dpdk {}

/// A reader, online.
struct Reader<'t> {
    table: &'t Dpdk,
    number: u32,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // SAFETY: the number was given to this reader.
        unsafe { dpdk_leave(self.table.table, self.number) };
    }
}

impl Dpdk {
    pub fn filled(size: usize) -> Self {
        // SAFETY: any number of entries that is not too large.
        let table = unsafe { dpdk_new(u32::try_from(size).expect("DPDK's limit")) };
        assert!(!table.is_null(), "DPDK makes no table");
        let hasher = hasher();
        for number in 0..size as u64 {
            // SAFETY: nobody else uses the table yet.
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
        // SAFETY: the table is there.
        Reader { table: self, number: unsafe { dpdk_enter(self.table) } }
    }

    /// Each way to read it.
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
                    // SAFETY: the reader is online, and there are so many keys and hashes.
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
        // SAFETY: nobody borrows the table any more.
        unsafe { dpdk_free(self.table) };
    }
}
