//! Counts the packets of a capture by the endpoint that has sent them.
//!
//! The writer reads the capture. It links the sender of a TCP packet that the list does not have yet, and unlinks the sender
//! of a packet that closes a connection. It hands each packet to one of the readers, which looks the sender up, and counts
//! the packet in the endpoint that it finds. A reader that comes after the end of the connection finds none, and counts the
//! packet as late. An endpoint hands its count in when it is dropped.

use crate::capture::{Capture, Frame};
use crate::packet::{Packet, Parser};
use crate::tuple::Proto;
use epoch_registry::{CriticalSection, Domain, ListEntry, RcuList, Session};
use indicatif::HumanCount;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;

const CAPTURE: &[u8] = include_bytes!("../../data/loopback.pcap.xz");
const READERS: usize = 2;
/// The most packets that wait for a reader.
const WAITING: usize = 64;

/// Counts of endpoints that were dropped.
#[derive(Default)]
struct Ledger {
    endpoints: AtomicU64,
    packets: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Address(IpAddr, u16);

struct Endpoint {
    address: Address,
    packets: AtomicU64,
    ledger: Arc<Ledger>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.ledger.endpoints.fetch_add(1, Relaxed);
        self.ledger.packets.fetch_add(*self.packets.get_mut(), Relaxed);
    }
}

/// Returns the endpoint with an address.
fn find<'a>(
    list: &'a RcuList<Endpoint>,
    address: Address,
    section: &'a impl CriticalSection,
) -> Option<ListEntry<'a, Endpoint>> {
    list.iter(section).find(|endpoint| endpoint.address == address)
}

/// Counts packets until the writer ends. Returns how many came too late.
fn read(list: &RcuList<Endpoint>, mut session: Session, packets: mpsc::Receiver<Address>) -> u64 {
    let mut late = 0;
    while let Ok(sender) = session.offline(|| packets.recv()) {
        match find(list, sender, &session.section()) {
            Some(endpoint) => _ = endpoint.packets.fetch_add(1, Relaxed),
            None => late += 1,
        }
    }
    late
}

/// Returns the sender of a TCP packet.
fn sender(packet: &Packet) -> Option<Address> {
    let text = packet.tuple.sender(packet.direction);
    let (address, port) = text.rsplit_once(':').filter(|_| packet.tuple.proto() == Proto::Tcp)?;
    Some(Address(address.parse().ok()?, port.parse().ok()?))
}

/// What the writer has done.
#[derive(Default)]
struct Written {
    packets: u64,
    others: u64,
    linked: u64,
    unlinked: u64,
    most: usize,
}

impl Written {
    /// Links or unlinks the sender of a packet. Returns it.
    fn change(&mut self, list: &RcuList<Endpoint>, packet: &Packet, ledger: &Arc<Ledger>) -> Option<Address> {
        let address = sender(packet)?;
        let known = find(list, address, &list.domain().pin()).map(|endpoint| endpoint.handle());
        match known {
            None => {
                list.push_front(Endpoint { address, packets: AtomicU64::new(0), ledger: Arc::clone(ledger) });
                self.linked += 1;
                self.most = self.most.max(list.len());
            }
            Some(endpoint) if packet.flags.rst || packet.flags.fin => {
                list.remove(&endpoint).expect("no other thread removes endpoints");
                self.unlinked += 1;
            }
            Some(_) => {}
        }
        Some(address)
    }
}

pub fn run() {
    let (domain, ledger) = (Domain::new(), Arc::new(Ledger::default()));
    let list = RcuList::new_in(&domain);
    let mut written = Written::default();
    let late: u64 = thread::scope(|scope| {
        let (senders, readers): (Vec<_>, Vec<_>) = (0..READERS)
            .map(|_| {
                let (sender, packets) = mpsc::sync_channel(WAITING);
                let (list, domain) = (&list, &domain);
                (sender, scope.spawn(move || read(list, domain.session(), packets)))
            })
            .unzip();
        let mut capture = Capture::open(CAPTURE).expect("the capture that ships with the repository");
        let mut parser = Parser::default();
        while let Some(frame) = capture.next().expect("a whole capture") {
            let frame: Frame<'_> = frame;
            let Ok(packet) = parser.parse_frame(&frame) else { continue };
            match written.change(&list, &packet, &ledger) {
                None => written.others += 1,
                Some(address) => {
                    senders[written.packets as usize % READERS].send(address).expect("a reader");
                    written.packets += 1;
                }
            }
        }
        drop(senders);
        readers.into_iter().map(|reader| reader.join().expect("a reader does not panic")).sum()
    });

    // Nothing is in the way of the destructors of what has left.
    domain.barrier();
    let (dropped, counted) = (ledger.endpoints.load(Relaxed), ledger.packets.load(Relaxed));
    let section = domain.pin();
    let live: u64 = list.iter(&section).map(|endpoint| endpoint.packets.load(Relaxed)).sum();
    let mut busiest: Vec<_> =
        list.iter(&section).map(|endpoint| (endpoint.packets.load(Relaxed), endpoint.address)).collect();
    busiest.sort_by_key(|&(packets, _)| std::cmp::Reverse(packets));

    let row = |name: &str, count: u64| println!("{name:<34} {:>8}", HumanCount(count).to_string());
    row("TCP packets", written.packets);
    row("other packets", written.others);
    row("endpoints linked", written.linked);
    row("endpoints unlinked", written.unlinked);
    row("the most endpoints at a time", written.most as u64);
    row("packets of endpoints that have left", counted);
    row("packets of endpoints that are there", live);
    row("packets that came late", late);
    println!("\nbusiest endpoints that are there");
    for (packets, Address(address, port)) in busiest.iter().take(5) {
        row(&format!("  {address} port {port}"), *packets);
    }
    assert_eq!(counted + live + late, written.packets, "every packet is counted exactly once");
    assert_eq!(dropped, written.unlinked, "what was unlinked is dropped after the barrier");
    assert_eq!(written.linked - written.unlinked, list.len() as u64);
    println!("\nbalanced: every packet was counted once, and every endpoint that has left was dropped");
}
