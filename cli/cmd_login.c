/* SPDX-License-Identifier: MIT */
/* login: a key is asked for, tried, and stored.  What the service refuses is not stored. */
#include "cli/api.h"
#include "cli/config.h"
#include "cli/term.h"

#include <stdlib.h>
#include <string.h>

const struct opt cmd_login_opts[] = {{0}};

static bool is_loopback(const char *server)
{
	const char *host = strstr(server, "://") + 3;

	return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost", 9) == 0 ||
	       strncmp(host, "[::1]", 5) == 0;
}

static enum ota_code ask_key(struct cli *c, struct ota_err *err)
{
	char *line = term_read_secret("API key: ");
	size_t n;

	if (!line) {
		cli_hint(c, "paku-ota login %s < file-with-the-key", c->server);
		return ota_fail(err, OTA_EAUTH, "no key was given");
	}
	n = strlen(line);
	while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' '))
		line[--n] = 0;
	c->key = line;
	return key_check(line, err);
}

enum ota_code cmd_login(struct cli *c, const struct args *a, struct ota_err *err)
{
	struct login login;
	struct buf url = BUF_INIT;
	enum ota_code code;
	char *path;

	code = server_clean(a->pos[0], &c->server, err);
	if (code != OTA_OK)
		return code;
	if (strncmp(c->server, "http://", 7) == 0 && !is_loopback(c->server))
		fprintf(stderr, "note: over http:// the key can be read on the way; use https:// "
				"outside a network you trust\n");
	code = ask_key(c, err);
	if (code != OTA_OK)
		return code;
	api_url(c, &url, "/api/admin/rollouts");
	url_query_int(&url, "limit", 1);
	code = api_get(c, &url, NULL, err);
	if (code == OTA_EAUTH)
		cli_hint(c,
			 "nothing was stored; 'paku-otad --new-key' on the server makes a new key");
	if (code != OTA_OK)
		return code;
	login = (struct login){c->server, c->key};
	code = login_write(&login, err);
	path = code == OTA_OK ? login_path(err) : NULL;
	if (path && c->json)
		printf("{\"status\":\"ok\"}\n");
	else if (path)
		printf("logged in to %s; the key is in %s\n", c->server, path);
	free(path);
	return code;
}
