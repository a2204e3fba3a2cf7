//! Draining a service: no new requests, a bounded wait for those in flight, and then its end.

use epoch_registry::{Counter, Domain, LiveRef, PercpuRef};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

const WORKERS: u64 = 4;

/// A service that several threads call.
struct Service {
    /// One reference for each request in flight. It costs a request no write to a cache line that threads share.
    in_flight: PercpuRef,
    accepted: Counter,
    refused: Counter,
    served: Counter,
}

/// A request that was accepted. The service does not end before it is served.
struct Request<'s> {
    service: &'s Service,
    work: Duration,
    _in_flight: LiveRef<'s>,
}

impl Service {
    /// Accepts a request, unless the service is shutting down.
    fn accept(&self, work: Duration) -> Option<Request<'_>> {
        let Some(reference) = self.in_flight.try_get_live() else {
            self.refused.increment();
            return None;
        };
        self.accepted.increment();
        Some(Request { service: self, work, _in_flight: reference })
    }
}

impl Request<'_> {
    fn serve(self) {
        thread::sleep(self.work);
        self.service.served.increment();
    }
}

/// Accepts requests until the service refuses one. Every tenth one is handed to the thread that serves long requests.
fn accept_requests<'s>(service: &'s Service, long: &Sender<Request<'s>>) {
    for number in 0.. {
        let work = Duration::from_micros(50 + number % 7 * 20);
        match service.accept(work) {
            None => return,
            // A reference may be put by another thread than the one that took it.
            Some(request) if number % 10 == 0 => long.send(request).expect("the other thread runs until the end"),
            Some(request) => request.serve(),
        }
    }
}

fn main() {
    let domain = Domain::new();
    let (send, released) = mpsc::channel();
    let service = Service {
        in_flight: PercpuRef::with_release(&domain, move || send.send(()).expect("main waits for it")),
        accepted: Counter::new(),
        refused: Counter::new(),
        served: Counter::new(),
    };

    thread::scope(|scope| {
        let (long, long_requests): (_, Receiver<Request<'_>>) = mpsc::channel();
        for _ in 0..WORKERS {
            let (service, long) = (&service, long.clone());
            scope.spawn(move || accept_requests(service, &long));
        }
        drop(long);
        scope.spawn(move || long_requests.iter().for_each(Request::serve));

        // One request takes a quarter of a second.
        let slow = service.accept(Duration::from_millis(250)).expect("the service is live");
        scope.spawn(move || slow.serve());

        thread::sleep(Duration::from_millis(100));
        println!("running: about {} requests accepted", service.accepted.approx());

        // From here on requests are refused. The confirmation comes when no thread can still be accepting one.
        let begun = Instant::now();
        let (send, confirmed) = mpsc::channel();
        service.in_flight.kill_and_confirm(move || send.send(()).expect("main waits for it"));
        confirmed.recv().expect("the domain's thread confirms");
        println!("no new requests after {:.1?}", begun.elapsed());
        assert!(service.accept(Duration::ZERO).is_none());

        // A bounded wait. Then a service could cancel what is left; this one grants it more time.
        if !service.in_flight.wait_zero(Duration::from_millis(20)) {
            println!("requests are still in flight after {:.1?}", begun.elapsed());
        }
        assert!(service.in_flight.wait_zero(Duration::from_secs(30)), "a request never ended");
        println!("drained after {:.1?}", begun.elapsed());

        // All that the requests did is visible now.
        assert_eq!(service.served.sum(), service.accepted.sum());
    });

    released.recv().expect("the release runs once the last request is served");
    let (accepted, refused) = (service.accepted.sum(), service.refused.sum());
    println!("{accepted} requests accepted and served, {refused} refused");
    // Each worker was refused once, and so was the main thread.
    assert_eq!(refused, WORKERS as i64 + 1);
}
