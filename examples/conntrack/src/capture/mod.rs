//! Captures: pcap and pcapng, plain or compressed, read as a stream of frames.
//!
//! `pcap` and `pcapng` find where each record or block begins and ends. So an error names the byte at which a
//! damaged capture becomes invalid, and memory is bounded by one block, however long the capture is.

mod pcap;
mod pcapng;
mod window;

use std::fmt;
use std::io::{self, BufReader, Read};

use self::pcap::Pcap;
use self::pcapng::Pcapng;
use self::window::Window;

/// The longest frame that libpcap writes. A greater length means that the length field is damaged.
const MAX_FRAME: usize = 256 << 10;

/// One captured frame.
pub struct Frame<'a> {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Whether the capture's timestamp was out of range. If so, `time` is a replacement.
    pub is_time_repaired: bool,
    /// Length on the wire, in bytes. `data` may hold less.
    pub length: u32,
    /// The link type, by its number in the tcpdump.org registry.
    pub link: u16,
    pub data: &'a [u8],
}

/// Why reading stopped, and at which byte of the (uncompressed) capture.
#[derive(Debug)]
pub struct CaptureError {
    pub offset: u64,
    pub what: Problem,
}

#[derive(Debug)]
pub enum Problem {
    NotACapture,
    /// The capture ends inside the named part.
    Truncated(&'static str),
    Malformed(&'static str),
    /// A version or a header field that this program does not support.
    Unsupported(String),
    Read(io::Error),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        match &self.what {
            Problem::NotACapture => write!(f, "neither pcap nor pcapng at byte {offset}"),
            Problem::Truncated(what) => write!(f, "truncated: the capture ends inside the {what} at byte {offset}"),
            Problem::Malformed(what) => write!(f, "malformed: {what} at byte {offset}"),
            Problem::Unsupported(what) => write!(f, "unsupported: {what} at byte {offset}"),
            Problem::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                write!(f, "truncated: the compressed capture is cut off; what it holds ends at byte {offset}")
            }
            Problem::Read(error) => write!(f, "cannot read on from byte {offset}: {error}"),
        }
    }
}

impl std::error::Error for CaptureError {}

/// A capture being read.
pub struct Capture<'r> {
    window: Window<'r>,
    format: Format,
    /// The length of the record or block that was returned last. It is consumed when the next frame is requested.
    lent: usize,
}

enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

impl<'r> Capture<'r> {
    /// Reads the file header. Compressed input (gzip, xz) is recognized by its first bytes.
    ///
    /// # Errors
    ///
    /// Fails if the input is not a capture, has an unsupported version, or cannot be read.
    pub fn open(input: impl Read + 'r) -> Result<Self, CaptureError> {
        let mut window =
            Window::new(decompress(input).map_err(|error| CaptureError { offset: 0, what: Problem::Read(error) })?);
        let Some(magic) = window.peek(4)?.map(|head| read_u32(head, 0, false)) else {
            return Err(window.error(Problem::Truncated("file header")));
        };
        let format = if magic == pcapng::SECTION_HEADER {
            Format::Pcapng(Pcapng::open(&mut window)?)
        } else if pcap::is_magic(magic) {
            Format::Pcap(Pcap::open(&mut window)?)
        } else {
            return Err(window.error(Problem::NotACapture));
        };
        Ok(Capture { window, format, lent: 0 })
    }

    /// Returns the next frame, or `None` at the end of the capture.
    ///
    /// # Errors
    ///
    /// Fails if the capture ends inside a block or a block is malformed. Nothing can be read after that.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        self.window.consume(std::mem::take(&mut self.lent));
        match &mut self.format {
            Format::Pcap(pcap) => {
                let Some(length) = pcap.next(&mut self.window)? else { return Ok(None) };
                self.lent = length;
                Ok(Some(pcap.frame(self.window.held(length))))
            }
            Format::Pcapng(pcapng) => {
                let Some(length) = pcapng.next(&mut self.window)? else { return Ok(None) };
                self.lent = length;
                pcapng.frame(&self.window, length).map(Some)
            }
        }
    }
}

/// Returns the input, decompressed if it is compressed.
fn decompress<'r>(input: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let mut head = Vec::new();
    input.by_ref().take(6).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(input);
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(lzma_rust2::XzReader::new(whole, true)),
        _ => Box::new(whole),
    })
}

fn read_u16(bytes: &[u8], at: usize, big_endian: bool) -> u16 {
    let half = [bytes[at], bytes[at + 1]];
    if big_endian { u16::from_be_bytes(half) } else { u16::from_le_bytes(half) }
}

fn read_u32(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}
