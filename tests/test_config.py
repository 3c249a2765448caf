"""config.toml: its values, and errors that say where, what was found and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from clustersh import config
from clustersh.config import ClientPolicy, Config, ConfigError, PolicyConfig, TargetPolicy

EVERYTHING = """
[coordinator]
listen = "127.0.0.1:0"
admin_from = ["203.0.113.0/24", "2001:db8::/32"]
reconnect_grace = "2s"
blob_quota = "5GiB"
reserve = 4096

[enrollment]
policy = "approve"
allow = ["198.51.100.7"]

[agent]
name = "WS1"
environment = "service"
grace = "500ms"
reconnect_max = "10m"
blob_quota = "1GB"
reserve = "0"

[client]
retry_for = "1h30m"

[policy]
force = "approve"
rules = { power = "deny" }

[policy.client."ai-*@*"]
force = "never"
targets = "@lab,!db1"
machines_at_once = 5
jobs_per_minute = 30
rules = { power = "block" }

[policy.target."@lab"]
force = "self"
rules = { power = "allow" }
"""


def load(home: Path, content: str) -> Config:
    (home / "config.toml").write_text(content, encoding="utf-8")
    return config.load(home)


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert config.load(tmp_path) == Config()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Config()


def test_every_key_is_read(tmp_path: Path) -> None:
    loaded = load(tmp_path, EVERYTHING)
    assert (loaded.coordinator.listen.host, loaded.coordinator.listen.port) == ("127.0.0.1", 0)
    assert [str(one.network) for one in loaded.coordinator.admin_from] == ["203.0.113.0/24", "2001:db8::/32"]
    assert loaded.coordinator.reconnect_grace == 2
    assert (loaded.coordinator.blob_quota, loaded.coordinator.reserve) == (5 << 30, 4096)
    assert loaded.enrollment.policy == "approve"
    assert [str(one.network) for one in loaded.enrollment.allow] == ["198.51.100.7/32"]
    assert (loaded.agent.name, loaded.agent.environment) == ("ws1", "service")
    assert (loaded.agent.grace, loaded.agent.reconnect_max) == (0.5, 600)
    assert (loaded.agent.blob_quota, loaded.agent.reserve) == (10**9, 0)
    assert loaded.client.retry_for == 5400
    assert loaded.policy == PolicyConfig(
        "approve",
        {"power": "deny"},
        {"ai-*@*": ClientPolicy("never", {"power": "block"}, "@lab,!db1", 5, 30)},
        {"@lab": TargetPolicy("self", {"power": "allow"})},
    )


@pytest.mark.parametrize(
    ("content", "key", "found", "expected"),
    [
        ("[agent]\nenvironment = 'zsh'", "agent.environment", "'zsh'", "'login' or 'service'"),
        ("[agent]\nenvironment = 3", "agent.environment", "3", "'login' or 'service'"),
        ("[enrollment]\npolicy = 'ask'", "enrollment.policy", "'ask'", "'open' or 'token' or 'approve'"),
        ("[join]\ncoordinator = 'http://a/b'", "join.coordinator", "'http://a/b'", "a coordinator such as"),
        ("[join]\nca = 'abc'", "join.ca", "'abc'", "a SHA-256: 64 hex digits"),
        ("agent = 3", "agent", "3", "a table"),
        ("[[agent]]\nname = 'x'", "agent", "[{'name': 'x'}]", "a table"),
        ("[agent]\ngrace = 5", "agent.grace", "5", "a duration with its unit"),
        ("[agent]\ngrace = '5'", "agent.grace", "'5'", "a duration with its unit"),
        ("[agent]\nreconnect_max = '1h'", "agent.reconnect_max", "'1h'", "between 1s and 10m"),
        ("[agent]\nreconnect_max = nan", "agent.reconnect_max", "nan", "a duration"),
        ("[agent]\nname = 'all'", "agent.name", "'all'", "not 'all'"),
        ("[agent]\nname = 'a b'", "agent.name", "'a b'", "a machine's name"),
        ("[coordinator]\nreserve = -1", "coordinator.reserve", "-1", "a size"),
        ("[coordinator]\nreserve = true", "coordinator.reserve", "True", "a size"),
        ("[coordinator]\nlisten = 'here'", "coordinator.listen", "'here'", "an address"),
        ("[coordinator]\nlisten = 99999", "coordinator.listen", "99999", "an address"),
        ("[enrollment]\nallow = '10.0.0.0/8'", "enrollment.allow", "'10.0.0.0/8'", "a list"),
        ("[enrollment]\nallow = ['::1', '10.0.0.1/8']", "enrollment.allow[1]", "'10.0.0.1/8'", "host bits zero"),
        ("[policy]\nforce = 'me'", "policy.force", "'me'", "'self' or 'approve' or 'never'"),
        ("[policy]\nclient = 3", "policy.client", "3", "a table, each of whose values is a table"),
        ("[policy.rules]\npower = 'x'", "policy.rules.power", "'x'", "'allow' or 'block' or 'deny'"),
        ("[policy.client.a]\n[policy.client.'b@*']\nforce = 1", 'policy.client."b@*".force', "1", "'self' or"),
        ("[policy.target.'@a']\nrules = {x = 'y'}", 'policy.target."@a".rules.x', "'y'", "'allow' or"),
        ("[policy.client.a]\nmachines_at_once = 0", "policy.client.a.machines_at_once", "0", "between 1 and 1000000"),
        ("[policy.client.a]\njobs_per_minute = true", "policy.client.a.jobs_per_minute", "True", "a whole number"),
        ("[policy.client.a]\ntargets = []", "policy.client.a.targets", "[]", "text"),
        ("[enrollment]\nallow = [7]", "enrollment.allow[0]", "7", "a network"),
    ],
)
def test_an_error_names_file_key_found_and_expected(
    tmp_path: Path, content: str, key: str, found: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, content)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'config.toml'}: {key}: found {found}; expected ")
    assert expected in message


@pytest.mark.parametrize(
    ("content", "key", "advice"),
    [
        ("[agent]\ngrase = '5s'", "agent.grase", "did you mean 'grace'?"),
        ("[agents]\nname = 'x'", "agents", "did you mean 'agent'?"),
        ("[policy.client.a]\nforced = 'self'", "policy.client.a.forced", "did you mean 'force'?"),
        ("[client]\nzzz = 1", "client.zzz", "expected one of retry_for, standby"),
    ],
)
def test_an_unknown_key_names_the_near_ones(tmp_path: Path, content: str, key: str, advice: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, content)
    assert str(refused.value) == f"{tmp_path / 'config.toml'}: {key}: found a key that does not exist; {advice}"


def test_what_is_not_toml_says_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not valid TOML: .*line 2"):
        load(tmp_path, "[agent]\nname = =\n[client]")


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="can't be read"):
        config.load(tmp_path)
    (tmp_path / "config.toml").unlink()
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match="can't be read"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("5672", "*", 5672),
        (":80", "*", 80),
        ("*:0", "*", 0),
        ("127.0.0.1:5672", "127.0.0.1", 5672),
        ("[::1]:5672", "::1", 5672),
        ("ws1.example:1", "ws1.example", 1),
    ],
)
def test_listen_addresses(text: str, host: str, port: int) -> None:
    listen = config.parse_listen(text)
    assert (listen.host, listen.port) == (host, port)
    assert config.parse_listen(str(listen)) == listen


@pytest.mark.parametrize("text", ["", "::1:80", "a:b", "host:65536", "a b:1", "http://x:1", "[x]:1"])
def test_what_is_no_listen_address(text: str) -> None:
    with pytest.raises(ValueError, match="expected an address"):
        config.parse_listen(text)
