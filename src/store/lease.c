/* SPDX-License-Identifier: MIT */
#include "store/lease.h"

#include "base/log.h"
#include "store/postgres.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MS       2000 /* a server that takes longer has not said that we lead */
#define OTHERS_FIRST_MS 1000

struct lease {
	struct postgres_store place; /* conninfo and its name alone */
	char url[LEASE_URL_SIZE];
	void (*changed)(void);
	pthread_t thread;
	int wake_fd;
	_Atomic bool stopping, resigning, retired;
	_Atomic int64_t until_ms; /* boot time: until then what the last beat said holds */
	/* The thread's: */
	PGconn *c;
	char session[64];      /* of c */
	char held_session[64]; /* that holds the lock, as the row has it; "": we do not lead */
	char held_epoch[24];
	char epoch[24], beat[24], seen_session[64], seen_url[LEASE_URL_SIZE]; /* the row */
	int64_t seen_ms; /* when it was last found moved */
	bool seen;
	int64_t not_before_ms; /* after a resignation: others first */
	pthread_mutex_t lock;
	struct lease_view view; /* under lock */
};

/* Goes on while the machine sleeps: others do not. */
static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool lease_holds(const struct lease *l)
{
	return !l || now_ms() < atomic_load_explicit(&l->until_ms, memory_order_relaxed);
}

void lease_look(struct lease *l, struct lease_view *out)
{
	pthread_mutex_lock(&l->lock);
	*out = l->view;
	pthread_mutex_unlock(&l->lock);
}

/* --- what others see --- */

static void show(struct lease *l, const char *leader, const char *problem)
{
	pthread_mutex_lock(&l->lock);
	l->view.role = l->held_session[0] ? LEASE_LEADS : LEASE_FOLLOWS;
	l->view.epoch = strtoll(l->epoch, NULL, 10);
	snprintf(l->view.leader, sizeof l->view.leader, "%s", leader);
	snprintf(l->view.problem, sizeof l->view.problem, "%.250s", problem);
	pthread_mutex_unlock(&l->lock);
}

static void lose_session(struct lease *l, const struct ota_err *why)
{
	atomic_store(&l->until_ms, 0);
	PQfinish(l->c);
	l->c = NULL;
	show(l, "", why->msg);
}

static void become_follower(struct lease *l, const char *why)
{
	struct ota_err err;

	log_event(LOG_WARNING, "lease", "lost", "%s: epoch %s is over, and this instance follows",
		  why, l->held_epoch);
	l->held_session[0] = '\0';
	l->seen = false;
	ota_fail(&err, OTA_EUNAVAIL, "it is not known yet who leads");
	lose_session(l, &err); /* and the lock, if it is there */
	l->changed();
}

/* --- the server --- */

/* One statement; false with the session lost, or with what the server said in the view. */
static PGresult *ask(struct lease *l, const char *sql, int count, const char *const *values)
{
	enum pg_refusal how = PG_FAILED;
	struct ota_err err;
	PGresult *res = pg_run(&l->place, l->c, sql, count, values, ANSWER_MS, &how, &err);

	if (!res && how == PG_LOST)
		lose_session(l, &err);
	else if (!res)
		show(l, "", err.msg);
	return res;
}

enum moved {
	MOVED,
	NOT_OURS, /* the row is another's by now */
	NOT_SAID, /* the server has not answered, or cannot */
};

/* Runs what changes the row where it is still ours. */
static enum moved move(struct lease *l, const char *sql, int count, const char *const *values)
{
	PGresult *res = ask(l, sql, count, values);
	enum moved moved = !res ? NOT_SAID : PQntuples(res) == 1 ? MOVED : NOT_OURS;

	PQclear(res);
	return moved;
}

/* Its one table is made by whoever comes first, before there is a leader who could migrate. */
static bool make_table(struct lease *l)
{
	PGresult *res = ask(
		l, "SELECT to_regclass(quote_ident(current_schema()) || '.ota_leader') IS NOT NULL",
		0, NULL);
	bool there = res && PQgetvalue(res, 0, 0)[0] == 't';

	PQclear(res);
	if (there || !l->c)
		return there;
	PQclear(ask(l,
		    "SELECT pg_advisory_xact_lock(" PG_MIGRATION_LOCK ");"
		    "CREATE TABLE IF NOT EXISTS ota_leader (one boolean PRIMARY KEY DEFAULT true"
		    " CHECK (one), epoch bigint NOT NULL DEFAULT 0, beat bigint NOT NULL DEFAULT 0,"
		    " session text NOT NULL DEFAULT '', url text NOT NULL DEFAULT '');"
		    "INSERT INTO ota_leader DEFAULT VALUES ON CONFLICT DO NOTHING",
		    0, NULL));
	return false; /* is looked at anew */
}

/* A beat that a crash of the server forgets is none; a new epoch is never forgotten (take()). */
static void connect_anew(struct lease *l)
{
	struct ota_err err;
	char unused[8];

	if (pg_connect(&l->place, false, &l->c, &err) != OTA_OK) {
		l->c = NULL;
		lose_session(l, &err);
		return;
	}
	if (pg_ask(&l->place, l->c, "SET synchronous_commit=off", 0, NULL, unused, sizeof unused,
		   &err) != OTA_OK ||
	    pg_ask(&l->place, l->c, PG_OWN_SESSION, 0, NULL, l->session, sizeof l->session, &err) !=
		    OTA_OK)
		lose_session(l, &err);
	else if (!make_table(l) && l->c)
		(void)make_table(l);
}

static bool end_session(struct lease *l, const char *session)
{
	const char *const values[] = {session, l->epoch, l->beat};
	PGresult *res = session[0] ? ask(l,
					 "SELECT pg_terminate_backend(a.pid)"
					 " FROM pg_stat_activity a, ota_leader o WHERE"
					 " a.pid || ' ' || extract(epoch FROM a.backend_start) = $1"
					 " AND o.session = $1 AND o.epoch = $2 AND o.beat = $3",
					 3, values)
				   : NULL;

	PQclear(res);
	return l->c != NULL;
}

static bool take_lock(struct lease *l)
{
	PGresult *res = ask(l, "SELECT pg_try_advisory_lock(" PG_LEADER_LOCK ")", 0, NULL);
	bool got = res && PQgetvalue(res, 0, 0)[0] == 't';

	PQclear(res);
	return got;
}

/* The row as it stands; false: it is not known. */
static bool read_row(struct lease *l)
{
	PGresult *res = ask(l, "SELECT epoch, beat, session, url FROM ota_leader", 0, NULL);
	bool there = res && PQntuples(res) == 1;

	if (there && (!l->seen || strcmp(l->epoch, PQgetvalue(res, 0, 0)) != 0 ||
		      strcmp(l->beat, PQgetvalue(res, 0, 1)) != 0)) {
		l->seen = true;
		l->seen_ms = now_ms();
	}
	if (there) {
		snprintf(l->epoch, sizeof l->epoch, "%s", PQgetvalue(res, 0, 0));
		snprintf(l->beat, sizeof l->beat, "%s", PQgetvalue(res, 0, 1));
		snprintf(l->seen_session, sizeof l->seen_session, "%s", PQgetvalue(res, 0, 2));
		snprintf(l->seen_url, sizeof l->seen_url, "%s", PQgetvalue(res, 0, 3));
	}
	PQclear(res);
	return there;
}

/* --- who follows --- */

/* With the lock held: the row becomes ours, if it still is as it was when it was found stale. */
static void take(struct lease *l)
{
	const char *const values[] = {l->epoch, l->beat, l->session, l->url};
	int64_t sent_ms = now_ms();
	PGresult *res = ask(l,
			    "UPDATE ota_leader SET epoch = epoch + 1, beat = 0, session = $3,"
			    " url = $4 WHERE epoch = $1 AND beat = $2"
			    " RETURNING epoch, set_config('synchronous_commit', 'on', true)",
			    4, values);

	if (res && PQntuples(res) == 1) {
		snprintf(l->epoch, sizeof l->epoch, "%s", PQgetvalue(res, 0, 0));
		memcpy(l->held_session, l->session, sizeof l->held_session);
		memcpy(l->held_epoch, l->epoch, sizeof l->held_epoch);
		atomic_store(&l->until_ms, sent_ms + LEASE_MS);
		show(l, l->url, "");
		log_event(LOG_INFO, "lease", "taken", "this instance leads, in epoch %s; %s",
			  l->epoch,
			  l->seen_session[0] ? "the leader before it was silent" : "nobody led");
		PQclear(res);
		l->changed();
		return;
	}
	PQclear(res);
	if (l->c)
		PQclear(ask(l, "SELECT pg_advisory_unlock(" PG_LEADER_LOCK ")", 0, NULL));
}

static void follow(struct lease *l)
{
	if (!read_row(l))
		return;
	/* Without a session the leader has left of itself: there is nobody to wait for. */
	if (l->seen_session[0] && now_ms() - l->seen_ms < LEASE_STALE_MS) {
		show(l, l->seen_url, "");
		return;
	}
	show(l, "", "nobody leads at the moment");
	if (!l->retired && now_ms() >= l->not_before_ms && end_session(l, l->seen_session) &&
	    take_lock(l))
		take(l);
}

/* --- who leads --- */

/* After the session was lost: the lock again, if nobody else has led meanwhile. */
static enum moved hold_again(struct lease *l)
{
	const char *const values[] = {l->held_epoch, l->held_session, l->session};

	if (!read_row(l))
		return NOT_SAID;
	if (strcmp(l->epoch, l->held_epoch) != 0)
		return NOT_OURS;
	/* The server may not have noticed that nobody is at the old session any more. */
	if (!end_session(l, l->held_session) || !take_lock(l))
		return NOT_SAID;
	enum moved moved = move(l,
				"UPDATE ota_leader SET session = $3, beat = beat + 1"
				" WHERE epoch = $1 AND session = $2"
				" RETURNING set_config('synchronous_commit', 'on', true)",
				3, values);
	if (moved == MOVED) {
		memcpy(l->held_session, l->session, sizeof l->held_session);
		log_event(LOG_INFO, "lease", "held", "epoch %s goes on", l->epoch);
	}
	return moved;
}

static enum moved beat(struct lease *l)
{
	const char *const values[] = {l->held_epoch, l->session};

	return move(l,
		    "UPDATE ota_leader SET beat = beat + 1 WHERE epoch = $1 AND session = $2"
		    " RETURNING 1",
		    2, values);
}

static void lead(struct lease *l)
{
	int64_t sent_ms = now_ms();
	enum moved moved = strcmp(l->held_session, l->session) == 0 ? beat(l) : hold_again(l);

	if (moved == NOT_OURS)
		become_follower(l, "another instance has taken the lead");
	if (moved != MOVED)
		return;
	atomic_store(&l->until_ms, sent_ms + LEASE_MS);
	show(l, l->url, "");
}

static void resign(struct lease *l)
{
	const char *const values[] = {l->held_epoch, l->session};

	atomic_store(&l->until_ms, 0);
	if (l->c)
		(void)move(l,
			   "UPDATE ota_leader SET session = '', beat = beat + 1"
			   " WHERE epoch = $1 AND session = $2 RETURNING 1",
			   2, values);
}

/* --- the thread --- */

/* Until the next turn, somebody's call, or the server's end of the session, which shows at once. */
static void nap(struct lease *l, int ms)
{
	struct pollfd p[2] = {{.fd = l->wake_fd, .events = POLLIN},
			      {.fd = l->c ? PQsocket(l->c) : -1, .events = POLLIN}};
	uint64_t n;

	(void)poll(p, 2, ms);
	if (p[0].revents)
		(void)!read(l->wake_fd, &n, sizeof n);
	if (p[1].revents && (!PQconsumeInput(l->c) || PQstatus(l->c) != CONNECTION_OK)) {
		struct ota_err err;
		pg_fail(&l->place, l->c, NULL, NULL, NULL, &err);
		lose_session(l, &err);
	}
}

static void *run(void *arg)
{
	struct lease *l = arg;

	while (!l->stopping) {
		bool leads = l->held_session[0] != '\0';
		if (!l->c)
			connect_anew(l);
		if (l->resigning && leads) {
			resign(l);
			become_follower(l, "it was given up");
			l->not_before_ms = now_ms() + OTHERS_FIRST_MS;
		}
		l->resigning = false;
		if (l->c && l->held_session[0])
			lead(l);
		else if (l->c)
			follow(l);
		nap(l, leads && l->c ? LEASE_BEAT_MS : LEASE_LOOK_MS);
	}
	if (l->held_session[0])
		resign(l);
	return NULL;
}

/* --- start and stop --- */

static void lease_free(struct lease *l)
{
	PQfinish(l->c);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	pthread_mutex_destroy(&l->lock);
	free(l->place.conninfo);
	free(l);
}

enum ota_code lease_start(const char *conninfo, const char *url, void (*changed)(void),
			  struct lease **out, struct ota_err *err)
{
	struct lease *l = calloc(1, sizeof *l);

	if (!l)
		return ota_fail_nomem(err);
	pthread_mutex_init(&l->lock, NULL);
	l->changed = changed;
	l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	snprintf(l->url, sizeof l->url, "%s", url);
	snprintf(l->view.problem, sizeof l->view.problem, "it is not known yet who leads");
	l->place.conninfo = strdup(conninfo);
	if (!l->place.conninfo || l->wake_fd < 0) {
		ota_fail_nomem(err);
		lease_free(l);
		return err->code;
	}
	pg_name_place(&l->place);
	int rc = pthread_create(&l->thread, NULL, run, l);
	if (rc != 0) {
		lease_free(l);
		return ota_fail_errno(err, rc, "starting a thread");
	}
	*out = l;
	return OTA_OK;
}

static void wake(struct lease *l)
{
	uint64_t one = 1;

	(void)!write(l->wake_fd, &one, sizeof one);
}

void lease_resign(struct lease *l, bool for_good)
{
	if (for_good)
		l->retired = true;
	l->resigning = true;
	wake(l);
}

void lease_stop(struct lease **lp)
{
	struct lease *l = *lp;

	if (!l)
		return;
	l->stopping = true;
	wake(l);
	pthread_join(l->thread, NULL);
	lease_free(l);
	*lp = NULL;
}
