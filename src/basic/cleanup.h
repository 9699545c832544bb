/* Scope-bound release of resources. Every owning variable idles at NULL or -EBADF. */
#pragma once

#include <stdlib.h>
#include <unistd.h>

/* Runs FN on the variable's address at the end of its scope. */
#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* Defines NAMEp(), usable as CLEANUP(NAMEp) on a TYPE variable; FN accepts the idle value. */
#define DEFINE_CLEANUP(type, fn)                                                                   \
	static inline void fn##p(type *p)                                                          \
	{                                                                                          \
		fn(*p);                                                                            \
	}                                                                                          \
	struct cleanup_semicolon_##fn

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define CLEANUP_FREE  CLEANUP(cleanup_free)
#define CLEANUP_CLOSE CLEANUP(cleanup_close)

/* Hands ownership out of the scope: yields the value, leaves the idle one behind. */
#define TAKE_PTR(p)                                                                                \
	({                                                                                         \
		__typeof__(p) *take_p = &(p);                                                      \
		__typeof__(p) take_v = *take_p;                                                    \
		*take_p = NULL;                                                                    \
		take_v;                                                                            \
	})

#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int *take_p = &(fd);                                                               \
		int take_v = *take_p;                                                              \
		*take_p = -EBADF;                                                                  \
		take_v;                                                                            \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
