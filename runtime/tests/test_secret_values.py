"""Secrets that may be used, and messages on those that cannot: never with a part of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.contract import (
    LONGEST_SECRET,
    SecretError,
    SecretForm,
    secret_of,
    secret_value,
    what_is_wrong,
)
from flotilla_runtime.secret_files import entries_in, secret_in
from leaks.planted import planted

HUSH = planted("hush")
GOOD = [
    pytest.param(HUSH.encode(), id="as it is"),
    pytest.param(f"{HUSH}\n".encode(), id="LF"),
    pytest.param(f"{HUSH}\r\n".encode(), id="CR LF"),
    pytest.param(f" \t{HUSH}\t \n\n".encode(), id="spaces and tabs around it"),
]
UNUSABLE = [
    pytest.param(b"", "is empty", id="nothing"),
    pytest.param(b" \t\r\n", "is empty", id="nothing but spaces"),
    pytest.param(f"{HUSH}\r\nX-Evil: 1".encode(), "a line break", id="a line break in it"),
    pytest.param(f"{HUSH}\0{HUSH}".encode(), "control character", id="NUL in it"),
    pytest.param(f"{HUSH}\0".encode(), "control character", id="NUL at its end"),
    pytest.param(f"{HUSH}\x7f".encode(), "control character", id="DEL"),
    pytest.param(f"{HUSH} é".encode(), "not ASCII", id="UTF-8"),
    pytest.param(f"\ufeff{HUSH}".encode(), "not ASCII", id="a mark of the byte order"),
    pytest.param(f"{HUSH} é".encode("latin-1"), "no text in UTF-8", id="latin-1"),
    pytest.param(HUSH.encode("utf-16"), "no text in UTF-8", id="UTF-16"),
    pytest.param((HUSH * 2**18)[: 2**20].encode(), "too long", id="1 MiB"),
    pytest.param(b"x" * (LONGEST_SECRET + 1), "too long", id="a character too many"),
    pytest.param(HUSH.encode() + b"\n" * 2**20, "too long", id="1 MiB of line breaks behind it"),
]


@pytest.mark.parametrize("raw", GOOD)
def test_what_is_around_a_secret_does_not_count(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(raw)
    assert secret_value(raw, "it") == HUSH
    assert secret_of({"TOKEN": raw.decode()}, "TOKEN") == HUSH
    assert secret_in(tmp_path / "token") == HUSH


@pytest.mark.parametrize(("raw", "says"), UNUSABLE)
def test_what_no_header_can_have_is_refused_with_its_place_and_not_quoted(
    raw: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_bytes(raw)
    surrogates = raw.decode(errors="surrogateescape")
    with pytest.raises(SecretError) as of_file:
        secret_in(tmp_path / "token")
    with pytest.raises(SecretError) as of_variable:
        secret_of({"TOKEN": surrogates}, "TOKEN", "spec.model.tokenSecretRef")
    assert str(of_file.value).startswith(f"the file {tmp_path / 'token'} ")
    place = "the environment variable TOKEN (spec.model.tokenSecretRef) "
    assert str(of_variable.value).startswith(place)
    assert says in str(of_file.value)
    for error in (of_file.value, of_variable.value):
        assert "give it a value of one line" in str(error)
        assert HUSH not in repr(error)
        assert HUSH not in repr(error.__cause__)
    found = entries_in(tmp_path)
    assert (found.values, len(found.problems)) == ({}, 1)
    assert HUSH not in found.problems[0]


def test_a_secret_that_is_not_set_is_none() -> None:
    assert secret_of({}, "TOKEN") is None


def test_a_password_may_have_letters_that_no_header_has() -> None:
    assert secret_value("pässwörd\n", "it", SecretForm.TEXT) == "pässwörd"
    with pytest.raises(SecretError):
        secret_value("päss\0wörd", "it", SecretForm.TEXT)


@given(st.binary(max_size=40))
def test_a_value_is_sent_as_it_is_or_told_without_any_part_of_it(raw: bytes) -> None:
    wrong = what_is_wrong(raw)
    if wrong is None:
        value = secret_value(raw, "it")
        assert value.encode() in raw
        assert value.isascii()
        assert value.isprintable()
    else:
        assert wrong.isascii()
        assert len(raw) < 12 or raw.decode("latin-1") not in wrong
