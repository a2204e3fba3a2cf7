//! What the parser remembers of the layers it has taken off a frame.

use std::net::IpAddr;

use super::Ignored;

/// Most layers of a frame. No network stacks nearly as many; a frame with more was made to keep a parser busy.
const MAX_LAYERS: u32 = 40;

/// The innermost IP header so far. Options and routing headers behind it may change the addresses.
#[derive(Clone, Copy)]
pub struct Ends {
    pub source: IpAddr,
    pub destination: IpAddr,
}

/// The layers taken off so far.
#[derive(Clone, Copy, Default)]
pub struct Path {
    pub innermost: Option<Ends>,
    /// The innermost VLAN, zero without one.
    pub vlan: u16,
    /// Whether part of the innermost IP payload was not captured.
    pub is_cut: bool,
    /// Bytes at the end of the frame that were not captured.
    pub missing: usize,
    layers: u32,
}

impl Path {
    pub fn new(missing: usize) -> Self {
        Path { missing, ..Path::default() }
    }

    /// Counts a layer.
    pub fn descend(&mut self) -> Result<(), Ignored> {
        self.layers += 1;
        if self.layers > MAX_LAYERS { Err(Ignored::Malformed) } else { Ok(()) }
    }

    /// The ends of the flow.
    ///
    /// # Errors
    ///
    /// If no IP header came before, which no table of numbers allows.
    pub fn ends(&self) -> Result<Ends, Ignored> {
        self.innermost.ok_or(Ignored::Malformed)
    }

    /// Why a frame is ignored in which nothing known follows.
    pub fn unknown(&self) -> Ignored {
        if self.innermost.is_some() { Ignored::OtherProtocol } else { Ignored::NotIp }
    }
}
