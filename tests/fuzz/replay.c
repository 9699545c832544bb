/* Runs a fuzz target over files: every corpus file is a test in the ordinary build too. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define INPUT_MAX (1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *whole = malloc(INPUT_MAX), *exact;
	size_t n;

	if (!f || !whole) {
		fprintf(stderr, "cannot read %s\n", path);
		return 1;
	}
	n = fread(whole, 1, INPUT_MAX, f);
	fclose(f);
	exact = malloc(n ? n : 1); /* of the exact size: a sanitiser sees the first byte beyond */
	for (size_t i = 0; exact && i < n; i++)
		exact[i] = whole[i];
	if (exact)
		LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	free(whole);
	return exact == NULL;
}

int main(int argc, char *argv[])
{
	int failed = argc < 2;

	for (int i = 1; i < argc; i++)
		failed |= replay(argv[i]);
	return failed;
}
