/* SPDX-License-Identifier: MIT */
#include "base/jobs.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define THREADS_MAX 16

struct jobs {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct job *first, **end;
	size_t waiting;
	bool stopping;
	int thread_count, nice;
	pthread_t threads[THREADS_MAX];
};

static void *run(void *arg)
{
	struct jobs *j = arg;

	/* A wish: where it is not granted the work is done all the same. */
	if (j->nice)
		(void)setpriority(PRIO_PROCESS, (id_t)gettid(), j->nice);
	pthread_mutex_lock(&j->lock);
	for (;;) {
		while (!j->first && !j->stopping)
			pthread_cond_wait(&j->work, &j->lock);
		struct job *job = j->first;
		if (!job)
			break;
		j->first = job->next;
		if (!j->first)
			j->end = &j->first;
		j->waiting--;
		pthread_mutex_unlock(&j->lock);
		job->fn(job);
		pthread_mutex_lock(&j->lock);
	}
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

enum ota_code jobs_start(int threads, int nice, struct jobs **out, struct ota_err *err)
{
	struct jobs *j = calloc(1, sizeof *j);

	if (!j)
		return ota_fail_nomem(err);
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->work, NULL);
	j->end = &j->first;
	j->nice = nice;
	for (; j->thread_count < threads && j->thread_count < THREADS_MAX; j->thread_count++) {
		int rc = pthread_create(&j->threads[j->thread_count], NULL, run, j);
		if (rc != 0) {
			jobs_stop(&j);
			return ota_fail_errno(err, rc, "starting a thread");
		}
	}
	*out = j;
	return OTA_OK;
}

void jobs_stop(struct jobs **jp)
{
	struct jobs *j = *jp;

	if (!j)
		return;
	pthread_mutex_lock(&j->lock);
	j->stopping = true;
	pthread_cond_broadcast(&j->work);
	pthread_mutex_unlock(&j->lock);
	for (int i = 0; i < j->thread_count; i++)
		pthread_join(j->threads[i], NULL);
	pthread_mutex_destroy(&j->lock);
	pthread_cond_destroy(&j->work);
	free(j);
	*jp = NULL;
}

void jobs_submit(struct jobs *j, struct job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&j->lock);
	*j->end = job;
	j->end = &job->next;
	j->waiting++;
	pthread_cond_signal(&j->work);
	pthread_mutex_unlock(&j->lock);
}

size_t jobs_waiting(struct jobs *j)
{
	pthread_mutex_lock(&j->lock);
	size_t n = j->waiting;
	pthread_mutex_unlock(&j->lock);
	return n;
}
