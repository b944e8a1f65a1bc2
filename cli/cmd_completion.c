/* SPDX-License-Identifier: MIT */
/* completion: a bash function made from the command tables. */
#include "cli/cli.h"

#include <stdio.h>

static void words_of(const struct cmd *cmd)
{
	for (const struct cmd *s = cmd->subs; s && s->name; s++)
		printf("%s ", s->name);
	for (const struct opt *o = cmd->opts; o && o->name; o++)
		printf("--%s ", o->name);
	for (const struct opt *o = cli_global_opts; o->name; o++)
		printf("--%s ", o->name);
}

/* One `case` branch for each command: "devices show" and what may follow it. */
static void branch(const char *path, const struct cmd *cmd)
{
	printf("\t'%s') words='", path);
	words_of(cmd);
	/* What the command does when no sub-command is named, takes its options too. */
	for (const struct cmd *s = cmd->subs; cmd->fallback && s->name; s++)
		for (const struct opt *o = s == cmd->subs ? s->opts : NULL; o && o->name; o++)
			printf("--%s ", o->name);
	printf("'%s ;;\n", cmd->takes_file ? " files=1" : "");
}

static void value_branches(const struct opt *opts)
{
	for (const struct opt *o = opts; o && o->name; o++) {
		if (!o->arg)
			continue;
		printf("\t'--%s') ", o->name);
		if (o->is_file) {
			printf("_paku_ota_files");
		} else if (o->choices) {
			printf("mapfile -t COMPREPLY < <(compgen -W '");
			for (const char *const *c = o->choices; *c; c++)
				printf("%s ", *c);
			printf("' -- \"$cur\")");
		} else {
			printf(":");
		}
		printf("; return ;;\n");
	}
}

static enum ota_code completion_bash(struct cli *c, const struct args *a, struct ota_err *err)
{
	char path[64];

	(void)c;
	(void)a;
	(void)err;
	printf("# bash completion for paku-ota; put it into ~/.bashrc:\n"
	       "#     source <(paku-ota completion bash)\n"
	       /* Names of files alone are treated as such: a command stays one where a
		* folder is called the same. */
	       "_paku_ota_files()\n{\n"
	       "\tcompopt -o filenames 2>/dev/null\n"
	       "\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n}\n"
	       "_paku_ota()\n{\n"
	       "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path= "
	       "words= "
	       "files= i\n"
	       "\tCOMPREPLY=()\n"
	       "\tcase $prev in\n");
	value_branches(cli_global_opts);
	for (const struct cmd *s = cli_root.subs; s->name; s++) {
		value_branches(s->opts);
		for (const struct cmd *t = s->subs; t && t->name; t++)
			value_branches(t->opts);
	}
	printf("\tesac\n"
	       "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	       "\t\tcase \"$path ${COMP_WORDS[i]}\" in\n");
	for (const struct cmd *s = cli_root.subs; s->name; s++) {
		printf("\t\t' %s') path=' %s' ;;\n", s->name, s->name);
		for (const struct cmd *t = s->subs; t && t->name; t++)
			printf("\t\t' %s %s') path=' %s %s' ;;\n", s->name, t->name, s->name,
			       t->name);
	}
	printf("\t\tesac\n\tdone\n\tcase $path in\n");
	branch("", &cli_root);
	for (const struct cmd *s = cli_root.subs; s->name; s++) {
		snprintf(path, sizeof(path), " %s", s->name);
		branch(path, s);
		for (const struct cmd *t = s->subs; t && t->name; t++) {
			snprintf(path, sizeof(path), " %s %s", s->name, t->name);
			branch(path, t);
		}
	}
	printf("\tesac\n"
	       "\tif [[ $files && $cur != -* ]]; then\n"
	       "\t\t_paku_ota_files\n"
	       "\telse\n"
	       "\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	       "\tfi\n}\n"
	       "complete -o bashdefault -F _paku_ota paku-ota\n");
	return OTA_OK;
}

const struct cmd cmd_completion_subs[] = {
	{"bash", NULL, "for bash", "  source <(paku-ota completion bash)", .run = completion_bash,
	 .is_local = true},
	{0},
};
