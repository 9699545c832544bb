/*
 * uvms-test-step-log FILE: what the time is and what the kernel's generator gives, again and again as fast as can be,
 * into a ring of records that FILE maps. When SECONDS have passed between two it makes some more, and
 * "FILE.done".
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RECORDS (1 << 18)
#define MORE    1000
#define SECONDS 4

struct record {
	uint64_t number, realtime_ns;
	uint8_t random[16];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int create(const char *path, size_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		exit(1);
	return fd;
}

int main(int argc, char **argv)
{
	uint64_t before = 0, left = UINT64_MAX;
	struct record *ring;
	char done[256];

	if (argc != 2)
		return 2;
	ring = mmap(NULL, RECORDS * sizeof *ring, PROT_READ | PROT_WRITE, MAP_SHARED,
		create(argv[1], RECORDS * sizeof *ring), 0);
	if (ring == MAP_FAILED)
		return 1;
	for (uint64_t n = 1; left > 0; n++, left -= left < UINT64_MAX) {
		struct record *r = &ring[n % RECORDS];

		r->number = n;
		r->realtime_ns = now_ns();
		if (getrandom(r->random, sizeof r->random, 0) != sizeof r->random)
			return 1;
		if (left == UINT64_MAX && n > 1 &&
			r->realtime_ns - before > SECONDS * UINT64_C(1000000000))
			left = MORE;
		before = r->realtime_ns;
	}
	snprintf(done, sizeof done, "%s.done", argv[1]);
	create(done, 0);
	pause();
	return 0;
}
