//! The TCP states of a tracked connection, with nf_conntrack's names, as seen from the middle of the path.
//!
//! A tracker sees flags, not sockets, so a state is what both ends are assumed to be in. A connection whose
//! beginning was not captured starts as established.

/// The flags that change a state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TcpFlags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum TcpState {
    /// One side has sent a SYN.
    SynSent,
    /// Both sides have sent a SYN, and neither was answered: a simultaneous open.
    SynSent2,
    /// The other side has answered with a SYN+ACK.
    SynRecv,
    Established,
    /// One side has sent a FIN.
    FinWait,
    /// The FIN was acknowledged. The other side may still send.
    CloseWait,
    /// Both sides have sent a FIN.
    LastAck,
    /// Both FINs were acknowledged.
    TimeWait,
    /// The connection was reset.
    Close,
}

impl TcpState {
    pub const ALL: [TcpState; 9] = [
        TcpState::SynSent,
        TcpState::SynSent2,
        TcpState::SynRecv,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::TimeWait,
        TcpState::Close,
    ];

    pub fn name(self) -> &'static str {
        match self {
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynSent2 => "SYN_SENT2",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
        }
    }
}

/// A connection's state and the side that closed first, in one byte so that a flow can keep it in an atomic.
///
/// | bits | meaning |
/// |---|---|
/// | 0..4 | the [`TcpState`], by number |
/// | 7 | set if the side that closed first is not the one that sent the first packet |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpWord(u8);

const CLOSED_BY_REPLIER: u8 = 1 << 7;

impl TcpWord {
    fn new(state: TcpState, closer_is_opener: bool) -> Self {
        TcpWord(state as u8 | if closer_is_opener { 0 } else { CLOSED_BY_REPLIER })
    }

    pub fn from_bits(bits: u8) -> Self {
        TcpWord(bits)
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn state(self) -> TcpState {
        TcpState::ALL.get(usize::from(self.0 & 0x0f)).copied().unwrap_or(TcpState::Close)
    }

    fn closer_is_opener(self) -> bool {
        self.0 & CLOSED_BY_REPLIER == 0
    }

    /// Returns the state after a flow's first packet.
    pub fn first(flags: TcpFlags) -> Self {
        let state = match flags {
            TcpFlags { rst: true, .. } => TcpState::Close,
            TcpFlags { syn: true, ack: false, .. } => TcpState::SynSent,
            TcpFlags { syn: true, ack: true, .. } => TcpState::SynRecv,
            TcpFlags { fin: true, .. } => TcpState::FinWait,
            _ => TcpState::Established,
        };
        TcpWord::new(state, true)
    }

    /// Returns the state after one more packet. `from_opener`: the sender is the side that sent the flow's first
    /// packet.
    pub fn next(self, from_opener: bool, flags: TcpFlags) -> Self {
        use TcpState::*;
        let state = self.state();
        let from_closer = from_opener == self.closer_is_opener();
        let next = match flags {
            TcpFlags { rst: true, .. } => Close,
            TcpFlags { syn: true, ack: false, .. } => match state {
                SynSent if !from_opener => SynSent2,
                other => other,
            },
            TcpFlags { syn: true, ack: true, .. } => match state {
                SynSent if !from_opener => SynRecv,
                SynSent2 => SynRecv,
                other => other,
            },
            TcpFlags { fin: true, .. } => match state {
                SynSent | SynSent2 | SynRecv | Established => return TcpWord::new(FinWait, from_opener),
                FinWait | CloseWait if !from_closer => LastAck,
                other => other,
            },
            TcpFlags { ack: true, .. } => match state {
                // If the flow began with a SYN+ACK, the other side acknowledges it. If it began with a SYN, the
                // sender of the SYN does. So an ACK from either side counts.
                SynRecv => Established,
                FinWait if !from_closer => CloseWait,
                LastAck if from_closer => TimeWait,
                other => other,
            },
            _ => state,
        };
        TcpWord::new(next, self.closer_is_opener())
    }

    /// Returns whether a packet with these flags opens a new connection on the same ports. The packets tracked so
    /// far then belong to another flow.
    pub fn is_reopened_by(self, flags: TcpFlags) -> bool {
        let opens = flags.syn && !flags.ack && !flags.rst;
        opens && matches!(self.state(), TcpState::TimeWait | TcpState::Close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: TcpFlags = TcpFlags { syn: false, ack: false, fin: false, rst: false };
    const SYN: TcpFlags = TcpFlags { syn: true, ..NONE };
    const SYN_ACK: TcpFlags = TcpFlags { ack: true, ..SYN };
    const ACK: TcpFlags = TcpFlags { ack: true, ..NONE };
    const FIN_ACK: TcpFlags = TcpFlags { fin: true, ..ACK };
    const RST: TcpFlags = TcpFlags { rst: true, ..NONE };

    /// Returns the states after each packet. `>` is the side that sent the first one.
    fn states(packets: &[(char, TcpFlags)]) -> Vec<&'static str> {
        let mut word = TcpWord::first(packets[0].1);
        let mut names = vec![word.state().name()];
        for &(side, flags) in &packets[1..] {
            word = TcpWord::from_bits(word.next(side == '>', flags).bits());
            names.push(word.state().name());
        }
        names
    }

    #[test]
    fn a_connection_opens_and_closes() {
        let packets = [
            ('>', SYN),
            ('<', SYN_ACK),
            ('>', ACK),
            ('<', ACK),
            ('>', FIN_ACK),
            ('<', ACK),
            ('<', FIN_ACK),
            ('>', ACK),
        ];
        let expected =
            ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"];
        assert_eq!(states(&packets), expected);
    }

    #[test]
    fn the_other_side_may_close_first_or_both_at_once() {
        let packets = [('>', ACK), ('<', FIN_ACK), ('<', FIN_ACK), ('>', FIN_ACK), ('>', ACK), ('<', ACK)];
        assert_eq!(states(&packets), ["ESTABLISHED", "FIN_WAIT", "FIN_WAIT", "LAST_ACK", "LAST_ACK", "TIME_WAIT"]);
    }

    #[test]
    fn both_sides_may_open_at_once() {
        let packets = [('>', SYN), ('<', SYN), ('>', SYN_ACK), ('<', ACK)];
        assert_eq!(states(&packets), ["SYN_SENT", "SYN_SENT2", "SYN_RECV", "ESTABLISHED"]);
    }

    #[test]
    fn a_reset_closes_in_any_state() {
        for state in TcpState::ALL {
            assert_eq!(TcpWord::new(state, true).next(false, RST).state(), TcpState::Close);
        }
    }

    #[test]
    fn only_a_syn_after_the_end_reopens_a_connection() {
        let reopened = |state, flags| TcpWord::new(state, false).is_reopened_by(flags);
        assert!(reopened(TcpState::TimeWait, SYN) && reopened(TcpState::Close, SYN));
        assert!(!reopened(TcpState::Established, SYN) && !reopened(TcpState::TimeWait, SYN_ACK));
        assert!(!reopened(TcpState::TimeWait, ACK));
    }
}
