"""The answers that a worker gave last: what is asked again, and never changes, needn't go through another process."""

from __future__ import annotations

from typing import Generic, TypeVar

MOST, LONGEST = 128, 8 << 10
"""Answers that are kept, and the bytes of a question whose answer is."""

Answer = TypeVar("Answer")


class RecentAnswers(Generic[Answer]):
    """Answers by their questions; those that nobody asked for in the longest time go first."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Answer] = {}

    def find(self, question: bytes) -> Answer | None:
        """Return the answer, where there is one."""
        answer = self._answers.pop(question, None)
        if answer is not None:
            self._answers[question] = answer
        return answer

    def add(self, question: bytes, answer: Answer) -> None:
        """Keep *answer* for a while."""
        if len(question) <= LONGEST:
            self._answers[question] = answer
            if len(self._answers) > MOST:
                del self._answers[next(iter(self._answers))]
