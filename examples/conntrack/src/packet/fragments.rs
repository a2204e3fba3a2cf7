//! Reassembly of fragmented datagrams.
//!
//! Only the first fragment has ports. So the frame that completes a datagram counts for the flow, even if it does not
//! hold the first fragment. It counts with its own length. The other fragments are counted as ignored. tshark's
//! conversation tables do the same.

use std::collections::HashMap;
use std::net::IpAddr;

/// The most incomplete datagrams. A datagram with a lost fragment would stay for ever, so there is a limit.
const MAX_DATAGRAMS: usize = 4096;

/// The fields that all fragments of a datagram share.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramId {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub id: u32,
    pub protocol: u8,
    pub vlan: u16,
}

#[derive(Default)]
pub struct Fragments {
    datagrams: HashMap<DatagramId, Datagram>,
}

#[derive(Default)]
struct Datagram {
    /// Offset and data of the fragments so far, sorted by offset, then by arrival.
    parts: Vec<(usize, Vec<u8>)>,
    /// Known once the last fragment has arrived.
    length: Option<usize>,
}

impl Fragments {
    /// Adds a fragment. Returns the whole payload if no fragment is missing any more.
    pub fn add(&mut self, id: DatagramId, offset: usize, is_last: bool, data: &[u8]) -> Option<Vec<u8>> {
        if self.datagrams.len() >= MAX_DATAGRAMS && !self.datagrams.contains_key(&id) {
            // Most of so many datagrams have lost a fragment and will never be complete.
            self.datagrams.clear();
        }
        let datagram = self.datagrams.entry(id).or_default();
        let at = datagram.parts.partition_point(|(before, _)| *before <= offset);
        datagram.parts.insert(at, (offset, data.to_vec()));
        if is_last && datagram.length.is_none() {
            datagram.length = Some(offset + data.len());
        }
        let whole = datagram.whole()?;
        self.datagrams.remove(&id);
        Some(whole)
    }
}

impl Datagram {
    /// Returns the payload if no part is missing. Where fragments overlap, the one that begins first counts.
    fn whole(&self) -> Option<Vec<u8>> {
        let length = self.length?;
        let reach = self.parts.iter().try_fold(0, |reach, (offset, data)| {
            (*offset <= reach).then(|| reach.max(offset + data.len())).ok_or(reach)
        });
        let (Ok(reach) | Err(reach)) = reach;
        if reach < length {
            return None;
        }
        let mut whole = Vec::with_capacity(reach);
        for (offset, data) in &self.parts {
            if let Some(more) = whole.len().checked_sub(*offset).and_then(|known| data.get(known..)) {
                whole.extend_from_slice(more);
            }
        }
        whole.truncate(length);
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u32) -> DatagramId {
        let address = IpAddr::from([10, 0, 0, 1]);
        DatagramId { source: address, destination: address, id, protocol: 17, vlan: 0 }
    }

    #[test]
    fn the_fragment_that_closes_the_last_gap_completes_the_datagram() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(id(1), 16, true, b"cc"), None);
        assert_eq!(fragments.add(id(2), 0, false, b"another!"), None);
        assert_eq!(fragments.add(id(1), 0, false, b"aaaaaaaa"), None);
        assert_eq!(fragments.add(id(1), 0, false, b"aaaaaaaa"), None, "a duplicate closes nothing");
        assert_eq!(fragments.add(id(1), 8, false, b"bbbbbbbb").as_deref(), Some(&b"aaaaaaaabbbbbbbbcc"[..]));
        assert_eq!(fragments.add(id(1), 8, false, b"bbbbbbbb"), None, "a complete datagram is forgotten");
    }

    #[test]
    fn overlaps_count_once() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(id(1), 0, false, b"aaaaaaaabbbbbbbb"), None);
        assert_eq!(fragments.add(id(1), 32, true, b"dd"), None);
        assert_eq!(fragments.add(id(1), 8, false, b"BBBBBBBBcccccccc"), None);
        let whole = fragments.add(id(1), 24, false, b"CCCCCCCC");
        assert_eq!(whole.as_deref(), Some(&b"aaaaaaaabbbbbbbbccccccccCCCCCCCCdd"[..]));
    }

    #[test]
    fn incomplete_datagrams_do_not_pile_up() {
        let mut fragments = Fragments::default();
        for number in 0..3 * MAX_DATAGRAMS as u32 {
            assert_eq!(fragments.add(id(number), 0, false, b"aaaaaaaa"), None);
        }
        assert!(fragments.datagrams.len() <= MAX_DATAGRAMS);
    }
}
