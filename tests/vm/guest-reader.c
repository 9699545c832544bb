/* guest-reader PORT: calls the host's PORT and reads until the end, over and over. Static: for any image. */
#include <linux/vm_sockets.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void read_to_the_end(unsigned port)
{
	struct sockaddr_vm sa = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	char buf[4096];

	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
		while (read(fd, buf, sizeof buf) > 0)
			;
	else
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	close(fd);
}

int main(int argc, char **argv)
{
	for (;;)
		read_to_the_end((unsigned)strtoul(argc > 1 ? argv[1] : "5000", NULL, 10));
}
