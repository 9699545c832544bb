/* What an image says about running it, applied to a specification. */
#pragma once

#include <stdbool.h>

struct vm_spec;

struct run_image_wish {
	const char *entrypoint; /* borrowed; NULL: the image's, "": none */
	bool init;              /* boot the image's own init although it names a command */
};

/*
 * Command, environment, working directory and user of S->image go below what S says already. An image
 * that is not there, or is broken, changes nothing: the start says so. 0 or -ENOMEM.
 */
int run_image_apply(struct vm_spec *s, const struct run_image_wish *wish);
