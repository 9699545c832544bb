/* A supervisor as text: what goes in comes out, and nothing but a whole and consistent text is taken. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "file.h"
#include "str.h"
#include "sv-saved.h"
#include "unit.h"

#define SECRET "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static int open_fds[64], n_open;

static int a_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return open_fds[n_open++] = fd;
}

static int a_file(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return open_fds[n_open++] = fd;
}

/* As the API socket of Cloud Hypervisor is kept. */
static int a_path(void)
{
	char name[32];
	int socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;

	snprintf(name, sizeof name, "/proc/self/fd/%d", socket_fd);
	fd = open(name, O_PATH | O_CLOEXEC);
	assert_true(fd >= 0);
	close(socket_fd);
	return open_fds[n_open++] = fd;
}

static void close_all(void)
{
	while (n_open > 0)
		close(open_fds[--n_open]);
}

static struct sv_saved *fill(void)
{
	struct sv_saved *s = sv_saved_new();

	s->self.version = SV_SAVED_VERSION;
	s->self.uvms = strdup("0.1.0");
	s->self.state = strdup("running");
	s->self.secret = strdup(SECRET);
	s->self.state_dir = strdup("/var/lib/uvms");
	s->self.runtime_dir = strdup("/run/uvms");
	s->self.config_dir = strdup("/etc/uvms");
	s->self.vm_fd = a_file();
	s->self.runtime_fd = a_file();
	s->self.lock_fd = a_file();
	s->self.dir_fd = a_file();
	s->self.deadline_usec = UINT64_MAX - 7;
	s->self.caller = 1;
	s->n_children = SV_SAVED_CHILDREN;
	s->children[SV_SAVED_VMM].pid = 77;
	s->children[SV_SAVED_NET].has_ended = true;
	s->children[SV_SAVED_NET].end_status = 9;
	s->vsockd.keeper_fd = a_socket();
	s->slots[s->n_slots++] = (struct sv_saved_slot){ 47, a_file() };
	s->slots[s->n_slots++] = (struct sv_saved_slot){ 0, a_file() };
	s->vmm.fd = a_path();
	s->vmm.events_fd = a_file();
	s->vmm.version = 53;
	s->vmm.pending = strdup("7b22");
	s->console.fd = a_socket();
	s->clients[s->n_clients++].fd = a_socket();
	s->agent.fd = a_socket();
	s->homes[0] = (struct sv_saved_home){ .fd = a_socket(), .proven = true, .timeout_usec = 5 };
	s->n_homes = 1;
	s->control.fd = a_socket();
	for (; s->n_connections < 3; s->n_connections++)
		s->connections[s->n_connections].fd = a_socket();
	s->connections[2].out_fd = a_file();
	s->connections[2].out = strdup("00");
	s->waiters[0] = (struct sv_saved_waiter){ 2, strdup("stopped") };
	s->n_waiters = 1;
	s->shares[0] = (struct sv_saved_share){ .place = 5,
		.kind = 1,
		.path = strdup("/mnt/a"),
		.source = strdup("/srv"),
		.program = strdup("/usr/libexec/virtiofsd"),
		.fd = a_file(),
		.listen_fd = a_socket() };
	s->shares[1] = (struct sv_saved_share){ .place = 7,
		.kind = 2,
		.path = strdup("/mnt/b"),
		.source = strdup("b"),
		.digest = strdup("sha256:00"),
		.fd = a_file(),
		.listen_fd = -EBADF,
		.bytes = 2 << 20 };
	s->n_shares = 2;
	s->steps[0].step = strdup("leases");
	assert_int_equal(strv_push(&s->steps[0].args, "cid"), 0);
	s->n_steps = s->self.steps_done = 1;
	vm_spec_init(&s->spec);
	s->spec.name = strdup("vm");
	s->spec.image = strdup("nothing");
	s->status.name = strdup("vm");
	s->status.backend = strdup("null");
	return s;
}

/* The text of S, on the heap. */
static char *text_of(const struct sv_saved *s)
{
	int fd = sv_saved_write(s);
	char *text;

	assert_true(fd >= 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(file_read_fd(fd, SV_SAVED_TEXT_MAX, &text, NULL), 0);
	assert_true(write(fd, "x", 1) < 0); /* it is sealed */
	close(fd);
	return text;
}

static int take(const char *text, bool here)
{
	struct sv_saved *s = NULL;
	char *reason = NULL;
	int r = sv_saved_decode(text, strlen(text), here, &s, &reason);

	assert_true((r == 0) == (s != NULL));
	sv_saved_free(s);
	free(reason);
	return r;
}

static void comes_out_as_it_went_in(void **state)
{
	struct sv_saved *s = fill(), *t;
	char *one = text_of(s), *two, *reason;

	assert_int_equal(sv_saved_decode(one, strlen(one), true, &t, &reason), 0);
	two = text_of(t);
	assert_string_equal(one, two);
	assert_int_equal(t->self.deadline_usec, UINT64_MAX - 7);
	assert_int_equal(t->self.net_fd, -EBADF);
	assert_int_equal(t->slots[0].slot, 47);
	assert_string_equal(t->vmm.pending, "7b22");
	free(one);
	free(two);
	sv_saved_free(s);
	sv_saved_free(t);
	close_all();
}

static void every_beginning_is_refused(void **state)
{
	struct sv_saved *s = fill();
	char *text = text_of(s);

	for (size_t n = strlen(text); n-- > 0;) {
		text[n] = 0;
		assert_int_equal(take(text, true), -EBADMSG);
	}
	free(text);
	sv_saved_free(s);
	close_all();
}

/* The text with the first FROM replaced by TO. */
static char *with(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);
	char *out;

	assert_non_null(at);
	out = str_printf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
	assert_non_null(out);
	return out;
}

static void other_texts_are_refused(void **state)
{
	static const struct {
		const char *from, *to;
		int error;
	} cases[] = {
		{ "\"version\":1", "\"version\":2", -EPROTONOSUPPORT },
		{ "\"version\":1", "\"version\":\"1\"", -EBADMSG },
		{ "\"version\":1,", "", -EPROTONOSUPPORT },
		{ "\"uvms\"", "\"other\"", -EBADMSG },
		{ SECRET, "00", -EBADMSG },
		{ "\"caller\":1", "\"caller\":3", -EBADMSG },
		{ "\"caller\":1", "\"caller\":-1", -EBADMSG },
		{ "\"slot\":47", "\"slot\":48", -EBADMSG },
		{ "\"slot\":47", "\"slot\":0", -EBADMSG },
		{ "\"connection\":2", "\"connection\":3", -EBADMSG },
		{ "\"steps_done\":1", "\"steps_done\":2", -EBADMSG },
		{ "\"place\":7", "\"place\":5", -EBADMSG },
		{ "\"place\":7", "\"place\":8", -EBADMSG },
		{ "\"kind\":2", "\"kind\":1", -EBADMSG },
		{ "\"kind\":2", "\"kind\":0", -EBADMSG },
		{ "\"path\":\"\\/mnt\\/a\",", "", -EBADMSG },
		{ "\"waiters\"", "\"waters\"", -EBADMSG },
		{ "\"waiters\":[", "\"waiters\":[{},", -EBADMSG },
		{ "\"children\":[", "\"children\":[{},", -EBADMSG },
		{ "\"descriptors\":[", "\"descriptors\":[{\"fd\":1,\"kind\":0,\"inode\":0},",
			-EBADMSG },
		{ "\"vm_fd\":", "\"net_fd\":1,\"vm_fd\":", -EBADMSG },
		{ "\"name\":\"vm\"", "\"name\":\"../vm\"", -EBADMSG },
	};
	struct sv_saved *s = fill();
	char *text = text_of(s);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *bad = with(text, cases[i].from, cases[i].to);
		int r = take(bad, true);

		if (r != cases[i].error)
			fail_msg("%s: %d", cases[i].to, r);
		free(bad);
	}
	free(text);
	sv_saved_free(s);
	close_all();
}

static void descriptors_are_looked_at(void **state)
{
	struct sv_saved *s = fill();
	char *text = text_of(s);
	int fd = s->console.fd;

	assert_int_equal(take(text, true), 0);
	close(fd);
	assert_int_equal(take(text, true), -EBADF);
	assert_int_equal(take(text, false), 0); /* they are somebody else's */
	assert_int_equal(dup2(s->self.vm_fd, fd), fd);
	assert_int_equal(take(text, true), -EBADF); /* of another kind */
	assert_int_equal(dup2(s->agent.fd, fd), fd);
	assert_int_equal(take(text, true), -EBADF);        /* another one */
	s->vsockd.keeper_fd = s->console.fd = s->agent.fd; /* one for three */
	free(text);
	text = text_of(s);
	assert_int_equal(take(text, true), -EBADMSG);
	free(text);
	sv_saved_free(s);
	close_all();
}

static void cloexec_is_set_on_exactly_these(void **state)
{
	struct sv_saved *s = fill();
	int other = a_file();

	assert_int_equal(sv_saved_set_cloexec(s, false), 0);
	for (int i = 0; i < n_open; i++)
		assert_int_equal(
			fcntl(open_fds[i], F_GETFD), open_fds[i] == other ? FD_CLOEXEC : 0);
	assert_int_equal(sv_saved_set_cloexec(s, true), 0);
	for (int i = 0; i < n_open; i++)
		assert_int_equal(fcntl(open_fds[i], F_GETFD), FD_CLOEXEC);
	sv_saved_free(s);
	close_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_out_as_it_went_in),
		cmocka_unit_test(every_beginning_is_refused),
		cmocka_unit_test(other_texts_are_refused),
		cmocka_unit_test(descriptors_are_looked_at),
		cmocka_unit_test(cloexec_is_set_on_exactly_these),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
