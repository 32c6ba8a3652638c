"""Progress: what people read of long work."""

from __future__ import annotations

import io

from skerry.build.progress import Progress


def test_steps_are_counted_where_their_number_is_known() -> None:
    heard = io.StringIO()
    progress = Progress(heard, 3)
    with progress.step("export", 4):
        pass
    progress.found("quantize")
    assert heard.getvalue() == "[1/3] export, about 4 s\n[2/3] quantize: in the cache\n"


def test_where_the_time_is_known_lines_begin_with_what_was_spent() -> None:
    heard = io.StringIO()
    with Progress(heard, seconds=605).step("make a form"):
        pass
    assert heard.getvalue() == "[0:00 of 10:05] make a form\n"
