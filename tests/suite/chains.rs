//! Long chains of values that hold each other's handles. A loop destroys them, not recursion.

use crate::common::*;
use epoch_registry::{Domain, Handle, RcuList, RcuOptionCell, Registry};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// A value that holds the handle of the next value.
struct Link {
    next: Option<Handle<usize, Link>>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
        drop(self.next.take());
    }
}

/// Makes a chain of `len` values, which alternate between the registries, and returns its first handle.
fn chain(registries: &[&Registry<usize, Link>], len: usize, dropped: &Arc<AtomicUsize>) -> Handle<usize, Link> {
    let mut next = None;
    for key in 0..len {
        let link = Link { next, dropped: Arc::clone(dropped) };
        next = registries[key % registries.len()].try_insert(key, link).ok();
    }
    next.unwrap()
}

/// The length of a long chain: a million in a release build. In a debug build it would still overflow a test's stack
/// many times.
fn long() -> usize {
    if cfg!(debug_assertions) { times(200_000) } else { times(1_000_000) }
}

#[test]
fn a_long_chain_is_destroyed_by_one_barrier_without_recursion() {
    let registry: Registry<usize, Link> = isolated();
    let dropped = Arc::default();
    let first = chain(&[&registry], long(), &dropped);
    registry.clear();
    registry.domain().barrier();
    assert_eq!(dropped.load(SeqCst), 0);
    drop(first);
    registry.domain().barrier();
    assert_eq!(dropped.load(SeqCst), long());
    assert_eq!((registry.stats().backlog, registry.stats().freed), (0, long() as u64));
}

#[test]
fn a_long_chain_whose_head_is_retired_with_the_rest_is_destroyed_by_one_barrier() {
    let registry: Registry<usize, Link> = isolated();
    let dropped = Arc::default();
    drop(chain(&[&registry], long() / 4, &dropped));
    for key in 0..long() / 4 {
        drop(registry.remove(&key));
    }
    registry.domain().barrier();
    assert_eq!(dropped.load(SeqCst), long() / 4);
}

#[test]
fn a_long_chain_is_destroyed_after_its_registry_is_closed() {
    for keep_domain in [true, false] {
        let registry: Registry<usize, Link> = isolated();
        let dropped = Arc::default();
        let first = chain(&[&registry], long() / 2, &dropped);
        let domain = registry.domain().clone();
        drop(registry);
        assert_eq!(dropped.load(SeqCst), 0);
        if keep_domain {
            drop(first);
            domain.barrier();
        } else {
            drop(domain);
            drop(first);
        }
        assert_eq!(dropped.load(SeqCst), long() / 2);
    }
}

#[test]
fn a_long_chain_is_destroyed_with_its_registry() {
    let registry: Registry<usize, Link> = isolated();
    let dropped = Arc::default();
    drop(chain(&[&registry], long() / 2, &dropped));
    drop(registry);
    assert_eq!(dropped.load(SeqCst), long() / 2);
}

#[test]
fn a_long_chain_is_destroyed_by_a_reclaimer_thread() {
    let domain = Domain::builder().reclaimer(true).build();
    let registry: Registry<usize, Link> = Registry::builder().domain(domain).build();
    let dropped = Arc::default();
    let first = chain(&[&registry], long() / 4, &dropped);
    registry.clear();
    drop(first);
    assert!(soon(|| dropped.load(SeqCst) == long() / 4));
}

#[test]
fn a_long_chain_across_two_domains_is_destroyed_without_recursion() {
    let registries: [Registry<usize, Link>; 2] = [isolated(), isolated()];
    let dropped = Arc::default();
    let first = chain(&[&registries[0], &registries[1]], long() / 2, &dropped);
    drop(registries);
    drop(first);
    assert_eq!(dropped.load(SeqCst), long() / 2);
}

/// Destroying a part of the chain in one domain makes a part in the other domain ready.
#[test]
fn a_chain_across_two_open_domains_is_destroyed_by_their_barriers_in_turn() {
    let registries: [Registry<usize, Link>; 2] = [isolated(), isolated()];
    let dropped = Arc::default();
    let len = 2000;
    let first = chain(&[&registries[0], &registries[1]], len, &dropped);
    registries.iter().for_each(Registry::clear);
    drop(first);
    for _ in 0..len / 2 + 1 {
        registries.iter().rev().for_each(|registry| registry.domain().barrier());
    }
    assert_eq!(dropped.load(SeqCst), len);
}

#[test]
fn a_cycle_broken_by_a_removal_of_its_handle_is_destroyed() {
    struct Node(std::sync::Mutex<Option<Handle<usize, Node>>>, Arc<AtomicUsize>);
    impl Drop for Node {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
        }
    }
    let registry: Registry<usize, Node> = isolated();
    let dropped: Arc<AtomicUsize> = Arc::default();
    let nodes: Vec<_> =
        (0..10).map(|key| registry.try_insert(key, Node(None.into(), Arc::clone(&dropped))).ok().unwrap()).collect();
    for (key, node) in nodes.iter().enumerate() {
        *node.0.lock().unwrap() = Some(nodes[(key + 1) % 10].clone());
    }
    registry.clear();
    registry.domain().barrier();
    let cut = nodes[3].0.lock().unwrap().take();
    drop((nodes, cut));
    registry.domain().barrier();
    assert_eq!(dropped.load(SeqCst), 10);
}

/// Each value owns the next one by a reference: the handle of an entry, a version, or the handle of a list's element.
#[test]
fn a_chain_through_registries_cells_and_lists_is_destroyed_by_one_barrier() {
    struct Mixed(#[allow(dead_code)] Option<Box<dyn Any + Send + Sync>>, Arc<AtomicUsize>);
    impl Drop for Mixed {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
        }
    }
    let domain = Domain::builder().manual().build();
    let registry = Registry::builder().domain(domain.clone()).build();
    let (cell, list) = (RcuOptionCell::empty_in(&domain), RcuList::new_in(&domain));
    // Each kind follows each other one, and each is the last of some chain.
    for pattern in [[0, 1, 2], [0, 2, 1], [1, 2, 0], [1, 0, 2], [2, 0, 1], [2, 1, 0]] {
        for len in [1, 2, 3, 4, 50] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let mut next: Option<Box<dyn Any + Send + Sync>> = None;
            for kind in pattern.iter().cycle().take(len) {
                let value = Mixed(next, Arc::clone(&dropped));
                next = Some(match kind {
                    0 => Box::new(registry.insert_and_get(1, value)) as Box<dyn Any + Send + Sync>,
                    1 => {
                        cell.store(Some(value));
                        Box::new(cell.take().unwrap())
                    }
                    _ => {
                        list.push_back(value);
                        Box::new(list.pop_front().unwrap())
                    }
                });
                registry.delete(&1);
            }
            domain.barrier();
            assert_eq!(dropped.load(SeqCst), 0, "the first reference keeps the chain");
            drop(next);
            domain.barrier();
            assert_eq!(dropped.load(SeqCst), len, "a chain of {len}, {pattern:?}");
        }
    }
}
