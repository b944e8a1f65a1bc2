/* SPDX-License-Identifier: MIT */
/*
 * The picture of a rollout: devices by state over time, its stages, pauses and halts, and below it
 * what speaks against the release.  No scripts, nothing from elsewhere; light and dark by the
 * reader's own setting.
 */
#include "http/report.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The places of things, in units of the picture. */
#define WIDTH    960
#define LEFT     64
#define RIGHT    936
#define BAND_TOP 84 /* the states */
#define BAND_LOW 96
#define TOP      120
#define LOW      340
#define E_TOP    400
#define E_LOW    480
#define PLOT     (RIGHT - LEFT)

static const char style[] =
	"<style>"
	"text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
	"font-size:12px;fill:#57606a}"
	".h{font-size:19px;font-weight:600;fill:#1f2328}.s{font-size:13px}"
	".bg{fill:#fff;stroke:#d0d7de}.grid{stroke:#d8dee4;stroke-width:1}"
	".axis{stroke:#8c959f;stroke-width:1}"
	".proven{fill:#1a7f37}.done{fill:#7bc98f}.run{fill:#54aeff}.offer{fill:#c8d1da}"
	".fail{fill:#d1242f}.goal{fill:none;stroke:#57606a;stroke-width:1.5;stroke-dasharray:5 4}"
	".stage{stroke:#8250df;stroke-width:1;stroke-dasharray:2 3}.stage-t{fill:#8250df}"
	".b-run{fill:#54aeff}.b-pause{fill:#d4a72c}.b-halt{fill:#d1242f}.b-ok{fill:#1a7f37}"
	".b-end{fill:#8c959f}.wash-pause{fill:#d4a72c;opacity:.14}.wash-halt{fill:#d1242f;opacity:."
	"1}"
	".e{fill:none;stroke:#bc4c00;stroke-width:2}.e-area{fill:#bc4c00;opacity:.12}"
	".limit{stroke:#d1242f;stroke-width:1.5;stroke-dasharray:6 4}.limit-t{fill:#d1242f}"
	"@media (prefers-color-scheme:dark){"
	"text{fill:#9198a1}.h{fill:#f0f6fc}.bg{fill:#0d1117;stroke:#3d444d}.grid{stroke:#262c36}"
	".axis{stroke:#656c76}.proven{fill:#2ea043}.done{fill:#7ee2a8}.run{fill:#388bfd}"
	".offer{fill:#4d5763}.fail{fill:#f85149}.goal{stroke:#b7bdc8}.stage{stroke:#ab7df8}"
	".stage-t{fill:#ab7df8}.b-run{fill:#388bfd}.b-pause{fill:#d29922}.b-halt{fill:#f85149}"
	".b-ok{fill:#2ea043}.b-end{fill:#656c76}.wash-pause{fill:#d29922}.wash-halt{fill:#f85149}"
	".e{stroke:#f0883e}.e-area{fill:#f0883e}.limit{stroke:#f85149}.limit-t{fill:#f85149}}"
	"</style>";

/* Text of others: no markup, no control characters, nothing that is not UTF-8. */
static void put_text(struct buf *b, const char *s)
{
	bool sound = utf8_valid(s, strlen(s));

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		switch (c) {
		case '&': buf_adds(b, "&amp;"); break;
		case '<': buf_adds(b, "&lt;"); break;
		case '>': buf_adds(b, "&gt;"); break;
		case '"': buf_adds(b, "&quot;"); break;
		case '\'': buf_adds(b, "&#39;"); break;
		default: buf_addc(b, c < ' ' || c == 0x7F ? ' ' : c >= 0x80 && !sound ? '?' : *s);
		}
	}
}

/* What would be longer than the picture is cut, where a character ends. */
static void put_cut(struct buf *b, const char *s, size_t most)
{
	char cut[200];
	size_t n = strlen(s);

	if (n <= most) {
		put_text(b, s);
		return;
	}
	for (n = most - 3; n && ((unsigned char)s[n] & 0xC0) == 0x80; n--)
		;
	snprintf(cut, sizeof cut, "%.*s...", (int)n, s);
	put_text(b, cut);
}

static double x_of(const struct account *r, int64_t us)
{
	double share = (double)(us - r->from_us) / (double)(r->to_us - r->from_us);

	share = share < 0 ? 0 : share > 1 ? 1 : share;
	return LEFT + share * PLOT;
}

static double x_of_step(int step)
{
	return LEFT + (double)step * PLOT / (REPORT_STEPS - 1);
}

/* 1, 2 or 5 times a power of ten, so that the most is four to ten of them. */
static double nice_step(double most)
{
	double step = pow(10, floor(log10(most > 1 ? most : 1)));

	if (most / step < 2)
		return step > 1 ? step / 5 : 1;
	return most / step < 5 && step > 1 ? step / 2 : step;
}

static double most_devices(const struct account *r)
{
	double most = 1;

	for (int i = 0; i < REPORT_STEPS; i++) {
		int64_t sum = 0;

		for (int s = 0; s < REPORT_SERIES; s++)
			sum += r->steps[i].devices[s];
		most = (double)sum > most ? (double)sum : most;
	}
	for (int i = 0; i < r->stage_count; i++)
		if (r->stages[i].begins_us && (double)r->stages[i].devices > most)
			most = (double)r->stages[i].devices;
	return most;
}

/* --- time --- */

static const int64_t tick_s[] = {1,       5,        15,       30,       60,      300,
				 900,     1800,     3600,     10800,    21600,   43200,
				 86400,   172800,   345600,   604800,   1209600, 2592000,
				 5184000, 15552000, 31536000, 315360000};

static void put_time_axis(struct buf *b, const struct account *r, double low)
{
	int64_t span_s = (r->to_us - r->from_us) / US_PER_S, step_s = tick_s[0];
	char text[TIME_TEXT_SIZE];

	for (size_t i = 0; i + 1 < sizeof tick_s / sizeof tick_s[0] && span_s / step_s > 9; i++)
		step_s = tick_s[i + 1];
	int64_t t_us = (r->from_us / US_PER_S / step_s + 1) * step_s * US_PER_S;
	for (int n = 0; t_us < r->to_us && n < 12; t_us += step_s * US_PER_S, n++) {
		double x = x_of(r, t_us);

		time_format(t_us, text);
		buf_printf(b,
			   "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%.0f\"/>",
			   x, x, TOP, low);
		if (step_s >= 86400)
			buf_printf(
				b,
				"<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%.10s</text>",
				x, low + 17, text);
		else if (step_s >= 60)
			buf_printf(b,
				   "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%.5s "
				   "%.5s</text>",
				   x, low + 17, text + 5, text + 11);
		else
			buf_printf(b,
				   "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%.8s</text>",
				   x, low + 17, text + 11);
	}
	buf_printf(b, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%.0f\" y2=\"%.0f\"/>", LEFT,
		   RIGHT, low, low);
}

/* --- devices by state --- */

static void put_devices_axis(struct buf *b, double most)
{
	double step = nice_step(most);

	for (double v = 0; v <= most; v += step) {
		double y = LOW - v / most * (LOW - TOP);

		buf_printf(b,
			   "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
			   "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f</text>",
			   LEFT, RIGHT, y, y, LEFT - 8, y + 4, v);
	}
	buf_printf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">devices</text>", LEFT - 8,
		   TOP - 12);
}

struct layer {
	const char *class, *name;
};
static const struct layer layers[] = {{"proven", "proven"},
				      {"done", "updated"},
				      {"run", "updating"},
				      {"offer", "offered"},
				      {"fail", "failed"}};
#define LAYERS (sizeof layers / sizeof layers[0])

static double layer_of(const struct report_step *s, size_t layer)
{
	int64_t proven = s->proven < s->devices[REPORT_DONE] ? s->proven : s->devices[REPORT_DONE];

	switch (layer) {
	case 0: return (double)proven;
	case 1: return (double)(s->devices[REPORT_DONE] - proven);
	case 2: return (double)s->devices[REPORT_RUNNING];
	case 3: return (double)s->devices[REPORT_OFFERED];
	default: return (double)s->devices[REPORT_FAILED];
	}
}

static double sum_below(const struct report_step *s, size_t layer)
{
	double sum = 0;

	for (size_t i = 0; i < layer; i++)
		sum += layer_of(s, i);
	return sum;
}

static void put_layer(struct buf *b, const struct account *r, size_t layer, double most)
{
	double any = 0, scale = (LOW - TOP) / most;

	for (int i = 0; i < REPORT_STEPS; i++)
		any += layer_of(&r->steps[i], layer);
	if (any <= 0)
		return;
	buf_printf(b, "<path class=\"%s\" d=\"M", layers[layer].class);
	for (int i = 0; i < REPORT_STEPS; i++)
		buf_printf(b, "%.1f %.1fL", x_of_step(i),
			   LOW - sum_below(&r->steps[i], layer + 1) * scale);
	for (int i = REPORT_STEPS - 1; i >= 0; i--)
		buf_printf(b, "%.1f %.1f%s", x_of_step(i),
			   LOW - sum_below(&r->steps[i], layer) * scale, i ? "L" : "Z\"/>");
}

/* Devices inside the stages: what it is to reach. */
static void put_goal(struct buf *b, const struct account *r, double most)
{
	double y = LOW;
	bool begun = false;

	for (int i = 0; i < r->stage_count; i++) {
		const struct report_stage *s = &r->stages[i];

		if (!s->begins_us)
			break;
		buf_printf(b, begun ? "L%.1f %.1f" : "<path class=\"goal\" d=\"M%.1f %.1f",
			   x_of(r, s->begins_us), y);
		y = LOW - (double)s->devices / most * (LOW - TOP);
		buf_printf(b, "L%.1f %.1f", x_of(r, s->begins_us), y);
		begun = true;
	}
	if (begun)
		buf_printf(b, "L%d %.1f\"/>", RIGHT, y);
}

static void put_stages(struct buf *b, const struct account *r)
{
	double last = -100;

	for (int i = 0; i < r->stage_count; i++) {
		double x = x_of(r, r->stages[i].begins_us);

		if (!r->stages[i].begins_us)
			break;
		buf_printf(b, "<line class=\"stage\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>",
			   x, x, BAND_LOW + 4, LOW);
		if (x - last > 42 && x < RIGHT - 36)
			buf_printf(b, "<text class=\"stage-t\" x=\"%.1f\" y=\"%d\">%d %%</text>",
				   x + 4, TOP - 9, r->stages[i].percent);
		else
			continue;
		last = x;
	}
}

/* --- states --- */

static const char *band_of(enum rollout_state s)
{
	switch (s) {
	case ROLLOUT_RUNNING: return "b-run";
	case ROLLOUT_PAUSED: return "b-pause";
	case ROLLOUT_HALTED: return "b-halt";
	case ROLLOUT_COMPLETED: return "b-ok";
	default: return "b-end";
	}
}

static void put_band(struct buf *b, const struct account *r, enum rollout_state state,
		     int64_t from_us, int64_t to_us)
{
	double x = x_of(r, from_us), width = x_of(r, to_us) - x;
	const char *name = rollout_state_name(state);

	if (width < 1.5)
		width = 1.5;
	buf_printf(b,
		   "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" "
		   "height=\"%d\"><title>%s</title>"
		   "</rect>",
		   band_of(state), x, BAND_TOP, width, BAND_LOW - BAND_TOP, name);
	if (width > 8.0 * (double)strlen(name))
		buf_printf(b, "<text x=\"%.1f\" y=\"%d\">%s</text>", x, BAND_TOP - 5, name);
	else if (state == ROLLOUT_HALTED || state == ROLLOUT_COMPLETED || state == ROLLOUT_ABORTED)
		buf_printf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"end\">%s</text>", x + width,
			   BAND_TOP - 5, name);
}

/* Behind the devices: when nothing was offered; and the moment of a halt. */
static void put_wash(struct buf *b, const struct account *r, enum rollout_state state,
		     int64_t from_us, int64_t to_us)
{
	double x = x_of(r, from_us);

	if (state == ROLLOUT_PAUSED || state == ROLLOUT_HALTED)
		buf_printf(b,
			   "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>",
			   state == ROLLOUT_PAUSED ? "wash-pause" : "wash-halt", x, TOP,
			   x_of(r, to_us) - x, LOW - TOP);
	if (state == ROLLOUT_HALTED)
		buf_printf(b, "<line class=\"limit\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>",
			   x, x, BAND_LOW, LOW);
}

typedef void put_state_fn(struct buf *b, const struct account *r, enum rollout_state state,
			  int64_t from_us, int64_t to_us);

static void put_states(struct buf *b, const struct account *r, put_state_fn *put)
{
	for (int i = 0; i < r->mark_count;) {
		int k = i + 1;

		while (k < r->mark_count && r->marks[k].state == r->marks[i].state)
			k++;
		put(b, r, r->marks[i].state, r->marks[i].at_us,
		    k < r->mark_count ? r->marks[k].at_us : r->to_us);
		i = k;
	}
}

/* --- evidence --- */

/* On a scale of powers of ten, from 1 to ten times the halt. */
static double e_y(const struct account *r, double e)
{
	double share = log10(e > 1 ? e : 1) / log10(r->halts_at * 10);

	return E_LOW - (share < 1 ? share : 1) * (E_LOW - E_TOP);
}

static void put_evidence(struct buf *b, const struct account *r)
{
	double e = 1, halt = e_y(r, r->halts_at);

	buf_printf(
		b,
		"<text x=\"%d\" y=\"%d\">so many times likelier is what was seen if the release is "
		"bad</text>",
		LEFT, E_TOP - 12);
	/* Five lines or so, however far it is. */
	double step = pow(10, ceil(log10(r->halts_at * 10) / 5));
	for (double v = 1; v < r->halts_at * 10; v *= step)
		buf_printf(b,
			   "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
			   "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>",
			   LEFT, RIGHT, e_y(r, v), e_y(r, v), LEFT - 8, e_y(r, v) + 4, v);
	for (int pass = 0; pass < 2; pass++) {
		if (pass == 0)
			buf_printf(b, "<path class=\"e-area\" d=\"M%d %dL", LEFT, E_LOW);
		else
			buf_adds(b, "<path class=\"e\" d=\"M");
		e = 1;
		for (int i = 0; i < REPORT_STEPS; i++) {
			e = r->steps[i].e > 0 ? r->steps[i].e : e;
			buf_printf(b, "%s%.1f %.1f", i ? "L" : "", x_of_step(i), e_y(r, e));
		}
		if (pass == 0)
			buf_printf(b, "L%d %dZ\"/>", RIGHT, E_LOW);
		else
			buf_adds(b, "\"/>");
	}
	buf_printf(b,
		   "<line class=\"limit\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
		   "<text class=\"limit-t\" x=\"%d\" y=\"%.1f\">halts at "
		   "%g</text>",
		   LEFT, RIGHT, halt, halt, LEFT + 4, halt - 5, r->halts_at);
}

/* --- the rest --- */

static void put_failures(struct buf *b, const struct account *r)
{
	for (int i = 0; i < r->failure_count; i++) {
		const struct report_failure *f = &r->failures[i];
		double x = x_of(r, f->at_us);

		buf_printf(b, "<path class=\"fail\" d=\"M%.1f %dl4 7h-8z\"><title>", x, LOW + 1);
		put_text(b, f->device_id);
		buf_adds(b, ": ");
		put_text(b, f->text);
		buf_adds(b, "</title></path>");
	}
}

static void put_legend(struct buf *b, const struct account *r)
{
	double x = LEFT;
	int y = r->watched ? E_LOW + 44 : LOW + 44;

	for (size_t i = 0; i < LAYERS; i++) {
		buf_printf(b,
			   "<rect class=\"%s\" x=\"%.0f\" y=\"%d\" width=\"12\" height=\"12\" "
			   "rx=\"2\"/>"
			   "<text x=\"%.0f\" y=\"%d\">%s</text>",
			   layers[i].class, x, y - 10, x + 18, y, layers[i].name);
		x += 40 + 7 * (double)strlen(layers[i].name);
	}
	buf_printf(b,
		   "<path class=\"goal\" d=\"M%.0f %dh24\"/><text x=\"%.0f\" y=\"%d\">inside the "
		   "stage</text>",
		   x, y - 4, x + 30, y);
}

static void put_head(struct buf *b, const struct account *r, int height)
{
	char sentence[700], name[270];

	report_sentence(r, sentence, sizeof sentence);
	buf_printf(b,
		   "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
		   "height=\"%d\" role=\"img\" aria-labelledby=\"title desc\"><title id=\"title\">",
		   WIDTH, height, WIDTH, height);
	buf_adds(b, "Rollout ");
	put_text(b, r->name);
	buf_adds(b, ": release ");
	put_text(b, r->version);
	buf_adds(b, " for ");
	put_text(b, r->model);
	buf_adds(b, "</title><desc id=\"desc\">");
	put_text(b, sentence);
	if (r->watched) {
		buf_addc(b, ' ');
		put_text(b, r->evidence);
	}
	buf_adds(b, "</desc>");
	buf_adds(b, style);
	buf_printf(b, "<rect class=\"bg\" x=\".5\" y=\".5\" width=\"%d\" height=\"%d\" rx=\"8\"/>",
		   WIDTH - 1, height - 1);
	buf_printf(b, "<text class=\"h\" x=\"24\" y=\"34\">");
	snprintf(name, sizeof name, "%s for %s", r->version, r->model);
	put_cut(b, name, 80);
	buf_adds(b, "</text><text class=\"s\" x=\"24\" y=\"56\">");
	put_cut(b, sentence, 135);
	buf_adds(b, "</text>");
}

void report_write_svg(struct buf *b, const struct account *r)
{
	double most = most_devices(r);
	int height = r->watched ? E_LOW + 64 : LOW + 64;

	put_head(b, r, height);
	put_devices_axis(b, most);
	put_time_axis(b, r, LOW);
	put_states(b, r, put_wash);
	for (size_t i = 0; i < LAYERS; i++)
		put_layer(b, r, i, most);
	put_goal(b, r, most);
	put_states(b, r, put_band);
	put_stages(b, r);
	put_failures(b, r);
	if (r->watched)
		put_evidence(b, r);
	put_legend(b, r);
	buf_adds(b, "</svg>\n");
}
