//! liburcu's `cds_lfht`, in its QSBR and its memb flavour. The hash is computed here, with the hasher of all
//! contenders. A read is one call into C.

use super::hasher;
use crate::cases::{Idiom, Kind};
use crate::harness::{Lane, reads};
use crate::keys::Sets;
use std::marker::PhantomData;

#[repr(C)]
struct Lfht {
    _opaque: [u8; 0],
    _not_send: PhantomData<*mut u8>,
}

/// The number that `get` and `find` return for an absent key, as `reads` counts it.
const MISSING: u64 = 1;

macro_rules! flavour {
    ($(#[$doc:meta])* $type:ident, $module:ident, $name:literal, $register:ident, $unregister:ident, $new:ident, $insert:ident,
     $find:ident, $get:ident, $enter:ident, $leave:ident, $free:ident) => {
        mod $module {
            use super::Lfht;

            unsafe extern "C" {
                pub fn $register();
                pub fn $unregister();
                // These come from `shims/liburcu/lfht.h`.
                pub fn $new(buckets: usize) -> *mut Lfht;
                pub fn $insert(table: *mut Lfht, hash: usize, key: u64, value: u64);
                pub fn $find(table: *mut Lfht, hash: usize, key: u64, missing: u64) -> u64;
                pub fn $get(table: *mut Lfht, hash: usize, key: u64, missing: u64) -> u64;
                pub fn $enter();
                pub fn $leave();
                pub fn $free(table: *mut Lfht);
            }

            thread_local! {
                /// The registration of this thread, which lasts until the thread exits.
                pub static REGISTERED: Registered = Registered::new();
            }

            pub struct Registered;

            impl Registered {
                fn new() -> Registered {
                    // SAFETY: the thread is not registered: the thread-local makes this call once per thread.
                    unsafe { $register() };
                    Registered
                }
            }

            impl Drop for Registered {
                fn drop(&mut self) {
                    // SAFETY: `new` registered this thread, which is exiting.
                    unsafe { $unregister() };
                }
            }
        }

        $(#[$doc])*
        pub struct $type(*mut Lfht);

        // SAFETY: many threads may use the table at once, and each registers before it does.
        unsafe impl Sync for $type {}

        impl $type {
            pub fn filled(size: usize) -> Self {
                $module::REGISTERED.with(|_| ());
                // SAFETY: the number of buckets is a power of two.
                let table = unsafe { $module::$new(size.next_power_of_two()) };
                assert!(!table.is_null(), "liburcu failed to make a table");
                for number in 0..size as u64 {
                    // SAFETY: the thread is registered, and the key is new.
                    unsafe { $module::$insert(table, hasher().hash_one(number) as usize, number, number) };
                }
                $type(table)
            }

            /// Returns a contender for each way to read the table.
            pub fn lanes(&self) -> Vec<Lane<'_, Sets<u64>>> {
                let (table, hasher) = (self.0, hasher());
                let also = hasher.clone();
                let each = move |sets: &Sets<u64>| {
                    let keys = &sets[Idiom::Each as usize];
                    $module::REGISTERED.with(|_| ());
                    reads(keys, |&key| {
                        // SAFETY: the thread is registered and in no critical section, and the table is borrowed.
                        Some(unsafe { $module::$get(table, hasher.hash_one(key) as usize, key, MISSING) })
                    })
                };
                let held = move |sets: &Sets<u64>| {
                    let keys = &sets[Idiom::Held as usize];
                    $module::REGISTERED.with(|_| ());
                    // SAFETY: the thread is registered.
                    unsafe { $module::$enter() };
                    let sample = reads(keys, |&key| {
                        // SAFETY: the thread is in a critical section, and the table is borrowed.
                        Some(unsafe { $module::$find(table, also.hash_one(key) as usize, key, MISSING) })
                    });
                    // SAFETY: the thread entered the critical section above.
                    unsafe { $module::$leave() };
                    sample
                };
                vec![
                    Lane::new($name, Idiom::Each, Kind::Foreign, each),
                    Lane::new($name, Idiom::Held, Kind::Foreign, held),
                ]
            }
        }

        impl Drop for $type {
            fn drop(&mut self) {
                $module::REGISTERED.with(|_| ());
                // SAFETY: no other thread uses the table any more, and this thread is registered.
                unsafe { $module::$free(self.0) };
            }
        }
    };
}

flavour!(
    /// In this flavour readers announce quiescent states, as a session does. Here `get` does so before each read.
    Qsbr, qsbr, "liburcu cds_lfht, QSBR", urcu_qsbr_register_thread, urcu_qsbr_unregister_thread, urcu_qsbr_shim_new,
    urcu_qsbr_shim_insert, urcu_qsbr_shim_find, urcu_qsbr_shim_get, urcu_qsbr_shim_enter, urcu_qsbr_shim_leave,
    urcu_qsbr_shim_free
);
flavour!(
    /// In this flavour readers enter and leave critical sections without a fence.
    Memb, memb, "liburcu cds_lfht, memb", urcu_memb_register_thread, urcu_memb_unregister_thread, urcu_memb_shim_new,
    urcu_memb_shim_insert, urcu_memb_shim_find, urcu_memb_shim_get, urcu_memb_shim_enter, urcu_memb_shim_leave,
    urcu_memb_shim_free
);
