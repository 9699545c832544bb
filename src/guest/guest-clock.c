#include "guest-clock.h"

#include "cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000ULL
#define TOLERANCE_NS 1000000ULL
#define SEED_MAX     64

int guest_clock_set(uint64_t realtime_ns)
{
	struct timespec ts;
	uint64_t now, diff;

	clock_gettime(CLOCK_REALTIME, &ts);
	now = (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
	diff = now > realtime_ns ? now - realtime_ns : realtime_ns - now;
	if (diff <= TOLERANCE_NS)
		return 0;
	ts.tv_sec = (time_t)(realtime_ns / NSEC_PER_SEC);
	ts.tv_nsec = (long)(realtime_ns % NSEC_PER_SEC);
	return clock_settime(CLOCK_REALTIME, &ts) < 0 ? -errno : 0;
}

int guest_clock_add_entropy(const void *seed, size_t len)
{
	CLEANUP_CLOSE int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	union {
		struct rand_pool_info info;
		uint8_t bytes[sizeof(struct rand_pool_info) + SEED_MAX];
	} add = { .info = { .entropy_count = (int)len * 8, .buf_size = (int)len } };

	if (fd < 0)
		return -errno;
	if (len > SEED_MAX)
		return -EINVAL;
	memcpy(add.bytes + sizeof add.info, seed, len);
	if (ioctl(fd, RNDADDENTROPY, &add.info) < 0)
		return -errno;
	/* Have the generator take it in now, and not at its next occasion. */
	return ioctl(fd, RNDRESEEDCRNG) < 0 ? -errno : 0;
}
