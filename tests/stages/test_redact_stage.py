"""Redaction: what has to go goes, what only looks like it stays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run import pii
from skerry.run.stages.redact import RedactStage
from skerry.spec.errors import SpecError, StageError
from skerry.testing.stages import context, decode_options, open_stage, records

redact = RedactStage(RedactStage.Options()).redact
SECRET = "a secret of more than sixteen bytes"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from ada.lovelace+x@mail.example.co.uk to", "from [email] to"),
        ("<jürgen@müller.de>", "<[email]>"),
        ("card 4111 1111 1111 1111, ok", "card [card], ok"),
        ("4111-1111-1111-1111 123", "[card] 123"),
        ("12 5500005555555559 3", "12 [card] 3"),
        ("amex 378282246310005", "amex [card]"),
        ("pay DE89 3704 0044 0532 0130 00 NOW", "pay [iban] NOW"),
        ("GB29NWBK60161331926819.", "[iban]."),
        ("nl91abna0417164300", "[iban]"),
        ("from 203.0.113.7:8080 and 2001:db8::1.", "from [ip]:8080 and [ip]."),
        ("10.0.0.1-10.0.0.9, 10.0.0.1-254", "[ip]-[ip], [ip]-254"),
        ("[fe80::1ff:fe23:4567:890a]", "[[ip]]"),
        ("::ffff:192.0.2.128", "[ip]"),
        ("call +49 (0)30 1234-5678!", "call [phone]!"),
        ("+14155552671", "[phone]"),
        ("+33 1 23 45 67 89", "[phone]"),
        ("0049 30 1234567", "[phone]"),
        ("(415) 555-2671 or 415-555-2671 or 415.555.2671", "[phone] or [phone] or [phone]"),
        ("1-800-555-0199", "[phone]"),
        ("020 7946 0958", "[phone]"),
        ("0171/1234567", "[phone]"),
        ("01 23 45 67 89", "[phone]"),
        ("(030) 1234567", "[phone]"),
    ],
)
def test_personal_data_goes(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22 08:01:02 status installed libc6:amd64 2.36-9+deb12u13",
        "2026-11-22T08:01:02.123456+01:00 host kernel: [12345.678901] usb 1-1: new device",
        "22.11.2026 08:01 and 11/22/2026, 01-02-2024, 2024/01/02",
        "python3.11 (3.11.2-6+deb12u5) over (3.11.2-6+deb12u4)",
        "linux-image-6.1.0-28-amd64 6.1.119-1",
        "chrome/120.0.6099.109 v1.2.3.4 openssl 1.1.1n-0+deb11u5",
        "epoch 1732272000000 1732272000000000 1732272000000000000",
        "pid 123456789, size 1234567890 bytes, 4096 8192 16384",
        "pi 3.141592653589793 e 2.718281828459045",
        "listening on 127.0.0.1:80, [::1]:80 and 0.0.0.0",
        "std::string a::b dead::beef 00:1A:2B:3C:4D:5E 12:34:56",
        "status installed alsa-topology-conf:all 1.2.5.1-2 libx 1.2.3.4+dfsg-1 liby 1.2.3.4~rc1",
        "999.1.1.1 1.2.3 1.2.3.4.5 256.256.256.256",
        "sha 3f786850e387550fdab836ed7e6dc881de23001b",
        "a@b, user@host, @handle, foo@localhost",
        "uuid 123e4567-e89b-12d3-a456-426614174000",
        "+0100 -0500 +02:00 +++ ---",
        "4111 1111 1111 1112",
        "Jan 12 03:04:05 cron[12345]: (root) CMD (cd / && run-parts)",
        "10 20 30 40 50 60 70",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(text) == text


def luhn(payload: str) -> str:
    return payload + str(-pii.luhn_sum(payload + "0") % 10)


payloads = st.from_regex(r"[2-6][0-9]{11,17}", fullmatch=True)


@given(
    payloads,
    st.sampled_from(["", " ", "-"]),
    st.sampled_from(["", "card ", "x: 12 "]),
    st.sampled_from(["", ".", " 7"]),
)
def test_every_valid_card_goes(payload: str, separator: str, before: str, after: str) -> None:
    number = luhn(payload)
    shown = separator.join(number[place : place + 4] for place in range(0, len(number), 4))
    assert shown not in redact(f"{before}{shown}{after}")


@given(payloads, st.integers(1, 9))
def test_a_number_with_a_bad_luhn_digit_stays(payload: str, wrong: int) -> None:
    good = luhn(payload)
    bad = good[:-1] + str((int(good[-1]) + wrong) % 10)
    assert RedactStage(RedactStage.Options(kinds=["card"])).redact(f"id {bad}.") == f"id {bad}."


countries = st.sampled_from([("DE", 18), ("FR", 23), ("NO", 11), ("MT", 27), ("GB", 18)])


@given(countries, st.data(), st.booleans())
def test_every_valid_iban_goes_and_one_with_a_bad_check_stays(
    country: tuple[str, int], data: st.DataObject, grouped: bool
) -> None:
    code, length = country
    account = data.draw(st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=length, max_size=length))
    digits = "".join(str(int(sign, 36)) for sign in account + code + "00")
    check = 98 - int(digits) % 97
    good = f"{code}{check:02d}{account}"
    bad = f"{code}{(check + 1) % 100:02d}{account}"
    only = RedactStage(RedactStage.Options(kinds=["iban"])).redact
    shown = re.sub(r"(.{4})(?=.)", r"\1 ", good) if grouped else good
    assert only(f"to {shown}, thanks") == "to [iban], thanks"
    assert only(bad) == bad


@given(st.ip_addresses(), st.sampled_from(["{}", "from {} to", "[{}]", "({})."]))
def test_every_address_goes(address: Any, around: str) -> None:
    text = str(address)
    if address.is_loopback or address.is_unspecified or not any(sign.isdigit() for sign in text):
        return
    stage = RedactStage(RedactStage.Options(kinds=["ip"]))
    assert stage.redact(around.format(text)) == around.format("[ip]")


@given(st.text(max_size=200))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


def test_the_fields_the_kinds_and_loopback_are_options(tmp_path: Path) -> None:
    options = {"kinds": ["ip"], "fields": ["a", "missing"], "loopback": True}
    stage = open_stage(RedactStage, options, tmp_path)
    fields = stage.process(records([{"a": "::1 x@y.de", "b": "10.0.0.1", "n": 7}])[0]).fields
    assert fields == {"a": "[ip] x@y.de", "b": "10.0.0.1", "n": 7}


def test_texts_inside_lists_and_mappings_are_searched(tmp_path: Path) -> None:
    stage = open_stage(RedactStage, {}, tmp_path)
    frame = bytearray(10)
    nested = {"to": ["x@y.de", ("10.0.0.1", 5)], "frame": frame}
    fields = stage.process(records([{"nested": nested}])[0]).fields
    assert fields["nested"] == {"to": ["[email]", ("[ip]", 5)], "frame": frame}
    assert fields["nested"]["frame"] is frame
    assert nested["to"][0] == "x@y.de", "another branch may still hold the original"
    deep: Any = "x@y.de"
    for _ in range(50):
        deep = [deep]
    with pytest.raises(StageError, match="nested"):
        stage.process(records([{"deep": deep}])[0])


def test_custom_kinds_go_first(tmp_path: Path) -> None:
    stage = open_stage(RedactStage, {"custom": {"ticket": r"T-\d+"}, "kinds": []}, tmp_path)
    assert stage.redact("see T-123, a@b.de") == "see [ticket], a@b.de"
    with pytest.raises(SpecError, match=r"custom.bad"):
        RedactStage(decode_options(RedactStage, {"custom": {"bad": "("}}))


def test_pseudonyms_are_stable_keyed_and_spelling_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKERRY_REDACT_KEY", SECRET)
    stage = open_stage(RedactStage, {"hash": True}, tmp_path)
    one, two = stage.redact("A@b.de paid with 4111 1111 1111 1111"), stage.redact("a@B.de paid with 4111111111111111")
    assert one == two
    assert re.fullmatch(r"\[email:[a-r]{12}\] paid with \[card:[a-r]{12}\]", one)
    assert stage.redact(one) == one
    monkeypatch.setenv("SKERRY_REDACT_KEY", SECRET[::-1])
    assert open_stage(RedactStage, {"hash": True}, tmp_path).redact("a@b.de") not in one


def test_pseudonyms_need_a_key_worth_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTHER_KEY", raising=False)
    stage = RedactStage(decode_options(RedactStage, {"hash": True, "key_env": "OTHER_KEY"}))
    with pytest.raises(SpecError, match="OTHER_KEY is not set"):
        stage.open(context(tmp_path))
    monkeypatch.setenv("OTHER_KEY", "short")
    with pytest.raises(SpecError, match="has only 5 bytes"):
        stage.open(context(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "1" * 100_000,
        "1 " * 50_000,
        "a@" * 50_000,
        "1.1." * 25_000,
        "::" * 50_000,
        "a" * 100_000 + "@",
        "+1" * 50_000,
        "DE00" * 25_000,
    ],
)
def test_hostile_text_does_not_take_forever(text: str) -> None:
    assert redact(text) is not None
