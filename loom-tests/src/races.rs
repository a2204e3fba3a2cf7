//! The models: their claims, bounds and expected executions.

mod expiry;
mod limits;
mod pairs;
mod reads;
mod reclaims;
mod resizes;
mod waits;
mod writes;

use crate::harness::Model;
use expiry::*;
use limits::*;
use pairs::*;
use reads::*;
use reclaims::*;
use resizes::*;
use waits::*;
use writes::*;

pub fn models() -> Vec<Model> {
    let model = |name, claim, bound, run| Model { name, claim, bound, run };
    vec![
        model(
            "get_remove",
            "a borrow is valid until its guard is dropped, whoever removes the entry",
            None,
            get_remove,
        ),
        model("get_insert", "an entry that is found is complete", None, get_insert),
        model("get_update", "a reader sees the value before or after an update, and either is whole", None, get_update),
        model("get_reap", "a borrow is valid though a reaper takes the entry", None, get_reap),
        model("get_evict", "a borrow is valid though the entry is evicted", None, get_evict),
        model(
            "lookup_insert_that_evicts",
            "an insertion that evicts leaves the bound intact, and what a handle keeps",
            None,
            lookup_insert_that_evicts,
        ),
        model("lookup_remove", "a handle taken while the entry is removed keeps it", None, lookup_remove),
        model("lookup_replace", "a replaced key is never absent, and both values are whole", None, lookup_replace),
        model("lookup_reap", "a handle taken while a reaper takes the entry keeps it", None, lookup_reap),
        model("iterate_remove", "iteration meets the entry that stays, once, and whole", None, iterate_remove),
        model("batch_remove", "a batch finds the key that stays", None, batch_remove),
        model(
            "borrow_to_handle_remove",
            "a borrow turns into a handle, or the entry has left the registry",
            None,
            borrow_to_handle_remove,
        ),
        model("lookup_expire", "a handle taken while the entry expires keeps it", None, lookup_expire),
        model(
            "lookup_expired_insert",
            "what has expired is absent to a reader and to an insertion, and does not come back",
            None,
            lookup_expired_insert,
        ),
        model(
            "lookup_prolong",
            "an entry that a read found to have expired stays absent when its life is prolonged",
            None,
            lookup_prolong,
        ),
        model(
            "lookup_replace_in_time",
            "a key that is replaced in time is never absent, though the time of the old entry comes meanwhile",
            None,
            lookup_replace_in_time,
        ),
        model("put_expire", "a handle dropped while its entry expires is not missed", None, put_expire),
        model("replace_expire", "what replaces an entry that expires is young, and stays", None, replace_expire),
        model("expire_expire", "two reapers remove what has expired once", None, expire_expire),
        model("rearm_expire", "an entry that is removed while it is judged gets no timer", None, rearm_expire),
        model(
            "get_replace",
            "a replaced key is never absent to a borrow, and both values are whole",
            None,
            get_replace,
        ),
        model("lookup_insert", "a handle taken while the entry is inserted is of a whole one", None, lookup_insert),
        model(
            "lookup_update",
            "an updated key is never absent to a lookup, and both values are whole",
            None,
            lookup_update,
        ),
        model(
            "iterate_insert",
            "iteration meets the entry that stays, and a new one whole or not at all",
            None,
            iterate_insert,
        ),
        model(
            "iterate_replace",
            "iteration meets a key that is replaced, with one value or both",
            None,
            iterate_replace,
        ),
        model("iterate_update", "iteration meets a key that is updated, with one value or both", None, iterate_update),
        model("iterate_reap", "iteration meets the entry that stays while a reaper takes another", None, iterate_reap),
        model(
            "batch_insert",
            "a batch finds the key that stays, and a new one whole or not at all",
            None,
            batch_insert,
        ),
        model("batch_replace", "a batch finds both keys while one is replaced", None, batch_replace),
        model("batch_update", "a batch finds both keys while one is updated", None, batch_update),
        model("batch_reap", "a batch finds the key that stays while a reaper takes another", None, batch_reap),
        model(
            "remove_own_borrow",
            "a reader that removes what it borrows may read on, whoever collects meanwhile",
            Some(5),
            remove_own_borrow,
        ),
        model("remove_remove", "of two removals of one key one succeeds", None, remove_remove),
        model(
            "insert_insert",
            "of two insertions of one key one succeeds; the other gets its value back",
            None,
            insert_insert,
        ),
        model("clone_last_put", "an unlinked entry is destroyed once, after its last handle", None, clone_last_put),
        model("grow_get", "a key is found all through a resize", None, grow_get),
        model(
            "grow_get_beyond",
            "a key that lives beyond its home is found all through a resize",
            None,
            grow_get_beyond,
        ),
        model(
            "grow_iterate_beyond",
            "an iteration during a resize meets each entry that stays once",
            None,
            grow_iterate_beyond,
        ),
        model("grow_remove", "a key removed during a resize is gone when the removal returns", None, grow_remove),
        model(
            "handle_outlives_registry",
            "registry and last handle go at the same time: the value is dropped, once, by then",
            None,
            handle_outlives_registry,
        ),
        model("session_remove", "what a session borrows is valid until its next read", None, session_remove),
        model(
            "offline_synchronize",
            "an offline session holds nothing up, and reads safely when it is back",
            Some(3),
            offline_synchronize,
        ),
        model(
            "synchronize_reader",
            "synchronize returns after the section that was open has closed",
            None,
            synchronize_reader,
        ),
        model(
            "barrier_call",
            "a barrier returns after every callback given before it, on any thread",
            None,
            barrier_call,
        ),
        model("clear_get", "what a reader finds while the registry is cleared is whole", None, clear_get),
        model(
            "beyond_removed_get",
            "a key beyond its home may be moved and removed under a reader's eyes",
            Some(3),
            beyond_removed_get,
        ),
        model(
            "limit_remove_remove",
            "of two removals for which there is one place in the backlog one is refused; the place is given back",
            Some(4),
            limit_remove_remove,
        ),
        model(
            "limit_put",
            "a place in the backlog is given back, whoever puts the last reference meanwhile",
            Some(2),
            limit_put,
        ),
        model(
            "executor_remove",
            "what is retired while a job ends is destroyed by it, or by another",
            Some(5),
            executor_remove,
        ),
        model("reclaimer_remove", "a reclaimer thread that goes to sleep misses nothing", Some(5), reclaimer_remove),
        model("backup_remove", "a backup thread that parks misses nothing", Some(3), backup_remove),
        model(
            "barrier_barrier",
            "two barriers at once both return, with everything destroyed",
            Some(4),
            barrier_barrier,
        ),
        model(
            "fill_barrier",
            "a barrier covers its caller's own removal, though another thread fills and closes the bag",
            Some(4),
            fill_barrier,
        ),
        model(
            "collect_barrier",
            "a barrier covers its caller's own removal, though another thread has the dirty list in hand",
            Some(6),
            collect_barrier,
        ),
        model("round_barrier", "a barrier covers a shard that a round found busy", Some(2), round_barrier),
        model(
            "busy_job",
            "a job that found a shard busy does not end before the shard is collected",
            Some(3),
            busy_job,
        ),
        model("collect_collect", "two collectors close the bag of a shard once", None, collect_collect),
        model("reopen_collect", "a bag that reopens beside a collector is found by the next", None, reopen_collect),
        model(
            "list_collect",
            "a shard that is added to the dirty list while the list is gone through is in it once",
            Some(4),
            list_collect,
        ),
        model(
            "close_barrier",
            "a barrier covers what was removed before it of a registry that another thread ends",
            Some(3),
            close_barrier,
        ),
        model(
            "grow_clear",
            "what a reader finds while a registry that grows is cleared is whole, and both tables are freed",
            Some(5),
            grow_clear,
        ),
        model(
            "grow_end",
            "a registry that ends while it grows leaves neither table nor node behind",
            Some(4),
            grow_end,
        ),
        model(
            "put_collect",
            "a last handle dropped after the grace period of its entry, while others collect, leaves nothing behind",
            None,
            put_collect,
        ),
        model(
            "put_reclaim",
            "of a handle's drop and the reclaim of its bag one is the last, and destroys the entry",
            None,
            put_reclaim,
        ),
        model(
            "close_orphan",
            "a last handle dropped beside the end of its registry leaves neither entry nor core behind",
            None,
            close_orphan,
        ),
        model(
            "close_collect",
            "a registry that ends beside a collector leaves neither entries nor core behind",
            Some(5),
            close_collect,
        ),
        model(
            "close_part",
            "a registry that ends while a part of a bag is destroyed leaves nothing of it behind",
            Some(5),
            close_part,
        ),
        model(
            "close_orphan_collect",
            "of the end of a registry, a last handle and a collector the last one frees the core",
            Some(2),
            close_orphan_collect,
        ),
        model(
            "close_in_eq",
            "a registry that ends in an `Eq`, under a lock, beside a collector that has its shard in hand is not freed under it",
            Some(3),
            close_in_eq,
        ),
        model(
            "close_cascade",
            "what is found of a registry that has just ended is destroyed after all that its readers did",
            Some(3),
            close_cascade,
        ),
    ]
}
