/* SPDX-License-Identifier: MIT */
/*
 * The terminal: what it can show, and giving it back as it was found.
 *
 * Process-wide state, because signals are.  SIGINT, SIGTERM and SIGHUP only raise a flag, so that
 * work ends in order; a second one ends the process at once, with the terminal restored.
 */
#pragma once

#include "base/err.h"

#include <stdio.h>

enum colour {
	COLOUR_NONE,
	COLOUR_BOLD,
	COLOUR_DIM,
	COLOUR_RED,
	COLOUR_GREEN,
	COLOUR_YELLOW,
	COLOUR_CYAN
};

/* Reads the environment (locale, NO_COLOR, TERM) and installs the signal handlers. */
void term_init(void);
/* Back to how it was; harmless when nothing was changed. */
void term_restore(void);

bool term_is_tty(FILE *f);
/* Columns and lines of the terminal on stdout, else of the one on stderr, else 80 by 24. */
int term_columns(void);
int term_lines(void);
/* The terminal shows UTF-8; otherwise pictures are drawn with ASCII. */
bool term_utf8(void);
/* The sequence that begins a colour on stdout, "" where there is no colour; COLOUR_NONE ends it. */
const char *term_sgr(enum colour colour);
const char *term_sgr_err(enum colour colour);

bool term_interrupted(void);
/* The same, once: what is still to be done may be interrupted anew. */
bool term_take_interrupt(void);

/* A full screen of our own, without cursor and echo; false when stdout is no terminal. */
bool term_screen_open(void);
void term_screen_close(void);
/* Waits up to MS; true when the user pressed q. A signal or a change of size ends it early. */
bool term_wait(int ms);

/* Reads one line from the terminal without echo, else from stdin; NULL at the end. free() it. */
char *term_read_secret(const char *prompt);
