#include "sv-control.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "control-error.h"
#include "control-server.h"
#include "fd.h"
#include "json-codec.h"
#include "str.h"
#include "sv-agent.h"
#include "sv-attach.h"
#include "sv-change.h"
#include "sv-console.h"
#include "sv-link.h"
#include "sv-service.h"
#include "sv-share.h"
#include "sv.h"
#include "vm-publish.h"

static const char description[] =
	"# The life of one VM\n"
	"interface io.uvms.VM\n"
	"\n"
	"# What the VM is now; the fields are those of `uvms status --json`\n"
	"method Status() -> (status: object)\n"
	"# Answers when the VM is ready (\"ready\") or gone (\"stopped\")\n"
	"method Wait(for: string) -> (status: object)\n"
	"# Asks the guest, then presses harder; answers when it is gone\n"
	"method Stop(timeout_usec: ?int, force: ?bool) -> (status: object)\n"
	"# A connection to the agent in the guest, authenticated, beside the reply (SCM_RIGHTS);\n"
	"# the version is that of the wire which the agent speaks\n"
	"method OpenAgent(wait: ?bool) -> (version: int)\n"
	"# A connection to a vsock port of the guest, beside the reply\n"
	"method OpenPort(port: int) -> ()\n"
	"# For the supervisor of the VM FROM alone: a connection to a port of the guest which this "
	"VM\n"
	"# lets that one call, beside the reply\n"
	"method Dial(from: string, port: int) -> ()\n"
	"# The guest's serial port, beside the reply\n"
	"method Console() -> ()\n"
	"# The guest stands still; answers when it does. What its memory is for stays\n"
	"method Pause() -> ()\n"
	"# And goes on, with the time of day of now\n"
	"method Resume() -> ()\n"
	"# One of both. Memory is what the guest shall have: how far it follows is its own matter\n"
	"method Set(memory_bytes: ?int, cpus: ?int) -> ()\n"
	"# The guest into STATE/snapshots/SNAPSHOT/vmm, an empty directory of the VM's; it stands "
	"still\n"
	"# meanwhile, and then goes on, or the VM is ended\n"
	"method Snapshot(snapshot: string, stop: ?bool) -> ()\n"
	"# A volume that is there becomes a disk of the guest, with its name as serial number; or "
	"a network comes;\n"
	"# or a directory of the host, or the files of an image, are mounted at a path of the "
	"guest\n"
	"method Attach(volume: ?string, net: ?string, publish: ?[]string, share: ?string, image: "
	"?string,\n"
	"  path: ?string) -> ()\n"
	"# And goes, once the guest has given it up; share and image are paths of the guest\n"
	"method Detach(volume: ?string, net: ?string, share: ?string, image: ?string) -> ()\n"
	"# Goes on as the program that is installed now; answered by that one\n"
	"method Refresh(program: ?string) -> (from: string, to: string, vsock: string)\n"
	"\n"
	"error Failed(message: string, cause: ?string, next: ?string)\n"
	"error NotReady(message: string, cause: ?string, next: ?string)\n"
	"error Ended(message: string, cause: ?string, next: ?string)\n"
	"error Busy(message: string, cause: ?string, next: ?string)\n"
	"error TimedOut(message: string, cause: ?string, next: ?string)\n"
	"error Refused(message: string, cause: ?string, next: ?string)\n"
	"error NotSupported(message: string, cause: ?string, next: ?string)\n";

enum waiting_for {
	WAIT_READY,
	WAIT_AGENT, /* ready, then a session */
	WAIT_STOPPED,
};

struct sv_waiter {
	struct sv_waiter *next;    /* in sv->waiters */
	struct control_call *call; /* borrowed */
	enum waiting_for what;
};

static struct json_object *reply_status(struct sv *sv)
{
	struct json_object *reply = json_object_new_object();

	if (reply)
		json_object_object_add(reply, "status", vm_status_to_json(&sv->status));
	return reply;
}

static void control_wait(struct sv *sv, struct control_call *call, enum waiting_for what)
{
	struct sv_waiter *w = calloc(1, sizeof *w);

	if (!w) {
		control_call_error(call, -EIO, control_error_words("out of memory", NULL, NULL));
		return;
	}
	sv->starter_waits = false;
	*w = (struct sv_waiter){ sv->waiters, call, what };
	sv->waiters = w;
}

static void method_status(struct control_call *call, struct json_object *p, void *userdata)
{
	control_call_reply(call, reply_status(userdata), -EBADF);
}

struct wait_parameters {
	char *for_;
};

static void method_wait(struct control_call *call, struct json_object *p, void *userdata)
{
	static const struct json_field fields[] = {
		{ .name = "for",
			.type = JSON_STR,
			.offset = offsetof(struct wait_parameters, for_) },
	};
	struct wait_parameters w = { 0 };
	struct sv *sv = userdata;

	if (!p || json_codec_decode(p, fields, ARRAY_SIZE(fields), &w, NULL) < 0 ||
		(!str_eq(w.for_, "ready") && !str_eq(w.for_, "stopped")))
		control_call_error(call, -EINVAL,
			control_error_words("for: \"ready\" or \"stopped\"", NULL, NULL));
	else if (str_eq(w.for_, "ready") && sv->state == SV_RUNNING)
		control_call_reply(call, reply_status(sv), -EBADF);
	else
		control_wait(sv, call, str_eq(w.for_, "ready") ? WAIT_READY : WAIT_STOPPED);
	json_codec_release(fields, ARRAY_SIZE(fields), &w);
}

struct stop_parameters {
	uint64_t timeout_usec;
	bool force;
};

static void method_stop(struct control_call *call, struct json_object *p, void *userdata)
{
	static const struct json_field fields[] = {
		JSON_FIELD(struct stop_parameters, timeout_usec, JSON_U64),
		JSON_FIELD(struct stop_parameters, force, JSON_BOOL),
	};
	struct sv *sv = userdata;
	struct stop_parameters s = { .timeout_usec = sv->spec.stop_timeout_usec };

	if (p && json_codec_decode(p, fields, ARRAY_SIZE(fields), &s, NULL) < 0) {
		control_call_error(call, -EINVAL, NULL);
		return;
	}
	control_wait(sv, call, WAIT_STOPPED);
	sv->stop_timeout_usec = s.timeout_usec;
	sv_happen(sv, s.force ? SV_FORCE : SV_STOP, s.force ? "uvms kill" : "uvms stop");
}

struct agent_parameters {
	bool wait;
};

static void method_open_agent(struct control_call *call, struct json_object *p, void *userdata)
{
	static const struct json_field fields[] = {
		JSON_FIELD(struct agent_parameters, wait, JSON_BOOL),
	};
	struct agent_parameters a = { 0 };
	struct sv *sv = userdata;

	if (p && json_codec_decode(p, fields, ARRAY_SIZE(fields), &a, NULL) < 0)
		control_call_error(call, -EINVAL, NULL);
	else if (sv_agent_is_ready(sv->agent) &&
		 (sv->refresh.call || sv->refresh.done || sv_snapshot_is_under_way(sv)))
		control_wait(sv, call, WAIT_AGENT); /* for a moment */
	else if (sv->state == SV_PAUSED && a.wait)
		control_wait(sv, call, WAIT_AGENT);
	else if (sv->state == SV_PAUSED)
		control_call_error(call, -EBUSY,
			control_error_words("the guest is paused", NULL, "uvms resume NAME"));
	else if (sv_agent_is_ready(sv->agent))
		sv_agent_open(sv->agent, call, 0);
	else if (a.wait)
		control_wait(sv, call, WAIT_AGENT);
	else
		control_call_error(call, -ENOTCONN,
			control_error_words("the guest is not ready", NULL,
				"uvms wait --for=ready waits for it, uvms logs shows its console"));
}

struct port_parameters {
	uint32_t port;
};

static void method_open_port(struct control_call *call, struct json_object *p, void *userdata)
{
	static const struct json_field fields[] = {
		JSON_FIELD(struct port_parameters, port, JSON_U32),
	};
	struct port_parameters a = { 0 };
	struct sv *sv = userdata;

	if (!p || json_codec_decode(p, fields, ARRAY_SIZE(fields), &a, NULL) < 0 || a.port == 0)
		control_call_error(call, -EINVAL, NULL);
	else if (a.port == AGENT_PORT)
		control_call_error(call, -EACCES,
			control_error_words("port 1023 is the agent's own", NULL, NULL));
	else
		sv_agent_open(sv->agent, call, a.port);
}

struct dial_parameters {
	char *from;
	uint32_t port;
};

static void method_dial(struct control_call *call, struct json_object *p, void *userdata)
{
	static const struct json_field fields[] = {
		JSON_FIELD(struct dial_parameters, from, JSON_STR, .max = VM_NAME_MAX),
		JSON_FIELD(struct dial_parameters, port, JSON_U32),
	};
	struct dial_parameters d = { 0 };

	if (!p || json_codec_decode(p, fields, ARRAY_SIZE(fields), &d, NULL) < 0 || !d.from)
		control_call_error(call, -EINVAL, NULL);
	else
		sv_service_dial(userdata, call, d.from, d.port);
	json_codec_release(fields, ARRAY_SIZE(fields), &d);
}

static void method_console(struct control_call *call, struct json_object *p, void *userdata)
{
	struct sv *sv = userdata;
	CLEANUP_CLOSE int fd = sv_console_open(sv->console);

	if (fd >= 0)
		control_call_reply(call, NULL, fd);
	else
		control_call_error(call, fd,
			control_error_words("the console cannot be opened",
				fd == -EBUSY ? "four others have it" : NULL, NULL));
}

struct refresh_parameters {
	char *program;
};

/* Which program is executed as us, nobody says but who could start it as us anyway. */
static void method_refresh(struct control_call *call, struct json_object *p, void *userdata)
{
	static const struct json_field fields[] = {
		JSON_FIELD(struct refresh_parameters, program, JSON_STR),
	};
	struct refresh_parameters w = { 0 };

	if (p && json_codec_decode(p, fields, ARRAY_SIZE(fields), &w, NULL) < 0)
		control_call_error(call, -EINVAL, NULL);
	else if (w.program && !control_call_is_own_user(call))
		control_call_error(call, -EPERM,
			control_error_words(
				"only the VM's owner may say which program", NULL, NULL));
	else if (w.program && *w.program != '/')
		control_call_error(call, -EINVAL,
			control_error_words("program: an absolute path", NULL, NULL));
	else
		sv_refresh_ask(userdata, call, w.program);
	json_codec_release(fields, ARRAY_SIZE(fields), &w);
}

static void method_pause(struct control_call *call, struct json_object *p, void *userdata)
{
	sv_change_ask(userdata, call, &(struct vmm_op){ .kind = VMM_OP_PAUSE }, NULL);
}

/* One of a volume, the network (the only kind of which is "user"), a shared directory and an image. */
struct attach_parameters {
	char *volume, *net, **publish;
	char *share, *image, *path;
};

static const struct json_field attach_fields[] = {
	JSON_FIELD(struct attach_parameters, volume, JSON_STR, .max = VM_VOLUME_NAME_MAX),
	JSON_FIELD(struct attach_parameters, net, JSON_STR, .max = 16),
	JSON_FIELD(struct attach_parameters, publish, JSON_STRV, .max = VM_PUBLISH_MAX),
	JSON_FIELD(struct attach_parameters, share, JSON_STR, .max = 4095),
	JSON_FIELD(struct attach_parameters, image, JSON_STR, .max = 4095),
	JSON_FIELD(struct attach_parameters, path, JSON_STR, .max = 4095),
};

/* False: CALL is answered. AT: a share or an image comes with its path. */
static bool attach_decode(
	struct control_call *call, struct json_object *p, bool at, struct attach_parameters *ret)
{
	const struct attach_parameters *a = ret;

	if (p && json_codec_decode(p, attach_fields, ARRAY_SIZE(attach_fields), ret, NULL) >= 0 &&
		!!a->volume + !!a->net + !!a->share + !!a->image == 1 &&
		(!a->net || str_eq(a->net, "user")) && (a->net || !a->publish) &&
		!a->path != (at && (a->share || a->image)))
		return true;
	control_call_error(call, -EINVAL,
		control_error_words(
			"one of volume: a name, net: \"user\", share and image", NULL, NULL));
	return false;
}

static void method_attach(struct control_call *call, struct json_object *p, void *userdata)
{
	struct attach_parameters a = { 0 };

	if (attach_decode(call, p, true, &a)) {
		if (a.volume)
			sv_attach_ask(userdata, call, a.volume);
		else if (a.net)
			sv_link_attach_consume(userdata, call, TAKE_PTR(a.publish));
		else
			sv_share_attach(
				userdata, call, &(struct sv_share_ask){ a.share, a.image, a.path });
	}
	json_codec_release(attach_fields, ARRAY_SIZE(attach_fields), &a);
}

static void method_detach(struct control_call *call, struct json_object *p, void *userdata)
{
	struct attach_parameters a = { 0 };

	if (attach_decode(call, p, false, &a)) {
		if (a.volume)
			sv_detach_ask(userdata, call, a.volume);
		else if (a.net)
			sv_link_detach(userdata, call);
		else
			sv_share_detach(userdata, call, a.share ? a.share : a.image, a.image);
	}
	json_codec_release(attach_fields, ARRAY_SIZE(attach_fields), &a);
}

struct snapshot_parameters {
	char *snapshot;
	bool stop;
};

static void method_snapshot(struct control_call *call, struct json_object *p, void *userdata)
{
	static const struct json_field fields[] = {
		JSON_FIELD(struct snapshot_parameters, snapshot, JSON_STR, .max = 255),
		JSON_FIELD(struct snapshot_parameters, stop, JSON_BOOL),
	};
	struct snapshot_parameters s = { 0 };

	if (!p || json_codec_decode(p, fields, ARRAY_SIZE(fields), &s, NULL) < 0 || !s.snapshot)
		control_call_error(
			call, -EINVAL, control_error_words("snapshot: a name", NULL, NULL));
	else
		sv_snapshot_ask(userdata, call, s.snapshot, s.stop);
	json_codec_release(fields, ARRAY_SIZE(fields), &s);
}

struct set_parameters {
	uint64_t memory_bytes;
	uint32_t cpus;
};

static void method_set(struct control_call *call, struct json_object *p, void *userdata)
{
	static const struct json_field fields[] = {
		JSON_FIELD(struct set_parameters, memory_bytes, JSON_U64, .max = UINT64_C(1) << 46),
		JSON_FIELD(struct set_parameters, cpus, JSON_U32, .max = VM_CPUS_MAX),
	};
	struct set_parameters s = { 0 };

	if (!p || json_codec_decode(p, fields, ARRAY_SIZE(fields), &s, NULL) < 0 ||
		!s.memory_bytes == !s.cpus)
		control_call_error(call, -EINVAL,
			control_error_words("either memory_bytes or cpus", NULL, NULL));
	else
		sv_change_ask(userdata, call,
			&(struct vmm_op){ .kind = s.cpus ? VMM_OP_CPUS : VMM_OP_MEMORY,
				.bytes = s.memory_bytes,
				.cpus = s.cpus },
			NULL);
}

static void method_resume(struct control_call *call, struct json_object *p, void *userdata)
{
	sv_change_ask(userdata, call, &(struct vmm_op){ .kind = VMM_OP_RESUME }, NULL);
}

static const struct control_method methods[] = {
	{ "io.uvms.VM.Status", true, method_status },
	{ "io.uvms.VM.Wait", true, method_wait },
	{ "io.uvms.VM.Stop", false, method_stop },
	{ "io.uvms.VM.OpenAgent", false, method_open_agent },
	{ "io.uvms.VM.OpenPort", false, method_open_port },
	{ "io.uvms.VM.Dial", false, method_dial },
	{ "io.uvms.VM.Console", false, method_console },
	{ "io.uvms.VM.Refresh", false, method_refresh },
	{ "io.uvms.VM.Pause", false, method_pause },
	{ "io.uvms.VM.Resume", false, method_resume },
	{ "io.uvms.VM.Set", false, method_set },
	{ "io.uvms.VM.Snapshot", false, method_snapshot },
	{ "io.uvms.VM.Attach", false, method_attach },
	{ "io.uvms.VM.Detach", false, method_detach },
	{ 0 },
};

static void control_on_gone(struct control_call *call, void *userdata)
{
	struct sv *sv = userdata;

	for (struct sv_waiter **p = &sv->waiters; *p;) {
		struct sv_waiter *w = *p;

		if (w->call == call) {
			*p = w->next;
			free(w);
		} else {
			p = &w->next;
		}
	}
	sv_agent_forget(sv->agent, call);
	sv_refresh_forget(sv, call);
	sv_change_forget(sv, call);
	sv_link_forget(sv, call);
	sv_share_forget(sv, call);
	sv_snapshot_forget(sv, call);
}

static void control_on_owner_gone(void *userdata)
{
	struct sv *sv = userdata;

	sv->starter_waits = false;
	if (sv->owned && !sv->finished)
		sv_happen(sv, SV_OWNER_GONE, "the client that owned the VM is gone");
}

int sv_control_create(struct sv *sv)
{
	static struct control_hooks hooks = {
		.methods = methods,
		.description = description,
		.gone = control_on_gone,
		.owner_gone = control_on_owner_gone,
	};
	int r;

	hooks.userdata = sv;
	r = control_server_create(sv->event, &hooks, &sv->control);
	sv->starter_waits = sv->client_fd >= 0;
	if (r >= 0 && sv->client_fd >= 0)
		r = control_server_adopt_consume(sv->control, TAKE_FD(sv->client_fd));
	return r;
}

void sv_control_tell_ready(struct sv *sv)
{
	struct sv_waiter **p = &sv->waiters;

	while (*p) {
		struct sv_waiter *w = *p;

		if (w->what == WAIT_STOPPED) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		if (w->what == WAIT_AGENT)
			sv_agent_open(sv->agent, w->call, 0);
		else
			control_call_reply(w->call, reply_status(sv), -EBADF);
		free(w);
	}
}

static void tell_failure(struct sv *sv, struct control_call *call)
{
	const char *what = str_or(sv->failure, "the VM ended before it was ready");

	control_call_error(call, sv->failure_errno ? sv->failure_errno : -ESHUTDOWN,
		control_error_words(what, str_eq(what, sv->status.cause) ? NULL : sv->status.cause,
			sv->failure_next ? sv->failure_next
					 : "uvms logs shows the console, the VMM's and the "
					   "supervisor's log"));
}

static const char *const waiting_names[] = {
	[WAIT_READY] = "ready",
	[WAIT_AGENT] = "agent",
	[WAIT_STOPPED] = "stopped",
};

bool sv_control_waiter(
	const struct sv *sv, size_t i, const struct control_call **ret_call, const char **ret_what)
{
	const struct sv_waiter *w = sv->waiters;

	while (w && i-- > 0)
		w = w->next;
	if (!w)
		return false;
	*ret_call = w->call;
	*ret_what = waiting_names[w->what];
	return true;
}

int sv_control_wait_again(struct sv *sv, struct control_call *call, const char *what)
{
	bool starter_waits = sv->starter_waits;

	for (size_t i = 0; i < ARRAY_SIZE(waiting_names); i++) {
		if (!str_eq(waiting_names[i], what))
			continue;
		control_wait(sv, call, (enum waiting_for)i);
		sv->starter_waits = starter_waits;
		return 0;
	}
	return -EINVAL;
}

void sv_control_tell_end(struct sv *sv)
{
	sv_refresh_finish(sv);
	sv_change_finish(sv);
	sv_snapshot_finish(sv);
	for (int i = 0; sv->starter_waits && !sv->waiters && i < 10; i++)
		sd_event_run(sv->event, 100 * 1000);
	while (sv->waiters) {
		struct sv_waiter *w = sv->waiters;

		sv->waiters = w->next;
		if (w->what == WAIT_STOPPED)
			control_call_reply(w->call, reply_status(sv), -EBADF);
		else
			tell_failure(sv, w->call);
		free(w);
	}
}
