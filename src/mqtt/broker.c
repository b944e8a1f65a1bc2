/* SPDX-License-Identifier: MIT */
#include "mqtt/broker.h"

#include "base/clock.h"
#include "base/log.h"
#include "mqtt/broker_files.h"
#include "mqtt/broker_port.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS     10000 /* for the broker to take connections */
#define STOP_MS      5000  /* for it to save and end */
#define PAUSE_MS     10
#define TRIES        5    /* other free ports, when the one we found was taken meanwhile */
#define RETRY_MS     1000 /* between two starts; it doubles while the broker does not stay up */
#define RETRY_MAX_MS 30000
#define STAYED_MS    60000

struct broker {
	struct broker_folder folder;
	char *host;
	char *program;
	int port;
	char password[BROKER_PASSWORD_SIZE];

	pid_t pid; /* 0: it does not run */
	int64_t started_mono_ms, retry_mono_ms;
	int retry_ms;
};

static void pause_ms(int ms)
{
	struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};

	nanosleep(&t, NULL);
}

/* --- the child --- */

_Noreturn static void child_fail(const char *what)
{
	/* Its standard error is the log, whose last error becomes our sentence. */
	dprintf(STDERR_FILENO, "Error: %s: %s\n", what, strerrordesc_np(errno));
	_exit(127);
}

static void reset_signals(void)
{
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
}

/*
 * From here to exec only what is safe between fork and exec of a process with threads.
 *
 * The order matters.  A change of user clears the death signal, so it comes first; were mosquitto
 * left to change its user itself, the signal would be lost.  A parent that died before prctl() sent
 * none: hence the look at getppid() after it.  SIGTERM, for then mosquitto saves what it has
 * acknowledged; should it hang, the next start ends it by its pid file.
 */
_Noreturn static void child_run(const struct broker *b, pid_t parent, int null_fd, int log_fd)
{
	char *argv[] = {(char[]){"mosquitto"}, (char[]){"-c"}, (char[]){"mosquitto.conf"}, NULL};
	sigset_t none;

	reset_signals();
	if (fchdir(b->folder.fd) != 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
	    dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0)
		_exit(127);
	closefrom(STDERR_FILENO + 1);
	setsid(); /* Ctrl-C in our terminal is for us: the broker ends last */
	if (b->folder.hand_over &&
	    (setgroups(0, NULL) != 0 || setgid(b->folder.gid) != 0 || setuid(b->folder.uid) != 0))
		child_fail("the user mosquitto cannot be taken on");
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0)
		child_fail("the parent cannot be watched");
	if (getppid() != parent)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(b->program, argv);
	child_fail(b->program);
}

static enum ota_code spawn(struct broker *b, struct ota_err *err)
{
	sigset_t all, before;
	int log_fd = -1, null_fd;
	pid_t parent = getpid();
	enum ota_code rc;

	assert(gettid() == parent); /* the death signal comes when the forking thread ends */
	b->started_mono_ms = clock_mono_ms();
	rc = broker_log_open(&b->folder, &log_fd, err);
	if (rc != OTA_OK)
		return rc;
	/* Not O_CLOEXEC: it may already be descriptor 0, which dup2() would then leave so. */
	null_fd = open("/dev/null", O_RDWR);
	/* No handler of ours is to run in the child. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid_t pid = null_fd < 0 ? -1 : fork();
	if (pid == 0)
		child_run(b, parent, null_fd, log_fd);
	int e = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	close(log_fd);
	if (null_fd >= 0)
		close(null_fd);
	if (pid < 0)
		return ota_fail_errno(err, e, "mosquitto cannot be started");
	b->pid = pid;
	rc = broker_id_write(&b->folder, pid, err);
	if (rc != OTA_OK)
		log_event(LOG_WARNING, "broker", "no_pid_file", "%s", err->msg);
	return OTA_OK;
}

/* True when it ended by itself, which *status tells. */
static bool reap(struct broker *b, int *status)
{
	if (b->pid == 0 || waitpid(b->pid, status, WNOHANG) == 0)
		return b->pid == 0;
	b->pid = 0;
	broker_id_remove(&b->folder);
	return true;
}

/* Ends the child and waits for it. */
static void end_child(struct broker *b)
{
	int64_t until = clock_mono_ms() + STOP_MS;
	int status;

	if (b->pid == 0)
		return;
	kill(b->pid, SIGTERM);
	while (!reap(b, &status)) {
		if (clock_mono_ms() >= until) {
			log_event(LOG_WARNING, "broker", "killed",
				  "mosquitto did not end within %d s", STOP_MS / 1000);
			kill(b->pid, SIGKILL);
			until += STOP_MS;
		}
		pause_ms(PAUSE_MS);
	}
}

/* --- what an earlier run left --- */

/* It is not our child: nobody tells when it ended.  Each signal follows a look at who it is. */
static enum ota_code end_orphan(const struct broker_folder *f, struct ota_err *err)
{
	int64_t began = clock_mono_ms();
	struct broker_id id;
	int sig = SIGTERM;

	if (!broker_id_read(f, &id))
		return OTA_OK;
	if (broker_id_runs(&id))
		log_event(LOG_WARNING, "broker", "orphan",
			  "ending mosquitto (process %ld) of an earlier run", (long)id.pid);
	while (broker_id_runs(&id)) {
		if (sig && kill(id.pid, sig) != 0 && errno != ESRCH)
			return ota_fail_errno(err, errno,
					      "mosquitto of an earlier run (process %ld) cannot be "
					      "ended: end it yourself",
					      (long)id.pid);
		pause_ms(PAUSE_MS);
		int64_t waited = clock_mono_ms() - began;
		if (waited > 2 * STOP_MS)
			return ota_fail(err, OTA_EIO,
					"mosquitto of an earlier run (process %ld) does not end, "
					"not even when killed",
					(long)id.pid);
		sig = waited > STOP_MS ? SIGKILL : 0;
	}
	broker_id_remove(f);
	return OTA_OK;
}

/* --- starting it --- */

static enum ota_code find_program(struct broker *b, const char *wanted, struct ota_err *err)
{
	static const char *const usual[] = {"/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto",
					    "/usr/bin/mosquitto", "/usr/local/bin/mosquitto"};
	const char *found = wanted && access(wanted, X_OK) == 0 ? wanted : NULL;

	for (size_t i = 0; !wanted && !found && i < sizeof usual / sizeof *usual; i++)
		if (access(usual[i], X_OK) == 0)
			found = usual[i];
	if (!found)
		return ota_fail(err, OTA_ENOTFOUND,
				"mosquitto is not installed: apt-get install mosquitto, or set "
				"MQTT_HOST to a broker that runs, or OTA_MQTT=off");
	b->program = strdup(found);
	return b->program ? OTA_OK : ota_fail_nomem(err);
}

/* How it ended, for a sentence: its last words if it failed, or else its status. */
static void last_words(const struct broker *b, int status, char *out, size_t size)
{
	out[0] = '\0';
	if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
		broker_log_last(&b->folder, out, size);
	if (WIFSIGNALED(status))
		snprintf(out, size, "ended by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (out[0] == '\0')
		snprintf(out, size, "ended with code %d", WEXITSTATUS(status));
}

/* A database that it cannot read (a full disk, a bad card) would keep it from starting for ever:
 * better one without what was queued. */
static bool set_database_aside(const struct broker *b, const char *words)
{
	if (strcmp(words, "Couldn't open database") != 0 || !broker_database_set_aside(&b->folder))
		return false;
	log_event(LOG_ERROR, "broker", "database_broken",
		  "mosquitto cannot read its database: it is kept as %s/mosquitto.db.broken, and "
		  "what waited in it for devices is lost",
		  b->folder.path);
	return true;
}

enum outcome { STARTED, NOT_STARTED, AGAIN, PORT_TAKEN };

static enum outcome ended_early(const struct broker *b, int status, struct ota_err *err)
{
	char words[256];

	last_words(b, status, words, sizeof words);
	if (strcmp(words, "Address already in use") == 0) {
		broker_port_taken(b->port, err);
		return PORT_TAKEN;
	}
	if (set_database_aside(b, words))
		return AGAIN;
	if (b->port < 1024 && strcmp(words, "Permission denied") == 0)
		ota_fail(err, OTA_EINVAL,
			 "the broker may not listen on port %d: set MQTT_PORT to one above 1023",
			 b->port);
	else
		ota_fail(err, OTA_EIO, "mosquitto did not start: %s (it ran in %s)", words,
			 b->folder.path);
	return NOT_STARTED;
}

/* Until it lets the service itself in: then it is ours, and has read its passwords. */
static enum outcome await_ready(struct broker *b, struct ota_err *err)
{
	int64_t until = clock_mono_ms() + START_MS;
	enum broker_answer answer;
	int status = 0;

	for (;;) {
		answer = broker_port_ask(b->host, b->port, BROKER_USER, b->password);
		if (reap(b, &status))
			return ended_early(b, status, err);
		if (answer == BROKER_READY)
			return STARTED;
		if (clock_mono_ms() >= until)
			break;
		pause_ms(PAUSE_MS);
	}
	if (answer == BROKER_REFUSED)
		ota_fail(err, OTA_EIO, "mosquitto refuses the password that was made for it (%s)",
			 b->folder.path);
	else
		ota_fail(err, OTA_EIO,
			 "mosquitto does not answer on port %d after %d s; what it says is in "
			 "%s/log",
			 b->port, START_MS / 1000, b->folder.path);
	return NOT_STARTED;
}

static enum ota_code launch(struct broker *b, int wanted_port, struct ota_err *err)
{
	enum outcome outcome = AGAIN;
	enum ota_code rc;

	for (int i = 0; i < TRIES; i++) {
		b->port = wanted_port;
		if ((rc = broker_port_check(b->host, &b->port, err)) != OTA_OK ||
		    (rc = broker_settings_write(&b->folder, b->host, b->port, b->password, err)) !=
			    OTA_OK ||
		    (rc = spawn(b, err)) != OTA_OK)
			return rc;
		outcome = await_ready(b, err);
		if (outcome == STARTED)
			return OTA_OK;
		if (outcome == NOT_STARTED || (outcome == PORT_TAKEN && wanted_port != 0))
			return err->code;
	}
	if (outcome == AGAIN)
		return ota_fail(err, OTA_EIO, "mosquitto cannot open its database in %s",
				b->folder.path);
	return err->code;
}

enum ota_code broker_start(const struct broker_config *cfg, struct broker **out,
			   struct ota_err *err)
{
	struct broker *b = calloc(1, sizeof *b);
	struct ota_err own;
	enum ota_code rc;

	if (!err)
		err = &own;
	if (!b)
		return ota_fail_nomem(err);
	b->folder.fd = -1;
	b->retry_ms = RETRY_MS;
	b->host = strdup(cfg->host);
	rc = b->host ? find_program(b, cfg->program, err) : ota_fail_nomem(err);
	if (rc == OTA_OK)
		rc = broker_folder_open(cfg->data_dir, &b->folder, err);
	if (rc == OTA_OK)
		rc = end_orphan(&b->folder, err);
	if (rc == OTA_OK)
		rc = broker_password_make(b->password, err);
	if (rc == OTA_OK)
		rc = launch(b, cfg->port, err);
	if (rc != OTA_OK) {
		broker_stop(&b);
		return rc;
	}
	log_event(LOG_INFO, "broker", "started", "mosquitto (process %ld) on port %d", (long)b->pid,
		  b->port);
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

/* --- keeping it up --- */

static void note_death(struct broker *b, int status)
{
	int64_t now = clock_mono_ms();
	char words[256];

	if (now - b->started_mono_ms >= STAYED_MS)
		b->retry_ms = RETRY_MS;
	b->retry_mono_ms = b->started_mono_ms + b->retry_ms;
	b->retry_ms = b->retry_ms * 2 < RETRY_MAX_MS ? b->retry_ms * 2 : RETRY_MAX_MS;
	last_words(b, status, words, sizeof words);
	log_event(LOG_ERROR, "broker", "died", "%s", words);
	set_database_aside(b, words);
}

int broker_watch(struct broker *b)
{
	struct ota_err err;
	int status = 0;

	if (b->pid != 0) {
		if (!reap(b, &status))
			return -1;
		note_death(b, status);
	}
	int64_t now = clock_mono_ms();
	if (now < b->retry_mono_ms)
		return (int)(b->retry_mono_ms - now);
	/* The files are those of the start, the port and the password too.  Whether it stays up
	 * is told by the next SIGCHLD, not waited for. */
	if (spawn(b, &err) != OTA_OK) {
		log_event(LOG_ERROR, "broker", "not_restarted", "%s", err.msg);
		b->retry_mono_ms = now + b->retry_ms;
		return b->retry_ms;
	}
	log_event(LOG_WARNING, "broker", "restarted", "mosquitto (process %ld) on port %d",
		  (long)b->pid, b->port);
	return -1;
}

void broker_stop(struct broker **b)
{
	if (!*b)
		return;
	end_child(*b);
	broker_folder_close(&(*b)->folder);
	OPENSSL_cleanse((*b)->password, sizeof(*b)->password);
	free((*b)->program);
	free((*b)->host);
	free(*b);
	*b = NULL;
}
