#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "oci.h"
#include "store-edit.h"
#include "store-temp.h"
#include "store.h"
#include "str.h"
#include "unit.h"

struct fixture {
	char path[64];
	int state;
	struct store *s;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	strcpy(f->path, "/tmp/uvms-test-store-XXXXXX");
	f->state = open(mkdtemp(f->path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = f;
	return store_open(f->state, &f->s) < 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	store_close(f->s);
	close(f->state);
	file_remove_tree_at(AT_FDCWD, f->path);
	free(f);
	return 0;
}

/* An image of one layer that holds TEXT; LAYER gets its digest. */
static void add_image(struct fixture *f, const char *name, const char *text, const char *config,
	char layer[static STORE_DIGEST_MAX + 1])
{
	CLEANUP(store_temp_finish) struct store_temp t = STORE_TEMP_IDLE;
	char digest[STORE_DIGEST_MAX + 1];
	struct store_edit_blob b = { .media_type = OCI_LAYER };
	struct json_object *c = json_object_new_object();
	struct store_edit e = {
		.kind = STORE_INDEX_IMAGE, .name = name, .config = c, .blobs = &b, .n_blobs = 1
	};
	char *reason = NULL;

	json_object_object_add(c, "test", json_object_new_string(config));
	assert_int_equal(store_temp_file(f->s, &t), 0);
	assert_int_equal(fd_write_all(t.fd, text, strlen(text)), 0);
	b.fd = t.fd;
	assert_int_equal(store_edit_seal(&b), 0);
	assert_int_equal(store_edit_add(f->s, &e, digest, &reason), 0);
	assert_null(reason);
	strcpy(layer, b.digest);
	json_object_put(c);
}

static char *blob_path(struct fixture *f, const char *digest)
{
	return str_printf("%s/store/blobs/sha256/%s", f->path, digest + 7);
}

static int count(struct fixture *f, const char *below)
{
	CLEANUP_FREE char *command = str_printf("find %s/store/%s -type f | wc -l", f->path, below);
	FILE *p = popen(command, "r");
	int n = -1;

	assert_int_equal(fscanf(p, "%d", &n), 1);
	pclose(p);
	return n;
}

static void open_fails(struct fixture *f, const char *digest, const char *word)
{
	CLEANUP_FREE char *reason = NULL;

	assert_int_equal(store_open_blob(f->s, digest, &reason), -EBADMSG);
	assert_non_null(strstr(reason, word));
	assert_non_null(strstr(reason, digest));
}

static void open_works(struct fixture *f, const char *digest)
{
	CLEANUP_FREE char *reason = NULL;
	CLEANUP_CLOSE int fd = store_open_blob(f->s, digest, &reason);

	assert_true(fd >= 0);
	assert_null(reason);
}

static void finds_what_was_added(void **state)
{
	struct fixture *f = *state;
	char layer[STORE_DIGEST_MAX + 1], prefix[16];
	struct store_image i = { 0 };
	CLEANUP_FREE char *reason = NULL;

	add_image(f, "web:1", "layer one", "", layer);
	/* SHA-256 of "layer one" */
	assert_int_equal(store_find_image(f->s, "web:1", &i, &reason), 0);
	assert_string_equal(i.name, "web:1");
	assert_string_equal(i.layers[0], layer);
	assert_int_equal(strv_length(i.layers), 1);
	assert_int_equal(i.size_bytes, 9);
	assert_non_null(i.created);
	snprintf(prefix, sizeof prefix, "%.8s", i.digest + 7);
	store_image_finish(&i);
	assert_int_equal(store_find_image(f->s, prefix, &i, &reason), 0);
	store_image_finish(&i);
	prefix[3] = 0;
	assert_int_equal(store_find_image(f->s, prefix, &i, &reason), -ENOENT);
	assert_int_equal(store_find_image(f->s, "web", &i, &reason), -ENOENT);
	assert_null(reason);
	open_works(f, layer);
}

static void known_digest(void **state)
{
	struct fixture *f = *state;
	char layer[STORE_DIGEST_MAX + 1];

	add_image(f, "abc", "abc", "", layer);
	assert_string_equal(
		layer, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void flip(const char *path)
{
	CLEANUP_CLOSE int fd = -EBADF;
	char c;

	assert_int_equal(chmod(path, 0644), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(fd, &c, 1, 3), 1);
	c ^= 1;
	usleep(20000); /* the clock of ctime ticks */
	assert_int_equal(pwrite(fd, &c, 1, 3), 1);
}

static void refuses_a_flipped_bit(void **state)
{
	struct fixture *f = *state;
	char layer[STORE_DIGEST_MAX + 1];
	CLEANUP_FREE char *path = NULL;

	add_image(f, "a", "some layer", "", layer);
	open_works(f, layer);
	path = blob_path(f, layer);
	flip(path);
	open_fails(f, layer, "damaged");
	open_fails(f, layer, "damaged");
	/* as it was: its times differ, its bytes do not */
	flip(path);
	open_works(f, layer);
	/* a build of the same content puts it right */
	flip(path);
	add_image(f, "a", "some layer", "", layer);
	open_works(f, layer);
}

static void refuses_missing_and_strange_blobs(void **state)
{
	struct fixture *f = *state;
	char layer[STORE_DIGEST_MAX + 1];
	CLEANUP_FREE char *path = NULL;

	add_image(f, "a", "some layer", "", layer);
	path = blob_path(f, layer);
	assert_int_equal(unlink(path), 0);
	open_fails(f, layer, "missing");
	assert_int_equal(symlink("/etc/passwd", path), 0);
	open_fails(f, layer, "damaged");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0644), 0);
	open_fails(f, layer, "damaged");
	open_fails(f, "sha256:../../../../etc/passwd", "digest");
}

static void replaces_and_sweeps(void **state)
{
	struct fixture *f = *state;
	char one[STORE_DIGEST_MAX + 1], two[STORE_DIGEST_MAX + 1];
	CLEANUP_FREE char *reason = NULL;
	CLEANUP(strv_freep) char **refs = NULL;

	add_image(f, "a", "first", "", one);
	add_image(f, "b", "first", "other config", one);
	add_image(f, "a", "second", "", two);
	assert_int_equal(store_edit_list(f->s, STORE_INDEX_IMAGE, &refs, &reason), 0);
	assert_int_equal(strv_length(refs), 2);
	assert_string_equal(refs[0], "b");
	assert_string_equal(refs[1], "a");
	assert_int_equal(store_edit_remove(f->s, STORE_INDEX_IMAGE, "a", &reason), 0);
	open_works(f, one);
	open_fails(f, two, "missing");
	assert_int_equal(store_edit_remove(f->s, STORE_INDEX_IMAGE, "a", &reason), -ENOENT);
	assert_int_equal(store_edit_remove(f->s, STORE_INDEX_IMAGE, "b", &reason), 0);
	assert_int_equal(count(f, "blobs"), 0);
	assert_int_equal(count(f, "verified"), 0);
	assert_null(reason);
}

static void says_when_the_index_is_damaged(void **state)
{
	struct fixture *f = *state;
	static const char *const bad[] = { "", "{", "[]", "{\"manifests\":{}}",
		"{\"manifests\":[],\"x\":\"\\u0000\"}" };
	char layer[STORE_DIGEST_MAX + 1];
	CLEANUP_CLOSE int dir = openat(f->state, "store", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	add_image(f, "a", "first", "", layer);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CLEANUP_FREE char *reason = NULL, *again = NULL;
		struct store_image image;

		assert_int_equal(file_write_at(dir, "index.json", bad[i], strlen(bad[i]), 0644), 0);
		assert_int_equal(store_find_image(f->s, "a", &image, &reason), -EBADMSG);
		assert_non_null(strstr(reason, "index.json"));
		assert_int_equal(store_edit_remove(f->s, STORE_INDEX_IMAGE, "a", &again), -EBADMSG);
	}
	open_works(f, layer);
}

static void survives_odd_entries(void **state)
{
	struct fixture *f = *state;
	static const char text[] =
		"{\"manifests\":[1,null,{},{\"digest\":7},{\"digest\":\"sha256:x\"},"
		"{\"digest\":\"sha256:"
		"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\","
		"\"annotations\":{\"org.opencontainers.image.ref.name\":\"a\"}}]}";
	CLEANUP_CLOSE int dir = openat(f->state, "store", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_FREE char *reason = NULL, *again = NULL;
	struct store_image image;
	char layer[STORE_DIGEST_MAX + 1];

	/* "a" is a manifest that is no JSON */
	add_image(f, "abc", "abc", "", layer);
	assert_int_equal(file_write_at(dir, "index.json", text, strlen(text), 0644), 0);
	assert_int_equal(store_find_image(f->s, "a", &image, &reason), -EBADMSG);
	assert_non_null(strstr(reason, "JSON"));
	assert_int_equal(store_find_image(f->s, "b", &image, &again), -ENOENT);
}

static void temporary_files_leave_nothing(void **state)
{
	struct fixture *f = *state;
	struct store_temp file = STORE_TEMP_IDLE, dir = STORE_TEMP_IDLE, next = STORE_TEMP_IDLE;

	assert_int_equal(store_temp_file(f->s, &file), 0);
	assert_int_equal(store_temp_dir(f->s, &dir), 0);
	assert_int_equal(file_write_at(dir.fd, "x", "x", 1, 0600), 0);
	assert_int_equal(count(f, "blobs"), 1);
	/* held by somebody: not swept */
	assert_int_equal(store_temp_dir(f->s, &next), 0);
	assert_int_equal(count(f, "blobs"), 1);
	store_temp_finish(&next);
	/* its builder was killed: swept */
	dir.fd = fd_close(dir.fd);
	store_temp_finish(&file);
	assert_int_equal(store_temp_file(f->s, &next), 0);
	assert_int_equal(count(f, "blobs"), 0);
	store_temp_finish(&next);
}

static void checks_names(void **state)
{
	static const char *const good[] = { "a", "0", "web", "lib/web:1.0", "a.b_c-d", "a:Latest" };
	static const char *const bad[] = { "", "Web", "-a", ".a", "/a", "a b", "a:", "a:b:c",
		"a:b/c", "a\n", "ä" };
	char longest[300];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_null(oci_name_problem(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_non_null(oci_name_problem(bad[i]));
	memset(longest, 'a', 256);
	longest[256] = 0;
	assert_non_null(oci_name_problem(longest));
	longest[255] = 0;
	assert_null(oci_name_problem(longest));
}

/* The note that a blob was checked, for the file as it is now. */
static bool is_noted(struct fixture *f, const char *digest)
{
	CLEANUP_FREE char *note = str_printf("%s/store/verified/%s", f->path, digest + 7);
	CLEANUP_FREE char *blob = blob_path(f, digest), *text = NULL, *time = NULL;
	struct stat st;

	if (stat(blob, &st) < 0 || file_read_at(AT_FDCWD, note, 4096, &text, NULL) < 0)
		return false;
	time = str_printf(" %lld.%09ld ", (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	return strstr(text, time);
}

/* A second name changes the time of the file, and what was known of it stays known; what was not, does not become so. */
static void lends(void **state)
{
	struct fixture *f = *state;
	char layer[STORE_DIGEST_MAX + 1];
	CLEANUP_FREE char *reason = NULL;
	CLEANUP_CLOSE int fd = -EBADF, dir = file_mkdir_at(f->state, "lent", 0700);

	add_image(f, "a", "lent and given back", "", layer);
	fd = store_open_blob(f->s, layer, &reason);
	assert_true(fd >= 0);
	for (int i = 0; i < 2; i++) { /* the second time over one that is left */
		assert_int_equal(store_lend_blob(f->s, layer, fd, dir), 0);
		assert_int_equal(faccessat(dir, layer + 7, R_OK, 0), 0);
		assert_true(is_noted(f, layer));
	}
	store_unlend_blob(f->s, layer, dir);
	store_unlend_blob(f->s, layer, dir);
	assert_int_equal(faccessat(dir, layer + 7, F_OK, 0), -1);
	assert_true(is_noted(f, layer));
	assert_int_equal(fchmod(fd, 0644), 0);
	assert_int_equal(store_lend_blob(f->s, layer, fd, dir), 0);
	assert_false(is_noted(f, layer));
	/* it outlives the store's own name, and leaves nothing there */
	assert_int_equal(store_edit_remove(f->s, STORE_INDEX_IMAGE, "a", &reason), 0);
	assert_int_equal(faccessat(dir, layer + 7, R_OK, 0), 0);
	store_unlend_blob(f->s, layer, dir);
	assert_int_equal(count(f, "verified"), 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(finds_what_was_added),
		CASE(known_digest),
		CASE(refuses_a_flipped_bit),
		CASE(refuses_missing_and_strange_blobs),
		CASE(replaces_and_sweeps),
		CASE(says_when_the_index_is_damaged),
		CASE(survives_odd_entries),
		CASE(temporary_files_leave_nothing),
		CASE(lends),
		cmocka_unit_test(checks_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
