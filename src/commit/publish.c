/* SPDX-License-Identifier: MIT */
/* What is durable, shown: to the log, to the fleet, to the gates. */
#include "commit/gates.h"
#include "commit/progress.h"
#include "commit/tally.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* The log gets what is durable too: what ends something at info, what goes on at debug. */
void publish_log(const struct batch *b, const struct command *cmd)
{
	char subject[160];

	for (size_t i = 0; i < cmd->change_count; i++) {
		const struct change *ch = &b->store.changes[cmd->first_change + i];
		if (ch->kind != CHANGE_EVENT)
			continue;
		bool goes_on = strcmp(ch->event.type, "update_progressed") == 0 ||
			       strcmp(ch->event.type, "update_offered") == 0 ||
			       strcmp(ch->event.type, "update_accepted") == 0 ||
			       strcmp(ch->event.type, "update_started") == 0 ||
			       strcmp(ch->event.type, "device_exposed") == 0 ||
			       strcmp(ch->event.type, "device_at_risk") == 0;
		enum log_level level = goes_on ? LOG_DEBUG : LOG_INFO;
		if (!log_enabled(level))
			continue;
		if (ch->event.device_id)
			snprintf(subject, sizeof subject, "device/%s", ch->event.device_id);
		else if (ch->event.rollout_id)
			snprintf(subject, sizeof subject, "rollout/%lld",
				 (long long)ch->event.rollout_id);
		else if (ch->event.version)
			snprintf(subject, sizeof subject, "release/%s", ch->event.version);
		else
			strcpy(subject, "fleet");
		log_event(level, subject, ch->event.type, "%s %s",
			  ch->event.version ? ch->event.version : "-",
			  ch->event.data ? ch->event.data : "");
	}
}

static void publish_plan(struct committer *c, struct plan_work *p)
{
	if (p->new_release) {
		tallies_drop_model(c, p->model->name); /* which names are taken */
		fleet_publish_release(c->fleet, p->model, p->new_release);
	}
	if (p->new_rollout)
		fleet_publish_rollout(c->fleet, p->model, p->new_rollout);
	if (p->rollout) {
		tallies_drop_rollout(c, p->rollout);
		fleet_set_walk(c->fleet, p->rollout, &p->walk);
	}
	if (p->release && p->suspects)
		fleet_set_suspect(c->fleet, p->release, p->suspect_us);
	else if (p->release)
		fleet_set_deleted(c->fleet, p->release, p->deleted);
	if (p->pruned) {
		tallies_drop_model(c, p->pruned->model);
		fleet_set_pruned(c->fleet, p->pruned, c->batch.now_us);
		gates_give_up(&c->gates, p->pruned);
	}
	if (p->group_window)
		fleet_set_group_window(c->fleet, p->group_window);
	if (p->stops)
		fleet_set_stop(c->fleet, p->stop_reason, c->batch.now_us);
}

/* The fleet gets what is durable.  Cannot fail. */
void publish(struct committer *c, struct command *cmd)
{
	gates_publish(c, cmd);
	for (struct device_work *w = cmd->devices; w; w = w->link) {
		if (w->removed) {
			tallies_leave(c, w->device);
			gates_forget(c, w->device);
			state_fini(&w->next);
			fleet_remove(c->fleet, w->device);
			tallies_look(c);
			continue;
		}
		bool mind = tallies_mind(c, w->device, &w->next);
		struct moved moved = progress_moved(c->fleet, w->device, &w->next);
		gates_see(c, w->device, &w->next);
		if (mind)
			tallies_leave(c, w->device);
		fleet_publish(c->fleet, w->device, &w->next);
		if (mind)
			tallies_enter(c, w->device);
		progress_note(&moved, c->batch.now_us);
		if (!w->learns)
			continue;
		tallies_drop_model(c, w->learns->model);
		fleet_set_learnt(c->fleet, w->learns, w->learnt);
	}
	for (struct plan_work *p = cmd->plan; p; p = p->next)
		publish_plan(c, p);
	cmd->devices = NULL;
	cmd->plan = NULL;
}
