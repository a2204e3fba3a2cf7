//! The pcap format: a file header, then one record per frame.
//!
//! # Versions
//!
//! libpcap has written versions 2.0 to 2.4, and this module reads these. They differ in the order of a record's
//! two lengths:
//!
//! | version | order of the lengths |
//! |---|---|
//! | 2.4 | captured, on the wire |
//! | 2.3 | either; the captured length is the smaller one |
//! | 2.0 to 2.2 | on the wire, captured |
//!
//! All other versions are refused, because no document says how to read them. Reserved bits of the link type
//! field are refused too: draft-ietf-opsawg-pcap says that a reader should treat them as an error.

use super::window::Window;
use super::{CaptureError, Frame, MAX_FRAME, Problem, read_u16, read_u32};

const FILE_HEADER: usize = 24;

/// The reserved bits of the link type field. The other bits are the link type (bits 0 to 15), the length of the
/// frame check sequence (bits 28 to 31), and whether that length is known (bit 26).
const RESERVED_BITS: u32 = 0x0bff_0000;

/// The variant of the format, by its magic number.
#[derive(Clone, Copy)]
enum Variant {
    Microseconds,
    Nanoseconds,
    /// Microseconds, and record headers with eight more bytes.
    Modified,
}

pub struct Pcap {
    variant: Variant,
    big_endian: bool,
    minor_version: u16,
    link: u16,
}

/// Returns the variant and whether the byte order is big-endian. `magic` was read in little-endian order.
fn variant(magic: u32) -> Option<(Variant, bool)> {
    Some(match magic {
        0xa1b2_c3d4 => (Variant::Microseconds, false),
        0xd4c3_b2a1 => (Variant::Microseconds, true),
        0xa1b2_3c4d => (Variant::Nanoseconds, false),
        0x4d3c_b2a1 => (Variant::Nanoseconds, true),
        0xa1b2_cd34 => (Variant::Modified, false),
        0x34cd_b2a1 => (Variant::Modified, true),
        _ => return None,
    })
}

pub fn is_magic(magic: u32) -> bool {
    variant(magic).is_some()
}

impl Pcap {
    /// Reads the file header.
    pub fn open(window: &mut Window<'_>) -> Result<Self, CaptureError> {
        let Some(head) = window.peek(FILE_HEADER)? else {
            return Err(window.error(Problem::Truncated("file header")));
        };
        let Some((variant, big_endian)) = variant(read_u32(head, 0, false)) else {
            return Err(window.error(Problem::NotACapture));
        };
        let (major, minor) = (read_u16(head, 4, big_endian), read_u16(head, 6, big_endian));
        let network = read_u32(head, 20, big_endian);
        if !matches!((major, minor), (2, 0..=4)) {
            let what = format!("pcap version {major}.{minor} (2.0 to 2.4 are read)");
            return Err(window.error(Problem::Unsupported(what)));
        }
        if network & RESERVED_BITS != 0 {
            let what = format!("link type field {network:#010x}, which has reserved bits set");
            return Err(window.error(Problem::Unsupported(what)));
        }
        window.consume(FILE_HEADER);
        Ok(Pcap { variant, big_endian, minor_version: minor, link: network as u16 })
    }

    /// Reads the next record into the window. Returns its length including its header, or `None` at the end of
    /// the file.
    pub fn next(&self, window: &mut Window<'_>) -> Result<Option<usize>, CaptureError> {
        if window.is_at_end()? {
            return Ok(None);
        }
        let head_length = self.record_header();
        let Some(head) = window.peek(head_length)? else {
            return Err(window.error(Problem::Truncated("record header")));
        };
        let captured = self.lengths(head).0 as usize;
        if captured > MAX_FRAME {
            return Err(window.error(Problem::Malformed("record longer than any frame")));
        }
        match window.peek(head_length + captured)? {
            Some(_) => Ok(Some(head_length + captured)),
            None => Err(window.error(Problem::Truncated("record"))),
        }
    }

    /// Returns the frame in a record that `next` has read.
    ///
    /// A fraction of a second that is out of range becomes the largest one. The seconds are probably right, and
    /// no frame may move the capture's clock by more than its seconds say.
    pub fn frame<'a>(&self, record: &'a [u8]) -> Frame<'a> {
        let (seconds, fraction) = (read_u32(record, 0, self.big_endian), read_u32(record, 4, self.big_endian));
        let (units, nanoseconds) = match self.variant {
            Variant::Nanoseconds => (1_000_000_000, 1),
            Variant::Microseconds | Variant::Modified => (1_000_000, 1_000),
        };
        Frame {
            time: u64::from(seconds) * 1_000_000_000 + u64::from(fraction.min(units - 1)) * nanoseconds,
            is_time_repaired: fraction >= units,
            length: self.lengths(record).1,
            link: self.link,
            data: &record[self.record_header()..],
        }
    }

    fn record_header(&self) -> usize {
        if let Variant::Modified = self.variant { 24 } else { 16 }
    }

    /// Returns the captured length, and the length on the wire.
    fn lengths(&self, head: &[u8]) -> (u32, u32) {
        let (first, second) = (read_u32(head, 8, self.big_endian), read_u32(head, 12, self.big_endian));
        match self.minor_version {
            0..=2 => (second, first),
            3 => (first.min(second), first.max(second)),
            _ => (first, second),
        }
    }
}
