/* The device without a VMM: what it does when queues stop and start. */
#include <sys/socket.h>
#include <unistd.h>

#include "unit.h"
#include "vsock-dev.h"

static struct loop loop;
static struct vsock_mux m;
static struct vsock_dev d;
static int far_end, host_end;

static void wake(struct vsock_mux *mux)
{
}

static int dial(struct vsock_mux *mux, uint32_t port)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	host_end = pair[1];
	return pair[0];
}

static const struct vsock_mux_hooks mux_hooks = { .wake = wake, .dial = dial };
static const struct vsock_dev_hooks dev_hooks;

/* A connection is open, and the queues of RUNNING (bits) run. */
static void begin(unsigned running)
{
	const struct vsock_pkt p = { .src_cid = 42,
		.dst_cid = 2,
		.src_port = 1000,
		.dst_port = 7000,
		.type = VSOCK_TYPE_STREAM,
		.op = VSOCK_OP_REQUEST };
	int pair[2];

	assert_int_equal(loop_init(&loop), 0);
	assert_int_equal(vsock_mux_init(&m, &loop, &mux_hooks, 42, 1), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	far_end = pair[1];
	assert_int_equal(vsock_dev_open(&d, &loop, &m, &dev_hooks, pair[0]), 0);
	vsock_mux_input(&m, &p, NULL, 0, 0);
	for (unsigned i = 0; i < 3; i++)
		d.backend.queues[i].running = running >> i & 1;
}

static void finish(void)
{
	for (unsigned i = 0; i < 3; i++)
		d.backend.queues[i].running = false;
	vsock_dev_close(&d);
	vsock_mux_finish(&m);
	close(far_end);
	close(host_end);
	loop_finish(&loop);
}

static void stop(unsigned queue)
{
	d.backend.queues[queue].running = false;
	d.backend.device->stopped(&d.backend, queue);
}

static bool host_sees_the_end(void)
{
	char c;

	return recv(host_end, &c, 1, MSG_DONTWAIT) == 0;
}

static void stopped_for_long(void **state)
{
	uint64_t now = loop_now_usec();

	begin(3);
	stop(0);
	assert_true(list_empty(&d.absent.link));
	stop(1);
	assert_false(list_empty(&d.absent.link));
	assert_true(d.absent.at_usec >= now + VSOCK_DEV_ABSENT_USEC);
	assert_false(host_sees_the_end());
	loop_timer_clear(&d.absent);
	d.absent.fn(&d.absent);
	assert_true(host_sees_the_end());
	/* only paused after all: it finds a reset */
	d.backend.device->started(&d.backend, 0, VU_BEGIN_ON);
	assert_true(vsock_mux_has_output(&m));
	finish();
}

static void paused(void **state)
{
	begin(3);
	stop(0);
	stop(1);
	d.backend.device->started(&d.backend, 0, VU_BEGIN_ON);
	assert_true(list_empty(&d.absent.link));
	assert_false(host_sees_the_end());
	finish();
}

static void started_anew(void **state)
{
	begin(3);
	stop(0);
	stop(1);
	d.backend.device->started(&d.backend, 0, VU_BEGIN_ANEW);
	assert_true(list_empty(&d.absent.link));
	assert_true(host_sees_the_end());
	assert_int_equal(m.table.n_used, 0);
	finish();
}

/* The event queue alone serves nobody. */
static void event_queue_is_no_guest(void **state)
{
	begin(7);
	stop(0);
	stop(1);
	assert_false(list_empty(&d.absent.link));
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stopped_for_long),
		cmocka_unit_test(paused),
		cmocka_unit_test(started_anew),
		cmocka_unit_test(event_queue_is_no_guest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
