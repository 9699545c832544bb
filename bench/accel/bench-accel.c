/* How long the accelerator's probe takes, cold: one process a probe. JSON on stdout. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "accel.h"

enum { RUNS = 20 };

static double probe_once(void)
{
	struct timespec a, b;
	struct accel accel;
	pid_t child;

	clock_gettime(CLOCK_MONOTONIC, &a);
	child = fork();
	if (child == 0) {
		accel_probe(&accel);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	double ms[RUNS];
	struct accel accel;

	for (int i = 0; i < RUNS; i++)
		ms[i] = probe_once();
	qsort(ms, RUNS, sizeof *ms, compare);
	accel_probe(&accel);
	printf("{\"bench\":\"accel\",\"runs\":%d,\"median_ms\":%.2f,\"max_ms\":%.2f,\"kvm\":%s}\n",
		RUNS, (ms[RUNS / 2 - 1] + ms[RUNS / 2]) / 2, ms[RUNS - 1],
		accel.kvm ? "true" : "false");
	return 0;
}
