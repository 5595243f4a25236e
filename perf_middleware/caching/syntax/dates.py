"""HTTP dates in the three formats, as Unix seconds.

    Sun, 06 Nov 1994 08:49:37 GMT      IMF-fixdate, the only one that is sent
    Sunday, 06-Nov-94 08:49:37 GMT     rfc850, two digits of the year
    Sun Nov  6 08:49:37 1994           asctime, GMT without saying so

Read in capitals or not, as a cache should (RFC 9111 §4.2).  A wrong name of the day is passed over;
any other part that cannot be is no date at all.
Source: RFC 9110 §5.6.7.
"""

from __future__ import annotations

import re
from datetime import date

_DAY_S = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MIN_S = (date.min.toordinal() - _EPOCH_DAY) * _DAY_S
_MAX_S = (date.max.toordinal() - _EPOCH_DAY + 1) * _DAY_S - 1
_RFC850_FUTURE_YEARS_MAX = 50  # §5.6.7: what seems further ahead is in the past

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"
)  # fmt: skip
_MONTH_OF = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}

_SHORT_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = rb"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTH = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_IMF_FIXDATE = re.compile(
    _SHORT_DAY + rb", (?P<day>[0-9]{2}) " + _MONTH + rb" (?P<year>[0-9]{4}) " + _TIME + rb" GMT",
    re.IGNORECASE,
)
_RFC850 = re.compile(
    _LONG_DAY + rb", (?P<day>[0-9]{2})-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" GMT",
    re.IGNORECASE,
)
_ASCTIME = re.compile(
    _SHORT_DAY + rb" " + _MONTH + rb" (?P<day>[0-9 ][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})",
    re.IGNORECASE,
)


def parse_http_date(value: bytes, *, now_s: int) -> int | None:
    """Unix seconds of `value`, negative before 1970, or None where it is no date.

    `now_s` places the two-digit year of the rfc850 form.  A leap second is the first second of the
    next minute, as Unix time has none of its own.  Source: RFC 9110 §5.6.7.
    """
    value = value.strip(b" \t")
    found = _IMF_FIXDATE.fullmatch(value) or _ASCTIME.fullmatch(value)
    if found is not None:
        year = int(found["year"])
        return _unix_s(year, *_within_year(found))
    found = _RFC850.fullmatch(value)
    if found is None:
        return None
    within_year = _within_year(found)
    return _unix_s(_full_year(int(found["year"]), within_year, now_s), *within_year)


def format_http_date(unix_s: int) -> bytes:
    """`unix_s` as IMF-fixdate; what is outside the years 1 to 9999 is moved to their edge."""
    days, second = divmod(min(max(unix_s, _MIN_S), _MAX_S), _DAY_S)
    day = date.fromordinal(_EPOCH_DAY + days)
    return b"%s, %02d %s %04d %02d:%02d:%02d GMT" % (
        _DAYS[day.weekday()],
        day.day,
        _MONTHS[day.month - 1],
        day.year,
        second // 3600,
        second // 60 % 60,
        second % 60,
    )


def _within_year(found: re.Match[bytes]) -> tuple[int, int, int, int, int]:
    return (
        _MONTH_OF[found["month"].lower()],
        int(found["day"]),
        int(found["hour"]),
        int(found["minute"]),
        int(found["second"]),
    )


def _full_year(two_digits: int, within_year: tuple[int, int, int, int, int], now_s: int) -> int:
    """The latest year with these last digits that puts the date at most 50 years ahead of now."""
    days, second = divmod(min(max(now_s, _MIN_S), _MAX_S), _DAY_S)
    today = date.fromordinal(_EPOCH_DAY + days)
    now_within = (today.month, today.day, second // 3600, second // 60 % 60, second % 60)
    last_year = today.year + _RFC850_FUTURE_YEARS_MAX
    if within_year > now_within:
        last_year -= 1
    return last_year - (last_year - two_digits) % 100


def _unix_s(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    if hour > 23 or minute > 59 or second > 60 or (second == 60 and (hour, minute) != (23, 59)):
        return None
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:  # 30 February, day 0, year 0
        return None
    return days * _DAY_S + hour * 3600 + minute * 60 + second
