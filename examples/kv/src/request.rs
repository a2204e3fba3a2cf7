//! The parser of requests: arrays of bulk strings, and inline commands.
//!
//! It keeps its state between two reads of the connection. So it looks at each byte of an argument once, in however many
//! pieces a request arrives. Arguments are not copied: they are ranges of the buffer that the connection was read into.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

/// The most arguments of a request, as in Redis.
const MOST_ARGUMENTS: i64 = 1 << 20;

/// The longest argument, as in Redis (`proto-max-bulk-len`).
const LONGEST_ARGUMENT: i64 = 512 << 20;

/// The longest line: an inline command, or a number. As in Redis.
const LONGEST_LINE: usize = 64 << 10;

/// The most bytes that one client may have in the buffer, as in Redis (`client-query-buffer-limit`).
const LARGEST_BUFFER: usize = 1 << 30;

/// The number of bytes that are read at once.
const READ: usize = 16 << 10;

/// The size from which on an empty buffer gives its memory back.
const LARGE: usize = 1 << 20;

/// The requests of one connection.
#[derive(Default)]
pub struct Requests {
    /// What was read, up to `filled`. The rest is room for what comes.
    buffer: Vec<u8>,
    filled: usize,
    /// The beginning of what is not parsed yet.
    at: usize,
    /// The beginning of the request that is under way. Equal to `at` between two requests.
    begun: usize,
    /// The arguments of the complete requests, and of the one that is under way.
    arguments: Vec<Range<usize>>,
    /// For each complete request, the end of its arguments.
    ends: Vec<usize>,
    /// The number of arguments that the request under way still lacks.
    missing: usize,
    /// The length of the argument under way, if it is known.
    length: Option<usize>,
}

/// The arguments of one request. The first is the name of the command.
#[derive(Clone, Copy)]
pub struct Arguments<'r> {
    buffer: &'r [u8],
    ranges: &'r [Range<usize>],
}

/// A request that does not follow the protocol. The connection must be closed: it is unknown where the next one begins.
#[derive(PartialEq, Eq, Debug)]
pub enum ProtocolError {
    ArgumentCount,
    ArgumentLength,
    ArgumentEnd,
    LongCount,
    LongLength,
    LongInline,
    Quotes,
    NotAString(u8),
    BufferFull,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::ArgumentCount => f.write_str("invalid multibulk length"),
            ProtocolError::ArgumentLength => f.write_str("invalid bulk length"),
            ProtocolError::ArgumentEnd => f.write_str("expected a line break after an argument"),
            ProtocolError::LongCount => f.write_str("too big mbulk count string"),
            ProtocolError::LongLength => f.write_str("too big bulk count string"),
            ProtocolError::LongInline => f.write_str("too big inline request"),
            ProtocolError::Quotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::NotAString(byte) => write!(f, "expected '$', got '{}'", byte.escape_ascii()),
            ProtocolError::BufferFull => f.write_str("too much in the buffer"),
        }
    }
}

impl Requests {
    /// Reads once from `source`. Returns the number of bytes, 0 at the end of the stream.
    pub fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        if self.filled == self.buffer.len() {
            self.buffer.resize((2 * self.filled).clamp(READ, LARGEST_BUFFER + READ), 0);
        }
        let read = source.read(&mut self.buffer[self.filled..])?;
        self.filled += read;
        Ok(read)
    }

    /// Parses what was read.
    ///
    /// # Errors
    ///
    /// A [`ProtocolError`]. The requests before it are complete.
    pub fn parse(&mut self) -> Result<(), ProtocolError> {
        while self.at < self.filled {
            let progress = if self.missing > 0 {
                self.parse_argument()?
            } else if self.buffer[self.at] == b'*' {
                self.parse_count()?
            } else {
                self.parse_inline()?
            };
            if !progress {
                break;
            }
        }
        if self.filled - self.begun > LARGEST_BUFFER { Err(ProtocolError::BufferFull) } else { Ok(()) }
    }

    /// Parses the number of arguments of a request. Returns false if its line is not complete.
    fn parse_count(&mut self) -> Result<bool, ProtocolError> {
        let Some(line) = self.line(ProtocolError::LongCount)? else { return Ok(false) };
        let count = number(&self.buffer[line.start + 1..line.end]).filter(|&count| count <= MOST_ARGUMENTS);
        self.missing = count.ok_or(ProtocolError::ArgumentCount)?.max(0) as usize;
        if self.missing == 0 {
            // Redis ignores an empty request.
            self.begun = self.at;
        }
        Ok(true)
    }

    /// Parses one argument. Returns false if it is not complete.
    fn parse_argument(&mut self) -> Result<bool, ProtocolError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let first = self.buffer[self.at];
                if first != b'$' {
                    return Err(ProtocolError::NotAString(first));
                }
                let Some(line) = self.line(ProtocolError::LongLength)? else { return Ok(false) };
                let length = number(&self.buffer[line.start + 1..line.end]);
                let length = length.filter(|length| (0..=LONGEST_ARGUMENT).contains(length));
                *self.length.insert(length.ok_or(ProtocolError::ArgumentLength)? as usize)
            }
        };
        let end = self.at + length;
        if self.filled < end + 2 {
            return Ok(false);
        }
        if self.buffer[end..end + 2] != *b"\r\n" {
            return Err(ProtocolError::ArgumentEnd);
        }
        self.arguments.push(self.at..end);
        self.at = end + 2;
        self.length = None;
        self.missing -= 1;
        if self.missing == 0 {
            self.complete();
        }
        Ok(true)
    }

    /// Parses an inline command: words, which may be quoted. Returns false if its line is not complete.
    fn parse_inline(&mut self) -> Result<bool, ProtocolError> {
        let Some(line) = self.line(ProtocolError::LongInline)? else { return Ok(false) };
        let before = self.arguments.len();
        if split(&mut self.buffer, line, &mut self.arguments).is_none() {
            self.arguments.truncate(before);
            return Err(ProtocolError::Quotes);
        }
        if self.arguments.len() > before {
            self.complete();
        }
        self.begun = self.at;
        Ok(true)
    }

    /// Takes a line. Returns its range without the line break, or `None` if it is not complete.
    fn line(&mut self, too_long: ProtocolError) -> Result<Option<Range<usize>>, ProtocolError> {
        let rest = &self.buffer[self.at..self.filled];
        let Some(length) = rest.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n') else {
            return if rest.len() >= LONGEST_LINE { Err(too_long) } else { Ok(None) };
        };
        let end = if rest[..length].ends_with(b"\r") { length - 1 } else { length };
        let line = self.at..self.at + end;
        self.at += length + 1;
        Ok(Some(line))
    }

    fn complete(&mut self) {
        self.ends.push(self.arguments.len());
        self.begun = self.at;
    }

    /// Returns the number of complete requests.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns a complete request.
    pub fn get(&self, number: usize) -> Arguments<'_> {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        Arguments { buffer: &self.buffer, ranges: &self.arguments[start..self.ends[number]] }
    }

    /// Forgets the complete requests, and moves the rest to the front of the buffer.
    pub fn discard(&mut self) {
        let arguments = self.ends.last().copied().unwrap_or(0);
        self.arguments.drain(..arguments);
        self.ends.clear();
        if self.begun == 0 {
            return;
        }
        self.buffer.copy_within(self.begun..self.filled, 0);
        for argument in &mut self.arguments {
            *argument = argument.start - self.begun..argument.end - self.begun;
        }
        self.filled -= self.begun;
        self.at -= self.begun;
        self.begun = 0;
        if self.filled == 0 && self.buffer.len() > LARGE {
            *self = Requests::default();
        }
    }
}

impl<'r> Arguments<'r> {
    pub fn len(self) -> usize {
        self.ranges.len()
    }

    /// Returns an argument, if there is one of this number.
    pub fn get(self, number: usize) -> Option<&'r [u8]> {
        Some(&self.buffer[self.ranges.get(number)?.clone()])
    }

    /// Returns the name of the command. (A request has at least one argument.)
    pub fn name(self) -> &'r [u8] {
        &self.buffer[self.ranges[0].clone()]
    }

    /// Returns the arguments from `first` on.
    pub fn from(self, first: usize) -> impl Iterator<Item = &'r [u8]> {
        self.ranges[first.min(self.ranges.len())..].iter().map(|range| &self.buffer[range.clone()])
    }
}

/// Parses a decimal number, strictly: no sign but `-`, no leading zeros, nothing else.
pub fn number(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [] => return None,
        [b'0', ..] => return (text == b"0").then_some(0),
        _ => {}
    }
    // Below zero, where there is one number more.
    let mut negative: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        negative = negative.checked_mul(10)?.checked_sub((digit - b'0').into())?;
    }
    if digits.len() < text.len() { Some(negative) } else { negative.checked_neg() }
}

/// Splits a line into words, as Redis does: `"..."` with escapes, `'...'`, or what stands between spaces. Decodes words
/// in place, where they never get longer. Returns `None` if quotes are unbalanced.
fn split(buffer: &mut [u8], line: Range<usize>, words: &mut Vec<Range<usize>>) -> Option<()> {
    let (mut from, end) = (line.start, line.end);
    loop {
        while from < end && buffer[from].is_ascii_whitespace() {
            from += 1;
        }
        if from == end {
            return Some(());
        }
        let start = from;
        let mut to = start;
        let mut quote = None;
        while from < end {
            let byte = buffer[from];
            let (decoded, length) = match quote {
                None if byte.is_ascii_whitespace() => break,
                None if byte == b'"' || byte == b'\'' => {
                    quote = Some(byte);
                    from += 1;
                    continue;
                }
                Some(open) if byte == open => {
                    // A closing quote ends the word.
                    quote = None;
                    from += 1;
                    if from < end && !buffer[from].is_ascii_whitespace() {
                        return None;
                    }
                    break;
                }
                Some(b'"') if byte == b'\\' && from + 1 < end => escape(&buffer[from + 1..end]),
                Some(b'\'') if buffer[from..end].starts_with(b"\\'") => (b'\'', 2),
                _ => (byte, 1),
            };
            buffer[to] = decoded;
            to += 1;
            from += length;
        }
        if quote.is_some() {
            return None;
        }
        words.push(start..to);
    }
}

/// Decodes what follows a backslash. Returns the byte, and the length with the backslash.
fn escape(text: &[u8]) -> (u8, usize) {
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    match (text[0], digit(1).zip(digit(2))) {
        (b'x', Some((high, low))) => ((high * 16 + low) as u8, 4),
        (b'n', _) => (b'\n', 2),
        (b'r', _) => (b'\r', 2),
        (b't', _) => (b'\t', 2),
        (b'b', _) => (8, 2),
        (b'a', _) => (7, 2),
        (other, _) => (other, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces that end at `splits`, and parses after each. Returns the requests.
    fn parse(text: &[u8], splits: &[usize]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let (mut requests, mut found) = (Requests::default(), Vec::new());
        let mut from = 0;
        for &to in splits.iter().chain([&text.len()]) {
            let mut piece = &text[from..to];
            while requests.read_from(&mut piece).unwrap() > 0 {}
            let parsed = requests.parse();
            for number in 0..requests.len() {
                let request = requests.get(number);
                assert_eq!(request.name(), request.get(0).unwrap());
                assert_eq!(request.from(0).count(), request.len());
                found.push(request.from(0).map(<[u8]>::to_vec).collect());
            }
            parsed?;
            requests.discard();
            from = to;
        }
        assert_eq!(requests.filled - requests.at, 0, "something is left");
        Ok(found)
    }

    fn words(requests: &[&[&str]]) -> Vec<Vec<Vec<u8>>> {
        requests.iter().map(|words| words.iter().map(|word| word.as_bytes().to_vec()).collect()).collect()
    }

    #[test]
    fn requests_are_the_same_in_any_pieces() {
        let text = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n*1\r\n*0\r\n*-1\r\nPING\r\n\r\n  get  \"a \\x41\\n\" 'it\\'s' x\"y\"\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n";
        let expected = words(&[&["SET", "k", "\r\n*1"], &["PING"], &["get", "a A\n", "it's", "xy"], &["GET", ""]]);
        assert_eq!(parse(text, &[]).as_ref(), Ok(&expected));
        for first in 0..=text.len() {
            for second in first..=text.len() {
                assert_eq!(parse(text, &[first, second]).as_ref(), Ok(&expected), "split at {first} and {second}");
            }
        }
        let bytes: Vec<usize> = (0..text.len()).collect();
        assert_eq!(parse(text, &bytes).as_ref(), Ok(&expected));
    }

    #[test]
    fn what_is_no_request_is_refused_in_any_pieces() {
        let long = [b'x'; LONGEST_LINE + 1];
        let long_count = [&b"*"[..], &[b'1'; LONGEST_LINE]].concat();
        let long_length = [&b"*1\r\n$"[..], &[b'1'; LONGEST_LINE]].concat();
        let cases: [(&[u8], ProtocolError); 13] = [
            (b"*x\r\n", ProtocolError::ArgumentCount),
            (b"*1048577\r\n", ProtocolError::ArgumentCount),
            (b"*99999999999999999999\r\n", ProtocolError::ArgumentCount),
            (b"*1\r\n$-1\r\n", ProtocolError::ArgumentLength),
            (b"*1\r\n$01\r\n", ProtocolError::ArgumentLength),
            (b"*1\r\n$536870913\r\n", ProtocolError::ArgumentLength),
            (b"*1\r\n:1\r\n", ProtocolError::NotAString(b':')),
            (b"*1\r\n$1\r\nabc", ProtocolError::ArgumentEnd),
            (b"GET \"a\r\n", ProtocolError::Quotes),
            (b"GET 'a'b\r\n", ProtocolError::Quotes),
            (&long, ProtocolError::LongInline),
            (&long_count, ProtocolError::LongCount),
            (&long_length, ProtocolError::LongLength),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text, &[]).as_ref(), Err(&error));
            for split in (0..text.len()).step_by(text.len() / 16 + 1) {
                assert_eq!(parse(text, &[split]).as_ref(), Err(&error), "split at {split}");
            }
        }
    }

    #[test]
    fn requests_before_an_error_are_complete() {
        let mut requests = Requests::default();
        requests.read_from(&mut &b"PING\r\n*2\r\n$3\r\nGET\r\n$x\r\n"[..]).unwrap();
        assert_eq!(requests.parse(), Err(ProtocolError::ArgumentLength));
        assert_eq!((requests.len(), requests.get(0).name()), (1, &b"PING"[..]));
    }

    #[test]
    fn a_long_argument_is_taken_and_its_memory_given_back() {
        let value = vec![b'v'; 3 << 20];
        let text = [format!("*1\r\n${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
        let mut requests = Requests::default();
        for mut piece in text.chunks(100_000) {
            assert_eq!(requests.len(), 0);
            while requests.read_from(&mut piece).unwrap() > 0 {}
            requests.parse().unwrap();
        }
        assert_eq!(requests.get(0).name(), value);
        requests.discard();
        assert_eq!(requests.buffer.capacity(), 0);
    }

    #[test]
    fn numbers_are_strict() {
        for number in [0, 7, -12, 1_000_000, i64::MAX, i64::MIN] {
            assert_eq!(super::number(number.to_string().as_bytes()), Some(number));
        }
        for text in ["", "-", "-0", "01", "-01", "+1", " 1", "1 ", "1.0", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }
}
