"""Values to draw from: valid ones, broken ones, and what looks like something else."""

from __future__ import annotations

HOSTS = (b"example.test", b"example.test", b"example.test", b"other.test:8080")
PATHS = (
    b"/a", b"/a", b"/a", b"/a", b"/a?x=1", b"/a?x=1", b"/a?x=2", b"/b", b"/b", b"/a%2Fb",
    b"/a/b", b"//a", b"/%C3%A9?q=%26&r=a+b",
)  # fmt: skip
METHODS = ("GET",) * 82 + ("HEAD",) * 8 + (
    "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE", "PROPFIND", "get", "M-SEARCH", "TRACE",
)  # fmt: skip
STATUSES = (200,) * 70 + (
    201, 202, 203, 204, 205, 206, 226, 299, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404,
    404, 405, 410, 412, 414, 416, 421, 429, 451, 499, 500, 500, 501, 502, 503, 503, 504, 504, 511,
    599,
)  # fmt: skip
UNSAFE_STATUSES = (200, 200, 201, 201, 204, 204, 299, 302, 303, 304, 400, 404, 409, 500, 503, 599)

GOOD_RULES = (
    b"max-age=5", b"max-age=10", b"max-age=60", b"max-age=60", b"public, max-age=30",
    b"public, max-age=60", b"s-maxage=20", b"s-maxage=60, max-age=1", b"max-age=3600",
    b"max-age=10, stale-while-revalidate=10", b"max-age=2, stale-while-revalidate=20",
    b"max-age=3, stale-if-error=30", b"max-age=1, stale-while-revalidate=5, stale-if-error=60",
    b"max-age=5, must-revalidate", b"max-age=60, must-revalidate", b"max-age=5, immutable",
    b"max-age=5, proxy-revalidate, stale-while-revalidate=100", b"Max-Age=30", b'max-age="20"',
    b"s-maxage=2, stale-while-revalidate=50", b"max-age=0, stale-while-revalidate=5",
)  # fmt: skip
BAD_RULES = (
    b"no-store", b"no-store, max-age=60", b"max-age=60, no-store", b"NO-STORE, max-age=60",
    b"private, max-age=60", b"max-age=60,private", b"no-cache, max-age=60", b"no-cache",
    b'private="x-note", max-age=60', b'no-cache="x-note", max-age=60',
    b'private="x-note, x-other", max-age=60', b'no-cache="set-cookie", max-age=60',
    b'private="set-cookie", max-age=60', b'private="", max-age=60', b'no-cache="", max-age=60',
    b"private=x-note, max-age=60", b"no-cache=x-note, max-age=60", b'private="@", max-age=60',
    b'x="no-store", max-age=60', b'x="no-store, max-age=60', b'x="a\\", no-store, y=", max-age=60',
    b'x="\\"", no-store, max-age=60', b'"no-store", max-age=60', b'max-age=60, x="y, no-store',
    b'x="max-age=60"', b'x="max-age=60', b'"max-age=60"', b"'max-age=60'", b"max-age='60'",
    b"max-age", b"max-age=", b'max-age=""', b"max-age=-1", b"max-age=-60", b"max-age=+60",
    b"max-age=60.5", b"max-age=1e3", b"max-age=0x10", b"max-age=abc", b"max-age = 60",
    b"max-age= 60", b"max-age =60", b"max-age=6 0", b"max-age=60;no-store", b"max-age=60 no-store",
    b"max-age=99999999999999999999", b"max-age=" + b"9" * 5000, b"max-age=2147483648",
    b"max-age=0", b"max-age=00060", b"max-age=5, max-age=60", b"max-age=60, max-age=5",
    b"max-age=x, max-age=60", b"max-age=60, max-age=x", b"s-maxage=x, max-age=60",
    b"s-maxage=0, max-age=60", b"s-maxage=60, max-age=0", b"s-maxage=, max-age=60",
    b"max-age=60, must-understand", b"must-understand, no-store, max-age=60",
    b"max-age=2, stale-while-revalidate=x", b"max-age=2, stale-while-revalidate",
    b"max-age=2, stale-if-error=-1", b"max-age=2, stale-while-revalidate=10, must-revalidate",
    b"max-age=2, stale-if-error=100, must-revalidate", b"stale-while-revalidate=60",
    b"max-age=2, stale-if-error=100, proxy-revalidate", b"stale-if-error=60, max-age=1, no-cache",
    b"", b",", b",,,", b"=", b"=60", b"max-age=60,", b",max-age=60", b" max-age=60 ",
    b"max-age=60,\r\n no-store", b"max-age=60\r\n\tno-store", b"max-age=60\0, no-store",
    b"\xff\xfe", b"max-age=\xb2", b"max-age=\xd9\xa6", b"m\xe4x-age=60", b"no-st\xf6re, max-age=60",
    b"no-store=1, max-age=60", b'no-store="0", max-age=60', b"private=?0, max-age=60",
    b"no_store, max-age=60", b"nostore, max-age=60", b"no-store-not, max-age=60", b"public",
    b"public=1, max-age=60", b"immutable", b"min-fresh=5", b"only-if-cached, max-age=60",
    b"max-age=60, " + b"x, " * 1000 + b"no-store", b'max-age=60, x="' + b"a" * 9000,
    b"max-age=60" + b" " * 2000, b"max-age=60, no-\tstore", b"\tmax-age=60", b"max-age=60\x0b",
)  # fmt: skip
QUALIFIED = (
    b'private="x-note", max-age=60', b'no-cache="x-note", max-age=60',
    b'max-age=60, private="x-other, X-Note"', b'no-cache="X-Note,set-cookie", max-age=60',
)  # fmt: skip
TARGETED = (
    b"max-age=60", b"max-age=20", b"max-age=0", b"no-store", b"private", b"no-cache",
    b"max-age=60, private", b"max-age=60, no-store", b"max-age=60;x=1", b"max-age=60.5",
    b'max-age="60"', b"Max-Age=60", b"max-age=60,", b"", b" ", b"max-age=60, no-store;a=?0",
    b"max-age=10, max-age=60", b"s-maxage=60", b"max-age=3, stale-while-revalidate=10",
    b"no-store, max-age=60 foo", b'private="x-note", max-age=60', b"@", b"max-age=60, \xff",
    b"must-revalidate", b"max-age=-5", b"foo",
)  # fmt: skip
GOOD_VARY = (
    b"accept-language", b"Accept-Language", b"x-tenant", b"accept-encoding",
    b"accept-language, x-tenant", b"cookie", b"authorization", b"Cookie, Authorization",
    b"x-api-key, cookie", b"origin",
)  # fmt: skip
BAD_VARY = (
    b"*", b"accept-language, *", b"*, *", b"", b",", b"accept language", b'"x-tenant"',
    b"x-tenant;", b"\xff", b"x-tenant,,accept-language", b" x-tenant ", b"**",
    b"x-tenant\taccept-language", b"x-tenant, " * 300 + b"x-tenant", b"x-absent", b"X-TENANT",
    b"host", b"x-auth-token", b"x-tenant\r\n",
    b"accept-language,x-tenant,cookie,authorization,x-api-key,x-auth-token",
)  # fmt: skip
TAGS = (b'"v1"', b'"v1"', b'"v2"', b'W/"v1"', b'W/"v2"', b'""', b'"a,b"', b'"v\xe41"')
BAD_TAGS = (
    b"v1",
    b'"v1',
    b'w/"v1"',
    b"W/v1",
    b"*",
    b"",
    b'"v 1"',
    b'"v1", "v2"',
    b"'v1'",
    b'"\\""',
)
AGES = (
    b"0", b"1", b"3", b"30", b"100", b"-1", b"abc", b"", b"3.5", b"2, 50", b"50, 2", b"x, 50",
    b"+3", b"99999999999999999999999", b" 4 ", b"2147483648", b"\xb2", b'"5"', b"1e2",
)  # fmt: skip
BAD_DATES = (
    b"0", b"-1", b"", b"now", b"Thu, 01 Jan 1970 00:00:00 GMT", b"Sun, 31 Feb 2027 10:00:00 GMT",
    b"Sun, 06 Nov 2094 08:49:37", b"Sun, 06 Nov 2094 08:49:37 PST", b"06 Nov 2094 08:49:37 GMT",
    b"Sun, 06 Nov 2094 25:49:37 GMT", b"Sun, 6 Nov 2094 08:49:37 GMT", b"4000000000",
    b"2094-11-06T08:49:37Z", b"Sun, 06 Nov 2094 08:49:37 +0000", b"\xff" * 20, b"Sun, 06 Nov",
    b"Sun, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 94", b"Sun, 06 Nov 99999 08:49:37 GMT",
)  # fmt: skip
COOKIES = (b"session=alice", b"session=bob", b"theme=dark", b"", b"\xff=\xfe")
SECRETS = (b"Bearer alice", b"Basic Ym9iOmJvYg==", b"")
LANGUAGES = (b"en", b"de", b"en, de", b"de, en", b"EN", b"en;q=1", b"")
CODINGS = (b"gzip", b"gzip, br", b"br,gzip", b"br;q=0", b"*")
HOPS = (
    (b"connection", b"close"), (b"connection", b"x-note"), (b"connection", b"X-Note, x-other"),
    (b"keep-alive", b"timeout=5"), (b"proxy-connection", b"keep-alive"), (b"te", b"trailers"),
    (b"transfer-encoding", b"chunked"), (b"upgrade", b"h2c"), (b"connection", b"etag"),
    (b"proxy-authenticate", b"Basic"), (b"proxy-authentication-info", b"x"), (b"connection", b""),
    (b"connection", b"close, \xff, x-note"),
)  # fmt: skip
ASKED_RULES = (
    b"no-cache", b"no-cache", b"no-store", b"max-age=0", b"max-age=3", b"max-age=1000",
    b"max-stale", b"max-stale=3", b"max-stale=100", b"min-fresh=3", b"min-fresh=1000",
    b"only-if-cached", b"only-if-cached", b"only-if-cached", b"only-if-cached, max-stale",
    b"stale-if-error=100", b"no-transform", b"max-stale=x", b"max-age=x", b'max-age="3"',
    b'x="no-cache"', b'x="no-cache', b"max-age=-1", b"max-age=3, max-age=1000", b"", b"\xff",
    b",,=", b"no-cache, max-stale", b"only-if-cached, no-cache", b"max-stale=" + b"9" * 5000,
    b"NO-CACHE", b"min-fresh", b"max-age=" + b"9" * 100, b"no-cache\r\n", b"only-if-cached=1",
)  # fmt: skip
RANGES = (
    b"bytes=0-4", b"bytes=5-9", b"bytes=0-", b"bytes=3-", b"bytes=-5", b"bytes=-0", b"bytes=-9999",
    b"bytes=0-0", b"bytes=99999-", b"bytes=5-2", b"bytes=", b"bytes", b"bytes=a-b", b"bytes=--1",
    b"bytes=0-1,4-5", b"bytes=0-1, 4-5 ,7-", b"bytes=0-0,-1", b"items=0-4", b"BYTES=0-4",
    b"bytes=0-4,", b"bytes=,0-4", b"bytes=0-4,99999-", b"bytes=99999-,99998-", b"bytes 0-4",
    b"bytes=0-" + b"9" * 5000, b"bytes=" + b"0-0," * 2000 + b"0-0", b"bytes=1-2,1-2,1-3", b"\xff",
    b"bytes= 0-4", b"bytes=0 -4", b"bytes=+0-4", b"bytes=0-4;x", b"bytes=0x0-4",
)  # fmt: skip
LOCATIONS = (
    b"/a", b"/b", b"/a?x=1", b"a", b"?x=2", b"http://example.test/a", b"http://example.test/b",
    b"https://example.test/a", b"http://other.test:8080/a", b"//other.test:8080/b", b"//",
    b"http://example.test.evil.test/a", b"http://example.test@evil.test/a", b"", b"\xff", b"http://",
    b"http://[::1", b"/a#fragment", b"../b", b"http://example.test:80/a", b"/b\r\n", b"/ b",
)  # fmt: skip
SET_COOKIES = (b"session=fresh", b"a=1; Path=/", b"b=2; Expires=Wed, 21 Oct 2037 07:28:00 GMT", b"")
ODD_FIELDS = (
    (b"x-note", b"one"), (b"x-note", b"two"), (b"x-other", b"three"), (b"pragma", b"no-cache"),
    (b"warning", b'110 - "stale"'), (b"content-language", b"en"), (b"x-empty", b""),
    (b"x-odd", b"\xff\xfe\x80"), (b"content-encoding", b"gzip"), (b"accept-ranges", b"bytes"),
    (b"x-long", b"l" * 5000), (b"content-location", b"/a"), (b"location", b"/b"),
    (b"x-comma", b"a, b,c"), (b"link", b"</s.css>; rel=preload"), (b"trailer", b"x-sum"),
    (b"retry-after", b"5"), (b"accept-ranges", b"none"), (b"surrogate-control", b"max-age=99"),
    (b"content-range", b"bytes 0-4/5"), (b"cache-groups", b'"g"'), (b"content-disposition", b"x"),
)  # fmt: skip
# What alone forbids to share an answer that is well-behaved in all else, or a part of it.
SPOILERS = (
    [(b"set-cookie", b"session=fresh"), (b"set-cookie", b"b=2")], [(b"vary", b"*")],
    [(b"vary", b"accept-language"), (b"vary", b"*")], [(b"cache-control", b"no-store")],
    [(b"cache-control", b"private")], [(b"connection", b"x-note"), (b"x-note", b"hop")],
    [(b"keep-alive", b"timeout=5")], [(b"cdn-cache-control", b"no-store")],
    [(b"cdn-cache-control", b"max-age=1")], [(b"cache-control", b"no-cache")],
)  # fmt: skip
TYPES = (b"text/plain", b"application/json", b"text/html; charset=utf-8")
SIZES = (0, 1, 10, 40, 40, 100, 100, 200, 1000)
DELAYS_S = (0,) * 30 + (1, 2, 0.5)
