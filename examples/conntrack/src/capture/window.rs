//! The part of a stream that is being parsed, and its position in the stream.

use std::io::{ErrorKind, Read};

use super::{CaptureError, Problem};

/// The least size of the buffer. It grows if a block is longer.
const ROOM: usize = 128 << 10;

pub struct Window<'r> {
    input: Box<dyn Read + 'r>,
    /// The bytes that were read and not consumed are in `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The position of `start` in the stream.
    offset: u64,
    ended: bool,
}

impl<'r> Window<'r> {
    pub fn new(input: Box<dyn Read + 'r>) -> Self {
        Window { input, buffer: Vec::new(), start: 0, end: 0, offset: 0, ended: false }
    }

    /// Returns the next `length` bytes, or `None` if the stream ends before.
    pub fn peek(&mut self, length: usize) -> Result<Option<&[u8]>, CaptureError> {
        while self.end - self.start < length && !self.ended {
            self.refill(length)?;
        }
        Ok(self.buffer[self.start..self.end].get(..length))
    }

    /// Returns bytes that `peek` has read.
    pub fn held(&self, length: usize) -> &[u8] {
        &self.buffer[self.start..self.start + length]
    }

    pub fn consume(&mut self, length: usize) {
        self.start += length;
        self.offset += length as u64;
    }

    pub fn is_at_end(&mut self) -> Result<bool, CaptureError> {
        Ok(self.peek(1)?.is_none())
    }

    /// Returns an error at the beginning of the window.
    pub fn error(&self, what: Problem) -> CaptureError {
        CaptureError { offset: self.offset, what }
    }

    /// Reads more input. Makes room for at least `length` bytes from the beginning of the window.
    fn refill(&mut self, length: usize) -> Result<(), CaptureError> {
        let room = length.max(ROOM);
        if self.buffer.len() < room {
            let held = std::mem::replace(&mut self.buffer, vec![0; room]);
            self.buffer[..self.end - self.start].copy_from_slice(&held[self.start..self.end]);
        } else {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, self.end - self.start);
        let read = loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        // Bytes read before an error are returned first: `peek` gets here only if it needs more than it holds.
        let at = self.offset + self.end as u64;
        let read = read.map_err(|error| CaptureError { offset: at, what: Problem::Read(error) })?;
        self.ended = read == 0;
        self.end += read;
        Ok(())
    }
}
