//! Formats numbers for charts, and defines the scales of axes.

/// Formats a number with three significant digits, and larger numbers as integers: `0.0123`, `7.07`, `65.0`,
/// `1,234,567`.
pub fn number(value: f64) -> String {
    let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let decimals = (2.0 - magnitude).clamp(0.0, 6.0) as usize;
    if decimals > 0 { format!("{value:.decimals$}") } else { grouped(value.round() as u64) }
}

/// Formats an integer with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Formats a value for a label. The axis shows the unit, so the label has none. Only a time in `ns` has a unit, which
/// suits its size.
pub fn label(value: f64, unit: &str) -> String {
    if unit != "ns" {
        return number(value);
    }
    let (name, size) = match value {
        1e9.. => ("s", 1e9),
        1e6.. => ("ms", 1e6),
        1e3.. => ("µs", 1e3),
        _ => ("ns", 1.0),
    };
    format!("{} {name}", number(value / size))
}

/// Formats a value for a tick of the axis, without trailing zeros.
pub fn tick(value: f64, unit: &str) -> String {
    let label = label(value, unit);
    let (number, unit) = label.split_once(' ').unwrap_or((&label, ""));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    if unit.is_empty() { number.to_owned() } else { format!("{number} {unit}") }
}

/// A mapping of values to places on an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scale {
    /// A linear scale from zero to this value.
    Linear(f64),
    /// A logarithmic scale from the first value to the second.
    Logarithmic(f64, f64),
}

impl Scale {
    /// Returns a linear scale for these quartiles. It covers all medians, but cuts off quartiles that would make the
    /// medians illegible.
    pub fn linear(quartiles: &[[f64; 3]]) -> Scale {
        let highest = |of: usize| quartiles.iter().map(|quartiles| quartiles[of]).fold(0.0, f64::max);
        let end = highest(2).min(1.3 * highest(1));
        Scale::Linear(if end > 0.0 { end } else { 1.0 })
    }

    /// Returns a logarithmic scale for these quartiles, with room for the bar of the smallest.
    pub fn logarithmic(quartiles: &[[f64; 3]]) -> Scale {
        let positive = || quartiles.iter().flatten().copied().filter(|&value| value > 0.0);
        let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
        if high == 0.0 {
            return Scale::Logarithmic(1.0, 10.0);
        }
        Scale::Logarithmic(round_below(low / 1.5), high.max(low * 2.0))
    }

    /// Returns the place of a value on the axis, from 0 to 1. Values outside the axis have places outside this range.
    pub fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear(end) => value / end,
            Scale::Logarithmic(start, end) => (value.max(start) / start).log10() / (end / start).log10(),
        }
    }

    /// Returns the ticks of the axis: at most seven round numbers.
    pub fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear(end) => {
                let mut step = round_below(end / 5.0);
                while end / step >= 6.0 {
                    step = round_below(step * 2.6);
                }
                (0..=(end / step) as u32).map(|number| f64::from(number) * step).collect()
            }
            Scale::Logarithmic(start, end) => {
                let decades = (end / start).log10();
                let digits: &[f64] = match decades {
                    ..1.5 => &[1.0, 2.0, 5.0],
                    ..2.5 => &[1.0, 3.0],
                    _ => &[1.0],
                };
                let every = (decades / 6.0).ceil() as usize;
                let exponents = (start.log10().floor() as i32..=end.log10().floor() as i32).step_by(every);
                let ticks =
                    exponents.flat_map(|exponent| digits.iter().map(move |digit| digit * 10_f64.powi(exponent)));
                // Values computed by logarithms have small rounding errors.
                ticks.filter(|&tick| start < tick * 1.000_001 && tick <= end).collect()
            }
        }
    }
}

/// Returns the largest of 1, 2, 5, 10, 20, ... that is not above `value`, up to rounding errors.
fn round_below(value: f64) -> f64 {
    let ten = 10_f64.powf((value * 1.000_001).log10().floor());
    let digit = value / ten * 1.000_001;
    ten * if digit >= 5.0 {
        5.0
    } else if digit >= 2.0 {
        2.0
    } else {
        1.0
    }
}

/// Returns whether the largest median is so much larger than the smallest that a linear scale would hide the smallest.
pub fn spread(quartiles: &[[f64; 3]]) -> bool {
    let medians = || quartiles.iter().map(|quartiles| quartiles[1]).filter(|&median| median > 0.0);
    medians().fold(0.0, f64::max) > 30.0 * medians().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_commas() {
        let shown = [0.0, 0.01234, 7.074, 64.86, 346.6, 1234.5, 10_907_572.8].map(number);
        assert_eq!(shown, ["0.00", "0.0123", "7.07", "64.9", "347", "1,235", "10,907,573"]);
        assert_eq!([0, 999, 1_000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
    }

    #[test]
    fn times_are_shown_in_a_suitable_unit() {
        let shown = [72.0, 6_527.5, 1_179_652.6, 2e9].map(|time| label(time, "ns"));
        assert_eq!(shown, ["72.0 ns", "6.53 µs", "1.18 ms", "2.00 s"]);
        assert_eq!(label(6_527.5, "ns/read"), "6,528");
        let shown = [0.0, 0.5, 20.0, 1_000.0].map(|time| tick(time, "ns/read"));
        assert_eq!(shown, ["0", "0.5", "20", "1,000"]);
        assert_eq!([100.0, 1e3, 1.5e6].map(|time| tick(time, "ns")), ["100 ns", "1 µs", "1.5 ms"]);
    }

    #[test]
    fn ticks_are_few_and_round_and_on_the_axis() {
        assert_eq!(Scale::Linear(28.9).ticks(), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]);
        assert_eq!(Scale::Linear(0.65).ticks().len(), 4);
        assert_eq!(Scale::Logarithmic(2.0, 50.0).ticks(), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(Scale::Logarithmic(50.0, 3000.0).ticks(), [100.0, 300.0, 1000.0, 3000.0]);
        assert_eq!(Scale::Logarithmic(50.0, 2e6).ticks(), [1e2, 1e3, 1e4, 1e5, 1e6]);
        for exponent in -30..60 {
            let end = 1.37_f64.powi(exponent);
            for scale in [Scale::Linear(end), Scale::Logarithmic(round_below(end / 3e3), end)] {
                let ticks = scale.ticks();
                assert!((3..=7).contains(&ticks.len()), "{scale:?}: {ticks:?}");
                assert!(
                    ticks.iter().all(|&tick| (-0.001..=1.001).contains(&scale.place(tick))),
                    "{scale:?}: {ticks:?}"
                );
            }
        }
    }

    #[test]
    fn a_scale_holds_all_medians() {
        let quartiles = [[1.0, 2.0, 3.0], [10.0, 21.0, 900.0]];
        for scale in [Scale::linear(&quartiles), Scale::logarithmic(&quartiles)] {
            assert!(quartiles.iter().all(|quartiles| (0.05..=1.0).contains(&scale.place(quartiles[1]))), "{scale:?}");
        }
        assert!(Scale::linear(&quartiles).place(900.0) > 1.0, "a far quartile does not fit into the scale");
        assert!(!spread(&quartiles));
        assert!(spread(&[[1.0; 3], [31.0; 3]]));
    }

    #[test]
    fn no_figures_or_zeros_have_a_scale_too() {
        for quartiles in [&[][..], &[[0.0; 3]]] {
            for scale in [Scale::linear(quartiles), Scale::logarithmic(quartiles)] {
                assert!(scale.place(0.0) == 0.0 && !scale.ticks().is_empty(), "{scale:?}");
            }
            assert!(!spread(quartiles));
        }
    }
}
