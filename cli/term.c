/* SPDX-License-Identifier: MIT */
/* See term.h.  Control sequences are ECMA-48 and xterm's alternate screen. */
#include "cli/term.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Without automatic wrap a line that is too long ends at the edge, and moves nothing. */
#define SCREEN_ENTER "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
#define SCREEN_LEAVE "\x1b[?7h\x1b[?25h\x1b[?1049l"

#define SAME_END_MS 500

static struct {
	bool utf8, colour_out, colour_err;
	volatile sig_atomic_t interrupted;
	volatile int64_t ended_ms;    /* the last SIGINT or SIGTERM that counted; 0: none */
	volatile sig_atomic_t screen; /* the alternate screen is up */
	volatile sig_atomic_t raw_fd; /* whose termios were changed, -1: none */
	struct termios saved;
} term = {.raw_fd = -1};

static void write_all(const char *s, size_t n)
{
	while (n > 0) {
		ssize_t done = write(STDOUT_FILENO, s, n);

		if (done <= 0 && errno != EINTR)
			return;
		if (done > 0) {
			s += done;
			n -= (size_t)done;
		}
	}
}

/* Async-signal-safe. */
static void leave(void)
{
	if (term.screen)
		write_all(SCREEN_LEAVE, sizeof(SCREEN_LEAVE) - 1);
	if (term.raw_fd >= 0)
		tcsetattr(term.raw_fd, TCSANOW, &term.saved);
}

/* `timeout` and process groups say it twice at once, or in two words: that is one wish.  A second
 * one, half a second later, is impatience. */
static void on_end(int sig)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	int64_t now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	if (term.ended_ms && now_ms - term.ended_ms < SAME_END_MS)
		return;
	term.ended_ms = now_ms;
	if (term.interrupted) {
		leave();
		_exit(128 + sig);
	}
	term.interrupted = 1;
}

/* Ctrl-Z: the shell gets its terminal back as it was, and we take ours again after `fg`. */
static void on_stop(int sig)
{
	int saved_errno = errno;
	struct termios ours;
	bool have = term.raw_fd >= 0 && tcgetattr(term.raw_fd, &ours) == 0;

	(void)sig;
	leave();
	raise(SIGSTOP);
	if (have)
		tcsetattr(term.raw_fd, TCSANOW, &ours);
	if (term.screen)
		write_all(SCREEN_ENTER, sizeof(SCREEN_ENTER) - 1);
	errno = saved_errno;
}

static void on_resize(int sig)
{
	(void)sig; /* it only ends poll() */
}

static void handle(int sig, void (*handler)(int))
{
	struct sigaction old, sa = {.sa_handler = handler};

	/* One at a time: on_end() must see what the one before it has set. */
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGINT);
	sigaddset(&sa.sa_mask, SIGTERM);
	if (sigaction(sig, NULL, &old) == 0 && old.sa_handler == SIG_IGN)
		return; /* nohup, a background job: leave it so */
	sigaction(sig, &sa, NULL);
}

void term_init(void)
{
	const char *no_colour = getenv("NO_COLOR"), *name = getenv("TERM");
	bool dumb = !name || !*name || strcmp(name, "dumb") == 0, colour;

	setlocale(LC_ALL, "");
	term.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	/* Widths of characters are looked up in a UTF-8 table either way; numbers stay in C's form.
	 */
	setlocale(LC_NUMERIC, "C");
	if (!term.utf8)
		setlocale(LC_CTYPE, "C.UTF-8");
	colour = !dumb && !(no_colour && *no_colour);
	term.colour_out = colour && isatty(STDOUT_FILENO);
	term.colour_err = colour && isatty(STDERR_FILENO);
	handle(SIGINT, on_end);
	handle(SIGTERM, on_end);
	handle(SIGHUP, on_end);
}

void term_restore(void)
{
	leave();
	term.screen = 0;
	term.raw_fd = -1;
}

bool term_is_tty(FILE *f)
{
	return isatty(fileno(f));
}

static bool window(struct winsize *w)
{
	return (ioctl(STDOUT_FILENO, TIOCGWINSZ, w) == 0 && w->ws_col > 0) ||
	       (ioctl(STDERR_FILENO, TIOCGWINSZ, w) == 0 && w->ws_col > 0);
}

int term_columns(void)
{
	const char *env = getenv("COLUMNS");
	struct winsize w;
	long n;

	if (window(&w))
		return w.ws_col;
	n = env ? strtol(env, NULL, 10) : 0;
	return n >= 20 && n <= 1000 ? (int)n : 80;
}

int term_lines(void)
{
	struct winsize w;

	return window(&w) && w.ws_row > 0 ? w.ws_row : 24;
}

bool term_utf8(void)
{
	return term.utf8;
}

static const char *const sgr[] = {
	[COLOUR_NONE] = "\x1b[0m",  [COLOUR_BOLD] = "\x1b[1m",   [COLOUR_DIM] = "\x1b[2m",
	[COLOUR_RED] = "\x1b[31m",  [COLOUR_GREEN] = "\x1b[32m", [COLOUR_YELLOW] = "\x1b[33m",
	[COLOUR_CYAN] = "\x1b[36m",
};

const char *term_sgr(enum colour colour)
{
	return term.colour_out ? sgr[colour] : "";
}

const char *term_sgr_err(enum colour colour)
{
	return term.colour_err ? sgr[colour] : "";
}

bool term_interrupted(void)
{
	return term.interrupted != 0;
}

bool term_take_interrupt(void)
{
	bool was = term.interrupted != 0;

	term.interrupted = 0;
	return was;
}

/* Changes the line discipline of FD, only in the foreground: in the background it would stop us. */
static bool quiet(int fd, tcflag_t off)
{
	struct termios t;

	if (tcgetpgrp(fd) != getpgrp() || tcgetattr(fd, &term.saved) != 0)
		return false;
	t = term.saved;
	t.c_lflag &= ~off;
	term.raw_fd = fd;
	return tcsetattr(fd, TCSAFLUSH, &t) == 0;
}

bool term_screen_open(void)
{
	if (!isatty(STDOUT_FILENO))
		return false;
	fflush(stdout);
	if (isatty(STDIN_FILENO))
		quiet(STDIN_FILENO, ECHO | ICANON);
	term.screen = 1;
	handle(SIGTSTP, on_stop);
	handle(SIGWINCH, on_resize);
	write_all(SCREEN_ENTER, sizeof(SCREEN_ENTER) - 1);
	return true;
}

void term_screen_close(void)
{
	fflush(stdout);
	term_restore();
	signal(SIGTSTP, SIG_DFL);
}

/*
 * Waits for input on FD (-1: for nothing but time and signals).  The signals that end us are let in
 * only while poll sleeps: one that comes between a look at the flag and the sleep is not slept
 * over.
 */
static bool wait_input(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	sigset_t ends, before;
	int n = -1;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, &before);
	if (!term.interrupted)
		n = ppoll(&p, 1, ms < 0 ? NULL : &ts, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return n > 0;
}

bool term_wait(int ms)
{
	char key;

	if (!wait_input(term.raw_fd, ms))
		return false;
	if (read(term.raw_fd, &key, 1) == 1)
		return key == 'q' || key == 'Q';
	term.raw_fd = -1; /* hung up */
	return false;
}

/* One byte a read, so that what follows the line stays for whoever reads next. */
static char *read_line(int fd)
{
	size_t n = 0, cap = 4096;
	char *line = malloc(cap + 1), c;
	ssize_t got = -1;

	while (line && n < cap && !term.interrupted) {
		if (!wait_input(fd, -1))
			continue;
		got = read(fd, &c, 1);
		if (got != 1 || c == '\n')
			break;
		line[n++] = c;
	}
	if (line && (term.interrupted || got < 0 || (got == 0 && n == 0))) {
		free(line);
		return NULL;
	}
	if (line)
		line[n] = 0;
	return line;
}

char *term_read_secret(const char *prompt)
{
	char *line;

	if (!isatty(STDIN_FILENO))
		return read_line(STDIN_FILENO);
	quiet(STDIN_FILENO, ECHO); /* before the prompt: nobody types into an echo */
	fputs(prompt, stderr);
	fflush(stderr);
	line = read_line(STDIN_FILENO);
	term_restore();
	fputc('\n', stderr);
	return line;
}
