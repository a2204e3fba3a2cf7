//! Which types may cross threads. The auto traits of the types stay as they are.

use epoch_registry::*;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// Whether a type implements a trait, decided at compile time. The inherent constant takes precedence where its bound
/// holds.
macro_rules! implements {
    ($type:ty: $($bound:tt)+) => {{
        #[allow(dead_code)]
        trait Otherwise {
            const ANSWER: bool = false;
        }
        struct Probe<T: ?Sized>(PhantomData<T>);
        impl<T: ?Sized> Otherwise for Probe<T> {}
        #[allow(dead_code)]
        impl<T: ?Sized + $($bound)+> Probe<T> {
            const ANSWER: bool = true;
        }
        <Probe<$type>>::ANSWER
    }};
}

/// Checks a list of such answers at once.
macro_rules! assert_is {
    ($($type:ty: $bound:ident = $expected:literal;)*) => {
        let wrong: &[&str] = &[$(
            if implements!($type: $bound) == $expected { "" } else { concat!(stringify!($type), ": ", stringify!($bound)) }
        ),*];
        let wrong: Vec<_> = wrong.iter().filter(|text| !text.is_empty()).collect();
        assert!(wrong.is_empty(), "not as expected: {wrong:?}");
    };
}

type S = epoch_registry::RandomState;
/// A type that is `Send` but not `Sync`, and a type that is neither.
type Cell = std::cell::Cell<u8>;
type Rc = std::rc::Rc<u8>;

#[test]
fn shared_types_may_cross_threads() {
    assert_is! {
        Registry<String, Vec<u8>>: Send = true;
        Registry<String, Vec<u8>>: Sync = true;
        Handle<String, Vec<u8>>: Send = true;
        Handle<String, Vec<u8>>: Sync = true;
        Domain: Send = true;
        Domain: Sync = true;
        Cookie: Send = true;
        Cursor: Send = true;
        Stats: Send = true;
        Occupied<String, Vec<u8>>: Send = true;
        Refused<String, Vec<u8>>: Send = true;
        Refused<String, Vec<u8>>: Sync = true;
        RegistryFull<String, Vec<u8>>: Send = true;
        Drain<'static, u8, u8, S>: Send = true;
        RcuCell<Vec<u8>>: Send = true;
        RcuCell<Vec<u8>>: Sync = true;
        RcuCell<Cell>: Send = false;
        RcuOptionCell<str>: Sync = true;
        Version<Vec<u8>>: Send = true;
        Version<Vec<u8>>: Sync = true;
        Version<Cell>: Send = false;
        Version<std::sync::MutexGuard<'static, u8>>: Sync = false;
        NewVersion<Vec<u8>>: Send = true;
        NewVersion<Rc>: Send = false;
        StaticVersion<Cell>: Sync = false;
        Changed<'static, Vec<u8>>: Send = true;
        Reached: Send = true;
        BarrierFuture: Send = true;
        RcuList<Vec<u8>>: Send = true;
        RcuList<Vec<u8>>: Sync = true;
        RcuBidirList<Cell>: Send = false;
        RcuBidirList<Cell>: Sync = false;
        ListHandle<Vec<u8>>: Send = true;
        ListHandle<Vec<u8>>: Sync = true;
        ListHandle<Vec<u8>, BothWays>: Unpin = true;
        ListHandle<Cell>: Send = false;
        ListEntry<'static, Vec<u8>>: Send = true;
        Splice<'static, Vec<u8>>: Send = true;
        Splice<'static, Vec<u8>>: Sync = true;
        NotInList<Vec<u8>>: Send = true;
        RegistrySet<String>: Send = true;
        RegistrySet<String>: Sync = true;
        Registration<String, Vec<u8>>: Send = true;
        Registration<String, Vec<u8>>: Sync = true;
        ManualClock: Sync = true;
        Builder<Rc, Rc>: Sized = true;
    }
}

/// Types that belong to a critical section or a session must not leave their thread.
#[test]
fn types_that_belong_to_a_thread_stay_there() {
    assert_is! {
        Guard<'static, u8, u8, S>: Send = false;
        Guard<'static, u8, u8, S>: Sync = false;
        DomainGuard<'static>: Send = false;
        DomainGuard<'static>: Sync = false;
        View<'static, u8, u8, S>: Send = false;
        View<'static, u8, u8, S>: Sync = false;
        Iter<'static, u8, u8>: Send = false;
        Iter<'static, u8, u8>: Sync = false;
        Reader<'static, u8, u8, S>: Send = false;
        Reader<'static, u8, u8, S>: Sync = false;
        ListIter<'static, u8>: Send = false;
        ListIter<'static, u8>: Sync = false;
        ListIterBack<'static, u8>: Send = false;
        OwnedReader<u8, u8>: Send = false;
        OwnedReader<u8, u8>: Sync = false;
        Keys<'static, u8, u8>: Send = false;
        Keys<'static, u8, u8>: Sync = false;
        Values<'static, u8, u8>: Send = false;
        Values<'static, u8, u8>: Sync = false;
        Registration<u8, u8, Rc>: Send = false;
        Registration<u8, u8, Cell>: Send = false;
        RegistrySet<u8, Rc>: Send = false;
        RegistrySet<u8, Cell>: Sync = false;
        Session: Send = false;
        Session: Sync = false;
        Section<'static>: Send = false;
        Section<'static>: Sync = false;
        CellReader<'static, u8>: Send = false;
        CellReader<'static, u8>: Sync = false;
        Registry<u8, u8, Rc>: Send = false;
        Registry<u8, u8, Rc>: Sync = false;
        Registry<u8, u8, Cell>: Send = true;
        Registry<u8, u8, Cell>: Sync = false;
    }
}

/// Other threads can reach `&K` and `&V` through a handle, and its drop may move both to another thread.
#[test]
fn a_handle_crosses_threads_only_if_key_and_value_are_send_and_sync() {
    assert_is! {
        Handle<u8, Cell>: Send = false;
        Handle<u8, Cell>: Sync = false;
        Handle<Cell, u8>: Send = false;
        Handle<Rc, u8>: Send = false;
        Handle<u8, Rc>: Sync = false;
        Handle<u8, std::sync::MutexGuard<'static, u8>>: Send = false;
        Handle<u8, std::sync::MutexGuard<'static, u8>>: Sync = false;
        Entry<'static, u8, Cell>: Send = false;
        Entry<'static, u8, Cell>: Sync = false;
        Entry<'static, Rc, u8>: Send = false;
    }
}

#[test]
fn types_without_a_borrow_are_unpin_and_unwind_safe() {
    assert_is! {
        Registry<u8, std::marker::PhantomPinned>: Unpin = true;
        Domain: Unpin = true;
        Session: Unpin = true;
        Entry<'static, u8, u8>: Copy = true;
        Cookie: Copy = true;
        Handle<u8, u8>: UnwindSafe = true;
        Handle<u8, u8>: RefUnwindSafe = true;
        RcuCell<u8>: UnwindSafe = true;
        RcuOptionCell<u8>: RefUnwindSafe = true;
        Version<u8>: UnwindSafe = true;
        Version<std::marker::PhantomPinned>: Unpin = true;
        RcuList<u8>: Unpin = true;
        RcuList<u8>: UnwindSafe = true;
        RcuBidirList<u8>: RefUnwindSafe = true;
        ListEntry<'static, u8>: Copy = true;
        ListHandle<u8>: UnwindSafe = true;
        ListHandle<u8>: RefUnwindSafe = true;
    }
}

/// All of std's pointers (`Box`, `Arc`) are `Unpin`, because the pointer itself is not what is pinned.
#[test]
fn a_handle_is_unpin_whatever_it_points_to() {
    assert_is! {
        Handle<u8, std::marker::PhantomPinned>: Unpin = true;
        Handle<std::marker::PhantomPinned, u8>: Unpin = true;
    }
}

/// An entry is a reference. A thread may use it if the critical section surely lasts that long.
#[test]
fn an_entry_may_be_lent_to_a_scoped_thread() {
    assert_is! {
        Entry<'static, u8, u8>: Send = true;
        Entry<'static, u8, u8>: Sync = true;
    }
    let registry: Registry<u64, u64> = Registry::builder().domain(Domain::new()).build();
    registry.try_insert(1, 10).unwrap();
    let guard = registry.pin();
    let entry = guard.get(&1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(entry.handle().map(|handle| *handle), Some(10));
            drop(registry.remove(&1));
            assert_eq!((entry.handle(), *entry), (None, 10));
        });
    });
}

/// An entry of a long critical section can be used where a shorter borrow is expected. The same holds for views and
/// guards.
#[test]
fn entries_and_views_are_covariant_in_their_lifetime() {
    fn entry<'s>(long: Entry<'static, u8, u8>, _: &'s u8) -> Entry<'s, u8, u8> {
        long
    }
    fn view<'s>(long: &'s View<'static, u8, u8, S>) -> &'s View<'s, u8, u8, S> {
        long
    }
    fn guard<'s>(long: Guard<'static, u8, u8, S>, _: &'s u8) -> Guard<'s, u8, u8, S> {
        long
    }
    fn handle(long: Handle<&'static str, fn(&str)>) -> Handle<&'static str, fn(&'static str)> {
        long
    }
    let _ =
        (entry as fn(_, &'static u8) -> _, view as fn(_) -> _, guard as fn(_, &'static u8) -> _, handle as fn(_) -> _);
}
