/* SPDX-License-Identifier: MIT */
/* Commands in a row, by their own `next`. */
#pragma once

#include "commit/command.h"

struct command_list {
	struct command *first, **end;
	size_t count;
};

static inline void list_init(struct command_list *l)
{
	l->first = NULL;
	l->end = &l->first;
	l->count = 0;
}

static inline void list_push(struct command_list *l, struct command *cmd)
{
	cmd->next = NULL;
	*l->end = cmd;
	l->end = &cmd->next;
	l->count++;
}

static inline struct command *list_pop(struct command_list *l)
{
	struct command *cmd = l->first;

	if (cmd) {
		l->first = cmd->next;
		if (!l->first)
			l->end = &l->first;
		l->count--;
	}
	return cmd;
}
