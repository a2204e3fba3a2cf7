//! The replies to a client, version 2 of the protocol.

/// Replies that were not sent yet.
#[derive(Default)]
pub struct Replies(Vec<u8>);

impl Replies {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Forgets what was sent. Keeps no more memory than `most` bytes.
    pub fn clear(&mut self, most: usize) {
        self.0.clear();
        self.0.shrink_to(most);
    }

    pub fn ok(&mut self) {
        self.simple("OK");
    }

    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error. A line break in the text would end it, and becomes a space.
    pub fn error(&mut self, text: &str) {
        let text: Vec<u8> = text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }).collect();
        self.line(b'-', &text);
    }

    pub fn integer(&mut self, number: i64) {
        self.line(b':', number.to_string().as_bytes());
    }

    pub fn bulk(&mut self, bytes: &[u8]) {
        self.length(b'$', bytes.len());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
    }

    pub fn null(&mut self) {
        self.0.extend_from_slice(b"$-1\r\n");
    }

    /// The head of an array. Its elements follow.
    pub fn array(&mut self, length: usize) {
        self.length(b'*', length);
    }

    /// A value, or null if there is none.
    pub fn value(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bulk(value),
            None => self.null(),
        }
    }

    /// Adds replies, or elements of an array.
    pub fn append(&mut self, other: &Replies) {
        self.0.extend_from_slice(&other.0);
    }

    /// A line with a length: `kind`, the number, and a line break. Written by hand, as each value has one.
    fn length(&mut self, kind: u8, mut number: usize) {
        let mut line = [0; 23];
        let mut at = line.len() - 2;
        line[at..].copy_from_slice(b"\r\n");
        loop {
            at -= 1;
            line[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        at -= 1;
        line[at] = kind;
        self.0.extend_from_slice(&line[at..]);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(text);
        self.0.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_as_the_protocol_says() {
        let mut replies = Replies::default();
        replies.ok();
        replies.error("ERR a\r\nb");
        replies.integer(-3);
        replies.array(2);
        replies.value(Some(b"ten bytes."));
        replies.value(None);
        replies.length(b'$', usize::MAX);
        let expected = format!("+OK\r\n-ERR a  b\r\n:-3\r\n*2\r\n$10\r\nten bytes.\r\n$-1\r\n${}\r\n", usize::MAX);
        assert_eq!(String::from_utf8_lossy(replies.bytes()), expected);
    }
}
