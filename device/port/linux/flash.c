/* SPDX-License-Identifier: MIT */
/*
 * Flash made of files: DIR/slot0, DIR/slot1 and DIR/boot with the two copies of the boot record.
 * What returned 0 is on the disk (fdatasync), so that pulling the plug of a Linux device is the
 * same case as on a chip.  DIR/lock keeps a second agent out.
 */
#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_STRIDE 4096 /* so that one torn sector never holds both copies */

static int read_all(int fd, void *buf, size_t len, off_t at)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, at + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

static int write_all(int fd, const void *buf, size_t len, off_t at)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, at + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

static int flash_read(void *ctx, int slot, uint32_t offset, void *buf, uint32_t len)
{
	struct port *p = ctx;

	if (read_all(p->flash.slot[slot], buf, len, offset))
		return -1;
	if (p->opt.fail == FAIL_VERIFY && offset == 0 && len &&
	    strcmp(paku_phase_name(&p->agent), "verify") == 0)
		*(uint8_t *)buf ^= 1;
	return 0;
}

/* A file needs no erasing; that it is done shows what a chip would hold after a cut. */
static int flash_erase(void *ctx, int slot, uint32_t offset, uint32_t len)
{
	struct port *p = ctx;
	uint8_t erased[4096];

	memset(erased, 0xFF, sizeof erased);
	for (uint32_t at = 0; at < len; at += (uint32_t)sizeof erased)
		if (write_all(p->flash.slot[slot], erased, sizeof erased, offset + at))
			return -1;
	return 0;
}

static int flash_write(void *ctx, int slot, uint32_t offset, const void *buf, uint32_t len)
{
	struct port *p = ctx;

	if (write_all(p->flash.slot[slot], buf, len, offset))
		return -1;
	return fdatasync(p->flash.slot[slot]);
}

static int record_read(void *ctx, int copy, uint32_t offset, void *buf, uint32_t len)
{
	struct port *p = ctx;

	return read_all(p->flash.record, buf, len, (off_t)copy * RECORD_STRIDE + offset);
}

static int record_write(void *ctx, int copy, const void *buf, uint32_t len)
{
	struct port *p = ctx;

	if (write_all(p->flash.record, buf, len, (off_t)copy * RECORD_STRIDE))
		return -1;
	return fdatasync(p->flash.record);
}

const struct paku_flash_ops port_flash_ops = {
	.read = flash_read,
	.erase = flash_erase,
	.write = flash_write,
	.record_read = record_read,
	.record_write = record_write,
};

static int open_in(int dir, const char *name, struct ota_err *err)
{
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		ota_fail_errno(err, errno, "cannot open %s", name);
	return fd;
}

static bool open_files(struct port *p, int dir, struct ota_err *err)
{
	struct port_flash *f = &p->flash;

	if ((f->lock = open_in(dir, "lock", err)) < 0)
		return false;
	if (flock(f->lock, LOCK_EX | LOCK_NB)) {
		ota_fail(err, OTA_ECONFLICT, "another agent is using it");
		return false;
	}
	if ((f->slot[0] = open_in(dir, "slot0", err)) < 0 ||
	    (f->slot[1] = open_in(dir, "slot1", err)) < 0 ||
	    (f->record = open_in(dir, "boot", err)) < 0)
		return false;
	if (fsync(dir)) {
		ota_fail_errno(err, errno, "cannot sync it");
		return false;
	}
	return true;
}

bool port_flash_open(struct port *p, struct ota_err *err)
{
	p->flash = (struct port_flash){-1, {-1, -1}, -1};
	if (mkdir(p->opt.dir, 0755) && errno != EEXIST) {
		ota_fail_errno(err, errno, "cannot make it");
		return false;
	}
	int dir = open(p->opt.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		ota_fail_errno(err, errno, "cannot open it");
		return false;
	}
	bool ok = open_files(p, dir, err);
	close(dir);
	if (!ok)
		port_flash_close(p);
	return ok;
}

void port_flash_close(struct port *p)
{
	int *fds[] = {&p->flash.record, &p->flash.slot[0], &p->flash.slot[1], &p->flash.lock};

	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}
