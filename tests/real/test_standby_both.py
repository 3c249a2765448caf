"""The tests of the command line that matter most, once more: each command through a standby. `make test-standby` does
so with all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .programs import Cluster
from .standbys import Standby
from .test_main_job import (
    test_an_interrupt_cancels_and_a_termination_does_not,
    test_an_unknown_machine_names_the_close_matches,
    test_environment_and_working_directory,
    test_following_shows_output_as_it_comes,
    test_json_is_one_document_in_success_and_failure,
    test_long_output_is_cut_with_the_way_to_the_rest,
    test_output_and_exit_code_come_back,
    test_scripts_of_any_length_honour_their_shebang,
    test_stdin_is_streamed_and_closed,
    test_waiting_may_be_given_up_and_taken_up_again,
    test_what_the_words_after_the_machine_mean,
)
from .test_many_machines import (
    fleet,
    terminal,
    test_an_interrupt_cancels_on_every_machine,
    test_follow_is_live,
    test_no_progress_elsewhere,
    test_progress_on_a_terminal_is_gone_before_the_output,
)
from .test_quick import (
    test_a_reader_that_went_away_ends_it_quietly,
    test_an_interrupt_ends_it_while_its_output_is_not_read,
    test_streams_that_share_a_destination_keep_their_order,
)
from .test_quick_cat import large, test_a_full_device_is_told, test_a_part_is_that_part, uuid

__all__ = [
    "fleet",
    "large",
    "terminal",
    "test_a_full_device_is_told",
    "test_a_part_is_that_part",
    "test_a_reader_that_went_away_ends_it_quietly",
    "test_an_interrupt_cancels_and_a_termination_does_not",
    "test_an_interrupt_cancels_on_every_machine",
    "test_an_interrupt_ends_it_while_its_output_is_not_read",
    "test_an_unknown_machine_names_the_close_matches",
    "test_environment_and_working_directory",
    "test_follow_is_live",
    "test_following_shows_output_as_it_comes",
    "test_json_is_one_document_in_success_and_failure",
    "test_long_output_is_cut_with_the_way_to_the_rest",
    "test_no_progress_elsewhere",
    "test_output_and_exit_code_come_back",
    "test_progress_on_a_terminal_is_gone_before_the_output",
    "test_scripts_of_any_length_honour_their_shebang",
    "test_stdin_is_streamed_and_closed",
    "test_streams_that_share_a_destination_keep_their_order",
    "test_waiting_may_be_given_up_and_taken_up_again",
    "test_what_the_words_after_the_machine_mean",
    "uuid",
]


@pytest.fixture(scope="module", autouse=True)
def through_a_standby() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTERSH_TEST_STANDBY", "on")
        yield


def test_commands_do_go_through_one(cluster: Cluster) -> None:
    standby = Standby(cluster)
    before = standby.calls
    assert cluster.sh("run", "ws1", "echo x").out == "x\n"
    assert standby.calls == before + 1
