//! The records that threads make of their calls, and a picture of them.

use super::checker::{Call, THREADS, order};
use std::fmt::Write;
use std::time::Instant;

/// Measures the times of calls, in nanoseconds since the watch was made.
///
/// The times come from the clock, and not from a shared counter. The read-modify-writes of a counter would be fences.
/// They would hide errors in the ordering of the calls. They would also make threads wait for each other at every call,
/// so that hardly any calls overlap.
///
/// The recorded interval must begin before the effect of the call and end after it. A wider interval may hide an error.
/// A narrower one may show an error that does not exist. Three facts ensure this:
///
/// - No access of the call happens before the clock is read at its beginning, or after it is read at its end. The
///   processor may read its time stamp earlier or later than in program order. An `lfence` on either side prevents
///   this. It is cheap: it waits for loads that are under way, but not for stores, so it does not hide delays of
///   stores. On other architectures the tests rely on the clock to be read in program order, as Linux does it there. A
///   write is visible to all threads when its call has returned: it unlocks the shard by a read-modify-write. On all
///   machines that Rust's atomics run on, this reaches the cache after the stores before it.
/// - The clocks of all cores agree, as `CLOCK_MONOTONIC` promises. If the time stamps of processors disagree, Linux
///   does not use them, and reads another clock. If they still disagreed by some nanoseconds, a call might seem to end
///   that much too early, and a correct history might be refuted. `the_clocks_of_all_cores_agree` checks for this.
/// - A coarse clock rounds all times in the same way. It makes calls overlap that did not. It never reverses an order,
///   because the checker considers calls as ordered only if their times differ.
#[derive(Clone, Copy)]
pub struct Watch(Instant);

impl Watch {
    pub fn new() -> Self {
        Watch(Instant::now())
    }

    pub fn now(&self) -> u64 {
        keep_order();
        let time = self.0.elapsed().as_nanos() as u64;
        keep_order();
        time
    }
}

/// Instructions after this begin only when all instructions before it have completed.
fn keep_order() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
}

/// A call on one key, as its thread recorded it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub thread: usize,
    pub key: usize,
    pub name: &'static str,
    pub call: Call,
}

/// Returns the calls on `key`, in the order of their beginnings.
pub fn of_key(history: &[Record], key: usize) -> Vec<Record> {
    let mut records: Vec<Record> = history.iter().filter(|record| record.key == key).copied().collect();
    records.sort_by_key(|record| record.call.begun);
    records
}

/// Counts the calls on a key that begin while an earlier call is under way.
pub fn overlaps(records: &[Record]) -> usize {
    let mut latest = 0;
    let overlaps = |record: &&Record| {
        let overlaps = record.call.begun < latest;
        latest = latest.max(record.call.ended);
        overlaps
    };
    records.iter().filter(overlaps).count()
}

/// Returns a picture of the calls on a key if they have no order.
pub fn refute(records: &[Record]) -> Option<String> {
    let mut threads: [Vec<Call>; THREADS] = Default::default();
    for record in records {
        threads[record.thread].push(record.call);
    }
    order(&threads).err().map(|longest| picture(records, &longest))
}

/// The width of the axis. If there are many calls, the picture shows so many before and after the first that is in no
/// order.
const WIDTH: usize = 60;
const MARGIN: usize = 20;

/// Draws calls along a time axis. Their numbers are their places in the longest order that was found.
fn picture(records: &[Record], longest: &[usize]) -> String {
    // The places of each thread's calls. The calls without a place come last.
    let mut places: [Vec<usize>; THREADS] = Default::default();
    longest.iter().enumerate().for_each(|(place, &thread)| places[thread].push(place));
    let mut placed = places.map(Vec::into_iter);
    let places: Vec<Option<usize>> = records.iter().map(|record| placed[record.thread].next()).collect();
    let first = places.iter().position(Option::is_none).expect("every call is in the order");
    let shown = first.saturating_sub(MARGIN)..records.len().min(first + MARGIN);
    let begin = records[shown.clone()].iter().map(|record| record.call.begun).min().unwrap();
    let end = records[shown.clone()].iter().map(|record| record.call.ended).max().unwrap();
    let column = |time: u64| ((time - begin) * (WIDTH as u64 - 1) / (end - begin).max(1)) as usize;
    let mut text = format!(
        "{} of {} calls, in {} ns. #: the place in the longest order that was found\n",
        shown.len(),
        records.len(),
        end - begin,
    );
    for (record, place) in records.iter().zip(places).take(shown.end).skip(shown.start) {
        let Record { thread, name, call, .. } = record;
        let place = place.map_or("-".to_string(), |place| (place + 1).to_string());
        let bar = "=".repeat(column(call.ended) - column(call.begun) + 1);
        let bar = format!("{}{bar}", " ".repeat(column(call.begun)));
        let (begun, ended, effect) = (call.begun - begin, call.ended - begin, call.effect);
        writeln!(text, "#{place:<4}|{bar:<WIDTH$}| {begun:>7} {ended:>7}  thread {thread}  {name}: {effect:?}")
            .unwrap();
    }
    text
}
