/* SPDX-License-Identifier: MIT */
#include "http/parse/multipart.h"
#include "http/parse/mime.h"

#include <string.h>
#include <strings.h>

/*
 * Inside a part (and inside the preamble, whose bytes nobody gets):
 *
 *   TEXT -CR-> BREAK -LF-> DASHES -"--boundary"-> TAIL -LF-> HEADERS -blank line-> DASHES
 *     (in LF style TEXT -LF-> DASHES)              |  -"--"-> CLOSE -LF-> EPILOGUE
 *                                                  white space, CR: PADDING, TAIL_CR
 *
 * From the first byte of a line break on the bytes are held.  The byte that does not fit sends what
 * is held to the part as data and is looked at again in TEXT: a boundary holds no line break, and a
 * CR at the end of what is held was not followed by LF, so no other delimiter can begin inside it.
 * After the headers' blank line DASHES starts with nothing held: a part without data may have its
 * delimiter there.
 */
enum {
	S_TEXT,
	S_BREAK,
	S_DASHES,
	S_TAIL,
	S_PADDING,
	S_TAIL_CR,
	S_CLOSE_DASH,
	S_CLOSE,
	S_CLOSE_CR,
	S_HEADERS,
	S_EPILOGUE,
};

void multipart_init(struct multipart *m, const char *boundary, const struct multipart_ops *ops,
		    void *arg)
{
	memset(m, 0, sizeof *m);
	m->ops = ops;
	m->arg = arg;
	m->boundary_len = 2 + strnlen(boundary, MULTIPART_MAX_BOUNDARY);
	memcpy(m->boundary, "--", 2);
	memcpy(m->boundary + 2, boundary, m->boundary_len - 2);
	m->state = S_DASHES; /* the body's start is the start of a line */
}

enum ota_code multipart_boundary(const char *content_type, char out[MULTIPART_MAX_BOUNDARY + 1],
				 struct ota_err *err)
{
	if (!content_type)
		return ota_fail(err, OTA_EINVAL,
				"the request has no Content-Type: multipart/form-data is expected");
	if (!mime_type_is(content_type, "multipart/form-data"))
		return ota_fail(err, OTA_EINVAL,
				"the body must be multipart/form-data, not \"%.100s\"",
				content_type);
	enum mime_found found =
		mime_param(content_type, "boundary", out, MULTIPART_MAX_BOUNDARY + 1);
	if (found == MIME_TOO_LONG)
		return ota_fail(err, OTA_EINVAL,
				"the multipart boundary is longer than %d characters",
				MULTIPART_MAX_BOUNDARY);
	size_t n = found == MIME_FOUND ? strlen(out) : 0;
	while (n > 0 && out[n - 1] == ' ') /* RFC 2046 5.1.1: it does not end with a space */
		out[--n] = '\0';
	if (n == 0)
		return ota_fail(err, OTA_EINVAL,
				"the Content-Type multipart/form-data names no boundary");
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)out[i] < 0x20 || out[i] == 0x7F)
			return ota_fail(err, OTA_EINVAL,
					"the multipart boundary has a control character");
	return OTA_OK;
}

/* ------------------------------------------------------------------ what goes to the caller */

static enum ota_code emit(struct multipart *m, const char *data, size_t len, struct ota_err *err)
{
	if (!m->in_part || len == 0)
		return OTA_OK;
	return m->ops->part_data(m->arg, data, len, err);
}

static enum ota_code end_part(struct multipart *m, struct ota_err *err)
{
	m->held_len = 0;
	if (!m->in_part)
		return OTA_OK;
	m->in_part = false;
	return m->ops->part_end(m->arg, err);
}

/* ------------------------------------------------------------------ part headers */

/* What one part's headers say; the strings point into the header buffer. */
struct headers {
	const char *disposition, *content_type;
};

static enum ota_code take_header(struct multipart *m, char *line, struct headers *h,
				 struct ota_err *err)
{
	char *value = strchr(line, ':');

	if (!value)
		return ota_fail(err, OTA_EINVAL, "part %u has a header line without a colon",
				m->part_count);
	char *end = value;
	while (end > line && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	*end = '\0';
	for (value++; *value == ' ' || *value == '\t';)
		value++;
	for (size_t n = strlen(value); n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'); n--)
		value[n - 1] = '\0';
	if (strcasecmp(line, "Content-Disposition") == 0) {
		if (h->disposition)
			return ota_fail(err, OTA_EINVAL,
					"part %u has two Content-Disposition lines", m->part_count);
		h->disposition = value;
	} else if (strcasecmp(line, "Content-Type") == 0) {
		h->content_type = value;
	} else if (strcasecmp(line, "Content-Transfer-Encoding") == 0 &&
		   strcasecmp(value, "binary") != 0 && strcasecmp(value, "8bit") != 0 &&
		   strcasecmp(value, "7bit") != 0) {
		return ota_fail(
			err, OTA_EINVAL,
			"part %u is sent in the transfer encoding \"%.40s\": send it as it is",
			m->part_count, value);
	}
	return OTA_OK;
}

/* Takes the header block apart, line by line; a line that begins with white space is a fold. */
static enum ota_code read_headers(struct multipart *m, struct headers *h, struct ota_err *err)
{
	char *text = m->header, *line = NULL;

	m->header[m->header_len] = '\0';
	for (char *c = text; *c; c++) /* a line break before white space is white space */
		if (*c == '\n' && (c[1] == ' ' || c[1] == '\t')) {
			*c = ' ';
			if (c > text && c[-1] == '\r')
				c[-1] = ' ';
		}
	while ((line = strsep(&text, "\n")) != NULL) {
		size_t n = strlen(line);
		if (n > 0 && line[n - 1] == '\r')
			line[--n] = '\0';
		if (n == 0)
			continue;
		enum ota_code code = take_header(m, line, h, err);
		if (code)
			return code;
	}
	return OTA_OK;
}

static enum ota_code begin_part(struct multipart *m, struct ota_err *err)
{
	char name[256], filename[1024];
	struct headers h = {0};
	enum ota_code code = read_headers(m, &h, err);

	if (code)
		return code;
	enum mime_found found =
		h.disposition ? mime_param(h.disposition, "name", name, sizeof name) : MIME_ABSENT;
	if (found == MIME_TOO_LONG)
		return ota_fail(err, OTA_ETOOLARGE, "the name of part %u is longer than %zu bytes",
				m->part_count, sizeof name - 1);
	if (found == MIME_ABSENT)
		return ota_fail(err, OTA_EINVAL, "part %u has no name in its Content-Disposition",
				m->part_count);
	found = mime_param(h.disposition, "filename*", filename, sizeof filename);
	if (found == MIME_FOUND && !mime_decode_extended(filename))
		found = MIME_ABSENT;
	if (found == MIME_ABSENT)
		found = mime_param(h.disposition, "filename", filename, sizeof filename);
	if (found == MIME_TOO_LONG)
		return ota_fail(err, OTA_ETOOLARGE,
				"the file name of part %u is longer than %zu bytes", m->part_count,
				sizeof filename - 1);
	m->in_part = true;
	return m->ops->part_begin(m->arg, name, found == MIME_FOUND ? filename : NULL,
				  h.content_type && *h.content_type ? h.content_type : "text/plain",
				  err);
}

static enum ota_code step_headers(struct multipart *m, char c, struct ota_err *err)
{
	if (c == '\0')
		return ota_fail(err, OTA_EINVAL, "the headers of part %u have a NUL byte",
				m->part_count);
	if (m->header_len == MULTIPART_MAX_HEADERS)
		return ota_fail(err, OTA_ETOOLARGE,
				"the headers of part %u are larger than %d bytes", m->part_count,
				MULTIPART_MAX_HEADERS);
	m->header[m->header_len++] = c;
	if (c != '\n')
		return OTA_OK;
	size_t line_len = m->header_len - 1 - m->line_start;
	bool blank = line_len == 0 || (line_len == 1 && m->header[m->line_start] == '\r');
	m->line_start = m->header_len;
	if (!blank)
		return OTA_OK;
	m->state = S_DASHES;
	m->matched = 0;
	return begin_part(m, err);
}

/* ------------------------------------------------------------------ delimiters */

static void hold(struct multipart *m, char c, int next)
{
	m->held[m->held_len++] = c;
	m->state = next;
}

/* A whole delimiter line has come: the part before it is over, headers follow. */
static enum ota_code open_part(struct multipart *m, bool with_cr, struct ota_err *err)
{
	if (!m->style_known) {
		m->style_known = true;
		m->lf_style = !with_cr;
	}
	enum ota_code code = end_part(m, err);
	if (code)
		return code;
	if (++m->part_count > MULTIPART_MAX_PARTS)
		return ota_fail(err, OTA_ETOOLARGE, "the body has more than %d parts",
				MULTIPART_MAX_PARTS);
	m->state = S_HEADERS;
	m->header_len = m->line_start = 0;
	return OTA_OK;
}

static enum ota_code close_body(struct multipart *m, struct ota_err *err)
{
	m->state = S_EPILOGUE;
	return end_part(m, err);
}

/* What is held was data after all.  The byte that showed it is looked at again in S_TEXT. */
static enum ota_code give_back(struct multipart *m, struct ota_err *err)
{
	size_t n = m->held_len;

	m->held_len = 0;
	m->state = S_TEXT;
	return emit(m, m->held, n, err);
}

/* One byte in a state that holds bytes; *again when C has not been used. */
static enum ota_code step_delimiter(struct multipart *m, char c, bool *again, struct ota_err *err)
{
	bool space = c == ' ' || c == '\t';

	switch (m->state) {
	case S_BREAK:
		if (c == '\n') {
			m->matched = 0;
			hold(m, c, S_DASHES);
			return OTA_OK;
		}
		break;
	case S_DASHES:
		if (c == m->boundary[m->matched]) {
			m->matched++;
			m->padding = 0;
			hold(m, c, m->matched == m->boundary_len ? S_TAIL : S_DASHES);
			return OTA_OK;
		}
		break;
	case S_TAIL:
		if (c == '-') {
			hold(m, c, S_CLOSE_DASH);
			return OTA_OK;
		}
		/* fall through */
	case S_PADDING:
	case S_TAIL_CR:
		if (c == '\n')
			return open_part(m, m->state == S_TAIL_CR, err);
		if (m->state == S_TAIL_CR)
			break;
		if (c == '\r' || (space && m->padding++ < MULTIPART_MAX_PADDING)) {
			hold(m, c, c == '\r' ? S_TAIL_CR : S_PADDING);
			return OTA_OK;
		}
		break;
	case S_CLOSE_DASH:
		if (c == '-') {
			hold(m, c, S_CLOSE);
			return OTA_OK;
		}
		break;
	case S_CLOSE:
	case S_CLOSE_CR:
		if (c == '\n')
			return close_body(m, err);
		if (m->state == S_CLOSE_CR)
			break;
		if (c == '\r' || (space && m->padding++ < MULTIPART_MAX_PADDING)) {
			hold(m, c, c == '\r' ? S_CLOSE_CR : S_CLOSE);
			return OTA_OK;
		}
		break;
	default: break;
	}
	*again = true;
	return give_back(m, err);
}

/*
 * The first line break in the chunk that may begin a delimiter, as far as the chunk shows; NULL:
 * none.  An image is full of lone CRs: going past them here hands it on in large pieces.
 */
static const char *find_break(const char *data, size_t len, bool lf)
{
	const char *pattern = lf ? "\n--" : "\r\n--", *end = data + len;
	size_t pattern_len = strlen(pattern);

	for (const char *at = data; at < end; at++) {
		at = memchr(at, pattern[0], (size_t)(end - at));
		if (!at)
			return NULL;
		size_t left = (size_t)(end - at);
		if (memcmp(at, pattern, left < pattern_len ? left : pattern_len) == 0)
			return at;
	}
	return NULL;
}

/* As many bytes as are plainly data; the line break that stops them is held.  Returns how many. */
static size_t run_text(struct multipart *m, const char *data, size_t len, struct ota_err *err,
		       enum ota_code *code)
{
	/* Before the style is known (in the preamble) every LF ends a line. */
	bool lf = m->lf_style || !m->style_known;
	const char *stop = find_break(data, len, lf);
	size_t n = stop ? (size_t)(stop - data) : len;

	*code = emit(m, data, n, err);
	if (!stop)
		return n;
	m->matched = 0;
	hold(m, *stop, lf ? S_DASHES : S_BREAK);
	return n + 1;
}

static enum ota_code feed(struct multipart *m, const char *data, size_t len, struct ota_err *err)
{
	enum ota_code code = OTA_OK;

	for (size_t i = 0; i < len && code == OTA_OK;) {
		bool again = false;
		switch (m->state) {
		case S_EPILOGUE: return OTA_OK;
		case S_TEXT: i += run_text(m, data + i, len - i, err, &code); continue;
		case S_HEADERS: code = step_headers(m, data[i], err); break;
		default: code = step_delimiter(m, data[i], &again, err); break;
		}
		i += !again;
	}
	return code;
}

/* ------------------------------------------------------------------ the door */

static enum ota_code remember(struct multipart *m, enum ota_code code, struct ota_err *now,
			      struct ota_err *err)
{
	if (code != OTA_OK) {
		m->failure = *now;
		m->failure.code = code;
		if (err)
			*err = m->failure;
	}
	return code;
}

enum ota_code multipart_feed(struct multipart *m, const void *data, size_t len, struct ota_err *err)
{
	struct ota_err now = {0};

	if (m->failure.code)
		return remember(m, m->failure.code, &m->failure, err);
	return remember(m, feed(m, data, len, &now), &now, err);
}

static const char *cut_where(const struct multipart *m)
{
	if (m->part_count == 0)
		return "it has no line with the boundary that its Content-Type names";
	return m->state == S_HEADERS ? "it ends inside the headers of a part"
				     : "its closing boundary is missing";
}

enum ota_code multipart_finish(struct multipart *m, struct ota_err *err)
{
	struct ota_err now = {0};
	enum ota_code code = OTA_OK;

	if (m->failure.code)
		return remember(m, m->failure.code, &m->failure, err);
	if (m->state == S_CLOSE || m->state == S_CLOSE_CR)
		code = close_body(m, &now);
	else if (m->state != S_EPILOGUE)
		code = ota_fail(&now, OTA_EINVAL, "the body was cut off: %s", cut_where(m));
	return remember(m, code, &now, err);
}
