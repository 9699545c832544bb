/* How to install a program on the distribution that this host is. */
#pragma once

/*
 * The command that installs what brings PROGRAM ("mkfs.erofs", "qemu-system-x86_64" …), on the heap;
 * OS_RELEASE is the text of os-release(5), NULL when there is none. NULL: out of memory. A program
 * that is not in the table is named as it is.
 */
char *doctor_package_command(const char *program, const char *os_release);

/* The same for this host. */
char *doctor_package_remedy(const char *program);
