/* SPDX-License-Identifier: MIT */
/*
 * The gate of a release for a model, over all its rollouts: how many devices may meet it before it
 * has proven itself, and when what became of them says that it is bad.  Pure: no clock, no I/O.
 *
 * An exposure is one device's first attempt at the release; its number is the attempt's id.  Each
 * belongs to a variant (hardware revision and previous version).  The release has a line of
 * exposures, and so has each variant (core/gate_line.h: order, evidence, bound); both must have a
 * place.  The release is halted at E / 2 >= halt_at, its v-th variant at (g(v-1) - g(v)) / 2 * E_v:
 * together a release at p0 is stopped wrongly at most once in halt_at times.
 *
 * For the single writer that commits in batches:
 *
 *     prepare    gate_reserve()       (gate_take() where no bound holds) may refuse (halted, full)
 * or want memory; counts at once, so that the next in the same batch can't take the last place
 *     committed  gate_open()          cannot fail
 *     not        gate_cancel()        as if never asked
 *     outcomes   gate_proven() ...    after the commit of their event; cannot fail
 *
 * After a restart gate_replay() takes the events in their order and ends in the same state.
 * Memory: the exposures without an outcome, those that wait behind them, and the variants.
 */
#pragma once

#include "base/err.h"
#include "core/gate_line.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Further variants share the last one, which is named by nothing. */
#define GATE_VARIANTS_MAX 200
/* A stage ends only while E is below this. */
#define GATE_CALM_E 5.0

enum gate_answer {
	GATE_FREE,         /* a place is there */
	GATE_FULL,         /* as many as may be are without an outcome */
	GATE_VARIANT_FULL, /* ... of this variant */
	GATE_CLOGGED,      /* too much waits behind an early one without an outcome */
	GATE_TURN,         /* others, of whose kind fewer have met it, go first: core/fair.h */
	GATE_HALTED,       /* the release is */
	GATE_VARIANT_HELD, /* this variant is halted, others go on */
};

struct gate_variant {
	char *hw, *from; /* "" unknown; owned */
	uint64_t key;    /* gate_variant_key() of both */
	int rank;        /* the so-manieth that was met; 0: reserved for, never exposed */
	struct gate_line line;
};

struct gate {
	struct gate_params params;
	struct gate_rules rules;
	struct gate_line line; /* the release */
	struct gate_variant *variants;
	int variant_count, variant_cap, ranked;
};

/* What gate_reserve() took. */
struct gate_place {
	int variant;
};

/* PARAMS must have passed gate_params_check(). */
void gate_init(struct gate *g, const struct gate_params *params);
void gate_fini(struct gate *g);
/* A stage of so many devices begins: it decides the most that the bound may reach. */
void gate_stage(struct gate *g, int64_t devices);

/* TO, which has met nobody, gives as many places as FROM.  False: out of memory. */
OTA_MUST_USE bool gate_copy_bounds(struct gate *to, const struct gate *from);

/* Whether a device of this variant may be exposed now.  NULL is "". */
enum gate_answer gate_ask(const struct gate *g, const char *hw, const char *from);
/* The same, of a variant that is there, by its place in the gate's array. */
enum gate_answer gate_ask_variant(const struct gate *g, int variant);
/* What a variant is called in short, and whether it could have a place of its own. */
uint64_t gate_variant_key(const char *hw, const char *from);
bool gate_variant_has_place(const struct gate *g, uint64_t key);
/* Asks, and takes the place when it is GATE_FREE.  OTA_OK, or OTA_ENOMEM with nothing taken. */
enum ota_code gate_reserve(struct gate *g, const char *hw, const char *from,
			   enum gate_answer *answer, struct gate_place *out) OTA_MUST_USE;
/* Takes a place without asking: for what is exposed all the same, where no bound holds. */
enum ota_code gate_take(struct gate *g, const char *hw, const char *from,
			struct gate_place *out) OTA_MUST_USE;
/* NUMBER: above those of all exposures before. */
void gate_open(struct gate *g, const struct gate_place *place, int64_t number);
void gate_cancel(struct gate *g, const struct gate_place *place);

/*
 * What became of an exposure.  One has one outcome, the first: these return false when nothing
 * changed (it is unknown or has its outcome), and then there is nothing to write down.
 */
bool gate_at_risk(struct gate *g, int64_t number); /* the device has the whole image */
bool gate_proven(struct gate *g, int64_t number);
bool gate_failed(struct gate *g, int64_t number);
bool gate_silent(struct gate *g, int64_t number); /* failed, by silence */
bool gate_give_back(struct gate *g, int64_t number);
/* Whether it is open, without an outcome. */
bool gate_is_unresolved(const struct gate *g, int64_t number);

/* A person overrides the suspicion: nothing exposed so far counts any more, all begins anew, by
 * PARAMS from now on (NULL: as before). */
void gate_override(struct gate *g, const struct gate_params *params);

enum gate_event_kind {
	GATE_EVENT_STAGE,   /* devices */
	GATE_EVENT_EXPOSED, /* number, hw, from */
	GATE_EVENT_AT_RISK, /* these: number */
	GATE_EVENT_PROVEN,
	GATE_EVENT_FAILED,
	GATE_EVENT_SILENT,
	GATE_EVENT_GIVEN_BACK,
	GATE_EVENT_OVERRIDDEN, /* params */
};

struct gate_event {
	enum gate_event_kind kind;
	int64_t number, devices;
	const char *hw, *from;
	const struct gate_params *params;
};

/* Applies what was committed once, without asking for a place.  OTA_ENOMEM, or OTA_EUNPROCESSABLE
 * for numbers that do not rise: the gate is as it was then. */
enum ota_code gate_replay(struct gate *g, const struct gate_event *e,
			  struct ota_err *err) OTA_MUST_USE;

/* What people see of the release, or of a variant of it. */
struct gate_view {
	const char *hw, *from; /* the gate's; "" for the release */
	double e;              /* E */
	double likelier;       /* what is held against halts_at: E times the share */
	double halts_at;
	bool halted;
	int64_t n, n_failed;            /* "n_failed of the first n": what E says it of */
	int64_t proven, failed, silent; /* all that are known; the silent are among the failed */
	int64_t unresolved, at_risk, held, bound;
};

struct gate_view gate_view(const struct gate *g);
/* By rank, 0 .. gate_variants() - 1. */
int gate_variants(const struct gate *g);
struct gate_view gate_view_variant(const struct gate *g, int i);
bool gate_is_halted(const struct gate *g);
/* Whether a stage may end as far as the evidence goes. */
bool gate_is_calm(const struct gate *g);

#define GATE_SENTENCE_SIZE 400
/* "2 of the first 2 failed: 490 times likelier if the release is bad; halted at 125".  The number
 * is v->likelier, rounded down to two digits. */
void gate_sentence(const struct gate_view *v, char out[GATE_SENTENCE_SIZE]);
/* Why no place was given: "2 devices are without an outcome, as many as may be". */
void gate_answer_sentence(const struct gate *g, enum gate_answer a, const char *hw,
			  const char *from, char out[GATE_SENTENCE_SIZE]);
