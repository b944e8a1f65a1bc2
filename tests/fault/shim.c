/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into the service under test (LD_PRELOAD): makes the Nth allocation, write, sync, rename
 * or creation of a file fail, or every one from the Nth on, or makes syncs slow.
 *
 * The test commands it through a small file that both map (PAKU_FAULT_CONTROL); all of its fields
 * are counters and words that any thread may read and write.  Only files under PAKU_FAULT_DIR are
 * touched, so sockets, pipes and the log are never at fault.  Without PAKU_FAULT_CONTROL it does
 * nothing.  Any thread of the service runs this; it keeps errno unless it injects one.
 */
/* Both names of each call are wanted below: one for the C library's old 32-bit offsets. */
#undef _FILE_OFFSET_BITS
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum fault_kind {
	FAULT_MEMORY = 1, /* malloc, calloc, realloc */
	FAULT_WRITE = 2,  /* write, pwrite, writev, ftruncate */
	FAULT_SYNC = 4,   /* fsync, fdatasync */
	FAULT_NAME = 8,   /* rename, renameat, renameat2 */
	FAULT_CREATE = 16 /* open and openat with O_CREAT */
};

/* The layout is known to shim.py. */
struct control {
	_Atomic uint32_t kinds;     /* what is armed; 0: nothing */
	_Atomic int32_t countdown;  /* the call that brings it to zero fails */
	_Atomic uint32_t sticky;    /* so do all after it */
	_Atomic int32_t error;      /* errno of a failing call on a file */
	_Atomic uint32_t injected;  /* calls that failed */
	_Atomic uint32_t seen;      /* calls counted */
	_Atomic uint32_t sync_us;   /* each sync takes so long besides */
	_Atomic uint32_t shorten;   /* the first failing write takes half, the next one fails */
	_Atomic uint32_t last_kind; /* of the last call that failed */
};

static _Atomic(struct control *) control;
static char watched[PATH_MAX];
static size_t watched_len;

__attribute__((constructor)) static void shim_init(void)
{
	const char *path = getenv("PAKU_FAULT_CONTROL"), *dir = getenv("PAKU_FAULT_DIR");

	if (!path || !dir || !realpath(dir, watched))
		return;
	watched_len = strlen(watched);
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	void *p = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		atomic_store(&control, p);
}

static bool armed(enum fault_kind kind)
{
	struct control *c = atomic_load_explicit(&control, memory_order_acquire);

	return c && (atomic_load(&c->kinds) & kind);
}

/* Counts one call of an armed kind; true: it is to fail. */
static bool strikes(enum fault_kind kind)
{
	struct control *c = atomic_load(&control);

	atomic_fetch_add(&c->seen, 1);
	int32_t left = atomic_fetch_sub(&c->countdown, 1) - 1;
	if (left > 0 || (left < 0 && !atomic_load(&c->sticky)))
		return false;
	atomic_fetch_add(&c->injected, 1);
	atomic_store(&c->last_kind, kind);
	return true;
}

static bool is_watched(const char *path)
{
	return strncmp(path, watched, watched_len) == 0 &&
	       (path[watched_len] == '/' || path[watched_len] == '\0');
}

static bool fd_is_watched(int fd)
{
	char link[40], path[PATH_MAX];
	int saved = errno;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	errno = saved;
	if (n <= 0)
		return false;
	path[n] = '\0';
	return is_watched(path);
}

static bool name_is_watched(int dir_fd, const char *path)
{
	return path[0] == '/' ? is_watched(path) : dir_fd != AT_FDCWD && fd_is_watched(dir_fd);
}

static int fail(void)
{
	errno = atomic_load(&atomic_load(&control)->error);
	return -1;
}

static bool fd_fails(enum fault_kind kind, int fd)
{
	return armed(kind) && fd_is_watched(fd) && strikes(kind);
}

/* --- memory --- */

#ifdef SHIM_MEMORY
/* glibc exports its allocator under these names too. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static bool memory_fails(void)
{
	if (!armed(FAULT_MEMORY) || !strikes(FAULT_MEMORY))
		return false;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return memory_fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return memory_fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	return memory_fails() ? NULL : __libc_realloc(old, size);
}
#endif

/* --- files --- */

/* A disk that fills up takes what still fits first. */
static bool takes_half(size_t size)
{
	struct control *c = atomic_load(&control);

	return size > 1 && atomic_exchange(&c->shorten, 0) != 0;
}

ssize_t write(int fd, const void *data, size_t size)
{
	if (fd_fails(FAULT_WRITE, fd)) {
		if (!takes_half(size))
			return fail();
		size /= 2;
	}
	return syscall(SYS_write, fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
	if (fd_fails(FAULT_WRITE, fd)) {
		if (!takes_half(size))
			return fail();
		size /= 2;
	}
	return syscall(SYS_pwrite64, fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
	return pwrite64(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	if (fd_fails(FAULT_WRITE, fd))
		return fail();
	return syscall(SYS_writev, fd, parts, count);
}

int ftruncate64(int fd, off64_t size)
{
	if (fd_fails(FAULT_WRITE, fd))
		return fail();
	return (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate(int fd, off_t size)
{
	return ftruncate64(fd, size);
}

static void sync_slowly(int fd)
{
	struct control *c = atomic_load(&control);
	uint32_t us = c ? atomic_load(&c->sync_us) : 0;

	if (us && fd_is_watched(fd)) {
		struct timespec t = {us / 1000000, (long)(us % 1000000) * 1000};
		nanosleep(&t, NULL);
	}
}

int fsync(int fd)
{
	sync_slowly(fd);
	if (fd_fails(FAULT_SYNC, fd))
		return fail();
	return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	sync_slowly(fd);
	if (fd_fails(FAULT_SYNC, fd))
		return fail();
	return (int)syscall(SYS_fdatasync, fd);
}

/* --- names --- */

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned int flags)
{
	if (armed(FAULT_NAME) && name_is_watched(to_fd, to) && strikes(FAULT_NAME))
		return fail();
	return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return renameat2(from_fd, from, to_fd, to, 0);
}

int rename(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int open_file(int dir_fd, const char *path, int flags, mode_t mode)
{
	if ((flags & O_CREAT) && armed(FAULT_CREATE) && name_is_watched(dir_fd, path) &&
	    strikes(FAULT_CREATE))
		return fail();
	return (int)syscall(SYS_openat, dir_fd, path, flags, mode);
}

/* The mode is there only when a file may be made. */
#define OPEN_WITH_MODE(dir_fd, path, flags)                                                        \
	mode_t mode = 0;                                                                           \
	va_list ap;                                                                                \
	va_start(ap, flags);                                                                       \
	if (((flags)&O_CREAT) || ((flags)&O_TMPFILE) == O_TMPFILE)                                 \
		mode = va_arg(ap, mode_t);                                                         \
	va_end(ap);                                                                                \
	return open_file(dir_fd, path, flags, mode)

int open(const char *path, int flags, ...)
{
	OPEN_WITH_MODE(AT_FDCWD, path, flags);
}

int open64(const char *path, int flags, ...)
{
	OPEN_WITH_MODE(AT_FDCWD, path, flags);
}

int openat(int dir_fd, const char *path, int flags, ...)
{
	OPEN_WITH_MODE(dir_fd, path, flags);
}

int openat64(int dir_fd, const char *path, int flags, ...)
{
	OPEN_WITH_MODE(dir_fd, path, flags);
}
