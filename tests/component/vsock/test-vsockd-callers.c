/* Callers of the hybrid socket: those who never finish their line, and ten thousand of them at once. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "cleanup.h"
#include "fake-frontend.h"
#include "sandbox.h"
#include "unit.h"
#include "vsock-host.h"

static struct fake f;

static void hang_up_on(const char *text, size_t len)
{
	int fd = fake_connect(&f);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	assert_int_equal(write(fd, text, len), (ssize_t)len);
	assert_int_equal(poll(&p, 1, 1000), 1);
	if (read(fd, &c, 1) > 0)
		fail_msg("\"%.*s\" was answered", (int)len, text);
	close(fd);
}

static void bad_lines(void **state)
{
	static const char *const lines[] = { "\n", "CONNECT\n", "CONNECT \n", "connect 5\n",
		"CONNECT 5 \n", "CONNECT  5\n", "CONNECT -1\n", "CONNECT +1\n", "CONNECT 0x5\n",
		"CONNECT 4294967296\n", "CONNECT 99999999999\n", "CONNECT 5\r\n",
		"GET / HTTP/1.1\n", "CONNECT 4294967295\n",
		"CONNECT 000000000000000000000000000005\n",
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" };

	fake_setup(&f);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		hang_up_on(lines[i], strlen(lines[i]));
	hang_up_on("CONNECT 5\0\n", 11);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

/* Bytes one by one are a line too. */
static void trickled_line(void **state)
{
	static const char line[] = "CONNECT 5000\n";
	int fd;

	fake_setup(&f);
	fd = fake_connect(&f);
	for (size_t i = 0; i < sizeof line - 1; i++) {
		assert_int_equal(write(fd, line + i, 1), 1);
		usleep(1000);
	}
	fake_expect(&f, VSOCK_OP_REQUEST, 5000, NULL);
	close(fd);
	fake_stop(&f);
}

#define FLOOD 400

/* A flood of silent callers: a bounded number waits, and one who speaks is served at once. */
static void silent_callers(void **state)
{
	int fds[FLOOD], fd;
	uint64_t start;

	fake_setup(&f);
	for (int i = 0; i < FLOOD; i++)
		fds[i] = fake_connect(&f);
	start = fake_now_usec();
	fd = fake_connect(&f);
	assert_int_equal(write(fd, "CONNECT 5000\n", 13), 13);
	fake_expect(&f, VSOCK_OP_REQUEST, 5000, NULL);
	assert_true(fake_now_usec() - start < 500000);
	assert_true(fake_count_fds(&f) <= f.fds_at_start + VSOCK_PENDING_MAX + 1);
	close(fd);
	sleep(2);
	usleep(300000);
	fake_assert_no_leak(&f); /* while they still hold on */
	for (int i = 0; i < FLOOD; i++)
		close(fds[i]);
	fake_stop(&f);
}

/* callers by the thousand, with every kind of half a line */

#define HALF_OPEN       10000
#define GOOD_USEC       1000000 /* in which somebody who speaks is through, whatever the others do */
#define GROWTH_KB       1024
#define PENDING_FDS_MAX (VSOCK_PENDING_MAX + 4)

static long resident_kb(void)
{
	char path[64], line[128];
	long kb = -1;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/status", f.pid);
	file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(line, sizeof line, file))
		sscanf(line, "VmRSS: %ld", &kb);
	fclose(file);
	return kb;
}

/* In a process of its own: opens them all, tells, and keeps them until it is killed. */
static void flood_callers(int done_fd)
{
	static const char *const halves[] = { "", "C", "CONNECT 5000", "\1\2\3", "CONNECT -",
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" };

	for (unsigned i = 0; i < HALF_OPEN; i++) {
		const char *half = halves[i % ARRAY_SIZE(halves)];
		int fd = fake_connect(&f);

		if (*half && send(fd, half, strlen(half), MSG_NOSIGNAL) < 0 && errno != EPIPE)
			_exit(1);
	}
	if (write(done_fd, "", 1) == 1)
		pause();
	_exit(1);
}

static pid_t start_flood(int *ret_done_fd)
{
	int done[2];
	pid_t pid;

	assert_int_equal(pipe2(done, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		flood_callers(done[1]);
	close(done[1]);
	*ret_done_fd = done[0];
	return pid;
}

static void a_good_call(void)
{
	uint64_t start = fake_now_usec();
	int fd = fake_connect(&f);
	uint32_t port;
	struct vsock_pkt p;
	char ok[32] = "";

	assert_int_equal(write(fd, "CONNECT 5000\n", 13), 13);
	port = fake_expect(&f, VSOCK_OP_REQUEST, 5000, NULL).src_port;
	p = fake_pkt(VSOCK_OP_RESPONSE, 5000, port);
	fake_tx(&f, &p, NULL, 0);
	assert_true(read(fd, ok, sizeof ok - 1) > 3);
	assert_memory_equal(ok, "OK ", 3);
	assert_in_range(fake_now_usec() - start, 0, GOOD_USEC);
	p = fake_pkt(VSOCK_OP_RST, 5000, port);
	fake_tx(&f, &p, NULL, 0);
	close(fd);
	assert_true(fake_count_fds(&f) <= f.fds_at_start + PENDING_FDS_MAX);
}

static void ten_thousand_callers(void **state)
{
	struct pollfd done = { .events = POLLIN };
	unsigned good = 0;
	long before;
	pid_t pid;

	if (sandbox_want_fds(HALF_OPEN + 100) < 0) {
		print_message(
			"skipped: the hard limit of open files is below %d\n", HALF_OPEN + 100);
		skip();
	}
	fake_setup(&f);
	a_good_call();
	before = resident_kb();
	pid = start_flood(&done.fd);
	while (poll(&done, 1, 0) == 0) {
		a_good_call();
		good++;
	}
	assert_true(done.revents & POLLIN);
	a_good_call();
	assert_true(good > 0);
	if (!getenv("UVMS_VSOCKD_ARG")) /* a sanitizer keeps what was freed */
		assert_in_range(resident_kb(), 0, before + GROWTH_KB);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(done.fd);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_lines),
		cmocka_unit_test(trickled_line),
		cmocka_unit_test(silent_callers),
		cmocka_unit_test(ten_thousand_callers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
