/* SPDX-License-Identifier: MIT */
#include "fleet-sim/scenario.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX 86400.0
#define DUTY_S_MAX  (31 * SECONDS_MAX) /* there, or away */
#define BYTES_MAX   1e10
/* A result code that ends nothing. */
#define ALREADY_RUNNING 10

/* What of a habit can be told; by JSON's names. */
enum field {
	FIELD_CODE = 1,
	FIELD_TIMES = 2,
	FIELD_BYTES = 4,
	FIELD_DUTY = 8,
	FIELD_BY = 16,
};

static const struct {
	const char *name;
	int fields;
} kinds[HABITS] = {
	[HABIT_FAIL] = {"fail", FIELD_CODE | FIELD_TIMES},
	[HABIT_BRICK] = {"brick", FIELD_TIMES},
	[HABIT_ROLL_BACK] = {"roll_back", FIELD_TIMES},
	[HABIT_LIE] = {"lie", FIELD_TIMES},
	[HABIT_POWER_LOSS] = {"power_loss", 0},
	[HABIT_SLOW] = {"slow", FIELD_BYTES},
	[HABIT_BROKEN_LINK] = {"broken_link", 0},
	[HABIT_DUTY] = {"duty", FIELD_DUTY},
	[HABIT_TWICE] = {"twice", 0},
	[HABIT_LATE] = {"late", FIELD_BY},
	[HABIT_OUT_OF_ORDER] = {"out_of_order", FIELD_BY},
	[HABIT_OLD_TOPICS] = {"old_topics", 0},
};

const char *habit_name(enum habit_kind k)
{
	return kinds[k].name;
}

void scenario_init(struct scenario *s)
{
	*s = (struct scenario){.install = {1000, 3000}, .reboot = {500, 1500}};
}

static void habit_init(struct habit *h, enum habit_kind kind)
{
	*h = (struct habit){
		.kind = kind,
		.code = 4,
		.bytes_per_s = 50000,
		.on_ms = 20000,
		.off_ms = 20000,
		.by_ms = 3000,
	};
}

static enum ota_code find_kind(const char *name, size_t len, enum habit_kind *out,
			       struct ota_err *err)
{
	struct ota_err all = {0};
	size_t n = 0;

	for (int k = 0; k < HABITS; k++) {
		if (strlen(kinds[k].name) == len && memcmp(kinds[k].name, name, len) == 0) {
			*out = (enum habit_kind)k;
			return OTA_OK;
		}
		n += (size_t)snprintf(all.msg + n, sizeof all.msg - n, "%s%s", k ? ", " : "",
				      kinds[k].name);
	}
	return ota_fail(err, OTA_EINVAL, "there is no habit '%.*s'; habits are %.300s",
			(int)(len < 60 ? len : 60), name, all.msg);
}

bool habit_concerns(const struct habit *h, const char *hw)
{
	return !h->hw[0] || (hw && strcmp(h->hw, hw) == 0);
}

/* Of the devices of a revision, how many have a fate at all. */
static double fates_of(const struct scenario *s, const char *hw)
{
	double percent = 0;

	for (size_t i = 0; i < s->count; i++)
		if (s->habits[i].kind <= HABIT_LAST_FATE && habit_concerns(&s->habits[i], hw))
			percent += s->habits[i].percent;
	return percent;
}

static enum ota_code scenario_add(struct scenario *s, const struct habit *h, struct ota_err *err)
{
	if (s->count == HABITS_MAX)
		return ota_fail(err, OTA_EINVAL, "more than %d habits", HABITS_MAX);
	for (size_t i = 0; i < s->count; i++) {
		const struct habit *other = &s->habits[i];

		if (h->kind > HABIT_LAST_FATE && other->kind == h->kind &&
		    (habit_concerns(h, other->hw) || habit_concerns(other, h->hw)))
			return ota_fail(err, OTA_EINVAL, "the habit '%s' is given twice",
					habit_name(h->kind));
	}
	s->habits[s->count++] = *h;
	for (size_t i = 0; i < s->count; i++) {
		double fates = fates_of(s, s->habits[i].hw);

		if (fates > 100.0001)
			return ota_fail(err, OTA_EINVAL,
					"fail, brick, roll_back and lie exclude each other, and "
					"make %g %% together",
					fates);
	}
	return OTA_OK;
}

/* ------------------------------------------------------------------ hardware revisions */

static enum ota_code read_hw(const char *text, size_t len, char out[HW_SIZE], struct ota_err *err)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-";
	char copy[HW_SIZE] = "";

	if (len < HW_SIZE)
		memcpy(copy, text, len);
	if (!copy[0] || strspn(copy, allowed) != len)
		return ota_fail(err, OTA_EINVAL,
				"a hardware revision is 1 to %d of A-Z a-z 0-9 . _ + and -, not "
				"'%.*s'",
				HW_SIZE - 1, (int)(len < 60 ? len : 60), text);
	memcpy(out, copy, HW_SIZE);
	return OTA_OK;
}

static bool has_hw(const struct scenario *s, const char *hw)
{
	for (size_t i = 0; i < s->hw_count; i++)
		if (strcmp(s->hws[i], hw) == 0)
			return true;
	return false;
}

static enum ota_code add_hw(struct scenario *s, const char *text, size_t len, struct ota_err *err)
{
	char hw[HW_SIZE];

	if (s->hw_count == HWS_MAX)
		return ota_fail(err, OTA_EINVAL, "more than %d hardware revisions", HWS_MAX);
	if (read_hw(text, len, hw, err) != OTA_OK)
		return err->code;
	if (has_hw(s, hw))
		return ota_fail(err, OTA_EINVAL, "the hardware revision '%s' is given twice", hw);
	memcpy(s->hws[s->hw_count++], hw, HW_SIZE);
	return OTA_OK;
}

enum ota_code scenario_set_hws(struct scenario *s, const char *list, struct ota_err *err)
{
	enum ota_code code;

	s->hw_count = 0;
	do {
		size_t len = strcspn(list, ",");

		code = add_hw(s, list, len, err);
		list += len;
	} while (code == OTA_OK && *list++);
	return code == OTA_OK ? OTA_OK : ota_wrap(err, "--hw");
}

const char *scenario_hw(const struct scenario *s, uint32_t device)
{
	return s->hw_count ? s->hws[device % s->hw_count] : NULL;
}

enum ota_code scenario_check(const struct scenario *s, struct ota_err *err)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->habits[i].hw[0] && !has_hw(s, s->habits[i].hw))
			return ota_fail(err, OTA_EINVAL,
					"the habit '%s' is of devices of revision '%s', and there "
					"are none (--hw)",
					habit_name(s->habits[i].kind), s->habits[i].hw);
	return OTA_OK;
}

/* ------------------------------------------------------------------ JSON */

static enum ota_code number(const json_t *v, const char *name, double min, double max, double *out,
			    struct ota_err *err)
{
	double d = json_number_value(v);

	if (!json_is_number(v) || !isfinite(d) || d < min || d > max)
		return ota_fail(err, OTA_EINVAL, "\"%s\" must be a number from %.15g to %.15g",
				name, min, max);
	*out = d;
	return OTA_OK;
}

static enum ota_code whole(const json_t *v, const char *name, double min, double max, int *out,
			   struct ota_err *err)
{
	double d = 0;
	enum ota_code code = number(v, name, min, max, &d, err);

	if (code == OTA_OK && floor(d) < d)
		code = ota_fail(err, OTA_EINVAL, "\"%s\" must be a whole number", name);
	if (code == OTA_OK)
		*out = (int)d;
	return code;
}

static enum ota_code seconds(const json_t *v, const char *name, double most, int64_t *ms,
			     struct ota_err *err)
{
	double d = 0;
	enum ota_code code = number(v, name, 0, most, &d, err);

	if (code == OTA_OK)
		*ms = (int64_t)(d * 1000);
	return code;
}

/* 3, or [2, 6] */
static enum ota_code span(const json_t *v, const char *name, struct span *out, struct ota_err *err)
{
	const json_t *first = json_is_array(v) ? json_array_get(v, 0) : v;
	const json_t *last = json_is_array(v) ? json_array_get(v, 1) : v;
	struct span s = {0, 0};
	enum ota_code code;

	if (json_is_array(v) && json_array_size(v) != 2)
		return ota_fail(err, OTA_EINVAL, "\"%s\" must be seconds, or [least, most]", name);
	code = seconds(first, name, SECONDS_MAX, &s.least_ms, err);
	if (code == OTA_OK)
		code = seconds(last, name, SECONDS_MAX, &s.most_ms, err);
	if (code == OTA_OK && s.least_ms > s.most_ms)
		code = ota_fail(err, OTA_EINVAL, "\"%s\" must be [least, most], not the reverse",
				name);
	if (code == OTA_OK)
		*out = s;
	return code;
}

static const char *or_empty(const json_t *v)
{
	return json_is_string(v) ? json_string_value(v) : "";
}

/* One member of a habit's object. */
static enum ota_code habit_field(struct habit *h, const char *key, const json_t *v,
				 struct ota_err *err)
{
	int fields = kinds[h->kind].fields;
	double d = 0;
	enum ota_code code;

	if (strcmp(key, "habit") == 0)
		return OTA_OK;
	if (strcmp(key, "percent") == 0)
		return number(v, key, 0, 100, &h->percent, err);
	if (strcmp(key, "hw") == 0)
		return read_hw(or_empty(v), json_string_length(v), h->hw, err);
	if (strcmp(key, "code") == 0 && (fields & FIELD_CODE)) {
		code = whole(v, key, 1, 11, &h->code, err);
		if (code == OTA_OK && h->code == ALREADY_RUNNING)
			code = ota_fail(err, OTA_EINVAL,
					"\"code\" 10 (already running) is no failure");
		return code;
	}
	if (strcmp(key, "times") == 0 && (fields & FIELD_TIMES))
		return whole(v, key, 0, 1000, &h->times, err);
	if (strcmp(key, "on_s") == 0 && (fields & FIELD_DUTY))
		return seconds(v, key, DUTY_S_MAX, &h->on_ms, err);
	if (strcmp(key, "off_s") == 0 && (fields & FIELD_DUTY))
		return seconds(v, key, DUTY_S_MAX, &h->off_ms, err);
	if (strcmp(key, "by_s") == 0 && (fields & FIELD_BY))
		return seconds(v, key, SECONDS_MAX, &h->by_ms, err);
	if (strcmp(key, "bytes_per_s") == 0 && (fields & FIELD_BYTES)) {
		code = number(v, key, 1, BYTES_MAX, &d, err);
		h->bytes_per_s = (int64_t)d;
		return code;
	}
	return ota_fail(err, OTA_EINVAL, "the habit '%s' knows no \"%.40s\"", habit_name(h->kind),
			key);
}

static enum ota_code read_habit(struct scenario *s, const json_t *object, struct ota_err *err)
{
	const char *name = json_string_value(json_object_get(object, "habit")), *key;
	enum habit_kind kind = HABITS;
	enum ota_code code = OTA_OK;
	struct habit h;
	json_t *v;

	if (!name)
		return ota_fail(err, OTA_EINVAL,
				"must be an object like {\"habit\": \"fail\", \"percent\": 3, "
				"\"code\": 4}");
	if (!json_object_get(object, "percent"))
		return ota_fail(err, OTA_EINVAL, "\"percent\" (of the fleet) is missing");
	code = find_kind(name, strlen(name), &kind, err);
	if (code != OTA_OK)
		return code;
	habit_init(&h, kind);
	json_object_foreach((json_t *)(uintptr_t)object, key, v)
	{
		code = habit_field(&h, key, v, err);
		if (code != OTA_OK)
			return code;
	}
	return scenario_add(s, &h, err);
}

static enum ota_code read_habits(struct scenario *s, const json_t *list, struct ota_err *err)
{
	const json_t *object;
	size_t i;

	if (!json_is_array(list))
		return ota_fail(err, OTA_EINVAL, "\"habits\" must be a list");
	json_array_foreach(list, i, object)
	{
		if (read_habit(s, object, err) != OTA_OK)
			return ota_wrap(err, "habits[%zu]", i);
	}
	return OTA_OK;
}

static enum ota_code read_hws(struct scenario *s, const json_t *list, struct ota_err *err)
{
	const json_t *hw;
	size_t i;

	if (!json_is_array(list))
		return ota_fail(err, OTA_EINVAL, "\"hw\" must be a list of words");
	json_array_foreach(list, i, hw)
	{
		if (add_hw(s, or_empty(hw), json_string_length(hw), err) != OTA_OK)
			return ota_wrap(err, "hw[%zu]", i);
	}
	return OTA_OK;
}

static enum ota_code read_root(struct scenario *s, const json_t *root, struct ota_err *err)
{
	enum ota_code code = OTA_OK;
	const char *key;
	json_t *v;

	if (!json_is_object(root))
		return ota_fail(err, OTA_EINVAL, "must be a JSON object");
	json_object_foreach((json_t *)(uintptr_t)root, key, v)
	{
		if (strcmp(key, "habits") == 0)
			code = read_habits(s, v, err);
		else if (strcmp(key, "hw") == 0)
			code = read_hws(s, v, err);
		else if (strcmp(key, "install_s") == 0)
			code = span(v, key, &s->install, err);
		else if (strcmp(key, "reboot_s") == 0)
			code = span(v, key, &s->reboot, err);
		else if (strcmp(key, "about") != 0)
			code = ota_fail(
				err, OTA_EINVAL,
				"knows no \"%.40s\", but about, hw, install_s, reboot_s and "
				"habits",
				key);
		if (code != OTA_OK)
			return code;
	}
	return OTA_OK;
}

enum ota_code scenario_read(struct scenario *s, const char *path, struct ota_err *err)
{
	FILE *f = fopen(path, "re");
	json_error_t wrong;
	enum ota_code code;
	json_t *root;

	if (!f)
		return ota_fail(err, OTA_EINVAL, "cannot open the scenario %s: %s", path,
				strerror(errno));
	root = json_loadf(f, JSON_REJECT_DUPLICATES, &wrong);
	fclose(f);
	if (!root)
		return ota_fail(err, OTA_EINVAL, "%s, line %d: %s", path, wrong.line, wrong.text);
	code = read_root(s, root, err);
	json_decref(root);
	return code == OTA_OK ? OTA_OK : ota_wrap(err, "%s", path);
}

/* ------------------------------------------------------------------ --habits */

static bool read_double(const char *text, const char *end, double min, double max, double *out)
{
	char copy[32], *rest;
	size_t n = (size_t)(end - text);

	if (n == 0 || n >= sizeof copy)
		return false;
	memcpy(copy, text, n);
	copy[n] = 0;
	*out = strtod(copy, &rest);
	return *rest == 0 && isfinite(*out) && *out >= min && *out <= max;
}

/* The VALUE of NAME:VALUE=PERCENT. */
static bool read_value(struct habit *h, const char *from, const char *to)
{
	int fields = kinds[h->kind].fields;
	const char *slash = memchr(from, '/', (size_t)(to - from));
	double a = 0, b = 0;

	if (fields & FIELD_DUTY) {
		if (!slash || !read_double(from, slash, 0, DUTY_S_MAX, &a) ||
		    !read_double(slash + 1, to, 0, DUTY_S_MAX, &b))
			return false;
		h->on_ms = (int64_t)(a * 1000);
		h->off_ms = (int64_t)(b * 1000);
	} else if (fields & FIELD_CODE) {
		if (!read_double(from, to, 1, 11, &a) || floor(a) < a || (int)a == ALREADY_RUNNING)
			return false;
		h->code = (int)a;
	} else if (fields & FIELD_BYTES) {
		if (!read_double(from, to, 1, BYTES_MAX, &a))
			return false;
		h->bytes_per_s = (int64_t)a;
	} else if (fields & FIELD_BY) {
		if (!read_double(from, to, 0, SECONDS_MAX, &a))
			return false;
		h->by_ms = (int64_t)(a * 1000);
	} else {
		return false;
	}
	return true;
}

static enum ota_code add_word(struct scenario *s, const char *word, size_t len, struct ota_err *err)
{
	const char *end = word + len, *eq = memchr(word, '=', len), *at, *colon;
	enum habit_kind kind = HABITS;
	struct habit h;

	if (!eq)
		return ota_fail(err, OTA_EINVAL,
				"--habits: '%.*s' is not NAME=PERCENT or NAME:VALUE=PERCENT",
				(int)(len < 60 ? len : 60), word);
	at = memchr(word, '@', (size_t)(eq - word));
	at = at ? at : eq;
	colon = memchr(word, ':', (size_t)(at - word));
	if (find_kind(word, (size_t)((colon ? colon : at) - word), &kind, err) != OTA_OK)
		return ota_wrap(err, "--habits");
	habit_init(&h, kind);
	if (at < eq && read_hw(at + 1, (size_t)(eq - at - 1), h.hw, err) != OTA_OK)
		return ota_wrap(err, "--habits");
	if (colon && !read_value(&h, colon + 1, at))
		return ota_fail(err, OTA_EINVAL,
				"--habits: '%.*s' is no value of '%s' (fail:CODE, "
				"slow:BYTES_PER_S, duty:ON_S/OFF_S, late:S, out_of_order:S)",
				(int)(at - colon - 1 < 60 ? at - colon - 1 : 60), colon + 1,
				habit_name(kind));
	if (!read_double(eq + 1, end, 0, 100, &h.percent))
		return ota_fail(err, OTA_EINVAL, "--habits: '%.*s' is no percentage from 0 to 100",
				(int)(end - eq - 1 < 60 ? end - eq - 1 : 60), eq + 1);
	return scenario_add(s, &h, err) == OTA_OK ? OTA_OK : ota_wrap(err, "--habits");
}

enum ota_code scenario_add_list(struct scenario *s, const char *list, struct ota_err *err)
{
	enum ota_code code = OTA_OK;

	for (const char *word = list; code == OTA_OK; word += strcspn(word, ",") + 1) {
		size_t len = strcspn(word, ",");

		code = add_word(s, word, len, err);
		if (!word[len])
			break;
	}
	return code;
}
