/* SPDX-License-Identifier: MIT */
/*
 * From the offer to an image in the spare slot that verifies.
 *
 * Flash first, then the record, then the report: what the record says is in flash is in flash, and
 * what is reported is too.  After a restart the noted bytes are read back and their CRC compared;
 * what was written past the note is fetched again.  A download continues only under the ETag it
 * began with, so two images are never mixed; and whatever happened on the way, only the SHA-256 of
 * what the flash reads back lets the image through.
 */
#include "agent.h"

#include <string.h>

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

void paku_attempt_of(const char *url, char attempt[PAKU_ATTEMPT_SIZE])
{
	static const char name[] = "attempt=";
	const char *at = strchr(url, '?');
	size_t len = 0;

	memset(attempt, 0, PAKU_ATTEMPT_SIZE);
	while (at && strncmp(at + 1, name, sizeof name - 1))
		at = strchr(at + 1, '&');
	if (!at)
		return;
	at += sizeof name;
	while (at[len] && at[len] != '&' && at[len] != '#')
		len++;
	if (len < PAKU_ATTEMPT_SIZE)
		memcpy(attempt, at, len);
}

/* The bytes in the slot are of no use (any more): begin with the first one. */
static void start_over(struct paku *p)
{
	struct paku_slot *slot = paku_spare(p);

	if (slot->written)
		paku_event(p, PAKU_EV_RESTARTED, slot->written);
	slot->written = 0;
	slot->crc = 0;
	memset(p->rec.etag, 0, sizeof p->rec.etag);
	p->pos = 0;
}

uint8_t paku_begin(struct paku *p, const struct paku_offer *offer)
{
	struct paku_slot *slot = paku_spare(p);
	bool unknown = offer->size == PAKU_SIZE_UNKNOWN;
	bool same = (slot->size == offer->size || unknown) &&
		    memcmp(slot->sha256, offer->sha256, PAKU_SHA256_SIZE) == 0;

	if (!same) {
		start_over(p);
		p->most = 0;
		p->changes = 0;
	}
	/* Of bytes that are here the size is known: it was learnt before the first one came. */
	if (!unknown || !slot->written)
		slot->size = offer->size;
	memcpy(slot->sha256, offer->sha256, PAKU_SHA256_SIZE);
	memcpy(slot->version, offer->version, PAKU_VERSION_SIZE);
	slot->state = PAKU_SLOT_FILLING;
	memcpy(p->url, offer->url, PAKU_URL_SIZE);
	paku_attempt_of(p->url, p->rec.attempt);
	p->rec.subject = p->running ^ 1;
	p->rec.due = 0;
	p->rec.why = PAKU_WHY_NONE;
	p->told_percent = PAKU_NO_PERCENT;
	paku_event(p, PAKU_EV_BEGIN, offer->size);
	if (!unknown && offer->size > p->cfg->slot_size)
		return paku_fail(p, PAKU_WHY_SPACE);
	if (!offer->size)
		return paku_fail(p, PAKU_WHY_SIZE);
	/* Before the first erase: from now on nobody may think that the slot holds what it held. */
	if (paku_save(p))
		return paku_fail(p, PAKU_WHY_RECORD);
	p->pos = 0;
	p->crc = 0;
	return PHASE_RECHECK;
}

/* Progress is what is in flash, told in steps. */
static void progress(struct paku *p)
{
	struct paku_slot *slot = paku_spare(p);
	uint8_t percent = (uint8_t)((uint64_t)slot->written * 100 / slot->size);

	paku_event(p, PAKU_EV_PROGRESS, slot->written);
	p->rec.percent = percent;
	if (p->told_percent == PAKU_NO_PERCENT ||
	    percent >= p->told_percent + p->cfg->report_percent ||
	    (percent == 100 && p->told_percent != 100)) {
		p->told_percent = percent;
		paku_due(p, PAKU_DOWNLOADING);
	}
}

uint8_t phase_recheck(struct paku *p)
{
	struct paku_slot *slot = paku_spare(p);
	uint32_t len = least(slot->written - p->pos, p->cfg->block_size);

	if (len) {
		if (p->io->flash.read(p->io->ctx, p->running ^ 1, p->pos, p->block, len)) {
			start_over(p);
		} else {
			p->crc = paku_crc32(p->crc, p->block, len);
			p->pos += len;
			if (p->pos < slot->written)
				return PHASE_RECHECK;
		}
	}
	if (p->crc != slot->crc)
		start_over(p);
	else if (slot->written)
		paku_event(p, PAKU_EV_RESUME, slot->written);
	if (slot->written > p->most)
		p->most = slot->written;
	progress(p);
	p->pos = 0;
	return slot->written == slot->size ? PHASE_VERIFY : PHASE_OPEN;
}

/* ---------------------------------------------------------------------------------- the line */

static void hang_up(struct paku *p)
{
	if (p->connected)
		p->io->net.close(p->io->ctx);
	p->connected = false;
}

static uint8_t try_later(struct paku *p, uint32_t least_s)
{
	hang_up(p);
	if (p->tries >= p->cfg->max_tries)
		return paku_fail(p, PAKU_WHY_LINE);
	paku_backoff(p, least_s);
	return PHASE_OPEN;
}

/* Behind the URL is another image than the one offered, or than the half that is here: ask again.
 */
static uint8_t changed(struct paku *p)
{
	hang_up(p);
	paku_event(p, PAKU_EV_CHANGED, paku_spare(p)->written);
	start_over(p);
	/* A count of its own: the check that follows ends the tries. */
	if (p->changes >= p->cfg->max_tries)
		return paku_fail(p, PAKU_WHY_LINE);
	p->changes++;
	paku_backoff(p, 0);
	return PHASE_CHECK;
}

static uint8_t refused(struct paku *p, const struct paku_head *head)
{
	struct paku_slot *slot = paku_spare(p);

	paku_event(p, PAKU_EV_HTTP, (uint32_t)head->status);
	if (head->status >= 500 || head->status == 429 || head->status == 408)
		return try_later(p, head->retry_after_s);
	if (head->status == 416 && slot->written + p->pos)
		return changed(p);
	hang_up(p);
	if (head->status != 410)
		return paku_fail(p, PAKU_WHY_ABSENT);
	/* Taken back is nobody's failure.  The next check says what to do instead. */
	paku_event(p, PAKU_EV_WITHDRAWN, 0);
	p->rec.due = 0;
	p->tries = 0;
	paku_pause_poll(p);
	return PHASE_CHECK;
}

static bool etag_strong(const char *etag)
{
	return etag[0] == '"';
}

uint8_t phase_open(struct paku *p)
{
	struct paku_slot *slot = paku_spare(p);
	struct paku_head head;
	uint32_t from, size;

	/* Without a strong ETag nobody can say that the rest belongs to what is here (RFC
	 * 9110 13.1.5). */
	if (!etag_strong(p->rec.etag))
		start_over(p);
	from = slot->written + p->pos;
	memset(&head, 0, sizeof head);
	if (p->io->net.open(p->io->ctx, p->url, from, p->rec.etag, &head)) {
		paku_event(p, PAKU_EV_CUT, slot->written);
		return try_later(p, 0);
	}
	p->connected = true;
	if (head.status != 200 && head.status != 206)
		return refused(p, &head);
	if (etag_strong(p->rec.etag) && strcmp(p->rec.etag, head.etag) != 0)
		return changed(p);
	size = head.status == 200 ? head.length : head.size;
	if (slot->size == PAKU_SIZE_UNKNOWN)
		slot->size = size;
	if (!size || size != slot->size || size > p->cfg->slot_size) {
		hang_up(p);
		return paku_fail(p, size > p->cfg->slot_size ? PAKU_WHY_SPACE : PAKU_WHY_SIZE);
	}
	if (head.status == 200)
		start_over(p);
	else if (!from || head.from != from)
		return changed(p);
	if (etag_strong(head.etag))
		memcpy(p->rec.etag, head.etag, sizeof p->rec.etag);
	return PHASE_FETCH;
}

/* ------------------------------------------------------------------------------------- flash */

/* What the flash reads back is what was written; read in small pieces, the buffer is taken. */
static int block_compare(struct paku *p, uint32_t offset, uint32_t len)
{
	uint8_t piece[64];
	uint32_t i, n;

	for (i = 0; i < len; i += n) {
		n = least(len - i, sizeof piece);
		if (p->io->flash.read(p->io->ctx, p->running ^ 1, offset + i, piece, n) ||
		    memcmp(piece, p->block + i, n))
			return -1;
	}
	return 0;
}

/* Erase, write, read back; once more if that failed, for flash is allowed a bad moment. */
static int block_write(struct paku *p, uint32_t offset, uint32_t len)
{
	const struct paku_flash_ops *flash = &p->io->flash;
	uint32_t whole = p->cfg->block_size;
	int slot = p->running ^ 1, tries = 2;

	memset(p->block + len, 0xFF, whole - len); /* as erased */
	while (tries--) {
		if (flash->erase(p->io->ctx, slot, offset, whole) == 0 &&
		    flash->write(p->io->ctx, slot, offset, p->block, whole) == 0 &&
		    block_compare(p, offset, len) == 0)
			return 0;
	}
	return -1;
}

uint8_t phase_fetch(struct paku *p)
{
	struct paku_slot *slot = paku_spare(p);
	uint32_t want = least(p->cfg->block_size, slot->size - slot->written);
	int32_t got = p->io->net.read(p->io->ctx, p->block + p->pos, want - p->pos);

	if (got <= 0 || (uint32_t)got > want - p->pos) {
		paku_event(p, PAKU_EV_CUT, slot->written);
		return try_later(p, 0);
	}
	p->pos += (uint32_t)got;
	if (p->pos < want)
		return PHASE_FETCH;
	if (block_write(p, slot->written, want)) {
		hang_up(p);
		return paku_fail(p, PAKU_WHY_FLASH);
	}
	slot->crc = paku_crc32(slot->crc, p->block, want);
	slot->written += want;
	p->pos = 0;
	/* What is loaded once more, where Range does not work, leads nowhere if it goes on so. */
	if (slot->written > p->most) {
		p->most = slot->written;
		p->tries = 0;
		p->changes = 0;
	}
	progress(p);
	/* A note that cannot be written costs a longer way after a power cut, no more. */
	if (++p->unsaved >= p->cfg->save_blocks || slot->written == slot->size)
		(void)paku_save(p);
	if (slot->written < slot->size)
		return PHASE_FETCH;
	hang_up(p);
	return PHASE_VERIFY;
}

uint8_t phase_verify(struct paku *p)
{
	struct paku_slot *slot = paku_spare(p);
	uint32_t len = least(slot->size - p->pos, p->cfg->block_size);
	uint8_t digest[PAKU_SHA256_SIZE];

	if (!p->pos)
		p->io->sys.sha256_init(p->io->ctx);
	if (p->io->flash.read(p->io->ctx, p->running ^ 1, p->pos, p->block, len))
		return paku_fail(p, PAKU_WHY_FLASH);
	p->io->sys.sha256_update(p->io->ctx, p->block, len);
	p->pos += len;
	if (p->pos < slot->size)
		return PHASE_VERIFY;
	p->pos = 0;
	p->io->sys.sha256_final(p->io->ctx, digest);
	if (memcmp(digest, slot->sha256, sizeof digest)) {
		start_over(p);
		slot->state = PAKU_SLOT_BAD;
		return paku_fail(p, PAKU_WHY_HASH);
	}
	slot->state = PAKU_SLOT_WHOLE;
	paku_event(p, PAKU_EV_VERIFIED, slot->size);
	/* Both are sent before the next phase runs, for it ends in a restart. */
	paku_due(p, PAKU_DOWNLOADED);
	paku_due(p, PAKU_INSTALLING);
	return PHASE_ARM;
}
