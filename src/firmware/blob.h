/* SPDX-License-Identifier: MIT */
/*
 * Image files, stored by content: DIR/<sha256>.bin.  Identical images share one file.
 *
 * An upload is written to a temporary file in the same directory while it is hashed, synced,
 * renamed, and the directory synced: after a crash there is the whole file or none.  Temporary
 * files, and images that no release names, are swept at start.
 *
 * Threads: a writer belongs to one thread at a time; the store itself may be used by any.
 */
#pragma once

#include "base/err.h"
#include "base/hash.h"

#include <stdint.h>

struct blob_store;
struct blob_writer;

/* Makes DIR (0700) where it is missing, and proves that it can be written. */
enum ota_code blob_store_open(const char *dir, struct blob_store **out, struct ota_err *err);
/*
 * Other instances keep their files here, too.  One that wakes after long may believe that it leads
 * still, and that nobody wants what another has just stored: so nothing is removed but by the
 * sweep at a start, and then only what is an hour old.
 */
void blob_store_share(struct blob_store *s);
void blob_store_close(struct blob_store **s);
const char *blob_store_dir(const struct blob_store *s);

/*
 * Removes temporary files and every image that WANTED does not want.  At start, before uploads.
 * Where it wants none of them, they are more likely another database's than left over: then all
 * stay.
 */
typedef bool blob_wanted_fn(void *ctx, const uint8_t sha256[SHA256_SIZE]);
struct blob_swept {
	int removed;
	int unknown; /* images that stay, though WANTED wants none of them */
};
enum ota_code blob_sweep(struct blob_store *s, blob_wanted_fn *wanted, void *ctx,
			 struct blob_swept *out, struct ota_err *err);

enum ota_code blob_writer_open(struct blob_store *s, struct blob_writer **out, struct ota_err *err);
enum ota_code blob_writer_write(struct blob_writer *w, const void *data, size_t len,
				struct ota_err *err);
/* What was written so far, for the inspection. */
uint64_t blob_writer_size(const struct blob_writer *w);
enum ota_code blob_writer_read(struct blob_writer *w, uint64_t off, void *buf, size_t len,
			       struct ota_err *err);
int blob_writer_fd(const struct blob_writer *w); /* to read, by pread() */
/* The digest of what was written.  Call once, after the last write. */
enum ota_code blob_writer_hash(struct blob_writer *w, uint8_t sha256[SHA256_SIZE],
			       struct ota_err *err);
/* Makes the file durable under its name.  Until blob_writer_close() it is safe from blob_remove().
 */
enum ota_code blob_writer_keep(struct blob_writer *w, struct ota_err *err);
/* Frees the writer; an unkept file is removed. */
void blob_writer_close(struct blob_writer **w);

/* An open descriptor of the image (the caller's) and its size. */
enum ota_code blob_open(struct blob_store *s, const uint8_t sha256[SHA256_SIZE], int *fd,
			uint64_t *size, struct ota_err *err);
/*
 * Removes an image unless WANTED wants it.  While any upload is under way it stays, for the upload
 * may be of the same bytes: then the sweep at the next start takes it.  An uploader keeps its
 * writer open until its release is visible to WANTED; so nothing that was acknowledged is ever
 * removed.
 */
bool blob_remove(struct blob_store *s, const uint8_t sha256[SHA256_SIZE], blob_wanted_fn *wanted,
		 void *ctx); /* whether it was removed */
/* Whether any upload is under way. */
bool blob_busy(struct blob_store *s);
/* Between these two no image is removed: a backup reads them. */
void blob_hold(struct blob_store *s);
void blob_let_go(struct blob_store *s);

/* For a folder that is the cache of something (firmware/mirror.h): every image in it, and one that
 * goes although it is wanted. */
enum ota_code blob_list(struct blob_store *s,
			void (*fn)(void *ctx, const uint8_t sha256[SHA256_SIZE], uint64_t size),
			void *ctx, struct ota_err *err);
void blob_evict(struct blob_store *s, const uint8_t sha256[SHA256_SIZE]);
/* Whether what FD names has these bytes, from its beginning: OTA_OK, or OTA_ECONFLICT: it has
 * others.  Other failures: it could not be read. */
enum ota_code blob_compare(int fd, const uint8_t sha256[SHA256_SIZE], struct ota_err *err);
/* "<64 hex>.bin" */
#define BLOB_NAME_SIZE (SHA256_HEX_SIZE + 4)
void blob_name(const uint8_t sha256[SHA256_SIZE], char out[BLOB_NAME_SIZE]);
bool blob_is_name(const char *name, uint8_t sha256[SHA256_SIZE]);
