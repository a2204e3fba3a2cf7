//! An epoch collector for the model checker that promises no more than the contract, and keeps it no better:
//!
//! - a critical section that opens after a deferral is ordered after it;
//! - what is deferred runs after, and ordered after, the end of every critical section that opened before the deferral
//!   (its own included), and ordered after the deferral. Sections that have ended already count too: that a section was
//!   over is nothing that the deferring thread knows otherwise;
//! - nothing else is ordered by it: neither sections among each other, nor deferrals.
//!
//! It runs what is deferred as early as that allows: at the next pin, unpin or flush of anybody. The real collector
//! orders far more by its fences, which would hide a missing Acquire or Release in the registry's own code.
//!
//! The bookkeeping is in std's types, which the checker does not see: it runs one thread at a time and switches only
//! at operations of its own, so that what stands between two of those is atomic. The order that the contract promises
//! is made of the three kinds of loom atomics below.

#![allow(unsafe_code)]

use loom::sync::atomic::{AtomicUsize, Ordering};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

pub(crate) struct Collector(Arc<Global>);

struct Global {
    books: Mutex<Books>,
    /// Deferrals release it, pins acquire it. Only ever added to, so that no deferral is lost to a later one.
    deferrals: AtomicUsize,
    /// What a section's end, or a deferral, releases. Made in advance, since the making of a loom atomic is an access
    /// too; handed out, and used again when nobody refers to them any more.
    tokens: [Arc<AtomicUsize>; TOKENS],
}

/// Sections and deferrals at a time, in a model.
const TOKENS: usize = 32;

#[derive(Default)]
struct Books {
    open: Vec<Section>,
    /// The last section that each registration has ended. (It stands for those before it.)
    ended: Vec<Section>,
    deferred: Vec<Deferred>,
}

/// A section that is open, or has ended: then the token is released.
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

// SAFETY: the checker's threads are coroutines of one thread.
unsafe impl Send for Deferred {}
// SAFETY: as for `Send`.
unsafe impl Sync for Global {}
// SAFETY: as for `Send`.
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
        // After all deferrals so far, and open for all to come.
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
        // ORDERING: Release, pairs with the Acquire in `run_what_may`.
        section.token.store(1, Ordering::Release);
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
        // SAFETY: `into_shared` took it from a box, and the caller gives it up.
        let run = Box::new(move || drop(unsafe { Box::from_raw(pointer) }));
        let token = self.0.global.token();
        // ORDERING: Release, pairs with the Acquire in `run_what_may`.
        token.store(1, Ordering::Release);
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
