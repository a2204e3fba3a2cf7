//! The time without a packet after which a flow is evicted. The defaults are those of nf_conntrack.

use std::fmt;

use crate::tcp::TcpState;

pub const SECOND: u64 = 1_000_000_000;

/// The kinds of timeout: the name on the command line, and nf_conntrack's default in seconds.
const KINDS: [(&str, u64); 12] = [
    ("tcp-syn-sent", 120),
    ("tcp-syn-recv", 60),
    ("tcp-established", 432_000),
    ("tcp-fin-wait", 120),
    ("tcp-close-wait", 60),
    ("tcp-last-ack", 30),
    ("tcp-time-wait", 120),
    ("tcp-close", 10),
    ("udp", 30),
    ("udp-stream", 120),
    ("icmp", 30),
    ("icmpv6", 30),
];

/// The timeout of each kind, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts([u64; KINDS.len()]);

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts(KINDS.map(|(_, seconds)| seconds * SECOND))
    }
}

impl Timeouts {
    pub fn tcp(&self, state: TcpState) -> u64 {
        self.0[match state {
            TcpState::SynSent | TcpState::SynSent2 => 0,
            TcpState::SynRecv => 1,
            TcpState::Established => 2,
            TcpState::FinWait => 3,
            TcpState::CloseWait => 4,
            TcpState::LastAck => 5,
            TcpState::TimeWait => 6,
            TcpState::Close => 7,
        }]
    }

    /// Returns the timeout of UDP. `is_stream`: packets have gone both ways for some time.
    pub fn udp(&self, is_stream: bool) -> u64 {
        if is_stream { self.0[9] } else { self.0[8] }
    }

    pub fn icmp(&self, is_v6: bool) -> u64 {
        if is_v6 { self.0[11] } else { self.0[10] }
    }

    pub fn shortest(&self) -> u64 {
        self.0.iter().copied().min().unwrap_or(0)
    }

    /// Changes the timeouts in a list such as `tcp-close=5,udp=0.5`.
    ///
    /// # Errors
    ///
    /// Fails if a name is unknown or a value is not a number of seconds.
    pub fn set(&mut self, list: &str) -> Result<(), String> {
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, value) =
                item.split_once('=').ok_or_else(|| format!("`{item}` is not of the form name=seconds"))?;
            let Some(kind) = KINDS.iter().position(|(known, _)| *known == name) else {
                let known: Vec<&str> = KINDS.iter().map(|(known, _)| *known).collect();
                return Err(format!("unknown timeout `{name}`; known timeouts: {}", known.join(", ")));
            };
            let seconds: f64 = value.parse().map_err(|_| format!("`{value}` is not a number of seconds"))?;
            if !(0.0..=1e9).contains(&seconds) {
                return Err(format!("`{value}` is not between 0 and 1000000000 seconds"));
            }
            self.0[kind] = (seconds * SECOND as f64) as u64;
        }
        Ok(())
    }
}

/// Writes all timeouts, for the help text.
impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, kinds) in KINDS.chunks(4).enumerate() {
            let items: Vec<String> = kinds
                .iter()
                .enumerate()
                .map(|(at, (name, _))| format!("{name}={}", self.0[line * 4 + at] as f64 / SECOND as f64))
                .collect();
            writeln!(f, "        {}", items.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_changes_the_timeouts_that_it_names() {
        let mut timeouts = Timeouts::default();
        assert_eq!(timeouts.set("tcp-established=600, udp=0.5"), Ok(()));
        assert_eq!(timeouts.tcp(TcpState::Established), 600 * SECOND);
        assert_eq!(timeouts.udp(false), SECOND / 2);
        assert_eq!(timeouts.udp(true), 120 * SECOND);
        assert_eq!(timeouts.shortest(), SECOND / 2);
    }

    #[test]
    fn nonsense_is_refused() {
        for list in ["udp", "udp=", "udp=x", "udp=-1", "udp=NaN", "udp=1e99", "sctp=1"] {
            assert!(Timeouts::default().set(list).is_err(), "{list}");
        }
    }
}
