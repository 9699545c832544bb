/*
 * Credentials: files of the initramfs that become /run/credentials/@system. A command finds them by
 * $CREDENTIALS_DIRECTORY; systemd (≥ 250) takes that variable of PID 1 for what an earlier stage has
 * imported, and then looks nowhere else: so what it would have found in SMBIOS has to be there too.
 */
#pragma once

#include "boot-desc.h"

/* Before the modules' files are freed: puts them aside. */
void guest_creds_keep(void);

/* OLD_ROOT: the initramfs's root. In the new root, with /run. 0 or -errno. */
int guest_creds_place(int old_root, const struct boot_desc *d);

/* $CREDENTIALS_DIRECTORY of commands and of the image's init; NULL when there are no credentials. */
const char *guest_creds_directory(void);

/* Lets USER read them: the main command's, who need not be root. 0 or -errno. */
int guest_creds_give(uid_t uid, gid_t gid);
