//! Captures: pcap and pcapng, plain or compressed, read as a stream of frames.
//!
//! The crates decode headers and blocks; this module finds where each begins and ends, so that it can say at
//! which byte a damaged capture stops making sense, and so that memory stays at one block however long the
//! capture is.

use std::fmt;
use std::io::{self, BufReader, Read};

use pcap_parser::pcapng::{Block, parse_block_be, parse_block_le};
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{OptionCode, PcapHeader, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified};

use crate::window::Window;

/// The longest frame libpcap would write; a longer one is a damaged length field.
const MAX_FRAME: usize = 256 << 10;
/// No block that holds one frame is near this long.
const MAX_BLOCK: usize = 16 << 20;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// One captured frame.
pub struct Frame<'a> {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Length on the wire, in bytes; `data` may hold less of it.
    pub length: u32,
    /// Link type, by its number in the tcpdump.org registry.
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
    /// The capture ends inside the thing named.
    Truncated(&'static str),
    Malformed(&'static str),
    Read(io::Error),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        match &self.what {
            Problem::NotACapture => write!(f, "neither pcap nor pcapng at byte {offset}"),
            Problem::Truncated(what) => write!(f, "truncated: the capture ends inside the {what} at byte {offset}"),
            Problem::Malformed(what) => write!(f, "malformed: {what} at byte {offset}"),
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
    /// Bytes of the block handed out last, consumed when the next one is asked for.
    lent: usize,
    /// Time of the last frame that had one: simple packet blocks have none.
    time: u64,
}

enum Format {
    Pcap(PcapHeader),
    Pcapng { big_endian: bool, interfaces: Vec<Interface> },
}

struct Interface {
    link: u16,
    /// Most bytes captured of a frame; zero is no limit.
    snaplen: u32,
    clock: Clock,
}

/// How an interface's timestamps count.
struct Clock {
    ticks_per_second: u128,
    offset_seconds: i64,
}

impl<'r> Capture<'r> {
    /// Reads the file header. Compressed input (gzip, xz) is recognised by its first bytes.
    ///
    /// # Errors
    ///
    /// If the input is no capture or cannot be read.
    pub fn open(input: impl Read + 'r) -> Result<Self, CaptureError> {
        let mut window =
            Window::new(decompress(input).map_err(|error| CaptureError { offset: 0, what: Problem::Read(error) })?);
        let Some(magic) = window.peek(4)?.map(|head| read_u32(head, 0, false)) else {
            return Err(window.error(Problem::Truncated("file header")));
        };
        let format = if magic == SECTION_HEADER {
            Format::Pcapng { big_endian: false, interfaces: Vec::new() }
        } else if let 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34 | 0xd4c3_b2a1 | 0x4d3c_b2a1 = magic {
            let Some(head) = window.peek(24)? else {
                return Err(window.error(Problem::Truncated("file header")));
            };
            let Ok((_, header)) = pcap_parser::parse_pcap_header(head) else {
                return Err(window.error(Problem::Malformed("file header")));
            };
            window.consume(24);
            Format::Pcap(header)
        } else {
            return Err(window.error(Problem::NotACapture));
        };
        Ok(Capture { window, format, lent: 0, time: 0 })
    }

    /// The next frame, or `None` at the end of the capture.
    ///
    /// # Errors
    ///
    /// If the capture ends inside a block or a block makes no sense. There is nothing to read after that.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        self.window.consume(std::mem::take(&mut self.lent));
        match &mut self.format {
            Format::Pcap(header) => {
                let Some(length) = pcap_record(&mut self.window, header)? else { return Ok(None) };
                self.lent = length;
                pcap_frame(&self.window, length, header).map(Some)
            }
            Format::Pcapng { big_endian, interfaces } => loop {
                let Some((kind, length)) = ng_block(&mut self.window, big_endian)? else { return Ok(None) };
                match kind {
                    SECTION_HEADER => interfaces.clear(),
                    INTERFACE_DESCRIPTION => interfaces.push(ng_interface(&self.window, length, *big_endian)?),
                    ENHANCED_PACKET | SIMPLE_PACKET | OBSOLETE_PACKET => {
                        self.lent = length;
                        let frame = ng_frame(&self.window, length, *big_endian, interfaces, self.time)?;
                        self.time = frame.time;
                        return Ok(Some(frame));
                    }
                    // Statistics, names, secrets, and what is not invented yet.
                    _ => {}
                }
                self.window.consume(length);
            },
        }
    }
}

/// The input, or what it decompresses to.
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

/// Brings the next record into the window. Its length with its header, or `None` at the end of the file.
fn pcap_record(window: &mut Window<'_>, header: &PcapHeader) -> Result<Option<usize>, CaptureError> {
    let head_length = if header.is_modified_format() { 24 } else { 16 };
    if window.is_at_end()? {
        return Ok(None);
    }
    let Some(head) = window.peek(head_length)? else {
        return Err(window.error(Problem::Truncated("record header")));
    };
    let captured = read_u32(head, 8, header.is_bigendian()) as usize;
    if captured > MAX_FRAME {
        return Err(window.error(Problem::Malformed("record longer than any frame")));
    }
    match window.peek(head_length + captured)? {
        Some(_) => Ok(Some(head_length + captured)),
        None => Err(window.error(Problem::Truncated("record"))),
    }
}

fn pcap_frame<'a>(window: &'a Window<'_>, length: usize, header: &PcapHeader) -> Result<Frame<'a>, CaptureError> {
    let parse = match (header.is_modified_format(), header.is_bigendian()) {
        (true, _) => parse_pcap_frame_modified,
        (false, true) => parse_pcap_frame_be,
        (false, false) => parse_pcap_frame,
    };
    let Ok((_, record)) = parse(window.held(length)) else {
        return Err(window.error(Problem::Malformed("record")));
    };
    let unit = if header.is_nanosecond_precision() { 1 } else { 1_000 };
    Ok(Frame {
        time: u64::from(record.ts_sec) * 1_000_000_000 + u64::from(record.ts_usec) * unit,
        length: record.origlen,
        // The upper half of the field is about frame check sequences.
        link: header.network.0 as u16,
        data: record.data,
    })
}

/// Brings the next block into the window. Its type and length, or `None` at the end of the file.
fn ng_block(window: &mut Window<'_>, big_endian: &mut bool) -> Result<Option<(u32, usize)>, CaptureError> {
    if window.is_at_end()? {
        return Ok(None);
    }
    let Some(head) = window.peek(12)? else {
        return Err(window.error(Problem::Truncated("block header")));
    };
    if read_u32(head, 0, false) == SECTION_HEADER {
        *big_endian = match read_u32(head, 8, false) {
            0x1a2b_3c4d => false,
            0x4d3c_2b1a => true,
            _ => return Err(window.error(Problem::Malformed("byte order of the section header"))),
        };
    }
    let kind = read_u32(head, 0, *big_endian);
    let length = read_u32(head, 4, *big_endian) as usize;
    if !(12..=MAX_BLOCK).contains(&length) || length % 4 != 0 {
        return Err(window.error(Problem::Malformed("block length")));
    }
    let Some(block) = window.peek(length)? else {
        return Err(window.error(Problem::Truncated("block")));
    };
    if read_u32(block, length - 4, *big_endian) as usize != length {
        return Err(window.error(Problem::Malformed("block, whose two lengths differ,")));
    }
    Ok(Some((kind, length)))
}

fn ng_parse<'a>(window: &'a Window<'_>, length: usize, big_endian: bool) -> Result<Block<'a>, CaptureError> {
    let parse = if big_endian { parse_block_be } else { parse_block_le };
    match parse(window.held(length)) {
        Ok((_, block)) => Ok(block),
        Err(_) => Err(window.error(Problem::Malformed("block"))),
    }
}

fn ng_interface(window: &Window<'_>, length: usize, big_endian: bool) -> Result<Interface, CaptureError> {
    let Block::InterfaceDescription(block) = ng_parse(window, length, big_endian)? else {
        return Err(window.error(Problem::Malformed("interface description")));
    };
    let mut clock = Clock { ticks_per_second: 1_000_000, offset_seconds: 0 };
    for option in &block.options {
        // Decoded here and not by the crate, which reads the offset as little-endian in every section and
        // knows no binary resolutions.
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
                        if big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                }
            }
            _ => {}
        }
    }
    Ok(Interface { link: block.linktype.0 as u16, snaplen: block.snaplen, clock })
}

fn ng_frame<'a>(
    window: &'a Window<'_>,
    length: usize,
    big_endian: bool,
    interfaces: &[Interface],
    last_time: u64,
) -> Result<Frame<'a>, CaptureError> {
    let malformed = |what| window.error(Problem::Malformed(what));
    let interface =
        |id: u32| interfaces.get(id as usize).ok_or_else(|| malformed("interface number of a packet block"));
    let captured =
        |data: &'a [u8], captured: u32| data.get(..captured as usize).ok_or_else(|| malformed("captured length"));
    match ng_parse(window, length, big_endian)? {
        Block::EnhancedPacket(block) => {
            let interface = interface(block.if_id)?;
            Ok(Frame {
                time: interface.clock.nanoseconds(block.ts_high, block.ts_low),
                length: block.origlen,
                link: interface.link,
                data: captured(block.data, block.caplen)?,
            })
        }
        Block::SimplePacket(block) => {
            let interface = interface(0)?;
            let limit = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
            Ok(Frame {
                time: last_time,
                length: block.orig_len(),
                link: interface.link,
                data: captured(block.data, block.orig_len().min(limit))?,
            })
        }
        // The crate hands over the body of the obsolete packet block as it is.
        Block::Unknown(block) if block.data.len() >= 20 => {
            let field = |at| read_u32(block.data, at, big_endian);
            let id = if big_endian { field(0) >> 16 } else { field(0) & 0xffff };
            let interface = interface(id)?;
            Ok(Frame {
                time: interface.clock.nanoseconds(field(4), field(8)),
                length: field(16),
                link: interface.link,
                data: captured(&block.data[20..], field(12))?,
            })
        }
        _ => Err(malformed("packet block")),
    }
}

impl Clock {
    /// Nanoseconds since 1970; times before it, or past what 64 bits hold, stay at that limit.
    fn nanoseconds(&self, high: u32, low: u32) -> u64 {
        let ticks = u128::from(u64::from(high) << 32 | u64::from(low));
        let (seconds, rest) = (ticks / self.ticks_per_second, ticks % self.ticks_per_second);
        let fraction = rest.checked_mul(1_000_000_000).map_or(0, |scaled| scaled / self.ticks_per_second);
        let seconds = (seconds as i128 + i128::from(self.offset_seconds)).max(0);
        u64::try_from(seconds * 1_000_000_000 + fraction as i128).unwrap_or(u64::MAX)
    }
}

fn read_u32(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}
