#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "sv-logfile.h"
#include "unit.h"

static char directory[] = "/tmp/uvms-test-logfile-XXXXXX";

static int setup(void **state)
{
	return mkdtemp(directory) == NULL;
}

static int teardown(void **state)
{
	return file_remove_tree_at(AT_FDCWD, directory);
}

static size_t size_of(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, 0) < 0 ? 0 : (size_t)st.st_size;
}

/* Eight megabytes of hostile bytes: two segments at most, the rest counted, the end readable. */
static void bounded(void **state)
{
	CLEANUP_CLOSE int dir = open(directory, O_RDONLY | O_DIRECTORY);
	CLEANUP_FREE char *junk = malloc(1 << 20), *tail = NULL;
	struct sv_logfile l;

	memset(junk, 0x1b, 1 << 20);
	assert_int_equal(sv_logfile_init(&l, dir, "console"), 0);
	sv_logfile_write(&l, "first line\n", 11);
	for (int i = 0; i < 8; i++)
		sv_logfile_write(&l, junk, 1 << 20);
	assert_true(size_of(dir, "console") <= SV_LOGFILE_SEGMENT);
	assert_true(size_of(dir, "console.1") <= SV_LOGFILE_SEGMENT);
	assert_true(l.dropped_bytes > 6u << 20);
	assert_true(l.dropped_bytes < 8u << 20);
	tail = sv_logfile_tail(&l, 8);
	assert_non_null(tail);
	assert_int_equal(strlen(tail), 8);
	assert_null(strchr(tail, 0x1b));
	sv_logfile_finish(&l);
}

/* What is said behind a flood is there: for whoever asks, at the end, and as soon as there is room. */
static void keeps_the_last_words(void **state)
{
	CLEANUP_CLOSE int dir = open(directory, O_RDONLY | O_DIRECTORY);
	CLEANUP_FREE char *junk = malloc(1 << 20), *tail = NULL, *end = NULL, *later = NULL;
	struct sv_logfile l;

	memset(junk, 'x', 1 << 20);
	assert_int_equal(sv_logfile_init(&l, dir, "last"), 0);
	for (int i = 0; i < 3; i++)
		sv_logfile_write(&l, junk, 1 << 20);
	sv_logfile_write(&l, "\nwhy\n", 5);
	assert_true(sv_logfile_is_behind(&l));
	tail = sv_logfile_tail(&l, 5);
	assert_string_equal(tail, "\nwhy\n");
	assert_false(sv_logfile_is_behind(&l));
	sv_logfile_write(&l, junk, 1 << 20);
	sv_logfile_write(&l, "\nhow\n", 5);
	l.filled_usec -= 1000000; /* a second later */
	sv_logfile_catch_up(&l);
	assert_false(sv_logfile_is_behind(&l));
	later = sv_logfile_tail(&l, 5);
	assert_string_equal(later, "\nhow\n");
	sv_logfile_write(&l, junk, 1 << 20);
	sv_logfile_write(&l, "\nend\n", 5);
	sv_logfile_finish(&l);
	end = sv_logfile_tail(&l, 5);
	assert_string_equal(end, "\nend\n");
}

static void keeps_short_logs_whole(void **state)
{
	CLEANUP_CLOSE int dir = open(directory, O_RDONLY | O_DIRECTORY);
	CLEANUP_FREE char *tail = NULL;
	struct sv_logfile l;

	assert_int_equal(sv_logfile_init(&l, dir, "vmm.log"), 0);
	sv_logfile_write(&l, "one\n", 4);
	sv_logfile_write(&l, "two\a\n", 5);
	tail = sv_logfile_tail(&l, 100);
	assert_string_equal(tail, "one\ntwo\\x07\n");
	assert_int_equal(l.dropped_bytes, 0);
	sv_logfile_finish(&l);
}

/* What came in two writes is whole; what never becomes whole is told as bytes; a tail begins with a character. */
static void characters(void **state)
{
	CLEANUP_CLOSE int dir = open(directory, O_RDONLY | O_DIRECTORY);
	CLEANUP_FREE char *tail = NULL, *shorter = NULL, *end = NULL;
	struct sv_logfile l;

	assert_int_equal(sv_logfile_init(&l, dir, "utf8"), 0);
	sv_logfile_write(&l, "D\xe2", 2);
	sv_logfile_write(&l, "\x80", 1);
	sv_logfile_write(&l, "\xa6 \xff\xe2\x80", 5);
	tail = sv_logfile_tail(&l, 100);
	assert_string_equal(tail, "D\xe2\x80\xa6 \\xff");
	shorter = sv_logfile_tail(&l, 7);
	assert_string_equal(shorter, " \\xff");
	sv_logfile_finish(&l);
	end = sv_logfile_tail(&l, 8);
	assert_string_equal(end, "\\xe2\\x80");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bounded),
		cmocka_unit_test(keeps_the_last_words),
		cmocka_unit_test(keeps_short_logs_whole),
		cmocka_unit_test(characters),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
