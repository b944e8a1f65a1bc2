/* SPDX-License-Identifier: MIT */
/*
 * bench-mqtt-loop: what collecting and telling cost at the least, by the service's own connection
 * to the broker (src/mqtt/client.h) and nothing else.
 *
 *   bench-mqtt-loop PORT collect COUNT
 *   bench-mqtt-loop PORT publish COUNT BYTES
 *
 * collect: subscribes as the service does, says "ready", reads until the socket is dry or 1,000
 * messages are there, discards them, lets their acknowledgements go, and so on until COUNT.
 * publish: COUNT messages of BYTES with QoS 1 and an expiry, until all are acknowledged.
 * Both print one line of JSON; points in time are those of CLOCK_MONOTONIC.
 */
#include "mqtt_link.h"
#include "names.h"

#include <mqtt_protocol.h>
#include <string.h>

#define BATCH_MAX 1000

static struct client_config broker = {.host = "127.0.0.1", .user = "", .password = ""};
static uint64_t received, acked;

/* --- collect --- */

static void on_collector_up(struct client *c)
{
	static const char *const filters[] = {
		"+/edge/+/status",          "+/edge/+/ota/status",    "+/edge/+/ota/progress",
		"+/edge/+/ota/result",      "+/devices/+/status",     "+/devices/+/ota/status",
		"+/devices/+/ota/progress", "+/devices/+/ota/result",
	};
	char *topics[sizeof filters / sizeof filters[0]];

	for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++)
		topics[i] = (char *)(uintptr_t)filters[i];
	if (mosquitto_subscribe_multiple(c->m, NULL, sizeof filters / sizeof filters[0], topics, 1,
					 0, NULL) != MOSQ_ERR_SUCCESS)
		die("subscribing");
}

static void on_message(struct client *c, const struct mosquitto_message *m)
{
	(void)c;
	(void)m;
	received++;
}

static int collect(uint64_t count)
{
	struct client c = {.on_up = on_collector_up, .on_message = on_message};

	link_open(&c, &broker, "bench-loop");
	link_await(&c, true);
	printf("ready\n");
	fflush(stdout);
	double moved = now_s();
	while (received < count) {
		struct pollfd p = client_pollfd(&c);
		uint64_t until = received + BATCH_MAX;
		poll(&p, 1, 100);
		if (p.revents) {
			while (client_read(&c) && received < until)
				;
			client_write(&c);
			moved = now_s();
		}
		if (!c.m || now_s() - moved > PATIENCE_S)
			die(c.m ? "messages were lost" : c.problem);
	}
	double ended = now_s();
	client_fini(&c);
	printf("{\"messages\":%llu,\"ended\":%.6f}\n", (unsigned long long)received, ended);
	return 0;
}

/* --- publish --- */

static void on_ack(struct mosquitto *m, void *arg, int mid, int code,
		   const mosquitto_property *properties)
{
	struct client *c = arg;

	(void)m;
	(void)mid;
	(void)properties;
	if (code != 0)
		die(mosquitto_reason_string(code));
	c->packets++;
	acked++;
}

static void on_publisher_up(struct client *c)
{
	(void)c; /* it subscribes to nothing */
}

static void publish_one(struct client *c, uint32_t i, const char *payload, size_t len)
{
	mosquitto_property *expiry = NULL;
	char topic[64], id[BENCH_ID_SIZE];

	bench_device_id(i, id);
	snprintf(topic, sizeof topic, BENCH_SITE "/edge/%s/ota/cmd", id);
	if (mosquitto_property_add_int32(&expiry, MQTT_PROP_MESSAGE_EXPIRY_INTERVAL, 3600) != 0 ||
	    mosquitto_publish_v5(c->m, NULL, topic, (int)len, payload, 1, false, expiry) != 0)
		die("publishing");
	mosquitto_property_free_all(&expiry);
}

static int publish(uint32_t count, size_t bytes)
{
	struct client c = {.on_up = on_publisher_up};
	char *payload = malloc(bytes);
	uint32_t sent = 0;

	if (!payload)
		die("memory");
	memset(payload, 'x', bytes);
	link_open(&c, &broker, "bench-loop");
	mosquitto_publish_v5_callback_set(c.m, on_ack);
	link_await(&c, false);
	double begun = now_s();
	while (acked < count) {
		/* More than may be on their way: there is always one to send. */
		for (; sent < count && sent - acked < 1000; sent++)
			publish_one(&c, sent, payload, bytes);
		link_turn(&c, 100);
		if (now_s() - begun > PATIENCE_S)
			die("messages were lost");
	}
	client_fini(&c);
	free(payload);
	printf("{\"messages\":%u,\"begun\":%.6f}\n", count, begun);
	return 0;
}

int main(int argc, char **argv)
{
	static const _Atomic bool never;

	log_configure(LOG_WARNING, false);
	broker.stopping = &never;
	broker.port = argc > 1 ? atoi(argv[1]) : 0;
	mosquitto_lib_init();
	if (argc == 4 && strcmp(argv[2], "collect") == 0)
		return collect(strtoull(argv[3], NULL, 10));
	if (argc == 5 && strcmp(argv[2], "publish") == 0)
		return publish((uint32_t)strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	fprintf(stderr, "usage: bench-mqtt-loop PORT collect COUNT\n"
			"       bench-mqtt-loop PORT publish COUNT BYTES\n");
	return 2;
}
