/* cds_lfht in the memb flavour. */

#define _LGPL_SOURCE
#include <urcu/urcu-memb.h>

#define FLAVOR(name) urcu_memb_##name
#define QUIESCENT() do { } while (0)

static void urcu_memb_shim_offline(void)
{
}

static void urcu_memb_shim_online(void)
{
}

#include "lfht.h"
