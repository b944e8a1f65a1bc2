/* SPDX-License-Identifier: MIT */
/*
 * Walks of a release through a fleet, past the gate of src/core, on a clock that jumps from event
 * to event.  A failure is known after 60 s, a proof after 660 s, silence after 1,800 s.
 *
 *     bench-gate-sim [--json] [RUNS [ROW...]]
 *
 * For each row of truths RUNS walks (1,000): how many were stopped, how many devices failed in
 * those (median, 95th of a hundred, most), and how long the others took.
 */
#include "core/fair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOUD_S   60
#define PROOF_S  660
#define SILENT_S 1800

/* What is true of a release and a fleet. */
struct truth {
	const char *name;
	int devices, most;  /* most: max_unproven, 0 the default */
	double bad;         /* the share that fails ... */
	bool silent;        /* ... by silence */
	int late_after;     /* from this exposure on ... */
	double late_bad;    /* ... this share; 0: none */
	int variants;       /* 0: one */
	double variant_bad; /* of one variant, by chance; < 0: like the others */
};

static const struct truth truths[] = {
	{"bricks-100", 100, 500, 1, false, 0, 0, 0, -1},
	{"bricks-100-silently", 100, 500, 1, true, 0, 0, 0, -1},
	{"bricks-10k", 10000, 500, 1, false, 0, 0, 0, -1},
	{"bricks-10k-silently", 10000, 500, 1, true, 0, 0, 0, -1},
	{"bricks-1m", 1000000, 20000, 1, false, 0, 0, 0, -1},
	{"bricks-1m-silently", 1000000, 20000, 1, true, 0, 0, 0, -1},
	{"bad-50", 10000, 500, 0.5, false, 0, 0, 0, -1},
	{"bad-20", 10000, 500, 0.2, false, 0, 0, 0, -1},
	{"bad-10", 10000, 500, 0.1, false, 0, 0, 0, -1},
	{"bad-5", 10000, 500, 0.05, false, 0, 0, 0, -1},
	{"bad-3", 10000, 500, 0.03, false, 0, 0, 0, -1},
	{"bad-2", 10000, 500, 0.02, false, 0, 0, 0, -1},
	{"bad-1", 10000, 500, 0.01, false, 0, 0, 0, -1},
	{"bad-0.5", 10000, 500, 0.005, false, 0, 0, 0, -1},
	{"bad-0.1", 10000, 500, 0.001, false, 0, 0, 0, -1},
	{"good-100k", 100000, 500, 0.001, false, 0, 0, 0, -1},
	{"turns-bad", 10000, 500, 0.005, false, 4000, 0.05, 0, -1},
	{"variant-bricks", 10000, 500, 0.005, false, 0, 0, 10, 1},
	{"variant-bricks-silently", 10000, 500, 0.005, true, 0, 0, 10, 1},
	{"variant-bad-20", 10000, 500, 0.005, false, 0, 0, 10, 0.2},
	{"variants-bad-1", 10000, 500, 0.01, false, 0, 0, 10, -1},
	{"bad-1-1m", 1000000, 20000, 0.01, false, 0, 0, 0, -1},
	{"bad-0.5-1m", 1000000, 20000, 0.005, false, 0, 0, 0, -1},
};
#define TRUTHS (int)(sizeof truths / sizeof truths[0])

static const char *const revisions[] = {"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"};
#define REVISIONS (int)(sizeof revisions / sizeof revisions[0])

struct walk_end {
	bool halted, held; /* the release; its bad variant */
	int harmed;        /* that failed, those under way at the halt included */
	int64_t through_s; /* when the last outcome was known; of walks that were not halted */
};

/* splitmix64 */
static double chance(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
	return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* What will be known, when: the delays are constant, so each kind comes in order. */
struct due {
	int64_t at_s, number;
};
struct line_of_due {
	struct due *items;
	size_t cap, head, count;
};
enum { DUE_LOUD, DUE_PROOF, DUE_SILENT, DUE_KINDS };
static const int delay_s[DUE_KINDS] = {LOUD_S, PROOF_S, SILENT_S};

static void due_add(struct line_of_due *l, int64_t at_s, int64_t number)
{
	if (l->count == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 1024;
		struct due *items = malloc(cap * sizeof *items);

		if (!items)
			abort();
		for (size_t i = 0; i < l->count; i++)
			items[i] = l->items[(l->head + i) & (l->cap - 1)];
		free(l->items);
		*l = (struct line_of_due){items, cap, 0, l->count};
	}
	l->items[(l->head + l->count++) & (l->cap - 1)] = (struct due){at_s, number};
}

struct trip {
	const struct truth *truth;
	struct gate gate;
	struct line_of_due due[DUE_KINDS];
	uint64_t random;
	int64_t now_s;
	int exposed;
	/* Who asks comes by chance; whose turn it is the gate's order of kinds says. */
	struct fair fair;
	struct device one[REVISIONS]; /* of each variant, online */
	struct device_link link;
	int left[REVISIONS], bad_variant;
	struct walk_end end;
};

static bool try_variant(struct trip *w, int variant)
{
	const struct truth *t = w->truth;
	enum gate_answer answer;
	struct gate_place place;

	if (!fair_may(&w->fair, &w->gate, &w->one[variant], w->now_s * 1000000))
		return false;
	if (gate_reserve(&w->gate, revisions[variant], "1.0.0", &answer, &place))
		abort();
	if (answer != GATE_FREE)
		return false;
	(void)fair_take(&w->fair, &w->one[variant], revisions[variant], "1.0.0");
	gate_open(&w->gate, &place, ++w->exposed);
	double bad = t->late_bad > 0 && w->exposed > t->late_after ? t->late_bad : t->bad;
	bool is_bad_one = t->variant_bad >= 0 && variant == w->bad_variant;
	bool fails = chance(&w->random) < (is_bad_one ? t->variant_bad : bad);
	int kind = !fails ? DUE_PROOF : t->silent ? DUE_SILENT : DUE_LOUD;
	due_add(&w->due[kind], w->now_s + delay_s[kind], w->exposed);
	/* Those that make the release bad, not the few that fail of a good one. */
	w->end.harmed += fails && (is_bad_one || t->variant_bad < 0) && w->exposed > t->late_after;
	w->left[variant]--;
	return true;
}

/* A device by chance asks, and then one of each other variant, until none may any more. */
static void expose(struct trip *w)
{
	int variants = w->truth->variants ? w->truth->variants : 1, refused = 0;
	int64_t now_us = w->now_s * 1000000;

	for (int v = 0; v < variants; v++)
		if (w->left[v])
			fair_waits(&w->fair, &w->one[v], fair_due_us(&w->one[v], 0, now_us),
				   now_us);
	for (int v = 0; refused < variants; v = (v + 1) % variants) {
		if (!refused)
			v = (int)(chance(&w->random) * variants);
		refused = w->left[v] && try_variant(w, v) ? 0 : refused + 1;
	}
}

static void make_devices(struct trip *w)
{
	w->link = (struct device_link){.site = "", .other_site = "", .presence = PRESENCE_ONLINE};
	for (int v = 0; v < REVISIONS; v++) {
		w->one[v].state = (struct device_state){.model = "",
							.version = "1.0.0",
							.hw = revisions[v],
							.ran_as = "",
							.ran_from = "",
							.link = &w->link};
		for (int i = 0; i < w->left[v]; i++)
			fair_count(&w->fair, &w->one[v], fair_due_us(&w->one[v], 0, 0), 0);
	}
}

/* All that is known at the next moment; false when nothing is to come. */
static bool step(struct trip *w)
{
	int64_t next = INT64_MAX;

	for (int k = 0; k < DUE_KINDS; k++)
		if (w->due[k].count && w->due[k].items[w->due[k].head].at_s < next)
			next = w->due[k].items[w->due[k].head].at_s;
	if (next == INT64_MAX)
		return false;
	w->now_s = next;
	for (int k = 0; k < DUE_KINDS; k++) {
		struct line_of_due *l = &w->due[k];

		while (l->count && l->items[l->head].at_s == next) {
			int64_t number = l->items[l->head].number;

			l->head = (l->head + 1) & (l->cap - 1);
			l->count--;
			if (k == DUE_PROOF)
				gate_proven(&w->gate, number);
			else if (k == DUE_SILENT)
				gate_silent(&w->gate, number);
			else
				gate_failed(&w->gate, number);
		}
	}
	return true;
}

static bool variant_is_held(const struct gate *g)
{
	for (int i = 0; i < gate_variants(g); i++)
		if (gate_view_variant(g, i).halted)
			return true;
	return false;
}

static struct walk_end walk(const struct truth *t, uint64_t seed)
{
	struct gate_params p = gate_params_default();
	struct trip w = {.truth = t, .random = seed * UINT64_C(0xD1342543DE82EF95)};
	struct ota_err err;

	p.max_unproven = t->most;
	if (gate_params_check(&p, &err))
		abort();
	gate_init(&w.gate, &p);
	gate_stage(&w.gate, t->devices);
	w.bad_variant = (int)(chance(&w.random) * t->variants);
	for (int i = 0; i < t->devices; i++)
		w.left[t->variants ? i % t->variants : 0]++;
	make_devices(&w);
	do
		expose(&w);
	while (step(&w));
	w.end.halted = gate_is_halted(&w.gate);
	w.end.held = variant_is_held(&w.gate);
	w.end.through_s = w.now_s;
	gate_fini(&w.gate);
	for (int k = 0; k < DUE_KINDS; k++)
		free(w.due[k].items);
	return w.end;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* Of sorted values; 0 when there is none. */
static int64_t quantile(const int64_t *sorted, int count, double q)
{
	return count ? sorted[(int)((count - 1) * q + 0.5)] : 0;
}

struct tally {
	int runs, stopped, halted, held, through;
	int64_t *harmed, *through_s;
};

static void measure(const struct truth *t, int runs, bool json)
{
	struct tally s = {.runs = runs};

	s.harmed = calloc((size_t)runs, sizeof *s.harmed);
	s.through_s = calloc((size_t)runs, sizeof *s.through_s);
	if (!s.harmed || !s.through_s)
		abort();
	for (int i = 0; i < runs; i++) {
		struct walk_end e = walk(t, (uint64_t)i + 1);

		s.halted += e.halted;
		s.held += e.held && !e.halted;
		if (e.halted || e.held)
			s.harmed[s.stopped++] = e.harmed;
		else
			s.through_s[s.through++] = e.through_s;
	}
	qsort(s.harmed, (size_t)s.stopped, sizeof *s.harmed, compare);
	qsort(s.through_s, (size_t)s.through, sizeof *s.through_s, compare);
	int64_t median = quantile(s.harmed, s.stopped, 0.5),
		p95 = quantile(s.harmed, s.stopped, 0.95), most = quantile(s.harmed, s.stopped, 1),
		through = quantile(s.through_s, s.through, 0.5);
	if (json)
		printf("{\"name\":\"%s\",\"devices\":%d,\"runs\":%d,\"stopped\":%d,\"halted\":%d,"
		       "\"held\":%d,\"harmed_median\":%lld,\"harmed_p95\":%lld,\"harmed_most\":%"
		       "lld,"
		       "\"through_s\":%lld}\n",
		       t->name, t->devices, runs, s.stopped, s.halted, s.held, (long long)median,
		       (long long)p95, (long long)most, (long long)through);
	else
		printf("%-24s %8d devices  stopped %5.1f %% (all %5.1f, its variant %5.1f)  harmed "
		       "%lld / %lld / %lld  through in %.2f h\n",
		       t->name, t->devices, 100.0 * s.stopped / runs, 100.0 * s.halted / runs,
		       100.0 * s.held / runs, (long long)median, (long long)p95, (long long)most,
		       (double)through / 3600);
	fflush(stdout);
	free(s.harmed);
	free(s.through_s);
}

static bool is_wanted(const char *name, char **wanted, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(name, wanted[i]) == 0)
			return true;
	return count == 0;
}

int main(int argc, char **argv)
{
	bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
	int first = json ? 2 : 1, found = 0;
	int runs = argc > first ? atoi(argv[first]) : 1000;
	int rows = argc > first + 1 ? argc - first - 1 : 0;

	for (int i = 0; runs > 0 && i < TRUTHS; i++)
		if (is_wanted(truths[i].name, argv + first + 1, rows)) {
			measure(&truths[i], runs, json);
			found++;
		}
	if (found >= (rows ? rows : 1))
		return 0;
	fprintf(stderr, "usage: bench-gate-sim [--json] [RUNS [ROW...]]; rows:");
	for (int i = 0; i < TRUTHS; i++)
		fprintf(stderr, " %s", truths[i].name);
	fprintf(stderr, "\n");
	return 2;
}
