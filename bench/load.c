/* SPDX-License-Identifier: MIT */
/*
 * bench-load: devices and operators as load, one thread, epoll, keep-alive.
 *
 *   bench-load PORT [--seconds S] [--requests N] [--key KEY] [--download PATH] STREAM...
 *
 * STREAM is KIND:CONNECTIONS:RATE:FROM:TO.  RATE 0: each connection asks again as soon as it has
 * its answer.  RATE > 0: so many requests a second in all, and a request's time counts from the
 * moment it was due, so that a stall is seen in full.  Devices FROM..TO-1 are played.  KINDs:
 *   check   a check-in that says nothing new
 *   report  the next report of a device's update: downloading, downloaded, installing, success
 *   upload  an upload of 16 MiB of firmware, the same again and again
 *   mixed   all of the above but uploads, and lists, explanations, downloads and mistakes
 * Ends after S seconds or N requests and prints one line of JSON: for each stream the requests,
 * what they were answered, and the time they took.
 */
#include "names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STREAMS_MAX  8
#define HEAD_MAX     8192
#define REQUEST_MAX  2048
#define UPLOAD_BYTES (16 * 1024 * 1024)
#define SEND_MAX     (256 * 1024) /* at once, so that other connections are not kept waiting */
#define HIST_LINEAR  100000       /* microseconds, one bucket each; beyond it the last one */

enum kind { KIND_CHECK, KIND_REPORT, KIND_UPLOAD, KIND_MIXED, KINDS };

static const char *const kind_names[KINDS] = {"check", "report", "upload", "mixed"};

struct stream {
	enum kind kind;
	int connections, idle_count;
	double rate, next_due;
	uint32_t from, to, next_device;
	uint64_t sequence;
	struct link **idle;
	/* the result */
	uint64_t requests, ok, client_errors, server_errors, broken, repeated;
	double max_us;
	uint32_t *histogram;
};

struct link {
	struct stream *stream;
	int fd;
	bool waiting; /* for an answer */
	double due;
	uint32_t device;
	int step; /* 0..3: the next report of the device; 4: take another */
	char request[REQUEST_MAX];
	size_t request_len, sent;
	const char *body; /* sent after the request */
	size_t body_len, body_sent;
	char head[HEAD_MAX];
	size_t head_len, body_left;
	bool head_done, close_after;
	int status;
};

static int port, epoll_fd;
static const char *api_key = "", *download_path = "/health";
static struct stream streams[STREAMS_MAX];
static int stream_count;
static char *upload_body;
static size_t upload_len;
static uint64_t total_done, total_max;

static void die(const char *what)
{
	fprintf(stderr, "bench-load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *get(size_t count, size_t size)
{
	void *p = calloc(count, size);

	if (!p)
		die("memory");
	return p;
}

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* --- requests --- */

#define HOST_LINE "Host: 127.0.0.1\r\n"

static uint32_t take_device(struct stream *s)
{
	uint32_t i = s->next_device++;

	if (s->next_device >= s->to)
		s->next_device = s->from;
	return i;
}

static int make_get(struct link *k, const char *target)
{
	return snprintf(k->request, REQUEST_MAX,
			"GET %s HTTP/1.1\r\n" HOST_LINE "X-API-Key: %s\r\n\r\n", target, api_key);
}

static int make_check(struct link *k)
{
	uint32_t i = take_device(k->stream);
	char id[BENCH_ID_SIZE];

	bench_device_id(i, id);
	return snprintf(k->request, REQUEST_MAX,
			"GET "
			"/api/firmware/"
			"check?device_id=%s&device_model=%s&current_version=" BENCH_RUNS_VERSION
			" HTTP/1.1\r\n" HOST_LINE "\r\n",
			id, bench_model(i));
}

static int make_report(struct link *k)
{
	static const char *const words[] = {"downloading", "downloaded", "installing", "success"};
	char id[BENCH_ID_SIZE], token[BENCH_TOKEN_SIZE], body[256];

	if (k->step > 3) {
		k->device = take_device(k->stream);
		k->step = 0;
	}
	bench_device_id(k->device, id);
	bench_token(k->device, token);
	int n = snprintf(body, sizeof body,
			 "{\"device_id\":\"%s\",\"firmware_version\":\"1.4.0\",\"status\":\"%s\","
			 "\"attempt_id\":\"%s\"}",
			 id, words[k->step++], token);
	return snprintf(k->request, REQUEST_MAX,
			"POST /api/device/%s/update-status HTTP/1.1\r\n" HOST_LINE
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			id, n, body);
}

static int make_upload(struct link *k)
{
	k->body = upload_body;
	k->body_len = upload_len;
	k->body_sent = 0;
	return snprintf(k->request, REQUEST_MAX,
			"POST /api/admin/firmware/upload?version=9.9.9&device_model=bench-raw&"
			"image_type=raw HTTP/1.1\r\n" HOST_LINE "X-API-Key: %s\r\n"
			"Content-Type: multipart/form-data; boundary=bench\r\n"
			"Content-Length: %zu\r\n\r\n",
			api_key, upload_len);
}

static int make_mixed(struct link *k)
{
	uint64_t n = k->stream->sequence++;
	char target[160], id[BENCH_ID_SIZE];

	bench_device_id(k->stream->from + (uint32_t)(n % (k->stream->to - k->stream->from)), id);
	switch (n % 20) {
	case 12:
	case 13: return make_report(k);
	case 14: return make_get(k, "/api/admin/devices?limit=20");
	case 15:
		snprintf(target, sizeof target, "/api/admin/update-status?device_id=%s", id);
		return make_get(k, target);
	case 16:
		snprintf(target, sizeof target, "/api/admin/devices/%s/explain", id);
		return make_get(k, target);
	case 17:
		return snprintf(k->request, REQUEST_MAX,
				"POST /api/device/%s/update-status HTTP/1.1\r\n" HOST_LINE
				"Content-Length: 9\r\n\r\n{\"no\":oh}",
				id);
	case 18: return make_get(k, "/api/nothing/here");
	case 19: return make_get(k, download_path);
	default: return make_check(k);
	}
}

static void make_upload_body(void)
{
	static const char head[] = "--bench\r\nContent-Disposition: form-data; name=\"file\"; "
				   "filename=\"firmware.bin\"\r\n\r\n";
	static const char tail[] = "\r\n--bench--\r\n";
	uint64_t x = 88172645463325252u;

	upload_len = sizeof head - 1 + UPLOAD_BYTES + sizeof tail - 1;
	upload_body = get(1, upload_len);
	memcpy(upload_body, head, sizeof head - 1);
	for (size_t i = 0; i < UPLOAD_BYTES; i += sizeof x) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(upload_body + sizeof head - 1 + i, &x, sizeof x);
	}
	memcpy(upload_body + upload_len - (sizeof tail - 1), tail, sizeof tail - 1);
}

/* --- connections --- */

static void link_connect(struct link *k)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = k};
	int one = 1;

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	k->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (k->fd < 0 || connect(k->fd, (struct sockaddr *)&at, sizeof at) != 0)
		die("connecting");
	setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (fcntl(k->fd, F_SETFL, O_NONBLOCK) != 0 ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, k->fd, &ev) != 0)
		die("watching");
}

static void want(struct link *k, bool out)
{
	struct epoll_event ev = {.events = EPOLLIN | (out ? (uint32_t)EPOLLOUT : 0), .data.ptr = k};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, k->fd, &ev) != 0)
		die("watching");
}

static void finish(struct link *k, bool broken);

static void link_write(struct link *k)
{
	bool was_blocked = k->sent > 0;

	while (k->sent < k->request_len) {
		ssize_t n =
			send(k->fd, k->request + k->sent, k->request_len - k->sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			finish(k, true);
			return;
		}
		k->sent += (size_t)n;
	}
	if (k->sent == k->request_len && k->body_sent < k->body_len) {
		size_t left = k->body_len - k->body_sent;
		ssize_t n = send(k->fd, k->body + k->body_sent, left < SEND_MAX ? left : SEND_MAX,
				 MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN) {
			finish(k, true);
			return;
		}
		k->body_sent += n > 0 ? (size_t)n : 0;
	}
	bool more = k->sent < k->request_len || k->body_sent < k->body_len;
	if (more || was_blocked)
		want(k, more);
}

static void begin(struct link *k, double due)
{
	struct stream *s = k->stream;
	int n = 0;

	k->body_len = k->body_sent = 0;
	switch (s->kind) {
	case KIND_CHECK: n = make_check(k); break;
	case KIND_REPORT: n = make_report(k); break;
	case KIND_UPLOAD: n = make_upload(k); break;
	case KIND_MIXED: n = make_mixed(k); break;
	case KINDS: break;
	}
	k->request_len = (size_t)n;
	k->sent = k->head_len = k->body_left = 0;
	k->head_done = k->close_after = false;
	k->waiting = true;
	k->due = due;
	link_write(k);
}

/* The request has its answer, or will not get one. */
static void finish(struct link *k, bool broken)
{
	struct stream *s = k->stream;
	double us = now_us() - k->due;

	if (k->waiting) {
		s->requests++;
		total_done++;
		if (broken)
			s->broken++;
		else if (k->status < 400)
			s->ok++;
		else
			*(k->status < 500 ? &s->client_errors : &s->server_errors) += 1;
		s->histogram[us < HIST_LINEAR ? (int)us : HIST_LINEAR]++;
		if (us > s->max_us)
			s->max_us = us;
	}
	k->waiting = false;
	if (broken || k->close_after) {
		close(k->fd);
		link_connect(k);
	}
	if (s->rate > 0)
		s->idle[s->idle_count++] = k;
	else if (!total_max || total_done < total_max)
		begin(k, now_us());
}

/* --- answers --- */

/* False: the head is not whole yet. */
static bool read_head(struct link *k)
{
	char *end;

	k->head[k->head_len] = '\0';
	end = strstr(k->head, "\r\n\r\n");
	if (!end)
		return false;
	k->status = atoi(k->head + 9);
	char *length = strcasestr(k->head, "\r\nContent-Length:");
	size_t body = length && length < end ? strtoull(length + 17, NULL, 10) : 0;
	char *close_line = strcasestr(k->head, "\r\nConnection: close");
	k->close_after = close_line && close_line < end;
	size_t here = k->head_len - (size_t)(end + 4 - k->head);
	if (k->stream->kind == KIND_REPORT && strstr(end, "already known"))
		k->stream->repeated++;
	k->body_left = body > here ? body - here : 0;
	k->head_done = true;
	return true;
}

static void link_read(struct link *k)
{
	static char waste[256 * 1024];

	for (;;) {
		char *to = k->head_done ? waste : k->head + k->head_len;
		size_t room = k->head_done ? sizeof waste : HEAD_MAX - 1 - k->head_len;
		ssize_t n = recv(k->fd, to, room, 0);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0 || !k->waiting) {
			finish(k, true);
			return;
		}
		if (k->head_done) {
			k->body_left -= (size_t)n < k->body_left ? (size_t)n : k->body_left;
		} else {
			k->head_len += (size_t)n;
			if (!read_head(k)) {
				if (k->head_len >= HEAD_MAX - 1) {
					finish(k, true);
					return;
				}
				continue;
			}
		}
		if (k->body_left == 0) {
			finish(k, false);
			return;
		}
	}
}

/* --- the run --- */

static void stream_start(struct stream *s)
{
	s->histogram = get(HIST_LINEAR + 1, sizeof *s->histogram);
	s->idle = get((size_t)s->connections, sizeof(struct link *));
	s->next_device = s->from;
	for (int i = 0; i < s->connections; i++) {
		struct link *k = get(1, sizeof *k);
		k->stream = s;
		k->step = 4;
		link_connect(k);
		s->idle[s->idle_count++] = k;
	}
}

/* Sends what is due; returns when the next one is. */
static double stream_pace(struct stream *s, double now)
{
	while (s->rate > 0 && s->next_due <= now && s->idle_count > 0) {
		double due = s->next_due;
		s->next_due += 1e6 / s->rate;
		begin(s->idle[--s->idle_count], due);
	}
	return s->rate > 0 && s->idle_count > 0 ? s->next_due : now + 1e6;
}

static void run_until(double end)
{
	struct epoll_event events[256];

	for (double now = now_us(); now < end && (!total_max || total_done < total_max);
	     now = now_us()) {
		double wake = end;
		for (int i = 0; i < stream_count; i++) {
			double next = stream_pace(&streams[i], now);
			wake = next < wake ? next : wake;
		}
		double wait_us = wake - now_us();
		if (wait_us < 0)
			wait_us = 0;
		struct timespec wait = {(time_t)(wait_us / 1e6),
					(long)(wait_us - 1e6 * (double)(time_t)(wait_us / 1e6)) *
						1000};
		int n = epoll_pwait2(epoll_fd, events, 256, &wait, NULL);
		for (int i = 0; i < n; i++) {
			struct link *k = events[i].data.ptr;
			if (events[i].events & EPOLLOUT)
				link_write(k);
			if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				link_read(k);
		}
	}
}

static double percentile(const struct stream *s, double share)
{
	uint64_t rank = (uint64_t)((double)s->requests * share), seen = 0;

	for (int i = 0; i <= HIST_LINEAR; i++) {
		seen += s->histogram[i];
		if (seen > rank)
			return i < HIST_LINEAR ? i : s->max_us;
	}
	return s->max_us;
}

static void print_results(double seconds)
{
	printf("{\"seconds\":%.3f,\"requests\":%llu,\"per_s\":%.1f", seconds,
	       (unsigned long long)total_done, (double)total_done / seconds);
	for (int i = 0; i < stream_count; i++) {
		const struct stream *s = &streams[i];
		printf(",\"%s\":{\"requests\":%llu,\"ok\":%llu,\"client_errors\":%llu,"
		       "\"server_errors\":%llu,\"broken\":%llu,\"repeated\":%llu,\"per_s\":%.1f,"
		       "\"p50_us\":%.0f,\"p99_us\":%.0f,\"max_us\":%.0f}",
		       kind_names[s->kind], (unsigned long long)s->requests,
		       (unsigned long long)s->ok, (unsigned long long)s->client_errors,
		       (unsigned long long)s->server_errors, (unsigned long long)s->broken,
		       (unsigned long long)s->repeated, (double)s->requests / seconds,
		       percentile(s, 0.5), percentile(s, 0.99), s->max_us);
	}
	printf("}\n");
}

static bool parse_stream(const char *text)
{
	struct stream *s = &streams[stream_count];
	char name[16];

	if (stream_count == STREAMS_MAX ||
	    sscanf(text, "%15[a-z]:%d:%lf:%u:%u", name, &s->connections, &s->rate, &s->from,
		   &s->to) != 5 ||
	    s->connections < 1 || s->to <= s->from)
		return false;
	for (int i = 0; i < KINDS; i++)
		if (strcmp(name, kind_names[i]) == 0) {
			s->kind = (enum kind)i;
			stream_count++;
			return true;
		}
	return false;
}

static int usage(void)
{
	fprintf(stderr, "usage: bench-load PORT [--seconds S] [--requests N] [--key KEY]"
			" [--download PATH] KIND:CONNECTIONS:RATE:FROM:TO...\n");
	return 2;
}

int main(int argc, char **argv)
{
	double seconds = 3600;

	if (argc < 3)
		return usage();
	port = atoi(argv[1]);
	for (int i = 2; i < argc; i++) {
		bool value = i + 1 < argc;
		if (value && strcmp(argv[i], "--seconds") == 0)
			seconds = strtod(argv[++i], NULL);
		else if (value && strcmp(argv[i], "--requests") == 0)
			total_max = strtoull(argv[++i], NULL, 10);
		else if (value && strcmp(argv[i], "--key") == 0)
			api_key = argv[++i];
		else if (value && strcmp(argv[i], "--download") == 0)
			download_path = argv[++i];
		else if (!parse_stream(argv[i]))
			return usage();
	}
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll");
	for (int i = 0; i < stream_count; i++) {
		if (streams[i].kind == KIND_UPLOAD)
			make_upload_body();
		stream_start(&streams[i]);
	}
	double begun = now_us();
	for (int i = 0; i < stream_count; i++) {
		struct stream *s = &streams[i];
		s->next_due = begun;
		int n = s->idle_count;
		if (s->rate > 0)
			continue;
		s->idle_count = 0;
		for (int k = 0; k < n; k++)
			begin(s->idle[k], begun);
	}
	run_until(begun + seconds * 1e6);
	print_results((now_us() - begun) / 1e6);
	return 0;
}
