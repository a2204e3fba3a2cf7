//! Clients that know what the server must reply.

use crate::client::{Client, Reply, unexpected};
use crate::random::Random;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// What clients have done.
#[derive(Clone, Copy, Default, Debug)]
pub struct Driven {
    pub requests: u64,
    /// The entries that they have left behind.
    pub entries: usize,
}

/// The number of keys of each client.
const KEYS: usize = 200;

/// The requests of one pipeline.
const PIPELINE: u64 = 48;

/// Sends requests from several clients for some time, each about keys of its own, and checks each reply.
///
/// # Errors
///
/// If a connection fails, or a reply is not what the client's requests before it require.
pub fn drive(address: SocketAddr, clients: u64, time: Duration) -> io::Result<Driven> {
    let end = Instant::now() + time;
    let mut all = Driven::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|number| scope.spawn(move || client(address, number, end))).collect();
        for client in clients {
            let driven = client.join().expect("a client does not panic")?;
            all.requests += driven.requests;
            all.entries += driven.entries;
        }
        Ok(all)
    })
}

/// One client. Its pipelines mix reads, which come in runs, and writes.
fn client(address: SocketAddr, number: u64, end: Instant) -> io::Result<Driven> {
    let mut client = Client::connect(address)?;
    let mut random = Random::new(number);
    let mut model: HashMap<String, String> = HashMap::new();
    let mut requests = 0;
    while Instant::now() < end {
        let (mut lines, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..PIPELINE {
            let key = format!("client:{number}:{}", random.below(KEYS));
            let (line, reply) = match random.below(16) {
                0 => (format!("DEL {key}"), Reply::Integer(model.remove(&key).is_some().into())),
                1 => (format!("EXISTS {key}"), Reply::Integer(model.contains_key(&key).into())),
                2 | 3 => {
                    let value = format!("value-{}", random.below(1 << 40));
                    model.insert(key.clone(), value.clone());
                    (format!("SET {key} {value} EX 3600"), Reply::ok())
                }
                4 => {
                    let reply = if model.contains_key(&key) { Reply::Null } else { Reply::ok() };
                    model.entry(key.clone()).or_insert_with(|| "first".into());
                    (format!("SET {key} first NX"), reply)
                }
                5 => (format!("EXPIRE {key} 1800"), Reply::Integer(model.contains_key(&key).into())),
                _ => (format!("GET {key}"), model.get(&key).map_or(Reply::Null, Reply::bulk)),
            };
            lines.push(line);
            expected.push(reply);
        }
        let pipeline: Vec<Vec<&[u8]>> = lines.iter().map(|line| line.split(' ').map(str::as_bytes).collect()).collect();
        let replies = client.pipeline(&pipeline)?;
        for ((line, reply), expected) in lines.iter().zip(&replies).zip(&expected) {
            if reply != expected {
                return Err(unexpected(line, reply));
            }
        }
        requests += PIPELINE;
    }
    Ok(Driven { requests, entries: model.len() })
}
