/* SPDX-License-Identifier: MIT */
/*
 * paku-device: the agent's life on Linux.
 *
 * One turn of the outer loop is one boot: the bootloader's choice, the agent set up anew from the
 * boot record, and steps until it asks for a restart.  Nothing but the files in --dir and the
 * command line survives a turn, so a kill -9 at any moment is a power cut like any other.
 */
#include "port.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_BOOTS         3
#define REPORT_TRIES_ONCE 3 /* --once does not wait for ever for a service that is gone */
#define SELFTEST_LOOKS    20
#define SELFTEST_LOOK_MS  10

volatile sig_atomic_t port_stop;

static void on_signal(int number)
{
	(void)number;
	port_stop = 1;
}

void port_sleep_ms(uint32_t ms)
{
	struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

	if (!port_stop)
		(void)nanosleep(&t, NULL); /* cut short by a signal, which is what we want */
}

static bool over_mqtt(const struct port *p)
{
	return p->opt.mqtt.host[0] != '\0';
}

/* ------------------------------------------------------------------------- the agent's needs */

static uint32_t sys_now_ms(void *ctx)
{
	(void)ctx;
	return (uint32_t)clock_mono_ms();
}

static uint32_t sys_random(void *ctx)
{
	uint32_t value = 0;

	/* Without it there is no jitter, and all else goes on. */
	return random_bytes(&value, sizeof value) ? value : (uint32_t)(uintptr_t)ctx;
}

/* A digest that cannot be made stays NULL, and becomes all zero: no image has that. */
static void sys_sha_init(void *ctx)
{
	struct port *p = ctx;

	sha256_free(&p->sha);
	p->sha = sha256_new();
}

static void sys_sha_update(void *ctx, const void *data, uint32_t len)
{
	struct port *p = ctx;

	if (p->sha && !sha256_update(p->sha, data, len))
		sha256_free(&p->sha);
}

static void sys_sha_final(void *ctx, uint8_t out[PAKU_SHA256_SIZE])
{
	struct port *p = ctx;

	if (!p->sha || !sha256_final(p->sha, out))
		memset(out, 0, PAKU_SHA256_SIZE);
}

/* The image that runs reads back as it was verified when it came. */
static bool image_verifies(struct port *p)
{
	const struct paku_slot *slot = &p->agent.rec.slot[p->agent.running];
	uint8_t digest[PAKU_SHA256_SIZE];

	sys_sha_init(p);
	for (uint32_t at = 0, n; at < slot->size; at += n) {
		n = slot->size - at < PORT_BLOCK_SIZE ? slot->size - at : PORT_BLOCK_SIZE;
		if (port_flash_ops.read(p, p->agent.running, at, p->block, n))
			return false;
		sys_sha_update(p, p->block, n);
	}
	sys_sha_final(p, digest);
	return memcmp(digest, slot->sha256, sizeof digest) == 0;
}

/* Ends a self-test that is under way; what it has started ends with it. */
static void selftest_end(struct port *p)
{
	if (p->selftest_pid <= 0)
		return;
	(void)kill(-p->selftest_pid, SIGKILL);
	(void)kill(p->selftest_pid, SIGKILL); /* its group may not be there yet */
	while (waitpid(p->selftest_pid, NULL, 0) < 0 && errno == EINTR)
		;
	p->selftest_pid = 0;
}

/* The command is told what it judges: PAKU_VERSION and PAKU_IMAGE, the slot's file. */
static bool selftest_begin(struct port *p)
{
	char path[4096];
	int n = snprintf(path, sizeof path, "%s/slot%d", p->opt.dir, p->agent.running);

	if (n < 0 || (size_t)n >= sizeof path || setenv("PAKU_IMAGE", path, 1) ||
	    setenv("PAKU_VERSION", paku_version(&p->agent), 1))
		return false;
	p->selftest_pid = fork();
	if (p->selftest_pid == 0) {
		(void)setpgid(0, 0);
		execl("/bin/sh", "sh", "-c", p->opt.selftest, (char *)NULL);
		_exit(127);
	}
	return p->selftest_pid > 0;
}

/*
 * Not waited for longer than a moment: the agent asks again, and whoever sends us a signal, or
 * trial_s, is not kept waiting by a command that hangs.
 */
static enum paku_test command_selftest(struct port *p)
{
	int status = 0;

	if (p->selftest_pid <= 0 && !selftest_begin(p))
		return PAKU_TEST_FAIL;
	for (int i = 0; i < SELFTEST_LOOKS && !port_stop; i++) {
		pid_t ended = waitpid(p->selftest_pid, &status, WNOHANG);
		if (ended) {
			p->selftest_pid = 0;
			return ended > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0
				       ? PAKU_TEST_PASS
				       : PAKU_TEST_FAIL;
		}
		port_sleep_ms(SELFTEST_LOOK_MS);
	}
	return PAKU_TEST_WAIT;
}

static enum paku_test sys_selftest(void *ctx)
{
	struct port *p = ctx;

	if (p->opt.fail == FAIL_SELFTEST)
		return PAKU_TEST_FAIL;
	if (p->opt.selftest)
		return command_selftest(p);
	if (!image_verifies(p))
		return PAKU_TEST_FAIL;
	bool reached = over_mqtt(p) ? p->mqtt.connected : port_net_reachable(p);
	return reached ? PAKU_TEST_PASS : PAKU_TEST_WAIT;
}

static void wire(struct port *p)
{
	const struct options *o = &p->opt;

	p->cfg = (struct paku_config)PAKU_CONFIG_DEFAULT(o->slot_size);
	p->cfg.block_size = PORT_BLOCK_SIZE;
	p->cfg.save_blocks = 4;
	p->cfg.max_boots = MAX_BOOTS;
	p->cfg.trial_s = o->trial_s;
	if (o->poll_s) {
		p->cfg.poll_s = o->poll_s;
		p->cfg.poll_fixed = true;
	}
	p->id = (struct paku_identity){.server = o->server,
				       .device_id = o->id,
				       .device_model = o->model,
				       .mac = o->mac,
				       .hw = o->hw,
				       .boot_id = p->boot_id};
	p->io = (struct paku_io){
		.ctx = p,
		.flash = port_flash_ops,
		.net = port_net_ops,
		.sys = {.now_ms = sys_now_ms,
			.random = sys_random,
			.sha256_init = sys_sha_init,
			.sha256_update = sys_sha_update,
			.sha256_final = sys_sha_final,
			.selftest = sys_selftest,
			.event = port_event},
	};
	if (over_mqtt(p)) {
		p->io.net.check = port_mqtt_check;
		p->io.net.report = port_mqtt_report;
	}
}

/* ------------------------------------------------------------------------------------- boots */

/* A fresh start: what a chip would know of itself after its reset. */
static bool boot_begin(struct port *p, int slot)
{
	uint8_t id[16];
	static const uint8_t unknown[PAKU_SHA256_SIZE];

	if (!random_bytes(id, sizeof id))
		return false;
	hex_encode(id, sizeof id, p->boot_id);
	p->boot_mono_ms = clock_mono_ms();
	if (!paku_init(&p->agent, &p->io, &p->cfg, p->block, slot, p->opt.version))
		return false;
	const struct paku_slot *running = &p->agent.rec.slot[slot];
	bool known = memcmp(running->sha256, unknown, sizeof unknown) != 0;
	hex_encode(running->sha256, sizeof running->sha256, p->digest);
	p->id.firmware_digest = known ? p->digest : NULL;
	port_say(p, "boot", "running %s from slot %d", paku_version(&p->agent), slot);
	return true;
}

/* Nothing more to do for --once or --max-polls. */
static bool finished(const struct port *p, enum paku_next next)
{
	bool waiting = next == PAKU_WAIT && strcmp(paku_phase_name(&p->agent), "check") == 0;
	bool undelivered = p->agent.rec.due && p->agent.report_tries < REPORT_TRIES_ONCE;

	if (over_mqtt(p))
		return p->opt.once && waiting && p->mqtt.ended;

	if (p->opt.once && p->update_ended && !undelivered)
		return true;
	/* Waiting after a check; not before another one, as when the image at the URL changed. */
	bool rests = waiting && p->polls && (!p->agent.tries || p->outcome == EXIT_SERVICE);
	if (p->opt.once && rests && !undelivered)
		return true;
	return waiting && p->opt.max_polls && p->polls >= p->opt.max_polls && !undelivered;
}

/* Runs one boot; true if the process is to end. */
static bool boot_run(struct port *p)
{
	uint32_t wait_ms;

	while (!port_stop) {
		if (over_mqtt(p)) {
			port_mqtt_pump(p, 0);
			port_mqtt_begin(p);
		}
		enum paku_next next = paku_step(&p->agent, &wait_ms);
		if (finished(p, next))
			return true;
		if (next == PAKU_RESTART)
			return false;
		if (next == PAKU_WAIT && over_mqtt(p))
			port_mqtt_pump(p, wait_ms);
		else if (next == PAKU_WAIT)
			port_sleep_ms(wait_ms);
	}
	return true;
}

static enum port_exit live(struct port *p)
{
	bool done = false;

	while (!done && !port_stop) {
		int slot = paku_boot_choose(&p->io, p->cfg.max_boots);
		if (!boot_begin(p, slot))
			return EXIT_STATE;
		if (p->opt.fail == FAIL_BOOT && p->agent.rec.trial == slot) {
			port_say(p, "crash", "%s does not start", paku_version(&p->agent));
			continue;
		}
		if (over_mqtt(p) && !port_mqtt_start(p))
			return EXIT_STATE;
		done = boot_run(p);
		selftest_end(p);
		port_net_ops.close(p);
		if (!done)
			port_mqtt_reset(p);
		if (!done && !port_stop)
			port_say(p, "restart", "restarting");
	}
	return p->opt.once || p->opt.max_polls ? p->outcome : EXIT_FINE;
}

/* With the network of the options. */
static int run(struct port *p)
{
	struct ota_err err = {0};

	if (!over_mqtt(p))
		return (int)live(p);
	if (!port_mqtt_open(p, &err)) {
		fprintf(stderr, "paku-device: %s\n", err.msg);
		return EXIT_STATE;
	}
	port_command_load(p);
	enum port_exit code = live(p);
	port_mqtt_close(p);
	return (int)code;
}

int main(int argc, char **argv)
{
	static struct port p;
	struct ota_err err = {0};
	struct sigaction stop = {.sa_handler = on_signal};
	int code = options_parse(&p.opt, argc, argv);

	if (code >= 0)
		return code;
	setvbuf(stderr, NULL, _IOLBF, 0);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	wire(&p);
	p.block = malloc(PORT_BLOCK_SIZE);
	if (!p.block || !port_net_open(&p, &err)) {
		fprintf(stderr, "paku-device: %s\n", p.block ? err.msg : "out of memory");
		free(p.block);
		return EXIT_STATE;
	}
	if (port_flash_open(&p, &err)) {
		code = run(&p);
		port_flash_close(&p);
	} else {
		fprintf(stderr, "paku-device: --dir %s: %s\n", p.opt.dir, err.msg);
		code = EXIT_STATE;
	}
	port_net_close(&p);
	sha256_free(&p.sha);
	free(p.block);
	return code;
}
