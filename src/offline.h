/* SPDX-License-Identifier: MIT */
/*
 * What paku-otad does on its data folder instead of serving.  Each says on the terminal what came
 * of it, and answers the process's exit code.  With the folder's lock, so that its service does not
 * run meanwhile; a new key needs none.
 */
#pragma once

int offline_new_key(void);
int offline_import(void);
int offline_restore(const char *archive);
