/*
 * One life of uvms-vsockd with everything around it, for sweep-vsockd.py: front-end, guest, host programs, and a keeper
 * that starts the next one as the supervisor would.
 *
 * The first vsockd is used and killed, the second finds what that left, is used, and hands over to the third, which is
 * used, sees the guest reset, and ends. UVMS_SWEEP_WHICH (1, 2, 3) of them is UVMS_SWEEP_PROGRAM, in which a fault
 * strikes somewhere; UVMS_SWEEP_MODE says what it may have done:
 *
 *	none    nothing: all of the life has to go well
 *	kill    SIGKILL
 *	errors  an error from a system call: it ends with a status and a word in UVMS_SWEEP_LOG, or goes on
 *
 * Whatever it was: what was connected either goes on with every byte in its place, or both ends see the end; new
 * connections are served at once; nobody spins, hangs or has a descriptor too many; and the last one ends with 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fake-frontend.h"
#include "fd.h"
#include "file.h"
#include "str.h"
#include "unit.h"

#define LOST         3
#define HANDED_OVER  4
#define CONNS        32
#define LISTEN_PORT  7000
#define NOBODYS_PORT 7001
#define CREDIT       65536               /* both ways */
#define UP_BYTES     ((size_t)320 << 10) /* more than a socket and a ring hold */
#define DOWN_BYTES   ((size_t)96 << 10)
#define WAIT_USEC    3000000 /* longer than vsockd's own deadlines */
#define IDLE_CPU_NS  5000000
#define CPU_NS       1500000000

struct conn {
	uint32_t guest_port, peer_port;
	int fd;        /* the host's end; -EBADF: none (yet, or any more) */
	bool by_host;  /* the host called */
	bool asked;    /* the guest's REQUEST is out, or the host's has come */
	bool answered; /* by either */
	bool greeted;  /* the OK line was read */
	bool reset;    /* the guest was told, or has told */
	bool eof;      /* the host was told */
	unsigned shut; /* what vsockd said to the guest */
	size_t up_sent, up_got, down_sent, down_got;
	uint32_t told; /* how much of up_sent went on */
};

static struct fake f;
static struct conn conns[CONNS];
static size_t n_conns;
static int listener = -EBADF;
static enum { NONE, KILL, ERRORS } mode;
static int which, n_spawned;
static bool trouble; /* something did not go on as without a fault */

static struct conn *conn_new(uint32_t guest_port)
{
	struct conn *c = &conns[n_conns++];

	assert_true(n_conns <= CONNS);
	*c = (struct conn){ .guest_port = guest_port, .peer_port = LISTEN_PORT, .fd = -EBADF };
	return c;
}

static struct conn *conn_find(uint32_t guest_port)
{
	for (size_t i = 0; i < n_conns; i++) {
		if (conns[i].guest_port == guest_port)
			return &conns[i];
	}
	return NULL;
}

static uint8_t pattern(const struct conn *c, size_t i)
{
	return (uint8_t)(i * 7 + i / 251 + c->guest_port);
}

/* ---- the keeper ---- */

/* The one that is started next is the one with the fault, or a sound one. */
static void choose(void)
{
	bool faulty = ++n_spawned == which;

	setenv("UVMS_VSOCKD", getenv(faulty ? "UVMS_SWEEP_PROGRAM" : "UVMS_SWEEP_SOUND"), 1);
}

static bool log_explains(void)
{
	static const char *const words[] = { "cannot serve: ", "session failed at ",
		"cannot be taken over: ", "channel failed: ",
		"error while loading shared libraries" };
	char text[8192] = "";
	FILE *log = fopen(getenv("UVMS_SWEEP_LOG"), "re");

	if (log)
		text[fread(text, 1, sizeof text - 1, log)] = 0;
	if (log)
		fclose(log);
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (strstr(text, words[i]))
			return true;
	}
	return false;
}

/* CODE is what vsockd ended with, and nobody had asked it to. */
static void judge(int code)
{
	trouble = true;
	if (code == -SIGKILL)
		assert_int_equal(mode, KILL);
	else if (code < 0)
		fail_msg("vsockd was killed by signal %d", -code);
	else if (mode != ERRORS)
		fail_msg("vsockd ended with status %d", code);
	else if (code == 0)
		fail_msg("vsockd ended with 0 after an error");
	else if (code != LOST && !log_explains())
		fail_msg("vsockd ended with %d without a word", code);
	if (code == LOST) { /* which is the end of the VM: nothing else is promised */
		file_remove_tree_at(AT_FDCWD, f.dir);
		_exit(0);
	}
}

static void on_end(struct fake *x)
{
	static int n;
	int code = fake_reap(x);

	judge(code);
	assert_true(n++ < 2);
	choose();
	fake_revive(x);
}

/* ---- what comes ---- */

static struct vsock_pkt packet(const struct conn *c, uint16_t op)
{
	struct vsock_pkt p = fake_pkt(op, c->guest_port, c->peer_port);

	p.buf_alloc = CREDIT;
	p.fwd_cnt = (uint32_t)c->down_got;
	return p;
}

static void say(const struct conn *c, uint16_t op, unsigned flags)
{
	struct vsock_pkt p = packet(c, op);

	p.flags = flags;
	fake_tx(&f, &p, NULL, 0);
}

static void take_data(struct conn *c, const struct vsock_pkt *p, const uint8_t *bytes)
{
	assert_false(c->reset);
	for (size_t i = 0; i < p->len; i++) {
		if (bytes[i] != pattern(c, c->down_got + i))
			fail_msg("byte %zu from the host is wrong", c->down_got + i);
	}
	c->down_got += p->len;
}

/* One packet for the guest. */
static bool hear(int msec)
{
	uint8_t bytes[FAKE_RX_BYTES];
	struct vsock_pkt p;
	struct conn *c;

	if (!fake_rx(&f, &p, bytes, msec))
		return false;
	c = conn_find(p.dst_port);
	if (!c)
		return true; /* late, of one that is done with */
	switch (p.op) {
	case VSOCK_OP_REQUEST:
		assert_true(c->by_host);
		c->asked = true;
		c->peer_port = p.src_port;
		break;
	case VSOCK_OP_RESPONSE: c->answered = true; break;
	case VSOCK_OP_RST: c->reset = true; break;
	case VSOCK_OP_SHUTDOWN: c->shut |= p.flags; break;
	case VSOCK_OP_RW: take_data(c, &p, bytes); break;
	case VSOCK_OP_CREDIT_REQUEST: say(c, VSOCK_OP_CREDIT_UPDATE, 0); break;
	default: assert_int_equal(p.op, VSOCK_OP_CREDIT_UPDATE);
	}
	if (p.op != VSOCK_OP_RST)
		c->told = p.fwd_cnt;
	return true;
}

/* The rest of a line "OK n\n" in front of the bytes. */
static void host_greet(struct conn *c)
{
	char b = 0;
	ssize_t r;

	while ((r = recv(c->fd, &b, 1, MSG_DONTWAIT)) == 1 && b != '\n')
		;
	c->greeted = r == 1;
	c->eof |= r == 0 || (r < 0 && errno != EAGAIN);
}

static void host_read(struct conn *c)
{
	static uint8_t bytes[65536];
	ssize_t n;

	if (c->fd < 0 || c->eof)
		return;
	if (c->by_host && !c->greeted)
		host_greet(c);
	if (c->eof || (c->by_host && !c->greeted))
		return;
	while ((n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (bytes[i] != pattern(c, c->up_got + (size_t)i))
				fail_msg("byte %zu from the guest is wrong", c->up_got + (size_t)i);
		}
		c->up_got += (size_t)n;
	}
	c->eof |= n == 0 || errno != EAGAIN;
}

typedef bool condition(const struct conn *c);

/* False: it has not come, and C is in trouble if it should have. */
static bool until(condition *cond, struct conn *c)
{
	uint64_t end = fake_now_usec() + WAIT_USEC;

	while (!cond(c)) {
		if (fake_now_usec() > end)
			return false;
		if (!hear(0)) {
			host_read(c);
			if (!cond(c))
				hear(1);
		}
	}
	return true;
}

static bool is_settled(const struct conn *c)
{
	return c->answered || c->reset;
}

static bool is_asked(const struct conn *c)
{
	return c->asked || c->eof;
}

static bool is_greeted(const struct conn *c)
{
	return c->greeted || c->eof;
}

static bool is_reset(const struct conn *c)
{
	return c->reset;
}

static bool is_eof(const struct conn *c)
{
	return c->eof;
}

static bool is_half(const struct conn *c)
{
	return c->reset || (c->shut & VSOCK_SHUTDOWN_SEND);
}

static bool guest_knows(const struct conn *c)
{
	return c->reset || c->shut == VSOCK_SHUTDOWN_BOTH;
}

static void must(bool good, const char *what, const struct conn *c)
{
	if (!good)
		fail_msg("%s (port %u, spawned %d)", what, c->guest_port, n_spawned);
}

static bool lost(struct conn *c)
{
	trouble |= c->reset || c->eof;
	return c->reset || c->eof;
}

/* ---- what is done; false: the connection was lost ---- */

/* The newest in the listener's queue: those before it are of calls whose vsockd has died. */
static void take_call(struct conn *c)
{
	struct pollfd p = { .fd = listener, .events = POLLIN };
	int fd;

	must(poll(&p, 1, 1000) == 1, "answered, and nobody called", c);
	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		fd_close(c->fd);
		c->fd = fd;
	}
}

static void forget_calls(void)
{
	int fd;

	while ((fd = accept(listener, NULL, NULL)) >= 0)
		close(fd);
}

static bool guest_calls(struct conn *c)
{
	forget_calls();
	c->asked = true;
	say(c, VSOCK_OP_REQUEST, 0);
	must(until(is_settled, c), "the guest's call is not answered", c);
	if (!c->reset)
		take_call(c);
	host_read(c);
	return !lost(c);
}

static bool host_calls(struct conn *c)
{
	char line[32];
	int n = snprintf(line, sizeof line, "CONNECT %u\n", c->guest_port);

	c->by_host = true;
	c->fd = fake_connect(&f);
	(void)send(c->fd, line, (size_t)n, MSG_NOSIGNAL); /* what has died already is seen below */
	must(until(is_asked, c), "the host's call does not arrive", c);
	if (lost(c))
		return false;
	c->answered = true;
	say(c, VSOCK_OP_RESPONSE, 0);
	must(until(is_greeted, c), "no OK", c);
	return !lost(c);
}

static void guest_sends(struct conn *c, size_t total)
{
	static uint8_t bytes[16384];
	size_t n = total - c->up_sent, room = CREDIT - (uint32_t)((uint32_t)c->up_sent - c->told);
	struct vsock_pkt p = packet(c, VSOCK_OP_RW);

	n = n < room ? n : room;
	n = n < sizeof bytes ? n : sizeof bytes;
	for (size_t i = 0; i < n; i++)
		bytes[i] = pattern(c, c->up_sent + i);
	p.len = (uint32_t)n;
	if (n > 0)
		fake_tx(&f, &p, bytes, n);
	c->up_sent += n;
}

static void host_sends(struct conn *c, size_t total)
{
	static uint8_t bytes[32768];
	size_t n = total - c->down_sent;
	ssize_t r;

	n = n < sizeof bytes ? n : sizeof bytes;
	for (size_t i = 0; i < n; i++)
		bytes[i] = pattern(c, c->down_sent + i);
	r = n > 0 ? send(c->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	if (r > 0)
		c->down_sent += (size_t)r;
}

/* UP more bytes from the guest, DOWN more from the host; LAZY: the host does not read until nothing moves any more. */
static bool exchange(struct conn *c, size_t up, size_t down, bool lazy)
{
	uint64_t end = fake_now_usec() + WAIT_USEC;
	size_t seen = 0;

	up += c->up_sent;
	down += c->down_sent;
	while (c->up_got < up || c->down_got < down) {
		must(fake_now_usec() < end, "bytes do not move on", c);
		guest_sends(c, up);
		host_sends(c, down);
		while (hear(0))
			;
		if (!lazy)
			host_read(c);
		if (lost(c))
			return false;
		if (seen != c->up_sent + c->up_got + c->down_got)
			seen = c->up_sent + c->up_got + c->down_got;
		else if (!hear(2))
			lazy = false;
	}
	return true;
}

/* Each direction by itself, the guest's first; then both forget it. */
static void close_in_halves(struct conn *c)
{
	say(c, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND);
	must(until(is_eof, c), "the guest's half-close does not arrive", c);
	if (c->reset) {
		trouble = true;
		return;
	}
	shutdown(c->fd, SHUT_WR);
	must(until(is_half, c), "the host's half-close does not arrive", c);
	c->fd = fd_close(c->fd);
	must(until(guest_knows, c), "the host's close does not arrive", c);
	if (!c->reset)
		say(c, VSOCK_OP_RST, 0);
	c->reset = true;
}

/* Whatever state it is in: both ends see the end. */
static void see_the_end(struct conn *c)
{
	if (c->asked && !c->by_host)
		must(until(is_settled, c), "neither answered nor reset", c);
	while (hear(0))
		;
	forget_calls();
	host_read(c);
	c->fd = fd_close(c->fd);
	if (c->reset || !c->asked)
		return;
	must(until(guest_knows, c), "the guest does not see the end", c);
	if (!c->reset)
		say(c, VSOCK_OP_RST, 0);
	c->reset = true;
}

/* A vsockd has died: what was open is lost, and neither end may wait for it. */
static void see_losses(void)
{
	for (size_t i = 0; i < n_conns; i++) {
		struct conn *c = &conns[i];

		if (c->answered && !c->reset)
			must(until(is_reset, c), "the guest is not told of a death", c);
		if (c->fd >= 0)
			must(until(is_eof, c), "the host is not told of a death", c);
		c->fd = fd_close(c->fd);
	}
}

static bool serves(uint32_t base)
{
	struct conn *a = conn_new(base), *b = conn_new(base + 1);

	if (!guest_calls(a) || !exchange(a, 4096, 4096, false))
		return false;
	if (!host_calls(b) || !exchange(b, 4096, 4096, false))
		return false;
	close_in_halves(a);
	close_in_halves(b);
	return true;
}

static bool refuses(uint32_t base)
{
	struct conn *c = conn_new(base);

	c->peer_port = NOBODYS_PORT;
	c->asked = true;
	say(c, VSOCK_OP_REQUEST, 0);
	must(until(is_settled, c), "a call to nobody is not answered", c);
	assert_false(c->answered);
	return !trouble;
}

static bool bears_bad_callers(void)
{
	struct conn bad = { .fd = fake_connect(&f) };
	int half = fake_connect(&f);

	(void)send(half, "CONN", 4, MSG_NOSIGNAL);
	(void)send(bad.fd, "CONNECT x\n", 10, MSG_NOSIGNAL);
	must(until(is_eof, &bad), "a bad caller is not sent away", &bad);
	close(bad.fd);
	close(half);
	return !trouble;
}

/* Everything with what has been started; two connections are left open. */
static bool use(uint32_t base)
{
	uint8_t ping[KEEPER_WIRE_BYTES];
	struct conn *a = conn_new(base), *b = conn_new(base + 1);

	keeper_wire_put(ping, &(struct keeper_msg){ KEEPER_PING, 0, 1 });
	(void)send(f.keeper_fd, ping, sizeof ping, MSG_NOSIGNAL);
	return guest_calls(a) && exchange(a, UP_BYTES, DOWN_BYTES, true) && host_calls(b) &&
	       exchange(b, 8192, DOWN_BYTES, false) && serves(base + 10) && refuses(base + 20) &&
	       bears_bad_callers();
}

static bool replace(void)
{
	fake_on_end = NULL;
	kill(f.pid, SIGKILL);
	if (fake_reap(&f) != -SIGKILL)
		fail_msg("vsockd had ended before it was killed");
	choose();
	fake_revive(&f);
	fake_on_end = on_end;
	see_losses();
	return !trouble;
}

/* What was open before a handover is still, byte for byte. */
static bool went_on(uint32_t base)
{
	struct conn *a = conn_find(base), *b = conn_find(base + 1);

	if (!exchange(a, 8192, 8192, false) || !exchange(b, 8192, 8192, false))
		return false;
	close_in_halves(a);
	close_in_halves(b);
	return !trouble;
}

static void drop_next(struct fake_next *n)
{
	int code = fake_next_drop(n);

	trouble = true;
	if (code != -SIGKILL)
		judge(code);
}

/* There is no handover: who is in service, if it lives, has all that it had. */
static bool stays(struct fake_next *n, uint32_t base)
{
	bool lives = poll(&(struct pollfd){ .fd = f.pidfd, .events = POLLIN }, 1, 0) == 0;

	drop_next(n);
	fake_on_end = on_end;
	trouble = false;
	if (lives && !went_on(base))
		fail_msg("a connection is lost, though nothing was handed over");
	trouble = true;
	return false;
}

/* The one in service has ended with CODE; N is the next, if it lives. */
static bool handed(struct fake_next *n, int code)
{
	if (code != HANDED_OVER)
		judge(code);
	if (poll(&(struct pollfd){ .fd = n->pidfd, .events = POLLIN }, 1, 0) == 0) {
		fake_next_adopt(&f, n);
	} else {
		drop_next(n);
		choose();
		fake_revive(&f);
	}
	fake_on_end = on_end;
	return !trouble;
}

/* As sv-handover does it. */
static bool hand_over(uint32_t base)
{
	uint64_t end = fake_now_usec() + 2 * WAIT_USEC;
	unsigned said = f.stays;
	struct fake_next n;

	choose();
	fake_next_start(&f, &n);
	fake_on_end = NULL;
	if (!fake_next_waits(&n, 3000) || !fake_next_ask(&f, &n))
		return stays(&n, base);
	while (f.stays == said) {
		struct pollfd p[2] = { { .fd = f.pidfd, .events = POLLIN },
			{ .fd = f.keeper_fd, .events = POLLIN } };

		if (fake_now_usec() > end)
			fail_msg("the handover hangs");
		poll(p, 2, 100);
		if (p[0].revents)
			return handed(&n, fake_reap(&f));
		fake_keep(&f);
	}
	return stays(&n, base);
}

static bool reset_guest(void)
{
	for (size_t i = 0; i < n_conns; i++) {
		see_the_end(&conns[i]);
		conns[i].reset = true;
	}
	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		uint32_t ask[2] = { i, 0 }, got[2];

		fake_message(&f, VU_GET_VRING_BASE, VU_FLAG_VERSION, ask, sizeof ask, NULL, 0);
		fake_reply(&f, VU_GET_VRING_BASE, got, sizeof got);
		assert_int_equal(got[1], fake_used(&f, i));
	}
	fake_rings_clear(&f);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		fake_setup_queue(&f, i);
	fake_get_u64(&f, VU_GET_QUEUE_NUM);
	fake_post_rx(&f, FAKE_NUM);
	return serves(4000);
}

static uint64_t cpu_ns(void)
{
	struct timespec t;
	clockid_t clock;

	assert_int_equal(clock_getcpuclockid(f.pid, &clock), 0);
	assert_int_equal(clock_gettime(clock, &t), 0);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void is_idle(void)
{
	uint64_t before = cpu_ns(), spent;

	usleep(50000);
	spent = cpu_ns() - before;
	if (spent > IDLE_CPU_NS)
		fail_msg("it spins: %llu us of 50 ms", (unsigned long long)spent / 1000);
	assert_true(before < CPU_NS);
}

/* Whatever it was: it is over. */
static void forget_all(void)
{
	for (size_t i = 0; i < n_conns; i++)
		see_the_end(&conns[i]);
	n_conns = 0;
	trouble = false;
}

static void life(void **state)
{
	const char *fds = getenv("UVMS_SWEEP_FDS");
	bool struck;
	int code;

	choose();
	fake_on_end = on_end;
	fake_setup(&f);
	if (fds)
		f.fds_at_start = atoi(fds); /* this one may have died before they were counted */
	else
		printf("descriptors: %d\n", f.fds_at_start);
	listener = fake_listen(&f, LISTEN_PORT, 64);
	fd_set_nonblock(listener, 1);
	(void)(use(1000) && replace() && use(2000) && hand_over(2000) && went_on(2000) &&
		use(3000) && reset_guest());
	struck = trouble;
	if (struck && mode == NONE)
		fail_msg("it does not even go well without a fault (spawned %d)", n_spawned);
	forget_all();
	if (!serves(5000)) { /* perhaps it struck just now */
		if (struck)
			fail_msg("new connections are not served");
		forget_all();
		assert_true(serves(6000));
	}
	fake_assert_no_leak(&f);
	is_idle();
	fake_on_end = NULL;
	shutdown(f.sock, SHUT_RDWR);
	close(listener);
	code = fake_wait_exit(&f);
	if (code != 0)
		judge(code);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(life) };
	const char *word = getenv("UVMS_SWEEP_MODE");

	mode = str_eq(word, "kill") ? KILL : str_eq(word, "errors") ? ERRORS : NONE;
	which = atoi(getenv("UVMS_SWEEP_WHICH"));
	fake_keeps = true;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
