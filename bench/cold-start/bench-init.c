/* The init of the baseline: loads the modules in their order and powers off. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load(const char *name)
{
	FILE *list = fopen(name, "r");
	char line[256], path[300];

	while (list && fgets(line, sizeof line, list)) {
		int fd;

		line[strcspn(line, "\n")] = 0;
		snprintf(path, sizeof path, "/uvms/modules/%s", line);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
			fprintf(stderr, "%s cannot be loaded\n", line);
	}
}

int main(void)
{
	load("/uvms/modules.list");
	load("/uvms/modules.late");
	reboot(RB_POWER_OFF);
	return 1;
}
