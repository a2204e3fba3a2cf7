//! The versions of a cell's value: their memory, and the types that own them.
//!
//! ```text
//!  a version of a sized type:              a version from a box, of any type:
//!  ┌───────────────┬───────┐               ┌───────────────┐       ┌───────┐
//!  │ head          │ value │               │ head ─────────┼──────▶│ value │
//!  └───────────────┴───────┘               └───────────────┘       └───────┘
//!                  ▲                                       ▲
//!                  └ what the cell publishes: one word     └ the same
//! ```
//!
//! The cell publishes the address behind the head. If the type is sized, that is the address of the value, and a read
//! needs no other load. Else the head holds the pointer to the value, with its length or vtable.

#![allow(unsafe_code)]

use crate::object::{self, ObjectHeader};
use crate::sync::atomic::Ordering;
use crate::sync::{self, AtomicBool};
use std::alloc::Layout;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::ptr::{self, NonNull};

/// The part of a version before the published address.
#[repr(C)]
pub(super) struct Head<T: ?Sized> {
    pub(super) object: ObjectHeader,
    /// The number of the version in its cell. Written before the version is published.
    pub(super) number: u64,
    /// Whether the cell has a newer version, or was dropped.
    superseded: AtomicBool,
    /// The value, if it does not lie behind the head.
    value: Indirect<T>,
}

impl<T: ?Sized> Head<T> {
    pub(super) fn set_superseded(&self) {
        // ORDERING: Relaxed, only for `is_superseded`, which promises nothing about other memory.
        self.superseded.store(true, Ordering::Relaxed);
    }
}

/// The pointer to a value that does not lie behind its head.
union Indirect<T: ?Sized> {
    /// There is none: the value lies behind the head.
    none: NonNull<()>,
    value: *mut T,
}

/// The address behind a version's head.
pub(super) struct Place<T: ?Sized>(NonNull<()>, PhantomData<*mut T>);

impl<T: ?Sized> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Place<T> {}

impl<T: ?Sized> PartialEq for Place<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: ?Sized> Place<T> {
    /// Whether a pointer to the value is one word: then the value lies at the place, behind the head.
    const IS_THIN: bool = size_of::<*mut T>() == size_of::<*mut ()>();

    #[inline]
    pub(super) fn new(published: *mut ()) -> Option<Self> {
        NonNull::new(published).map(|place| Place(place, PhantomData))
    }

    pub(super) fn as_ptr(self) -> *mut () {
        self.0.as_ptr()
    }

    #[inline]
    pub(super) fn head(self) -> NonNull<Head<T>> {
        // SAFETY: a place is behind a head, in the same allocation.
        unsafe { self.0.cast::<Head<T>>().sub(1) }
    }

    /// Returns the header of the version.
    #[inline]
    pub(super) fn object(self) -> NonNull<ObjectHeader> {
        // (It is the first field.)
        self.head().cast()
    }

    /// Returns the value.
    ///
    /// # Safety
    ///
    /// The version is not destroyed during the lifetime of the returned reference.
    #[inline]
    pub(super) unsafe fn value<'v>(self) -> &'v T {
        // SAFETY: the caller guarantees that the version is not destroyed.
        unsafe { self.object().as_ref() }.presence.touch();
        // SAFETY: the caller guarantees that the version is not destroyed.
        let value = unsafe { self.value_pointer() };
        // SAFETY: the caller guarantees that the version is not destroyed, so this points to its value.
        unsafe { &*value }
    }

    /// # Safety
    ///
    /// The head is not freed.
    #[inline]
    unsafe fn value_pointer(self) -> *mut T {
        if Self::IS_THIN {
            // SAFETY: both types are pointers of one word, and `*mut T` has no metadata.
            unsafe { mem::transmute_copy::<NonNull<()>, *mut T>(&self.0) }
        } else {
            // SAFETY: the caller guarantees that the head is not freed.
            let head = unsafe { self.head().as_ref() };
            // SAFETY: `indirect` made the version, since the pointer is not thin.
            unsafe { head.value.value }
        }
    }
}

/// Returns the layout of a version with its value behind its head, and the offset of the value.
///
/// # Panics
///
/// If the version does not fit the address space.
#[inline]
fn inline_layout<T: ?Sized>(value: Layout) -> (Layout, usize) {
    let align = value.align().max(align_of::<Head<T>>());
    let at = size_of::<Head<T>>().next_multiple_of(align);
    let layout = Layout::from_size_align(at + value.size(), align);
    (layout.expect("a version does not fit the address space"), at)
}

/// Destroys a version with its value behind its head.
///
/// # Safety
///
/// As for [`object::destroy`]. The object is a version from [`NewVersion::inline`].
unsafe fn destroy_inline<T: ?Sized>(object: NonNull<ObjectHeader>) {
    /// Frees the version, even if the drop of its value panics.
    struct Free<T: ?Sized>(Place<T>, Layout, usize);

    impl<T: ?Sized> Drop for Free<T> {
        fn drop(&mut self) {
            let Free(place, layout, at) = *self;
            // SAFETY: the caller of `destroy_inline` owns the version.
            unsafe { ptr::drop_in_place(place.head().as_ptr()) };
            // SAFETY: `inline` put the value at this offset of its allocation.
            let base = unsafe { place.0.byte_sub(at) };
            // SAFETY: `inline` allocated it with this layout, and the caller of `destroy_inline` owns it.
            unsafe { sync::dealloc(base.cast(), layout) };
        }
    }
    // SAFETY: this is the end of the head.
    let place = Place::<T>(unsafe { object.cast::<Head<T>>().add(1) }.cast(), PhantomData);
    // SAFETY: the caller owns the version, so its head is not freed.
    let value = unsafe { place.value_pointer() };
    // SAFETY: the caller owns the version, so its value is not destroyed.
    let (layout, at) = inline_layout::<T>(Layout::for_value(unsafe { &*value }));
    let _free = Free(place, layout, at);
    // SAFETY: the caller owns the version, and so its value.
    unsafe { ptr::drop_in_place(value) };
}

/// Destroys a version from a box.
///
/// # Safety
///
/// As for [`object::destroy`]. The object is a version from [`NewVersion::indirect`].
unsafe fn destroy_indirect<T: ?Sized>(object: NonNull<ObjectHeader>) {
    let head = object.cast::<Head<T>>();
    // SAFETY: the caller owns the version, so its head is not freed.
    let value = &unsafe { head.as_ref() }.value;
    // SAFETY: `indirect` made the version.
    let value = unsafe { value.value };
    // SAFETY: from `Box::into_raw`, in `indirect`. The caller owns the version, and so its value.
    let value = unsafe { Box::from_raw(value) };
    // SAFETY: the caller owns the version, and its value was taken out.
    unsafe { ptr::drop_in_place(head.as_ptr()) };
    // SAFETY: `indirect` allocated it with this layout, and the caller owns it.
    unsafe { sync::dealloc(head.cast(), Layout::new::<Head<T>>()) };
    drop(value);
}

/// A value that is to become a version of a cell, in the memory of a version.
///
/// It is made from a value, or, for types without a known size, from a box:
///
/// ```
/// use epoch_registry::{NewVersion, RcuCell};
///
/// let number: NewVersion<u64> = 7.into();
/// let name: NewVersion<str> = "seven".into();
/// let function: NewVersion<dyn Fn(u64) -> u64 + Send + Sync> = (Box::new(|n: u64| n + 1) as Box<dyn Fn(u64) -> u64 + Send + Sync>).into();
/// assert_eq!((*number, &*name, function(7)), (7, "seven", 8));
/// ```
pub struct NewVersion<T: ?Sized> {
    place: Place<T>,
    _owns: PhantomData<Box<T>>,
}

// SAFETY: it owns its value, as a box does.
unsafe impl<T: ?Sized + Send> Send for NewVersion<T> {}
// SAFETY: it gives `&T`, as a box does.
unsafe impl<T: ?Sized + Sync> Sync for NewVersion<T> {}

impl<T: ?Sized> NewVersion<T> {
    /// Returns a version with its value behind its head. The value is moved out of `value`.
    ///
    /// # Safety
    ///
    /// `value` points to a value that the caller gives up. [`Place::IS_THIN`] holds for its type.
    unsafe fn inline(value: *const T) -> Self {
        // SAFETY: the caller guarantees that `value` points to a value.
        let of_value = Layout::for_value(unsafe { &*value });
        let (layout, at) = inline_layout::<T>(of_value);
        // SAFETY: the head has a size above zero.
        let base = unsafe { sync::alloc(layout) };
        // SAFETY: the allocation extends to the value's offset, or beyond.
        let place = unsafe { base.add(at) };
        // SAFETY: the allocation has room for the value at this offset, and does not overlap the old place.
        unsafe { ptr::copy_nonoverlapping(value.cast::<u8>(), place.as_ptr(), of_value.size()) };
        let object = ObjectHeader::new(layout.size(), destroy_inline::<T>);
        let (place, none) = (Place(place.cast(), PhantomData), NonNull::dangling());
        // SAFETY: the allocation has room for the head before the value, at an offset that is aligned for it.
        unsafe {
            place.head().write(Head { object, number: 0, superseded: AtomicBool::new(false), value: Indirect { none } })
        };
        NewVersion { place, _owns: PhantomData }
    }

    /// Returns a version whose head points to its value.
    fn indirect(value: Box<T>) -> Self {
        let bytes = size_of::<Head<T>>() + size_of_val(&*value);
        let object = ObjectHeader::new(bytes, destroy_indirect::<T>);
        // SAFETY: the head has a size above zero.
        let base = unsafe { sync::alloc(Layout::new::<Head<T>>()) }.cast::<Head<T>>();
        // SAFETY: the allocation has the size and alignment of a head.
        unsafe {
            base.write(Head {
                object,
                number: 0,
                superseded: AtomicBool::new(false),
                value: Indirect { value: Box::into_raw(value) },
            })
        };
        // SAFETY: this is the end of the allocation.
        let place = unsafe { base.add(1) };
        NewVersion { place: Place(place.cast(), PhantomData), _owns: PhantomData }
    }

    /// Gives the version up, for the cell that publishes it.
    pub(super) fn into_place(self) -> Place<T> {
        let place = self.place;
        mem::forget(self);
        place
    }

    pub(super) fn head_mut(&mut self) -> &mut Head<T> {
        // SAFETY: this owns the version.
        unsafe { self.place.head().as_mut() }
    }
}

impl<T: ?Sized> Drop for NewVersion<T> {
    fn drop(&mut self) {
        // SAFETY: O3 (the version was never published, so this owns it).
        unsafe { object::destroy(self.place.object()) };
    }
}

impl<T: ?Sized> Deref for NewVersion<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this owns the version.
        unsafe { self.place.value() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for NewVersion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> From<T> for NewVersion<T> {
    fn from(value: T) -> Self {
        let value = ManuallyDrop::new(value);
        // SAFETY: the value is not used again, and its type is sized.
        unsafe { NewVersion::inline(&raw const *value) }
    }
}

impl<T: ?Sized> From<Box<T>> for NewVersion<T> {
    fn from(value: Box<T>) -> Self {
        if !Place::<T>::IS_THIN {
            return NewVersion::indirect(value);
        }
        let value = Box::into_raw(value);
        // SAFETY: `value` comes from a box, which is given up. The branch above has excluded other pointers.
        let version = unsafe { NewVersion::inline(value) };
        // SAFETY: from `into_raw` above. The value was moved out, and is not dropped with the box.
        drop(unsafe { Box::from_raw(value as *mut ManuallyDrop<T>) });
        version
    }
}

impl From<&str> for NewVersion<str> {
    fn from(value: &str) -> Self {
        NewVersion::indirect(value.into())
    }
}

impl From<String> for NewVersion<str> {
    fn from(value: String) -> Self {
        NewVersion::indirect(value.into())
    }
}

impl<T: Clone> From<&[T]> for NewVersion<[T]> {
    fn from(value: &[T]) -> Self {
        NewVersion::indirect(value.into())
    }
}

impl<T> From<Vec<T>> for NewVersion<[T]> {
    fn from(value: Vec<T>) -> Self {
        NewVersion::indirect(value.into())
    }
}

/// A version for a cell that is made at compile time, in a `static`: see [`RcuCell::from_static`](crate::RcuCell::from_static).
#[cfg(not(loom))]
#[repr(C)]
pub struct StaticVersion<T> {
    head: Head<T>,
    value: T,
}

// SAFETY: it gives `&T`. (Its head has no pointer.)
#[cfg(not(loom))]
unsafe impl<T: Sync> Sync for StaticVersion<T> {}
// SAFETY: it owns its value. (Its head has no pointer.)
#[cfg(not(loom))]
unsafe impl<T: Send> Send for StaticVersion<T> {}

#[cfg(not(loom))]
impl<T> StaticVersion<T> {
    /// Returns a version of `value`, which is never dropped. The alignment of its type is at most 16.
    pub const fn new(value: T) -> Self {
        const { assert!(mem::offset_of!(Self, value) == size_of::<Head<T>>(), "the alignment of the type is above 16") };
        let value_pointer = Indirect { none: NonNull::dangling() };
        let superseded = AtomicBool::new(false);
        let head = Head { object: ObjectHeader::of_static(), number: 0, superseded, value: value_pointer };
        StaticVersion { head, value }
    }

    /// Returns the version's place.
    pub(super) const fn place(&'static self) -> *mut () {
        // (From a pointer to the whole version, so that it may be used for the head too.)
        // SAFETY: the value is a field.
        unsafe { (&raw const *self).byte_add(mem::offset_of!(Self, value)) as *mut () }
    }
}

#[cfg(not(loom))]
impl<T: fmt::Debug> fmt::Debug for StaticVersion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// An owned, counted reference to a version of a cell's value. It is one word wide, and so is `Option<Version>`.
///
/// The version stays as it is when the cell has a new one, and may outlive the cell. The thread that drops the last
/// reference does not run the value's `Drop`: it hands the version over to the cell's domain. Only if the domain is gone
/// too, the value is dropped on this thread.
///
/// ```
/// use epoch_registry::RcuCell;
///
/// let cell = RcuCell::new("one".to_string());
/// let one = cell.load();
/// cell.store("two".to_string());
/// drop(cell);
/// assert_eq!(*one, "one");
/// ```
pub struct Version<T: ?Sized + 'static> {
    /// Owns one reference.
    place: Place<T>,
    _owns: PhantomData<Box<T>>,
}

// SAFETY: a version gives `&T` to its thread while other threads may have it too (`Sync`). The drop of the last
// reference leads to the drop of the value on any thread (`Send`).
unsafe impl<T: ?Sized + Send + Sync> Send for Version<T> {}
// SAFETY: a shared version can be cloned, and the clone dropped on another thread, so the reasons for `Send` apply.
unsafe impl<T: ?Sized + Send + Sync> Sync for Version<T> {}

impl<T: ?Sized> Unpin for Version<T> {}

impl<T: ?Sized> Version<T> {
    /// Takes a reference to the version at `place`.
    ///
    /// # Safety
    ///
    /// The caller holds a reference, or has found the version in a critical section that is still open (O1).
    #[inline]
    pub(super) unsafe fn take(place: Place<T>) -> Self {
        // SAFETY: the caller guarantees that the version is not destroyed.
        let object = unsafe { place.object().as_ref() };
        object.presence.touch();
        object.refs.get();
        Version { place, _owns: PhantomData }
    }

    pub(super) fn place(&self) -> Place<T> {
        self.place
    }

    fn head(&self) -> &Head<T> {
        // SAFETY: O1 (this holds a reference).
        unsafe { self.place.head().as_ref() }
    }

    /// Returns the version's number: zero for the first version of a cell, and one more for each that follows.
    pub fn number(this: &Self) -> u64 {
        this.head().number
    }

    /// Returns whether the cell has a newer version, or has been dropped.
    pub fn is_superseded(this: &Self) -> bool {
        // ORDERING: Relaxed, as in `set_superseded`.
        this.head().superseded.load(Ordering::Relaxed)
    }

    /// Returns whether both are the same version, and not only versions with equal values.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.place == other.place
    }
}

impl<T: ?Sized> Clone for Version<T> {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: O1 (this holds a reference).
        unsafe { Version::take(self.place) }
    }
}

impl<T: ?Sized> Drop for Version<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this owns one reference, and a version is published before there are references to it.
        unsafe { object::put(self.place.object()) };
    }
}

impl<T: ?Sized> Deref for Version<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: O1 (this holds a reference).
        unsafe { self.place.value() }
    }
}

impl<T: ?Sized> AsRef<T> for Version<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Version<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Version<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + PartialEq> PartialEq for Version<T> {
    /// Compares the values.
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ?Sized + Eq> Eq for Version<T> {}

impl<T: ?Sized + Hash> Hash for Version<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}
