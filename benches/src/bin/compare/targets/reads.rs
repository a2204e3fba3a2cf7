//! Targets of reads.

use super::Rows;
use super::Target::{AtLeast, AtMost, Shown};
use super::choices::*;
use crate::keys::Pattern;
use crate::work::{reads, seed};

pub fn add(rows: &mut Rows<'_>, cores: usize) {
    let case = |owned, pattern, size, threads| reads::case::<u64>("reads", owned, pattern, size, threads);
    let small = |owned| case(owned, Pattern::Uniform, 1_000, 1);
    rows.add("borrowed, session, 1,000 keys", small(false), peer_each, "best peer, pin each", session, AtLeast(1.7));
    rows.add("borrowed, guard held, 1,000", small(false), peer_held, "best peer, guard held", held, AtLeast(1.3));
    {
        let work = "borrowed, guard held, 1,000: ours over theirs";
        let plain: Choice = |series| series.name.starts_with("hashbrown");
        // This ratio is inverted: ours over theirs.
        rows.add(work, small(false), held, "hashbrown, unsynchronised", plain, AtMost(1.5));
    }
    rows.add("borrowed, pin per read, 1,000", small(false), peer_each, "best peer, pin each", each, AtLeast(1.0));
    rows.add("owned, session, 1,000", small(true), peer_each, "best Arc clone, pin each", session, AtLeast(1.5));
    rows.add("owned, session, 1,000", small(true), peer_held, "best Arc clone, guard held", session, Shown);
    rows.add("owned, pin per read, 1,000", small(true), peer_each, "best Arc clone, pin each", each, AtLeast(1.0));
    let large = |owned, size| case(owned, Pattern::Uniform, size, 1);
    rows.add("borrowed, batch, 1,000,000", large(false, 1_000_000), peer, "best peer, any idiom", batch, AtLeast(1.5));
    for (size, name) in [(1_000_000, "1,000,000"), (10_000_000, "10,000,000")] {
        let work = format!("borrowed, session, {name}");
        rows.add(&work, large(false, size), peer_each, "best peer, pin each", session, AtLeast(1.0));
        let work = format!("borrowed, guard held, {name}");
        rows.add(&work, large(false, size), peer_held, "best peer, guard held", held, AtLeast(1.0));
        let work = format!("owned, session, {name}");
        rows.add(&work, large(true, size), peer_each, "best Arc clone, pin each", session, AtLeast(1.3));
        let work = format!("owned, guard held, {name}");
        rows.add(&work, large(true, size), peer_held, "best Arc clone, guard held", held, Shown);
    }
    for owned in [false, true] {
        for pattern in [Pattern::Uniform, Pattern::Zipf] {
            let way = if owned { "owned" } else { "borrowed" };
            let work = format!("{way}, session, 1,000, {}, all cores", pattern.name());
            let case = case(owned, pattern, 1_000, cores);
            rows.add(&work, case, peer_each, "best peer, pin each", session, AtLeast(1.5));
        }
    }
    for (case, what) in [
        (case(true, Pattern::Uniform, 1_000, cores), "owned, local handles, 1,000, uniform, all cores"),
        (reads::case::<u64>("hot", true, Pattern::Hot, 1_000, cores), "owned, local handles, one hot key, all cores"),
    ] {
        rows.add(what, case, peer_each, "best peer, pin each", local, Shown);
    }
    rows.add("borrowed, session, 1,000", small(false), liburcu, "liburcu cds_lfht", session, AtLeast(3.0));
    rows.add("borrowed, session, 1,000", small(false), dpdk, "DPDK rte_hash", session, AtLeast(3.0));
    let million = large(false, 1_000_000);
    rows.add("borrowed, batch, 1,000,000", million, dpdk_bulk, "DPDK rte_hash, bulk of 32", batch, AtLeast(1.4));
    // Against peers with one pin or one lock per read. The mutex's map has its `u64` values in its buckets, without
    // nodes.
    let million = || large(false, 1_000_000);
    rows.add("borrowed, session, 1,000,000", million(), papaya_each, "papaya, pin each", session, AtLeast(1.1));
    rows.add("borrowed, session, 1,000,000", million(), mutex, "Mutex<HashMap<u64, u64>>", session, AtLeast(0.85));
    let owned = large(true, 1_000_000);
    rows.add("owned, session, 1,000,000", owned, peer_each, "best Arc clone, pin each", session, AtLeast(1.2));
    rows.add("seed workload, session", seed::case(), peer, "spinlock, mutex, rwlock", session, Shown);
}
