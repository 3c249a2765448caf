"""What ``[policy]`` can't mean is found at the start; what it says of groups is an admin's."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet import reactor

from clustersh import config
from clustersh.config import ClientPolicy, ConfigError, PolicyConfig, TargetPolicy
from clustersh.coordinator.guard import RULES
from clustersh.coordinator.policy.rulebook import named_groups
from clustersh.coordinator.service import make_service


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[policy.rules]\npowr = 'deny'", "policy.rules.powr: found a rule that does not exist; did you mean 'power'?"),
        ("[policy.rules]\nzzz = 'deny'", f"found a rule that does not exist; expected one of {min(RULES)}, "),
        ("[policy.client.'ai-*@*'.rules]\nx = 'deny'", 'policy.client."ai-*@*".rules.x: found a rule that'),
        ("[policy.target.'@a'.rules]\nx = 'deny'", 'policy.target."@a".rules.x: found a rule that'),
        (
            "[policy.client.'a b']\n",
            "policy.client.\"a b\": found 'a b'; expected a client's name or a pattern such as",
        ),
        (
            "[policy.client.'ai-*']\nforce = 'never'\n[policy.client.'AI-*']\nforce = 'self'",
            "policy.client.\"AI-*\": found 'AI-*'; expected each client once: there is 'ai-*' too",
        ),
        ("[policy.client.a]\ntargets = 'web['", "policy.client.a.targets: found 'web['; expected a target such as"),
        ("[policy.client.a]\ntargets = ''", "policy.client.a.targets: found ''; expected a target such as"),
        ("[policy.target.'a,,b']", "policy.target.\"a,,b\": found 'a,,b'; expected a target such as"),
    ],
)
def test_what_it_cannot_mean_is_told_by_its_key_and_nothing_starts(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        make_service(reactor, tmp_path, config.load(tmp_path))
    assert str(refused.value).startswith(f"{tmp_path / 'config.toml'}: policy.")
    assert said in str(refused.value)
    assert not (tmp_path / "coordinator").exists()


def test_the_groups_and_labels_that_it_names() -> None:
    policy = PolicyConfig(
        client={"a": ClientPolicy(targets="@Lab[1-2],!@tier:prod,all,web*"), "b": ClientPolicy()},
        target={"@os:linux&@web!@rack:*": TargetPolicy()},
    )
    assert named_groups(policy) == ({"lab1", "lab2", "web"}, {"tier", "rack"})
