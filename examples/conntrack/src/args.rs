//! The command line.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;

use lexopt::{Arg, ValueExt};

use crate::timeouts::Timeouts;

pub struct Args {
    /// `None`: the shipped capture.
    pub capture: Option<PathBuf>,
    pub workers: usize,
    pub rounds: u32,
    pub json: Option<PathBuf>,
    pub top: usize,
    pub timeouts: Timeouts,
}

pub enum Command {
    Run(Args),
    Help,
}

impl Args {
    /// # Errors
    ///
    /// Fails if an option is unknown or its value is invalid.
    pub fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, lexopt::Error> {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut parsed = Args { capture: None, workers, rounds: 1, json: None, top: 10, timeouts: Timeouts::default() };
        let mut parser = lexopt::Parser::from_iter(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Long("workers") | Arg::Short('w') => {
                    parsed.workers =
                        parser.value()?.parse_with(|text| in_range(text, 1024).map(|count| count as usize))?;
                }
                Arg::Long("repeat") | Arg::Short('r') => {
                    parsed.rounds = parser.value()?.parse_with(|text| in_range(text, u32::MAX))?;
                }
                Arg::Long("json") | Arg::Short('j') => parsed.json = Some(parser.value()?.into()),
                Arg::Long("top") | Arg::Short('t') => parsed.top = parser.value()?.parse()?,
                Arg::Long("timeouts") => parser.value()?.parse_with(|list| parsed.timeouts.set(list))?,
                Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
                Arg::Value(path) if parsed.capture.is_none() => parsed.capture = Some(path.into()),
                other => return Err(other.unexpected()),
            }
        }
        Ok(Command::Run(parsed))
    }
}

fn in_range(text: &str, most: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {most}")),
    }
}

pub fn help() -> String {
    format!(
        "\
Replays a packet capture through a registry of flows, as nf_conntrack would see it.

usage: conntrack [CAPTURE] [--workers N] [--repeat N] [--json FILE] [--top N] [--timeouts LIST]

arguments:
    CAPTURE             a pcap file (version 2.0 to 2.4) or pcapng file (version 1.0 or 1.2), plain or
                        compressed with gzip or xz; `-` is the standard input. Default: the small capture
                        that comes with the example.

options:
    -w, --workers N     threads that track packets (default: the machine's cores). One more thread
                        parses and distributes packets, and another one evicts flows.
    -r, --repeat N      replays the capture N times (default: 1). Each round has its own addresses, so all
                        its flows are new. Each round is later than the one before by the length of the
                        capture and a second, so the flows of old rounds idle out and are evicted. The
                        report merges the rounds: a flow has the packets and bytes of all rounds, `first`
                        of the first and `last` of the last one. The capture is parsed once and then kept
                        in memory, 64 bytes per packet.
    -j, --json FILE     writes all flows and the registry's statistics to FILE as JSON
    -t, --top N         number of flows to list, those with the most bytes first (default: 10)
        --timeouts LIST seconds without a packet, by the capture's clock, after which a flow is
                        evicted, for instance tcp-established=600,udp=10. The defaults are those of
                        nf_conntrack:
{}
    -h, --help          prints this text

what counts:
    A flow is all packets with the same protocol, addresses and ports, in both directions. Flows that use
    the same ports one after another are tracked separately and reported as one. Endpoint `a` is the sender
    of the first packet. Which packets count, and how, follows tshark's conversation tables (`tshark -q -z
    conv,tcp`): bytes are lengths on the wire; a packet counts if its whole transport header was captured;
    the fragment that completes a datagram counts for it; a tunnelled packet counts for the innermost flow.
    Tunnels in UDP (VXLAN, GTP, Teredo) count for the outer flow only. (tshark counts their packets twice.)
    These layers are followed, each one inside every other one that can carry it:
        links       Ethernet, 802.2, Linux cooked, BSD loopback, PPP, Cisco HDLC, raw IP
        tags        VLAN, 802.1ah, 802.1BR E-tag, VN-tag, HSR, R-tag, MetaData, unencrypted MACsec
        tunnels     MPLS and its pseudowires, PPPoE, PPP, TRILL, FabricPath, NSH, IP in IP, GRE, WCCP,
                    ERSPAN, EtherIP, PIM register
        IP          fragments, authentication, options, routing headers, shim6; a source route's last hop
                    and a mobile node's home address are the ends of the flow
    ICMP queries and answers are one flow by addresses and identifier (`address:identifier`). All other
    ICMP messages, errors among them, are one flow by addresses. They do not count for a flow they quote.
    All other frames are counted as ignored, by reason.

what the time is:
    Flows expire by a clock that follows the timestamps, except for wrong ones, which are counted and
    reported. A fraction of a second that is out of range becomes the largest one. A timestamp far from
    those before and after it is replaced by the clock's time. When timestamps step back and stay there,
    the clock runs on.

exit status:
    0  every packet was exported exactly once
    1  the capture cannot be read or is damaged; the readable part is reported
    2  the command line is wrong, or the JSON file cannot be written
    3  the exported flows do not account for every packet and byte of the capture
",
        Timeouts::default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Option<Args> {
        match Args::parse(["conntrack"].iter().chain(args)) {
            Ok(Command::Run(args)) => Some(args),
            _ => None,
        }
    }

    #[test]
    fn options_and_defaults() {
        let args = run(&[]).expect("no arguments are fine");
        assert_eq!((args.capture, args.rounds, args.top), (None, 1, 10));
        let args = run(&["--repeat", "5", "x.pcap", "-w3", "--json=out", "--top", "0"]).expect("fine");
        assert_eq!((args.capture, args.rounds, args.top), (Some("x.pcap".into()), 5, 0));
        assert_eq!((args.workers, args.json), (3, Some("out".into())));
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for args in
            [&["--workers", "0"][..], &["--repeat", "-1"], &["--timeouts", "x=1"], &["a", "b"], &["--what"], &["--top"]]
        {
            assert!(run(args).is_none(), "{args:?}");
        }
    }
}
