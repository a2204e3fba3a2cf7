//! Random sequences of operations, compared with std's `HashMap`.

#[path = "oracle/case.rs"]
mod case;
mod common;
#[path = "oracle/decode.rs"]
mod decode;

use case::{Case, MASKS, Op, SLABS};
use common::times;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..300u16;
    prop_oneof![
        12 => key().prop_map(Op::Insert),
        6 => key().prop_map(Op::Replace),
        4 => key().prop_map(Op::Update),
        4 => key().prop_map(Op::GetOrInsert),
        10 => key().prop_map(Op::Remove),
        3 => (key(), any::<bool>()).prop_map(|(key, yes)| Op::RemoveIf(key, yes)),
        3 => any::<usize>().prop_map(Op::RemoveHandle),
        1 => (2..6u64).prop_map(Op::Retain),
        1 => Just(Op::Clear),
        1 => (0..100usize).prop_map(Op::Drain),
        6 => key().prop_map(Op::Get),
        4 => key().prop_map(Op::Hold),
        3 => any::<usize>().prop_map(Op::LetGo),
        1 => Just(Op::Iter),
        6 => (1..40usize).prop_map(Op::ScanOn),
        2 => vec(key(), 0..40).prop_map(Op::GetMany),
        2 => (0..60usize, 1..5u64).prop_map(|(budget, modulus)| Op::ReapIf(budget, modulus)),
        2 => (0..200u64).prop_map(Op::ReapOlder),
        2 => (0..100u64).prop_map(Op::Advance),
        3 => (any::<bool>(), 0..50usize).prop_map(|(all, budget)| Op::Reap((!all).then_some(budget))),
        1 => of(1..500u64).prop_map(Op::MaxAge),
        3 => (key(), 0..200u64).prop_map(|(key, millis)| Op::ReplaceWithTtl(key, millis)),
        3 => (any::<usize>(), of(0..200u64)).prop_map(|(index, millis)| Op::SetTtl(index, millis)),
        1 => any::<usize>().prop_map(Op::Renew),
        1 => of(1..300usize).prop_map(Op::MaxEntries),
        1 => (0..30usize).prop_map(Op::Evict),
        1 => (0..300usize).prop_map(Op::ShrinkTo),
        1 => Just(Op::ShrinkToFit),
        1 => (0..500usize).prop_map(Op::Reserve),
        1 => Just(Op::Barrier),
        2 => (0..50usize).prop_map(Op::Reclaim),
    ]
}

/// Bursts of inserts and of removals among single operations, so that tables grow and shrink.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let burst = (0..300u16, 0..150u16);
    let some = prop_oneof![
        8 => op().prop_map(|op| vec![op]),
        1 => burst.clone().prop_map(|(from, len)| (from..from + len).map(Op::Insert).collect()),
        1 => burst.prop_map(|(from, len)| (from..from + len).map(Op::Remove).collect()),
    ];
    vec(some, 1..60).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: times(2000) as u32, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_agrees_with_a_hash_map(
        shards in select(&[1usize, 2, 8][..]),
        capacity in select(&[0usize, 100][..]),
        mask in select(&MASKS[..]),
        slab in select(&SLABS[..]),
        ops in ops(),
    ) {
        let mut case = Case::new(shards, capacity, mask, slab);
        for op in ops {
            case.run(op);
        }
        case.end();
    }
}

/// The fuzzer found these sequences because they take different paths through the crate. `.ci/fuzz` adds to them.
#[test]
fn the_sequences_of_the_fuzzers_corpus_agree_with_a_hash_map() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus");
    let mut files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut operations = 0;
    for file in &files {
        println!("{}", file.display());
        operations += decode::run(&std::fs::read(file).unwrap());
    }
    println!("{} files, {operations} operations", files.len());
    assert!(files.len() >= 20 && operations >= 1000);
}

/// The same as the fuzzer, but without feedback.
#[test]
fn sequences_from_random_bytes_agree_with_a_hash_map() {
    let mut rng = common::Rng::new(1);
    let operations: u64 = (0..times(1000))
        .map(|_| {
            let bytes: Vec<u8> = (0..rng.below(400)).map(|_| rng.below(256) as u8).collect();
            decode::run(&bytes)
        })
        .sum();
    println!("{operations} operations");
}
