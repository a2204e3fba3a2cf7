//! What threads record of their calls, and how it is shown.

use super::checker::{Call, THREADS, order};
use std::fmt::Write;
use std::time::Instant;

/// Times of calls, in nanoseconds since the watch was made.
///
/// They are read from the clock, and not from a shared counter. The read-modify-writes of a counter would be fences, and
/// hide what the calls themselves fail to order; and they would make threads wait for each other at every call, so that
/// hardly two overlap.
///
/// What is recorded of a call must reach at least from before its effect to after it: a wider interval may hide an error,
/// a narrower one may show one that is none. So
///
/// - no access of the call is made before the clock is read at its beginning, nor after it is read at its end. The processor
///   reads its time stamp like any register, as early or late as it likes; an `lfence` on either side keeps it in its place,
///   and costs little: it waits for loads that are under way, but not for stores, and so does not hide how those are
///   delayed. (Elsewhere than on x86-64 the clock's own reading is trusted to be in its place, as it is on Linux's
///   other architectures.) A write is visible to all when its call has returned: it unlocks the shard by a
///   read-modify-write, which on all machines that Rust's atomics run on reaches the cache after the stores before it;
/// - the clocks of all cores agree, as `CLOCK_MONOTONIC` promises: Linux takes time stamps of processors that disagree for
///   unusable, and asks another clock. If they disagreed by some nanoseconds after all, a call might seem to have ended
///   that much too early, and a sound history be refused: `the_clocks_of_all_cores_agree` looks for that;
/// - a coarse clock rounds all times alike: it makes calls overlap which did not, and orders none the wrong way round, as the
///   checker takes calls for ordered only if the times differ.
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

/// No instruction after this begins before all before it have been done.
fn keep_order() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
}

/// A call on one key, as a thread has recorded it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub thread: usize,
    pub key: usize,
    pub name: &'static str,
    pub call: Call,
}

/// The calls on `key`, in the order of their beginnings.
pub fn of_key(history: &[Record], key: usize) -> Vec<Record> {
    let mut records: Vec<Record> = history.iter().filter(|record| record.key == key).copied().collect();
    records.sort_by_key(|record| record.call.begun);
    records
}

/// How many of the calls on a key begin before one that began before them has ended.
pub fn overlaps(records: &[Record]) -> usize {
    let mut latest = 0;
    let overlaps = |record: &&Record| {
        let overlaps = record.call.begun < latest;
        latest = latest.max(record.call.ended);
        overlaps
    };
    records.iter().filter(overlaps).count()
}

/// The calls on a key as a picture, if they have no order.
pub fn refute(records: &[Record]) -> Option<String> {
    let mut threads: [Vec<Call>; THREADS] = Default::default();
    for record in records {
        threads[record.thread].push(record.call);
    }
    order(&threads).err().map(|longest| picture(records, &longest))
}

/// The width of a picture's axis, and the calls before and after the one that is in no order, if there are many.
const WIDTH: usize = 60;
const MARGIN: usize = 20;

/// Calls along an axis of time, numbered by their place in the longest order that some of them have.
fn picture(records: &[Record], longest: &[usize]) -> String {
    // The places of each thread's calls. What has none comes last.
    let mut places: [Vec<usize>; THREADS] = Default::default();
    longest.iter().enumerate().for_each(|(place, &thread)| places[thread].push(place));
    let mut placed = places.map(Vec::into_iter);
    let places: Vec<Option<usize>> = records.iter().map(|record| placed[record.thread].next()).collect();
    let first = places.iter().position(Option::is_none).expect("a call that is in no order");
    let shown = first.saturating_sub(MARGIN)..records.len().min(first + MARGIN);
    let begin = records[shown.clone()].iter().map(|record| record.call.begun).min().unwrap();
    let end = records[shown.clone()].iter().map(|record| record.call.ended).max().unwrap();
    let column = |time: u64| ((time - begin) * (WIDTH as u64 - 1) / (end - begin).max(1)) as usize;
    let mut text = format!(
        "{} of {} calls, in {} ns. #: the place in the longest order of some that none of the others can follow\n",
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
