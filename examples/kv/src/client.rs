//! A small client, for the demonstration and the tests.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Reply>),
}

impl Reply {
    pub fn bulk(text: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(text.as_ref().to_vec())
    }

    pub fn ok() -> Reply {
        Reply::Simple("OK".into())
    }
}

/// How long a client waits for a reply.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a server.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Sends one request, and returns its reply.
    pub fn request<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        let mut replies = self.pipeline(&[arguments.iter().map(AsRef::as_ref).collect()])?;
        Ok(replies.remove(0))
    }

    /// Sends the words of a line as one request.
    pub fn words(&mut self, line: &str) -> io::Result<Reply> {
        self.request(&line.split(' ').collect::<Vec<_>>())
    }

    /// Sends all requests at once, and returns their replies.
    pub fn pipeline(&mut self, requests: &[Vec<&[u8]>]) -> io::Result<Vec<Reply>> {
        let mut bytes = Vec::new();
        for request in requests {
            write!(bytes, "*{}\r\n", request.len())?;
            for argument in request {
                write!(bytes, "${}\r\n", argument.len())?;
                bytes.extend_from_slice(argument);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        self.send(&bytes)?;
        requests.iter().map(|_| self.reply()).collect()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let wrong = || Error::new(ErrorKind::InvalidData, format!("not a reply: {line:?}"));
        let text = line.strip_suffix("\r\n").ok_or_else(wrong)?;
        let (kind, text) = text.split_at_checked(1).ok_or_else(wrong)?;
        let number = || text.parse::<i64>().map_err(|_| wrong());
        match kind {
            "+" => Ok(Reply::Simple(text.into())),
            "-" => Ok(Reply::Error(text.into())),
            ":" => Ok(Reply::Integer(number()?)),
            "$" => match usize::try_from(number()?) {
                Err(_) => Ok(Reply::Null),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    if !bytes.ends_with(b"\r\n") {
                        return Err(wrong());
                    }
                    bytes.truncate(length);
                    Ok(Reply::Bulk(bytes))
                }
            },
            "*" => (0..number()?).map(|_| self.reply()).collect::<io::Result<_>>().map(Reply::Array),
            _ => Err(wrong()),
        }
    }

    /// Waits until the server has sent something or closed the connection. Returns whether it has closed it.
    #[cfg(test)]
    pub fn is_closed(&mut self) -> io::Result<bool> {
        match self.stream.fill_buf() {
            Ok(bytes) => Ok(bytes.is_empty()),
            // The server has not read all that was sent.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Returns all keys that match a pattern, by as many SCANs as it takes.
    pub fn scan(&mut self, pattern: &str, count: usize) -> io::Result<Vec<Vec<u8>>> {
        let (mut cursor, mut keys) = ("0".to_string(), Vec::new());
        loop {
            let reply = self.words(&format!("SCAN {cursor} MATCH {pattern} COUNT {count}"))?;
            let Reply::Array(reply) = reply else { return Err(unexpected("SCAN", &reply)) };
            let [Reply::Bulk(next), Reply::Array(found)] = &reply[..] else {
                return Err(unexpected("SCAN", &Reply::Array(reply)));
            };
            for key in found {
                let Reply::Bulk(key) = key else { return Err(unexpected("SCAN", key)) };
                keys.push(key.clone());
            }
            cursor = String::from_utf8_lossy(next).into_owned();
            if cursor == "0" {
                return Ok(keys);
            }
        }
    }
}

pub fn unexpected(request: &str, reply: &Reply) -> Error {
    Error::new(ErrorKind::InvalidData, format!("an unexpected reply to {request}: {reply:?}"))
}
