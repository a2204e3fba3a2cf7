//! Walks through a list.
//!
//! A walk stands at a link: the head of the list, or the link of an entry that it has returned. A step follows that link, so
//! it finds what is linked there at this moment, and not what was linked there when the entry was returned.

#![allow(unsafe_code)]

use super::element::{Element, ListEntry, head};
use super::walk::{BothWays, Forward, Walk};
use crate::sync::AtomicPtr;
use crate::sync::atomic::Ordering;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A forward walk, from [`RcuList::iter`](super::RcuList::iter) or [`RcuList::resume`](super::RcuList::resume).
///
/// After it has returned `None`, it returns entries again if some were added at the end since.
pub struct ListIter<'a, T: 'static, D: Walk = Forward> {
    /// The link to the next entry.
    link: NonNull<AtomicPtr<Element<T>>>,
    _section: PhantomData<(&'a T, D)>,
}

/// A backward walk, from [`RcuList::iter_back`](super::RcuList::iter_back) or
/// [`RcuList::resume_back`](super::RcuList::resume_back).
///
/// After it has returned `None`, it returns entries again if some were added at the front since.
pub struct ListIterBack<'a, T: 'static> {
    /// The link to the next entry, which is before the last one.
    link: NonNull<AtomicPtr<Element<T>>>,
    _section: PhantomData<&'a T>,
}

impl<T, D: Walk> ListIter<'_, T, D> {
    /// # Safety
    ///
    /// `link` is the head of a list, or the `next` of an element that a critical section of the list's domain has found.
    /// The section lasts for the lifetime of the walk, and so does the head.
    #[inline]
    pub(super) unsafe fn new(link: &AtomicPtr<Element<T>>) -> Self {
        ListIter { link: NonNull::from(link), _section: PhantomData }
    }
}

impl<T> ListIterBack<'_, T> {
    /// # Safety
    ///
    /// As for [`ListIter::new`], with the tail and the `prev`. The list is walked both ways.
    #[inline]
    pub(super) unsafe fn new(link: &AtomicPtr<Element<T>>) -> Self {
        ListIterBack { link: NonNull::from(link), _section: PhantomData }
    }
}

impl<'a, T, D: Walk> Iterator for ListIter<'a, T, D> {
    type Item = ListEntry<'a, T, D>;

    #[inline]
    fn next(&mut self) -> Option<ListEntry<'a, T, D>> {
        // SAFETY: the link is the list's head, or in an element that this section has found, which is not destroyed before
        // the section ends (E5).
        let link = unsafe { self.link.as_ref() };
        // ORDERING: Acquire, pairs with the Release of the stores to `next` and `head` in `links`: the element is complete.
        let element = NonNull::new(link.load(Ordering::Acquire))?;
        // SAFETY: E5 (this section has found the element).
        self.link = NonNull::from(unsafe { &element.as_ref().next });
        // SAFETY: E5 (this section has found the element, and outlasts `'a`), O1.
        Some(unsafe { ListEntry::new(element) })
    }
}

impl<'a, T> Iterator for ListIterBack<'a, T> {
    type Item = ListEntry<'a, T, BothWays>;

    #[inline]
    fn next(&mut self) -> Option<ListEntry<'a, T, BothWays>> {
        // SAFETY: the link is the list's tail, or in an element that this section has found, which is not destroyed before
        // the section ends (E5).
        let link = unsafe { self.link.as_ref() };
        // ORDERING: Acquire, pairs with the Release of the stores to `prev` and `tail` in `links` (`BothWays::BACKWARD`):
        // the element is complete.
        let element = NonNull::new(link.load(Ordering::Acquire))?;
        // SAFETY: E5 (this section has found the element).
        self.link = NonNull::from(unsafe { &head(element).as_ref().prev });
        // SAFETY: E5 (this section has found the element, and outlasts `'a`), O1.
        Some(unsafe { ListEntry::new(element) })
    }
}

impl<T, D: Walk> Clone for ListIter<'_, T, D> {
    fn clone(&self) -> Self {
        ListIter { ..*self }
    }
}

impl<T> Clone for ListIterBack<'_, T> {
    fn clone(&self) -> Self {
        ListIterBack { ..*self }
    }
}

/// Shows the entries that the walk has before it.
impl<T: fmt::Debug, D: Walk> fmt::Debug for ListIter<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

/// Shows the entries that the walk has before it.
impl<T: fmt::Debug> fmt::Debug for ListIterBack<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}
