/* SPDX-License-Identifier: MIT */
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define STEPS_MAX 20000

static uint32_t next_random(uint32_t *x)
{
	*x = *x * 1664525u + 1013904223u;
	return *x >> 8;
}

/* --------------------------------------------------------------------------------- the power */

/* How much of a write or erase of `len` happens, now that its turn has come. */
static uint32_t power(struct sim *s, uint32_t len)
{
	if (s->dead)
		return 0;
	if (++s->ops != s->cut_at)
		return len;
	s->dead = true;
	s->power_cuts++;
	s->cut_at = s->cut_every ? s->ops + 1 + next_random(&s->random) % s->cut_every : 0;
	return s->torn == SIM_BEFORE ? 0 : s->torn == SIM_HALF ? len / 2 : len;
}

/* --------------------------------------------------------------------------------- the flash */

static int flash_read(void *ctx, int slot, uint32_t offset, void *buf, uint32_t len)
{
	struct sim *s = ctx;

	assert_true(offset <= SIM_SLOT && len <= SIM_SLOT - offset);
	if (s->dead)
		return -1;
	memcpy(buf, s->flash[slot] + offset, len);
	return 0;
}

static int flash_erase(void *ctx, int slot, uint32_t offset, uint32_t len)
{
	struct sim *s = ctx;

	assert_true(offset % SIM_BLOCK == 0 && len == SIM_BLOCK && offset + len <= SIM_SLOT);
	assert_int_not_equal(slot, s->agent.running);
	if (s->bad_block)
		return s->dead ? -1 : 0;
	memset(s->flash[slot] + offset, 0xFF, power(s, len));
	return s->dead ? -1 : 0;
}

/* NOR: a write can only clear bits. */
static int flash_write(void *ctx, int slot, uint32_t offset, const void *buf, uint32_t len)
{
	struct sim *s = ctx;

	assert_true(offset % SIM_BLOCK == 0 && len == SIM_BLOCK && offset + len <= SIM_SLOT);
	assert_int_not_equal(slot, s->agent.running);
	len = power(s, len);
	for (uint32_t i = 0; i < len; i++)
		s->flash[slot][offset + i] &= ((const uint8_t *)buf)[i];
	return s->dead ? -1 : 0;
}

static int record_read(void *ctx, int copy, uint32_t offset, void *buf, uint32_t len)
{
	struct sim *s = ctx;

	if (s->dead)
		return -1;
	memcpy(buf, s->record[copy] + offset, len);
	return 0;
}

/* Erase and write are two moments for the power to fail. */
static int record_write(void *ctx, int copy, const void *buf, uint32_t len)
{
	struct sim *s = ctx;

	if (s->record_fails) {
		s->record_fails--;
		return -1;
	}
	memset(s->record[copy], 0xFF, power(s, sizeof s->record[copy]));
	if (!s->dead)
		memcpy(s->record[copy], buf, power(s, len));
	return s->dead ? -1 : 0;
}

/* ------------------------------------------------------------------------------- the service */

static enum paku_outcome net_check(void *ctx, const char *version, struct paku_offer *offer,
				   uint32_t *retry_after_s)
{
	struct sim *s = ctx;

	*retry_after_s = s->retry_after_s;
	if (s->dead || s->down)
		return PAKU_AGAIN;
	s->checks++;
	if (s->max_attempts && s->attempt >= s->max_attempts)
		return PAKU_OK;
	if (!s->offered || strcmp(version, s->offered->version) == 0)
		return PAKU_OK;
	offer->available = true;
	snprintf(offer->version, sizeof offer->version, "%s", s->offered->version);
	snprintf(offer->url, sizeof offer->url, "http://sim/%s?device_model=m&attempt=try%u",
		 s->offered->version, (unsigned)s->attempt);
	offer->size = s->size_untold ? PAKU_SIZE_UNKNOWN : s->offered->size;
	memcpy(offer->sha256, s->offered->sha256, PAKU_SHA256_SIZE);
	return PAKU_OK;
}

static enum paku_outcome net_report(void *ctx, const struct paku_report *r)
{
	struct sim *s = ctx;
	struct sim_report *kept = &s->reports[s->report_count];

	if (r->status == PAKU_DOWNLOADING) {
		uint32_t told = (uint32_t)((uint64_t)s->served->size * r->percent / 100);
		if (!s->swap_to && memcmp(s->flash[s->agent.running ^ 1], s->served->data, told))
			s->lied = true;
	}
	if (s->dead || s->down || s->reports_down)
		return PAKU_AGAIN;
	assert_true(s->report_count < SIM_REPORTS);
	s->report_count++;
	kept->status = r->status;
	kept->why = r->why;
	kept->percent = r->percent;
	snprintf(kept->version, sizeof kept->version, "%s", r->version);
	snprintf(kept->attempt, sizeof kept->attempt, "%s", r->attempt);
	if (r->status == PAKU_FAILED || r->status == PAKU_ROLLED_BACK)
		s->attempt++;
	return PAKU_OK;
}

static int net_open(void *ctx, const char *url, uint32_t from, const char *if_range,
		    struct paku_head *head)
{
	struct sim *s = ctx;
	const char *etag = s->no_etag ? "" : s->served->etag;
	char other[PAKU_ETAG_SIZE];

	assert_non_null(strstr(url, "attempt=try"));
	if (s->dead || s->down)
		return -1;
	s->opens++;
	if (s->new_etag) {
		snprintf(other, sizeof other, "\"tag-%u\"", (unsigned)s->opens);
		etag = other;
	}
	head->retry_after_s = s->retry_after_s;
	if (s->http_status && s->http_times) {
		s->http_times--;
		head->status = s->http_status;
		return 0;
	}
	s->ranged += from != 0;
	if (from)
		assert_true(if_range[0] == '"');
	if (s->no_range || (from && strcmp(if_range, etag) != 0))
		from = 0;
	head->status = from ? 206 : 200;
	head->from = from + (from && s->wrong_from);
	head->size = from ? s->served->size : 0;
	head->length = s->served->size - from;
	snprintf(head->etag, sizeof head->etag, "%s", etag);
	s->body_at = from;
	s->body_end = s->served->size;
	return 0;
}

static int32_t net_read(void *ctx, void *buf, uint32_t len)
{
	struct sim *s = ctx;
	uint32_t n = 1 + next_random(&s->random) % len;

	if (s->dead)
		return -1;
	if (n > s->body_end - s->body_at)
		n = s->body_end - s->body_at;
	if (s->net_cut_at != SIM_NEVER) {
		if (s->sent >= s->net_cut_at) {
			s->net_cut_at = s->net_cut_step ? s->sent + s->net_cut_step : SIM_NEVER;
			if (s->swap_to)
				s->offered = s->served = s->swap_to;
			return s->random & 1 ? -1 : 0;
		}
		if (n > s->net_cut_at - s->sent)
			n = s->net_cut_at - s->sent;
	}
	memcpy(buf, s->served->data + s->body_at, n);
	s->body_at += n;
	s->sent += n;
	return (int32_t)n;
}

static void net_close(void *ctx)
{
	(void)ctx;
}

/* ---------------------------------------------------------------------------- the rest of it */

static uint32_t sys_now(void *ctx)
{
	return ((struct sim *)ctx)->now_ms;
}

static uint32_t sys_random(void *ctx)
{
	return next_random(&((struct sim *)ctx)->random);
}

static void sys_sha_init(void *ctx)
{
	struct sim *s = ctx;

	sha256_free(&s->sha);
	s->sha = sha256_new();
	assert_non_null(s->sha);
}

static void sys_sha_update(void *ctx, const void *data, uint32_t len)
{
	assert_true(sha256_update(((struct sim *)ctx)->sha, data, len));
}

static void sys_sha_final(void *ctx, uint8_t out[PAKU_SHA256_SIZE])
{
	assert_true(sha256_final(((struct sim *)ctx)->sha, out));
}

static enum paku_test sys_selftest(void *ctx)
{
	return ((struct sim *)ctx)->selftest;
}

/* The vendor's record is written whole or not at all; the power can fail on either side. */
static int vendor_write(struct sim *s, int slot, enum sim_vendor state)
{
	uint32_t done = power(s, 2);

	if (done == 2 || (s->dead && s->torn == SIM_AFTER)) {
		if (slot != s->vendor_slot)
			s->vendor_other = s->vendor_slot;
		s->vendor_slot = slot;
		s->vendor_state = state;
	}
	return s->dead ? -1 : 0;
}

static int sys_boot_set(void *ctx, int slot)
{
	return vendor_write(ctx, slot, VENDOR_NEW);
}

static int sys_boot_confirm(void *ctx)
{
	struct sim *s = ctx;

	return vendor_write(s, s->vendor_slot, VENDOR_VALID);
}

static void sys_event(void *ctx, enum paku_event event, uint32_t value)
{
	struct sim *s = ctx;

	(void)value;
	s->events[event]++;
	assert_non_null(paku_phase_name(&s->agent));
}

/* Boots an image in the state NEW once; if nobody confirmed it, the next boot is the other one's.
 */
static int vendor_choose(struct sim *s)
{
	if (s->vendor_state == VENDOR_PENDING) {
		s->vendor_state = VENDOR_VALID;
		s->vendor_slot = s->vendor_other;
	} else if (s->vendor_state == VENDOR_NEW) {
		s->vendor_state = VENDOR_PENDING;
	}
	return s->vendor_slot;
}

/* ------------------------------------------------------------------------------------ for the
 * tests */

void sim_image(struct sim_image *img, const char *version, uint32_t size, uint32_t seed)
{
	assert_true(size <= sizeof img->data);
	memset(img, 0, sizeof *img);
	img->size = size;
	for (uint32_t i = 0; i < size; i++)
		img->data[i] = (uint8_t)next_random(&seed);
	snprintf(img->version, sizeof img->version, "%s", version);
	snprintf(img->etag, sizeof img->etag, "\"tag-%08x\"", (unsigned)seed);
	assert_true(sha256_once(img->data, size, img->sha256));
}

void sim_init(struct sim *s, struct sim_image *old, struct sim_image *new)
{
	memset(s, 0, sizeof *s);
	s->cfg = (struct paku_config)PAKU_CONFIG_DEFAULT(SIM_SLOT);
	s->cfg.block_size = SIM_BLOCK;
	s->cfg.save_blocks = 4;
	s->io = (struct paku_io){
		.ctx = s,
		.flash = {flash_read, flash_erase, flash_write, record_read, record_write},
		.net = {net_check, net_report, net_open, net_read, net_close},
		.sys = {.now_ms = sys_now,
			.random = sys_random,
			.sha256_init = sys_sha_init,
			.sha256_update = sys_sha_update,
			.sha256_final = sys_sha_final,
			.selftest = sys_selftest,
			.event = sys_event},
	};
	memset(s->flash, 0xFF, sizeof s->flash);
	memset(s->record, 0xFF, sizeof s->record);
	memcpy(s->flash[0], old->data, old->size);
	s->known[0] = old;
	s->known[1] = s->offered = s->served = new;
	s->net_cut_at = SIM_NEVER;
	s->random = 7;
	s->vendor_other = 1;
}

void sim_fini(struct sim *s)
{
	sha256_free(&s->sha);
}

static struct sim_image *image_in(struct sim *s, int slot)
{
	for (int i = 0; i < 4; i++) {
		struct sim_image *img = s->known[i];
		if (img && img->size <= SIM_SLOT && !memcmp(s->flash[slot], img->data, img->size))
			return img;
	}
	fail_msg("boot %u: slot %d holds no whole image", (unsigned)s->boots, slot);
	return NULL;
}

struct sim_image *sim_running(struct sim *s)
{
	return image_in(s, s->agent.running);
}

/* From power on to the next restart, power cut, or rest (true). */
static bool run_boot(struct sim *s)
{
	uint32_t wait_ms;
	int slot;

	if (s->vendor) {
		s->io.sys.boot_set = sys_boot_set;
		s->io.sys.boot_confirm = sys_boot_confirm;
		slot = vendor_choose(s);
	} else {
		slot = paku_boot_choose(&s->io, s->cfg.max_boots);
		if (s->dead)
			return false;
	}
	s->boots++;
	struct sim_image *img = image_in(s, slot);
	if (img == s->hangs)
		return false;
	memset(&s->agent, 0xA5, sizeof s->agent);
	s->agent.running = (uint8_t)slot;
	s->agent.phase = 0;
	assert_true(paku_init(&s->agent, &s->io, &s->cfg, s->block, slot, s->known[0]->version));
	assert_string_equal(paku_version(&s->agent), img->version);
	for (int i = 0; i < STEPS_MAX; i++) {
		if (s->dead)
			return false;
		enum paku_next next = paku_step(&s->agent, &wait_ms);
		if (s->dead)
			return false;
		if (next == PAKU_RESTART) {
			s->restarts++;
			return false;
		}
		if (next == PAKU_WAIT) {
			if (paku_idle(&s->agent))
				return true;
			assert_true(wait_ms > 0);
			s->now_ms += wait_ms;
		}
	}
	fail_msg("the agent does not come to rest: %s", paku_phase_name(&s->agent));
	return false;
}

bool sim_run(struct sim *s, uint32_t max_boots)
{
	for (uint32_t i = 0; i < max_boots; i++) {
		s->dead = false;
		if (run_boot(s)) {
			if (!s->offered || sim_running(s) == s->offered ||
			    (s->max_attempts && s->attempt >= s->max_attempts))
				return true;
			s->now_ms += s->cfg.poll_s * 1000; /* the next check, in a fresh boot */
		}
	}
	return false;
}

uint32_t sim_reported(const struct sim *s, enum paku_status status)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->report_count; i++)
		n += s->reports[i].status == status;
	return n;
}
