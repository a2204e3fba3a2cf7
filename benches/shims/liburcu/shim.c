/*
 * A whole read section of liburcu's memb flavour in one function, so that lock and unlock are inlined, as they are in a
 * C program that may use them so. (_LGPL_SOURCE: the two are short enough for the LGPL to allow it to anybody.)
 */

#define _LGPL_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <urcu/urcu-memb.h>

uint64_t urcu_memb_shim_read(const uint64_t *cell)
{
	uint64_t value;

	urcu_memb_read_lock();
	value = CMM_LOAD_SHARED(*cell);
	urcu_memb_read_unlock();
	return value;
}

/* What is freed after a grace period. */
struct object {
	uint64_t value[8];
	struct rcu_head head;
};

static void free_object(struct rcu_head *head)
{
	free(caa_container_of(head, struct object, head));
}

static struct object *new_object(void)
{
	struct object *object = malloc(sizeof(*object));

	if (!object)
		abort();
	object->value[0] = 7;
	return object;
}

void urcu_memb_shim_call(void)
{
	urcu_memb_call_rcu(&new_object()->head, free_object);
}

void urcu_memb_shim_replace(struct object **cell)
{
	struct object *old = rcu_xchg_pointer(cell, new_object());

	if (old)
		urcu_memb_call_rcu(&old->head, free_object);
}

void urcu_memb_shim_release(struct object *object)
{
	free(object);
}
