/* Trees through the stream and back, and streams that want to be elsewhere. */
#include "unit.h"

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "tar-wire.h"
#include "tree-at.h"
#include "tree-links.h"
#include "tree-pack.h"
#include "tree-read.h"
#include "tree-sparse.h"
#include "tree-target.h"
#include "tree-unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define STREAM_MAX (64 * 1024 * 1024)

static char base[] = "/tmp/uvms-tree-XXXXXX";
static uint8_t *stream;
static size_t stream_len;
static unsigned n_notes[AGENT_COPY_NOTES];
static int note_error;

static void on_note(void *user, uint8_t kind, int error, const char *path)
{
	n_notes[kind]++;
	note_error = error;
}

static unsigned failures(void)
{
	unsigned n = 0;

	for (uint8_t k = 1; k < AGENT_COPY_NOTES; k++)
		n += tree_note_is_failure(k) ? n_notes[k] : 0;
	return n;
}

__attribute__((format(printf, 1, 2))) static void sh(const char *format, ...)
{
	char command[4096];
	va_list ap;

	va_start(ap, format);
	vsnprintf(command, sizeof command, format, ap);
	va_end(ap);
	if (system(command) != 0)
		fail_msg("%s", command);
}

static int set_up(void **state)
{
	strcpy(base, "/tmp/uvms-tree-XXXXXX");
	assert_non_null(mkdtemp(base));
	assert_int_equal(chdir(base), 0);
	stream_len = 0;
	memset(n_notes, 0, sizeof n_notes);
	sh("mkdir in out && echo secret > outside");
	return 0;
}

static int tear_down(void **state)
{
	assert_int_equal(chdir("/"), 0);
	sh("chmod -R u+rwX %s; rm -rf %s", base, base);
	return 0;
}

/* ---- packing ---- */

static int pack(const char *path, size_t piece, bool one_fs)
{
	const struct tree_pack_config c = { .one_fs = one_fs, .notes = { on_note, NULL } };
	CLEANUP(tree_pack_destroyp) struct tree_pack *p = NULL;
	ssize_t n;
	int r;

	assert_int_equal(tree_pack_create(&c, &p), 0);
	r = tree_pack_start(p, AT_FDCWD, path, 0);
	if (r < 0)
		return r;
	while ((n = tree_pack_pull(p, stream + stream_len, piece)) > 0) {
		stream_len += (size_t)n;
		assert_true(stream_len + piece <= STREAM_MAX);
	}
	return 0;
}

static int unpack(const char *to, const char *only, bool contents, size_t piece)
{
	struct tree_target t;
	int r = tree_target_open(AT_FDCWD, to, 0, contents, false, &t);

	if (r < 0)
		return r;
	const struct tree_unpack_config c = {
		.target = &t, .only = only, .owner = geteuid() == 0, .notes = { on_note, NULL }
	};
	CLEANUP(tree_unpack_destroyp) struct tree_unpack *u = NULL;

	assert_int_equal(tree_unpack_create(&c, &u), 0);
	for (size_t at = 0; at < stream_len && r == 0; at += piece) {
		size_t n = stream_len - at < piece ? stream_len - at : piece;

		r = tree_unpack_push(u, stream + at, n);
	}
	if (r == 0)
		r = tree_unpack_end(u);
	tree_unpack_destroy(TAKE_PTR(u));
	tree_target_close(&t);
	return r;
}

#define LIST "find . -printf '%%P|%%y|%%m|%%T@|%%l|%%n|%%s|%%U:%%G|%%b\\n' | LC_ALL=C sort"

static void make_tree(void)
{
	sh("cd in && mkdir -p a/b/empty t && echo one > a/f && ln a/f t/hard && ln -s /etc/passwd "
	   "t/abs && "
	   "ln -s ../nowhere t/rel && mkfifo -m 640 t/fifo && head -c 1300000 /dev/urandom > a/big "
	   "&& : > a/none && "
	   "chmod %s a/f && chmod 1777 t && chmod 500 a/b",
		geteuid() == 0 ? "4751" : "751"); /* the bit goes with the owner */
	sh("cd in && truncate -s 20M a/hole && printf x | dd of=a/hole bs=1 seek=7000000 "
	   "conv=notrunc status=none && "
	   "truncate -s 5M a/allhole && cp a/big a/tail && truncate -s 9000001 a/tail");
	sh("cd in && touch \"$(printf 'new\\nline\\001\\377')\" \"$(printf '%%0255d')\" && ln -s "
	   "\"$(printf '%%0300d')\" t/long");
	sh("cd in && touch -d '1951-02-03 04:05:06.789' a/none && touch -d '2242-01-01 "
	   "00:00:00.000000001' a/b a/none2 && "
	   "touch -h -d '1999-01-01 01:01:01.5' t/rel && touch -d '2000-01-01 00:00:00.25' a t .");
}

static void test_round_trip(void **state)
{
	static const size_t pieces[] = { 1000003, 65536, 512, 77, 1 };

	make_tree();
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		stream_len = 0;
		assert_int_equal(pack("in", pieces[i] < 64 ? 4096 : pieces[i], false), 0);
		sh("chmod -R u+rwX out; rm -rf out; mkdir out");
		assert_int_equal(unpack("out", "in", false, pieces[i]), 0);
		assert_int_equal(failures(), 0);
		sh("(cd in && " LIST ") > want; (cd out/in && " LIST ") > got; diff want got");
		sh("diff -r --no-dereference in out/in --exclude fifo");
		sh("test out/in/a/f -ef out/in/t/hard");
	}
}

static void test_targets(void **state)
{
	make_tree();
	assert_int_equal(pack("in", 65536, false), 0);
	assert_int_equal(unpack("new", "in", false, 65536), 0);
	sh("test -f new/a/f && test new/a/f -ef new/t/hard");
	assert_int_equal(unpack("no/such", "in", false, 65536), -ENOENT);
	assert_int_equal(unpack("outside", "in", false, 65536), 0);
	assert_int_equal(n_notes[AGENT_COPY_FAILED] > 0, true); /* a file is no directory */
	sh("grep -q secret outside");
	stream_len = 0;
	assert_int_equal(pack("in/.", 65536, false), 0);
	assert_int_equal(unpack("contents", NULL, true, 65536), 0);
	sh("test -f contents/a/f && test \"$(stat -c %%Y in)\" = \"$(stat -c %%Y contents)\"");
	sh("mkdir -m 711 was && touch -d '2020-01-01' was");
	assert_int_equal(unpack("was", NULL, true, 65536), 0);
	sh("test \"$(stat -c %%a was)\" = 711 && test -f was/a/f");
	assert_int_equal(unpack("outside", NULL, true, 65536), -ENOTDIR);
	stream_len = 0;
	assert_int_equal(pack("in/a/f", 65536, false), 0);
	assert_int_equal(unpack("file", "f", false, 65536), 0);
	assert_int_equal(unpack("outside", "f", false, 65536), 0);
	sh("grep -q one file && grep -q one outside");
	memset(n_notes, 0, sizeof n_notes);
	assert_int_equal(unpack("slash/", "f", false, 65536), 0);
	assert_int_equal(failures(), 1);
	sh("! test -e slash");
}

static void test_what_is_left_out(void **state)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "in/socket" };
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	assert_int_equal(pack("in", 65536, false), 0);
	assert_int_equal(n_notes[AGENT_COPY_SOCKET], 1);
	assert_int_equal(pack("/dev/null", 65536, false), 0);
	assert_int_equal(n_notes[AGENT_COPY_DEVICE], 1);
	assert_int_equal(pack("none", 65536, false), -ENOENT);
	if (geteuid() != 0) {
		sh("touch in/closed && chmod 0 in/closed");
		assert_int_equal(pack("in", 65536, false), 0);
		assert_int_equal(n_notes[AGENT_COPY_FAILED], 1);
	}
	assert_int_equal(unpack("out", "in", false, 65536), 0);
}

static void make_deep(int n)
{
	int fd = open("in", O_PATH | O_CLOEXEC);

	for (int i = 0; i < n; i++) {
		int next;

		assert_int_equal(mkdirat(fd, "ddd", 0755), 0);
		next = openat(fd, "ddd", O_PATH | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
	close(fd);
}

/* Deeper than descriptors are kept open, and as deep as a name may be long. */
static void test_deep(void **state)
{
	sh("cd in && d=. && for i in $(seq 1 60); do mkdir -p $d/d/e; echo $i > $d/d/f; echo $i > "
	   "$d/d/z; d=$d/d; done");
	assert_int_equal(pack("in", 65536, false), 0);
	assert_int_equal(unpack("out", "in", false, 65536), 0);
	assert_int_equal(failures(), 0);
	sh("diff -r in out/in");
	stream_len = 0;
	make_deep(1200);
	assert_int_equal(pack("in", 65536, false), 0);
	assert_true(n_notes[AGENT_COPY_FAILED] >= 1); /* too long a name, and only that */
	assert_int_equal(note_error, ENAMETOOLONG);
	assert_int_equal(unpack("out", "in", false, 65536), 0);
}

/* A file that shrinks, grows, vanishes between its header and its data. */
static void test_changes_meanwhile(void **state)
{
	const struct tree_pack_config c = { .notes = { on_note, NULL } };
	CLEANUP(tree_pack_destroyp) struct tree_pack *p = NULL;
	ssize_t n;

	sh("head -c 300000 /dev/zero | tr '\\0' x > in/f");
	assert_int_equal(tree_pack_create(&c, &p), 0);
	assert_int_equal(tree_pack_start(p, AT_FDCWD, "in/f", 0), 0);
	stream_len = (size_t)tree_pack_pull(p, stream, 65536);
	sh("truncate -s 100000 in/f; rm in/f");
	while ((n = tree_pack_pull(p, stream + stream_len, 65536)) > 0)
		stream_len += (size_t)n;
	assert_int_equal(n_notes[AGENT_COPY_CHANGED], 1);
	assert_int_equal(unpack("out", "f", false, 65536), 0);
	sh("test $(stat -c %%s out/f) = 300000 && test $(tr -d '\\0' < out/f | wc -c) = 100000");
}

static void test_sparse_map_is_bounded(void **state)
{
	CLEANUP_FREE struct tree_sparse *s = malloc(sizeof *s);
	CLEANUP_CLOSE int fd = open("in/many", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	uint64_t size = 0;

	for (size_t i = 0; i < TREE_SPARSE_REGIONS_MAX + 500; i++, size += 8192)
		assert_int_equal(pwrite(fd, "data", 4, (off_t)size), 4);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	tree_sparse_scan(fd, size, s);
	assert_true(s->n <= TREE_SPARSE_REGIONS_MAX + 1);
	assert_int_equal(pack("in", 65536, false), 0);
	assert_int_equal(unpack("out", "in", false, 65536), 0);
	sh("cmp in/many out/in/many");
}

static void test_many_links(void **state)
{
	struct tree_links l = {};

	for (ino_t i = 0; i < TREE_LINKS_MAX; i++)
		assert_int_equal(tree_links_add(&l, 1, i << 20, "n"), 0);
	assert_int_equal(tree_links_add(&l, 2, 0, "n"), -E2BIG);
	assert_null(tree_links_find(&l, 2, 0));
	assert_non_null(tree_links_find(&l, 1, (ino_t)77 << 20));
	tree_links_finish(&l);
	static char name[TAR_WIRE_NAME_MAX + 1];
	memset(name, 'n', TAR_WIRE_NAME_MAX);
	for (ino_t i = 0; i < TREE_LINKS_BYTES_MAX / sizeof name; i++)
		assert_int_equal(tree_links_add(&l, 1, i, name), 0);
	assert_int_equal(tree_links_add(&l, 2, 0, name), -E2BIG);
	tree_links_finish(&l);
}

/* ---- hostile streams ---- */

static void put_entry(uint8_t type, const char *name, const char *link, const char *data)
{
	static struct tar_wire_entry e;
	static uint8_t head[TAR_WIRE_HEAD_MAX];
	size_t len = strlen(data);
	ssize_t n;

	e = (struct tar_wire_entry){ .type = type,
		.mode = 06777,
		.uid = 1,
		.gid = 1,
		.size = len,
		.real_size = len,
		.name_len = strlen(name),
		.link_len = strlen(link) };
	strcpy(e.name, name);
	strcpy(e.link, link);
	n = tar_wire_encode(&e, head);
	assert_true(n > 0);
	memcpy(stream + stream_len, head, (size_t)n);
	stream_len += (size_t)n;
	memset(stream + stream_len, 0, len + tar_wire_padding(len));
	memcpy(stream + stream_len, data, len);
	stream_len += len + tar_wire_padding(len);
}

struct hostile {
	uint8_t type;
	const char *name, *link, *data;
};

/* Entries of one stream into out/, which may say "x" only; nothing outside of out/x may change. */
static const struct hostile hostile[][4] = {
	{ { '0', "../outside", "", "evil" } },
	{ { '0', "x/../../outside", "", "evil" } },
	{ { '0', "/../outside", "", "evil" } },
	{ { '0', "y", "", "evil" } },
	{ { '0', ".", "", "evil" } },
	{ { '5', "..", "", "" } },
	{ { '5', ".", "", "" } },
	{ { '2', "x", "..", "" }, { '0', "x/outside", "", "evil" } },
	{ { '5', "x", "", "" }, { '2', "x/l", "../..", "" }, { '0', "x/l/outside", "", "evil" } },
	{ { '5', "x", "", "" }, { '2', "x/l", "../../outside", "" }, { '0', "x/l", "", "evil" } },
	{ { '5', "x", "", "" }, { '2', "x/l", "../..", "" }, { '5', "x/l", "", "" },
		{ '0', "x/l/outside", "", "evil" } },
	{ { '5', "x", "", "" }, { '1', "x/h", "../outside", "" }, { '0', "x/h", "", "evil" } },
	{ { '5', "x", "", "" }, { '1', "x/h", "victim", "" } },
	{ { '5', "x", "", "" }, { '2', "x/l", "../../outside", "" }, { '1', "x/h", "x/l", "" },
		{ '0', "x/h", "", "evil" } },
	{ { '5', "x", "", "" }, { '2', "x/l", "../..", "" }, { '1', "x/h", "x/l/outside", "" } },
	{ { '3', "x", "", "" }, { '4', "x/b", "", "" } },
	{ { '5', "x", "", "" }, { '2', "x/l", "../..", "" }, { '6', "x/l/outside2", "", "" } },
	{ { '5', "x", "", "" }, { '2', "x/l", "../..", "" }, { '5', "x/l/outside2", "", "" } },
	{ { '1', "x", "x", "" } },
	{ { '0', "victim/x", "", "evil" } },
	{ { 'Z', "x", "", "evil" } },
};

static void test_hostile_names(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		sh("rm -rf out; mkdir -m 700 out; echo mine > out/victim; touch -d 2020-01-01 out");
		stream_len = 0;
		for (const struct hostile *h = hostile[i]; h < hostile[i] + 4 && h->name; h++)
			put_entry(h->type, h->name, h->link, h->data);
		assert_int_equal(unpack("out", "x", false, 65536), 0);
		sh("test \"$(ls)\" = \"$(printf 'in\\nout\\noutside')\" || { echo %zu; exit 1; }",
			i);
		sh("grep -qx secret outside && test $(stat -c %%h outside) = 1");
		sh("grep -qx mine out/victim && test $(stat -c %%h out/victim) = 1");
		sh("test $(stat -c %%a out) = 700 && test -z \"$(find . -type b -o -type c)\"");
	}
}

/* Another process replaces directories by links while the stream comes. */
static void test_race_with_links(void **state)
{
	char name[64];
	pid_t pid;

	for (int i = 0; i < 300; i++) {
		put_entry('5', "x/d", "", "");
		snprintf(name, sizeof name, "x/d/f%d", i);
		put_entry('0', name, "", "data");
	}
	pid = fork();
	if (pid == 0)
		for (;;) {
			if (rename("out/x/d", "out/x/e") == 0 || errno == EEXIST ||
				errno == ENOTEMPTY) {
				if (symlink("../..", "out/x/d") == 0)
					unlink("out/x/d");
			}
			unlink("out/x/e");
		}
	for (int i = 0; i < 20; i++)
		assert_int_equal(unpack("out", "x", false, 65536), 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	sh("test \"$(ls)\" = \"$(printf 'in\\nout\\noutside')\" && grep -qx secret outside");
}

static void test_setuid_goes_with_the_owner(void **state)
{
	struct tree_target t;
	struct tree_unpack *u;

	put_entry('0', "x", "", "data");
	assert_int_equal(tree_target_open(AT_FDCWD, "out", 0, false, false, &t), 0);
	const struct tree_unpack_config c = {
		.target = &t, .only = "x", .notes = { on_note, NULL }
	};
	assert_int_equal(tree_unpack_create(&c, &u), 0);
	assert_int_equal(tree_unpack_push(u, stream, stream_len), 0);
	assert_int_equal(tree_unpack_end(u), 0);
	tree_unpack_destroy(u);
	tree_target_close(&t);
	sh("test $(stat -c %%a out/x) = 777 && test $(stat -c %%u out/x) = $(id -u)");
}

static void test_cut_streams(void **state)
{
	size_t whole;

	put_entry('5', "x", "", "");
	put_entry('0', "x/f", "", "some data");
	whole = stream_len;
	for (stream_len = 0; stream_len < whole; stream_len += 37) {
		sh("rm -rf out && mkdir out");
		assert_int_equal(unpack("out", "x", false, 65536),
			stream_len == 0 || stream_len == 512 ? 0 : -EBADMSG);
		if (stream_len < 1024 + 9)
			sh("! test -e out/x/f");
		if (stream_len == 0)
			stream_len = 512 - 37;
	}
}

static void append_block(const char *text, size_t len, uint8_t type, const char *name)
{
	static char data[TAR_WIRE_BLOCK * 200];

	memcpy(data, text, len);
	data[len] = 0;
	put_entry(type, name, "", data);
}

static void test_malformed(void **state)
{
	/* a sparse file's map: text, real size */
	static const struct {
		const char *map, *real_size;
		int want;
	} maps[] = {
		{ "1\n0\n512\n", "512", 0 },
		{ "1\n0\n512\n", "511", -EBADMSG },
		{ "2\n0\n256\n255\n256\n", "9999", -EBADMSG },                        /* overlap */
		{ "2\n256\n256\n0\n256\n", "9999", -EBADMSG },                        /* order */
		{ "1\n9223372036854775807\n512\n", "9223372036854775807", -EBADMSG }, /* overflow */
		{ "1\n18446744073709551615\n512\n", "9999", -EBADMSG },
		{ "1\n0\n511\n", "9999", -EBADMSG }, /* not all data */
		{ "1\n0\n513\n", "9999", -EBADMSG },
		{ "65537\n", "9999", -E2BIG },
		{ "-1\n", "9999", -EBADMSG },
		{ "\n\n\n", "9999", -EBADMSG },
		{ "3\n0\n512\n", "9999", -EBADMSG },
	};
	char pax[256], body[1024];

	for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
		int n = 0;

		sh("rm -rf out && mkdir out");
		n += sprintf(pax, "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n");
		n += sprintf(pax + n, "%zu GNU.sparse.realsize=%s\n",
			strlen(maps[i].real_size) + 24, maps[i].real_size);
		if (strlen(maps[i].real_size) < 3)
			fail();
		stream_len = 0;
		append_block(pax, (size_t)n, 'x', "pax");
		memset(body, 'd', sizeof body);
		memset(body, 0, 512);
		memcpy(body, maps[i].map, strlen(maps[i].map));
		/* by hand: data with zeros inside */
		static char filled[1025];
		memset(filled, 'd', 1024);
		append_block(filled, 1024, '0', "x");
		memcpy(stream + stream_len - 1024, body, 1024);
		assert_int_equal(unpack("out", "x", false, 65536), maps[i].want);
		if (maps[i].want)
			sh("! test -s out/x");
	}
}

static void test_limits(void **state)
{
	static struct tar_wire_entry e;
	static uint8_t head[TAR_WIRE_HEAD_MAX];
	static const uint8_t types[] = { 'x', 'g', 'L', 'K' };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		e = (struct tar_wire_entry){
			.type = types[i], .size = TAR_WIRE_PAX_MAX + 1, .name_len = 1, .name = "n"
		};
		assert_int_equal(tar_wire_encode(&e, head), 512);
		memcpy(stream, head, 512);
		stream_len = 512;
		assert_int_equal(unpack("out", "x", false, 65536), -E2BIG);
	}
	/* zeros behind the end mark, without end */
	memset(stream, 0, TREE_READ_REST_MAX + 4096);
	stream_len = 10240;
	assert_int_equal(unpack("out", "x", false, 65536), 0);
	stream_len = TREE_READ_REST_MAX + 4096;
	assert_int_equal(unpack("out", "x", false, 65536), -EBADMSG);
	/* a header that nothing follows */
	stream_len = 0;
	append_block("9 path=x\n", 9, 'x', "pax");
	assert_int_equal(unpack("out", "x", false, 65536), -EBADMSG);
}

/* What GNU tar makes. */
static void test_foreign_tars(void **state)
{
	static const char *const options[] = { "--format=gnu", "--format=gnu -S", "--format=pax",
		"--format=pax -S", "--format=posix -S --sparse-version=1.0", "--format=oldgnu" };

	if (system("tar --version >/dev/null 2>&1") != 0)
		skip();
	make_tree();
	sh("mkdir -p in/$(printf '%%0120d')/$(printf '%%0120d') && touch in/$(printf "
	   "'%%0120d')/$(printf '%%0120d')/file");
	sh("rm -f in/a/none*"); /* times that old formats do not have */
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		sh("tar cf tar %s in", options[i]);
		CLEANUP_CLOSE int fd = open("tar", O_RDONLY | O_CLOEXEC);

		stream_len = (size_t)fd_read_full(fd, stream, STREAM_MAX);
		sh("chmod -R u+rwX out; rm -rf out; mkdir out");
		assert_int_equal(unpack("out", NULL, false, 10240), 0);
		assert_int_equal(failures(), 0);
		sh("diff -r --no-dereference in out/in --exclude fifo && test -p out/in/t/fifo");
		if (strstr(options[i], "-S"))
			sh("test $(stat -c %%b out/in/a/hole) -lt 2000 && test $(stat -c %%s "
			   "out/in/a/tail) = 9000001");
		sh("test out/in/a/f -ef out/in/t/hard");
	}
	sh("cd in && tar cf ../tar --format=ustar a/f a/b t/rel");
	CLEANUP_CLOSE int fd = open("tar", O_RDONLY | O_CLOEXEC);
	stream_len = (size_t)fd_read_full(fd, stream, STREAM_MAX);
	assert_int_equal(unpack("out", NULL, false, 512), 0);
	sh("cmp in/a/f out/a/f");
	sh("tar cf tar --format=pax -S --sparse-version=0.1 in/a/hole");
	CLEANUP_CLOSE int old = open("tar", O_RDONLY | O_CLOEXEC);
	stream_len = (size_t)fd_read_full(old, stream, STREAM_MAX);
	assert_int_equal(unpack("out", NULL, false, 512), 0);
	assert_int_equal(n_notes[AGENT_COPY_FORM], 1);
}

/* GNU tar reads what we write. */
static void test_tar_reads_it(void **state)
{
	static const uint8_t end[1024];
	CLEANUP_CLOSE int fd = open("tar", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (system("tar --version >/dev/null 2>&1") != 0)
		skip();
	make_tree();
	assert_int_equal(pack("in", 65536, false), 0);
	assert_int_equal(fd_write_all(fd, stream, stream_len), 0);
	assert_int_equal(fd_write_all(fd, end, sizeof end), 0);
	sh("tar -C out -x -p -f tar && diff -r --no-dereference in out/in --exclude fifo");
	sh("(cd in && " LIST ") > want; (cd out/in && " LIST ") > got; diff want got");
}

static void test_names(void **state)
{
	static const struct {
		const char *path, *name;
		bool contents, directory;
	} names[] = {
		{ "a", "a" },
		{ "/a/b", "b" },
		{ "a/b//", "b", false, true },
		{ "/", "", true, true },
		{ ".", "", true },
		{ "a/.", "", true },
		{ "a/./", "", true, true },
		{ "..", "", true },
		{ "a/..b", "..b" },
	};
	struct tree_pack_name n;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(tree_pack_name_of(names[i].path, &n), 0);
		assert_string_equal(n.name, names[i].name);
		assert_int_equal(n.contents, names[i].contents);
		assert_int_equal(n.directory, names[i].directory);
	}
	assert_int_equal(tree_pack_name_of("", &n), -ENOENT);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_round_trip),
		CASE(test_targets),
		CASE(test_what_is_left_out),
		CASE(test_deep),
		CASE(test_changes_meanwhile),
		CASE(test_sparse_map_is_bounded),
		CASE(test_many_links),
		CASE(test_hostile_names),
		CASE(test_race_with_links),
		CASE(test_setuid_goes_with_the_owner),
		CASE(test_cut_streams),
		CASE(test_malformed),
		CASE(test_limits),
		CASE(test_foreign_tars),
		CASE(test_tar_reads_it),
		CASE(test_names),
	};
	int r;

	stream = malloc(STREAM_MAX);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	free(stream);
	return r;
}
