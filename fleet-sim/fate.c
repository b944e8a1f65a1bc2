/* SPDX-License-Identifier: MIT */
#include "fleet-sim/fate.h"

#include "base/hash.h"

uint64_t draw(uint64_t seed, uint32_t device, enum draw what, uint64_t k)
{
	uint64_t x = hash64_mix(seed + UINT64_C(0x9E3779B97F4A7C15));

	x = hash64_mix(x ^ ((uint64_t)device << 16 | (uint64_t)what));
	return hash64_mix(x + k * UINT64_C(0xD1B54A32D192ED03));
}

double draw_unit(uint64_t seed, uint32_t device, enum draw what, uint64_t k)
{
	return (double)(draw(seed, device, what, k) >> 11) / 9007199254740992.0; /* 2^53 */
}

int64_t draw_span(uint64_t seed, uint32_t device, enum draw what, uint64_t k, struct span s)
{
	return s.least_ms +
	       (int64_t)((double)(s.most_ms - s.least_ms) * draw_unit(seed, device, what, k));
}

void traits_draw(struct traits *t, const struct scenario *s, uint64_t seed, uint32_t device)
{
	/* Fates share one draw: so their percentages add up and exclude each other. */
	double fate = 100 * draw_unit(seed, device, DRAW_FATE, 0);
	const char *hw = scenario_hw(s, device);
	bool has_fate = false;

	for (int k = 0; k < HABITS; k++)
		t->row[k] = -1;
	for (size_t i = 0; i < s->count; i++) {
		const struct habit *h = &s->habits[i];

		if (!habit_concerns(h, hw))
			continue;
		if (h->kind > HABIT_LAST_FATE) {
			enum draw what = (enum draw)(DRAW_HABIT + (int)h->kind);

			if (100 * draw_unit(seed, device, what, 0) < h->percent)
				t->row[h->kind] = (int8_t)i;
		} else if (!has_fate && fate < h->percent) {
			t->row[h->kind] = (int8_t)i;
			has_fate = true;
		} else {
			fate -= h->percent;
		}
	}
}

/* Where a device finds out: the codes are those of docs/mqtt.md. */
static enum fail_phase phase_of(int code)
{
	switch (code) {
	case 5:
	case 6:
	case 8: return FAIL_AT_ONCE;
	case 3:
	case 9: return FAIL_VERIFY;
	case 4:
	case 11: return FAIL_INSTALL;
	default: return FAIL_DOWNLOAD;
	}
}

static void draw_fate(struct try_plan *p, const struct scenario *s, const struct traits *t,
		      uint32_t number)
{
	static const enum fate fates[] = {
		[HABIT_FAIL] = FATE_FAIL,
		[HABIT_BRICK] = FATE_BRICK,
		[HABIT_ROLL_BACK] = FATE_ROLL_BACK,
		[HABIT_LIE] = FATE_LIE,
	};

	p->fate = FATE_SUCCESS;
	for (int k = 0; k <= HABIT_LAST_FATE; k++) {
		const struct habit *h = t->row[k] >= 0 ? &s->habits[t->row[k]] : NULL;

		if (!h || (h->times > 0 && number >= (uint32_t)h->times))
			continue;
		p->fate = fates[k];
		p->code = h->code;
		p->fail_phase = phase_of(h->code);
	}
}

void try_draw(struct try_plan *p, const struct scenario *s, const struct traits *t, uint64_t seed,
	      uint32_t device, uint32_t number)
{
	static const struct span away = {1000, 4000};

	*p = (struct try_plan){0};
	draw_fate(p, s, t, number);
	p->fail_at = draw_unit(seed, device, DRAW_FAIL_AT, number);
	p->install_ms = draw_span(seed, device, DRAW_INSTALL, number, s->install);
	p->reboot_ms = draw_span(seed, device, DRAW_REBOOT, number, s->reboot);
	p->away_ms = draw_span(seed, device, DRAW_AWAY, number, away);
	p->says_rolled_back = draw(seed, device, DRAW_WORD, number) & 1;
	if (number == 0 && traits_have(t, HABIT_POWER_LOSS)) {
		p->loss = draw(seed, device, DRAW_LOSS_WHEN, 0) & 1 ? LOSS_INSTALL : LOSS_DOWNLOAD;
		p->loss_at = draw_unit(seed, device, DRAW_LOSS_AT, 0);
		p->loss_is_new =
			p->loss == LOSS_INSTALL && (draw(seed, device, DRAW_LOSS_VERSION, 0) & 1);
	}
	if (traits_have(t, HABIT_BROKEN_LINK)) {
		p->breaks = draw(seed, device, DRAW_BREAKS, number) & 1 ? 2 : 1;
		p->break_at[0] = draw_unit(seed, device, DRAW_BREAK_AT, 2 * (uint64_t)number);
		p->break_at[1] = p->break_at[0] +
				 (1 - p->break_at[0]) * draw_unit(seed, device, DRAW_BREAK_AT,
								  2 * (uint64_t)number + 1);
	}
}
