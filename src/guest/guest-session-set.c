#include "guest-session-set.h"

#include "cleanup.h"

#include <errno.h>
#include <stdio.h>

static void set_refuse(struct guest_frames *f, int error, const char *text)
{
	guest_frames_send(f, &(struct agent_wire_msg){ .type = AGENT_WIRE_FAILED,
				     .failed = { 125, (uint32_t)error, wire_str_from(text) } });
}

static struct guest_session *set_find(struct guest_session_set *set, const uint8_t *id)
{
	for (size_t i = 0; i < set->n; i++)
		if (guest_session_has_id(set->sessions[i], id))
			return set->sessions[i];
	return NULL;
}

static bool set_is_past(const struct guest_session_set *set, const uint8_t *id)
{
	for (size_t i = 0; i < set->n_past && i < GUEST_SESSION_PAST; i++)
		if (memcmp(set->past[i], id, AGENT_WIRE_ID) == 0)
			return true;
	return false;
}

/* The oldest that only keeps an exit status for a host that may never come. */
static void set_make_room(struct guest_session_set *set)
{
	struct guest_session *oldest = NULL;
	uint64_t since = UINT64_MAX;

	for (size_t i = 0; i < set->n; i++) {
		uint64_t kept = guest_session_kept_since(set->sessions[i]);

		if (kept > 0 && kept < since) {
			since = kept;
			oldest = set->sessions[i];
		}
	}
	if (oldest)
		guest_session_hangup(oldest);
}

int guest_session_set_exec(struct guest_session_set *set, const struct agent_wire_msg *m,
	struct guest_frames *frames, const struct guest_session_owner *owner,
	struct guest_session **ret)
{
	char text[64];
	int r;

	if (set_find(set, m->exec.id) || set_is_past(set, m->exec.id)) {
		set_refuse(frames, EEXIST, "there is or was such a session");
		return -EEXIST;
	}
	if (set->n == GUEST_SESSION_MAX)
		set_make_room(set);
	if (set->n == GUEST_SESSION_MAX) {
		snprintf(text, sizeof text, "too many sessions: %d are open", GUEST_SESSION_MAX);
		set_refuse(frames, EAGAIN, text);
		return -EAGAIN;
	}
	r = guest_session_create(m, frames, set->loop, set->reaper, owner, ret);
	if (r == 0)
		set->sessions[set->n++] = *ret;
	return r;
}

int guest_session_set_attach(struct guest_session_set *set, const struct agent_wire_msg *m,
	struct guest_frames *frames, const struct guest_session_owner *owner,
	struct guest_session **ret)
{
	struct guest_session *s = set_find(set, m->attach.id);
	int r;

	r = s ? guest_session_attach(s, m, frames, owner) : -ENOENT;
	if (!s && set_is_past(set, m->attach.id))
		r = -ESRCH;
	if (r == -ENOENT)
		set_refuse(frames, ENOENT, "there is no such session");
	if (r == -ESRCH)
		set_refuse(frames, ESRCH, "the session is over, or was given up");
	if (r == 0)
		*ret = s;
	return r;
}

/* ---- without a connection ---- */

static void set_lost_over(struct guest_session *s, void *user)
{
	struct guest_session_set *set = user;
	bool is_main = guest_session_is_main(s);

	guest_session_set_over(set, s);
	if (is_main)
		set->main_over(set->user);
}

static uint64_t set_patience(uint64_t lost_usec, void *user)
{
	struct guest_session_set *set = user;
	struct guest_session_home home = set->home(set->user);
	uint64_t now = guest_loop_now_usec(), until;

	if (!home.stands)
		return AGENT_WIRE_GRACE_MS / 4;
	if (home.lost_usec == 0 || home.lost_usec + AGENT_WIRE_GRACE_MS * 1000 < lost_usec)
		return 0;
	until = home.stands_usec + AGENT_WIRE_RETURN_MS * 1000;
	return until > now ? (until - now + 999) / 1000 : 0;
}

void guest_session_set_lost(struct guest_session_set *set, struct guest_session *s, bool hangup)
{
	struct guest_session_owner owner = {
		.over = set_lost_over, .patience = set_patience, .user = set
	};

	guest_session_detach(s, &owner);
	if (hangup)
		guest_session_hangup(s);
}

void guest_session_set_over(struct guest_session_set *set, struct guest_session *s)
{
	/* what could not be started may be asked for again: perhaps FAILED was lost */
	if (guest_session_has_started(s))
		memcpy(set->past[set->n_past++ % GUEST_SESSION_PAST], guest_session_id(s),
			AGENT_WIRE_ID);
	for (size_t i = 0; i < set->n; i++) {
		if (set->sessions[i] == s) {
			set->sessions[i] = set->sessions[--set->n];
			break;
		}
	}
	guest_session_destroy(s);
}

void guest_session_set_finish(struct guest_session_set *set)
{
	while (set->n > 0)
		guest_session_destroy(set->sessions[--set->n]);
}
