#include "guest-verb.h"

#include "agent-wire.h"
#include "cleanup.h"
#include "file.h"
#include "guest-agent.h"
#include "guest-place.h"
#include "guest-stop.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>

/* --test-socket PATH --test-home PATH --secret-file PATH --ready-probe */
enum { OPT_TEST_SOCKET = 1000, OPT_TEST_HOME, OPT_SECRET_FILE, OPT_READY_PROBE };

static const struct option options[] = {
	{ "test-socket", required_argument, NULL, OPT_TEST_SOCKET },
	{ "test-home", required_argument, NULL, OPT_TEST_HOME },
	{ "secret-file", required_argument, NULL, OPT_SECRET_FILE },
	{ "ready-probe", no_argument, NULL, OPT_READY_PROBE },
	{},
};

struct verb_args {
	struct guest_agent_config config;
	const char *secret_file;
};

static int parse_args(int argc, char *const argv[], struct verb_args *a)
{
	for (;;) {
		int c = getopt_long(argc, argv, "", options, NULL);

		switch (c) {
		case OPT_TEST_SOCKET:
			a->config.mode = GUEST_AGENT_TEST;
			a->config.transport.listen_path = optarg;
			break;
		case OPT_TEST_HOME: a->config.transport.home_path = optarg; break;
		case OPT_SECRET_FILE: a->secret_file = optarg; break;
		case OPT_READY_PROBE: a->config.ready_probe = true; break;
		case -1: return optind == argc ? 0 : -EINVAL;
		default: return -EINVAL;
		}
	}
}

static int read_secret(const char *path, char **ret)
{
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r;

	r = file_read_at(AT_FDCWD, path, AGENT_WIRE_SECRET, &text, &len);
	if (r < 0)
		return r;
	if (len != AGENT_WIRE_SECRET)
		return -EBADMSG;
	*ret = TAKE_PTR(text);
	return 0;
}

int guest_verb_agent(int argc, char *const argv[])
{
	struct verb_args a = { .config.mode = GUEST_AGENT_SYSTEM,
		.secret_file = GUEST_PLACE_SECRET };
	CLEANUP_FREE char *secret = NULL;
	int r;

	if (parse_args(argc, argv, &a) < 0) {
		fputs("usage: uvms-guest agent [--ready-probe] [--secret-file FILE]\n", stderr);
		return 2;
	}
	r = read_secret(a.secret_file, &secret);
	if (r < 0) {
		guest_stop_warn("cannot read the secret %s: %s", a.secret_file, strerror(-r));
		return 1;
	}
	a.config.secret = (const uint8_t *)secret;
	r = guest_agent_run(&a.config);
	if (r < 0)
		guest_stop_warn("agent: %s", strerror(-r));
	return r < 0;
}
