//! Slabs, which are read by an id that they assign themselves, and so need no hash: idr-ebr and sharded-slab.

use crate::cases::{Idiom, Kind};
use crate::harness::{Lane, reads};
use crate::keys::{Sets, Value};
use idr_ebr::{EbrGuard, Idr};
use sharded_slab::Slab;

pub struct Ids<V: Value> {
    idr: Idr<V>,
    idr_ids: Vec<idr_ebr::Key>,
    slab: Slab<V>,
    slab_ids: Vec<usize>,
}

impl<V: Value> Ids<V> {
    pub fn filled(size: usize) -> Self {
        let (idr, slab) = (Idr::default(), Slab::new());
        let idr_ids = (0..size as u64).map(|number| idr.insert(V::of(number)).expect("there is room")).collect();
        let slab_ids = (0..size as u64).map(|number| slab.insert(V::of(number)).expect("there is room")).collect();
        Ids { idr, idr_ids, slab, slab_ids }
    }

    /// Returns a contender for each way to read the slabs. The ids are looked up before the measured time.
    pub fn lanes(&self, owned: bool) -> Vec<Lane<'_, Sets<u64>>> {
        let ids = |keys: &[u64]| keys.iter().map(|&key| self.idr_ids[key as usize]).collect::<Vec<_>>();
        let each = move |sets: &Sets<u64>| {
            let keys = &sets[Idiom::Each as usize];
            if owned {
                reads(&ids(keys), |&id| {
                    let value = self.idr.get(id, &EbrGuard::new()).map(|value| V::clone(&value));
                    value.map(|value| value.number())
                })
            } else {
                reads(&ids(keys), |&id| self.idr.get(id, &EbrGuard::new()).map(|value| value.number()))
            }
        };
        let held = move |sets: &Sets<u64>| {
            let keys = &sets[Idiom::Held as usize];
            let guard = EbrGuard::new();
            if owned {
                reads(&ids(keys), |&id| {
                    self.idr.get(id, &guard).map(|value| V::clone(&value)).map(|value| value.number())
                })
            } else {
                reads(&ids(keys), |&id| self.idr.get(id, &guard).map(|value| value.number()))
            }
        };
        let slab = move |sets: &Sets<u64>| {
            let keys = &sets[Idiom::Each as usize];
            let ids: Vec<_> = keys.iter().map(|&key| self.slab_ids[key as usize]).collect();
            if owned {
                reads(&ids, |&id| self.slab.get(id).map(|value| V::clone(&value)).map(|value| value.number()))
            } else {
                reads(&ids, |&id| self.slab.get(id).map(|value| value.number()))
            }
        };
        vec![
            Lane::new("idr-ebr, by id", Idiom::Each, Kind::Limit, each),
            Lane::new("idr-ebr, by id", Idiom::Held, Kind::Limit, held),
            Lane::new("sharded-slab, by id", Idiom::Each, Kind::Limit, slab),
        ]
    }
}
