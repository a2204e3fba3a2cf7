//! The server as a client sees it, over each store.

use crate::client::{Client, Reply, unexpected};
use crate::drive::drive;
use crate::server::Server;
use crate::store::{BATCH, Kind};
use epoch_registry::{ManualClock, MonotonicClock};
use std::time::{Duration, Instant};

/// A server over one store, whose time passes when the test says so.
struct Bench {
    kind: Kind,
    clock: ManualClock,
    server: Server,
    client: Client,
}

impl Bench {
    /// Checks the reply to a request.
    #[track_caller]
    fn expect(&mut self, line: &str, expected: Reply) {
        let reply = self.client.words(line).unwrap();
        assert_eq!(reply, expected, "{line}, over {}", self.kind.name());
    }

    #[track_caller]
    fn expect_error(&mut self, line: &str, expected: &str) {
        self.expect(line, Reply::Error(expected.into()));
    }

    #[track_caller]
    fn expect_integer(&mut self, line: &str, expected: i64) {
        self.expect(line, Reply::Integer(expected));
    }
}

/// Runs a test over each store. Then stops the server, and checks that what was made was destroyed.
fn over_each_store(test: impl Fn(&mut Bench)) {
    for kind in Kind::ALL {
        let clock = ManualClock::new();
        let server = Server::start("127.0.0.1:0", kind, clock.clone(), 100).unwrap();
        let client = Client::connect(server.address()).unwrap();
        let mut bench = Bench { kind, clock, server, client };
        test(&mut bench);
        let accounts = bench.server.stop();
        assert_eq!(accounts.is_some(), kind == Kind::Registry);
        if let Some(accounts) = accounts {
            assert_eq!((accounts.made, accounts.live), (accounts.destroyed, 0));
        }
    }
}

#[test]
fn values_are_set_read_and_deleted() {
    over_each_store(|bench| {
        bench.expect("PING", Reply::Simple("PONG".into()));
        bench.expect("PING text", Reply::bulk("text"));
        bench.expect("ECHO text", Reply::bulk("text"));
        bench.expect("GET a", Reply::Null);
        bench.expect("SET a 1", Reply::ok());
        bench.expect("set b 2", Reply::ok());
        bench.expect("SET a 3", Reply::ok());
        bench.expect("GET a", Reply::bulk("3"));
        bench.expect("MGET a x b", Reply::Array(vec![Reply::bulk("3"), Reply::Null, Reply::bulk("2")]));
        bench.expect_integer("EXISTS a b c a", 3);
        bench.expect_integer("DBSIZE", 2);
        bench.expect_integer("DEL a c", 1);
        bench.expect("GET a", Reply::Null);
        bench.expect("FLUSHALL", Reply::ok());
        bench.expect_integer("DBSIZE", 0);
        let value: Vec<u8> = (0..100_000).map(|at| (at % 256) as u8).collect();
        assert_eq!(bench.client.request(&[&b"SET"[..], b"\r\n\0", &value]).unwrap(), Reply::ok());
        assert_eq!(bench.client.request(&[&b"GET"[..], b"\r\n\0"]).unwrap(), Reply::Bulk(value));
    });
}

#[test]
fn conditions_of_set_hold() {
    over_each_store(|bench| {
        bench.expect("SET a 1 XX", Reply::Null);
        bench.expect("GET a", Reply::Null);
        bench.expect("SET a 1 NX", Reply::ok());
        bench.expect("SET a 2 nx", Reply::Null);
        bench.expect("GET a", Reply::bulk("1"));
        bench.expect("SET a 3 XX EX 10", Reply::ok());
        bench.expect("GET a", Reply::bulk("3"));
        bench.clock.advance(Duration::from_secs(11));
        bench.expect("SET a 4 XX", Reply::Null);
        bench.expect("SET a 5 PX 10000 NX", Reply::ok());
        bench.expect_integer("TTL a", 10);
    });
}

#[test]
fn entries_expire_when_their_time_has_passed() {
    over_each_store(|bench| {
        bench.expect("SET a 1 EX 10", Reply::ok());
        bench.expect("SET b 2 PX 1500", Reply::ok());
        bench.expect("SET c 3", Reply::ok());
        for (key, ttl, pttl) in [("a", 10, 10_000), ("b", 2, 1500), ("c", -1, -1), ("d", -2, -2)] {
            bench.expect_integer(&format!("TTL {key}"), ttl);
            bench.expect_integer(&format!("PTTL {key}"), pttl);
        }
        bench.clock.advance(Duration::from_secs(2));
        bench.expect("MGET a b c", Reply::Array(vec![Reply::bulk("1"), Reply::Null, Reply::bulk("3")]));
        bench.expect_integer("EXISTS a b c", 2);
        bench.expect_integer("DEL b", 0);
        // A shorter and a longer time, none, and one for an entry that had none.
        bench.expect_integer("PEXPIRE a 1000", 1);
        bench.expect_integer("PTTL a", 1000);
        bench.expect_integer("EXPIRE a 100", 1);
        bench.expect_integer("EXPIRE c 5", 1);
        bench.expect_integer("EXPIRE d 5", 0);
        bench.clock.advance(Duration::from_secs(50));
        bench.expect_integer("TTL a", 50);
        bench.expect_integer("TTL c", -2);
        bench.expect_integer("PERSIST a", 1);
        bench.expect_integer("PERSIST a", 0);
        bench.expect_integer("PERSIST c", 0);
        bench.clock.advance(Duration::from_secs(1_000_000));
        bench.expect("GET a", Reply::bulk("1"));
        // A new SET takes the time to live away, as in Redis.
        bench.expect("SET a 1 EX 10", Reply::ok());
        bench.expect("SET a 2", Reply::ok());
        bench.expect_integer("TTL a", -1);
        // A time that has passed deletes.
        bench.expect_integer("EXPIRE a 0", 1);
        bench.expect_integer("EXPIRE a -1", 0);
        bench.expect("GET a", Reply::Null);
    });
}

#[test]
fn expired_entries_leave_without_being_read() {
    for kind in Kind::ALL {
        let server = Server::start("127.0.0.1:0", kind, MonotonicClock, 10).unwrap();
        let mut client = Client::connect(server.address()).unwrap();
        for number in 0..100 {
            client.words(&format!("SET {number} value PX 20")).unwrap();
        }
        client.words("SET kept value").unwrap();
        let since = Instant::now();
        while client.words("DBSIZE").unwrap() != Reply::Integer(1) {
            assert!(since.elapsed() < Duration::from_secs(20), "{}", kind.name());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(client.words("GET kept").unwrap(), Reply::bulk("value"));
        server.stop();
    }
}

#[test]
fn scans_meet_each_key_that_matches() {
    over_each_store(|bench| {
        for number in 0..1000 {
            bench.expect(&format!("SET key:{number} {number}"), Reply::ok());
        }
        bench.expect("SET other x", Reply::ok());
        bench.expect("SET gone x PX 5", Reply::ok());
        bench.clock.advance(Duration::from_millis(6));
        for count in [1, 10, 100_000] {
            let mut keys = bench.client.scan("key:*", count).unwrap();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), 1000, "{} by {count}", bench.kind.name());
            assert_eq!(bench.client.scan("key:99?", count).unwrap().len(), 10);
            assert_eq!(bench.client.scan("*", count).unwrap().len(), 1001);
        }
        bench.expect_error("SCAN x", "ERR invalid cursor");
        bench.expect_error("SCAN -1", "ERR invalid cursor");
        bench.expect_error("SCAN 0 COUNT 0", "ERR syntax error");
        bench.expect_error("SCAN 0 COUNT x", "ERR value is not an integer or out of range");
        bench.expect_error("SCAN 0 MATCH", "ERR syntax error");
        // Any number is a cursor.
        assert!(matches!(bench.client.words("SCAN 18446744073709551615").unwrap(), Reply::Array(_)));
    });
}

#[test]
fn a_scan_of_the_registry_returns_about_as_many_keys_as_it_is_asked_for() {
    let server = Server::start("127.0.0.1:0", Kind::Registry, MonotonicClock, 10).unwrap();
    let mut client = Client::connect(server.address()).unwrap();
    for number in 0..1000 {
        client.words(&format!("SET {number} value")).unwrap();
    }
    let Reply::Array(reply) = client.words("SCAN 0 COUNT 10").unwrap() else { panic!("not an array") };
    let [Reply::Bulk(cursor), Reply::Array(keys)] = &reply[..] else { panic!("{reply:?}") };
    assert!(cursor != b"0" && (1..50).contains(&keys.len()), "{reply:?}");
    server.stop();
}

#[test]
fn a_pipeline_is_answered_in_order() {
    over_each_store(|bench| {
        // Runs of GETs of all lengths around that of a batch, between writes.
        let lines: Vec<String> = (0..BATCH + 3)
            .flat_map(|gets| {
                let set = format!("SET key {gets}");
                std::iter::once(set).chain((0..gets).map(|get| format!("get {}", ["key", "none"][get % 2])))
            })
            .collect();
        let pipeline: Vec<Vec<&[u8]>> = lines.iter().map(|line| line.split(' ').map(str::as_bytes).collect()).collect();
        let replies = bench.client.pipeline(&pipeline).unwrap();
        let mut value = "";
        for (line, reply) in lines.iter().zip(&replies) {
            let expected = match line.split_once("SET key ") {
                Some((_, new)) => {
                    value = new;
                    Reply::ok()
                }
                None if line.ends_with("none") => Reply::Null,
                None => Reply::bulk(value),
            };
            assert_eq!(*reply, expected, "{}", unexpected(line, reply));
        }
        assert_eq!(replies.len(), lines.len());
    });
}

#[test]
fn a_pipeline_with_replies_larger_than_the_send_buffer_is_answered() {
    over_each_store(|bench| {
        let value = vec![b'v'; 100_000];
        bench.client.request(&[&b"SET"[..], b"key", &value]).unwrap();
        let pipeline: Vec<Vec<&[u8]>> = (0..200).map(|_| vec![&b"GET"[..], b"key"]).collect();
        let replies = bench.client.pipeline(&pipeline).unwrap();
        assert!(replies.iter().all(|reply| *reply == Reply::Bulk(value.clone())));
    });
}

#[test]
fn inline_commands_are_understood() {
    over_each_store(|bench| {
        bench
            .client
            .send(b"SET greeting \"hello\\nworld\"\r\n\r\nGET greeting\r\nEXISTS greeting 'two words'\n")
            .unwrap();
        let replies = [Reply::ok(), Reply::bulk("hello\nworld"), Reply::Integer(1)];
        for expected in replies {
            assert_eq!(bench.client.reply().unwrap(), expected);
        }
    });
}

#[test]
fn wrong_requests_get_the_errors_of_redis() {
    over_each_store(|bench| {
        bench.expect_error("FOO a b", "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ");
        bench.expect_error("GET", "ERR wrong number of arguments for 'get' command");
        bench.expect_error("GET a b", "ERR wrong number of arguments for 'get' command");
        bench.expect_error("SET a", "ERR wrong number of arguments for 'set' command");
        bench.expect_error("SET a 1 XX NX", "ERR syntax error");
        bench.expect_error("SET a 1 EX", "ERR syntax error");
        bench.expect_error("SET a 1 EX 1 PX 1", "ERR syntax error");
        bench.expect_error("SET a 1 FOO", "ERR syntax error");
        bench.expect_error("SET a 1 EX x", "ERR value is not an integer or out of range");
        bench.expect_error("SET a 1 EX 0", "ERR invalid expire time in 'set' command");
        bench.expect_error("SET a 1 PX -5", "ERR invalid expire time in 'set' command");
        bench.expect_error("EXPIRE a x", "ERR value is not an integer or out of range");
        bench.expect_error("EXPIRE a 9223372036854775807", "ERR invalid expire time in 'expire' command");
        bench.expect_error("CONFIG SET save x", "ERR unknown subcommand 'SET' of CONFIG");
        bench.expect_integer("DBSIZE", 0);
    });
}

#[test]
fn a_broken_protocol_ends_the_connection() {
    over_each_store(|bench| {
        let cases = [
            ("*1\r\n:4\r\n", "ERR Protocol error: expected '$', got ':'"),
            ("*1\r\n$999999999999\r\n", "ERR Protocol error: invalid bulk length"),
            ("*2147483648\r\n", "ERR Protocol error: invalid multibulk length"),
            ("GET \"a\r\n", "ERR Protocol error: unbalanced quotes in request"),
        ];
        for (text, error) in cases {
            let mut client = Client::connect(bench.server.address()).unwrap();
            // The request before it is answered.
            client.send(format!("PING\r\n{text}").as_bytes()).unwrap();
            assert_eq!(client.reply().unwrap(), Reply::Simple("PONG".into()));
            assert_eq!(client.reply().unwrap(), Reply::Error(error.into()));
            assert!(client.is_closed().unwrap());
        }
        let mut client = Client::connect(bench.server.address()).unwrap();
        client.send(b"QUIT\r\nPING\r\n").unwrap();
        assert_eq!(client.reply().unwrap(), Reply::ok());
        assert!(client.is_closed().unwrap());
        bench.expect("PING", Reply::Simple("PONG".into()));
    });
}

#[test]
fn a_request_in_single_bytes_is_answered() {
    over_each_store(|bench| {
        for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" {
            bench.client.send(&[*byte]).unwrap();
        }
        assert_eq!((bench.client.reply().unwrap(), bench.client.reply().unwrap()), (Reply::ok(), Reply::bulk("vv")));
    });
}

#[test]
fn the_server_tells_about_itself() {
    over_each_store(|bench| {
        bench.expect("SET a 1", Reply::ok());
        let Reply::Bulk(info) = bench.client.words("INFO").unwrap() else { panic!("not a text") };
        let info = String::from_utf8(info).unwrap();
        let store = format!("store:{}\r\n", bench.kind.name());
        let expected = [&*store, "connected_clients:1\r\n", "total_commands_processed:1\r\n", "db0:keys=1\r\n"];
        for line in expected {
            assert!(info.contains(line), "no {line:?} in {info}");
        }
        if cfg!(target_os = "linux") {
            for name in ["used_memory_rss:", "used_memory_peak:", "used_cpu_user:", "used_cpu_sys:"] {
                assert!(info.contains(name), "no {name:?} in {info}");
            }
        }
        let Reply::Bulk(section) = bench.client.words("INFO Keyspace").unwrap() else { panic!("not a text") };
        assert_eq!(section, b"# Keyspace\r\ndb0:keys=1\r\n");
        let save = vec![Reply::bulk("save"), Reply::bulk("")];
        bench.expect("CONFIG GET save", Reply::Array(save));
        let Reply::Integer(count) = bench.client.words("COMMAND COUNT").unwrap() else { panic!("not a number") };
        let Reply::Array(commands) = bench.client.words("COMMAND").unwrap() else { panic!("not an array") };
        assert_eq!(commands.len() as i64, count);
    });
}

#[test]
fn concurrent_clients_get_what_they_wrote() {
    for kind in Kind::ALL {
        let server = Server::start("127.0.0.1:0", kind, MonotonicClock, 100).unwrap();
        let driven = drive(server.address(), 8, Duration::from_millis(400)).unwrap();
        assert!(driven.requests > 0);
        let mut client = Client::connect(server.address()).unwrap();
        assert_eq!(client.words("DBSIZE").unwrap(), Reply::Integer(driven.entries as i64));
        if let Some(accounts) = server.stop() {
            assert_eq!((accounts.made, accounts.live), (accounts.destroyed, 0));
            assert!(accounts.made as usize > driven.entries);
        }
    }
}

#[test]
fn a_client_beyond_the_limit_is_refused() {
    let server = Server::start("127.0.0.1:0", Kind::Registry, MonotonicClock, 1).unwrap();
    let mut first = Client::connect(server.address()).unwrap();
    first.words("PING").unwrap();
    let mut second = Client::connect(server.address()).unwrap();
    assert_eq!(second.reply().unwrap(), Reply::Error("ERR max number of clients reached".into()));
    assert!(second.is_closed().unwrap());
    first.words("QUIT").unwrap();
    // Its place is free soon.
    let since = Instant::now();
    while Client::connect(server.address()).unwrap().words("PING").is_err() {
        assert!(since.elapsed() < Duration::from_secs(20));
    }
    server.stop();
}

#[test]
fn a_server_that_stops_closes_its_connections() {
    let server = Server::start("127.0.0.1:0", Kind::Registry, MonotonicClock, 10).unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(server.address()).unwrap()).collect();
    for client in &mut clients {
        client.words("SET key value").unwrap();
    }
    let accounts = server.stop().unwrap();
    assert_eq!((accounts.made, accounts.destroyed), (4, 4));
    for client in &mut clients {
        assert!(client.is_closed().unwrap());
    }
}
