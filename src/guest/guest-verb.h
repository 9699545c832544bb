/* `uvms-guest agent`: the agent's command line. */
#pragma once

/* Returns the exit status. */
int guest_verb_agent(int argc, char *const argv[]);
