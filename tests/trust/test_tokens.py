"""Join tokens: their text, and what their proofs are good for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.trust.tokens import TOKEN_ID_BYTES, JoinToken, make_token, read_token

ids = st.binary(min_size=TOKEN_ID_BYTES, max_size=TOKEN_ID_BYTES).map(bytes.hex)
keys = st.binary(min_size=32, max_size=32)
transcripts = st.binary(min_size=32, max_size=32)


@given(keys, ids)
def test_a_token_is_read_as_it_was_written(key: bytes, id_: str) -> None:
    token = make_token(key, id_)
    assert read_token(token.text) == token
    assert read_token(f"  {token.text.upper()}\n") == token
    assert token.text.isascii() and len(token.text) == 53
    assert make_token(key, id_) == token, "it follows from the key and the id"


@given(st.text(max_size=80))
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    try:
        token = read_token(text)
    except ValueError as error:
        assert str(error) == "that is no join token: 12 hex digits, '-', and 40 hex digits"
    else:
        assert token.text == text.strip().lower()


@given(keys, ids, st.integers(0, 52), st.sampled_from("0123456789abcdef- ßg"))
def test_a_mistyped_token_is_another_or_none(key: bytes, id_: str, place: int, typed: str) -> None:
    text = make_token(key, id_).text
    changed = text[:place] + typed + text[place + 1 :]
    try:
        token = read_token(changed)
    except ValueError:
        return
    assert (token == read_token(text)) == (changed.strip() == text)


@given(keys, keys, ids, ids)
def test_another_key_or_id_makes_another_secret(key: bytes, other: bytes, id_: str, another: str) -> None:
    secrets = {make_token(*each).secret for each in ((key, id_), (other, id_), (key, another))}
    assert len(secrets) == len({(key, id_), (other, id_), (key, another)})


@given(keys, ids, transcripts, transcripts)
def test_a_proof_is_good_for_one_conversation_and_one_direction(
    key: bytes, id_: str, transcript: bytes, other: bytes
) -> None:
    token = make_token(key, id_)
    assert (token.proof(transcript) == token.proof(other)) == (transcript == other)
    assert (token.answer(transcript) == token.answer(other)) == (transcript == other)
    assert token.proof(transcript) != token.answer(transcript), "what was shown can't be sent back"
    assert len(token.proof(transcript)) == 32
    assert token.secret not in token.proof(transcript)


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format])
def test_a_token_is_not_shown_by_accident(show: object) -> None:
    token = JoinToken("ab" * TOKEN_ID_BYTES, bytes(range(20)))
    assert callable(show)
    assert token.secret.hex() not in show(token)
    assert repr(token.secret)[2:-1] not in show(token)
