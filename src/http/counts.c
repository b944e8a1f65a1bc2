/* SPDX-License-Identifier: MIT */
#include "http/counts.h"

#include "http/request.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

/* What is answered; anything else is counted at the end, as "other". */
static const int codes[] = {200, 206, 304, 400, 401, 404, 405, 409, 410,
			    411, 413, 415, 416, 422, 429, 500, 503};
#define CODES (sizeof codes / sizeof codes[0])

static const struct histogram_shape took_shape = {
	.count = 8, .at = {5, 10, 25, 100, 500, 2500, 10000, 60000}, .per_unit = 1000};

struct counts {
	size_t routes;
	struct route_counts {
		_Atomic int64_t answers[CODES + 1];
		struct histogram took;
	} of[]; /* the last one: no route */
};

struct counts *counts_new(void)
{
	struct counts *c = calloc(1, sizeof *c + (route_count + 1) * sizeof(struct route_counts));

	if (c)
		c->routes = route_count;
	return c;
}

void counts_free(struct counts **c)
{
	free(*c);
	*c = NULL;
}

void counts_add(struct counts *c, const struct route *route, int status, int64_t took_ms)
{
	struct route_counts *k = &c->of[route ? (size_t)(route - routes) : c->routes];
	size_t i = 0;

	while (i < CODES && codes[i] != status)
		i++;
	atomic_fetch_add_explicit(&k->answers[i], 1, memory_order_relaxed);
	histogram_add(&k->took, &took_shape, took_ms);
}

static void label(const struct counts *c, size_t i, char *out, size_t size)
{
	if (i == c->routes)
		snprintf(out, size, "method=\"\",route=\"(none)\"");
	else
		snprintf(out, size, "method=\"%s\",route=\"%s\"", routes[i].method, routes[i].path);
}

void counts_write(const struct counts *c, struct buf *b)
{
	char labels[160];

	exposition_family(b, "paku_ota_http_answers_total", "counter",
			  "Answers by route and status code.");
	for (size_t i = 0; i <= c->routes; i++) {
		label(c, i, labels, sizeof labels);
		for (size_t k = 0; k <= CODES; k++) {
			int64_t n =
				atomic_load_explicit(&c->of[i].answers[k], memory_order_relaxed);
			if (n > 0 && k < CODES)
				buf_printf(b,
					   "paku_ota_http_answers_total{%s,code=\"%d\"} %" PRId64
					   "\n",
					   labels, codes[k], n);
			else if (n > 0)
				buf_printf(b,
					   "paku_ota_http_answers_total{%s,code=\"other\"} %" PRId64
					   "\n",
					   labels, n);
		}
	}
	exposition_family(b, "paku_ota_http_answer_seconds", "histogram",
			  "From a request's first line to its answer sent, downloads too.");
	for (size_t i = 0; i <= c->routes; i++)
		if (histogram_count(&c->of[i].took, &took_shape) > 0) {
			label(c, i, labels, sizeof labels);
			exposition_histogram(b, "paku_ota_http_answer_seconds", labels,
					     &c->of[i].took, &took_shape);
		}
}
