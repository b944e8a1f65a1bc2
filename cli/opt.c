/* SPDX-License-Identifier: MIT */
/* See opt.h.  Pure but for args_help(); nothing is kept between calls. */
#include "cli/opt.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct opt *find_opt(const struct opt *opts, const char *name, size_t len, int *index)
{
	for (int i = 0; opts && opts[i].name; i++)
		if (strlen(opts[i].name) == len && memcmp(opts[i].name, name, len) == 0) {
			if (index)
				*index = i;
			return &opts[i];
		}
	return NULL;
}

static const struct cmd *find_cmd(const struct cmd *subs, const char *name)
{
	for (; subs && subs->name; subs++)
		if (strcmp(subs->name, name) == 0)
			return subs;
	return NULL;
}

/* Levenshtein distance; words longer than the row are simply far away. */
static int distance(const char *a, const char *b)
{
	int row[40];
	size_t n = strlen(b);

	if (n >= 40 || strlen(a) >= 40)
		return 99;
	for (size_t j = 0; j <= n; j++)
		row[j] = (int)j;
	for (int i = 1; *a; a++, i++) {
		int diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			int best = diagonal + (*a != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[n];
}

struct guess {
	const char *best;
	int distance;
};

static void guess_try(struct guess *g, const char *typed, const char *candidate)
{
	int d = distance(typed, candidate);

	if (d < g->distance) {
		g->distance = d;
		g->best = candidate;
	}
}

static enum ota_code unknown_cmd(const struct cmd *parent, const char *typed, struct ota_err *err)
{
	struct guess g = {NULL, 3};

	for (const struct cmd *s = parent->subs; s->name; s++)
		guess_try(&g, typed, s->name);
	if (g.best)
		return ota_fail(err, OTA_EINVAL, "there is no command '%s'; did you mean '%s'?",
				typed, g.best);
	return ota_fail(err, OTA_EINVAL, "there is no command '%s'", typed);
}

static enum ota_code unknown_opt(const struct args *a, const char *typed, struct ota_err *err)
{
	struct guess g = {NULL, 3};

	for (const struct opt *o = a->cmd->opts; o && o->name; o++)
		guess_try(&g, typed, o->name);
	for (const struct opt *o = a->global_opts; o->name; o++)
		guess_try(&g, typed, o->name);
	if (g.best)
		return ota_fail(err, OTA_EINVAL, "there is no option --%s here; did you mean --%s?",
				typed, g.best);
	return ota_fail(err, OTA_EINVAL, "there is no option --%s here", typed);
}

/*
 * Does the option TEXT ("--name" without '=') take the next word as its value, for any command that
 * can still be reached?  Asked before the command is known.
 */
static bool may_take_value(const struct cmd *cur, const struct opt *globals, const char *text)
{
	const char *name = text + 2;
	const struct opt *o = find_opt(globals, name, strlen(name), NULL);

	if (!o)
		o = find_opt(cur->opts, name, strlen(name), NULL);
	for (const struct cmd *s = cur->subs; !o && s && s->name; s++)
		o = find_opt(s->opts, name, strlen(name), NULL);
	return o && o->arg;
}

static void enter(struct args *a, const struct cmd *cmd)
{
	size_t n = strlen(a->path);

	a->cmd = cmd;
	snprintf(a->path + n, sizeof(a->path) - n, "%s%s", n ? " " : "", cmd->name);
}

/* Finds the command; the words that named it become NULL in WORDS. */
static enum ota_code resolve(struct args *a, char **words, struct ota_err *err)
{
	for (int i = 0; a->cmd->subs && words[i]; i++) {
		const struct cmd *sub;

		if (strcmp(words[i], "--") == 0)
			break;
		if (words[i][0] == '-' && words[i][1]) {
			if (words[i][1] == '-' && !strchr(words[i], '=') && words[i + 1] &&
			    may_take_value(a->cmd, a->global_opts, words[i]))
				i++;
			continue;
		}
		sub = find_cmd(a->cmd->subs, words[i]);
		if (!sub && a->cmd->fallback)
			break;
		if (!sub)
			return unknown_cmd(a->cmd, words[i], err);
		enter(a, sub);
		for (int j = i; words[j]; j++)
			words[j] = words[j + 1];
		i--;
	}
	return OTA_OK;
}

static enum ota_code check_value(const struct opt *o, const char *value, struct ota_err *err)
{
	if (o->choices) {
		struct ota_err list = {0};
		size_t n = 0;

		for (const char *const *c = o->choices; *c; c++) {
			if (strcmp(*c, value) == 0)
				return OTA_OK;
			n += (size_t)snprintf(list.msg + n, sizeof(list.msg) - n, " %s", *c);
		}
		return ota_fail(err, OTA_EINVAL, "--%s is one of%s, not '%s'", o->name, list.msg,
				value);
	}
	if (o->max > o->min) {
		char *end;
		long long v;

		errno = 0;
		v = strtoll(value, &end, 10);
		if (end == value || *end || errno || v < o->min || v > o->max)
			return ota_fail(err, OTA_EINVAL,
					"--%s is a whole number from %lld to %lld, not '%s'",
					o->name, (long long)o->min, (long long)o->max, value);
	}
	return OTA_OK;
}

/* One option at words[*i]; moves *i over its value. */
static enum ota_code parse_opt(struct args *a, char **words, int *i, struct ota_err *err)
{
	const char *name = words[*i] + 2, *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const char **slot;
	const struct opt *o;
	int index = 0;

	if (strcmp(words[*i], "-h") == 0) {
		name = "help";
		len = 4;
	} else if (words[*i][1] != '-') {
		return ota_fail(err, OTA_EINVAL,
				"there is no option %s; options are written --name", words[*i]);
	}
	o = find_opt(a->cmd->opts, name, len, &index);
	slot = a->values;
	if (!o) {
		o = find_opt(a->global_opts, name, len, &index);
		slot = a->globals;
	}
	if (!o) {
		char typed[64];

		snprintf(typed, sizeof(typed), "%.*s", (int)(len < 60 ? len : 60), name);
		return unknown_opt(a, typed, err);
	}
	if (!o->arg) {
		if (eq)
			return ota_fail(err, OTA_EINVAL, "--%s takes no value", o->name);
		slot[index] = "";
		return OTA_OK;
	}
	if (slot[index])
		return ota_fail(err, OTA_EINVAL, "--%s is given twice", o->name);
	if (!eq && (!words[*i + 1] || strncmp(words[*i + 1], "--", 2) == 0))
		return ota_fail(err, OTA_EINVAL, "--%s needs a value: --%s %s", o->name, o->name,
				o->arg);
	slot[index] = eq ? eq + 1 : words[++*i];
	return check_value(o, slot[index], err);
}

static enum ota_code check_count(const struct args *a, struct ota_err *err)
{
	const struct cmd *c = a->cmd;

	if (a->npos < c->min_args)
		return ota_fail(err, OTA_EINVAL, "something is missing: %s %s %s", a->program,
				a->path, c->args);
	if (c->max_args >= 0 && a->npos > c->max_args)
		return ota_fail(err, OTA_EINVAL, "'%s' is one argument too many for '%s'",
				a->pos[c->max_args], a->path);
	return OTA_OK;
}

static bool asks_help(char **words)
{
	for (; *words && strcmp(*words, "--") != 0; words++)
		if (strcmp(*words, "--help") == 0 || strcmp(*words, "-h") == 0)
			return true;
	return false;
}

enum ota_code args_parse(const struct cmd *root, const struct opt *globals, int argc, char **argv,
			 struct args *a, struct ota_err *err)
{
	char **words = calloc((size_t)argc + 2, sizeof(*words));
	enum ota_code code;
	bool only_args = false, help;

	*a = (struct args){.cmd = root, .global_opts = globals, .program = root->name};
	a->pos = calloc((size_t)argc + 2, sizeof(*a->pos));
	if (!words || !a->pos) {
		free(words);
		return ota_fail_nomem(err);
	}
	for (int i = 1; i < argc; i++)
		words[i - 1] = argv[i];
	help = asks_help(words);
	code = resolve(a, words, err);
	if (code == OTA_OK && !help && a->cmd->subs && a->cmd->fallback)
		enter(a, find_cmd(a->cmd->subs, a->cmd->fallback));
	for (int i = 0; code == OTA_OK && words[i]; i++) {
		if (only_args || words[i][0] != '-' || !words[i][1])
			a->pos[a->npos++] = words[i];
		else if (strcmp(words[i], "--") == 0)
			only_args = true;
		else if (!help) /* --help forgives the rest of the line */
			code = parse_opt(a, words, &i, err);
	}
	if (help && code == OTA_OK) {
		int index = 0;

		find_opt(globals, "help", 4, &index);
		a->globals[index] = "";
	} else if (code == OTA_OK && !a->cmd->subs) {
		code = check_count(a, err);
	}
	free(words);
	return code;
}

void args_fini(struct args *a)
{
	free(a->pos);
	*a = (struct args){0};
}

const char *args_get(const struct args *a, const char *name)
{
	int index;

	if (find_opt(a->cmd->opts, name, strlen(name), &index))
		return a->values[index];
	if (find_opt(a->global_opts, name, strlen(name), &index))
		return a->globals[index];
	assert(false && "an option that is in no table");
	return NULL;
}

bool args_flag(const struct args *a, const char *name)
{
	return args_get(a, name) != NULL;
}

int64_t args_int(const struct args *a, const char *name, int64_t fallback)
{
	const char *value = args_get(a, name);

	return value ? strtoll(value, NULL, 10) : fallback;
}

static int opt_label(const struct opt *o, char *out, size_t size)
{
	return snprintf(out, size, "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

static void help_opts(const struct opt *opts, const char *title, FILE *out)
{
	char label[64];
	int width = 0;

	if (!opts || !opts->name)
		return;
	for (const struct opt *o = opts; o->name; o++) {
		int n = opt_label(o, label, sizeof(label));

		width = n > width ? n : width;
	}
	fprintf(out, "\n%s:\n", title);
	for (const struct opt *o = opts; o->name; o++) {
		opt_label(o, label, sizeof(label));
		fprintf(out, "  %-*s  %s\n", width, label, o->help);
	}
}

static void help_subs(const struct cmd *cmd, FILE *out)
{
	int width = 0;

	for (const struct cmd *s = cmd->subs; s->name; s++) {
		int n = (int)(strlen(s->name) + 1 + strlen(s->args ? s->args : ""));

		width = n > width && n < 30 ? n : width;
	}
	fprintf(out, "\nCommands:\n");
	for (const struct cmd *s = cmd->subs; s->name; s++) {
		char label[128];

		snprintf(label, sizeof(label), "%s %s", s->name, s->args ? s->args : "");
		fprintf(out, "  %-*s  %s\n", width, label, s->summary);
	}
}

void args_help(const struct args *a, FILE *out)
{
	const struct cmd *c = a->cmd;
	const char *space = a->path[0] ? " " : "";

	if (c->subs)
		fprintf(out, "Usage: %s %s%sCOMMAND [OPTION...]\n", a->program, a->path, space);
	else
		fprintf(out, "Usage: %s %s %s%s[OPTION...]\n", a->program, a->path,
			c->args ? c->args : "", c->args ? " " : "");
	fprintf(out, "\n%s\n", c->summary);
	if (c->about)
		fprintf(out, "\n%s\n", c->about);
	if (c->subs)
		help_subs(c, out);
	help_opts(c->opts, "Options", out);
	help_opts(a->global_opts, c->subs && !a->path[0] ? "Options everywhere" : "Everywhere",
		  out);
	if (c->subs)
		fprintf(out, "\n'%s %s%sCOMMAND --help' tells more.\n", a->program, a->path, space);
}
