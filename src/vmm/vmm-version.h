/*
 * What a VMM says of itself. Asking costs an exec, so the answer is kept in RUNTIME/.vmm-version with the
 * program's identity (device, inode, size, change time) and is asked for again when that differs.
 */
#pragma once

struct vm_dirs;

#define VMM_VERSION_TEXT_MAX 128

/*
 * The first line of PROGRAM --version. -EIO: it said nothing within 5 s or failed. It runs as the caller, with
 * no descriptor but its output.
 */
int vmm_version_ask(
	const struct vm_dirs *dirs, const char *program, char ret[static VMM_VERSION_TEXT_MAX]);
