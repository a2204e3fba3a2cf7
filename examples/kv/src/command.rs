//! The commands: their arguments, what they do, and what they reply. Errors read as those of Redis.

use crate::glob;
use crate::info;
use crate::reply::Replies;
use crate::request::{Arguments, number};
use crate::server::Service;
use crate::store::{BATCH, Remaining, When, Write};
use std::borrow::Cow;
use std::time::Duration;

type Done = Result<(), Cow<'static, str>>;

/// A command.
struct Command {
    /// In lower case.
    name: &'static str,
    /// The number of arguments with the name. If negative, the least number.
    arity: i64,
    /// The first and the last argument that is a key, and the distance of two keys. For clients that ask.
    keys: (i64, i64, i64),
    run: fn(&Service, Arguments<'_>, &mut Replies) -> Done,
}

const NO_KEY: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);
const KEYS: (i64, i64, i64) = (1, -1, 1);

static COMMANDS: [Command; 19] = [
    Command { name: "get", arity: 2, keys: ONE_KEY, run: get },
    Command { name: "set", arity: -3, keys: ONE_KEY, run: set },
    Command { name: "mget", arity: -2, keys: KEYS, run: mget },
    Command { name: "del", arity: -2, keys: KEYS, run: del },
    Command { name: "exists", arity: -2, keys: KEYS, run: exists },
    Command { name: "expire", arity: 3, keys: ONE_KEY, run: |s, a, r| expire(s, a, r, 1000, "expire") },
    Command { name: "pexpire", arity: 3, keys: ONE_KEY, run: |s, a, r| expire(s, a, r, 1, "pexpire") },
    Command { name: "ttl", arity: 2, keys: ONE_KEY, run: |s, a, r| ttl(s, a, r, 1000) },
    Command { name: "pttl", arity: 2, keys: ONE_KEY, run: |s, a, r| ttl(s, a, r, 1) },
    Command { name: "persist", arity: 2, keys: ONE_KEY, run: persist },
    Command { name: "scan", arity: -2, keys: NO_KEY, run: scan },
    Command { name: "dbsize", arity: 1, keys: NO_KEY, run: dbsize },
    Command { name: "flushall", arity: -1, keys: NO_KEY, run: flushall },
    Command { name: "info", arity: -1, keys: NO_KEY, run: info },
    Command { name: "ping", arity: -1, keys: NO_KEY, run: ping },
    Command { name: "echo", arity: 2, keys: NO_KEY, run: echo },
    Command { name: "command", arity: -1, keys: NO_KEY, run: command },
    Command { name: "config", arity: -2, keys: NO_KEY, run: config },
    Command { name: QUIT, arity: -1, keys: NO_KEY, run: quit },
];

/// The command after which the server closes the connection.
const QUIT: &str = "quit";

/// Whether the connection goes on after a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    Request,
    Close,
}

/// Returns the key, if the request is a GET that can be part of a batch.
pub fn key_of_get<'r>(request: Arguments<'r>) -> Option<&'r [u8]> {
    if request.len() == 2 && request.name().eq_ignore_ascii_case(b"get") { request.get(1) } else { None }
}

/// Runs one request.
pub fn run(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Next {
    let name = request.name();
    let Some(command) = COMMANDS.iter().find(|command| name.eq_ignore_ascii_case(command.name.as_bytes())) else {
        replies.error(&unknown(request));
        return Next::Request;
    };
    let given = request.len() as i64;
    if if command.arity < 0 { given < -command.arity } else { given != command.arity } {
        replies.error(&format!("ERR wrong number of arguments for '{}' command", command.name));
        return Next::Request;
    }
    if let Err(error) = (command.run)(service, request, replies) {
        replies.error(&error);
    }
    if command.name == QUIT { Next::Close } else { Next::Request }
}

/// The most bytes of an unknown command that its error shows, as in Redis.
const SHOWN: usize = 128;

fn unknown(request: Arguments<'_>) -> String {
    let shown = |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).into_owned();
    let mut error = format!("ERR unknown command '{}', with args beginning with: ", shown(request.name()));
    let arguments_begin = error.len();
    for argument in request.from(1) {
        if error.len() - arguments_begin >= SHOWN {
            break;
        }
        error += &format!("'{}' ", shown(argument));
    }
    error
}

const SYNTAX: Cow<'static, str> = Cow::Borrowed("ERR syntax error");
const NOT_AN_INTEGER: Cow<'static, str> = Cow::Borrowed("ERR value is not an integer or out of range");

/// Returns an argument whose presence the arity guarantees.
fn argument(request: Arguments<'_>, at: usize) -> Result<&[u8], Cow<'static, str>> {
    request.get(at).ok_or(SYNTAX)
}

/// Parses a time to live in units of `unit` milliseconds. Returns `None` if it is negative or zero.
fn time_to_live(text: &[u8], unit: i64, command: &str) -> Result<Option<Duration>, Cow<'static, str>> {
    let time = number(text).ok_or(NOT_AN_INTEGER)?;
    // As in Redis: the deadline in milliseconds is 63 bits wide.
    let limit = i64::MAX / 2;
    let Some(millis) = time.checked_mul(unit).filter(|millis| (-limit..=limit).contains(millis)) else {
        return Err(format!("ERR invalid expire time in '{command}' command").into());
    };
    Ok(u64::try_from(millis).ok().filter(|&millis| millis > 0).map(Duration::from_millis))
}

fn get(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    service.store.get(argument(request, 1)?, &mut |value| replies.value(value));
    Ok(())
}

fn mget(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    replies.array(request.len() - 1);
    let mut keys = request.from(1).peekable();
    while keys.peek().is_some() {
        let mut batch = [&b""[..]; BATCH];
        let mut count = 0;
        for (place, key) in batch.iter_mut().zip(&mut keys) {
            *place = key;
            count += 1;
        }
        service.store.get_batch(&batch[..count], &mut |value| replies.value(value));
    }
    Ok(())
}

fn set(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    let (key, value) = (argument(request, 1)?, argument(request, 2)?);
    let mut write = Write { key, value, ttl: None, when: When::Always };
    let mut options = request.from(3);
    while let Some(option) = options.next() {
        let condition = match () {
            () if option.eq_ignore_ascii_case(b"nx") => Some(When::Absent),
            () if option.eq_ignore_ascii_case(b"xx") => Some(When::Present),
            () => None,
        };
        if let Some(condition) = condition {
            if write.when != When::Always && write.when != condition {
                return Err(SYNTAX);
            }
            write.when = condition;
            continue;
        }
        let unit = match () {
            () if option.eq_ignore_ascii_case(b"ex") => 1000,
            () if option.eq_ignore_ascii_case(b"px") => 1,
            () => return Err(SYNTAX),
        };
        if write.ttl.is_some() {
            return Err(SYNTAX);
        }
        let ttl = time_to_live(options.next().ok_or(SYNTAX)?, unit, "set")?;
        write.ttl = Some(ttl.ok_or("ERR invalid expire time in 'set' command")?);
    }
    if service.store.set(write) {
        replies.ok()
    } else {
        replies.null()
    }
    Ok(())
}

fn del(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    replies.integer(request.from(1).filter(|key| service.store.delete(key)).count() as i64);
    Ok(())
}

fn exists(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    replies.integer(request.from(1).filter(|key| service.store.contains(key)).count() as i64);
    Ok(())
}

fn expire(service: &Service, request: Arguments<'_>, replies: &mut Replies, unit: i64, command: &str) -> Done {
    let key = argument(request, 1)?;
    let was_there = match time_to_live(argument(request, 2)?, unit, command)? {
        Some(ttl) => service.store.set_ttl(key, Some(ttl)),
        // The time has passed.
        None => service.store.delete(key),
    };
    replies.integer(was_there.into());
    Ok(())
}

fn ttl(service: &Service, request: Arguments<'_>, replies: &mut Replies, unit: u128) -> Done {
    replies.integer(match service.store.remaining(argument(request, 1)?) {
        Remaining::Absent => -2,
        Remaining::Unlimited => -1,
        // Rounded to the nearest unit.
        Remaining::For(left) => ((left.as_nanos().div_ceil(1_000_000) + unit / 2) / unit) as i64,
    });
    Ok(())
}

fn persist(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    let key = argument(request, 1)?;
    let expires = matches!(service.store.remaining(key), Remaining::For(_));
    replies.integer((expires && service.store.set_ttl(key, None)).into());
    Ok(())
}

fn scan(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    let cursor = std::str::from_utf8(argument(request, 1)?).ok().and_then(|text| text.parse().ok());
    let cursor: u64 = cursor.ok_or("ERR invalid cursor")?;
    let (mut pattern, mut count) = (None, 10);
    let mut options = request.from(2);
    while let Some(option) = options.next() {
        let value = options.next().ok_or(SYNTAX)?;
        if option.eq_ignore_ascii_case(b"match") {
            pattern = Some(value);
        } else if option.eq_ignore_ascii_case(b"count") {
            count = number(value).ok_or(NOT_AN_INTEGER)?;
        } else {
            return Err(SYNTAX);
        }
    }
    let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(SYNTAX)?;
    let (mut keys, mut found) = (Replies::default(), 0);
    let next = service.store.scan(cursor, count, &mut |key| {
        if pattern.is_none_or(|pattern| glob::matches(pattern, key)) {
            keys.bulk(key);
            found += 1;
        }
    });
    replies.array(2);
    replies.bulk(next.to_string().as_bytes());
    replies.array(found);
    replies.append(&keys);
    Ok(())
}

fn dbsize(service: &Service, _: Arguments<'_>, replies: &mut Replies) -> Done {
    replies.integer(service.store.len() as i64);
    Ok(())
}

fn flushall(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    let is_option = |option: &[u8]| option.eq_ignore_ascii_case(b"sync") || option.eq_ignore_ascii_case(b"async");
    if request.len() > 2 || !request.from(1).all(is_option) {
        return Err(SYNTAX);
    }
    service.store.clear();
    replies.ok();
    Ok(())
}

fn info(service: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    let sections: Vec<_> = request.from(1).map(|name| String::from_utf8_lossy(name).to_lowercase()).collect();
    replies.bulk(info::text(service, &sections).as_bytes());
    Ok(())
}

fn ping(_: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    match (request.len(), request.get(1)) {
        (1, _) => replies.simple("PONG"),
        (2, Some(text)) => replies.bulk(text),
        _ => return Err("ERR wrong number of arguments for 'ping' command".into()),
    }
    Ok(())
}

fn echo(_: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    replies.bulk(argument(request, 1)?);
    Ok(())
}

fn quit(_: &Service, _: Arguments<'_>, replies: &mut Replies) -> Done {
    replies.ok();
    Ok(())
}

fn command(_: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    match request.get(1) {
        None => {
            replies.array(COMMANDS.len());
            for Command { name, arity, keys: (first, last, step), .. } in &COMMANDS {
                replies.array(6);
                replies.bulk(name.as_bytes());
                replies.integer(*arity);
                replies.array(0);
                [first, last, step].into_iter().for_each(|number| replies.integer(*number));
            }
        }
        Some(count) if count.eq_ignore_ascii_case(b"count") => replies.integer(COMMANDS.len() as i64),
        // redis-cli asks for it when it starts, and does without.
        Some(docs) if docs.eq_ignore_ascii_case(b"docs") => replies.array(0),
        Some(other) => return Err(unknown_subcommand("COMMAND", other)),
    }
    Ok(())
}

/// What redis-benchmark asks for: how the server persists. It does not.
const CONFIGURATION: [(&str, &str); 2] = [("save", ""), ("appendonly", "no")];

fn config(_: &Service, request: Arguments<'_>, replies: &mut Replies) -> Done {
    let subcommand = argument(request, 1)?;
    if !subcommand.eq_ignore_ascii_case(b"get") {
        return Err(unknown_subcommand("CONFIG", subcommand));
    }
    if request.len() < 3 {
        return Err("ERR wrong number of arguments for 'config|get' command".into());
    }
    let is_asked = |name: &str| request.from(2).any(|pattern| glob::matches(pattern, name.as_bytes()));
    let asked: Vec<_> = CONFIGURATION.iter().filter(|(name, _)| is_asked(name)).collect();
    replies.array(2 * asked.len());
    for (name, value) in asked {
        replies.bulk(name.as_bytes());
        replies.bulk(value.as_bytes());
    }
    Ok(())
}

fn unknown_subcommand(command: &str, subcommand: &[u8]) -> Cow<'static, str> {
    let subcommand = String::from_utf8_lossy(&subcommand[..subcommand.len().min(SHOWN)]);
    format!("ERR unknown subcommand '{subcommand}' of {command}").into()
}
