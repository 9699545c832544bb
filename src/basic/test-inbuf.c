#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "inbuf.h"
#include "unit.h"

static int pipefd[2];

static void say(const void *bytes, size_t n)
{
	assert_int_equal(write(pipefd[1], bytes, n), n);
}

static int open_pipe(void **state)
{
	return pipe2(pipefd, O_CLOEXEC | O_NONBLOCK);
}

static int close_pipe(void **state)
{
	close(pipefd[0]);
	close(pipefd[1]);
	return 0;
}

static void nothing_kept_when_empty(void **state)
{
	struct inbuf b = { 0 };

	assert_int_equal(inbuf_read(&b, pipefd[0], 100), -EAGAIN);
	assert_null(b.data);
	say("abcdef", 6);
	assert_int_equal(inbuf_read(&b, pipefd[0], 100), 6);
	inbuf_take(&b, 2);
	assert_int_equal(b.len, 4);
	assert_memory_equal(b.data, "cdef", 4);
	say("g", 1);
	assert_int_equal(inbuf_read(&b, pipefd[0], 100), 1);
	assert_memory_equal(b.data, "cdefg", 5);
	inbuf_take(&b, 5);
	assert_null(b.data);
	assert_int_equal(b.size, 0);
	close(pipefd[1]);
	assert_int_equal(inbuf_read(&b, pipefd[0], 100), 0);
	pipefd[1] = dup(pipefd[0]);
}

static void never_above_max(void **state)
{
	struct inbuf b = { 0 };
	char many[3000];

	memset(many, 'x', sizeof many);
	say(many, sizeof many);
	for (int i = 0; inbuf_read(&b, pipefd[0], 1300) > 0; i++)
		assert_in_range(i, 0, 10);
	assert_int_equal(b.len, 1300);
	assert_int_equal(inbuf_read(&b, pipefd[0], 1300), -ENOBUFS);
	inbuf_take(&b, 1000);
	assert_int_equal(inbuf_read(&b, pipefd[0], 1300), 1000);
	inbuf_finish(&b);
	assert_null(b.data);
}

static void put(void **state)
{
	struct inbuf b = { 0 };
	char many[3000];

	memset(many, 'y', sizeof many);
	assert_int_equal(inbuf_put(&b, NULL, 0), 0);
	assert_null(b.data);
	assert_int_equal(inbuf_put(&b, "ab", 2), 0);
	assert_int_equal(inbuf_put(&b, many, sizeof many), 0);
	assert_int_equal(b.len, 3002);
	assert_memory_equal(b.data, "abyy", 4);
	inbuf_finish(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_kept_when_empty, open_pipe, close_pipe),
		cmocka_unit_test_setup_teardown(never_above_max, open_pipe, close_pipe),
		cmocka_unit_test(put),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
