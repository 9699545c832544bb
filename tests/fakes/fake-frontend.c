#include "fake-frontend.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "fdpass.h"
#include "file.h"
#include "sockun.h"
#include "spawn.h"
#include "unit.h"

bool fake_indirect, fake_keeps, fake_unsealed;
void (*fake_on_end)(struct fake *f);

uint64_t fake_now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* poll(), in which the end of vsockd is noticed. */
static int fake_poll(struct fake *f, struct pollfd *p, int msec)
{
	uint64_t end = fake_now_usec() + (uint64_t)msec * 1000;

	for (;;) {
		struct pollfd both[2] = { *p, { .fd = f->pidfd, .events = POLLIN } };
		uint64_t now = fake_now_usec();
		int n = poll(
			both, fake_on_end ? 2 : 1, now < end ? (int)((end - now + 999) / 1000) : 0);

		if (n <= 0 || both[0].revents)
			return n < 0 ? n : !!both[0].revents;
		fake_on_end(f);
	}
}

void fake_keep(struct fake *f)
{
	for (;;) {
		uint8_t bytes[KEEPER_WIRE_BYTES];
		struct pollfd p = { .fd = f->keeper_fd, .events = POLLIN };
		struct keeper_msg m;
		int fd = -EBADF;
		size_t n_fds = 1;
		ssize_t n;

		if (poll(&p, 1, 0) <= 0)
			return;
		n = fdpass_recv_left(f->keeper_fd, bytes, sizeof bytes, &fd, &n_fds);
		if (n <= 0)
			return;
		assert_int_equal(keeper_wire_get(bytes, (size_t)n, n_fds, &m), 0);
		f->pongs += m.op == KEEPER_PONG;
		f->stays += m.op == KEEPER_STAYS;
		if (m.op != KEEPER_KEEP && m.op != KEEPER_DROP)
			continue;
		if (f->slots[m.slot] >= 0)
			close(f->slots[m.slot]);
		f->slots[m.slot] = fd;
	}
}

static void fake_offer_kept(struct fake *f)
{
	uint8_t bytes[KEEPER_WIRE_BYTES];

	for (uint8_t i = 0; i < KEEPER_SLOTS; i++) {
		if (f->slots[i] < 0)
			continue;
		keeper_wire_put(bytes, &(struct keeper_msg){ KEEPER_KEEP, i, 0 });
		if (fdpass_send(f->keeper_fd, bytes, sizeof bytes, &f->slots[i], 1) < 0)
			return; /* it has died: that is seen by itself */
	}
	keeper_wire_put(bytes, &(struct keeper_msg){ KEEPER_GO, 0, 0 });
	(void)fdpass_send(f->keeper_fd, bytes, sizeof bytes, NULL, 0);
}

/* With its end of the keeper's channel, and one to the process in service; -EBADF: none. */
static void fake_spawn_with(
	struct fake *f, int keeper_fd, int from_fd, pid_t *ret_pid, int *ret_pidfd)
{
	const char *argv[24] = { getenv("UVMS_VSOCKD"), "--name", "fake", "--cid", "42",
		"--vhost-fd", "3", "--listen-fd", "4", "--table-fd", "5", "--path", "v" };
	int fds[] = { f->device_fd, f->listen_fd, f->table_fd, keeper_fd, f->state_fd, from_fd };
	struct spawn s = { SPAWN_DEFAULTS, .path = argv[0], .argv = argv, .fds = fds,
		.n_fds = from_fd >= 0 ? 6
			 : fake_keeps ? 5
				      : 3 };
	size_t n = 13;

	if (fake_keeps) {
		const char *more[] = { "--keeper-fd", "6", "--state-fd", "7", "--from-fd", "8" };

		size_t n_more = from_fd >= 0 ? 6 : 4;

		memcpy(argv + n, more, n_more * sizeof *more);
		n += n_more;
	}
	if (fake_unsealed)
		argv[n++] = "--may-shrink";
	argv[n] = getenv("UVMS_VSOCKD_ARG");
	s.cwd_fd = open(f->dir, O_DIRECTORY | O_CLOEXEC);
	assert_true(s.cwd_fd >= 0);
	s.stderr_fd = STDERR_FILENO;
	assert_non_null(argv[0]);
	assert_int_equal(spawn_process(&s, ret_pid, ret_pidfd), 0);
	close(s.cwd_fd);
}

static void fake_spawn(struct fake *f)
{
	int pair[2] = { -EBADF, -EBADF };

	if (fake_keeps) {
		assert_int_equal(sockun_pair(SOCK_SEQPACKET, pair), 0);
		f->keeper_fd = pair[0];
		fake_offer_kept(f);
	}
	f->pidfd = fd_close(f->pidfd);
	fake_spawn_with(f, pair[1], -EBADF, &f->pid, &f->pidfd);
	fd_close(pair[1]);
}

static int fake_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void fake_next_start(struct fake *f, struct fake_next *ret)
{
	const struct timeval limit = { .tv_sec = 2 };
	int channel[2], keeper[2];

	assert_int_equal(sockun_pair(SOCK_SEQPACKET, channel), 0);
	assert_int_equal(sockun_pair(SOCK_SEQPACKET, keeper), 0);
	for (int i = 0; i < 2; i++) {
		setsockopt(channel[i], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
		setsockopt(channel[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	}
	fake_spawn_with(f, keeper[1], channel[1], &ret->pid, &ret->pidfd);
	close(keeper[1]);
	close(channel[1]);
	ret->keeper_fd = keeper[0];
	ret->channel_fd = channel[0];
}

bool fake_next_waits(const struct fake_next *n, int msec)
{
	struct pollfd p[2] = { { .fd = n->keeper_fd, .events = POLLIN },
		{ .fd = n->pidfd, .events = POLLIN } };
	uint8_t bytes[KEEPER_WIRE_BYTES];

	return poll(p, 2, msec) > 0 && p[0].revents &&
	       recv(n->keeper_fd, bytes, sizeof bytes, MSG_DONTWAIT) == sizeof bytes &&
	       bytes[0] == KEEPER_WAITS;
}

bool fake_next_ask(struct fake *f, struct fake_next *n)
{
	uint8_t bytes[KEEPER_WIRE_BYTES];
	ssize_t r;

	keeper_wire_put(bytes, &(struct keeper_msg){ .op = KEEPER_HANDOVER });
	r = fdpass_send(f->keeper_fd, bytes, sizeof bytes, &n->channel_fd, 1);
	n->channel_fd = fd_close(n->channel_fd);
	return r == sizeof bytes;
}

void fake_next_adopt(struct fake *f, struct fake_next *n)
{
	fake_keep(f);
	fd_close(n->channel_fd);
	close(f->keeper_fd);
	fd_close(f->pidfd);
	f->keeper_fd = n->keeper_fd;
	f->pid = n->pid;
	f->pidfd = n->pidfd;
	fake_offer_kept(f);
}

int fake_next_drop(struct fake_next *n)
{
	int status;

	kill(n->pid, SIGKILL);
	assert_int_equal(waitpid(n->pid, &status, 0), n->pid);
	fd_close(n->channel_fd);
	close(n->keeper_fd);
	close(n->pidfd);
	return fake_code(status);
}

int fake_hand_over(struct fake *f, pid_t *ret_next)
{
	struct fake_next n;
	int status;

	fake_next_start(f, &n);
	assert_true(fake_next_waits(&n, 5000));
	if (ret_next)
		*ret_next = n.pid;
	assert_true(fake_next_ask(f, &n));
	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	fake_next_adopt(f, &n);
	return fake_code(status);
}

int fake_reap(struct fake *f)
{
	int status;

	assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
	f->pidfd = fd_close(f->pidfd);
	return fake_code(status);
}

void fake_revive(struct fake *f)
{
	fake_keep(f);
	close(f->keeper_fd);
	fake_spawn(f);
}

int fake_replace(struct fake *f)
{
	int code;

	kill(f->pid, SIGKILL);
	code = fake_reap(f);
	fake_revive(f);
	return code;
}

int fake_memory(bool sealed)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | (sealed ? MFD_ALLOW_SEALING : 0));

	assert_int_equal(ftruncate(fd, FAKE_MEM_BYTES), 0);
	if (sealed)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	return fd;
}

void fake_redial(struct fake *f)
{
	int pair[2];

	close(f->sock);
	assert_int_equal(fake_reap(f), 0);
	close(f->table_fd);
	f->table_fd = memfd_create("table", MFD_CLOEXEC);
	assert_int_equal(sockun_pair(SOCK_STREAM, pair), 0);
	f->sock = pair[0];
	f->device_fd = pair[1];
	fake_spawn(f);
	close(f->device_fd);
}

void fake_start(struct fake *f)
{
	int pair[2], dir_fd;

	*f = (struct fake){ .state_fd = -EBADF, .keeper_fd = -EBADF, .pidfd = -EBADF };
	memset(f->slots, 0xff, sizeof f->slots);
	signal(SIGPIPE, SIG_IGN);
	strcpy(f->dir, "/tmp/fake-frontend-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	dir_fd = open(f->dir, O_DIRECTORY | O_CLOEXEC);
	assert_true(dir_fd >= 0);
	f->listen_fd = sockun_listen_at(dir_fd, "v", 0600, 1024);
	assert_true(f->listen_fd >= 0);
	close(dir_fd);
	f->table_fd = memfd_create("table", MFD_CLOEXEC);
	if (fake_keeps)
		f->state_fd = memfd_create("state", MFD_CLOEXEC);
	assert_int_equal(sockun_pair(SOCK_STREAM, pair), 0);
	f->sock = pair[0];
	f->device_fd = pair[1];
	fake_spawn(f);
	if (!fake_keeps)
		close(f->device_fd);

	f->mem_fd = fake_memory(!fake_unsealed);
	f->mem = mmap(NULL, FAKE_MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f->mem_fd, 0);
	assert_true(f->mem != MAP_FAILED);
	for (int i = 0; i < FAKE_RINGS; i++) {
		f->rings[i].at = 0x10000u * (unsigned)(i + 1);
		f->rings[i].kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		f->rings[i].call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
}

/* messages */

void fake_message(struct fake *f, uint32_t request, uint32_t flags, const void *payload, size_t len,
	const int *fds, size_t n_fds)
{
	uint8_t bytes[VU_WIRE_HEADER_BYTES + 1024];
	const uint32_t head[3] = { request, flags, (uint32_t)len };

	assert_true(len <= 1024);
	memcpy(bytes, head, sizeof head);
	if (len > 0)
		memcpy(bytes + sizeof head, payload, len);
	assert_int_equal(
		fdpass_send(f->sock, bytes, sizeof head + len, fds, n_fds), sizeof head + len);
}

static void fake_recv(struct fake *f, void *ret, size_t len)
{
	struct pollfd p = { .fd = f->sock, .events = POLLIN };

	assert_int_equal(fake_poll(f, &p, 5000), 1);
	assert_int_equal(recv(f->sock, ret, len, MSG_WAITALL), len);
}

size_t fake_reply(struct fake *f, uint32_t request, void *ret, size_t max)
{
	uint32_t head[3];

	fake_recv(f, head, sizeof head);
	assert_int_equal(head[0], request);
	assert_int_equal(head[1], VU_FLAG_VERSION | VU_FLAG_REPLY);
	assert_true(head[2] <= max);
	if (head[2] > 0)
		fake_recv(f, ret, head[2]);
	return head[2];
}

uint64_t fake_get_u64(struct fake *f, uint32_t request)
{
	uint64_t v;

	fake_message(f, request, VU_FLAG_VERSION, NULL, 0, NULL, 0);
	assert_int_equal(fake_reply(f, request, &v, sizeof v), sizeof v);
	return v;
}

void fake_set_u64(struct fake *f, uint32_t request, uint64_t v)
{
	fake_message(f, request, VU_FLAG_VERSION, &v, sizeof v, NULL, 0);
}

void fake_set_state(struct fake *f, uint32_t request, uint32_t index, uint32_t num)
{
	fake_message(f, request, VU_FLAG_VERSION, (uint32_t[]){ index, num }, 8, NULL, 0);
}

void fake_set_memory(struct fake *f)
{
	const uint64_t table[] = { 1, 0, FAKE_MEM_BYTES, FAKE_USER, 0 };

	fake_message(f, VU_SET_MEM_TABLE, VU_FLAG_VERSION, table, sizeof table, &f->mem_fd, 1);
}

/* The parts of a ring, as offsets from its place. */
#define FAKE_AVAIL virtq_desc_bytes(FAKE_NUM)
#define FAKE_USED  ((FAKE_AVAIL + virtq_avail_bytes(FAKE_NUM) + 3) & ~3ull)

void fake_setup_queue(struct fake *f, unsigned i)
{
	uint64_t user = FAKE_USER + f->rings[i].at, index = i;
	const uint64_t addr[] = { i, user, user + FAKE_USED, user + FAKE_AVAIL, 0 };

	fake_set_state(f, VU_SET_VRING_NUM, i, FAKE_NUM);
	fake_set_state(
		f, VU_SET_VRING_BASE, i, f->rings[i].avail); /* as Cloud Hypervisor says it */
	fake_message(f, VU_SET_VRING_ADDR, VU_FLAG_VERSION, addr, sizeof addr, NULL, 0);
	fake_message(f, VU_SET_VRING_KICK, VU_FLAG_VERSION, &index, 8, &f->rings[i].kick, 1);
	fake_message(f, VU_SET_VRING_CALL, VU_FLAG_VERSION, &index, 8, &f->rings[i].call, 1);
	fake_set_state(f, VU_SET_VRING_ENABLE, i, 1);
}

void fake_handshake(struct fake *f)
{
	uint8_t config[VU_WIRE_PAYLOAD_MAX];
	uint32_t ask[5] = { 0, 8, 0, 0, 0 };
	uint64_t cid;

	assert_int_equal(fake_get_u64(f, VU_GET_FEATURES) & FAKE_FEATURES, FAKE_FEATURES);
	fake_set_u64(f, VU_SET_PROTOCOL_FEATURES, fake_get_u64(f, VU_GET_PROTOCOL_FEATURES));
	fake_message(f, VU_SET_OWNER, VU_FLAG_VERSION, NULL, 0, NULL, 0);
	fake_message(f, VU_GET_CONFIG, VU_FLAG_VERSION, ask, sizeof ask, NULL, 0);
	assert_int_equal(fake_reply(f, VU_GET_CONFIG, config, sizeof config), 20);
	memcpy(&cid, config + 12, sizeof cid);
	assert_int_equal(cid, FAKE_CID);
	fake_set_u64(f, VU_SET_FEATURES, FAKE_FEATURES);
	fake_set_memory(f);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		fake_setup_queue(f, i);
	fake_get_u64(f, VU_GET_QUEUE_NUM); /* an answer: all before it is done */
	f->fds_at_start = fake_count_fds(f);
}

void fake_rings_clear(struct fake *f)
{
	for (int i = 0; i < FAKE_QUEUES; i++) {
		memset(f->mem + f->rings[i].at, 0, 0x10000);
		f->rings[i].avail = f->rings[i].used = 0;
	}
}

void fake_setup(struct fake *f)
{
	fake_start(f);
	fake_handshake(f);
	fake_post_rx(f, FAKE_NUM);
}

int fake_wait_exit(struct fake *f)
{
	uint64_t end = fake_now_usec() + 10000000;
	int status = 0;

	while (waitpid(f->pid, &status, WNOHANG) == 0) {
		if (fake_now_usec() > end) {
			kill(f->pid, SIGKILL);
			fail_msg("vsockd does not end");
		}
		usleep(1000);
	}
	if (fake_keeps) {
		fake_keep(f);
		close(f->keeper_fd);
		close(f->state_fd);
		close(f->device_fd);
		for (size_t i = 0; i < KEEPER_SLOTS; i++) {
			if (f->slots[i] >= 0)
				close(f->slots[i]);
		}
	}
	fd_close(f->pidfd);
	close(f->sock);
	close(f->mem_fd);
	close(f->table_fd);
	close(f->listen_fd);
	munmap(f->mem, FAKE_MEM_BYTES);
	for (int i = 0; i < FAKE_RINGS; i++) {
		close(f->rings[i].kick);
		close(f->rings[i].call);
	}
	file_remove_tree_at(AT_FDCWD, f->dir);
	return fake_code(status);
}

void fake_stop(struct fake *f)
{
	shutdown(f->sock, SHUT_RDWR);
	assert_int_equal(fake_wait_exit(f), 0);
}

bool fake_alive(struct fake *f)
{
	return waitpid(f->pid, NULL, WNOHANG) == 0;
}

int fake_count_fds(const struct fake *f)
{
	char path[64];
	int n = 0;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/fd", f->pid);
	d = opendir(path);
	if (!d)
		return -1;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

void fake_assert_no_leak(struct fake *f)
{
	uint64_t end = fake_now_usec() + 3000000;

	/* fewer is no leak: one that was on its way may have been counted at the start */
	while (fake_count_fds(f) > f->fds_at_start && fake_now_usec() < end)
		fake_poll(f, &(struct pollfd){ .fd = -1 }, 2);
	assert_in_range(fake_count_fds(f), 1, f->fds_at_start);
}

/* rings */

static uint8_t *fake_at(const struct fake *f, unsigned q, uint64_t offset)
{
	return f->mem + f->rings[q].at + offset;
}

void fake_desc(struct fake *f, unsigned q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags,
	uint16_t next)
{
	const struct vring_desc d = { htole64(addr), htole32(len), htole16(flags), htole16(next) };

	memcpy(fake_at(f, q, 16u * i), &d, sizeof d);
}

/* Descriptor I becomes what refers to a table of N at AT, in which the chain is already. */
static void fake_refer(struct fake *f, unsigned q, uint16_t i, uint64_t at, unsigned n)
{
	fake_desc(f, q, i, at, 16 * n, VRING_DESC_F_INDIRECT, 0);
}

void fake_publish(struct fake *f, unsigned q, uint16_t avail_idx)
{
	f->rings[q].avail = avail_idx;
	__atomic_store_n((uint16_t *)(void *)fake_at(f, q, FAKE_AVAIL + 2), htole16(avail_idx),
		__ATOMIC_SEQ_CST);
}

void fake_offer(struct fake *f, unsigned q, uint16_t head)
{
	uint16_t v = htole16(head);

	memcpy(fake_at(f, q, FAKE_AVAIL + 4 + 2u * (f->rings[q].avail % FAKE_NUM)), &v, sizeof v);
	fake_publish(f, q, f->rings[q].avail + 1);
}

void fake_kick(struct fake *f, unsigned q)
{
	assert_int_equal(eventfd_write(f->rings[q].kick, 1), 0);
}

uint16_t fake_used(const struct fake *f, unsigned q)
{
	return le16toh(__atomic_load_n(
		(uint16_t *)(void *)fake_at(f, q, FAKE_USED + 2), __ATOMIC_ACQUIRE));
}

static bool fake_wait_call(struct fake *f, unsigned q, uint16_t seen, int msec)
{
	struct pollfd p = { .fd = f->rings[q].call, .events = POLLIN };
	uint64_t end = fake_now_usec() + (uint64_t)msec * 1000;
	uint16_t event = htole16(seen);
	eventfd_t v;

	/* used_event: interrupt me for the next one */
	__atomic_store_n((uint16_t *)(void *)fake_at(f, q, FAKE_AVAIL + 4 + 2 * FAKE_NUM), event,
		__ATOMIC_SEQ_CST);
	while (fake_used(f, q) == seen) {
		int64_t left = (int64_t)(end - fake_now_usec()) / 1000;

		if (left <= 0)
			return false;
		if (fake_poll(f, &p, (int)left) > 0)
			eventfd_read(f->rings[q].call, &v);
	}
	return true;
}

void fake_wait_used(struct fake *f, unsigned q, uint16_t idx)
{
	while (fake_used(f, q) != idx)
		assert_true(fake_wait_call(f, q, fake_used(f, q), 3000));
	f->rings[q].used = idx;
}

void fake_post_rx(struct fake *f, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		uint16_t i = f->rings[0].avail % FAKE_NUM;

		fake_desc(f, 0, i, FAKE_RX_AT + (uint64_t)i * FAKE_RX_BYTES, FAKE_RX_BYTES,
			VRING_DESC_F_WRITE, 0);
		if (fake_indirect) {
			uint64_t table = FAKE_TABLES + 0x8000 + 16u * i;

			memcpy(f->mem + table, fake_at(f, 0, 16u * i), 16);
			fake_refer(f, 0, i, table, 1);
		}
		fake_offer(f, 0, i);
	}
	fake_kick(f, 0);
}

/* packets */

struct vsock_pkt fake_pkt(uint16_t op, uint32_t guest_port, uint32_t host_port)
{
	return (struct vsock_pkt){ .src_cid = FAKE_CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = guest_port,
		.dst_port = host_port,
		.type = VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = 262144 };
}

void fake_tx(struct fake *f, const struct vsock_pkt *p, const void *payload, size_t len)
{
	uint16_t slot = f->rings[1].avail % (FAKE_NUM / 2);
	uint64_t at = FAKE_TX_AT + (uint64_t)slot * (FAKE_TX_BYTES + 64);

	/* as a driver with two descriptors a packet: never more in flight than fit */
	while ((uint16_t)(f->rings[1].avail - fake_used(f, 1)) >= FAKE_NUM / 2)
		assert_true(fake_wait_call(f, 1, fake_used(f, 1), 5000));
	vsock_wire_put(f->mem + at, p);
	if (len > 0)
		memcpy(f->mem + at + 64, payload, len);
	fake_desc(
		f, 1, 2 * slot, at, VSOCK_HEADER_BYTES, len ? VRING_DESC_F_NEXT : 0, 2 * slot + 1);
	fake_desc(f, 1, 2 * slot + 1, at + 64, (uint32_t)len, 0, 0);
	if (fake_indirect) {
		const uint16_t second = htole16(1);
		uint64_t table = FAKE_TABLES + 32u * slot;

		memcpy(f->mem + table, fake_at(f, 1, 32u * slot), 32);
		memcpy(f->mem + table + 14, &second, sizeof second);
		fake_refer(f, 1, 2 * slot, table, len ? 2 : 1);
	}
	fake_offer(f, 1, 2 * slot);
	fake_kick(f, 1);
}

bool fake_rx(struct fake *f, struct vsock_pkt *ret, void *buf, int msec)
{
	struct fake_ring *r = &f->rings[0];
	uint32_t entry[2];
	uint8_t *data;

	if (fake_used(f, 0) == r->used && !fake_wait_call(f, 0, r->used, msec))
		return false;
	memcpy(entry, fake_at(f, 0, FAKE_USED + 4 + 8u * (r->used % FAKE_NUM)), sizeof entry);
	r->used++;
	assert_true(
		entry[0] < FAKE_NUM && entry[1] >= VSOCK_HEADER_BYTES && entry[1] <= FAKE_RX_BYTES);
	data = f->mem + FAKE_RX_AT + (size_t)entry[0] * FAKE_RX_BYTES;
	assert_int_equal(vsock_wire_get(data, VSOCK_HEADER_BYTES, ret), 0);
	assert_int_equal(ret->len, entry[1] - VSOCK_HEADER_BYTES);
	assert_int_equal(ret->dst_cid, FAKE_CID);
	if (buf)
		memcpy(buf, data + VSOCK_HEADER_BYTES, ret->len);
	fake_offer(f, 0, (uint16_t)entry[0]);
	fake_kick(f, 0);
	return true;
}

struct vsock_pkt fake_expect(struct fake *f, uint16_t op, uint32_t guest_port, void *buf)
{
	struct vsock_pkt p;

	do
		assert_true(fake_rx(f, &p, buf, 5000));
	while (p.op == VSOCK_OP_CREDIT_UPDATE || p.op == VSOCK_OP_CREDIT_REQUEST);
	assert_string_equal(vsock_wire_op_name(p.op), vsock_wire_op_name(op));
	assert_int_equal(p.dst_port, guest_port);
	return p;
}

/* host programs */

int fake_listen(struct fake *f, uint32_t port, int backlog)
{
	char name[32];
	int dir = open(f->dir, O_DIRECTORY | O_CLOEXEC), fd;

	snprintf(name, sizeof name, "v_%u", port);
	fd = sockun_listen_at(dir, name, 0600, backlog);
	assert_true(fd >= 0);
	close(dir);
	return fd;
}

int fake_connect(struct fake *f)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s/v", f->dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	return fd;
}
