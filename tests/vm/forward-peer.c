/*
 * Both ends of a forward, for test-forward.py and bench/forward/run.
 *
 *	uvms-test-forward-peer serve vsock|tcp PORT         in the guest: takes what is sent, sends what is asked for
 *	uvms-test-forward-peer serve hybrid PATH            on the host: as a guest behind its hybrid socket would
 *	uvms-test-forward-peer bytes WHERE up|down MIB      on the host: prints seconds
 *	uvms-test-forward-peer connections WHERE N PARALLEL prints seconds for N of them, each one byte there and back
 *
 *	uvms-test-forward-peer spawn PROGRAM N                   for bench/exec/run: fork, exec, wait; prints JSON
 *
 * WHERE is PORT (on 127.0.0.1) or PORT:LINE: after connecting, "CONNECT LINE\n" is said and "OK …\n" read.
 * A client's first byte says what it wants: 'u' is upload, 'd' and a u64 is download, 'e' is one byte back.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>

#include "fd.h"

#define CHUNK   (256 * 1024)
#define WORKERS 8

static uint8_t chunk[CHUNK];
static const char *connect_line; /* NULL: none */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void must(int r, const char *what)
{
	if (r < 0) {
		errno = -r;
		die(what);
	}
}

/* ---- the guest's end ---- */

static void serve_one(int fd)
{
	uint64_t n = 0;
	char kind;

	if (fd_read_full(fd, &kind, 1) != 1)
		return;
	if (kind == 'e') {
		(void)fd_write_all(fd, &kind, 1);
	} else if (kind == 'd' && fd_read_full(fd, &n, sizeof n) == sizeof n) {
		for (; n > 0; n -= n < CHUNK ? n : CHUNK)
			if (fd_write_all(fd, chunk, n < CHUNK ? n : CHUNK) < 0)
				return;
	} else if (kind == 'u') {
		for (ssize_t r; (r = read(fd, chunk, CHUNK)) > 0;)
			n += (uint64_t)r;
		(void)fd_write_all(fd, &n, sizeof n);
	}
}

static int listen_on(const char *kind, unsigned port)
{
	struct sockaddr_vm vm = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port
	};
	struct sockaddr_in in = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int vsock = strcmp(kind, "vsock") == 0, r;
	int fd = socket(vsock ? AF_VSOCK : AF_INET, SOCK_STREAM, 0);

	r = vsock ? bind(fd, (struct sockaddr *)&vm, sizeof vm)
		  : bind(fd, (struct sockaddr *)&in, sizeof in);
	if (fd < 0 || r < 0 || listen(fd, 1024) < 0)
		die("listen");
	return fd;
}

/* A process for each bulk connection only: the quick ones are answered at once. */
static int serve(const char *kind, unsigned port)
{
	int fd = listen_on(kind, port);

	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		int c = accept(fd, NULL, NULL);
		char first = 0;

		if (c < 0)
			continue;
		if (recv(c, &first, 1, MSG_PEEK) == 1 && first != 'e' && fork() == 0) {
			serve_one(c);
			_exit(0);
		}
		if (first == 'e')
			serve_one(c);
		close(c);
	}
}

/* "CONNECT n\n" is answered with "OK n\n"; then it is as with the others. */
static void serve_hybrid_one(int fd)
{
	char line[32];
	ssize_t n = read(fd, line, sizeof line - 1);

	if (n < 9 || memcmp(line, "CONNECT ", 8) != 0 || line[n - 1] != '\n')
		return;
	if (fd_write_all(fd, "OK ", 3) == 0 && fd_write_all(fd, line + 8, (size_t)n - 8) == 0)
		serve_one(fd);
}

/* Workers that are there already: no peer is to wait for another, nor for a fork. */
static int serve_hybrid(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), c;

	signal(SIGPIPE, SIG_IGN);
	if (strlen(path) >= sizeof sa.sun_path)
		return 2;
	strcpy(sa.sun_path, path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, 1024) < 0)
		die("listen");
	for (int i = 0; i < WORKERS; i++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while ((c = accept(fd, NULL, NULL)) >= 0) {
				serve_hybrid_one(c);
				close(c);
			}
			_exit(1);
		}
	while (wait(NULL) > 0)
		;
	return 1;
}

/* ---- the host's ---- */

static unsigned parse_where(char *where)
{
	char *colon = strchr(where, ':');

	if (colon) {
		*colon = 0;
		connect_line = colon + 1;
	}
	return (unsigned)atoi(where);
}

static int dial(unsigned port)
{
	struct sockaddr_in in = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct linger reset = { 1, 0 }; /* thousands of connections: none may stay in TIME_WAIT */
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	if (fd < 0 || connect(fd, (struct sockaddr *)&in, sizeof in) < 0)
		die("connect");
	if (connect_line) {
		char line[64];
		int n = snprintf(line, sizeof line, "CONNECT %s\n", connect_line);

		must(fd_write_all(fd, line, (size_t)n), "handshake");
		do
			if (read(fd, line, 1) != 1)
				die("handshake");
		while (line[0] != '\n');
	}
	return fd;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int bytes(unsigned port, const char *way, uint64_t n)
{
	double start = now();
	int fd = dial(port);
	uint64_t got = 0;

	if (strcmp(way, "up") == 0) {
		must(fd_write_all(fd, "u", 1), "send");
		for (uint64_t left = n; left > 0; left -= left < CHUNK ? left : CHUNK)
			must(fd_write_all(fd, chunk, left < CHUNK ? left : CHUNK), "send");
		shutdown(fd, SHUT_WR);
		if (fd_read_full(fd, &got, sizeof got) != sizeof got)
			die("no answer");
	} else {
		must(fd_write_all(fd, "d", 1), "send");
		must(fd_write_all(fd, &n, sizeof n), "send");
		for (ssize_t r; got < n && (r = read(fd, chunk, CHUNK)) > 0;)
			got += (uint64_t)r;
	}
	if (got != n) {
		fprintf(stderr, "%llu bytes of %llu\n", (unsigned long long)got,
			(unsigned long long)n);
		return 1;
	}
	printf("%.6f\n", now() - start);
	return 0;
}

static void one_after_another(unsigned port, int n)
{
	for (; n > 0; n--) {
		int fd = dial(port);
		char c;

		must(fd_write_all(fd, "e", 1), "send");
		if (read(fd, &c, 1) != 1)
			die("no byte came back");
		close(fd);
	}
}

static int connections(unsigned port, int n, int parallel)
{
	double start = now();
	int status, failed = 0;

	for (int i = 0; i < parallel; i++)
		if (fork() == 0) {
			one_after_another(port, n / parallel);
			_exit(0);
		}
	while (wait(&status) > 0)
		failed |= status;
	printf("%.6f\n", now() - start);
	return failed != 0;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int spawn(char *program, int n)
{
	double *times = calloc((size_t)n, sizeof *times);

	for (int i = 0; times && i < n; i++) {
		double start = now();
		pid_t pid = fork();

		if (pid == 0) {
			execl(program, program, NULL);
			_exit(127);
		}
		waitpid(pid, NULL, 0);
		times[i] = (now() - start) * 1e3;
	}
	qsort(times, (size_t)n, sizeof *times, compare);
	printf("{\"median_ms\": %.3f}\n", times[n / 2]);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "serve") == 0 && strcmp(argv[2], "hybrid") == 0)
		return serve_hybrid(argv[3]);
	if (argc == 4 && strcmp(argv[1], "serve") == 0)
		return serve(argv[2], (unsigned)atoi(argv[3]));
	if (argc == 5 && strcmp(argv[1], "bytes") == 0)
		return bytes(parse_where(argv[2]), argv[3], strtoull(argv[4], NULL, 10) << 20);
	if (argc == 5 && strcmp(argv[1], "connections") == 0)
		return connections(parse_where(argv[2]), atoi(argv[3]), atoi(argv[4]));
	if (argc == 4 && strcmp(argv[1], "spawn") == 0 && atoi(argv[3]) > 0)
		return spawn(argv[2], atoi(argv[3]));
	return 2;
}
