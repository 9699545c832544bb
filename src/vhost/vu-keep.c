#include "vu-keep.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"

static_assert(KEEPER_SLOTS <= 64, "a bit each");

/* Offsets in the head of the page. */
#define VU_KEEP_MAGIC_AT  0
#define VU_KEEP_BUSY_AT   4
#define VU_KEEP_ACTIVE_AT 8

static uint32_t *keep_word(const struct vu_keep *k, size_t at)
{
	return (uint32_t *)(void *)(k->page + at);
}

static void keep_store(struct vu_keep *k, size_t at, uint32_t v)
{
	__atomic_store_n(keep_word(k, at), v, __ATOMIC_SEQ_CST);
}

static int keep_send(struct vu_keep *k, enum keeper_op op, uint8_t slot, uint32_t cookie, int fd)
{
	uint8_t bytes[KEEPER_WIRE_BYTES];
	ssize_t n;

	keeper_wire_put(bytes, &(struct keeper_msg){ (uint8_t)op, slot, cookie });
	n = fdpass_send(k->fd, bytes, sizeof bytes, &fd, fd >= 0);
	return n < 0 ? (int)n : 0;
}

int vu_keep_open(struct vu_keep *k, int channel_consume, int state_fd)
{
	CLEANUP_CLOSE int channel = channel_consume;
	struct stat st;
	void *page;

	*k = (struct vu_keep){ .fd = -EBADF };
	for (size_t i = 0; i < KEEPER_SLOTS; i++)
		k->fds[i] = -EBADF;
	loop_source_init(&k->source, NULL);
	if (fstat(state_fd, &st) < 0)
		return -errno;
	if (st.st_size < VU_STATE_PAGE_BYTES && ftruncate(state_fd, VU_STATE_PAGE_BYTES) < 0)
		return -errno;
	page = mmap(NULL, VU_STATE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, state_fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	k->page = page;
	k->fd = TAKE_FD(channel);
	return 0;
}

void vu_keep_close(struct vu_keep *k)
{
	if (k->source.fd >= 0)
		loop_source_remove(k->loop, &k->source);
	for (size_t i = 0; i < KEEPER_SLOTS; i++)
		k->fds[i] = fd_close(k->fds[i]);
	if (k->page)
		munmap(k->page, VU_STATE_PAGE_BYTES);
	k->page = NULL;
	k->fd = fd_close(k->fd);
}

/* One message: its op, or -errno; a descriptor goes to its slot, that of HANDOVER to *RET_CHANNEL. */
static int keep_receive_one(struct vu_keep *k, int *ret_channel)
{
	uint8_t bytes[KEEPER_WIRE_BYTES + 1];
	CLEANUP_CLOSE int fd = -EBADF;
	struct keeper_msg m;
	size_t n_fds = 1;
	ssize_t n;
	int r;

	n = fdpass_recv(k->fd, bytes, sizeof bytes, &fd, &n_fds);
	if (n <= 0)
		return n < 0 ? (int)n : -EPIPE;
	r = keeper_wire_get(bytes, (size_t)n, n_fds, &m);
	if (r < 0)
		return r;
	if (m.op == KEEPER_KEEP) {
		if (k->fds[m.slot] >= 0)
			return -EBADMSG;
		k->fds[m.slot] = TAKE_FD(fd);
		k->used |= 1ull << m.slot;
	} else if (m.op == KEEPER_PING) {
		(void)keep_send(k, KEEPER_PONG, 0, m.cookie, -EBADF);
	} else if (m.op == KEEPER_HANDOVER) {
		*ret_channel = TAKE_FD(fd);
	}
	return m.op;
}

int vu_keep_receive(struct vu_keep *k)
{
	CLEANUP_CLOSE int none = -EBADF;
	int op;

	do
		op = keep_receive_one(k, &none);
	while (op == KEEPER_KEEP);
	return op < 0 ? op : op == KEEPER_GO ? 0 : -EBADMSG;
}

int vu_keep_load(const struct vu_keep *k, struct vu_state *ret)
{
	uint8_t copy[VU_STATE_COPY_BYTES];
	struct vu_state_head head;
	int r;

	r = vu_state_wire_get_head(k->page, VU_STATE_HEAD_BYTES, &head);
	if (r < 0)
		return r;
	if (head.busy == VU_STATE_PIECES)
		return -ESTALE;
	if (!head.magic)
		return 0;
	memcpy(copy, k->page + VU_STATE_COPY_AT(head.active), sizeof copy);
	r = vu_state_wire_get(copy, sizeof copy, ret);
	return r < 0 ? r : 1;
}

int vu_keep_claim(struct vu_keep *k, uint8_t slot)
{
	return slot < KEEPER_SLOTS ? TAKE_FD(k->fds[slot]) : -EBADF;
}

void vu_keep_drop_rest(struct vu_keep *k)
{
	for (uint8_t i = 0; i < KEEPER_SLOTS; i++) {
		if (k->fds[i] < 0)
			continue;
		k->fds[i] = fd_close(k->fds[i]);
		k->used &= ~(1ull << i);
		(void)keep_send(k, KEEPER_DROP, i, 0, -EBADF);
	}
}

/* What the keeper says to a running device is PING, HANDOVER, or nothing that we know. */
static void keep_readable(struct loop_source *s, uint32_t events)
{
	struct vu_keep *k = CONTAINER_OF(s, struct vu_keep, source);
	CLEANUP_CLOSE int channel = -EBADF;
	int op = keep_receive_one(k, &channel);

	if (op == KEEPER_PING)
		return;
	if (op == KEEPER_HANDOVER && k->handover)
		k->handover(k, TAKE_FD(channel));
	else if (op >= 0 || op == -EPIPE)
		loop_source_remove(k->loop, s); /* it ends, and we with it */
	else if (op != -EAGAIN && k->failed)
		k->failed(k, op);
}

int vu_keep_watch(struct vu_keep *k, struct loop *loop)
{
	int r = fd_set_nonblock(k->fd, 1);

	if (r < 0)
		return r;
	k->loop = loop;
	loop_source_init(&k->source, keep_readable);
	return loop_source_add(loop, &k->source, k->fd, EPOLLIN);
}

uint8_t vu_keep_fd(struct vu_keep *k, int fd)
{
	if (!k)
		return KEEPER_SLOT_NONE;
	for (uint8_t i = 0; i < KEEPER_SLOTS; i++) {
		if (k->used >> i & 1)
			continue;
		if (keep_send(k, KEEPER_KEEP, i, 0, fd) < 0)
			break;
		k->used |= 1ull << i;
		return i;
	}
	return KEEPER_SLOT_NONE;
}

void vu_keep_drop(struct vu_keep *k, uint8_t slot)
{
	if (k && slot < KEEPER_SLOTS)
		k->dropped |= 1ull << slot;
}

void vu_keep_commit(struct vu_keep *k, const struct vu_state *s)
{
	uint32_t other;

	if (!k)
		return;
	other = !*keep_word(k, VU_KEEP_ACTIVE_AT);
	vu_state_wire_put(k->page + VU_STATE_COPY_AT(other), s);
	keep_store(k, VU_KEEP_ACTIVE_AT, other);
	keep_store(k, VU_KEEP_MAGIC_AT, VU_STATE_MAGIC);
	for (uint8_t i = 0; k->dropped && i < KEEPER_SLOTS; i++) {
		/* what the keeper does not hear stays in use: its slot is not given again */
		if ((k->dropped >> i & 1) && keep_send(k, KEEPER_DROP, i, 0, -EBADF) == 0)
			k->used &= ~(1ull << i);
	}
	k->dropped = 0;
}

void vu_keep_pieces(struct vu_keep *k, bool pieces)
{
	if (k)
		keep_store(k, VU_KEEP_BUSY_AT, pieces ? VU_STATE_PIECES : VU_STATE_IDLE);
}

/* Behind the copies. The kernel writes msg_len; the pointers are only ever those of who wrote them. */
struct vu_keep_answer {
	struct mmsghdr take, send;
	uint32_t len;
	uint8_t bytes[VU_WIRE_HEADER_BYTES + VU_WIRE_PAYLOAD_MAX];
};
static_assert(VU_STATE_COPY_AT(2) + sizeof(struct vu_keep_answer) <= VU_STATE_PAGE_BYTES,
	"the page holds it");

static struct vu_keep_answer *keep_answer(struct vu_keep *k)
{
	return (struct vu_keep_answer *)(void *)(k->page + VU_STATE_COPY_AT(2));
}

/* The reply that is in the page. */
static int keep_send_answer(struct vu_keep *k, int sock, size_t len)
{
	struct vu_keep_answer *a = keep_answer(k);
	struct iovec out = { a->bytes, len };
	int n;

	a->send = (struct mmsghdr){ .msg_hdr = { .msg_iov = &out, .msg_iovlen = 1 } };
	n = sendmmsg(sock, &a->send, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	if (n != 1 || a->send.msg_len != len)
		return -EAGAIN;
	keep_store(k, VU_KEEP_BUSY_AT, VU_STATE_IDLE);
	return 0;
}

int vu_keep_answer(
	struct vu_keep *k, int sock, size_t len, bool has_fds, const void *reply, size_t reply_len)
{
	struct vu_keep_answer *a = keep_answer(k);
	uint8_t drop[VU_WIRE_HEADER_BYTES + VU_WIRE_PAYLOAD_MAX];
	struct iovec in = { drop, len };
	int n;

	assert(len <= sizeof drop && reply_len <= sizeof a->bytes);
	memcpy(a->bytes, reply, reply_len);
	a->len = (uint32_t)reply_len;
	a->take = (struct mmsghdr){ .msg_hdr = { .msg_iov = &in, .msg_iovlen = 1 } };
	a->send = (struct mmsghdr){ 0 };
	keep_store(k, VU_KEEP_BUSY_AT, VU_STATE_ANSWERING);
	/* no room for descriptors: they are closed, and the flags say that there were some */
	n = recvmmsg(sock, &a->take, 1, MSG_DONTWAIT, NULL);
	if (n < 0)
		return -errno;
	if (n != 1 || a->take.msg_len != len ||
		!(a->take.msg_hdr.msg_flags & MSG_CTRUNC) != !has_fds)
		return -EPROTO;
	return keep_send_answer(k, sock, reply_len);
}

int vu_keep_finish_answer(struct vu_keep *k, int sock)
{
	struct vu_keep_answer *a = keep_answer(k);
	uint32_t len = a->len, taken = a->take.msg_len, sent = a->send.msg_len;

	if (*keep_word(k, VU_KEEP_BUSY_AT) != VU_STATE_ANSWERING)
		return 0;
	if (len == 0 || len > sizeof a->bytes || (sent && (sent != len || !taken)))
		return -EBADMSG;
	if (taken && !sent)
		return keep_send_answer(k, sock, len);
	/* it lies in the socket still, or all was done */
	keep_store(k, VU_KEEP_BUSY_AT, VU_STATE_IDLE);
	return 0;
}

int vu_keep_tell(struct vu_keep *k, enum keeper_op op)
{
	return k ? keep_send(k, op, 0, 0, -EBADF) : 0;
}
