//! Insertions that are refused if there is no room for the entry within the bounds.

#![allow(unsafe_code)]

use crate::domain::IfFull;
use crate::node::{Node, Particulars, UnpublishedNode};
use crate::reap::Priority;
use crate::shard::ShardRef;
use crate::shard::evict::Evicted;
use crate::shard::locked::Locked;
use crate::shard::places::Holding;
use crate::shard::settings::RegistrySettings;
use crate::shard::special::{NotPut, Put};
use crate::shard::state::Special;
use crate::shard::write::{Published, Rejected, Wanted};
use crate::table::Table;
use crate::util::check;
use std::mem;
use std::ptr::NonNull;

/// Why an entry was not admitted.
pub(crate) enum NotAdmitted<K: 'static, V: 'static> {
    /// Its key is taken.
    Taken(Rejected<K, V>),
    /// There is no room for it within the bounds.
    NoRoom(UnpublishedNode<K, V>),
}

impl<'s, K, V> ShardRef<'s, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Publishes a node that [may be refused](crate::node::usage::FirstMarks::refusable). If its key is taken, it
    /// replaces the entry that has the key if `or_replace` is set, and is rejected otherwise.
    pub(crate) fn admit(
        self,
        unpublished: UnpublishedNode<K, V>,
        or_replace: bool,
        wanted: Wanted,
        settings: &RegistrySettings<K, V>,
    ) -> Result<Published<K, V>, NotAdmitted<K, V>>
    where
        K: Eq,
    {
        let locate = |table: Table<K, V>, unpublished: &UnpublishedNode<K, V>| {
            table.locate(unpublished.particulars.hash, |found| check::eq(|| found.key() == &unpublished.key))
        };
        let put = if or_replace { Put::Any } else { Put::New };
        match self.put_special(self.lock(), unpublished, locate, put, wanted, &mut IfFull::go_on(), settings) {
            Ok(published) => Ok(published),
            Err(NotPut::Taken(rejected)) => Err(NotAdmitted::Taken(rejected)),
            Err(NotPut::NoRoom(unpublished)) => Err(NotAdmitted::NoRoom(unpublished)),
            Err(NotPut::Not(_)) => unreachable!("the key may be absent, and the backlog may be overrun"),
        }
    }

    /// Gives a node another priority, if it is in the table. Returns whether it is.
    pub(crate) fn reprioritize(self, node: NonNull<Node<K, V>>, hash: u64, priority: Priority) -> bool {
        let mut locked = self.lock();
        let is_there = locked.table_for(hash, self).locate_exact(node).is_some();
        if is_there {
            // SAFETY: S1 (the shard lock is held; the node is in the table).
            unsafe { node.as_ref() }.header.used.set_priority(priority);
            locked.hand.forget_lap();
        }
        locked.finish();
        is_there
    }
}

impl<K, V> Locked<'_, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Takes room within the bounds for a node that is about to be published, in place of `old` if there is one. The
    /// caller has evicted what it can. Returns false if there is no room, and the node may be refused.
    ///
    /// If the node is not published after all, the release of the lock gives its place back.
    #[inline]
    pub(crate) fn admits(
        &mut self,
        particulars: &Particulars,
        old: Option<NonNull<Node<K, V>>>,
        evicted: &mut Evicted<'_, K, V>,
    ) -> bool {
        let admits = if self.special.has(Special::REFUSING) {
            self.take_place(particulars, old, evicted)
        } else {
            evicted.goes_beyond = evicted.found_none && !self.fits_bounds(particulars.weight.bytes(), old);
            !evicted.goes_beyond || !particulars.marks.may_be_refused()
        };
        if admits && self.bounds.by_priority && particulars.marks.priority() != Priority::Never {
            self.hand.forget_lap();
        }
        admits
    }

    #[cold]
    fn take_place(
        &mut self,
        particulars: &Particulars,
        old: Option<NonNull<Node<K, V>>>,
        evicted: &mut Evicted<'_, K, V>,
    ) -> bool {
        // SAFETY: S1 (the shard lock is held; `old` is in the table).
        let relieved = old.map_or(0, |old| unsafe { old.as_ref() }.header.weight.bytes());
        let weight = particulars.weight.bytes().saturating_sub(relieved);
        let more = Holding { entries: u64::from(old.is_none()), weight };
        let Some(places) = &self.shard.shard().places else { return true };
        evicted.goes_beyond = !places.take(more);
        if evicted.goes_beyond {
            if particulars.marks.may_be_refused() {
                return false;
            }
            places.take_beyond(more);
        }
        self.taken.entries += more.entries;
        self.taken.weight = self.taken.weight.wrapping_add(more.weight);
        true
    }

    /// Gives back the places that the shard does not use. Called before the lock is released.
    pub(crate) fn settle_places(&mut self) {
        let shard = self.shard.shard();
        let Some(places) = &shard.places else { return };
        let used = Holding { entries: shard.counts.live.get(), weight: shard.counts.weight.get() };
        places.settle(mem::replace(&mut self.taken, used), used);
    }
}
