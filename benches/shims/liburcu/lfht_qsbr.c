/* cds_lfht in the QSBR flavour. */

#define _LGPL_SOURCE
#include <urcu/urcu-qsbr.h>

#define FLAVOR(name) urcu_qsbr_##name
#define QUIESCENT() urcu_qsbr_quiescent_state()

static void urcu_qsbr_shim_offline(void)
{
	urcu_qsbr_thread_offline();
}

static void urcu_qsbr_shim_online(void)
{
	urcu_qsbr_thread_online();
}

#include "lfht.h"
