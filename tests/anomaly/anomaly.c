/*
 * Preloaded into a program under test: the Nth allocation, or the Nth of one kind of system call,
 * fails. The numbers lie in a file that all processes of a run share (UVMS_ANOMALY_FILE), so N
 * counts over all of them, and whoever drives the loop reads there whether it was reached.
 * UVMS_ANOMALY_PROGRAMS says in which programs ("uvms:uvms-supervisor").
 *
 * Allocations of libcrypto and json-c are left alone (but with UVMS_ANOMALY_ALL): json-c's parser
 * uses what its own strdup() gave it without a look.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum op {
	OP_MALLOC,
	OP_OPENAT,
	OP_WRITE,
	OP_RENAMEAT,
	OP_SOCKET,
	OP_PIPE2,
	OP_MEMFD_CREATE,
	OP_FORK,
	OP_LINKAT,
	OP_MKDIRAT,
	OP_FSYNC,
	OP_FTRUNCATE,
	OPS,
};

/* As tests/anomaly/anomaly.py packs it. */
struct shared {
	uint32_t op, fail_at, error, hits;
	uint32_t counts[OPS];
};

static struct shared *shared; /* NULL: not in this program */

#define EXPORT __attribute__((visibility("default")))

static bool named(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list; (p = strstr(p, name)); p += n) {
		if ((p == list || p[-1] == ':') && (p[n] == ':' || !p[n]))
			return true;
	}
	return false;
}

/* Code of libraries whose allocations do not count. */
static struct {
	uintptr_t begin, end;
} spared[8];
static size_t n_spared;

static int spare(struct dl_phdr_info *info, size_t size, void *userdata)
{
	if (!strstr(info->dlpi_name, "/libjson-c.") && !strstr(info->dlpi_name, "/libcrypto."))
		return 0;
	for (int i = 0; i < info->dlpi_phnum && n_spared < 8; i++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[i];

		if (h->p_type != PT_LOAD || !(h->p_flags & PF_X))
			continue;
		spared[n_spared].begin = info->dlpi_addr + h->p_vaddr;
		spared[n_spared].end = spared[n_spared].begin + h->p_memsz;
		n_spared++;
	}
	return 0;
}

static bool is_spared(const void *caller)
{
	for (size_t i = 0; i < n_spared; i++) {
		if ((uintptr_t)caller >= spared[i].begin && (uintptr_t)caller < spared[i].end)
			return true;
	}
	return false;
}

__attribute__((constructor)) static void anomaly_begin(void)
{
	const char *path = getenv("UVMS_ANOMALY_FILE"), *programs = getenv("UVMS_ANOMALY_PROGRAMS");
	void *map;
	int fd;

	if (!path || !programs || !named(programs, program_invocation_short_name))
		return;
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	map = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	syscall(SYS_close, fd);
	if (!getenv("UVMS_ANOMALY_ALL"))
		dl_iterate_phdr(spare, NULL);
	if (map != MAP_FAILED)
		shared = map;
}

/* Where it was, for whoever looks at one fault (then addr2line(1)). */
static void trace(const char *path)
{
	void *frames[32];
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0666);

	backtrace_symbols_fd(frames, backtrace(frames, 32), fd);
	syscall(SYS_close, fd);
}

/* Whether this call is the one; errno is set then. */
static bool fails(enum op op)
{
	uint32_t n;

	if (!shared)
		return false;
	n = __atomic_add_fetch(&shared->counts[op], 1, __ATOMIC_SEQ_CST);
	if (shared->op != op || n != shared->fail_at)
		return false;
	__atomic_add_fetch(&shared->hits, 1, __ATOMIC_SEQ_CST);
	if (getenv("UVMS_ANOMALY_TRACE"))
		trace(getenv("UVMS_ANOMALY_TRACE"));
	errno = (int)shared->error;
	return true;
}

/* ---- memory: glibc's own, by the names under which it stays reachable ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

#define NO_MEMORY (!is_spared(__builtin_return_address(0)) && fails(OP_MALLOC))

EXPORT char *(strdup)(const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = NO_MEMORY ? NULL : __libc_malloc(n);

	return p ? memcpy(p, s, n) : NULL;
}

EXPORT void *malloc(size_t n)
{
	return NO_MEMORY ? NULL : __libc_malloc(n);
}

EXPORT void *calloc(size_t n, size_t size)
{
	return NO_MEMORY ? NULL : __libc_calloc(n, size);
}

EXPORT void *realloc(void *p, size_t n)
{
	return NO_MEMORY ? NULL : __libc_realloc(p, n);
}

/* ---- system calls ---- */

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
	if (fails(OP_OPENAT))
		return -1;
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

static mode_t mode_of(int flags, va_list ap)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return open_at(dir, path, flags, mode);
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return open_at(AT_FDCWD, path, flags, mode);
}

EXPORT ssize_t write(int fd, const void *data, size_t n)
{
	return fails(OP_WRITE) ? -1 : syscall(SYS_write, fd, data, n);
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t n, off_t offset)
{
	return fails(OP_WRITE) ? -1 : syscall(SYS_pwrite64, fd, data, n, offset);
}

EXPORT int renameat(int from, const char *a, int to, const char *b)
{
	return fails(OP_RENAMEAT) ? -1 : (int)syscall(SYS_renameat, from, a, to, b);
}

EXPORT int socket(int domain, int type, int protocol)
{
	return fails(OP_SOCKET) ? -1 : (int)syscall(SYS_socket, domain, type, protocol);
}

EXPORT int socketpair(int domain, int type, int protocol, int pair[2])
{
	return fails(OP_SOCKET) ? -1 : (int)syscall(SYS_socketpair, domain, type, protocol, pair);
}

EXPORT int pipe2(int pair[2], int flags)
{
	return fails(OP_PIPE2) ? -1 : (int)syscall(SYS_pipe2, pair, flags);
}

EXPORT int memfd_create(const char *name, unsigned int flags)
{
	return fails(OP_MEMFD_CREATE) ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}

EXPORT pid_t fork(void)
{
	static pid_t (*real)(void);

	if (fails(OP_FORK))
		return -1;
	if (!real)
		real = (pid_t(*)(void))(uintptr_t)dlsym(RTLD_NEXT, "fork");
	return real();
}

EXPORT int linkat(int from, const char *a, int to, const char *b, int flags)
{
	return fails(OP_LINKAT) ? -1 : (int)syscall(SYS_linkat, from, a, to, b, flags);
}

EXPORT int mkdirat(int dir, const char *name, mode_t mode)
{
	return fails(OP_MKDIRAT) ? -1 : (int)syscall(SYS_mkdirat, dir, name, mode);
}

EXPORT int fsync(int fd)
{
	return fails(OP_FSYNC) ? -1 : (int)syscall(SYS_fsync, fd);
}

EXPORT int ftruncate(int fd, off_t length)
{
	return fails(OP_FTRUNCATE) ? -1 : (int)syscall(SYS_ftruncate, fd, length);
}
