#include "sv-fsm.h"
#include "unit.h"

static int rung(enum sv_state s)
{
	return (int)s; /* the order of the enumeration is the order of the ladder */
}

/* Every cell: inside the table, never back down a rung, and every way ends. */
static void every_cell(void **state)
{
	for (int s = 0; s < SV_STATES; s++) {
		for (int h = 0; h < SV_HAPPENINGS; h++) {
			struct sv_transition t =
				sv_fsm_next((enum sv_state)s, (enum sv_happening)h);

			assert_true(t.action < SV_ACTIONS);
			assert_true(t.next < SV_STATES);
			assert_non_null(sv_fsm_happening_name((enum sv_happening)h));
			assert_non_null(sv_fsm_action_name(t.action));
			/* the ways back: a running guest boots again, a paused one goes on */
			if (sv_fsm_is_up((enum sv_state)s) && h == SV_GUEST_RESET)
				assert_int_equal(t.next, SV_BOOTING);
			else if (s == SV_PAUSED && h == SV_GUEST_RESUMED)
				assert_int_equal(t.next, SV_RUNNING);
			else
				assert_true(rung(t.next) >= rung((enum sv_state)s));
			if (s == SV_ENDED)
				assert_true(t.action == SV_DO_NOTHING && t.next == SV_ENDED);
		}
	}
}

/* The VMM's end is the end, in whatever state; nothing else finishes but a kill that took too long. */
static void only_the_end_finishes(void **state)
{
	for (int s = 0; s < SV_ENDED; s++) {
		for (int h = 0; h < SV_HAPPENINGS; h++) {
			struct sv_transition t =
				sv_fsm_next((enum sv_state)s, (enum sv_happening)h);
			int finishes = h == SV_VMM_GONE || (s == SV_STOP_KILL && h == SV_DEADLINE);

			assert_int_equal(t.action == SV_DO_FINISH, finishes);
			assert_int_equal(t.next == SV_ENDED, finishes);
		}
	}
}

/* Deadlines alone lead from a stop request to the end: nobody has to answer. */
static void silence_ends(void **state)
{
	enum sv_state s = sv_fsm_next(SV_RUNNING, SV_STOP).next;
	int steps = 0;

	while (s != SV_ENDED && steps++ < SV_STATES)
		s = sv_fsm_next(s, SV_DEADLINE).next;
	assert_int_equal(s, SV_ENDED);
}

/* A part that dies costs the VM at once, before the VMM is asked anything. */
static void a_dead_part_is_no_rung(void **state)
{
	static const enum sv_happening deaths[] = { SV_VSOCKD_LOST, SV_NAMESPACE_GONE,
		SV_VMM_FAULT };

	for (int s = 0; s < SV_ENDED; s++) {
		for (int i = 0; i < 3; i++)
			assert_int_equal(
				sv_fsm_next((enum sv_state)s, deaths[i]).next, SV_STOP_KILL);
	}
}

/* A vsockd that dies is replaced in whatever state the VMM may be asked something. */
static void a_dead_device_is_replaced(void **state)
{
	for (int s = 0; s < SV_STOP_QUIT; s++) {
		struct sv_transition t = sv_fsm_next((enum sv_state)s, SV_VSOCKD_GONE);

		assert_int_equal(t.action, SV_DO_REPLACE);
		assert_int_equal(t.next, s);
	}
	assert_int_equal(sv_fsm_next(SV_STOP_QUIT, SV_VSOCKD_GONE).next, SV_STOP_KILL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cell),
		cmocka_unit_test(only_the_end_finishes),
		cmocka_unit_test(silence_ends),
		cmocka_unit_test(a_dead_part_is_no_rung),
		cmocka_unit_test(a_dead_device_is_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
