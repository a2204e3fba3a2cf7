//! The kinds of lists: whether readers walk forward only, or both ways.

use crate::sync::atomic::Ordering;

/// How readers walk a list: [`Forward`] or [`BothWays`].
///
/// It is a part of the types of a list, its handles and its entries, so that what belongs to one kind of list is not used
/// with the other. The trait is sealed.
pub trait Walk: Sealed {}

/// The secret part of [`Walk`].
pub trait Sealed: Send + Sync + Unpin + 'static {
    /// The ordering of the stores of links that lead backward.
    #[doc(hidden)]
    const BACKWARD: Ordering;
}

/// Readers walk forward only: the kind of [`RcuList`](super::RcuList).
#[derive(Debug)]
pub enum Forward {}

/// Readers walk forward and backward: the kind of [`RcuBidirList`](super::RcuBidirList).
#[derive(Debug)]
pub enum BothWays {}

impl Walk for Forward {}
impl Walk for BothWays {}

impl Sealed for Forward {
    // ORDERING: Relaxed. Only writers follow these links, and the list's lock orders writers.
    const BACKWARD: Ordering = Ordering::Relaxed;
}

impl Sealed for BothWays {
    // ORDERING: Release, pairs with the Acquire in `ListIterBack::next`: the element is complete.
    const BACKWARD: Ordering = Ordering::Release;
}
