//! The elements of lists: their memory, and the types that own or borrow them.
//!
//! ```text
//!  an element:  ┌────────┬──────┬──────┐┌──────┬───────┐
//!               │ object │ prev │ home ││ next │ value │
//!               └────────┴──────┴──────┘└──────┴───────┘
//!                                        ▲
//!                                        └ what links lead to
//! ```
//!
//! Links lead to the link that follows, and the value lies next to it: a forward walk reads one cache line of an element with
//! a small value. Processors follow such chains ahead of the program. A chain that leads to the beginning of an element, 48
//! bytes before its link, takes more than twice as long to walk (see "Lists" in `docs/design.md`).

#![allow(unsafe_code)]

use super::walk::{Forward, Walk};
use crate::object::{self, ObjectHeader};
use crate::sync::{self, AtomicPtr, AtomicU64};
use std::alloc::Layout;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::ptr::{self, NonNull};

/// The `home` of an element that is in no list.
pub(super) const NOWHERE: u64 = 0;

/// The part of an element that walks use, and that links lead to.
#[repr(C)]
pub(super) struct Element<T> {
    /// The element after, or null (E1).
    pub(super) next: AtomicPtr<Element<T>>,
    value: ManuallyDrop<T>,
}

/// The part of an element that lies before that.
#[repr(C)]
pub(super) struct Head<T> {
    object: ObjectHeader,
    /// The element before, or null (E1).
    pub(super) prev: AtomicPtr<Element<T>>,
    /// The number of the list that the element is in, or [`NOWHERE`] (E3).
    pub(super) home: AtomicU64,
}

/// The allocation of an element.
#[repr(C)]
struct Whole<T> {
    head: Head<T>,
    element: Element<T>,
}

impl<T> Whole<T> {
    /// Returns the allocation of an element.
    fn of(element: NonNull<Element<T>>) -> NonNull<Self> {
        head(element).cast()
    }
}

/// The bytes that an element counts for in the backlog.
pub(super) const fn bytes<T>() -> u64 {
    size_of::<Whole<T>>() as u64
}

/// Returns the head of an element. It is an object: its header is its first field.
#[inline]
pub(super) fn head<T>(element: NonNull<Element<T>>) -> NonNull<Head<T>> {
    // SAFETY: every element lies at this offset of a `Whole`, whose first field is the head. Pointers to elements come from
    // pointers to the allocation (`NewElement::new`).
    unsafe { element.byte_sub(mem::offset_of!(Whole<T>, element)) }.cast()
}

/// Returns the object that an element is.
#[inline]
pub(super) fn object<T>(element: NonNull<Element<T>>) -> NonNull<ObjectHeader> {
    head(element).cast()
}

/// Returns the element that an object is.
fn of_object<T>(object: NonNull<ObjectHeader>) -> NonNull<Element<T>> {
    // SAFETY: the element lies at this offset of the allocation that begins with the object.
    unsafe { object.byte_add(mem::offset_of!(Whole<T>, element)) }.cast()
}

/// Returns the value of an element.
///
/// # Safety
///
/// The element is not destroyed during the lifetime of the returned reference.
#[inline]
unsafe fn value<'v, T>(element: NonNull<Element<T>>) -> &'v T {
    // SAFETY: the caller guarantees that the element is not destroyed.
    unsafe { object(element).as_ref() }.presence.touch();
    // SAFETY: the caller guarantees that the element is not destroyed.
    &unsafe { element.as_ref() }.value
}

/// An element that is not published yet.
pub(super) struct NewElement<T>(NonNull<Element<T>>);

impl<T> NewElement<T> {
    /// Returns an element that has the list's reference (O1).
    pub(super) fn new(value: T) -> Self {
        let object = ObjectHeader::new(size_of::<Whole<T>>(), destroy::<T>);
        let head = Head { object, prev: AtomicPtr::new(ptr::null_mut()), home: AtomicU64::new(NOWHERE) };
        let element = Element { next: AtomicPtr::new(ptr::null_mut()), value: ManuallyDrop::new(value) };
        // SAFETY: an element has a size above zero.
        let memory = unsafe { sync::alloc(Layout::new::<Whole<T>>()) };
        // SAFETY: the allocation has the size and alignment of a `Whole`.
        unsafe { memory.cast().write(Whole { head, element }) };
        NewElement(of_object(memory.cast()))
    }

    /// Takes a reference, for the caller of the insertion.
    pub(super) fn handle<D: Walk>(&self) -> ListHandle<T, D> {
        // SAFETY: O1 (the list's reference is there from the beginning).
        unsafe { ListHandle::take(self.0) }
    }

    /// Gives the element up, for the list that publishes it.
    pub(super) fn into_pointer(self) -> NonNull<Element<T>> {
        let element = self.0;
        mem::forget(self);
        element
    }

    /// Takes the value back. There are no other references to the element.
    pub(super) fn into_value(self) -> T {
        let mut element = self.into_pointer();
        let _free = Free(element);
        // SAFETY: this owned the element.
        let value = &mut unsafe { element.as_mut() }.value;
        // SAFETY: the value is not used again.
        unsafe { ManuallyDrop::take(value) }
    }
}

impl<T> Drop for NewElement<T> {
    fn drop(&mut self) {
        // SAFETY: O3 (the element was never published, so this owns it).
        unsafe { object::destroy(object(self.0)) };
    }
}

/// An element whose value was dropped or taken. Its drop frees the memory.
struct Free<T>(NonNull<Element<T>>);

impl<T> Drop for Free<T> {
    fn drop(&mut self) {
        let whole = Whole::of(self.0);
        // SAFETY: the maker of a `Free` owns the element. (The value is a `ManuallyDrop`.)
        unsafe { ptr::drop_in_place(whole.as_ptr()) };
        // SAFETY: `NewElement::new` allocated it with this layout, and the maker of a `Free` owns it.
        unsafe { sync::dealloc(whole.cast(), Layout::new::<Whole<T>>()) };
    }
}

/// Destroys an element.
///
/// # Safety
///
/// As for [`object::destroy`]. The object is an element of this type.
unsafe fn destroy<T>(object: NonNull<ObjectHeader>) {
    let mut element = of_object::<T>(object);
    // (Also if the drop of the value panics.)
    let _free = Free(element);
    // SAFETY: the caller owns the element.
    let value = &mut unsafe { element.as_mut() }.value;
    // SAFETY: the value is not used again.
    unsafe { ManuallyDrop::drop(value) };
}

/// An entry of a list, borrowed for as long as a critical section lasts.
///
/// It gives the value by `Deref`, and a [handle](Self::handle) to keep the entry for longer.
pub struct ListEntry<'a, T: 'static, D: Walk = Forward> {
    element: NonNull<Element<T>>,
    _section: PhantomData<(&'a T, D)>,
}

// SAFETY: an entry gives `&T` to its thread while other threads may have it too (`Sync`). A handle that is made from it
// may lead to the drop of the value on that thread (`Send`).
unsafe impl<T: Send + Sync, D: Walk> Send for ListEntry<'_, T, D> {}
// SAFETY: as for `Send`, since an entry is `Copy`.
unsafe impl<T: Send + Sync, D: Walk> Sync for ListEntry<'_, T, D> {}

impl<'a, T, D: Walk> ListEntry<'a, T, D> {
    /// # Safety
    ///
    /// The element is not destroyed before `'a` ends, and it has the list's reference until then (O1).
    #[inline]
    pub(super) unsafe fn new(element: NonNull<Element<T>>) -> Self {
        ListEntry { element, _section: PhantomData }
    }

    /// Returns the value, for as long as the critical section lasts.
    #[inline]
    pub fn value(self) -> &'a T {
        // SAFETY: the caller of `new` guarantees that the element is not destroyed before `'a` ends.
        unsafe { value(self.element) }
    }

    /// Returns a handle to the entry, which may outlive the critical section.
    ///
    /// # Progress
    ///
    /// Wait-free: one locked instruction.
    #[inline]
    pub fn handle(self) -> ListHandle<T, D> {
        // SAFETY: the caller of `new` guarantees that the list's reference is there.
        unsafe { ListHandle::take(self.element) }
    }
}

impl<T, D: Walk> Clone for ListEntry<'_, T, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, D: Walk> Copy for ListEntry<'_, T, D> {}

impl<T, D: Walk> Deref for ListEntry<'_, T, D> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value()
    }
}

impl<T: fmt::Debug, D: Walk> fmt::Debug for ListEntry<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// An owned, counted reference to an entry of a list. It is one word wide, and so is `Option<ListHandle>`.
///
/// It names the entry to the operations of its list (`remove`, `replace`, `insert_after`, `resume`, ...), which say so if
/// the entry is not in the list any more. It keeps the value, and may outlive the entry's removal and the list. The thread
/// that drops the last reference does not run the value's `Drop`: it hands the element over to the list's domain. Only if
/// the domain is gone too, the value is dropped on this thread.
///
/// ```
/// use epoch_registry::RcuList;
///
/// let list = RcuList::new();
/// let one = list.push_back("one".to_string());
/// list.remove(&one);
/// drop(list);
/// assert_eq!(*one, "one");
/// ```
///
/// # It is never linked again
///
/// An entry that was removed cannot be put into a list again: readers may still follow its links. An insertion takes a
/// value, and makes a new element:
///
/// ```compile_fail,E0308
/// let list = epoch_registry::RcuList::new();
/// let one = list.push_back(1);
/// list.remove(&one);
/// list.push_front(one); // a value is expected, and not a handle
/// ```
///
/// # Handles belong to one kind of list
///
/// ```compile_fail,E0308
/// let list = epoch_registry::RcuList::bidir();
/// let one = list.push_back(1);
/// let other = epoch_registry::RcuList::new();
/// other.push_back(1);
/// other.remove(&one); // the handle is that of an `RcuBidirList`
/// ```
pub struct ListHandle<T: 'static, D: Walk = Forward> {
    /// Owns one reference.
    element: NonNull<Element<T>>,
    _owns: PhantomData<(Box<T>, D)>,
}

// SAFETY: a handle gives `&T` to its thread while other threads may have it too (`Sync`). The drop of the last reference
// leads to the drop of the value on any thread (`Send`).
unsafe impl<T: Send + Sync, D: Walk> Send for ListHandle<T, D> {}
// SAFETY: a shared handle can be cloned, and the clone dropped on another thread, so the reasons for `Send` apply.
unsafe impl<T: Send + Sync, D: Walk> Sync for ListHandle<T, D> {}

impl<T, D: Walk> Unpin for ListHandle<T, D> {}

impl<T, D: Walk> ListHandle<T, D> {
    /// Takes a reference to an element.
    ///
    /// # Safety
    ///
    /// The element has another reference, which stays until this returns (O1).
    #[inline]
    pub(super) unsafe fn take(element: NonNull<Element<T>>) -> Self {
        // SAFETY: the caller guarantees that the element is not destroyed.
        let object = unsafe { object(element).as_ref() };
        object.presence.touch();
        object.refs.get();
        ListHandle { element, _owns: PhantomData }
    }

    #[inline]
    pub(super) fn pointer(&self) -> NonNull<Element<T>> {
        self.element
    }

    /// Returns the head of the element.
    #[inline]
    pub(super) fn head(&self) -> &Head<T> {
        // SAFETY: O1 (this holds a reference).
        unsafe { head(self.element).as_ref() }
    }

    /// Returns the link that leads forward from the element.
    #[inline]
    pub(super) fn next(&self) -> &AtomicPtr<Element<T>> {
        // SAFETY: O1 (this holds a reference).
        &unsafe { self.element.as_ref() }.next
    }

    /// Returns whether both are handles to the same entry, and not only to equal values.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.element == other.element
    }
}

impl<T, D: Walk> Clone for ListHandle<T, D> {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: O1 (this holds a reference).
        unsafe { ListHandle::take(self.element) }
    }
}

impl<T, D: Walk> Drop for ListHandle<T, D> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this owns one reference. The list's reference, which is put after the element was published, precedes it.
        unsafe { object::put(object(self.element)) };
    }
}

impl<T, D: Walk> Deref for ListHandle<T, D> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: O1 (this holds a reference).
        unsafe { value(self.element) }
    }
}

impl<T, D: Walk> AsRef<T> for ListHandle<T, D> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: fmt::Debug, D: Walk> fmt::Debug for ListHandle<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Display, D: Walk> fmt::Display for ListHandle<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: PartialEq, D: Walk> PartialEq for ListHandle<T, D> {
    /// Compares the values.
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq, D: Walk> Eq for ListHandle<T, D> {}

impl<T: Hash, D: Walk> Hash for ListHandle<T, D> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
