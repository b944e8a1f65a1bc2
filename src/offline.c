/* SPDX-License-Identifier: MIT */
#include "offline.h"

#include "config.h"
#include "data_folder.h"
#include "http/auth.h"
#include "restore.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int offline_new_key(void)
{
	struct config cfg;
	struct ota_err err;
	char made[API_KEY_SIZE];

	if (config_load(&cfg, &err) != OTA_OK || data_folder_make(cfg.data_dir, &err) != OTA_OK ||
	    auth_new_key(cfg.data_dir, made, &err) != OTA_OK) {
		fprintf(stderr, "paku-otad: %s\n", err.msg);
		return 1;
	}
	printf("API key: %s\n", made);
	if (cfg.api_key[0])
		fprintf(stderr, "paku-otad: OTA_API_KEY is set and counts as long as it is\n");
	config_free(&cfg);
	return 0;
}

/* On a terminal one line that changes, else one for each table. */
static void show_progress(const char *table, int64_t rows, bool done)
{
	if (done)
		printf("%s%-24s %lld rows\n", isatty(1) ? "\r" : "", table, (long long)rows);
	else if (isatty(1))
		printf("\r%-24s %lld", table, (long long)rows);
	fflush(stdout);
}

int offline_import(void)
{
	struct config cfg = {0};
	int lock_fd = -1;
	struct ota_err err = {0};
	char path[4200];
	enum ota_code rc = config_load(&cfg, &err);

	if (rc == OTA_OK && !config_on_postgres(&cfg))
		rc = ota_fail(&err, OTA_EINVAL,
			      "set DATABASE_URL, or PGHOST and what else it takes to reach the "
			      "database to import into");
	if (rc == OTA_OK && (rc = data_folder_make(cfg.data_dir, &err)) == OTA_OK &&
	    (rc = data_folder_lock(cfg.data_dir, &lock_fd, &err)) == OTA_OK) {
		snprintf(path, sizeof path, "%s/paku-ota.db", cfg.data_dir);
		rc = access(path, F_OK) == 0
			     ? store_import(path, cfg.database_url, show_progress, &err)
			     : ota_fail_errno(&err, errno, "%s", path);
	}
	if (rc == OTA_OK)
		printf("All of %s is in the database, and compared. The next start takes it from "
		       "there.\n",
		       path);
	else
		fprintf(stderr, "paku-otad: %s\n", err.msg);
	if (lock_fd >= 0)
		close(lock_fd);
	config_free(&cfg);
	return rc == OTA_OK ? 0 : 1;
}

int offline_restore(const char *archive)
{
	struct config cfg = {0};
	int lock_fd = -1;
	struct ota_err err = {0};
	char said[4400];
	enum ota_code rc = config_load(&cfg, &err);

	umask(077);
	if (rc == OTA_OK && (rc = data_folder_make(cfg.data_dir, &err)) == OTA_OK &&
	    (rc = data_folder_lock(cfg.data_dir, &lock_fd, &err)) == OTA_OK)
		rc = restore_run(&cfg, archive, said, sizeof said, &err);
	if (rc == OTA_OK)
		printf("%s\n", said);
	else
		fprintf(stderr, "paku-otad: %s\n", err.msg);
	if (lock_fd >= 0)
		close(lock_fd);
	config_free(&cfg);
	return rc == OTA_OK ? 0 : 1;
}
