//! The list of models, with their claims and bounds.

mod admission;
mod cells;
mod expiry;
mod limits;
mod list;
mod loads;
mod pairs;
mod percpu;
mod reads;
mod reclaims;
mod resizes;
mod waits;
mod writes;

use crate::harness::Model;
use admission::*;
use cells::*;
use expiry::*;
use limits::*;
use list::*;
use loads::*;
use pairs::*;
use percpu::*;
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
            "a borrow is valid until its guard is dropped, even if another thread removes the entry",
            None,
            get_remove,
        ),
        model("get_insert", "an entry that a reader finds is complete", None, get_insert),
        model(
            "get_update",
            "a reader sees the old value or the new value of an update, and either is complete",
            None,
            get_update,
        ),
        model("get_reap", "a borrow stays valid while a reaper removes the entry", None, get_reap),
        model("get_evict", "a borrow stays valid while the entry is evicted", None, get_evict),
        model(
            "lookup_insert_that_evicts",
            "an insertion that evicts keeps the bound, and a handle keeps the evicted entry",
            None,
            lookup_insert_that_evicts,
        ),
        model("lookup_remove", "a handle taken while its entry is removed keeps the entry", None, lookup_remove),
        model(
            "lookup_replace",
            "a replaced key is never absent to a lookup, and both values are complete",
            None,
            lookup_replace,
        ),
        model("lookup_reap", "a handle taken while a reaper removes its entry keeps the entry", None, lookup_reap),
        model(
            "iterate_remove",
            "iteration yields the entry that stays exactly once, and only complete entries",
            None,
            iterate_remove,
        ),
        model("batch_remove", "a batch read finds the key that stays", None, batch_remove),
        model(
            "borrow_to_handle_remove",
            "a borrow becomes a handle, or the entry has already left the registry",
            None,
            borrow_to_handle_remove,
        ),
        model("lookup_expire", "a handle taken while its entry expires keeps the entry", None, lookup_expire),
        model(
            "lookup_expired_insert",
            "an expired entry is absent to a reader and to an insertion, and does not come back",
            None,
            lookup_expired_insert,
        ),
        model(
            "lookup_prolong",
            "an entry that a read found expired stays absent when the maximum age is extended",
            None,
            lookup_prolong,
        ),
        model(
            "lookup_replace_in_time",
            "a key replaced before its deadline is never absent, even if the old deadline passes during the read",
            None,
            lookup_replace_in_time,
        ),
        model(
            "put_expire",
            "an entry whose last handle is dropped while it expires is destroyed once",
            None,
            put_expire,
        ),
        model(
            "replace_expire",
            "the entry that replaces an expired one has a new deadline, and stays",
            None,
            replace_expire,
        ),
        model("expire_expire", "two reapers remove each expired entry exactly once", None, expire_expire),
        model(
            "rearm_expire",
            "an entry that is removed while a reaper examines it gets no new timer",
            None,
            rearm_expire,
        ),
        model(
            "lookup_set_ttl",
            "an entry that a read found expired is not prolonged, and one that was prolonged is found",
            None,
            lookup_set_ttl,
        ),
        model("replace_set_ttl", "a time to live does not pass to the entry that replaces", None, replace_set_ttl),
        model(
            "expire_set_ttl",
            "an entry whose life is shortened while a reaper examines it expires in time",
            None,
            expire_set_ttl,
        ),
        model(
            "get_replace",
            "a replaced key is never absent to a borrow, and both values are complete",
            None,
            get_replace,
        ),
        model(
            "lookup_insert",
            "a handle taken while its entry is inserted refers to a complete entry",
            None,
            lookup_insert,
        ),
        model(
            "lookup_update",
            "an updated key is never absent to a lookup, and both values are complete",
            None,
            lookup_update,
        ),
        model(
            "iterate_insert",
            "iteration yields the entry that stays, and a new entry completely or not at all",
            None,
            iterate_insert,
        ),
        model(
            "iterate_replace",
            "iteration yields a key that is being replaced, with the old value, the new value or both",
            None,
            iterate_replace,
        ),
        model(
            "iterate_update",
            "iteration yields a key that is being updated, with the old value, the new value or both",
            None,
            iterate_update,
        ),
        model(
            "iterate_reap",
            "iteration yields the entry that stays while a reaper removes another entry",
            None,
            iterate_reap,
        ),
        model(
            "batch_insert",
            "a batch read finds the key that stays, and a new entry completely or not at all",
            None,
            batch_insert,
        ),
        model("batch_replace", "a batch read finds both keys while one is replaced", None, batch_replace),
        model("batch_update", "a batch read finds both keys while one is updated", None, batch_update),
        model(
            "batch_reap",
            "a batch read finds the key that stays while a reaper removes another entry",
            None,
            batch_reap,
        ),
        model(
            "remove_own_borrow",
            "a reader may keep using a borrow of an entry that it removed, while another thread collects",
            Some(5),
            remove_own_borrow,
        ),
        model("remove_remove", "of two removals of one key, exactly one succeeds", None, remove_remove),
        model(
            "insert_insert",
            "of two insertions of one key, exactly one succeeds; the other gets its value back",
            None,
            insert_insert,
        ),
        model(
            "clone_last_put",
            "an unlinked entry is destroyed once, after its last handle is dropped",
            None,
            clone_last_put,
        ),
        model("grow_get", "a key is found at every moment of a resize", None, grow_get),
        model(
            "grow_get_beyond",
            "a key stored outside its home bucket is found at every moment of a resize",
            None,
            grow_get_beyond,
        ),
        model(
            "grow_iterate_beyond",
            "an iteration during a resize yields each entry that stays exactly once",
            None,
            grow_iterate_beyond,
        ),
        model(
            "grow_remove",
            "a key removed during a resize is absent once the removal has returned",
            None,
            grow_remove,
        ),
        model(
            "handle_outlives_registry",
            "a registry and its last handle are dropped at the same time: afterwards the value has been dropped, once",
            None,
            handle_outlives_registry,
        ),
        model(
            "upgrade_remove",
            "a weak handle gives a handle to the entry, or the entry has left",
            None,
            upgrade_remove,
        ),
        model(
            "upgrade_outlives_registry",
            "a registry is dropped while a weak handle is upgraded: the value is dropped once",
            Some(4),
            upgrade_outlives_registry,
        ),
        model(
            "load_load",
            "of two callers that ask for an absent key one runs its loader, and both get its value",
            None,
            load_load,
        ),
        model(
            "load_panic",
            "if a loader panics while another caller waits, that one runs its own loader",
            None,
            load_panic,
        ),
        model(
            "load_failure",
            "if a loader fails while another caller waits, that one runs its own loader",
            None,
            load_failure,
        ),
        model("load_task", "a task that waits for a loader is woken, and gets its value", None, load_task),
        model(
            "load_dropped_wait",
            "the future of a task that waits for a loader may be dropped at any time",
            None,
            load_dropped_wait,
        ),
        model(
            "load_dropped_loader",
            "if the future of a loader is dropped, the caller that waits runs its own loader",
            None,
            load_dropped_loader,
        ),
        model("update_update", "of two updates of a key at the same time none is lost", Some(3), update_update),
        model(
            "update_remove",
            "a removal of a key that is being updated comes before the update or after it",
            Some(4),
            update_remove,
        ),
        model(
            "update_remove_handle",
            "an update of an entry that is removed meanwhile inserts nothing",
            Some(4),
            update_remove_handle,
        ),
        model("session_remove", "a session's borrow is valid until its next read", None, session_remove),
        model(
            "offline_synchronize",
            "an offline session does not delay a grace period, and reads safely when it is online again",
            Some(3),
            offline_synchronize,
        ),
        model(
            "synchronize_reader",
            "synchronize returns only after a section that was open at the call has closed",
            None,
            synchronize_reader,
        ),
        model(
            "barrier_call",
            "a barrier returns after all callbacks queued before it, by any thread, have run",
            None,
            barrier_call,
        ),
        model("clear_get", "an entry that a reader finds while the registry is cleared is complete", None, clear_get),
        model(
            "beyond_removed_get",
            "a reader stays correct while a key outside its home bucket is moved and removed",
            Some(3),
            beyond_removed_get,
        ),
        model(
            "limit_remove_remove",
            "of two removals with backlog room for one, one is refused; reclamation makes room again",
            Some(4),
            limit_remove_remove,
        ),
        model(
            "admit_admit",
            "of two admissions for one place, in different shards, exactly one is refused",
            None,
            admit_admit,
        ),
        model(
            "admit_remove",
            "an admission gets the place of an entry only after the entry has left, and then is not refused",
            None,
            admit_remove,
        ),
        model(
            "limit_put",
            "a reservation in the backlog is released, even if another thread drops a last reference at that moment",
            Some(2),
            limit_put,
        ),
        model(
            "executor_remove",
            "an entry retired while a job ends is destroyed by that job, or by a new one",
            Some(5),
            executor_remove,
        ),
        model(
            "reclaimer_remove",
            "a reclaimer thread that goes to sleep misses no retired entry",
            Some(5),
            reclaimer_remove,
        ),
        model("backup_remove", "a backup thread that parks misses no retired entry", Some(3), backup_remove),
        model(
            "barrier_barrier",
            "two concurrent barriers both return, after everything retired before them is destroyed",
            Some(4),
            barrier_barrier,
        ),
        model(
            "fill_barrier",
            "a barrier covers its caller's own removal, even if another thread fills and closes the bag",
            Some(4),
            fill_barrier,
        ),
        model(
            "collect_barrier",
            "a barrier covers its caller's own removal, even if another thread has taken the dirty list",
            Some(6),
            collect_barrier,
        ),
        model("round_barrier", "a barrier covers a shard that a round found locked", Some(2), round_barrier),
        model(
            "busy_job",
            "a job that found a shard locked does not end before the shard is collected",
            Some(3),
            busy_job,
        ),
        model("collect_collect", "two concurrent collectors close the bag of a shard once", None, collect_collect),
        model(
            "reopen_collect",
            "a bag that a writer reopens during a collection is found by the next collection",
            None,
            reopen_collect,
        ),
        model(
            "list_collect",
            "a shard that is added to the dirty list while a collector walks the list is in it once",
            Some(4),
            list_collect,
        ),
        model(
            "close_barrier",
            "a barrier covers earlier removals from a registry that another thread drops",
            Some(3),
            close_barrier,
        ),
        model(
            "grow_clear",
            "an entry that a reader finds while a growing registry is cleared is complete, and both tables are freed",
            Some(5),
            grow_clear,
        ),
        model("grow_end", "a registry dropped while it grows leaks neither tables nor nodes", Some(4), grow_end),
        model(
            "put_collect",
            "a last handle dropped after the grace period of its entry, during a collection, leaks nothing",
            None,
            put_collect,
        ),
        model(
            "put_reclaim",
            "a last handle is dropped while its entry's bag is reclaimed: the later of the two destroys the entry",
            None,
            put_reclaim,
        ),
        model(
            "close_orphan",
            "a last handle dropped while its registry is dropped leaks neither the entry nor the core",
            None,
            close_orphan,
        ),
        model(
            "close_collect",
            "a registry dropped during a collection leaks neither its entries nor its core",
            Some(5),
            close_collect,
        ),
        model(
            "close_part",
            "a registry dropped while another thread destroys part of a bag leaks nothing from that bag",
            Some(5),
            close_part,
        ),
        model(
            "close_orphan_collect",
            "of a registry's drop, a last handle's drop and a collection, the last one frees the core",
            Some(2),
            close_orphan_collect,
        ),
        model(
            "close_in_eq",
            "a registry dropped in an `Eq`, under a shard lock, is not freed while a collector uses its shard",
            Some(3),
            close_in_eq,
        ),
        model(
            "close_cascade",
            "a dropped registry's nodes are destroyed only after everything its readers did",
            Some(3),
            close_cascade,
        ),
        model("cell_read_store", "a borrow of a version is valid until its section closes", None, cell_read_store),
        model(
            "cell_reclaim_read_store",
            "a version's grace period begins after it was replaced, even if another thread collects at that moment",
            Some(3),
            cell_reclaim_read_store,
        ),
        model("cell_section_store", "so is a borrow in a session's section", None, cell_section_store),
        model("cell_load_store", "an owned version is complete, and stays", None, cell_load_store),
        model(
            "cell_put_reclaim",
            "a version whose last reference is dropped while its grace period ends is destroyed once",
            None,
            cell_put_reclaim,
        ),
        model(
            "cell_drop_put",
            "a version is destroyed once if cell and last reference are dropped at the same time",
            None,
            cell_drop_put,
        ),
        model("cell_update_update", "of two updates, the second gets what the first made", None, cell_update_update),
        model(
            "cell_update_store",
            "no store comes between an update's closure and its version",
            None,
            cell_update_store,
        ),
        model(
            "cell_cookie_reader",
            "when a store's cookie is over, every reader has left the old version",
            None,
            cell_cookie_reader,
        ),
        model(
            "cell_version_store",
            "a read finds the version whose number the reader has seen, or a later one",
            None,
            cell_version_store,
        ),
        model("cell_wait_store", "a thread that waits for a new version is woken", None, cell_wait_store),
        model("cell_future_store", "a task that waits for a new version is woken", None, cell_future_store),
        model(
            "counter_add_sum",
            "a sum has each count that happened before it once, and each concurrent one at most once",
            None,
            counter_add_sum,
        ),
        model(
            "counter_exit_add",
            "no count is lost when a thread ends while another counts for the first time and sums",
            None,
            counter_exit_add,
        ),
        model(
            "counter_grow_sum",
            "a sum misses no count of a thread whose block is copied to a longer one",
            None,
            counter_grow_sum,
        ),
        model(
            "counter_drop_add",
            "a counter that takes the place of a dropped one begins at zero for each thread",
            None,
            counter_drop_add,
        ),
        model(
            "ref_get_kill",
            "a reference taken while its count is killed is refused, or counted: then zero is reached with its put",
            None,
            ref_get_kill,
        ),
        model(
            "ref_put_kill",
            "a reference put while its count is killed is put once, in its slot or in the one count",
            None,
            ref_put_kill,
        ),
        model(
            "ref_confirm_get",
            "a kill is confirmed only when no thread is in a `try_get_live` that succeeds",
            None,
            ref_confirm_get,
        ),
        model(
            "ref_put_wait",
            "a thread that waits for zero misses no last put, and continues after all that was done with references",
            None,
            ref_put_wait,
        ),
        model(
            "ref_put_resurrect",
            "a reference put while its count is resurrected is counted once, and the next kill reaches zero",
            None,
            ref_put_resurrect,
        ),
        model(
            "ref_zero_resurrect",
            "a kill whose last reference is put while the count is resurrected is released if zero was reached, and once",
            None,
            ref_zero_resurrect,
        ),
        model(
            "ref_get_call_off",
            "a reference taken while a kill is called off is counted by the fold of the next kill",
            None,
            ref_get_call_off,
        ),
        model(
            "list_iterate_remove",
            "a walk finds the entries that stay, and only complete ones, while another is removed",
            None,
            list_iterate_remove,
        ),
        model(
            "list_iterate_insert",
            "a walk finds the entries that stay, and a new one completely or not at all",
            None,
            list_iterate_insert,
        ),
        model(
            "list_iterate_replace",
            "a walk finds the old entry or the new one of a replacement, never neither and never both",
            None,
            list_iterate_replace,
        ),
        model(
            "list_iterate_clear",
            "a walk of a list that is cleared finds all entries or none, and only complete ones",
            None,
            list_iterate_clear,
        ),
        model(
            "list_iterate_splice",
            "a walk of a list whose entries move to another list finds all or none, and nothing of the other",
            None,
            list_iterate_splice,
        ),
        model(
            "list_iterate_abandon",
            "a walk goes on into the list's newer entries when a splice puts the older ones back",
            None,
            list_iterate_abandon,
        ),
        model(
            "list_resume_remove",
            "a walk resumed at a handle finds complete entries, or reports that the entry has left",
            None,
            list_resume_remove,
        ),
        model(
            "list_resume_clear",
            "a walk resumed at a handle finds complete entries while the list is cleared",
            None,
            list_resume_clear,
        ),
        model(
            "list_handle_remove",
            "a handle taken from a walk while its entry is removed keeps the entry",
            None,
            list_handle_remove,
        ),
        model(
            "list_put_remove",
            "a last handle dropped while its entry is removed leaks nothing, and the value is dropped once",
            None,
            list_put_remove,
        ),
        model("list_remove_remove", "of two removals of one entry, exactly one succeeds", None, list_remove_remove),
        model("list_remove_neighbour", "two removals of neighbours both take effect", None, list_remove_neighbour),
        model(
            "list_back_remove",
            "a backward walk finds the entries that stay, and only complete ones, while another is removed",
            None,
            list_back_remove,
        ),
        model(
            "list_back_insert",
            "a backward walk finds the entries that stay, and a new one completely or not at all",
            None,
            list_back_insert,
        ),
        model(
            "list_back_replace",
            "a backward walk finds the old entry or the new one of a replacement",
            None,
            list_back_replace,
        ),
    ]
}
