/* What `run` reads from files: environments and credentials. */
#pragma once

/*
 * Appends the assignments of FILE to ENV: one NAME=VALUE a line, as it stands behind the '='; NAME alone
 * takes the caller's value; empty lines and those that begin with '#' count for nothing. 0 or an exit
 * code after a complaint.
 */
int run_input_env_file(const char *file, char ***env);

/* Checks "NAME=FILE" and appends NAME. 0 or an exit code after a complaint. */
int run_input_credential_name(const char *assignment, char ***names);

/* Copies what ASSIGNMENTS (NULL: none) name to VM_FD/credentials/NAME, 0400. 0 or an exit code. */
int run_input_keep_credentials(int vm_fd, char **assignments);
