/*
 * Both ends of a vsock connection in a guest, for test-services.py.
 *
 *	uvms-test-vsock-cat serve PORT PROGRAM [ARG...]   each connection is its standard input and output
 *	uvms-test-vsock-cat call CID PORT                 standard input goes there, and what comes to standard output;
 *	                                                  exits with 2 when nobody answers, with 3 when it is reset
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "fd.h"

static char chunk[64 * 1024];

static void die(const char *what, int status)
{
	perror(what);
	exit(status);
}

static int serve(unsigned port, char **argv)
{
	struct sockaddr_vm vm = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), c;

	if (fd < 0 || bind(fd, (struct sockaddr *)&vm, sizeof vm) < 0 || listen(fd, 128) < 0)
		die("listen", 1);
	signal(SIGCHLD, SIG_IGN);
	for (; (c = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(c)) {
		if (fork() != 0)
			continue;
		signal(SIGCHLD, SIG_DFL);
		dup2(c, 0);
		dup2(c, 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	return 1;
}

/* 1: there is more to come. */
static int copy(int from, int to)
{
	ssize_t n = read(from, chunk, sizeof chunk);

	if (n < 0 || fd_write_all(to, chunk, (size_t)n) < 0)
		die("copy", 3);
	return n > 0;
}

static int call(unsigned cid, unsigned port)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	struct pollfd p[2] = { { 0, POLLIN, 0 }, { fd, POLLIN, 0 } };

	signal(SIGPIPE, SIG_IGN);
	if (fd < 0 || connect(fd, (struct sockaddr *)&vm, sizeof vm) < 0)
		die("connect", 2);
	for (;;) {
		poll(p, 2, -1);
		if (p[0].revents && !copy(0, fd)) {
			shutdown(fd, SHUT_WR);
			p[0].fd = -1;
		}
		if (p[1].revents && !copy(fd, 1))
			return 0;
	}
}

int main(int argc, char **argv)
{
	if (argc >= 4 && strcmp(argv[1], "serve") == 0)
		return serve((unsigned)atoi(argv[2]), argv + 3);
	if (argc == 4 && strcmp(argv[1], "call") == 0)
		return call((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
	return 64;
}
