//! Histories of a cell that may be empty: each has an order in which a variable of one thread would give the same results.

use super::checker::{Call, Effect};
use super::history::{Record, Watch, overlaps, refute};
use super::worker::Meeting;
use crate::common::{Rng, in_time, times};
use epoch_registry::{Domain, RcuOptionCell, Session, Version};
use std::thread;

const THREADS: usize = 3;

/// Makes `calls` random calls. No value is written twice.
fn work(
    cell: &RcuOptionCell<u64>,
    session: &mut Session,
    thread: usize,
    calls: u64,
    rng: &mut Rng,
    watch: Watch,
    value: &mut u64,
) -> Vec<Record> {
    let mut records = Vec::new();
    let owned = |version: Option<Version<u64>>| version.map(|version| *version);
    for _ in 0..calls {
        *value += THREADS as u64;
        let new = *value;
        // Taken before the call, so that it may be superseded when the call comes.
        let expected = cell.load();
        let begun = watch.now();
        let (name, effect) = match rng.below(8) {
            0 => ("load", Effect::Saw(owned(cell.load()))),
            1 => ("read", Effect::Saw(cell.read(&session.section()).copied())),
            2 => ("replace", Effect::Changed(owned(cell.replace(Some(new))), Some(new))),
            3 => ("take", Effect::Changed(owned(cell.take()), None)),
            4 => {
                let mut old = None;
                cell.update(|current| {
                    old = current.copied();
                    Some(new)
                });
                ("update", Effect::Changed(old, Some(new)))
            }
            5 => {
                let failed = cell.try_update(|current| Err::<Option<u64>, _>(current.copied()));
                ("try_update", Effect::Saw(failed.expect_err("the closure fails")))
            }
            _ => {
                let before = expected.as_deref().copied();
                match cell.compare_exchange(expected.as_ref(), Some(new)) {
                    Ok(_) => ("compare_exchange", Effect::Changed(before, Some(new))),
                    Err(superseded) => ("compare_exchange", Effect::Saw(owned(superseded.current))),
                }
            }
        };
        let call = Call { begun, ended: watch.now(), effect };
        records.push(Record { thread, key: 0, name, call });
    }
    records
}

#[test]
fn every_history_of_a_cell_has_an_order() {
    let _turn = super::TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let histories = times(1000);
    in_time(move || {
        let watch = Watch::new();
        let mut overlapping = 0;
        // A machine that does other work gives the threads a core in turn, and they overlap less: then once more.
        for round in 0..8 {
            overlapping += histories_of_cells(histories, round * 10, watch);
            if overlapping > histories / 10 {
                return;
            }
        }
        panic!("only {overlapping} calls overlap: the run proves nothing");
    });
}

/// Checks some histories of cells. Returns how many calls overlap with an earlier one.
fn histories_of_cells(histories: usize, seeds: u64, watch: Watch) -> usize {
    let mut overlapping = 0;
    // (Two threads overlap more often than three where there are two cores.)
    for (seed, threads, calls) in [(1, 2, 5), (2, 3, 5), (3, 2, 40), (4, 3, 40)] {
        let seed = seeds + seed;
        let meeting = Meeting::new(threads);
        let histories = if calls > 5 { histories / 10 + 1 } else { histories };
        let domain = Domain::new();
        let cells: Vec<_> = (0..histories).map(|_| RcuOptionCell::empty_in(&domain)).collect();
        let parts: Vec<Vec<Vec<Record>>> = thread::scope(|scope| {
            let (cells, meeting) = (&cells, &meeting);
            let work = move |id: usize| {
                let (mut rng, mut value) = (Rng::new(seed * 100 + id as u64), id as u64);
                let mut session = cells[0].domain().session();
                let history = |cell| {
                    meeting.wait();
                    work(cell, &mut session, id, calls, &mut rng, watch, &mut value)
                };
                cells.iter().map(history).collect()
            };
            let workers: Vec<_> = (0..threads).map(|id| scope.spawn(move || work(id))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for number in 0..histories {
            let mut history: Vec<_> = parts.iter().flat_map(|part| part[number].iter().copied()).collect();
            history.sort_by_key(|record| record.call.begun);
            if let Some(picture) = refute(&history) {
                panic!("seed {seed}, history {number} has no order\n{picture}");
            }
            overlapping += overlaps(&history);
        }
    }
    overlapping
}
