//! IP headers, and the extension headers behind them.

use std::net::IpAddr;

use etherparse::{IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice};

use super::layer::Layer;
use super::options;
use super::path::{Ends, Path};
use super::{Ignored, Taken};

/// The contents behind a header that may belong to a fragment.
pub enum Behind<'a> {
    Layer(Layer, &'a [u8]),
    Piece(Piece<'a>),
}

/// A fragment.
pub struct Piece<'a> {
    pub protocol: u8,
    pub id: u32,
    pub offset: usize,
    pub is_last: bool,
    pub data: &'a [u8],
}

/// Removes an IP header or an IPv6 fragment header.
pub fn take_off<'a>(layer: Layer, data: &'a [u8], path: &mut Path) -> Result<Behind<'a>, Ignored> {
    let first = *data.first().ok_or(Ignored::Truncated)?;
    match (layer, first >> 4) {
        (Layer::Fragment, _) => fragment(data, path),
        (Layer::Ip, 4) => ipv4(data, path),
        (Layer::Ip | Layer::Ipv6, 6) => ipv6(data, path).map(|(layer, data)| Behind::Layer(layer, data)),
        _ => Err(Ignored::Malformed),
    }
}

fn ipv4<'a>(data: &'a [u8], path: &mut Path) -> Result<Behind<'a>, Ignored> {
    let header = Ipv4HeaderSlice::from_slice(data).map_err(|error| match error {
        etherparse::err::ipv4::HeaderSliceError::Len(_) => Ignored::Truncated,
        etherparse::err::ipv4::HeaderSliceError::Content(_) => Ignored::Malformed,
    })?;
    let body = &data[header.slice().len()..];
    let length = match usize::from(header.total_len()) {
        // An offloading sender leaves the length for the network card to fill in.
        0 => body.len(),
        total => total.checked_sub(header.slice().len()).ok_or(Ignored::Malformed)?,
    };
    let destination = options::route_end_v4(header.options()).unwrap_or(header.destination());
    path.innermost = Some(Ends { source: header.source().into(), destination: destination.into() });
    path.is_cut = body.len() < length;
    let body = &body[..length.min(body.len())];
    let protocol = header.protocol().0;
    let offset = usize::from(header.fragments_offset().value()) * 8;
    if header.is_fragmenting_payload() {
        if !path.is_cut && !body.is_empty() {
            let id = u32::from(header.identification());
            return Ok(Behind::Piece(Piece { protocol, id, offset, is_last: !header.more_fragments(), data: body }));
        }
        // This fragment cannot be reassembled. If it is the first one, it has the transport header.
        if offset != 0 {
            return Err(Ignored::Fragment);
        }
    }
    let (layer, body) = protocol_layer(protocol, body)?;
    Ok(Behind::Layer(layer, body))
}

fn ipv6<'a>(data: &'a [u8], path: &mut Path) -> Taken<'a> {
    let header = Ipv6HeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
    let body = &data[header.slice().len()..];
    let length = match header.payload_length() {
        0 => options::jumbo_length(header.next_header().0, body).ok_or(Ignored::Malformed)?,
        length => usize::from(length),
    };
    path.innermost = Some(Ends { source: header.source().into(), destination: header.destination().into() });
    path.is_cut = body.len() < length;
    protocol_layer(header.next_header().0, &body[..length.min(body.len())])
}

/// Removes a header of IPv6's common form (next header, length), and applies the addresses in it to the flow.
pub fn extension<'a>(layer: Layer, data: &'a [u8], path: &mut Path) -> Taken<'a> {
    let header = Ipv6RawExtHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
    // These headers cannot replace IPv4 addresses.
    if let Some(Ends { source: IpAddr::V6(source), destination: IpAddr::V6(destination) }) = &mut path.innermost {
        match layer {
            Layer::Routing => *destination = options::route_end_v6(header.slice()).map_or(*destination, From::from),
            Layer::Options => {
                *source = options::home_address(header.payload()).map_or(*source, From::from);
            }
            _ => {}
        }
    }
    protocol_layer(header.next_header().0, &data[header.slice().len()..])
}

pub fn authentication(data: &[u8]) -> Taken<'_> {
    let header = IpAuthHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
    protocol_layer(header.next_header().0, &data[header.slice().len()..])
}

fn fragment<'a>(data: &'a [u8], path: &Path) -> Result<Behind<'a>, Ignored> {
    let header = Ipv6FragmentHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
    let (protocol, data) = (header.next_header().0, &data[header.slice().len()..]);
    if !header.is_fragmenting_payload() {
        let (layer, data) = protocol_layer(protocol, data)?;
        return Ok(Behind::Layer(layer, data));
    }
    if path.is_cut || data.is_empty() {
        return Err(Ignored::Fragment);
    }
    let offset = usize::from(header.fragment_offset().value()) * 8;
    let (id, is_last) = (header.identification(), !header.more_fragments());
    Ok(Behind::Piece(Piece { protocol, id, offset, is_last, data }))
}

pub fn protocol_layer(protocol: u8, data: &[u8]) -> Taken<'_> {
    Ok((Layer::of_ip_protocol(protocol).ok_or(Ignored::OtherProtocol)?, data))
}
