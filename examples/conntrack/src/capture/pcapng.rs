//! The pcapng format: sections of blocks, some of which hold a frame.
//!
//! This module reads version 1.0, and version 1.2, which draft-ietf-opsawg-pcapng makes equivalent to it. It
//! refuses sections of any other version.

use pcap_parser::OptionCode;
use pcap_parser::pcapng::{Block, parse_block_be, parse_block_le};
use pcap_parser::traits::PcapNGPacketBlock;

use super::window::Window;
use super::{CaptureError, Frame, Problem, read_u16, read_u32};

/// The longest block. Blocks that hold one frame are much shorter.
const MAX_BLOCK: usize = 16 << 20;

pub const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

pub struct Pcapng {
    big_endian: bool,
    /// The interfaces of the current section.
    interfaces: Vec<Interface>,
    /// The time of the last frame. A simple packet block has no time, and takes this one.
    time: u64,
}

struct Interface {
    link: u16,
    /// The most bytes captured of a frame. Zero means no limit.
    snaplen: u32,
    clock: Clock,
}

/// The unit and the offset of an interface's timestamps.
struct Clock {
    ticks_per_second: u128,
    offset_seconds: i64,
}

impl Pcapng {
    /// Checks the first section header, without consuming it. `next` reads it again.
    pub fn open(window: &mut Window<'_>) -> Result<Self, CaptureError> {
        let mut pcapng = Pcapng { big_endian: false, interfaces: Vec::new(), time: 0 };
        pcapng.block(window)?;
        Ok(pcapng)
    }

    /// Reads the next block that holds a frame into the window. Returns its length, or `None` at the end of the file.
    pub fn next(&mut self, window: &mut Window<'_>) -> Result<Option<usize>, CaptureError> {
        loop {
            let Some((kind, length)) = self.block(window)? else { return Ok(None) };
            match kind {
                SECTION_HEADER => self.interfaces.clear(),
                INTERFACE_DESCRIPTION => {
                    let interface = self.interface(window, length)?;
                    self.interfaces.push(interface);
                }
                ENHANCED_PACKET | SIMPLE_PACKET | OBSOLETE_PACKET => return Ok(Some(length)),
                // Statistics, names, secrets, and blocks that may be defined in the future.
                _ => {}
            }
            window.consume(length);
        }
    }

    /// Returns the frame in a block that `next` has read.
    pub fn frame<'a>(&mut self, window: &'a Window<'_>, length: usize) -> Result<Frame<'a>, CaptureError> {
        let malformed = |what| window.error(Problem::Malformed(what));
        let interface =
            |id: u32| self.interfaces.get(id as usize).ok_or_else(|| malformed("interface number of a packet block"));
        let captured =
            |data: &'a [u8], captured: u32| data.get(..captured as usize).ok_or_else(|| malformed("captured length"));
        let (interface, time, length, data) = match self.parse(window, length)? {
            Block::EnhancedPacket(block) => {
                let interface = interface(block.if_id)?;
                let time = interface.clock.nanoseconds(block.ts_high, block.ts_low);
                (interface, time, block.origlen, captured(block.data, block.caplen)?)
            }
            Block::SimplePacket(block) => {
                let interface = interface(0)?;
                let limit = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
                let data = captured(block.data, block.orig_len().min(limit))?;
                (interface, Some(self.time), block.orig_len(), data)
            }
            // The crate `pcap_parser` does not decode the obsolete packet block.
            Block::Unknown(block) if block.data.len() >= 20 => {
                let field = |at| read_u32(block.data, at, self.big_endian);
                let interface = interface(u32::from(read_u16(block.data, 0, self.big_endian)))?;
                let time = interface.clock.nanoseconds(field(4), field(8));
                (interface, time, field(16), captured(&block.data[20..], field(12))?)
            }
            _ => return Err(malformed("packet block")),
        };
        let link = interface.link;
        // If the time is out of range, the frame takes the time of the frame before.
        self.time = time.unwrap_or(self.time);
        Ok(Frame { time: self.time, is_time_repaired: time.is_none(), length, link, data })
    }

    /// Reads the next block into the window. Returns its type and length, or `None` at the end of the file.
    fn block(&mut self, window: &mut Window<'_>) -> Result<Option<(u32, usize)>, CaptureError> {
        if window.is_at_end()? {
            return Ok(None);
        }
        let Some(head) = window.peek(12)? else {
            return Err(window.error(Problem::Truncated("block header")));
        };
        let is_section = read_u32(head, 0, false) == SECTION_HEADER;
        if is_section {
            self.big_endian = match read_u32(head, 8, false) {
                0x1a2b_3c4d => false,
                0x4d3c_2b1a => true,
                _ => return Err(window.error(Problem::Malformed("byte order of the section header"))),
            };
        }
        let kind = read_u32(head, 0, self.big_endian);
        let length = read_u32(head, 4, self.big_endian) as usize;
        let shortest = if is_section { 28 } else { 12 };
        if !(shortest..=MAX_BLOCK).contains(&length) || length % 4 != 0 {
            return Err(window.error(Problem::Malformed("block length")));
        }
        let Some(block) = window.peek(length)? else {
            return Err(window.error(Problem::Truncated("block")));
        };
        if read_u32(block, length - 4, self.big_endian) as usize != length {
            return Err(window.error(Problem::Malformed("block, whose two lengths differ,")));
        }
        if is_section {
            let (major, minor) = (read_u16(block, 12, self.big_endian), read_u16(block, 14, self.big_endian));
            if !matches!((major, minor), (1, 0 | 2)) {
                let what = format!("pcapng version {major}.{minor} (1.0 and 1.2 are read)");
                return Err(window.error(Problem::Unsupported(what)));
            }
        }
        Ok(Some((kind, length)))
    }

    fn parse<'a>(&self, window: &'a Window<'_>, length: usize) -> Result<Block<'a>, CaptureError> {
        let parse = if self.big_endian { parse_block_be } else { parse_block_le };
        match parse(window.held(length)) {
            Ok((_, block)) => Ok(block),
            Err(_) => Err(window.error(Problem::Malformed("block"))),
        }
    }

    fn interface(&self, window: &Window<'_>, length: usize) -> Result<Interface, CaptureError> {
        let Block::InterfaceDescription(block) = self.parse(window, length)? else {
            return Err(window.error(Problem::Malformed("interface description")));
        };
        let mut clock = Clock { ticks_per_second: 1_000_000, offset_seconds: 0 };
        for option in &block.options {
            // Decoded here and not by the crate, which reads the offset as little-endian in every section and
            // does not support binary resolutions.
            match (option.code, option.value()) {
                (OptionCode::IfTsresol, [resolution, ..]) => {
                    let exponent = u32::from(resolution & 0x7f);
                    let ticks =
                        if resolution & 0x80 == 0 { 10u128.checked_pow(exponent) } else { 1u128.checked_shl(exponent) };
                    clock.ticks_per_second =
                        ticks.ok_or_else(|| window.error(Problem::Malformed("timestamp resolution")))?;
                }
                (OptionCode::IfTsoffset, value) => {
                    if let Ok(bytes) = <[u8; 8]>::try_from(value) {
                        clock.offset_seconds =
                            if self.big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                    }
                }
                _ => {}
            }
        }
        Ok(Interface { link: block.linktype.0 as u16, snaplen: block.snaplen, clock })
    }
}

impl Clock {
    /// Returns nanoseconds since 1970, or `None` for times before 1970 or beyond 64 bits.
    fn nanoseconds(&self, high: u32, low: u32) -> Option<u64> {
        let ticks = u128::from(u64::from(high) << 32 | u64::from(low));
        let (seconds, rest) = (ticks / self.ticks_per_second, ticks % self.ticks_per_second);
        let fraction = rest.checked_mul(1_000_000_000).map_or(0, |scaled| scaled / self.ticks_per_second);
        let seconds = seconds as i128 + i128::from(self.offset_seconds);
        u64::try_from(seconds * 1_000_000_000 + fraction as i128).ok()
    }
}
