//! Weak references to entries: what they point to, and how a writer cuts them when the entry leaves.
//!
//! An entry that has weak references has one [`WeakLink`], which all of them share, and which points to its node. The shard
//! finds the link by the address of the node. The writer that unlinks the node cuts the link under the same hold of the
//! lock, before it retires the node.
//!
//! A reader that follows a link does so within a critical section, as it follows a slot of a table. If it finds the node,
//! the node was not cut yet, so its grace period begins later than the section, and the node outlives the section.
//!
//! # Invariants
//!
//! - **Y1** A link points to a node in the table of its shard, or is cut. A link that is cut stays cut.
//! - **Y2** While a shard has links, it has [`Special::WEAK`]. So the short paths of writes, which a shard takes without any
//!   special feature, need not look for links.

#![allow(unsafe_code)]

use crate::handle::Handle;
use crate::node::{Header, Node};
use crate::shard::ShardRef;
use crate::shard::locked::Locked;
use crate::shard::state::Special;
use crate::sync::AtomicPtr;
use crate::sync::atomic::Ordering::{Acquire, Release};
use crate::util::hasher::RandomState;
use std::collections::HashMap;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// What the weak references to one entry share.
pub(crate) struct WeakLink(AtomicPtr<Header>);

impl WeakLink {
    /// Returns a link that is cut.
    pub(crate) fn cut_off() -> Self {
        WeakLink(AtomicPtr::new(ptr::null_mut()))
    }

    /// Returns the node. The caller is in a critical section of the registry's domain, and uses the node within it.
    pub(crate) fn node<K, V>(&self) -> Option<NonNull<Node<K, V>>> {
        // ORDERING: Acquire, pairs with the Release in `downgrade`: the node is complete. A cut is ordered by the grace
        // period: see the module.
        NonNull::new(self.0.load(Acquire)).map(NonNull::cast)
    }

    fn cut(&self) {
        // ORDERING: Release, as the store that unlinks a node from its table: a reader whose critical section begins after
        // the node's grace period has begun finds the link cut.
        self.0.store(ptr::null_mut(), Release);
    }
}

/// The links of a shard, by the addresses of their nodes. The shard lock guards them.
pub(crate) type WeakLinks = HashMap<usize, Arc<WeakLink>, RandomState>;

impl<K, V> ShardRef<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns the link of an entry. It is cut if the entry is not in the table of this shard.
    pub(crate) fn downgrade(self, entry: &Handle<K, V>) -> Arc<WeakLink> {
        let mut locked = self.lock();
        let table = locked.table_for(entry.hash().into(), self);
        if table.locate_exact(entry.node()).is_none() {
            return Arc::new(WeakLink::cut_off());
        }
        let header = entry.node().cast::<Header>();
        let links = locked.weak.get_or_insert_default();
        // ORDERING: Release, pairs with the Acquire in `node`. Links are shared only after this.
        let link = links.entry(header.addr().get()).or_insert_with(|| {
            let link = WeakLink::cut_off();
            link.0.store(header.as_ptr(), Release);
            Arc::new(link)
        });
        let link = Arc::clone(link);
        locked.special.set(Special::WEAK, true);
        link
    }
}

impl<K, V> Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Cuts the link of a node that the caller is about to unlink and retire under this hold of the lock, if it has one
    /// (Y1).
    pub(crate) fn cut_link(&mut self, node: NonNull<Node<K, V>>) {
        if self.special.has(Special::WEAK) {
            self.find_and_cut(node);
        }
    }

    /// Returns whether a node has a link that is not cut.
    pub(crate) fn has_link(&self, node: NonNull<Header>) -> bool {
        self.weak.as_ref().is_some_and(|links| links.contains_key(&node.addr().get()))
    }

    #[cold]
    fn find_and_cut(&mut self, node: NonNull<Node<K, V>>) {
        let Some(links) = &mut self.weak else { return };
        if let Some(link) = links.remove(&node.addr().get()) {
            link.cut();
        }
        if links.is_empty() {
            self.weak = None;
            self.special.set(Special::WEAK, false);
        }
    }

    /// Cuts all links. The caller has unlinked all nodes of the shard, and retires them later.
    pub(crate) fn cut_links(&mut self) {
        self.special.set(Special::WEAK, false);
        for link in self.weak.take().iter().flat_map(|links| links.values()) {
            link.cut();
        }
    }
}
