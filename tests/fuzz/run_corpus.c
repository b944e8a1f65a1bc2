/* SPDX-License-Identifier: MIT */
/*
 * Runs every file of a folder through LLVMFuzzerTestOneInput(), so that what a fuzzer once found
 * stays found on machines without a fuzzer.  Usage: corpus_NAME FOLDER
 */
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	size_t cap = (size_t)4 << 20, n;

	if (!f)
		return perror(path), 1;
	uint8_t *data = malloc(cap);
	if (!data)
		return fclose(f), 1;
	n = fread(data, 1, cap, f);
	/* An exact copy, so that a sanitizer sees the first byte read past the end. */
	uint8_t *exact = malloc(n ? n : 1);
	if (exact) {
		memcpy(exact, data, n);
		LLVMFuzzerTestOneInput(exact, n);
	}
	free(exact);
	free(data);
	fclose(f);
	return exact ? 0 : 1;
}

int main(int argc, char **argv)
{
	DIR *d = argc == 2 ? opendir(argv[1]) : NULL;
	int ran = 0, bad = 0;

	if (!d) {
		fprintf(stderr, "usage: %s FOLDER (one that exists)\n", argv[0]);
		return 2;
	}
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		char path[4096];
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
		bad |= run_file(path);
		ran++;
	}
	closedir(d);
	printf("%d inputs\n", ran);
	return bad || ran == 0;
}
