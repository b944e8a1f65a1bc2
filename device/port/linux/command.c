/* SPDX-License-Identifier: MIT */
/*
 * The last command, kept in DIR/command: a device that lost power goes on with it by itself, and
 * one that is told the same again answers with what came of it.  A command is on the disk before
 * the broker hears that it arrived.  What is there but does not pass its CRC counts as nothing.
 */
#include "agent.h" /* paku_crc32 */
#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAGIC UINT32_C(0x31434B50) /* "PKC1" */

struct kept {
	uint32_t magic, crc;
	struct port_command command;
};

static uint32_t crc_of(const struct kept *kept)
{
	return paku_crc32(0, &kept->command, sizeof kept->command);
}

static int open_dir(const struct port *p)
{
	return open(p->opt.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void port_command_load(struct port *p)
{
	struct port_command *c = &p->mqtt.command;
	struct kept kept;
	int dir = open_dir(p);
	int fd = dir < 0 ? -1 : openat(dir, "command", O_RDONLY | O_CLOEXEC);

	memset(c, 0, sizeof *c);
	if (fd >= 0 && read(fd, &kept, sizeof kept) == (ssize_t)sizeof kept &&
	    kept.magic == MAGIC && kept.crc == crc_of(&kept))
		*c = kept.command;
	if (fd >= 0)
		close(fd);
	if (dir >= 0)
		close(dir);
}

/* Whole and on the disk, or as before. */
static bool write_file(int dir, const struct kept *kept)
{
	int fd = openat(dir, "command.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	bool ok = fd >= 0 && write(fd, kept, sizeof *kept) == (ssize_t)sizeof *kept &&
		  fdatasync(fd) == 0;

	if (fd >= 0)
		close(fd);
	return ok && renameat(dir, "command.new", dir, "command") == 0 && fsync(dir) == 0;
}

bool port_command_save(struct port *p)
{
	struct kept kept;
	int dir = open_dir(p);

	memset(&kept, 0, sizeof kept);
	kept.magic = MAGIC;
	memcpy(&kept.command, &p->mqtt.command, sizeof kept.command);
	kept.crc = crc_of(&kept);
	bool ok = dir >= 0 && write_file(dir, &kept);
	if (!ok)
		port_say(p, "command_not_kept", "--dir %s: the command cannot be kept: %s",
			 p->opt.dir, strerror(errno));
	if (dir >= 0)
		close(dir);
	return ok;
}
