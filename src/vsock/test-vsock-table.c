#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"
#include "vsock-mux.h"

static struct loop loop;
static struct vsock_mux m;
static int memfd;

static void wake(struct vsock_mux *mux)
{
}

static const struct vsock_mux_hooks hooks = { .wake = wake };

static struct vsock_key key(uint32_t i)
{
	return (struct vsock_key){ .peer_cid = 2, .peer_port = i * 7, .guest_port = i, .type = 1 };
}

static void fills_and_empties(void **state)
{
	struct vsock_key k;

	assert_int_equal(vsock_mux_init(&m, &loop, &hooks, 42, 12345), 0);
	for (uint32_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		k = key(i);
		assert_null(vsock_table_find(&m.table, &k));
		assert_non_null(vsock_table_take(&m.table, &k));
	}
	k = key(VSOCK_CONNS_MAX);
	assert_null(vsock_table_take(&m.table, &k));
	for (uint32_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		k = key(i);
		vsock_table_release(&m.table, vsock_table_find(&m.table, &k));
		assert_null(vsock_table_find(&m.table, &k));
	}
	assert_int_equal(m.table.n_used, 0);
	vsock_mux_finish(&m);
}

static void types_are_apart(void **state)
{
	struct vsock_key a = key(1), b = key(1);

	b.type = VSOCK_TYPE_SEQPACKET;
	assert_int_equal(vsock_mux_init(&m, &loop, &hooks, 42, 1), 0);
	vsock_table_take(&m.table, &a);
	assert_null(vsock_table_find(&m.table, &b));
	b = a;
	b.peer_cid = 43;
	assert_null(vsock_table_find(&m.table, &b));
	vsock_table_release(&m.table, vsock_table_find(&m.table, &a));
	vsock_mux_finish(&m);
}

/* What a process leaves in its file, its successor resets, and the file is then the successor's. */
static void successor_resets(void **state)
{
	struct vsock_key a = key(5), b = key(6);
	struct vsock_pkt p[3];
	struct stat st;

	memfd = memfd_create("table", MFD_CLOEXEC);
	assert_int_equal(vsock_table_grow(memfd), 0);
	assert_int_equal(vsock_mux_init(&m, &loop, &hooks, 42, 1), 0);
	assert_int_equal(vsock_mux_publish(&m, memfd), 0);
	assert_false(vsock_mux_has_output(&m));
	vsock_table_take(&m.table, &a);
	vsock_table_take(&m.table, &b);
	assert_int_equal(fstat(memfd, &st), 0);
	assert_true(st.st_blocks * 512 <= sysconf(_SC_PAGESIZE)); /* no more than is used */
	vsock_table_finish(&m.table);                             /* it dies */

	for (int life = 0; life < 2; life++) {
		assert_int_equal(vsock_mux_init(&m, &loop, &hooks, 42, 2), 0);
		assert_int_equal(vsock_mux_publish(&m, memfd), 0);
		for (int i = 0; i < 2; i++)
			assert_int_equal(vsock_mux_output(&m, &p[i], NULL, 0, 0), life == 0);
		assert_false(vsock_mux_output(&m, &p[2], NULL, 0, 0));
		if (life == 0) {
			assert_int_equal(p[0].op, VSOCK_OP_RST);
			assert_int_equal(p[0].src_port + p[1].src_port, 5 * 7 + 6 * 7);
			assert_int_equal(p[0].dst_cid, 42);
		}
		vsock_mux_settle(&m);
		vsock_mux_finish(&m);
	}
	close(memfd);
}

/* Of another layout: nothing of it is believed, and nothing stays. */
static void foreign_file_is_cleared(void **state)
{
	uint8_t bytes[VSOCK_TABLE_BYTES], zeros[VSOCK_TABLE_BYTES] = { 0 };
	size_t head = sizeof(struct vsock_table_head);

	memfd = memfd_create("table", MFD_CLOEXEC);
	memset(bytes, 0x5a, sizeof bytes);
	assert_int_equal(pwrite(memfd, bytes, sizeof bytes, 0), sizeof bytes);
	assert_int_equal(vsock_mux_init(&m, &loop, &hooks, 42, 1), 0);
	assert_int_equal(vsock_mux_publish(&m, memfd), 0);
	assert_false(vsock_mux_has_output(&m));
	assert_int_equal(pread(memfd, bytes, sizeof bytes, 0), sizeof bytes);
	assert_memory_equal(bytes + head, zeros, sizeof bytes - head);
	vsock_mux_finish(&m);
	close(memfd);
}

static void ports_are_free(void **state)
{
	struct vsock_key k = { .peer_cid = 2, .guest_port = 9, .type = 1 };

	assert_int_equal(vsock_mux_init(&m, &loop, &hooks, 42, 1), 0);
	m.table.next_port = (1u << 31) - 1;
	k.peer_port = vsock_table_port(&m.table, 9);
	vsock_table_take(&m.table, &k);
	m.table.next_port = k.peer_port;
	assert_int_equal(vsock_table_port(&m.table, 9), 1u << 30);
	vsock_table_release(&m.table, vsock_table_find(&m.table, &k));
	vsock_mux_finish(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_and_empties),
		cmocka_unit_test(types_are_apart),
		cmocka_unit_test(successor_resets),
		cmocka_unit_test(foreign_file_is_cleared),
		cmocka_unit_test(ports_are_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
