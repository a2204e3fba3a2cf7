//! Looks endpoints up in a list by many threads while another thread changes the list.

use crate::random::Random;
use epoch_registry::{Domain, RcuList, Session};
use parking_lot::{Mutex, RwLock};
use std::collections::LinkedList;
use std::hint::{black_box, spin_loop};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

pub struct Size {
    pub endpoints: u16,
    pub threads: usize,
    /// The lookups of each thread.
    pub lookups: u64,
}

/// The pause between two changes of the list.
const CHANGED_EVERY: Duration = Duration::from_millis(1);

#[derive(Clone, Copy)]
struct Endpoint {
    address: u32,
    port: u16,
    /// What a lookup wants to know.
    route: u32,
}

impl Endpoint {
    fn new(number: u16) -> Self {
        Endpoint { address: 0x7f00_0001, port: number, route: u32::from(number) * 3 }
    }

    fn is(&self, port: u16) -> bool {
        self.address == 0x7f00_0001 && self.port == port
    }
}

/// A contender.
trait Endpoints: Sync {
    /// What a reader keeps between lookups.
    type Reader;

    fn reader(&self) -> Self::Reader;
    fn lookup(&self, reader: &mut Self::Reader, port: u16) -> Option<u32>;
    /// Takes the first endpoint away and puts it back at the end: a connection that closes, and another one that opens.
    fn change(&self);
}

struct Ours {
    list: RcuList<Endpoint>,
}

impl Endpoints for Ours {
    type Reader = Session;

    fn reader(&self) -> Session {
        self.list.domain().session()
    }

    fn lookup(&self, session: &mut Session, port: u16) -> Option<u32> {
        let section = session.section();
        self.list.iter(&section).find(|endpoint| endpoint.is(port)).map(|endpoint| endpoint.route)
    }

    fn change(&self) {
        let first = self.list.pop_front().expect("an endpoint");
        self.list.push_back(*first);
    }
}

/// Ours, with a pin for each lookup.
struct Pinned(Ours);

impl Endpoints for Pinned {
    type Reader = ();

    fn reader(&self) {}

    fn lookup(&self, (): &mut (), port: u16) -> Option<u32> {
        let Pinned(Ours { list }) = self;
        list.iter(&list.domain().pin()).find(|endpoint| endpoint.is(port)).map(|endpoint| endpoint.route)
    }

    fn change(&self) {
        self.0.change();
    }
}

/// A collection of endpoints for one thread.
trait Collection: Send + Sync {
    fn lookup(&self, port: u16) -> Option<u32>;
    fn change(&mut self);
}

impl Collection for LinkedList<Endpoint> {
    fn lookup(&self, port: u16) -> Option<u32> {
        self.iter().find(|endpoint| endpoint.is(port)).map(|endpoint| endpoint.route)
    }

    fn change(&mut self) {
        let first = self.pop_front().expect("an endpoint");
        self.push_back(first);
    }
}

impl Collection for Vec<Endpoint> {
    fn lookup(&self, port: u16) -> Option<u32> {
        self.iter().find(|endpoint| endpoint.is(port)).map(|endpoint| endpoint.route)
    }

    fn change(&mut self) {
        let first = self.remove(0);
        self.push(first);
    }
}

/// A lock that spins, and yields after a while: there may be more threads than cores.
struct Spin<T>(Mutex<T>);

impl<T> Spin<T> {
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let mut turns = 0;
        loop {
            if let Some(mut guard) = self.0.try_lock() {
                return f(&mut guard);
            }
            turns += 1;
            if turns % 100 == 0 { thread::yield_now() } else { spin_loop() }
        }
    }
}

macro_rules! locked {
    ($($lock:ident: $read:expr, $write:expr;)*) => { $(
        impl<C: Collection> Endpoints for $lock<C> {
            type Reader = ();

            fn reader(&self) {}

            fn lookup(&self, (): &mut (), port: u16) -> Option<u32> {
                $read(self, port)
            }

            fn change(&self) {
                $write(self)
            }
        }
    )* };
}

locked! {
    Spin: |this: &Self, port| this.with(|endpoints| endpoints.lookup(port)), |this: &Self| this.with(C::change);
    RwLock: |this: &Self, port| this.read().lookup(port), |this: &Self| this.write().change();
    Mutex: |this: &Self, port| this.lock().lookup(port), |this: &Self| this.lock().change();
}

/// Returns the nanoseconds from the first lookup to the last, divided by the number of lookups of all threads, and the number
/// of changes.
fn measure<E: Endpoints>(size: &Size, endpoints: &E) -> (f64, u64) {
    let (start, over) = (Barrier::new(size.threads + 1), AtomicBool::new(false));
    let (elapsed, changes) = thread::scope(|scope| {
        let readers: Vec<_> = (0..size.threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || {
                    let (mut random, mut found) = (Random::new(thread as u64), 0_u64);
                    start.wait();
                    let mut reader = endpoints.reader();
                    for _ in 0..size.lookups {
                        let port = random.below(size.endpoints.into()) as u16;
                        // It may be absent for the moment in which a change moves it.
                        if let Some(route) = endpoints.lookup(&mut reader, port) {
                            assert_eq!(route, u32::from(port) * 3, "another endpoint than the one looked for");
                            found += 1;
                        }
                    }
                    black_box(found)
                })
            })
            .collect();
        let writer = scope.spawn(|| {
            let mut changes = 0;
            while !over.load(Relaxed) {
                endpoints.change();
                changes += 1;
                thread::sleep(CHANGED_EVERY);
            }
            changes
        });
        start.wait();
        let begun = Instant::now();
        let found: u64 = readers.into_iter().map(|reader| reader.join().expect("a reader does not panic")).sum();
        let elapsed = begun.elapsed();
        over.store(true, Relaxed);
        let changes: u64 = writer.join().expect("the writer does not panic");
        let all = size.lookups * size.threads as u64;
        assert!(all - found <= 2 * changes * size.threads as u64, "only what moves is missed");
        (elapsed, changes)
    });
    (elapsed.as_nanos() as f64 / (size.lookups * size.threads as u64) as f64, changes)
}

pub fn run(size: &Size) {
    let all = || (0..size.endpoints).map(Endpoint::new);
    let ours = || {
        let list = RcuList::new_in(&Domain::new());
        (&list).extend(all());
        Ours { list }
    };
    println!(
        "{} endpoints, {} threads with {} lookups each, a change every {CHANGED_EVERY:?}, {} cores\n",
        size.endpoints,
        size.threads,
        size.lookups,
        thread::available_parallelism().map_or(1, |cores| cores.get())
    );
    println!("{:<28} {:>12} {:>10} {:>10}", "", "ns/lookup", "to ours", "changes");
    let mut first = None;
    let mut row = |name: &str, (time, changes): (f64, u64)| {
        let ratio = time / *first.get_or_insert(time);
        println!("{name:<28} {time:>12.1} {ratio:>10.2} {changes:>10}");
    };
    row("RcuList, session", measure(size, &ours()));
    row("RcuList, pin for each", measure(size, &Pinned(ours())));
    row("spinlock, linked list", measure(size, &Spin(Mutex::new(all().collect::<LinkedList<_>>()))));
    row("rwlock, linked list", measure(size, &RwLock::new(all().collect::<LinkedList<_>>())));
    row("mutex, linked list", measure(size, &Mutex::new(all().collect::<LinkedList<_>>())));
    row("spinlock, Vec", measure(size, &Spin(Mutex::new(all().collect::<Vec<_>>()))));
    row("rwlock, Vec", measure(size, &RwLock::new(all().collect::<Vec<_>>())));
    row("mutex, Vec", measure(size, &Mutex::new(all().collect::<Vec<_>>())));
}
