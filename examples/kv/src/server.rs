//! The server: a thread for each connection, which reads, answers and writes.
//!
//! Each thread blocks in its reads and writes. With the tens of clients that the benchmark has, this takes the same two
//! system calls a request as an event loop, and the scheduler shares the cores among the clients fairly. It needs neither
//! a runtime nor a state machine. A server for tens of thousands of idle clients would use an event loop instead.
//!
//! A thread holds no guard of the store while it reads or writes the connection: a slow client holds up its own replies, and
//! no reclamation.

use crate::command::{self, Next, key_of_get};
use crate::reply::Replies;
use crate::request::Requests;
use crate::store::{Accounts, BATCH, Kind, Store};
use epoch_registry::{Clock, Counter, Registration, Registry};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The size from which on replies are sent before the rest of the requests is looked at.
const SEND: usize = 256 << 10;

/// The most memory that a connection keeps for replies between two requests.
const KEPT: usize = 64 << 10;

/// How often a store is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What the connections share.
pub struct Service {
    pub store: Arc<dyn Store>,
    pub kind: Kind,
    pub port: u16,
    pub started: Instant,
    /// The requests that were answered.
    pub commands: Counter,
    /// The open connections, by their number.
    pub connections: Arc<Registry<u64, TcpStream>>,
    accepted: AtomicU64,
    most_clients: usize,
}

impl Service {
    /// Returns the number of connections that were ever accepted.
    pub fn accepted(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.accepted.load(Ordering::Relaxed)
    }

    /// Serves one connection until the client closes it, quits, or breaks the protocol.
    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut requests, mut replies) = (Requests::default(), Replies::default());
        loop {
            match requests.read_from(&mut stream) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let parsed = requests.parse();
            let mut next = self.answer(&requests, &mut replies, stream)?;
            if let (Next::Request, Err(error)) = (next, parsed) {
                replies.error(&format!("ERR {error}"));
                next = Next::Close;
            }
            send(&mut replies, stream)?;
            if next == Next::Close {
                return Ok(());
            }
            requests.discard();
        }
    }

    /// Answers the complete requests. Consecutive GETs are one batch.
    fn answer(&self, requests: &Requests, replies: &mut Replies, stream: &TcpStream) -> io::Result<Next> {
        let mut at = 0;
        while at < requests.len() {
            let mut keys = [&b""[..]; BATCH];
            let mut gets = 0;
            for place in keys.iter_mut().take(requests.len() - at) {
                let Some(key) = key_of_get(requests.get(at + gets)) else { break };
                *place = key;
                gets += 1;
            }
            if gets > 1 {
                self.store.get_batch(&keys[..gets], &mut |value| replies.value(value));
                at += gets;
            } else {
                let next = command::run(self, requests.get(at), replies);
                at += 1;
                if next == Next::Close {
                    self.commands.add(at as i64);
                    return Ok(next);
                }
            }
            if replies.bytes().len() > SEND {
                send(replies, stream)?;
            }
        }
        self.commands.add(at as i64);
        Ok(Next::Request)
    }
}

fn send(replies: &mut Replies, mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(replies.bytes())?;
    replies.clear(KEPT);
    Ok(())
}

/// A server that runs.
pub struct Server {
    service: Arc<Service>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    /// Ends the sweeping thread when it is dropped.
    sweeper: Sender<()>,
    /// Disconnected when the last connection's thread has ended.
    connections_ended: Receiver<()>,
}

impl Server {
    /// Starts a server with an empty store.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound, or a thread cannot be started.
    pub fn start(
        address: impl ToSocketAddrs,
        kind: Kind,
        clock: impl Clock,
        most_clients: usize,
    ) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let service = Arc::new(Service {
            store: kind.open(clock),
            kind,
            port: address.port(),
            started: Instant::now(),
            commands: Counter::new(),
            connections: Arc::new(Registry::new()),
            accepted: AtomicU64::new(0),
            most_clients,
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (sweeper, ticks) = channel();
        let sweeping = thread::Builder::new().name("kv-sweep".into()).spawn({
            let store = service.store.clone();
            move || {
                while ticks.recv_timeout(SWEEP_EVERY) == Err(RecvTimeoutError::Timeout) {
                    store.sweep();
                }
            }
        })?;
        let (ended, connections_ended) = channel();
        let accepting = thread::Builder::new().name("kv-accept".into()).spawn({
            let (service, stop) = (service.clone(), stop.clone());
            move || accept(&listener, &service, &stop, &ended)
        })?;
        Ok(Server { service, address, stop, accepting, sweeping, sweeper, connections_ended })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server: accepts no more connections, closes the open ones, and waits for their threads. Then
    /// empties the store, and returns its accounts, if it has any.
    pub fn stop(self) -> Option<Accounts> {
        // ORDERING: Release, pairs with the Acquire in `accept`.
        self.stop.store(true, Ordering::Release);
        while !self.accepting.is_finished() {
            // A connection wakes the thread, which then sees that it is to stop.
            drop(TcpStream::connect_timeout(&reachable(self.address), Duration::from_secs(1)));
            thread::sleep(Duration::from_millis(1));
        }
        self.accepting.join().expect("the accepting thread does not panic");
        // No connection is added any more.
        for stream in &self.service.connections.pin() {
            // (It fails if the client has closed the connection.)
            let _ = stream.shutdown(Shutdown::Both);
        }
        assert!(self.connections_ended.recv().is_err(), "threads of connections send nothing");
        drop(self.sweeper);
        self.sweeping.join().expect("the sweeping thread does not panic");
        self.service.store.clear();
        self.service.store.settle()
    }
}

/// Returns an address at which the server can be reached from its own machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

/// Accepts connections until the server stops.
fn accept(listener: &TcpListener, service: &Arc<Service>, stop: &AtomicBool, ended: &Sender<()>) {
    for number in 0.. {
        let accepted = listener.accept();
        // ORDERING: Acquire, pairs with the Release in `Server::stop`.
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, or a client that has already gone.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        // ORDERING: Relaxed, a statistic.
        service.accepted.fetch_add(1, Ordering::Relaxed);
        if service.connections.len() >= service.most_clients {
            // (The client may have gone.)
            let _ = (&stream).write_all(b"-ERR max number of clients reached\r\n");
            continue;
        }
        let connection = service.connections.register(number, stream).expect("each connection has its own number");
        let (service, ended) = (service.clone(), ended.clone());
        let thread = thread::Builder::new().name("kv-client".into()).spawn(move || {
            // Sends nothing: that it is dropped tells that the thread has ended.
            let _ended = ended;
            // (An error is that of a client that has gone.)
            let _ = service.serve(&connection);
            close(connection);
        });
        if let Err(error) = thread {
            eprintln!("kv: a connection is closed, as no thread can be started: {error}");
        }
    }
}

/// Closes a connection. The stream itself is destroyed a grace period later, and the client must not wait for that.
fn close(connection: Registration<u64, TcpStream>) {
    // (It fails if the client has closed the connection.)
    let _ = connection.shutdown(Shutdown::Both);
}
