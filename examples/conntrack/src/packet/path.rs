//! What the parser remembers of the layers it has removed from a frame.

use std::net::IpAddr;

use super::Ignored;

/// The most layers of a frame. Real networks stack far fewer. A frame with more was made to keep a parser busy.
const MAX_LAYERS: u32 = 40;

/// The addresses of the innermost IP header so far. Options and routing headers behind it may change them.
#[derive(Clone, Copy)]
pub struct Ends {
    pub source: IpAddr,
    pub destination: IpAddr,
}

/// The layers removed so far.
#[derive(Clone, Copy, Default)]
pub struct Path {
    pub innermost: Option<Ends>,
    /// The innermost VLAN, or zero without one.
    pub vlan: u16,
    /// Whether a part of the innermost IP payload was not captured.
    pub is_cut: bool,
    /// The number of bytes at the end of the frame that were not captured.
    pub missing: usize,
    layers: u32,
}

impl Path {
    pub fn new(missing: usize) -> Self {
        Path { missing, ..Path::default() }
    }

    /// Counts a layer. Fails if there are too many.
    pub fn descend(&mut self) -> Result<(), Ignored> {
        self.layers += 1;
        if self.layers > MAX_LAYERS { Err(Ignored::Malformed) } else { Ok(()) }
    }

    /// Returns the ends of the flow.
    ///
    /// # Errors
    ///
    /// Fails if there was no IP header before. No table of numbers allows this.
    pub fn ends(&self) -> Result<Ends, Ignored> {
        self.innermost.ok_or(Ignored::Malformed)
    }

    /// Returns why a frame is ignored if its next layer is unknown.
    pub fn unknown(&self) -> Ignored {
        if self.innermost.is_some() { Ignored::OtherProtocol } else { Ignored::NotIp }
    }
}
