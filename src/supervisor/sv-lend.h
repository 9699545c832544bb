/*
 * Layers for a VMM that opens files by their names (VMM_CAP_API), and may not pass through the store: each gets a second
 * name (store_lend_blob()) in a directory of this VM, STATE/vms/NAME/lent, where only its user gets in, to read.
 */
#pragma once

#define SV_LENT "lent"

struct store;
struct sv;

/* That directory, made when it is missing. Descriptor or -errno. */
int sv_lend_open(const struct sv *sv);

/* Lends the layer DIGEST, open in FD; *RET_PATH (heap) is where. -errno with *RET_REASON (heap or NULL). */
int sv_lend(struct sv *sv, struct store *store, const char *digest, int fd, char **ret_path,
	char **ret_reason);

/* The store, the caller's; in the next image of this process nobody has opened it. */
int sv_lend_store(const struct sv *sv, struct store **ret);

/* Takes DIGEST back; what is not lent stays. NULL: all that an earlier life may have left. */
void sv_lend_end(struct sv *sv, const char *digest);
