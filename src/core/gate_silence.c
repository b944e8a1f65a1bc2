/* SPDX-License-Identifier: MIT */
#include "core/gate_silence.h"

#include <string.h>

static void down_remove(struct gate_clock *c, int i)
{
	memmove(&c->downs[i], &c->downs[i + 1], (size_t)(c->count - i - 1) * sizeof c->downs[0]);
	c->count--;
}

/* Joins the two with the least time between them. */
static void downs_join(struct gate_clock *c)
{
	int best = 0;

	for (int i = 1; i + 1 < c->count; i++)
		if (c->downs[i + 1].from_us - c->downs[i].to_us <
		    c->downs[best + 1].from_us - c->downs[best].to_us)
			best = i;
	c->downs[best].to_us = c->downs[best + 1].to_us;
	down_remove(c, best + 1);
}

static void down_add(struct gate_clock *c, int64_t from_us, int64_t to_us)
{
	if (c->count && c->downs[c->count - 1].to_us >= from_us) {
		c->downs[c->count - 1].to_us = to_us;
		return;
	}
	if (c->count == GATE_DOWNS_MAX)
		downs_join(c);
	c->downs[c->count++] = (struct gate_down){from_us, to_us};
}

/* The clock went back: what it said of times to come is not so. */
static void downs_cut(struct gate_clock *c, int64_t now_us)
{
	while (c->count && c->downs[c->count - 1].from_us >= now_us)
		c->count--;
	if (c->count && c->downs[c->count - 1].to_us > now_us)
		c->downs[c->count - 1].to_us = now_us;
}

void gate_clock_tick(struct gate_clock *c, int64_t now_us, bool up)
{
	if (c->tick_us && now_us < c->tick_us)
		downs_cut(c, now_us);
	else if (c->tick_us && now_us > c->tick_us &&
		 (!up || now_us - c->tick_us > GATE_TICK_MOST_US))
		down_add(c, c->tick_us, now_us);
	c->tick_us = now_us;
}

int64_t gate_clock_heard_us(const struct gate_clock *c)
{
	const struct gate_down *last = c->count ? &c->downs[c->count - 1] : NULL;

	return last && last->to_us == c->tick_us ? last->from_us : c->tick_us;
}

int64_t gate_clock_since(const struct gate_clock *c, int64_t since_us, int64_t now_us)
{
	int64_t us = now_us - since_us;

	for (int i = 0; i < c->count; i++) {
		int64_t from = c->downs[i].from_us, to = c->downs[i].to_us;

		from = from > since_us ? from : since_us;
		to = to < now_us ? to : now_us;
		us -= to > from ? to - from : 0;
	}
	return us > 0 ? us : 0;
}

int64_t gate_habit_next(int64_t habit_us, int64_t gap_us)
{
	if (gap_us < GATE_CONTACT_US)
		return habit_us;
	if (habit_us <= 0)
		return gap_us;
	if (gap_us >= habit_us)
		return gap_us / 2 < habit_us ? gap_us : habit_us * 2;
	return habit_us - (habit_us - gap_us) / 16;
}

int64_t gate_silence_limit_us(int64_t habit_us, int64_t silence_s)
{
	int64_t least = silence_s * 1000000;

	return habit_us > least / 3 ? 3 * habit_us : least;
}

bool gate_is_outage(int64_t due, int64_t silent)
{
	return silent * 5 > due;
}

enum gate_hearing gate_silence_judge(const struct gate_silence *s, const struct gate_clock *c,
				     int64_t now_us)
{
	if (gate_clock_since(c, s->heard_us, now_us) <
	    gate_silence_limit_us(s->habit_us, s->silence_s))
		return GATE_HEARD;
	return gate_is_outage(s->due, s->silent) ? GATE_OUTAGE : GATE_SILENT;
}
