#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest-mem.h"
#include "unit.h"

#define PAGE 4096ull
#define USER 0x7f0000000000ull

static int fd;
static struct guest_mem m;

/* Two regions next to each other for the guest, far apart in the file and for the front-end. */
static int setup(void **state)
{
	fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, 16 * PAGE) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		return -1;
	guest_mem_init(&m, false);
	return guest_mem_add(&m, fd, 0, 2 * PAGE, USER + 8 * PAGE, 0) ||
	       guest_mem_add(&m, fd, 2 * PAGE, 2 * PAGE, USER, 8 * PAGE);
}

static int teardown(void **state)
{
	guest_mem_finish(&m);
	return close(fd);
}

static void spans_regions(void **state)
{
	struct iovec iov[2];
	char text[8];

	assert_int_equal(guest_mem_iov(&m, 2 * PAGE - 4, 8, iov, 2), 2);
	assert_int_equal(iov[0].iov_len, 4);
	memcpy(iov[0].iov_base, "abcd", 4);
	memcpy(iov[1].iov_base, "efgh", 4);
	assert_int_equal(guest_mem_read(&m, 2 * PAGE - 4, text, 8), 0);
	assert_memory_equal(text, "abcdefgh", 8);
	assert_int_equal(pread(fd, text, 4, 8 * PAGE), 4);
	assert_memory_equal(text, "efgh", 4);
	assert_int_equal(guest_mem_iov(&m, 2 * PAGE - 4, 8, iov, 1), -ENOBUFS);
	assert_int_equal(guest_mem_iov(&m, 0, 0, iov, 0), 0);
}

static void outside(void **state)
{
	struct iovec iov[2];
	char c[2];

	assert_int_equal(guest_mem_iov(&m, 4 * PAGE, 1, iov, 2), -EFAULT);
	assert_int_equal(guest_mem_iov(&m, 4 * PAGE - 1, 2, iov, 2), -EFAULT);
	assert_int_equal(guest_mem_iov(&m, UINT64_MAX, 2, iov, 2), -EFAULT);
	assert_int_equal(guest_mem_iov(&m, 0, UINT64_MAX, iov, 2), -EFAULT);
	assert_int_equal(guest_mem_read(&m, 4 * PAGE - 1, c, 2), -EFAULT);
}

static void user_addresses(void **state)
{
	assert_non_null(guest_mem_user(&m, USER, 2 * PAGE));
	assert_null(guest_mem_user(&m, USER, 2 * PAGE + 1));
	assert_null(guest_mem_user(&m, USER + 2 * PAGE, 1));
	assert_null(guest_mem_user(&m, USER - 1, 1));
	assert_null(guest_mem_user(&m, USER, UINT64_MAX));
	assert_ptr_equal(guest_mem_user(&m, USER + 8 * PAGE + 5, 1), m.regions[0].data + 5);
}

static void refuses(void **state)
{
	assert_int_equal(guest_mem_add(&m, fd, PAGE, PAGE, 0, 0), -EINVAL);
	assert_int_equal(guest_mem_add(&m, fd, 8 * PAGE, PAGE, USER + PAGE, 0), -EINVAL);
	assert_int_equal(guest_mem_add(&m, fd, 8 * PAGE, 17 * PAGE, 0, 0), -EINVAL);
	assert_int_equal(guest_mem_add(&m, fd, 8 * PAGE, PAGE, 0, 16 * PAGE), -EINVAL);
	assert_int_equal(guest_mem_add(&m, fd, -PAGE, 2 * PAGE, 0, 0), -EINVAL);
	assert_int_equal(m.n, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans_regions),
		cmocka_unit_test(outside),
		cmocka_unit_test(user_addresses),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
