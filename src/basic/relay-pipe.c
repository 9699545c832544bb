#include "relay-pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fd.h"

int relay_pipe_take(struct relay_pipes *p, struct relay_pipe *ret)
{
	int fds[2];

	if (p->n_idle > 0) {
		*ret = p->idle[--p->n_idle];
		return 0;
	}
	if (p->n_all >= p->max)
		return -ENOSPC;
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	/* as much as the user's limit allows */
	(void)fcntl(fds[1], F_SETPIPE_SZ, RELAY_PIPE_BYTES);
	p->n_all++;
	*ret = (struct relay_pipe){ .in = fds[1], .out = fds[0] };
	return 0;
}

void relay_pipe_give(struct relay_pipes *p, struct relay_pipe *pipe, bool empty)
{
	if (pipe->in >= 0 && empty) {
		p->idle[p->n_idle++] = *pipe;
	} else if (pipe->in >= 0) {
		fd_close(pipe->in);
		fd_close(pipe->out);
		p->n_all--;
	}
	*pipe = RELAY_PIPE_NONE;
}

void relay_pipes_finish(struct relay_pipes *p)
{
	while (p->n_idle > 0) {
		struct relay_pipe pipe = p->idle[--p->n_idle];

		relay_pipe_give(p, &pipe, 0);
	}
}
