"""How long a server asks to wait."""

import pytest

from flotilla_runtime.agent.models.retry_after import retry_after_seconds

NOW = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param(None, None, id="no header"),
        pytest.param("3", 3, id="seconds"),
        pytest.param(" 120 ", 120, id="with blanks"),
        pytest.param("9" * 400, 999_999_999, id="a number without end"),
        pytest.param("Wed, 21 Oct 2015 07:28:30 GMT", 30, id="a date"),
        pytest.param("Wednesday, 21-Oct-15 07:28:30 GMT", 30, id="a date of an older standard"),
        pytest.param("Wed Oct 21 07:28:30 2015", 30, id="a date as C writes it"),
        pytest.param("Wed, 21 Oct 2015 07:28:30 -0000", 30, id="a date whose zone is unknown"),
        pytest.param("Wed, 21 Oct 2015 07:00:00 GMT", 0, id="a date that is past"),
        pytest.param("-5", None, id="a negative number"),
        pytest.param("1.5", None, id="a fraction"),
        pytest.param("٣", None, id="a digit of another script"),
        pytest.param("soon", None, id="a word"),
        pytest.param("Wed, 99 Oct 2015 07:28:30 GMT", None, id="a day that is none"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_seconds_and_dates_are_read(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds
