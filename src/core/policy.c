/* SPDX-License-Identifier: MIT */
#include "core/policy.h"

#include "core/version.h"

#include <stdio.h>
#include <string.h>

/* Names that a build system puts in, the same for every project: they tell nothing. */
static bool is_builder_name(const char *project)
{
	return strcmp(project, "arduino-lib-builder") == 0 || strcmp(project, "esp-idf") == 0;
}

int policy_warnings(const struct release_facts *f, const struct release *older,
		    char out[POLICY_WARNINGS_MAX][POLICY_SENTENCE_SIZE])
{
	int n = 0;
	const struct release *with_project = NULL, *highest = NULL;

	for (const struct release *r = older; r; r = r->next) {
		if (r->deleted)
			continue;
		if (!with_project && r->project[0] && !is_builder_name(r->project))
			with_project = r;
		if (!highest || r->secure_version > highest->secure_version)
			highest = r;
	}
	if (f->inner_version[0] && !is_builder_name(f->project) &&
	    !version_equal(f->version, f->inner_version))
		snprintf(out[n++], POLICY_SENTENCE_SIZE,
			 "the image calls itself '%s', the release is declared as '%s'",
			 f->inner_version, f->version);
	if (with_project && f->project[0] && !is_builder_name(f->project) &&
	    strcmp(with_project->project, f->project) != 0)
		snprintf(out[n++], POLICY_SENTENCE_SIZE,
			 "the image is of project '%s', release %s of this model was of '%s'",
			 f->project, with_project->version, with_project->project);
	if (f->has_secure_version && highest && f->secure_version < highest->secure_version)
		snprintf(out[n++], POLICY_SENTENCE_SIZE,
			 "its secure_version %u is lower than the %u of release %s: devices with "
			 "anti-rollback will refuse it",
			 f->secure_version, highest->secure_version, highest->version);
	return n;
}
