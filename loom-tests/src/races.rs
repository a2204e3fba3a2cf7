//! The models: their claims, bounds and expected executions.

mod expiry;
mod limits;
mod pairs;
mod reads;
mod resizes;
mod waits;
mod writes;

use crate::harness::Model;
use expiry::*;
use limits::*;
use pairs::*;
use reads::*;
use resizes::*;
use waits::*;
use writes::*;

pub fn models() -> Vec<Model> {
    let model = |name, claim, bound, expected, run| Model { name, claim, bound, expected, run };
    // Expected: what it took when it was recorded, give or take a half.
    vec![
        model(
            "get_remove",
            "a borrow is valid until its guard is dropped, whoever removes the entry",
            None,
            8093..=24_280,
            get_remove,
        ),
        model("get_insert", "an entry that is found is complete", None, 18..=55, get_insert),
        model(
            "get_update",
            "a reader sees the value before or after an update, and either is whole",
            None,
            14_097..=42_292,
            get_update,
        ),
        model("get_reap", "a borrow is valid though a reaper takes the entry", None, 93..=280, get_reap),
        model("get_evict", "a borrow is valid though the entry is evicted", None, 5030..=15_092, get_evict),
        model(
            "lookup_insert_that_evicts",
            "an insertion that evicts leaves the bound intact, and what a handle keeps",
            None,
            4098..=12_294,
            lookup_insert_that_evicts,
        ),
        model(
            "lookup_remove",
            "a handle taken while the entry is removed keeps it",
            None,
            103_759..=311_277,
            lookup_remove,
        ),
        model(
            "lookup_replace",
            "a replaced key is never absent, and both values are whole",
            None,
            366..=1098,
            lookup_replace,
        ),
        model("lookup_reap", "a handle taken while a reaper takes the entry keeps it", None, 1554..=4663, lookup_reap),
        model(
            "iterate_remove",
            "iteration meets the entry that stays, once, and whole",
            None,
            9704..=29_113,
            iterate_remove,
        ),
        model("batch_remove", "a batch finds the key that stays", None, 30_876..=92_630, batch_remove),
        model(
            "borrow_to_handle_remove",
            "a borrow turns into a handle, or the entry has left the registry",
            None,
            609..=1828,
            borrow_to_handle_remove,
        ),
        model("lookup_expire", "a handle taken while the entry expires keeps it", None, 9540..=28_618, lookup_expire),
        model(
            "lookup_expired_insert",
            "what has expired is absent to a reader and to an insertion, and does not come back",
            None,
            155..=465,
            lookup_expired_insert,
        ),
        model(
            "lookup_prolong",
            "an entry that a read found to have expired stays absent when its life is prolonged",
            None,
            160..=480,
            lookup_prolong,
        ),
        model(
            "lookup_replace_in_time",
            "a key that is replaced in time is never absent, though the time of the old entry comes meanwhile",
            None,
            53..=157,
            lookup_replace_in_time,
        ),
        model("put_expire", "a handle dropped while its entry expires is not missed", None, 46..=136, put_expire),
        model(
            "replace_expire",
            "what replaces an entry that expires is young, and stays",
            None,
            346..=1036,
            replace_expire,
        ),
        model("expire_expire", "two reapers remove what has expired once", None, 11..=33, expire_expire),
        model(
            "rearm_expire",
            "an entry that is removed while it is judged gets no timer",
            None,
            51..=153,
            rearm_expire,
        ),
        model(
            "get_replace",
            "a replaced key is never absent to a borrow, and both values are whole",
            None,
            5030..=15091,
            get_replace,
        ),
        model(
            "lookup_insert",
            "a handle taken while the entry is inserted is of a whole one",
            None,
            45..=135,
            lookup_insert,
        ),
        model(
            "lookup_update",
            "an updated key is never absent to a lookup, and both values are whole",
            None,
            1551..=4653,
            lookup_update,
        ),
        model(
            "iterate_insert",
            "iteration meets the entry that stays, and a new one whole or not at all",
            None,
            15..=45,
            iterate_insert,
        ),
        model(
            "iterate_replace",
            "iteration meets a key that is replaced, with one value or both",
            None,
            5030..=15091,
            iterate_replace,
        ),
        model(
            "iterate_update",
            "iteration meets a key that is updated, with one value or both",
            None,
            7294..=21882,
            iterate_update,
        ),
        model(
            "iterate_reap",
            "iteration meets the entry that stays while a reaper takes another",
            None,
            7294..=21882,
            iterate_reap,
        ),
        model(
            "batch_insert",
            "a batch finds the key that stays, and a new one whole or not at all",
            None,
            52..=157,
            batch_insert,
        ),
        model("batch_replace", "a batch finds both keys while one is replaced", None, 15860..=47581, batch_replace),
        model("batch_update", "a batch finds both keys while one is updated", None, 24652..=73956, batch_update),
        model(
            "batch_reap",
            "a batch finds the key that stays while a reaper takes another",
            None,
            24652..=73956,
            batch_reap,
        ),
        model(
            "remove_own_borrow",
            "a reader that removes what it borrows may read on, whoever collects meanwhile",
            None,
            5481..=16_444,
            remove_own_borrow,
        ),
        model("remove_remove", "of two removals of one key one succeeds", None, 7..=23, remove_remove),
        model(
            "insert_insert",
            "of two insertions of one key one succeeds; the other gets its value back",
            None,
            11..=34,
            insert_insert,
        ),
        model(
            "clone_last_put",
            "an unlinked entry is destroyed once, after its last handle",
            None,
            11..=34,
            clone_last_put,
        ),
        model(
            "put_collect",
            "a last handle dropped while others collect leaves nothing behind",
            None,
            30..=91,
            put_collect,
        ),
        model("grow_get", "a key is found all through a resize", None, 199..=599, grow_get),
        model(
            "grow_get_beyond",
            "a key that lives beyond its home is found all through a resize",
            None,
            27_409..=82_229,
            grow_get_beyond,
        ),
        model(
            "grow_iterate_beyond",
            "an iteration during a resize meets each entry that stays once",
            None,
            80_920..=242_761,
            grow_iterate_beyond,
        ),
        model(
            "grow_remove",
            "a key removed during a resize is gone when the removal returns",
            None,
            633..=1899,
            grow_remove,
        ),
        model(
            "handle_outlives_registry",
            "registry and last handle go at the same time: the value is dropped, once, by then",
            None,
            4137..=12_412,
            handle_outlives_registry,
        ),
        model(
            "session_remove",
            "what a session borrows is valid until its next read",
            None,
            175_894..=527_683,
            session_remove,
        ),
        model(
            "offline_synchronize",
            "an offline session holds nothing up, and reads safely when it is back",
            Some(3),
            785..=2357,
            offline_synchronize,
        ),
        model(
            "synchronize_reader",
            "synchronize returns after the section that was open has closed",
            None,
            4105..=12_316,
            synchronize_reader,
        ),
        model(
            "barrier_call",
            "a barrier returns after every callback given before it, on any thread",
            None,
            29..=89,
            barrier_call,
        ),
        model(
            "clear_get",
            "what a reader finds while the registry is cleared is whole",
            None,
            13_316..=39_950,
            clear_get,
        ),
        model(
            "beyond_removed_get",
            "a key beyond its home may be moved and removed under a reader's eyes",
            Some(3),
            10_370..=31_112,
            beyond_removed_get,
        ),
        model(
            "push_push_barrier",
            "a barrier covers its caller's own removal, though another is about to enqueue it",
            Some(2),
            11_409..=34_229,
            push_push_barrier,
        ),
        model(
            "limit_remove_remove",
            "of two removals for which there is one place in the backlog one is refused; the place is given back",
            None,
            1818..=5455,
            limit_remove_remove,
        ),
        model(
            "limit_put",
            "a place in the backlog is given back, whoever puts the last reference meanwhile",
            Some(2),
            7473..=22_419,
            limit_put,
        ),
        model(
            "executor_remove",
            "what is retired while a job ends is destroyed by it, or by another",
            Some(5),
            124_705..=374_117,
            executor_remove,
        ),
        model(
            "reclaimer_remove",
            "a reclaimer thread that goes to sleep misses nothing",
            Some(5),
            80_456..=241_370,
            reclaimer_remove,
        ),
        model("backup_remove", "a backup thread that parks misses nothing", Some(3), 8982..=26_946, backup_remove),
        model(
            "barrier_barrier",
            "two barriers at once both return, with everything destroyed",
            Some(2),
            530..=1591,
            barrier_barrier,
        ),
    ]
}
