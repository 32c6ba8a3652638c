"""Personal data in text: where e-mail addresses, phone numbers, cards, IBANs and IP addresses stand.

Each finder returns the spans ``(start, end)`` of what it found. Whatever has a checksum is checked, so that a random
number of the same look stays; what has none is matched narrowly, so that versions, dates and times stay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

Span = tuple[int, int]
Finder = Callable[[str], list[Span]]

_EMAIL = re.compile(r"[\w.%+'-]{1,64}@(?:[^\W_](?:[\w-]{0,62})\.){1,8}[^\W\d_]{2,24}(?![\w-])")

# Runs of at least 13 digits in groups, as cards are printed; a fraction such as 0.4111… is not one. This and
# what follows begin with a character and look behind it then, so that the search can skip from one to the next.
_DIGITS = re.compile(r"\d(?<!\d\d)(?<!\d\.\d)(?:[ \u00a0-]?\d){12,}")
_GROUP = re.compile(r"\d+")
_CARD_DIGITS: Final = (13, 19)
"""ISO/IEC 7812 allows up to 19 digits; no network issues cards of fewer than 13 any more."""

_PHONE = re.compile(
    r"""
    (?<![\w.:/+-])(?:
        \+[1-9]\d{0,2}[ .-]?(?:\(0?\d{0,4}\)[ .-]?)?\d(?:[ ./-]?\d){5,13}        # +49 (0)30 1234-5678, +14155552671
      | 00[1-9]\d{0,2}[ /-](?:\(0\)[ ]?)?\d(?:[ /-]?\d){5,13}                    # 0049 30 1234567
      | \(0\d{1,5}\)[ /-]?\d(?:[ -]?\d){4,9}                                      # (030) 1234567
      | (?:1[ .-])?(?:\([2-9]\d{2}\)[ ]?|[2-9]\d{2}[. -])[2-9]\d{2}[. -]\d{4}     # (415) 555-2671, 415.555.2671
      | 0[1-9]\d{1,4}[ /-]\d{3,8}(?:[ -]\d{2,6}){0,2}                             # 030 1234567, 020 7946 0958
      | 0[1-9](?:[ ]\d{2}){4}                                                     # 01 23 45 67 89
    )(?![\w:]|[.,/-]\d)
    """,
    re.VERBOSE,
)
_PHONE_DIGITS: Final = (8, 15)
"""E.164 allows up to 15 digits; with its area, hardly a number has fewer than 8."""

_IBAN = re.compile(r"[A-Za-z](?<![A-Za-z0-9].)[A-Za-z]\d{2}(?=[ -]?[A-Za-z0-9])")
# Length by country, from the SWIFT IBAN registry.
_IBAN_LENGTHS: Mapping[str, int] = {
    code: length
    for length, codes in {
        15: "NO", 16: "BE", 18: "DK FK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "AO CV GW LY MZ PT ST", 26: "DZ IR IS TR",
        27: "BI CF CG CM DJ FR GA GQ GR IT KM MC MG MR SM TD",
        28: "AL AZ BF BJ BY CI CY DO GT HN HU LB MA ML NE NI PL SN SV TG",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip

# Versions of four parts go on with a revision (1.2.5.1-2) or a suffix (1.2.3.4+dfsg, 1.2.3.4~rc1), addresses do not.
_IPV4 = re.compile(r"\d(?<![\w.]\d)\d{0,2}\.(?:\d{1,3}\.){2}\d{1,3}(?!\w|\.\d|[+~]\w|-\d{1,2}(?!\d|\.\d))")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)")


def find_emails(text: str) -> list[Span]:
    """Find e-mail addresses of the usual form, in any script."""
    if "@" not in text:
        return []
    return [match.span() for match in _EMAIL.finditer(text)]


def find_cards(text: str) -> list[Span]:
    """Find payment card numbers: 13 to 19 digits, alone or in groups, with a network's prefix and a good Luhn digit."""
    spans: list[Span] = []
    for run in _DIGITS.finditer(text):
        groups = [match.span() for match in _GROUP.finditer(text, *run.span())]
        for first in range(len(groups)):
            spans += _cards_from(text, groups, first)
    return joined(spans)


def _cards_from(text: str, groups: list[Span], first: int) -> list[Span]:
    """Find cards that begin with the group ``first``: numbers may stand before and after one in the same run."""
    digits, spans = "", []
    for start, end in groups[first:]:
        digits += text[start:end]
        if len(digits) > _CARD_DIGITS[1]:
            break
        if len(digits) >= _CARD_DIGITS[0] and is_card(digits):
            spans.append((groups[first][0], end))
    return spans


def is_card(digits: str) -> bool:
    """Tell whether 13 to 19 digits are a card number.

    Networks issue prefixes 2 to 6 and 8, and 1 with 15 digits (UATP); the Luhn digit is that of ISO/IEC 7812-1. Times
    in milli-, micro- or nanoseconds since 1970 begin with 1 and so are left alone.
    """
    if not (digits[0] in "234568" or (digits[0] == "1" and len(digits) == 15)):
        return False
    return luhn_sum(digits) % 10 == 0


def luhn_sum(digits: str) -> int:
    """Return the sum of the digits, every second one from the right doubled (and its digits added)."""
    total = 0
    for place, sign in enumerate(reversed(digits)):
        value = int(sign)
        total += value if place % 2 == 0 else (2 * value if value < 5 else 2 * value - 9)
    return total


def find_ibans(text: str) -> list[Span]:
    """Find International Bank Account Numbers: a country's length and a good check number (ISO 13616)."""
    spans = []
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2].upper())
        end = _end_of_iban(text, match.start(), length) if length else None
        if end is not None and is_iban(re.sub(r"[ -]", "", text[match.start() : end])):
            spans.append((match.start(), end))
    return spans


def _end_of_iban(text: str, start: int, length: int) -> int | None:
    """Return where ``length`` letters and digits end, single spaces or dashes between them aside."""
    place = start
    while length and place < len(text):
        sign = text[place]
        if sign.isascii() and sign.isalnum():
            length -= 1
        elif sign not in " -" or text[place - 1] in " -":
            return None
        place += 1
    stands_alone = place == len(text) or not (text[place].isascii() and text[place].isalnum())
    return place if not length and stands_alone else None


def is_iban(compact: str) -> bool:
    """Tell whether the number formed as ISO 7064 (mod 97-10) says has the remainder 1."""
    moved = (compact[4:] + compact[:4]).upper()
    return int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def find_phones(text: str) -> list[Span]:
    """Find phone numbers: international with + or 00, and the common national forms, which need separators."""
    spans = []
    for match in _PHONE.finditer(text):
        count = sum(sign.isdigit() for sign in match[0])
        if _PHONE_DIGITS[0] <= count <= _PHONE_DIGITS[1] + 2:  # 00, or (0), are dialled but not part of the number
            spans.append(match.span())
    return spans


def find_addresses(text: str, *, loopback: bool = False) -> list[Span]:
    """Find valid IPv4 and IPv6 addresses; those of this very machine (and 0.0.0.0, ::) only with ``loopback``."""
    spans = []
    # An IPv6 address has two colons together, or seven; a time of day has neither.
    patterns = (_IPV4, _IPV6) if "::" in text or text.count(":") >= 6 else (_IPV4,)
    for pattern in patterns:
        for match in pattern.finditer(text):
            start, end = match.span()
            if pattern is _IPV6 and not any(sign.isdigit() for sign in match[0]):
                continue  # names in programs, such as dead::beef
            try:
                address = ipaddress.ip_address(text[start:end])
            except ValueError:
                continue
            if loopback or not (address.is_loopback or address.is_unspecified):
                spans.append((start, end))
    return joined(spans)


def joined(spans: list[Span]) -> list[Span]:
    """Return sorted spans, those that overlap made one."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result
