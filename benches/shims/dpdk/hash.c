/*
 * DPDK's rte_hash of u64 to u64, with lock-free reads, and its QSBR for readers. The hash is the caller's. A whole read is
 * one function, so that what is short is inlined, as in a C program.
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_malloc.h>
#include <rte_rcu_qsbr.h>

/* Keys of one bulk read, at the most. */
#define BULK RTE_HASH_LOOKUP_BULK_MAX
/* Readers at a time, at the most. */
#define READERS 64

struct table {
	struct rte_hash *hash;
	struct rte_rcu_qsbr *readers;
	uint64_t taken; /* Readers' numbers, a bit for each. */
};

/* Memory for all tables of the process, without huge pages, as all others have it. */
static void start(void)
{
	char *arguments[] = { "compare", "--no-huge", "--no-pci", "--no-telemetry", "--no-shconf", "-m", "4096",
			      "--log-level=critical", NULL };
	cpu_set_t cores;

	/* It keeps the thread that calls it on one core. */
	if (pthread_getaffinity_np(pthread_self(), sizeof(cores), &cores) || rte_eal_init(8, arguments) < 0 ||
	    pthread_setaffinity_np(pthread_self(), sizeof(cores), &cores)) {
		fprintf(stderr, "rte_eal_init: %s\n", rte_strerror(rte_errno));
		abort();
	}
}

struct table *dpdk_new(uint32_t entries)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	static unsigned int number;
	char name[32];
	struct rte_hash_parameters parameters = {
		.name = name,
		.entries = entries < 8 ? 8 : entries,
		.key_len = sizeof(uint64_t),
		.extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF | RTE_HASH_EXTRA_FLAGS_EXT_TABLE,
	};
	struct table *table = calloc(1, sizeof(*table));

	pthread_once(&once, start);
	snprintf(name, sizeof(name), "table-%u", number++);
	if (!table)
		return NULL;
	table->hash = rte_hash_create(&parameters);
	table->readers = rte_zmalloc(NULL, rte_rcu_qsbr_get_memsize(READERS), RTE_CACHE_LINE_SIZE);
	if (!table->hash || !table->readers || rte_rcu_qsbr_init(table->readers, READERS))
		return NULL;
	return table;
}

int dpdk_insert(struct table *table, uint32_t hash, uint64_t key, uint64_t value)
{
	return rte_hash_add_key_with_hash_data(table->hash, &key, hash, (void *)value);
}

/* A reader's number; online from here to its end. */
unsigned int dpdk_enter(struct table *table)
{
	for (unsigned int reader = 0; reader < READERS; reader++) {
		uint64_t bit = UINT64_C(1) << reader;

		if (__atomic_fetch_or(&table->taken, bit, __ATOMIC_ACQ_REL) & bit)
			continue;
		rte_rcu_qsbr_thread_register(table->readers, reader);
		rte_rcu_qsbr_thread_online(table->readers, reader);
		return reader;
	}
	abort();
}

void dpdk_leave(struct table *table, unsigned int reader)
{
	rte_rcu_qsbr_thread_offline(table->readers, reader);
	rte_rcu_qsbr_thread_unregister(table->readers, reader);
	__atomic_fetch_and(&table->taken, ~(UINT64_C(1) << reader), __ATOMIC_ACQ_REL);
}

/* The value, or `missing`. */
uint64_t dpdk_find(struct table *table, uint32_t hash, uint64_t key, uint64_t missing)
{
	void *value;

	return rte_hash_lookup_with_hash_data(table->hash, &key, hash, &value) < 0 ? missing : (uint64_t)value;
}

/* The same, after a quiescent state. */
uint64_t dpdk_get(struct table *table, unsigned int reader, uint32_t hash, uint64_t key, uint64_t missing)
{
	rte_rcu_qsbr_quiescent(table->readers, reader);
	return dpdk_find(table, hash, key, missing);
}

/* The sum of the values of so many keys, BULK at the most, of which `missing` is one that is not there; after a quiescent state. */
uint64_t dpdk_bulk(struct table *table, unsigned int reader, uint32_t *hashes, const uint64_t *keys, unsigned int count,
		   uint64_t missing)
{
	const void *pointers[BULK];
	void *values[BULK];
	uint64_t found, sum = 0;

	rte_rcu_qsbr_quiescent(table->readers, reader);
	for (unsigned int i = 0; i < count; i++)
		pointers[i] = &keys[i];
	if (rte_hash_lookup_with_hash_bulk_data(table->hash, pointers, hashes, count, &found, values) < 0)
		abort();
	for (unsigned int i = 0; i < count; i++)
		sum += found >> i & 1 ? (uint64_t)values[i] : missing;
	return sum;
}

void dpdk_free(struct table *table)
{
	rte_hash_free(table->hash);
	rte_free(table->readers);
	free(table);
}
