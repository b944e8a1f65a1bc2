/* SPDX-License-Identifier: MIT */
#include "mqtt/broker_files.h"

#include "base/buf.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE "mosquitto.db"

/* --- the folder --- */

/* A file of an earlier run as another user: mosquitto goes on without it, and replaces it. */
static enum ota_code take_database(const struct broker_folder *f, struct ota_err *err)
{
	if (f->hand_over) {
		if (fchownat(f->fd, DATABASE, f->uid, f->gid, AT_SYMLINK_NOFOLLOW) != 0 &&
		    errno != ENOENT)
			return ota_fail_errno(err, errno, "%s/" DATABASE, f->path);
		return OTA_OK;
	}
	if (faccessat(f->fd, ".", W_OK | X_OK, 0) != 0)
		return ota_fail_errno(err, errno,
				      "the broker's folder %s cannot be written (was it made by "
				      "another user?)",
				      f->path);
	if (faccessat(f->fd, DATABASE, R_OK | W_OK, 0) != 0 && errno != ENOENT)
		return ota_fail_errno(err, errno,
				      "%s/" DATABASE " cannot be read (was it written by another "
				      "user?)",
				      f->path);
	return OTA_OK;
}

static enum ota_code hand_over(struct broker_folder *f, struct ota_err *err)
{
	const struct passwd *user;

	f->hand_over = geteuid() == 0;
	if (!f->hand_over)
		return OTA_OK;
	user = getpwnam("mosquitto");
	if (!user)
		return ota_fail(err, OTA_ENOTFOUND,
				"there is no user mosquitto for the broker to run as: apt-get "
				"install mosquitto makes it; or do not run the service as root");
	f->uid = user->pw_uid;
	f->gid = user->pw_gid;
	if (fchown(f->fd, f->uid, f->gid) != 0)
		return ota_fail_errno(
			err, errno, "the folder %s cannot be given to the user mosquitto", f->path);
	return OTA_OK;
}

enum ota_code broker_folder_open(const char *data_dir, struct broker_folder *f, struct ota_err *err)
{
	enum ota_code rc;

	*f = (struct broker_folder){.fd = -1};
	if ((size_t)snprintf(f->path, sizeof f->path, "%s/mosquitto", data_dir) >= sizeof f->path)
		return ota_fail(err, OTA_EINVAL, "OTA_DATA_DIR is too long");
	if (mkdir(f->path, 0700) != 0 && errno != EEXIST)
		return ota_fail_errno(err, errno,
				      "the broker's folder %s cannot be made (set OTA_DATA_DIR to "
				      "a folder that can be written)",
				      f->path);
	f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (f->fd < 0)
		return ota_fail_errno(err, errno, "the broker's folder %s cannot be opened",
				      f->path);
	rc = hand_over(f, err);
	if (rc == OTA_OK)
		rc = take_database(f, err);
	if (rc != OTA_OK)
		broker_folder_close(f);
	return rc;
}

void broker_folder_close(struct broker_folder *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

/* A new file under NAME, whatever stood there before. */
static int create(const struct broker_folder *f, const char *name, int flags)
{
	if (unlinkat(f->fd, name, 0) != 0 && errno != ENOENT)
		return -1;
	int fd = openat(f->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | flags,
			0600);
	if (fd >= 0 && f->hand_over && fchown(fd, f->uid, f->gid) != 0) {
		int e = errno;
		close(fd);
		errno = e;
		return -1;
	}
	return fd;
}

static enum ota_code write_file(const struct broker_folder *f, const char *name, const char *text,
				struct ota_err *err)
{
	size_t len = strlen(text), done = 0;
	char part[64];
	int fd, e = 0;

	/* Complete or absent: a half-written acl must never be read. */
	snprintf(part, sizeof part, "%s.part", name);
	fd = create(f, part, 0);
	if (fd < 0)
		return ota_fail_errno(err, errno, "%s/%s cannot be written", f->path, name);
	while (!e && done < len) {
		ssize_t n = write(fd, text + done, len - done);
		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			e = errno;
	}
	if (close(fd) != 0 && !e)
		e = errno;
	if (!e && renameat(f->fd, part, f->fd, name) != 0)
		e = errno;
	if (e) {
		unlinkat(f->fd, part, 0);
		return ota_fail_errno(err, e, "%s/%s cannot be written", f->path, name);
	}
	return OTA_OK;
}

bool broker_database_set_aside(const struct broker_folder *f)
{
	return renameat(f->fd, DATABASE, f->fd, DATABASE ".broken") == 0;
}

/* --- settings --- */

enum ota_code broker_password_make(char out[BROKER_PASSWORD_SIZE], struct ota_err *err)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint8_t random[BROKER_PASSWORD_SIZE - 1];

	if (!random_bytes(random, sizeof random))
		return ota_fail(err, OTA_EIO, "the system has no random numbers");
	for (size_t i = 0; i < sizeof random; i++)
		out[i] = letters[random[i] & 63];
	out[sizeof random] = '\0';
	return OTA_OK;
}

/* As mosquitto_passwd writes it: $7$iterations$salt$hash, PBKDF2 of SHA-512, base64.  Few
 * iterations will do: the password is 192 random bits, nobody's favourite word. */
static enum ota_code write_passwords(const struct broker_folder *f, const char *password,
				     struct ota_err *err)
{
	enum { ITERATIONS = 101, SALT = 12, HASH = 64 };
	uint8_t salt[SALT], hash[HASH];
	char salt_text[SALT * 4 / 3 + 1], hash_text[(HASH + 2) / 3 * 4 + 1], line[256];

	if (!random_bytes(salt, sizeof salt))
		return ota_fail(err, OTA_EIO, "the system has no random numbers");
	if (PKCS5_PBKDF2_HMAC(password, (int)strlen(password), salt, SALT, ITERATIONS, EVP_sha512(),
			      HASH, hash) != 1)
		return ota_fail(err, OTA_EINTERNAL, "the broker's password cannot be hashed");
	EVP_EncodeBlock((unsigned char *)salt_text, salt, SALT);
	EVP_EncodeBlock((unsigned char *)hash_text, hash, HASH);
	snprintf(line, sizeof line, BROKER_USER ":$7$%d$%s$%s\n", ITERATIONS, salt_text, hash_text);
	return write_file(f, "passwords", line, err);
}

/* Devices come without a name.  What is not listed is denied: .../cmd/ota has a level more than
 * "+/edge/+/+", and nobody else speaks as "+/ota-service". */
static const char acl[] = "topic read #\n"
			  "topic write +/edge/+/+\n"
			  "topic write +/edge/+/ota/#\n"
			  "topic write +/devices/+/+\n"
			  "topic write +/devices/+/ota/#\n"
			  "\n"
			  "user " BROKER_USER "\n"
			  "topic readwrite #\n"
			  "topic read $SYS/#\n";

/* Paths are relative to the folder: mosquitto may see nothing above it. */
static const char settings[] =
	"allow_anonymous true\n"
	"password_file passwords\n"
	"acl_file acl\n"
	"\n"
	"persistence true\n"
	"persistence_location ./\n"
	"persistence_file " DATABASE "\n"
	"autosave_interval 10\n"
	"persistent_client_expiration 14d\n"
	"\n"
	"# The defaults (20 and 1000) drop messages for a subscriber that is away or slow. What\n"
	"# waits takes half a KiB and its payload, of which 128 MiB may wait.\n"
	"max_inflight_messages 1000\n"
	"max_queued_messages 1000000\n"
	"max_queued_bytes 134217728\n"
	"message_size_limit 262144\n"
	"max_packet_size 300000\n"
	"set_tcp_nodelay true\n"
	"sys_interval 10\n"
	"\n"
	"connection_messages false\n"
	"log_dest stderr\n"
	"log_type error\n"
	"log_type warning\n"
	"log_type notice\n"
	"log_timestamp_format %Y-%m-%dT%H:%M:%S\n";

enum ota_code broker_settings_write(const struct broker_folder *f, const char *host, int port,
				    const char *password, struct ota_err *err)
{
	struct buf b = BUF_INIT;
	enum ota_code rc;

	buf_adds(&b, "# Written by paku-otad at each start: changes here do not last.\n");
	/* mosquitto listens on "::" for IPv6 alone; without an address, on both. */
	buf_printf(&b, "listener %d %s\n", port, strcmp(host, "::") == 0 ? "" : host);
	buf_adds(&b, settings);
	rc = buf_ok(&b) ? write_file(f, "mosquitto.conf", b.data, err) : ota_fail_nomem(err);
	buf_fini(&b);
	if (rc == OTA_OK)
		rc = write_file(f, "acl", acl, err);
	if (rc == OTA_OK)
		rc = write_passwords(f, password, err);
	return rc;
}

/* --- its log --- */

enum ota_code broker_log_open(const struct broker_folder *f, int *fd, struct ota_err *err)
{
	int made = create(f, "log", O_APPEND);

	if (made >= 0 && made <= 2) {
		/* We run without standard descriptors. */
		int low = made;
		made = fcntl(low, F_DUPFD_CLOEXEC, 3);
		close(low);
	}
	if (made < 0)
		return ota_fail_errno(err, errno, "%s/log cannot be written", f->path);
	*fd = made;
	return OTA_OK;
}

/* Reads the file's last bytes; the NUL-terminated text's length. */
static size_t read_end(const struct broker_folder *f, const char *name, char *out, size_t size)
{
	int fd = openat(f->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	ssize_t n = 0;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		off_t most = (off_t)size - 1;
		n = pread(fd, out, size - 1, st.st_size > most ? st.st_size - most : 0);
	}
	if (fd >= 0)
		close(fd);
	out[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

void broker_log_last(const struct broker_folder *f, char *out, size_t size)
{
	const char *error = NULL, *last = "";
	char text[4096];
	char *rest = text;

	read_end(f, "log", text, sizeof text);
	for (char *line; (line = strsep(&rest, "\n"));) {
		char *said = strstr(line, "Error: ");
		char *after_time = strstr(line, ": ");

		if (said)
			error = said + strlen("Error: ");
		if (line[0])
			last = after_time ? after_time + 2 : line;
	}
	snprintf(out, size, "%s", error ? error : last);
	for (size_t n = strlen(out); n > 0 && out[n - 1] == '.'; n--)
		out[n - 1] = '\0'; /* it goes into a sentence of ours */
}

/* --- who it is --- */

/* The process's name (16 bytes) and when it started; false when it is gone, or a zombie. */
static bool read_stat(pid_t pid, char name[16], uint64_t *start_ticks)
{
	char path[64], text[1024];
	unsigned long long ticks;
	FILE *stat;
	size_t n;

	snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
	stat = fopen(path, "re");
	if (!stat)
		return false;
	n = fread(text, 1, sizeof text - 1, stat);
	fclose(stat);
	text[n] = '\0';

	/* "pid (name) state ...": the name may hold anything; the start is the 22nd field. */
	char *begin = strchr(text, '('), *end = strrchr(text, ')');
	if (!begin || !end || strlen(end) < 3 || end[2] == 'Z')
		return false;
	*end = '\0';
	snprintf(name, 16, "%.15s", begin + 1);
	if (sscanf(end + 1,
		   "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
		   "%llu",
		   &ticks) != 1)
		return false;
	*start_ticks = ticks;
	return true;
}

bool broker_id_runs(const struct broker_id *id)
{
	uint64_t start_ticks;
	char name[16];

	return read_stat(id->pid, name, &start_ticks) && start_ticks == id->start_ticks &&
	       strcmp(name, "mosquitto") == 0;
}

enum ota_code broker_id_write(const struct broker_folder *f, pid_t pid, struct ota_err *err)
{
	uint64_t start_ticks = 0;
	char name[16], text[64];

	/* Gone already: no process started at tick 0. */
	if (!read_stat(pid, name, &start_ticks))
		start_ticks = 0;
	snprintf(text, sizeof text, "%ld %llu\n", (long)pid, (unsigned long long)start_ticks);
	return write_file(f, "pid", text, err);
}

bool broker_id_read(const struct broker_folder *f, struct broker_id *id)
{
	unsigned long long ticks;
	char text[64];
	int pid;

	read_end(f, "pid", text, sizeof text);
	if (sscanf(text, "%d %llu", &pid, &ticks) != 2 || pid <= 1)
		return false;
	*id = (struct broker_id){pid, ticks};
	return true;
}

void broker_id_remove(const struct broker_folder *f)
{
	unlinkat(f->fd, "pid", 0);
}
