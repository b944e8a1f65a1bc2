/* SPDX-License-Identifier: MIT */
/* The updater of the sketches: what it says at each turn, with a broker and a flash of paper. */
#include "paku_updater.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define SHA "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define COMMAND(version, attempt)                                                                  \
	"{\"url\":\"http://h/f?attempt=" attempt "\",\"checksum\":\"" SHA                          \
	"\",\"version\":\"" version "\"}"

static struct {
	struct paku_updater u;
	char said[4096]; /* "TOPIC PAYLOAD\n" each, the first two levels of the topic left out */
	char line[200];  /* kept */
	bool offline;
	enum paku_result result; /* of install */
	uint32_t now_ms;
	int installs, restarts, confirms;
} world;

static bool publish(struct paku_updater *u, const char *topic, const char *payload, bool retain)
{
	size_t used = strlen(world.said);

	(void)u;
	assert_int_equal(strncmp(topic, "paku/edge/dev/", 14), 0);
	assert_int_equal(retain, strcmp(topic + 14, "status") == 0);
	if (!world.offline)
		snprintf(world.said + used, sizeof world.said - used, "%s %s\n", topic + 14,
			 payload);
	return !world.offline;
}

/* Half, half a second later three quarters, and all of it. */
static enum paku_result install(struct paku_updater *u, const struct paku_offer *offer)
{
	world.installs++;
	assert_int_equal(offer->sha256[0], 0xba);
	assert_int_equal(world.line[0], '-'); /* a power cut now would be told */
	paku_updater_progress(u, PAKU_STATE_DOWNLOADING, 50, 100);
	world.now_ms += 500;
	paku_updater_progress(u, PAKU_STATE_DOWNLOADING, 75, 100);
	world.now_ms += 500;
	paku_updater_progress(u, PAKU_STATE_DOWNLOADING, 100, 100);
	paku_updater_progress(u, PAKU_STATE_INSTALLING, 100, 100);
	return world.result;
}

static void keep(struct paku_updater *u, const char *line)
{
	(void)u;
	snprintf(world.line, sizeof world.line, "%s", line);
}

static void kept(struct paku_updater *u, char *line, size_t size)
{
	(void)u;
	assert_true(strlen(world.line) < size);
	memcpy(line, world.line, strlen(world.line) + 1);
}

static void confirm(struct paku_updater *u)
{
	(void)u;
	world.confirms++;
}

static void restart(struct paku_updater *u)
{
	(void)u;
	world.restarts++;
}

static uint32_t now_ms(struct paku_updater *u)
{
	(void)u;
	return world.now_ms;
}

static void start(const char *version)
{
	static const struct paku_updater_io io = {publish, install, keep,  kept,
						  confirm, restart, now_ms};
	static const struct paku_identity id = {
		.device_id = "dev", .device_model = "esp32", .boot_id = "b1"};

	paku_updater_init(&world.u, &io, "paku", &id, version);
}

static int fresh(void **state)
{
	(void)state;
	memset(&world, 0, sizeof world);
	world.now_ms = 7000;
	start("1.0.0");
	return 0;
}

static bool command(const char *json)
{
	return paku_updater_command(&world.u, json, strlen(json));
}

static void said(const char *text)
{
	assert_string_equal(world.said, text);
	world.said[0] = '\0';
}

#define ABOUT "{\"version\":\"1.1.0\",\"attempt_id\":\"ABC\","

static void says_born(const char *version, int uptime_s, const char *then)
{
	char text[1000];

	snprintf(text, sizeof text,
		 "status {\"device_model\":\"esp32\",\"firmware_version\":\"%s\",\"online\":true,"
		 "\"boot_id\":\"b1\",\"uptime_s\":%d}\n%s",
		 version, uptime_s, then);
	said(text);
}

static void an_update(void **state)
{
	(void)state;
	paku_updater_connected(&world.u);
	says_born("1.0.0", 7, "");
	assert_int_equal(world.confirms, 1);
	paku_updater_run(&world.u); /* nothing to do */
	assert_true(command(COMMAND("1.1.0", "ABC")));
	said("ota/status " ABOUT "\"status\":\"accepted\"}\n");
	paku_updater_run(&world.u);
	said("ota/progress " ABOUT "\"state\":\"Downloading\",\"percent\":50,\"downloaded\":50,"
	     "\"total\":100,\"elapsed_ms\":0}\n"
	     "ota/progress " ABOUT "\"state\":\"Downloading\",\"percent\":100,\"downloaded\":100,"
	     "\"total\":100,\"elapsed_ms\":1000}\n"
	     "ota/progress " ABOUT "\"state\":\"Installing\",\"percent\":100,\"downloaded\":100,"
	     "\"total\":100,\"elapsed_ms\":1000}\n");
	assert_int_equal(world.restarts, 1);
	start("v1.1.0");
	world.offline = true; /* what cannot be said now is said at the next connection */
	paku_updater_connected(&world.u);
	assert_string_equal(world.line, "+1.1.0 ABC");
	world.offline = false;
	paku_updater_connected(&world.u);
	says_born("v1.1.0", 8,
		  "ota/result " ABOUT
		  "\"success\":true,\"result_code\":0,\"message\":\"it runs\"}\n");
	assert_string_equal(world.line, "");
	paku_updater_connected(&world.u);
	says_born("v1.1.0", 8, "");
}

static void what_fails_is_told_and_can_be_tried_again(void **state)
{
	(void)state;
	world.result = PAKU_RESULT_VERIFICATION_FAILED;
	for (int n = 1; n <= 2; n++) {
		assert_true(command(COMMAND("1.1.0", "ABC")));
		paku_updater_run(&world.u);
		assert_non_null(strstr(world.said, "\"success\":false,\"result_code\":3,"));
		assert_int_equal(world.installs, n);
		assert_string_equal(world.line, "");
	}
	assert_int_equal(world.restarts, 0);
}

static void the_old_version_after_a_restart(void **state)
{
	(void)state;
	/* It was installed, and the bootloader went back. */
	keep(NULL, "+1.1.0 ABC");
	paku_updater_connected(&world.u);
	says_born("1.0.0", 7,
		  "ota/result " ABOUT
		  "\"success\":false,\"result_code\":9,\"message\":\"it did not stay\"}\n");
	/* The power failed during the download, which says nothing of the image. */
	keep(NULL, "-1.1.0 ");
	paku_updater_connected(&world.u);
	says_born("1.0.0", 7,
		  "ota/result {\"version\":\"1.1.0\",\"success\":false,\"result_code\":2,"
		  "\"message\":\"a restart came between\"}\n");
	assert_string_equal(world.line, "");
}

static void commands_that_are_not_run(void **state)
{
	(void)state;
	assert_false(command("{}"));
	assert_false(command("nonsense"));
	said("");
	assert_false(command("{\"version\":\"2\",\"url\":\"ftp://h\",\"checksum\":\"" SHA "\"}"));
	assert_non_null(strstr(world.said, "\"result_code\":6,"));
	world.said[0] = '\0';
	assert_false(command(COMMAND("v1.0.0", "ABC")));
	assert_non_null(strstr(world.said, "\"success\":true,\"result_code\":0,"));
	world.said[0] = '\0';
	assert_true(command(COMMAND("1.1.0", "ABC")));
	world.said[0] = '\0';
	assert_false(command(COMMAND("1.1.0", "ABC")));
	said("");
	assert_false(command(COMMAND("1.2.0", "DEF")));
	said("ota/result {\"version\":\"1.2.0\",\"attempt_id\":\"DEF\",\"success\":false,"
	     "\"result_code\":10,\"message\":\"another update is under way\"}\n");
	/* A reconnect while it runs does not end it. */
	keep(NULL, "-1.1.0 ABC");
	paku_updater_connected(&world.u);
	says_born("1.0.0", 7, "");
}

static void its_topics(void **state)
{
	static const struct paku_updater_io io;
	static char site[PAKU_TOPIC_SIZE + 1];
	struct paku_updater u = {0};

	(void)state;
	assert_string_equal(world.u.status_topic, "paku/edge/dev/status");
	assert_string_equal(world.u.command_topic, "paku/edge/dev/cmd/ota");
	memset(site, 's', sizeof site - 1);
	paku_updater_init(&u, &io, site, &world.u.id, "1.0.0");
	assert_string_equal(u.status_topic, "");
	assert_string_equal(u.command_topic, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(its_topics, fresh),
		cmocka_unit_test_setup(an_update, fresh),
		cmocka_unit_test_setup(what_fails_is_told_and_can_be_tried_again, fresh),
		cmocka_unit_test_setup(the_old_version_after_a_restart, fresh),
		cmocka_unit_test_setup(commands_that_are_not_run, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
