/*
 * Linked into a second uvms-vsockd: every heap call first makes a system call that its filter does
 * not allow. Before the filter is loaded nothing happens; after, the first allocation is the end
 * (SIGSYS). So the whole suite, run with that program, shows that none is made.
 */
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t n);

__attribute__((visibility("default"))) void *malloc(size_t n)
{
	syscall(SYS_getppid);
	return __libc_malloc(n);
}

__attribute__((visibility("default"))) void *calloc(size_t n, size_t size)
{
	syscall(SYS_getppid);
	return __libc_calloc(n, size);
}

__attribute__((visibility("default"))) void *realloc(void *p, size_t n)
{
	syscall(SYS_getppid);
	return __libc_realloc(p, n);
}
