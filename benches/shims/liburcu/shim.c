/*
 * A whole read section of liburcu's memb flavour in one function, so that lock and unlock are inlined, as they are in a
 * C program that may use them so. (_LGPL_SOURCE: the two are short enough for the LGPL to allow it to anybody.)
 */

#define _LGPL_SOURCE
#include <stdint.h>
#include <urcu/urcu-memb.h>

uint64_t urcu_memb_shim_read(const uint64_t *cell)
{
	uint64_t value;

	urcu_memb_read_lock();
	value = CMM_LOAD_SHARED(*cell);
	urcu_memb_read_unlock();
	return value;
}
