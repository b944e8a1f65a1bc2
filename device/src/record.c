/* SPDX-License-Identifier: MIT */
/*
 * The boot record: two copies in two erase units, each with a sequence number and a CRC.
 *
 * Why it survives a power cut: a save only ever touches the copy that is not current.  Torn, it
 * has a wrong CRC, and the current one still counts; whole, it has the higher number.  A save that
 * failed is repeated on the same copy, for nobody knows what is in it.
 */
#include "agent.h"

#include <string.h>

#define PIECE 36 /* bytes in which a record is read back; they make it up exactly */

/* No padding, and the same on every device: see struct paku_record. */
typedef char slot_is_packed[sizeof(struct paku_slot) == 176 ? 1 : -1];
typedef char record_is_packed[sizeof(struct paku_record) == 13 * PIECE ? 1 : -1];

#define CRC_SKIP offsetof(struct paku_record, seq)

/* CRC-32 of IEEE 802.3 (reflected 0xEDB88320), four bits at a time: small, and fast enough. */
uint32_t paku_crc32(uint32_t crc, const void *data, size_t len)
{
	static const uint32_t nibble[16] = {
		0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
		0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
		0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
	};
	const uint8_t *p = data;

	crc = ~crc;
	while (len--) {
		crc ^= *p++;
		crc = crc >> 4 ^ nibble[crc & 15];
		crc = crc >> 4 ^ nibble[crc & 15];
	}
	return ~crc;
}

static uint32_t record_crc(const struct paku_record *rec)
{
	return paku_crc32(0, (const uint8_t *)rec + CRC_SKIP, sizeof *rec - CRC_SKIP);
}

/* The CRC says that we wrote it; the rest guards what is used as an index or a string. */
static bool record_valid(const struct paku_record *rec)
{
	return rec->magic == PAKU_RECORD_MAGIC && rec->crc == record_crc(rec) && rec->active < 2 &&
	       (rec->trial < 2 || rec->trial == PAKU_NO_SLOT) && rec->subject < 2 &&
	       !rec->slot[0].version[PAKU_VERSION_SIZE - 1] &&
	       !rec->slot[1].version[PAKU_VERSION_SIZE - 1] &&
	       !rec->attempt[PAKU_ATTEMPT_SIZE - 1] && !rec->etag[PAKU_ETAG_SIZE - 1];
}

static bool record_read(const struct paku_io *io, int copy, struct paku_record *rec)
{
	return io->flash.record_read(io->ctx, copy, 0, rec, sizeof *rec) == 0 && record_valid(rec);
}

uint8_t paku_record_load(const struct paku_io *io, struct paku_record *rec)
{
	uint32_t seq = 0;
	bool first = record_read(io, 0, rec);

	if (first)
		seq = rec->seq;
	if (record_read(io, 1, rec) && (!first || rec->seq > seq))
		return 1;
	if (first && record_read(io, 0, rec))
		return 0;
	memset(rec, 0, sizeof *rec);
	rec->magic = PAKU_RECORD_MAGIC;
	rec->trial = PAKU_NO_SLOT;
	return 1;
}

/* In small pieces: a whole record would be most of the agent's stack. */
static int record_compare(const struct paku_io *io, int copy, const struct paku_record *rec)
{
	uint8_t piece[PIECE];
	uint32_t at;

	for (at = 0; at < sizeof *rec; at += (uint32_t)sizeof piece)
		if (io->flash.record_read(io->ctx, copy, at, piece, sizeof piece) ||
		    memcmp(piece, (const uint8_t *)rec + at, sizeof piece))
			return -1;
	return 0;
}

int paku_record_save(const struct paku_io *io, struct paku_record *rec, uint8_t *copy)
{
	uint8_t next = *copy ^ 1;

	rec->seq++;
	rec->crc = record_crc(rec);
	if (io->flash.record_write(io->ctx, next, rec, sizeof *rec) ||
	    record_compare(io, next, rec))
		return -1;
	*copy = next;
	return 0;
}

void paku_record_give_up(struct paku_record *rec, enum paku_why why)
{
	rec->slot[rec->trial].state = PAKU_SLOT_BAD;
	rec->subject = rec->trial;
	rec->trial = PAKU_NO_SLOT;
	rec->why = (uint8_t)why;
	rec->due |= 1 << PAKU_ROLLED_BACK;
}
