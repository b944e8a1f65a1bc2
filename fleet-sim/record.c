/* SPDX-License-Identifier: MIT */
#include "fleet-sim/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *outcome_name(enum outcome o)
{
	static const char *const names[OUTCOMES] = {
		[OUTCOME_OPEN] = "open",       [OUTCOME_SUCCESS] = "success",
		[OUTCOME_FAILED] = "failed",   [OUTCOME_ROLLED_BACK] = "rolled_back",
		[OUTCOME_BRICKED] = "bricked", [OUTCOME_WITHDRAWN] = "withdrawn",
	};

	return names[o];
}

void record_fini(struct record *r)
{
	free(r->tries);
	*r = (struct record){0};
}

struct seen *record_find(struct record *r, const char *token, const char *version)
{
	struct seen *more;

	for (uint32_t i = r->count; i-- > 0;)
		if (strcmp(r->tries[i].token, token) == 0 && r->tries[i].version == version &&
		    (token[0] || r->tries[i].outcome == OUTCOME_OPEN))
			return &r->tries[i];
	more = realloc(r->tries, (r->count + 1) * sizeof *more);
	if (!more)
		return NULL;
	r->tries = more;
	more = &r->tries[r->count++];
	*more = (struct seen){.version = version};
	snprintf(more->token, sizeof more->token, "%s", token);
	return more;
}

/* Versions and URLs without their attempt: few, so a list is enough. */
struct pool {
	char **strings;
	size_t count;
};

struct pool *pool_new(void)
{
	return calloc(1, sizeof(struct pool));
}

void pool_free(struct pool **p)
{
	if (!*p)
		return;
	for (size_t i = 0; i < (*p)->count; i++)
		free((*p)->strings[i]);
	free((*p)->strings);
	free(*p);
	*p = NULL;
}

const char *pool_string(struct pool *p, const char *s, size_t len)
{
	char **more;

	for (size_t i = p->count; i-- > 0;)
		if (strncmp(p->strings[i], s, len) == 0 && p->strings[i][len] == 0)
			return p->strings[i];
	more = realloc(p->strings, (p->count + 1) * sizeof *more);
	if (!more)
		return NULL;
	p->strings = more;
	more[p->count] = strndup(s, len);
	return more[p->count] ? more[p->count++] : NULL;
}
