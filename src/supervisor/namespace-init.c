/*
 * PID 1 of an incarnation's namespace: does nothing but end when the supervisor does, whose end of the pipe
 * (descriptor 3) closes with it; then the kernel kills the rest. Static and alone, because there is one
 * of it for each VM.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

int main(void)
{
	char byte;

	signal(SIGCHLD, SIG_IGN);
	while (read(3, &byte, 1) < 0 && errno == EINTR)
		;
	return 0;
}
