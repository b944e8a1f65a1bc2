/* SPDX-License-Identifier: MIT */
#include "base/exposition.h"

#include <inttypes.h>
#include <stdatomic.h>

void exposition_family(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void exposition_one(struct buf *b, const char *name, const char *type, const char *help,
		    int64_t value)
{
	exposition_family(b, name, type, help);
	buf_printf(b, "%s %" PRId64 "\n", name, value);
}

void exposition_label(struct buf *b, const char *name, const char *value)
{
	buf_printf(b, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			buf_printf(b, "\\%c", *value);
		else if (*value == '\n')
			buf_adds(b, "\\n");
		else
			buf_add(b, value, 1);
	}
	buf_adds(b, "\"");
}

void histogram_add(struct histogram *h, const struct histogram_shape *shape, int64_t value)
{
	size_t i = 0;

	while (i < shape->count && value > shape->at[i])
		i++;
	atomic_fetch_add_explicit(&h->counts[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum, value, memory_order_relaxed);
}

int64_t histogram_count(const struct histogram *h, const struct histogram_shape *shape)
{
	int64_t n = 0;

	for (size_t i = 0; i <= shape->count; i++)
		n += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
	return n;
}

void exposition_histogram(struct buf *b, const char *name, const char *labels,
			  const struct histogram *h, const struct histogram_shape *shape)
{
	const char *comma = labels[0] ? "," : "", *open = labels[0] ? "{" : "",
		   *close = labels[0] ? "}" : "";
	double unit = (double)shape->per_unit;
	int64_t n = 0;

	for (size_t i = 0; i < shape->count; i++) {
		n += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
		buf_printf(b, "%s_bucket{%s%sle=\"%g\"} %" PRId64 "\n", name, labels, comma,
			   (double)shape->at[i] / unit, n);
	}
	n += atomic_load_explicit(&h->counts[shape->count], memory_order_relaxed);
	buf_printf(b, "%s_bucket{%s%sle=\"+Inf\"} %" PRId64 "\n", name, labels, comma, n);
	buf_printf(b, "%s_sum%s%s%s %.9g\n%s_count%s%s%s %" PRId64 "\n", name, open, labels, close,
		   (double)atomic_load_explicit(&h->sum, memory_order_relaxed) / unit, name, open,
		   labels, close, n);
}
