/* struct sv ↔ struct sv_saved: the parts of a running supervisor, taken down and set up again. */
#pragma once

struct control_call;
struct sv;
struct sv_saved;

/*
 * All of SV, with the call that is to be answered afterwards. Descriptors stay SV's. 0; -EBUSY: not the moment,
 * *RET_WHY (a fixed text) says what is under way; -errno. Free *RET with sv_state_free().
 */
int sv_state_save(const struct sv *sv, const struct control_call *caller, struct sv_saved **ret,
	const char **ret_why);
void sv_state_free(struct sv_saved *s);

/*
 * Goes on as S says, in a fresh SV with its event loop; descriptors are taken over and CLOEXEC again. On failure
 * there is nothing to go back to: leave. *RET_CALLER is the call to be answered.
 */
int sv_state_load(struct sv *sv, struct sv_saved *s, struct control_call **ret_caller);
