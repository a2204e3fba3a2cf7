//! The report as JSON.

use std::io::{self, Write};

use serde_core::ser::{Error, Serialize, SerializeStruct, Serializer};
use serde_json::value::RawValue;

use crate::replay::Replay;
use crate::report::{self, Totals};
use crate::timeouts::SECOND;

/// Declares a struct and implements [`Serialize`] for it. (serde's derive macro would take longer to build than this example.)
macro_rules! object {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        struct $name { $($(#[$of_field])* $field: $type,)* }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut object = serializer.serialize_struct(stringify!($name), [$(stringify!($field)),*].len())?;
                $(object.serialize_field(stringify!($field), &self.$field)?;)*
                object.end()
            }
        }
    };
}

object! {
    struct Document {
        /// Packets that belong to flows. Together with `ignored`, all frames of the capture.
        packets: u64,
        bytes: u64,
        ignored: u64,
        timestamps: Timestamps,
        balanced: bool,
        /// Why the capture could not be read to its end.
        damage: Option<String>,
        flows: Vec<Flow>,
        registry: Registry,
    }
}

object! {
    /// Wrong timestamps of the capture, in one round. The module `timeline` explains how they are handled.
    struct Timestamps {
        /// Frames with a time, or a fraction of a second, that is out of range.
        out_of_range: u64,
        outliers: u64,
        steps_back: u64,
    }
}

object! {
    struct Flow {
        proto: &'static str,
        a: String,
        b: String,
        packets_ab: u64,
        packets_ba: u64,
        bytes_ab: u64,
        bytes_ba: u64,
        state: &'static str,
        first: Time,
        last: Time,
    }
}

object! {
    /// Statistics at the end of the capture; `exported` and `freed` are read after the registry was cleared.
    struct Registry {
        live: u64,
        peak_live: u64,
        inserted: u64,
        removed: u64,
        reaped: u64,
        backlog: u64,
        grace_periods: u64,
        exported: u64,
        freed: u64,
    }
}

/// Nanoseconds since 1970, written as a number of seconds with all digits. An `f64` could not hold them.
struct Time(u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = format!("{}.{:09}", self.0 / SECOND, self.0 % SECOND);
        RawValue::from_string(digits).map_err(Error::custom)?.serialize(serializer)
    }
}

pub fn write(replay: &Replay, is_balanced: bool, mut out: impl Write) -> io::Result<()> {
    let totals = Totals::of(replay);
    let flows = report::rows(replay).into_iter().map(|row| {
        let ([packets_ab, packets_ba], [bytes_ab, bytes_ba]) = (row.packets(), row.bytes());
        Flow {
            proto: row.account.tuple.proto_name(),
            a: row.a(),
            b: row.b(),
            packets_ab,
            packets_ba,
            bytes_ab,
            bytes_ba,
            state: row.export.state,
            first: Time(row.export.first),
            last: Time(row.export.last),
        }
    });
    let (end, drained) = (&replay.stats_at_end, &replay.stats_after_drain);
    let document = Document {
        packets: totals.packets,
        bytes: totals.bytes,
        ignored: report::ignored(replay),
        timestamps: Timestamps {
            out_of_range: replay.repaired,
            outliers: replay.oddities.outliers,
            steps_back: replay.oddities.steps_back,
        },
        balanced: is_balanced,
        damage: replay.damage.as_ref().map(ToString::to_string),
        flows: flows.collect(),
        registry: Registry {
            live: end.live,
            peak_live: replay.peak_live,
            inserted: end.inserted,
            removed: end.removed,
            reaped: end.reaped,
            backlog: end.backlog,
            grace_periods: end.domain.grace_periods,
            exported: totals.flows,
            freed: drained.freed,
        },
    };
    serde_json::to_writer_pretty(&mut out, &document)?;
    writeln!(out)?;
    out.flush()
}
