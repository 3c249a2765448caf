"""The answers that are kept, and for how long."""

from __future__ import annotations

from clustersh.coordinator.recent_answers import LONGEST, MOST, RecentAnswers


def test_those_asked_for_last_are_kept() -> None:
    answers: RecentAnswers[int] = RecentAnswers()
    for number in range(MOST):
        answers.add(b"%d" % number, number)
    assert answers.find(b"0") == 0
    answers.add(b"another", -1)
    assert (answers.find(b"0"), answers.find(b"1"), answers.find(b"another")) == (0, None, -1)


def test_an_empty_answer_is_one_too() -> None:
    answers: RecentAnswers[tuple[int, ...]] = RecentAnswers()
    answers.add(b"harmless", ())
    assert answers.find(b"harmless") == ()


def test_long_questions_are_not_kept() -> None:
    answers: RecentAnswers[int] = RecentAnswers()
    answers.add(b"x" * LONGEST, 1)
    answers.add(b"y" * (LONGEST + 1), 2)
    assert (answers.find(b"x" * LONGEST), answers.find(b"y" * (LONGEST + 1))) == (1, None)
