/* SPDX-License-Identifier: MIT */
#include "mqtt/broker.h"

#include "base/clock.h"
#include "base/log.h"
#include "mqtt/broker_files.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM      "/usr/sbin/mosquitto"
#define START_MS     10000
#define END_MS       5000
#define RESTART_MS   1000
#define PORT_TRIES   5
#define LOG_TAIL_MAX 2000

struct broker {
	char *host;
	int port;
	char password[BROKER_PASSWORD_SIZE];
	int folder;
	pid_t pid;          /* -1: not running */
	int64_t started_ms; /* when it was last started */
};

static void wait_a_moment(void)
{
	struct timespec moment = {0, 10 * 1000000};

	nanosleep(&moment, NULL);
}

/* --- the folder --- */

/* As root the broker runs as the user that Debian's package made for it; the folder is that user's.
 */
static const struct passwd *broker_owner(void)
{
	return geteuid() == 0 ? getpwnam("mosquitto") : NULL;
}

static enum ota_code open_folder(struct broker *b, const char *data_dir, struct ota_err *err)
{
	const struct passwd *owner = broker_owner();
	char path[4200];

	if ((size_t)snprintf(path, sizeof path, "%s/mosquitto", data_dir) >= sizeof path)
		return ota_fail(err, OTA_EINVAL, "OTA_DATA_DIR is too long");
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return ota_fail_errno(err, errno, "the broker's folder %s cannot be made", path);
	b->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->folder < 0)
		return ota_fail_errno(err, errno, "the broker's folder %s cannot be opened", path);
	if (owner && fchown(b->folder, owner->pw_uid, owner->pw_gid) != 0)
		return ota_fail_errno(err, errno, "the broker's folder %s cannot be given to %s",
				      path, owner->pw_name);
	return OTA_OK;
}

/* The files are the broker's to read. */
static enum ota_code hand_over_files(const struct broker *b, struct ota_err *err)
{
	static const char *const names[] = {"mosquitto.conf", "passwords", "acl"};
	const struct passwd *owner = broker_owner();

	for (size_t i = 0; owner && i < sizeof names / sizeof names[0]; i++)
		if (fchownat(b->folder, names[i], owner->pw_uid, owner->pw_gid, 0) != 0)
			return ota_fail_errno(err, errno, "the broker's file %s", names[i]);
	return OTA_OK;
}

/* --- an orphan --- */

/* Whether the process is a mosquitto that runs in our folder: a number alone says nothing. */
static bool is_ours(const struct broker *b, pid_t pid)
{
	struct stat folder, cwd;
	char path[64], name[32] = "";

	snprintf(path, sizeof path, "/proc/%ld/cwd", (long)pid);
	if (fstat(b->folder, &folder) != 0 || stat(path, &cwd) != 0 ||
	    folder.st_ino != cwd.st_ino || folder.st_dev != cwd.st_dev)
		return false;
	snprintf(path, sizeof path, "/proc/%ld/comm", (long)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, name, sizeof name - 1);
	close(fd);
	return n > 0 && strncmp(name, "mosquitto", 9) == 0;
}

static void end_orphan(const struct broker *b)
{
	char text[32] = "";
	int fd = openat(b->folder, "pid", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	pid_t pid = n > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
	if (pid <= 1 || !is_ours(b, pid))
		return;
	log_event(LOG_WARNING, "mqtt", "orphan_ended", "a broker of an earlier run, process %ld",
		  (long)pid);
	for (int64_t until = clock_mono_ms() + END_MS; is_ours(b, pid); wait_a_moment())
		if (kill(pid, clock_mono_ms() < until ? SIGTERM : SIGKILL) != 0)
			return;
}

/* --- the port --- */

static enum ota_code bind_port(const char *host, int *port, struct ota_err *err)
{
	struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
				 .ai_socktype = SOCK_STREAM},
			*found;
	struct sockaddr_storage at;
	socklen_t len = sizeof at;
	char text[8];
	int one = 1;

	snprintf(text, sizeof text, "%d", *port);
	int rc = getaddrinfo(host, text, &hints, &found);
	if (rc != 0)
		return ota_fail(err, OTA_EINVAL, "HOST is '%s', which is no address: %s", host,
				gai_strerror(rc));
	int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
		  bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 1) == 0 &&
		  getsockname(fd, (struct sockaddr *)&at, &len) == 0;
	int saved = errno;
	freeaddrinfo(found);
	if (fd >= 0)
		close(fd);
	if (ok) {
		*port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
						       : ((struct sockaddr_in *)&at)->sin_port);
		return OTA_OK;
	}
	if (saved == EADDRINUSE)
		return ota_fail(err, OTA_ECONFLICT,
				"port %d is taken by another program: set MQTT_HOST=127.0.0.1 to "
				"use the broker that runs there, MQTT_PORT to another port, or "
				"OTA_MQTT=off",
				*port);
	return ota_fail_errno(err, saved, "the broker cannot listen on port %d of %s", *port, host);
}

/* --- the child --- */

/* Between fork and exec, in a process of many threads: system calls alone. */
static void run_child(const struct broker *b, const struct passwd *owner, pid_t parent)
{
	char name[] = "mosquitto", option[] = "-c", file[] = "mosquitto.conf";
	char *const argv[] = {name, option, file, NULL};
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	int log = openat(b->folder, "log", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	int null = open("/dev/null", O_RDONLY);
	if (log < 0 || null < 0 || fchdir(b->folder) != 0 || dup2(null, 0) < 0 ||
	    dup2(log, 1) < 0 || dup2(log, 2) < 0)
		_exit(126);
	if (owner && (fchown(log, owner->pw_uid, owner->pw_gid) != 0 || setgroups(0, NULL) != 0 ||
		      setgid(owner->pw_gid) != 0 || setuid(owner->pw_uid) != 0))
		_exit(126);
	/* After the change of user, which would take it away; and the parent may be gone by now. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
		_exit(126);
	close_range(3, ~0U, 0);
	execv(PROGRAM, argv);
	_exit(127);
}

static bool write_pid(const struct broker *b)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%ld\n", (long)b->pid);
	int fd = openat(b->folder, "pid", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool ok = fd >= 0 && write(fd, text, (size_t)n) == n;

	if (fd >= 0)
		close(fd);
	return ok;
}

static enum ota_code launch(struct broker *b, struct ota_err *err)
{
	const struct passwd *owner = broker_owner();
	pid_t parent = getpid();

	b->started_ms = clock_mono_ms();
	if (geteuid() == 0 && !owner)
		return ota_fail(err, OTA_EIO,
				"there is no user mosquitto to run the broker as: install the "
				"package mosquitto");
	pid_t pid = fork();
	if (pid < 0)
		return ota_fail_errno(err, errno, "starting mosquitto");
	if (pid == 0)
		run_child(b, owner, parent);
	b->pid = pid;
	if (!write_pid(b))
		log_event(LOG_WARNING, "mqtt", "no_pid_file", "%s", strerror(errno));
	return OTA_OK;
}

/* What it said last, as one line. */
static void last_words(const struct broker *b, char *out, size_t size)
{
	char tail[LOG_TAIL_MAX + 1];
	int fd = openat(b->folder, "log", O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	snprintf(out, size, "it said nothing");
	if (fd < 0)
		return;
	off_t len = lseek(fd, 0, SEEK_END);
	if (len > 0)
		n = pread(fd, tail, LOG_TAIL_MAX, len > LOG_TAIL_MAX ? len - LOG_TAIL_MAX : 0);
	close(fd);
	while (n > 0 && (tail[n - 1] == '\n' || tail[n - 1] == '\r'))
		n--;
	if (n <= 0)
		return;
	tail[n] = '\0';
	const char *line = strrchr(tail, '\n');
	snprintf(out, size, "it said: %.200s", line ? line + 1 : tail);
}

static bool has_ended(struct broker *b)
{
	int status;

	if (b->pid > 0 && waitpid(b->pid, &status, WNOHANG) == b->pid)
		b->pid = -1;
	return b->pid < 0;
}

static int connect_to(const struct broker *b)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
	const char *host = strcmp(b->host, "0.0.0.0") == 0 ? "127.0.0.1"
			   : strcmp(b->host, "::") == 0    ? "::1"
							   : b->host;
	char port[8];
	int fd = -1;

	snprintf(port, sizeof port, "%d", b->port);
	if (getaddrinfo(host, port, &hints, &found) != 0)
		return -1;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	return fd;
}

/* MQTT 3.1.1: an anonymous CONNECT is answered by a CONNACK. */
static bool answers(const struct broker *b)
{
	static const unsigned char hello[] = {0x10, 0x0c, 0, 4, 'M', 'Q', 'T',
					      'T',  4,    2, 0, 5,   0,   0};
	unsigned char answer[4];
	int fd = connect_to(b);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0)
		return false;
	bool ok = send(fd, hello, sizeof hello, MSG_NOSIGNAL) == sizeof hello &&
		  poll(&p, 1, 1000) == 1 && recv(fd, answer, sizeof answer, 0) == sizeof answer &&
		  answer[0] == 0x20;
	close(fd);
	return ok;
}

static enum ota_code await_answer(struct broker *b, struct ota_err *err)
{
	int64_t until = clock_mono_ms() + START_MS;
	char said[300];

	while (!answers(b)) {
		bool ended = has_ended(b);
		if (ended || clock_mono_ms() >= until) {
			last_words(b, said, sizeof said);
			return ota_fail(err, OTA_EIO, "mosquitto %s; %s",
					ended ? "ended at its start" : "did not answer within 10 s",
					said);
		}
		wait_a_moment();
	}
	return OTA_OK;
}

static enum ota_code start_once(struct broker *b, struct ota_err *err)
{
	enum ota_code rc;

	if ((rc = bind_port(b->host, &b->port, err)) != OTA_OK ||
	    (rc = broker_write_files(b->folder, b->host, b->port, b->password, err)) != OTA_OK ||
	    (rc = hand_over_files(b, err)) != OTA_OK || (rc = launch(b, err)) != OTA_OK)
		return rc;
	return await_answer(b, err);
}

static void end_child(struct broker *b)
{
	int64_t until = clock_mono_ms() + END_MS;

	for (bool killed = false; !has_ended(b); wait_a_moment()) {
		if (!killed && clock_mono_ms() >= until)
			killed = kill(b->pid, SIGKILL) == 0;
		else if (!killed)
			(void)kill(b->pid, SIGTERM);
	}
}

enum ota_code broker_start(const struct broker_config *cfg, struct broker **out,
			   struct ota_err *err)
{
	struct broker *b = calloc(1, sizeof *b);
	enum ota_code rc;

	if (!b)
		return ota_fail_nomem(err);
	b->pid = -1;
	b->folder = -1;
	b->host = strdup(cfg->host);
	if (access(PROGRAM, X_OK) != 0)
		rc = ota_fail(err, OTA_EIO,
			      "mosquitto is not installed: apt-get install mosquitto, or set "
			      "MQTT_HOST to a broker that runs, or OTA_MQTT=off");
	else if (!b->host)
		rc = ota_fail_nomem(err);
	else if (!broker_make_password(b->password))
		rc = ota_fail(err, OTA_EIO, "there are no random numbers to be had");
	else
		rc = open_folder(b, cfg->data_dir, err);
	if (rc == OTA_OK)
		end_orphan(b);
	/* A free port may be taken between finding it and mosquitto's listening. */
	for (int i = 0; rc == OTA_OK; i++) {
		b->port = cfg->port;
		rc = start_once(b, err);
		if (rc == OTA_OK || cfg->port != 0 || i == PORT_TRIES)
			break;
		end_child(b);
		rc = OTA_OK;
	}
	if (rc != OTA_OK) {
		broker_stop(&b);
		return rc;
	}
	*out = b;
	return OTA_OK;
}

const char *broker_user(const struct broker *b)
{
	(void)b;
	return BROKER_USER;
}

const char *broker_password(const struct broker *b)
{
	return b->password;
}

int broker_port(const struct broker *b)
{
	return b->port;
}

int broker_watch(struct broker *b)
{
	char said[300];
	struct ota_err err;

	if (b->pid > 0) {
		if (!has_ended(b))
			return -1;
		last_words(b, said, sizeof said);
		log_event(LOG_ERROR, "mqtt", "broker_died", "%s", said);
	}
	int64_t wait_ms = b->started_ms + RESTART_MS - clock_mono_ms();
	if (wait_ms > 0)
		return (int)wait_ms;
	if (launch(b, &err) != OTA_OK) {
		log_event(LOG_ERROR, "mqtt", "broker_not_started", "%s", err.msg);
		return RESTART_MS;
	}
	log_event(LOG_INFO, "mqtt", "broker_started", "again, as process %ld", (long)b->pid);
	return -1;
}

void broker_stop(struct broker **bp)
{
	struct broker *b = *bp;

	if (!b)
		return;
	end_child(b);
	if (b->folder >= 0) {
		(void)unlinkat(b->folder, "pid", 0);
		close(b->folder);
	}
	free(b->host);
	free(b);
	*bp = NULL;
}
