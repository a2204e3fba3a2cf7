/*
 * A cds_lfht of u64 to u64 in one of liburcu's flavours: whoever includes this has included the flavour's header and
 * defined FLAVOR(name). A whole read is one function, so that what is short is inlined, as in a C program. The table has
 * one bucket for each entry from the beginning, and is not resized; nodes are malloc'ed one by one.
 */

#include <stdint.h>
#include <stdlib.h>
#include <urcu/rculfhash.h>

struct entry {
	struct cds_lfht_node node;
	uint64_t key;
	uint64_t value;
};

static int match(struct cds_lfht_node *node, const void *key)
{
	return caa_container_of(node, struct entry, node)->key == *(const uint64_t *)key;
}

struct cds_lfht *FLAVOR(shim_new)(unsigned long buckets)
{
	return cds_lfht_new_flavor(buckets, buckets, 0, 0, &FLAVOR(flavor), NULL);
}

void FLAVOR(shim_insert)(struct cds_lfht *table, unsigned long hash, uint64_t key, uint64_t value)
{
	struct entry *entry = malloc(sizeof(*entry));

	if (!entry)
		abort();
	entry->key = key;
	entry->value = value;
	FLAVOR(read_lock)();
	if (cds_lfht_add_unique(table, hash, match, &key, &entry->node) != &entry->node)
		abort();
	FLAVOR(read_unlock)();
}

/* In the caller's critical section. The value, or `missing`. */
uint64_t FLAVOR(shim_find)(struct cds_lfht *table, unsigned long hash, uint64_t key, uint64_t missing)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	cds_lfht_lookup(table, hash, match, &key, &iter);
	node = cds_lfht_iter_get_node(&iter);
	return node ? caa_container_of(node, struct entry, node)->value : missing;
}

/* In a critical section of its own, after a quiescent state where the flavour has such. */
uint64_t FLAVOR(shim_get)(struct cds_lfht *table, unsigned long hash, uint64_t key, uint64_t missing)
{
	uint64_t value;

	QUIESCENT();
	FLAVOR(read_lock)();
	value = FLAVOR(shim_find)(table, hash, key, missing);
	FLAVOR(read_unlock)();
	return value;
}

void FLAVOR(shim_enter)(void)
{
	FLAVOR(read_lock)();
}

void FLAVOR(shim_leave)(void)
{
	FLAVOR(read_unlock)();
}

/* Nobody else uses the table any more: no grace period is needed. */
void FLAVOR(shim_free)(struct cds_lfht *table)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;
	struct entry *entry, *removed = NULL;

	FLAVOR(read_lock)();
	for (cds_lfht_first(table, &iter); (node = cds_lfht_iter_get_node(&iter)); cds_lfht_next(table, &iter)) {
		if (cds_lfht_del(table, node))
			abort();
		entry = caa_container_of(node, struct entry, node);
		/* What was removed is chained by its value. */
		entry->value = (uintptr_t)removed;
		removed = entry;
	}
	FLAVOR(read_unlock)();
	FLAVOR(shim_offline)();
	if (cds_lfht_destroy(table, NULL))
		abort();
	FLAVOR(shim_online)();
	while (removed) {
		entry = removed;
		removed = (struct entry *)(uintptr_t)entry->value;
		free(entry);
	}
}
