/* SPDX-License-Identifier: MIT */
#include "base/broker_place.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool port_of(const char *text, uint16_t *port)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end || n < 1 || n > 65535)
		return false;
	*port = (uint16_t)n;
	return true;
}

/* What stands behind the scheme. */
static bool address_of(const char *text, struct broker_place *place)
{
	bool bracket = text[0] == '[';
	const char *host = text + bracket;
	size_t len = strcspn(host, bracket ? "]" : ":");
	const char *rest = host + len + (bracket && host[len]);

	if (!len || len >= sizeof place->host || (bracket && !host[len]) || strpbrk(host, " /@") ||
	    (*rest && (*rest != ':' || !port_of(rest + 1, &place->port))))
		return false;
	memcpy(place->host, host, len);
	return true;
}

enum ota_code broker_place_parse(const char *option, const char *text, struct broker_place *out,
				 struct ota_err *err)
{
	static const char plain[] = "mqtt://", tls[] = "mqtts://";
	struct broker_place place = {.port = 1883};
	const char *address = text;

	if (strncmp(text, plain, sizeof plain - 1) == 0) {
		address += sizeof plain - 1;
	} else if (strncmp(text, tls, sizeof tls - 1) == 0) {
		address += sizeof tls - 1;
		place.tls = true;
		place.port = 8883;
	}
	if (!address_of(address, &place))
		return ota_fail(err, OTA_EINVAL,
				"%s is HOST, HOST:PORT or mqtts://HOST[:PORT], not '%s'", option,
				text);
	*out = place;
	return OTA_OK;
}

/* ---------------------------------------------------------------------------------------- TLS */

/* Where nobody sits to be asked for the password of a key. */
static int no_password(char *out, int size, int rwflag, void *arg)
{
	(void)out, (void)size, (void)rwflag, (void)arg;
	return -1;
}

static enum ota_code open_pem(const char *option, const char *path, FILE **out, struct ota_err *err)
{
	*out = fopen(path, "re");
	return *out ? OTA_OK
		    : ota_fail(err, OTA_EINVAL, "%s %s: %s", option, path, strerror(errno));
}

static enum ota_code read_cert(const char *option, const char *path, X509 **out,
			       struct ota_err *err)
{
	FILE *f;

	if (open_pem(option, path, &f, err) != OTA_OK)
		return err->code;
	*out = PEM_read_X509(f, NULL, no_password, NULL);
	fclose(f);
	return *out ? OTA_OK
		    : ota_fail(err, OTA_EINVAL, "%s %s: holds no certificate in PEM", option, path);
}

static enum ota_code read_key(const char *path, EVP_PKEY **out, struct ota_err *err)
{
	FILE *f;

	if (open_pem("--key", path, &f, err) != OTA_OK)
		return err->code;
	*out = PEM_read_PrivateKey(f, NULL, no_password, NULL);
	fclose(f);
	return *out ? OTA_OK
		    : ota_fail(err, OTA_EINVAL,
			       "--key %s: holds no private key in PEM, or one with a password",
			       path);
}

enum ota_code broker_tls_check(const struct broker_tls *tls, struct ota_err *err)
{
	X509 *ca = NULL, *cert = NULL;
	EVP_PKEY *key = NULL;
	enum ota_code code = OTA_OK;

	if (!tls->cert != !tls->key)
		return ota_fail(err, OTA_EINVAL, "--cert and --key go together");
	if (tls->ca)
		code = read_cert("--cacert", tls->ca, &ca, err);
	if (code == OTA_OK && tls->cert)
		code = read_cert("--cert", tls->cert, &cert, err);
	if (code == OTA_OK && tls->key)
		code = read_key(tls->key, &key, err);
	if (code == OTA_OK && cert && X509_check_private_key(cert, key) != 1)
		code = ota_fail(err, OTA_EINVAL, "--key %s: is not the key of --cert %s", tls->key,
				tls->cert);
	X509_free(ca);
	X509_free(cert);
	EVP_PKEY_free(key);
	return code;
}

const char *broker_tls_system_authorities(void)
{
	return X509_get_default_cert_dir();
}

const char *broker_tls_reason(const char *log_line)
{
	const char *colon = strrchr(log_line, ':');

	return colon ? colon + 1 + strspn(colon + 1, " ") : log_line;
}
