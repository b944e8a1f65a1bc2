/* SPDX-License-Identifier: MIT */
#include "mqtt/broker_files.h"

#include "base/buf.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Its limits are raised where mosquitto's own would drop messages for a service that is slow for a
 * moment; a message and a packet have a bound.
 */
static const char conf[] = "# Written by paku-otad at each start: changes are lost. For a broker "
			   "of your own: MQTT_HOST.\n"
			   "listener %d %s\n"
			   "allow_anonymous true\n"
			   "password_file passwords\n"
			   "acl_file acl\n"
			   "persistence true\n"
			   "persistence_location ./\n"
			   "autosave_interval 10\n"
			   "persistent_client_expiration 14d\n"
			   "max_inflight_messages 1000\n"
			   "max_queued_messages 100000\n"
			   "message_size_limit 262144\n"
			   "max_packet_size 300000\n"
			   "set_tcp_nodelay true\n"
			   "connection_messages false\n"
			   "log_dest stderr\n"
			   "log_type error\n"
			   "log_type warning\n"
			   "log_type notice\n";

/*
 * Devices are anonymous.  They hear everything; they speak on their own topics, and never on
 * cmd/ota, which has two levels below the device.
 */
static const char acl[] = "topic read #\n"
			  "topic write +/edge/+/+\n"
			  "topic write +/edge/+/ota/#\n"
			  "topic write +/devices/+/+\n"
			  "topic write +/devices/+/ota/#\n"
			  "\n"
			  "user " BROKER_USER "\n"
			  "topic readwrite #\n";

bool broker_make_password(char out[BROKER_PASSWORD_SIZE])
{
	uint8_t bytes[(BROKER_PASSWORD_SIZE - 1) / 2];

	if (!random_bytes(bytes, sizeof bytes))
		return false;
	hex_encode(bytes, sizeof bytes, out);
	return true;
}

/* mosquitto's own form: $7$ITERATIONS$SALT$HASH, PBKDF2 with SHA-512, base 64. */
static bool hash_password(struct buf *b, const char *password)
{
	enum { ITERATIONS = 101, SALT = 12, HASH = 64 };
	uint8_t salt[SALT], hash[HASH];
	char salt64[4 * (SALT + 2) / 3 + 1], hash64_text[4 * (HASH + 2) / 3 + 4];

	if (!random_bytes(salt, sizeof salt) ||
	    PKCS5_PBKDF2_HMAC(password, (int)strlen(password), salt, SALT, ITERATIONS, EVP_sha512(),
			      HASH, hash) != 1)
		return false;
	EVP_EncodeBlock((unsigned char *)salt64, salt, SALT);
	EVP_EncodeBlock((unsigned char *)hash64_text, hash, HASH);
	buf_printf(b, BROKER_USER ":$7$%d$%s$%s\n", ITERATIONS, salt64, hash64_text);
	return buf_ok(b);
}

static bool write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static enum ota_code write_file(int folder, const char *name, const char *data, size_t len,
				struct ota_err *err)
{
	char part[64];
	int saved;

	snprintf(part, sizeof part, "%s.new", name);
	int fd = openat(folder, part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return ota_fail_errno(err, errno, "writing the broker's file %s", name);
	bool ok = write_all(fd, data, len);
	saved = errno;
	if (close(fd) != 0 && ok) {
		ok = false;
		saved = errno;
	}
	if (ok && renameat(folder, part, folder, name) == 0)
		return OTA_OK;
	if (ok)
		saved = errno;
	(void)unlinkat(folder, part, 0);
	return ota_fail_errno(err, saved, "writing the broker's file %s", name);
}

enum ota_code broker_write_files(int folder, const char *host, int port, const char *password,
				 struct ota_err *err)
{
	struct buf b = BUF_INIT;
	enum ota_code rc;

	if (!hash_password(&b, password)) {
		buf_fini(&b);
		return ota_fail(err, OTA_EINTERNAL, "the broker's password cannot be hashed");
	}
	rc = write_file(folder, "passwords", b.data, b.len, err);
	buf_reset(&b);
	buf_printf(&b, conf, port, host);
	if (rc == OTA_OK)
		rc = buf_ok(&b) ? write_file(folder, "mosquitto.conf", b.data, b.len, err)
				: ota_fail_nomem(err);
	buf_fini(&b);
	return rc == OTA_OK ? write_file(folder, "acl", acl, sizeof acl - 1, err) : rc;
}
