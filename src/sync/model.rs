//! An epoch collector for the model checker. It guarantees exactly what the contract of an epoch collector
//! promises:
//!
//! - A critical section that opens after a deferral is ordered after that deferral.
//! - A deferred destruction runs after, and is ordered after, its deferral. It also runs after, and is ordered
//!   after, the end of every critical section that opened before the deferral, including the section of the
//!   deferring thread. This includes sections that had already ended, because the deferring thread is not
//!   otherwise ordered after their end.
//! - Nothing else is ordered: neither two sections, nor two deferrals.
//!
//! It runs each deferred destruction as early as the contract allows: at the next unpin or flush of any thread.
//! The real collector orders much more by its fences. That would hide a missing Acquire or Release in the
//! registry's own code.
//!
//! The bookkeeping uses std's types, which the model checker does not see. The checker runs one thread at a
//! time and switches threads only at loom's operations. So the code between two such operations is atomic. The
//! guaranteed order comes from three kinds of loom atomics: the counter of deferrals, the tokens of sections,
//! and the tokens of deferrals.

#![allow(unsafe_code)]

use loom::sync::atomic::{AtomicUsize, Ordering};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

pub(crate) struct Collector(Arc<Global>);

struct Global {
    books: Mutex<Books>,
    /// A deferral releases it, a pin acquires it. It is changed only by additions, so that a pin is ordered
    /// after all deferrals and not only after the last one.
    deferrals: AtomicUsize,
    /// The tokens that the end of a section, or a deferral, releases. They are made in advance, because making
    /// a loom atomic is also an access. A token is reused when nothing refers to it any more. It is released by additions
    /// and not by stores: no order is known between the stores of two threads that have used a token in turn, so a later
    /// acquisition might read the earlier one of them.
    tokens: [Arc<AtomicUsize>; TOKENS],
}

/// The maximum number of sections and deferrals at the same time in a model.
const TOKENS: usize = 32;

#[derive(Default)]
struct Books {
    open: Vec<Section>,
    /// The last section that each registration has ended. It also stands for the earlier sections of that
    /// registration.
    ended: Vec<Section>,
    deferred: Vec<Deferred>,
}

/// A section that is open or has ended. When it has ended, its token has been released.
#[derive(Clone)]
struct Section {
    token: Arc<AtomicUsize>,
    ended: Arc<Mutex<bool>>,
}

struct Deferred {
    waits_for: Vec<Section>,
    token: Arc<AtomicUsize>,
    run: Box<dyn FnOnce()>,
}

// SAFETY: the threads of the model checker are coroutines on one thread.
unsafe impl Send for Deferred {}
// SAFETY: the threads of the model checker are coroutines on one thread.
unsafe impl Sync for Global {}
// SAFETY: the threads of the model checker are coroutines on one thread.
unsafe impl Send for Global {}

impl Collector {
    pub(crate) fn new() -> Self {
        Collector(Arc::new(Global {
            books: Mutex::new(Books::default()),
            deferrals: AtomicUsize::new(0),
            tokens: std::array::from_fn(|_| Arc::new(AtomicUsize::new(0))),
        }))
    }

    pub(crate) fn register(&self) -> LocalHandle {
        LocalHandle(Rc::new(Local {
            global: Arc::clone(&self.0),
            guards: Cell::new(0),
            section: RefCell::new(None),
            ended: RefCell::new(None),
        }))
    }
}

impl Global {
    fn token(&self) -> Arc<AtomicUsize> {
        let free = self.tokens.iter().find(|token| Arc::strong_count(token) == 1);
        Arc::clone(free.expect("too many sections and deferrals for this model's collector"))
    }

    fn run_what_may(&self) {
        loop {
            let next = {
                let mut books = self.books.lock().unwrap();
                let may = |deferred: &Deferred| deferred.waits_for.iter().all(|section| *section.ended.lock().unwrap());
                match books.deferred.iter().position(may) {
                    Some(index) => books.deferred.remove(index),
                    None => return,
                }
            };
            // ORDERING: Acquire, pairs with the Release in `defer_destroy`.
            next.token.fetch_add(0, Ordering::Acquire);
            for section in &next.waits_for {
                // ORDERING: Acquire, pairs with the Release in `close`.
                section.token.fetch_add(0, Ordering::Acquire);
            }
            (next.run)();
        }
    }
}

impl Drop for Global {
    fn drop(&mut self) {
        for deferred in std::mem::take(&mut self.books.get_mut().unwrap().deferred) {
            (deferred.run)();
        }
    }
}

pub(crate) struct LocalHandle(Rc<Local>);

struct Local {
    global: Arc<Global>,
    guards: Cell<usize>,
    section: RefCell<Option<Section>>,
    ended: RefCell<Option<Section>>,
}

impl LocalHandle {
    pub(crate) fn pin(&self) -> Guard {
        self.0.open();
        Guard(Rc::clone(&self.0))
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.0.guards.get() > 0
    }
}

impl Local {
    fn open(&self) {
        self.guards.set(self.guards.get() + 1);
        if self.guards.get() > 1 {
            return;
        }
        let section = Section { token: self.global.token(), ended: Arc::default() };
        // The section is ordered after all deferrals so far, and every later deferral waits for it.
        // ORDERING: Acquire, pairs with the Release of `deferrals` in `defer_destroy`.
        self.global.deferrals.fetch_add(0, Ordering::Acquire);
        self.global.books.lock().unwrap().open.push(section.clone());
        *self.section.borrow_mut() = Some(section);
    }

    fn close(&self) {
        self.guards.set(self.guards.get() - 1);
        if self.guards.get() > 0 {
            return;
        }
        let section = self.section.borrow_mut().take().unwrap();
        // ORDERING: Release, pairs with the Acquire in `run_what_may`. An addition: see `tokens`.
        section.token.fetch_add(1, Ordering::Release);
        *section.ended.lock().unwrap() = true;
        let mut books = self.global.books.lock().unwrap();
        books.open.retain(|open| !Arc::ptr_eq(&open.token, &section.token));
        let before = self.ended.borrow_mut().replace(section.clone());
        books.ended.retain(|ended| before.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.ended, &ended.ended)));
        books.ended.push(section);
        drop((books, before));
        self.global.run_what_may();
    }
}

pub(crate) struct Guard(Rc<Local>);

impl Guard {
    pub(crate) unsafe fn defer_destroy<T: 'static>(&self, shared: Shared<'_, T>) {
        let pointer = shared.0;
        // SAFETY: the pointer came from a box in `into_shared`, and the caller gives up its ownership.
        let run = Box::new(move || drop(unsafe { Box::from_raw(pointer) }));
        let token = self.0.global.token();
        // ORDERING: Release, pairs with the Acquire in `run_what_may`. An addition: see `tokens`.
        token.fetch_add(1, Ordering::Release);
        // ORDERING: Release, pairs with the Acquire in `open`.
        self.0.global.deferrals.fetch_add(1, Ordering::Release);
        let mut books = self.0.global.books.lock().unwrap();
        let waits_for = books.open.iter().chain(&books.ended).cloned().collect();
        books.deferred.push(Deferred { waits_for, token, run });
    }

    pub(crate) fn flush(&self) {
        self.0.global.run_what_may();
    }

    pub(crate) fn repin_after<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.0.close();
        let result = f();
        self.0.open();
        result
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub(crate) struct Owned<T>(Box<T>);

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Owned(Box::new(value))
    }

    pub(crate) fn into_shared(self, _guard: &Guard) -> Shared<'_, T> {
        Shared(Box::into_raw(self.0), PhantomData)
    }
}

pub(crate) struct Shared<'g, T>(*mut T, PhantomData<&'g Guard>);
