#include <dirent.h>
#include <errno.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "fdpass.h"
#include "sockun.h"
#include "unit.h"

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void passes(void **state)
{
	CLEANUP_CLOSE int a = -EBADF, b = -EBADF, got = -EBADF;
	int pair[2], fds[1];
	size_t n = 1;
	char buf[8];

	assert_int_equal(sockun_pair(SOCK_STREAM, pair), 0);
	a = pair[0], b = pair[1];
	assert_int_equal(fdpass_send(a, "x", 1, (int[]){ 0 }, 1), 1);
	assert_int_equal(fdpass_recv(b, buf, sizeof buf, fds, &n), 1);
	assert_int_equal(n, 1);
	got = fds[0];
	assert_true(got > 2);
}

static void too_many_leak_nothing(void **state)
{
	CLEANUP_CLOSE int a = -EBADF, b = -EBADF;
	int pair[2], fds[2], before;
	size_t n = 2;
	char buf[8];

	assert_int_equal(sockun_pair(SOCK_STREAM, pair), 0);
	a = pair[0], b = pair[1];
	before = open_fds();
	assert_int_equal(fdpass_send(a, "x", 1, (int[]){ 0, 0, 0 }, 3), 1);
	assert_int_equal(fdpass_recv(b, buf, sizeof buf, fds, &n), -EPROTO);
	assert_int_equal(open_fds(), before);
}

static void left_by_a_peer_with_something_unread(void **state)
{
	CLEANUP_CLOSE int a = -EBADF, got = -EBADF;
	int pair[2], fds[1];
	char buf[8];
	size_t n = 1;

	assert_int_equal(sockun_pair(SOCK_SEQPACKET, pair), 0);
	a = pair[0];
	assert_int_equal(fdpass_send(a, "ask", 3, NULL, 0), 3);
	assert_int_equal(fdpass_send(pair[1], "x", 1, (int[]){ 0 }, 1), 1);
	close(pair[1]);
	assert_int_equal(fdpass_recv_left(a, buf, sizeof buf, fds, &n), 1);
	assert_int_equal(n, 1);
	got = fds[0];
	assert_true(got > 2);
	n = 1;
	assert_int_equal(fdpass_recv_left(a, buf, sizeof buf, fds, &n), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passes),
		cmocka_unit_test(too_many_leak_nothing),
		cmocka_unit_test(left_by_a_peer_with_something_unread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
