#include <errno.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "loop.h"
#include "sockun.h"
#include "unit.h"

static struct loop loop;
static struct loop_source one, two;
static int calls, order[4];

static void remove_other(struct loop_source *s, uint32_t events)
{
	calls++;
	loop_source_remove(&loop, s == &one ? &two : &one);
	loop_stop(&loop, 7);
}

static void removed_source_is_not_called(void **state)
{
	CLEANUP_CLOSE int a = -EBADF, b = -EBADF;
	int pair[2];

	assert_int_equal(sockun_pair(SOCK_STREAM, pair), 0);
	a = pair[0], b = pair[1];
	assert_int_equal(loop_init(&loop), 0);
	loop_source_init(&one, remove_other);
	loop_source_init(&two, remove_other);
	assert_int_equal(loop_source_add(&loop, &one, a, EPOLLOUT), 0);
	assert_int_equal(loop_source_add(&loop, &two, b, EPOLLOUT), 0);
	calls = 0;
	assert_int_equal(loop_run(&loop), 7);
	assert_int_equal(calls, 1);
	loop_finish(&loop);
}

static struct loop_timer timers[3];
static struct loop_job job;

static void fired(struct loop_timer *t)
{
	order[calls++] = (int)(t - timers);
	if (calls == 2)
		loop_stop(&loop, 0);
}

static void job_ran(struct loop_job *j)
{
	order[3]++;
	if (order[3] < 5)
		loop_job_add(&loop, j);
}

static void timers_in_order(void **state)
{
	calls = order[3] = 0;
	assert_int_equal(loop_init(&loop), 0);
	for (int i = 0; i < 3; i++)
		loop_timer_init(&timers[i], fired);
	loop_job_init(&job, job_ran);
	loop_job_add(&loop, &job);
	loop_timer_set(&loop, &timers[0], 20000);
	loop_timer_set(&loop, &timers[1], 10000);
	loop_timer_set(&loop, &timers[2], 15000);
	loop_timer_clear(&timers[2]);
	assert_int_equal(loop_run(&loop), 0);
	assert_int_equal(order[0], 1);
	assert_int_equal(order[1], 0);
	assert_int_equal(order[3], 5);
	loop_finish(&loop);
}

static void told_again(struct loop_source *s, uint32_t events)
{
	if (++calls == 2)
		loop_stop(&loop, 0);
	else
		assert_int_equal(loop_source_rearm(&loop, s, EPOLLOUT | EPOLLET), 0);
}

static void edge_is_told_again_when_rearmed(void **state)
{
	CLEANUP_CLOSE int a = -EBADF, b = -EBADF;
	int pair[2];

	assert_int_equal(sockun_pair(SOCK_STREAM, pair), 0);
	a = pair[0], b = pair[1];
	assert_int_equal(loop_init(&loop), 0);
	loop_source_init(&one, told_again);
	assert_int_equal(loop_source_add(&loop, &one, a, EPOLLOUT | EPOLLET), 0);
	calls = 0;
	assert_int_equal(loop_run(&loop), 0);
	assert_int_equal(calls, 2);
	loop_finish(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(removed_source_is_not_called),
		cmocka_unit_test(timers_in_order),
		cmocka_unit_test(edge_is_told_again_when_rearmed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
