/* SPDX-License-Identifier: MIT */
/*
 * The service by libcurl.  Questions and reports are plain requests; the image is read as the agent
 * asks for it: the transfer fills a buffer and pauses while that is full, so that a slow flash (or
 * --speed) slows the sender down instead of filling memory.
 */
#include "port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX        65536
#define CONNECT_TIMEOUT_S 10L
#define REQUEST_TIMEOUT_S 30L
#define STALL_S           60L /* a download without a byte for so long is cut */

struct answer {
	struct buf body;
	struct paku_head head;
};

static size_t answer_body(char *data, size_t size, size_t n, void *arg)
{
	struct answer *a = arg;

	(void)size;
	if (a->body.len + n > ANSWER_MAX)
		return 0;
	buf_add(&a->body, data, n);
	return buf_ok(&a->body) ? n : 0;
}

static size_t answer_head(char *line, size_t size, size_t n, void *arg)
{
	(void)size;
	paku_head_line(&((struct answer *)arg)->head, line, n);
	return n;
}

static int aborting(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	(void)arg, (void)a, (void)b, (void)c, (void)d;
	return port_stop;
}

/* CURLE_OK, or the first option that libcurl refused. */
static CURLcode common_options(const struct port *p, CURL *h, const char *url)
{
	CURLcode rc = curl_easy_setopt(h, CURLOPT_URL, url);

	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
	if (!rc && p->opt.tls.ca)
		rc = curl_easy_setopt(h, CURLOPT_CAINFO, p->opt.tls.ca);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_USERAGENT, "paku-device/" PAKU_VERSION);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, aborting);
	return rc;
}

/* One short request; BODY (JSON) makes it a POST.  The status, or 0 if there is no answer. */
static long request(struct port *p, const char *url, const char *body, struct answer *a)
{
	CURL *h = p->net.api;
	struct curl_slist *headers = NULL;
	long status = 0;

	curl_easy_reset(h); /* keeps the connection */
	CURLcode rc = common_options(p, h, url);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_TIMEOUT, REQUEST_TIMEOUT_S);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, answer_body);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_WRITEDATA, a);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, answer_head);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_HEADERDATA, a);
	if (!rc && body) {
		headers = curl_slist_append(NULL, "Content-Type: application/json");
		rc = headers ? curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers)
			     : CURLE_OUT_OF_MEMORY;
	}
	if (!rc && body)
		rc = curl_easy_setopt(h, CURLOPT_POSTFIELDS, body);
	if (!rc)
		rc = curl_easy_perform(h);
	if (!rc)
		rc = curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &status);
	if (rc && !port_stop)
		port_say(p, "no_answer", "%s", curl_easy_strerror(rc));
	curl_slist_free_all(headers);
	return rc ? 0 : status;
}

static enum paku_outcome outcome_of(struct port *p, long status, const struct answer *a)
{
	if (status == 200)
		return PAKU_OK;
	if (status)
		port_say(p, "refused", "the service answers %ld: %.*s", status,
			 a->body.len > 300 ? 300 : (int)a->body.len,
			 a->body.data ? a->body.data : "");
	return status == 0 || status >= 500 || status == 429 || status == 408 ? PAKU_AGAIN
									      : PAKU_REFUSED;
}

static enum paku_outcome net_check(void *ctx, const char *version, struct paku_offer *offer,
				   uint32_t *retry_after_s)
{
	struct port *p = ctx;
	struct answer a = {BUF_INIT, {0}};
	char url[2048];

	*retry_after_s = 0;
	p->polls++;
	p->id.uptime_s = (uint32_t)((clock_mono_ms() - p->boot_mono_ms) / 1000);
	if (!paku_check_url(url, sizeof url, &p->id, version))
		return PAKU_REFUSED;
	long status = request(p, url, NULL, &a);
	enum paku_outcome outcome = outcome_of(p, status, &a);
	if (outcome == PAKU_OK &&
	    !paku_parse_offer(a.body.data ? a.body.data : "", a.body.len, offer, retry_after_s)) {
		port_say(p, "refused", "the service's answer to the check makes no sense");
		outcome = PAKU_REFUSED;
	}
	if (outcome != PAKU_OK)
		*retry_after_s = a.head.retry_after_s;
	buf_fini(&a.body);
	return outcome;
}

static enum paku_outcome net_report(void *ctx, const struct paku_report *report)
{
	struct port *p = ctx;
	struct answer a = {BUF_INIT, {0}};
	char url[1024], body[2048];

	if (!paku_report_url(url, sizeof url, &p->id) ||
	    !paku_report_body(body, sizeof body, &p->id, report))
		return PAKU_REFUSED;
	long status = request(p, url, body, &a);
	enum paku_outcome outcome = outcome_of(p, status, &a);
	buf_fini(&a.body);
	return outcome;
}

bool port_net_reachable(struct port *p)
{
	struct answer a = {BUF_INIT, {0}};
	char url[512];

	snprintf(url, sizeof url, "%s/health", p->opt.server);
	long status = request(p, url, NULL, &a);
	buf_fini(&a.body);
	return status != 0;
}

/* ------------------------------------------------------------------------------ the download */

static size_t download_head(char *line, size_t size, size_t n, void *arg)
{
	struct port_net *net = arg;

	(void)size;
	if (n > 5 && memcmp(line, "HTTP/", 5) == 0) {
		const char *space = memchr(line, ' ', n);
		net->head = (struct paku_head){0};
		net->head.status = space ? (int)strtol(space + 1, NULL, 10) : 0;
	} else if (line[0] == '\r' || line[0] == '\n') {
		net->head_done = net->head.status >= 200; /* 1xx: another head follows */
	} else {
		paku_head_line(&net->head, line, n);
	}
	return n;
}

static size_t download_body(char *data, size_t size, size_t n, void *arg)
{
	struct port_net *net = arg;

	(void)size;
	if (net->len == 0)
		net->start = 0;
	if (net->start + net->len + n > PORT_NET_BUFFER) {
		net->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	memcpy(net->data + net->start + net->len, data, n);
	net->len += n;
	return n;
}

/* Lets the transfer go on for a moment; sets `ended` with its result when it is over. */
static void download_pump(struct port *p)
{
	struct port_net *net = &p->net;
	struct curl_waitfd other = {.fd = port_mqtt_socket(p), .events = CURL_WAIT_POLLIN};
	int running = 0, left;
	CURLMcode rc = CURLM_OK;
	CURLMsg *msg;

	if (net->paused) {
		net->paused = false;
		if (curl_easy_pause(net->download, CURLPAUSE_CONT))
			rc = CURLM_INTERNAL_ERROR;
	}
	if (!rc)
		rc = curl_multi_perform(net->multi, &running);
	while (!rc && (msg = curl_multi_info_read(net->multi, &left))) {
		if (msg->msg != CURLMSG_DONE)
			continue;
		net->ended = true;
		net->result = msg->data.result;
	}
	if (!rc && !net->ended && !net->len && !net->paused)
		rc = curl_multi_poll(net->multi, &other, other.fd >= 0, 200, NULL);
	if (p->mqtt.client)
		port_mqtt_pump(p, 0);
	if (rc || (port_stop && !net->ended)) {
		net->ended = true;
		net->result = CURLE_ABORTED_BY_CALLBACK;
	}
}

static void net_close(void *ctx)
{
	struct port_net *net = &((struct port *)ctx)->net;

	if (!net->download)
		return;
	/* Fails only for a handle that was never added. */
	(void)curl_multi_remove_handle(net->multi, net->download);
	curl_easy_cleanup(net->download);
	curl_slist_free_all(net->headers);
	net->download = NULL;
	net->headers = NULL;
}

static CURLcode download_options(struct port *p, const char *url, uint32_t from,
				 const char *if_range)
{
	struct port_net *net = &p->net;
	CURL *h = net->download;
	char range[32], line[PAKU_ETAG_SIZE + 16];
	CURLcode rc = common_options(p, h, url);

	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, download_head);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_HEADERDATA, net);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, download_body);
	if (!rc)
		rc = curl_easy_setopt(h, CURLOPT_WRITEDATA, net);
	if (!rc && !p->opt.speed) /* our own slowness is no stall */
		rc = curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
	if (!rc && !p->opt.speed)
		rc = curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, STALL_S);
	if (rc || !from)
		return rc;
	snprintf(range, sizeof range, "%u-", (unsigned)from);
	snprintf(line, sizeof line, "If-Range: %s", if_range);
	net->headers = curl_slist_append(NULL, line);
	if (!net->headers)
		return CURLE_OUT_OF_MEMORY;
	rc = curl_easy_setopt(h, CURLOPT_RANGE, range);
	return rc ? rc : curl_easy_setopt(h, CURLOPT_HTTPHEADER, net->headers);
}

static int net_open(void *ctx, const char *url, uint32_t from, const char *if_range,
		    struct paku_head *head)
{
	struct port *p = ctx;
	struct port_net *net = &p->net;

	net_close(p);
	net->head_done = net->ended = net->paused = false;
	net->start = net->len = 0;
	net->head = (struct paku_head){0};
	net->download = curl_easy_init();
	if (!net->download)
		return -1;
	if (download_options(p, url, from, if_range) ||
	    curl_multi_add_handle(net->multi, net->download)) {
		net_close(p);
		return -1;
	}
	while (!net->head_done && !net->ended)
		download_pump(p);
	if (!net->head_done) {
		if (!port_stop)
			port_say(p, "no_answer", "%s", curl_easy_strerror(net->result));
		net_close(p);
		return -1;
	}
	*head = net->head;
	return 0;
}

static int32_t net_read(void *ctx, void *buf, uint32_t len)
{
	struct port *p = ctx;
	struct port_net *net = &p->net;

	if (p->opt.speed && len > p->opt.speed / 20 + 1)
		len = p->opt.speed / 20 + 1; /* so that the pauses are short */
	while (!net->len && !net->ended)
		download_pump(p);
	if (!net->len)
		return net->result == CURLE_OK ? 0 : -1;
	size_t n = net->len < len ? net->len : len;
	memcpy(buf, net->data + net->start, n);
	net->start += n;
	net->len -= n;
	if (p->opt.speed)
		port_sleep_ms((uint32_t)((uint64_t)n * 1000 / p->opt.speed));
	return port_stop ? -1 : (int32_t)n;
}

const struct paku_net_ops port_net_ops = {
	.check = net_check,
	.report = net_report,
	.open = net_open,
	.read = net_read,
	.close = net_close,
};

bool port_net_open(struct port *p, struct ota_err *err)
{
	p->net = (struct port_net){0};
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		ota_fail(err, OTA_EINTERNAL, "libcurl does not start");
		return false;
	}
	p->net.api = curl_easy_init();
	p->net.multi = curl_multi_init();
	p->net.data = malloc(PORT_NET_BUFFER);
	if (!p->net.api || !p->net.multi || !p->net.data) {
		port_net_close(p);
		ota_fail_nomem(err);
		return false;
	}
	return true;
}

void port_net_close(struct port *p)
{
	net_close(p);
	if (p->net.multi)
		curl_multi_cleanup(p->net.multi);
	curl_easy_cleanup(p->net.api);
	free(p->net.data);
	p->net = (struct port_net){0};
	curl_global_cleanup();
}
