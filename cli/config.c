/* SPDX-License-Identifier: MIT */
/* See config.h; and where server and key come from. */
#include "cli/config.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_SERVER "http://127.0.0.1:8080"
#define LOGIN_MAX      8192

static char *config_dir(struct ota_err *err)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	struct passwd *pw;
	char *dir = NULL;

	if (xdg && xdg[0] == '/') /* the specification says: ignore a relative one */
		dir = strdup(xdg);
	else if (home && *home) {
		if (asprintf(&dir, "%s/.config", home) < 0)
			dir = NULL;
	} else if ((pw = getpwuid(getuid())) != NULL) {
		if (asprintf(&dir, "%s/.config", pw->pw_dir) < 0)
			dir = NULL;
	} else {
		ota_fail(err, OTA_EINVAL, "no home directory for the login file; set HOME");
		return NULL;
	}
	if (!dir)
		ota_fail_nomem(err);
	return dir;
}

char *login_path(struct ota_err *err)
{
	char *dir = config_dir(err), *path = NULL;

	if (dir && asprintf(&path, "%s/paku-ota", dir) < 0) {
		path = NULL;
		ota_fail_nomem(err);
	}
	free(dir);
	return path;
}

void login_fini(struct login *l)
{
	free(l->server);
	if (l->key)
		explicit_bzero(l->key, strlen(l->key));
	free(l->key);
	*l = (struct login){0};
}

static char *trim(char *s)
{
	size_t n;

	s += strspn(s, " \t\r");
	n = strlen(s);
	while (n > 0 && strchr(" \t\r", s[n - 1]))
		s[--n] = 0;
	return s;
}

/* Lines of `name = value`; unknown names are for later versions, and passed over. */
static enum ota_code parse(struct login *l, char *text, struct ota_err *err)
{
	for (char *line, *rest = text; (line = strsep(&rest, "\n")) != NULL;) {
		char *eq = strchr(line, '='), **slot;

		if (line[0] == '#' || !eq)
			continue;
		*eq = 0;
		line = trim(line);
		slot = strcmp(line, "server") == 0 ? &l->server
		       : strcmp(line, "key") == 0  ? &l->key
						   : NULL;
		if (!slot)
			continue;
		free(*slot);
		*slot = strdup(trim(eq + 1));
		if (!*slot)
			return ota_fail_nomem(err);
	}
	return OTA_OK;
}

static enum ota_code read_checked(int fd, const char *path, char text[LOGIN_MAX],
				  struct ota_err *err)
{
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) != 0)
		return ota_fail(err, OTA_EINVAL, "cannot look at %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return ota_fail(err, OTA_EINVAL, "%s is not a file", path);
	if (st.st_mode & 077)
		return ota_fail(
			err, OTA_EAUTH,
			"%s holds a key, and others can read it (mode %04o); type: chmod 600 %s",
			path, (unsigned)(st.st_mode & 07777), path);
	n = read(fd, text, LOGIN_MAX - 1);
	if (n < 0)
		return ota_fail(err, OTA_EINVAL, "cannot read %s: %s", path, strerror(errno));
	text[n] = 0;
	return OTA_OK;
}

enum ota_code login_read(struct login *l, struct ota_err *err)
{
	char *path = login_path(err), text[LOGIN_MAX];
	enum ota_code code;
	int fd;

	*l = (struct login){0};
	if (!path)
		return err->code;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		code = errno == ENOENT || errno == ENOTDIR
			       ? OTA_OK
			       : ota_fail(err, OTA_EINVAL, "cannot open %s: %s", path,
					  strerror(errno));
		free(path);
		return code;
	}
	code = read_checked(fd, path, text, err);
	close(fd);
	if (code == OTA_OK)
		code = parse(l, text, err);
	explicit_bzero(text, sizeof(text));
	if (code == OTA_OK && l->key && key_check(l->key, err) != OTA_OK)
		code = ota_wrap(err, "%s", path);
	if (code != OTA_OK)
		login_fini(l);
	free(path);
	return code;
}

static enum ota_code write_file(const char *temp, const char *path, const struct login *l,
				struct ota_err *err)
{
	int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool ok;

	if (fd < 0)
		return ota_fail(err, OTA_EINVAL, "cannot write %s: %s", temp, strerror(errno));
	ok = dprintf(fd,
		     "# paku-ota's login; the key is only sent to this server\n"
		     "server = %s\nkey = %s\n",
		     l->server, l->key) > 0 &&
	     fchmod(fd, 0600) == 0 && fsync(fd) == 0;
	if (close(fd) != 0 || !ok || rename(temp, path) != 0) {
		ota_fail(err, OTA_EINVAL, "cannot write %s: %s", path, strerror(errno));
		unlink(temp);
		return OTA_EINVAL;
	}
	return OTA_OK;
}

enum ota_code login_write(const struct login *l, struct ota_err *err)
{
	char *dir = config_dir(err), *path = login_path(err), *temp = NULL;
	enum ota_code code = err->code;

	if (dir && path && asprintf(&temp, "%s.%ld", path, (long)getpid()) < 0) {
		temp = NULL;
		code = ota_fail_nomem(err);
	}
	if (temp) {
		if (mkdir(dir, 0700) != 0 && errno != EEXIST)
			code = ota_fail(err, OTA_EINVAL, "cannot make %s: %s", dir,
					strerror(errno));
		else
			code = write_file(temp, path, l, err);
	}
	free(temp);
	free(path);
	free(dir);
	return code;
}

enum ota_code server_clean(const char *text, char **out, struct ota_err *err)
{
	size_t n = strlen(text);
	const char *host;

	if (strncmp(text, "http://", 7) == 0)
		host = text + 7;
	else if (strncmp(text, "https://", 8) == 0)
		host = text + 8;
	else
		return ota_fail(err, OTA_EINVAL,
				"a server is written http://HOST:PORT or https://HOST, not '%s'",
				text);
	if (!*host || *host == '/' || strpbrk(host, "?#"))
		return ota_fail(err, OTA_EINVAL, "'%s' is no address of a server", text);
	for (const char *p = host; *p; p++)
		if (*p <= ' ' || *p > '~')
			return ota_fail(err, OTA_EINVAL,
					"the server's address contains a character "
					"that URLs do not have");
	while (n > 0 && text[n - 1] == '/')
		n--;
	*out = strndup(text, n);
	return *out ? OTA_OK : ota_fail_nomem(err);
}

enum ota_code key_check(const char *key, struct ota_err *err)
{
	size_t n = strlen(key);

	if (n == 0 || n > 4096)
		return ota_fail(err, OTA_EAUTH, "a key has 1 to 4096 characters");
	for (; *key; key++)
		if (*key <= ' ' || *key > '~')
			return ota_fail(err, OTA_EAUTH,
					"the key contains a space, a control character or a letter "
					"outside ASCII; copy it again");
	return OTA_OK;
}

enum ota_code cli_configure(struct cli *c, const struct args *a, struct ota_err *err)
{
	const char *server = args_get(a, "server"), *key = getenv("OTA_API_KEY");
	struct login login = {0};
	enum ota_code code = OTA_OK;

	if (!server || !*server)
		server = getenv("OTA_SERVICE_URL");
	if (server && !*server)
		server = NULL;
	if (key && !*key)
		key = NULL;
	if (!server || !key)
		code = login_read(&login, err);
	if (code != OTA_OK)
		return code;
	code = server_clean(server         ? server
			    : login.server ? login.server
					   : DEFAULT_SERVER,
			    &c->server, err);
	if (code == OTA_OK && key)
		code = key_check(key, err) == OTA_OK ? OTA_OK : ota_wrap(err, "OTA_API_KEY");
	if (code == OTA_OK && !key && login.server && strcmp(login.server, c->server) == 0)
		key = login.key;
	if (code == OTA_OK && key && !(c->key = strdup(key)))
		code = ota_fail_nomem(err);
	login_fini(&login);
	return code;
}
