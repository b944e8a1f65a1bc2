/* SPDX-License-Identifier: MIT */
/* The page of a rollout and its picture: whatever is in it, what comes out is whole. */
#include "http/report.h"

#include "base/clock.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#define NOW_US (INT64_C(1800000000) * US_PER_S)

static const char *const evil[] = {"<script>alert('x')</script>",
				   "a & b \"c\" | d\n# e",
				   "\x1b[31m \x7f",
				   "\xff\xfe broken",
				   "\xc3\xa4\xe2\x82\xac \xf0\x9f\x92\xa9",
				   "]](x) ![y](z) `code` *b* _i_",
				   ""};

static const char *some_evil(void)
{
	return evil[random_below((int)(sizeof evil / sizeof evil[0]))];
}

static void fill(char *out, size_t size)
{
	snprintf(out, size, "%s%s", some_evil(), some_evil());
}

static struct account *random_account(void)
{
	struct account *r = calloc(1, sizeof *r);

	assert_non_null(r);
	fill(r->name, sizeof r->name);
	fill(r->reason, sizeof r->reason);
	fill(r->target, sizeof r->target);
	fill(r->evidence, sizeof r->evidence);
	snprintf(r->version, sizeof r->version, "%s", some_evil());
	snprintf(r->model, sizeof r->model, "%s", some_evil());
	r->state = (enum rollout_state)random_below(ROLLOUT_STATES);
	r->now_us = NOW_US;
	r->to_us = NOW_US - random_below(100) * US_PER_S;
	r->created_us = r->from_us = r->to_us - (10 + random_below(200000000)) * US_PER_S;
	r->stage_count = 1 + random_below(STAGES_MAX);
	for (int i = 0; i < r->stage_count; i++) {
		r->stages[i] =
			(struct report_stage){.percent = i + 1, .devices = random_below(9999)};
		if (i < 5)
			r->stages[i].begins_us = r->from_us + random_below(1000) * US_PER_S;
	}
	r->mark_count = random_below(REPORT_MARKS + 1);
	for (int i = 0; i < r->mark_count; i++) {
		r->marks[i].at_us = r->from_us + i * US_PER_S;
		r->marks[i].state = (enum rollout_state)random_below(ROLLOUT_STATES);
		snprintf(r->marks[i].what, sizeof r->marks[i].what, "paused");
		fill(r->marks[i].reason, sizeof r->marks[i].reason);
	}
	r->failure_count = random_below(REPORT_FAILURES + 1);
	r->reason_count = random_below(REPORT_REASONS + 1);
	for (int i = 0; i < r->failure_count; i++) {
		r->failures[i].at_us = random_below(2) ? r->from_us : 0;
		fill(r->failures[i].device_id, sizeof r->failures[i].device_id);
		fill(r->failures[i].text, sizeof r->failures[i].text);
	}
	for (int i = 0; i < r->reason_count; i++)
		fill(r->reasons[i].text, sizeof r->reasons[i].text);
	r->watched = random_below(2);
	r->halts_at = random_below(2) ? 125 : 1e300;
	for (int i = 0; i < REPORT_STEPS; i++) {
		for (int s = 0; s < REPORT_SERIES; s++)
			r->steps[i].devices[s] = random_below(3) ? random_below(1000000) : 0;
		r->steps[i].proven = random_below(1000000);
		r->steps[i].e = random_below(2) ? 1e300 : 0;
	}
	return r;
}

/* Tags are of our own words alone, opened and closed in pairs; no number is none. */
static void is_whole_svg(const char *svg)
{
	static const char *const own[] = {"svg",  "title", "desc", "style",
					  "rect", "text",  "line", "path"};
	const char *open[16];
	int depth = 0;

	for (const char *p = strchr(svg, '<'); p; p = strchr(p + 1, '<')) {
		const char *name = p[1] == '/' ? p + 2 : p + 1, *end = strchr(p, '>');
		size_t len = strcspn(name, " >/"), i = 0;

		assert_non_null(end);
		while (i < sizeof own / sizeof own[0] &&
		       (strlen(own[i]) != len || strncmp(own[i], name, len) != 0))
			i++;
		if (i == sizeof own / sizeof own[0])
			fail_msg("a tag that is not ours: %.60s", p);
		if (p[1] == '/') {
			assert_true(depth > 0);
			assert_ptr_equal(open[--depth], own[i]);
		} else if (end[-1] != '/') {
			assert_true(depth < 16);
			open[depth++] = own[i];
		}
	}
	assert_int_equal(depth, 0);
	assert_null(strstr(svg, "nan"));
	assert_null(strstr(svg, "inf\""));
	assert_null(strstr(svg, "inf "));
	assert_true(utf8_valid(svg, strlen(svg)));
	for (const char *p = svg; *p; p++)
		assert_true((unsigned char)*p >= ' ' || *p == '\n');
}

/* What others wrote opens nothing: no tag, link, heading, or line of a table. */
static void is_tame_markdown(const char *page)
{
	for (const char *p = page; *p; p++) {
		if (strchr("<>`*", *p))
			assert_true(p > page && p[-1] == '\\');
		if (*p == '(' && p > page && p[-1] == ']')
			assert_true(strncmp(p, "(" REPORT_PICTURE ")", sizeof REPORT_PICTURE) == 0);
		if (*p == '\n' && p[1] == '#')
			assert_true(strncmp(p + 1, "## ", 3) == 0 && strchr("SW", p[4]));
	}
}

static void test_whatever_is_in_it(void **state)
{
	(void)state;
	random_begin("report");
	for (int round = 0; round < 200; round++) {
		struct account *r = random_account();
		struct buf svg = BUF_INIT, page = BUF_INIT, json = BUF_INIT;

		report_write_svg(&svg, r);
		report_write_markdown(&page, r);
		json_open(&json, NULL, '{');
		report_write_json(&json, r);
		json_close(&json, '}');
		assert_true(buf_ok(&svg) && buf_ok(&page) && buf_ok(&json));
		is_whole_svg(svg.data);
		is_tame_markdown(page.data);
		assert_true(utf8_valid(json.data, json.len));
		assert_true(utf8_valid(page.data, page.len));
		buf_fini(&svg);
		buf_fini(&page);
		buf_fini(&json);
		free(r);
	}
}

static void test_of_nothing(void **state)
{
	struct account *r = calloc(1, sizeof *r);
	struct buf b = BUF_INIT;
	(void)state;

	assert_non_null(r);
	r->created_us = r->from_us = NOW_US;
	r->to_us = r->now_us = NOW_US + 10 * US_PER_S;
	report_write_svg(&b, r);
	is_whole_svg(b.data);
	assert_non_null(strstr(b.data, "It has not begun."));
	buf_fini(&b);
	free(r);
}

static void test_steps(void **state)
{
	struct account *r = calloc(1, sizeof *r);
	(void)state;

	assert_non_null(r);
	r->from_us = NOW_US;
	r->to_us = NOW_US + 240 * US_PER_S;
	assert_int_equal(report_step_of(r, NOW_US - 1), 0);
	assert_int_equal(report_step_of(r, r->to_us + 1), REPORT_STEPS - 1);
	for (int i = 0; i < REPORT_STEPS; i++) {
		assert_int_equal(report_step_of(r, NOW_US + i * US_PER_S + US_PER_S / 2), i);
		assert_int_equal(report_step_us(r, i), NOW_US + i * US_PER_S);
	}
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whatever_is_in_it),
		cmocka_unit_test(test_of_nothing),
		cmocka_unit_test(test_steps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
