"""The commands: what they print, in text and JSON, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chamelio.host import limits
from host.rig import Host

Run = Callable[..., Any]


@pytest.fixture
def run(cham: Run, host: Host) -> Run:
    """`chamelio WORDS --run DIR`, on a host without tenants."""
    for tenant in host.call("tenant.list"):
        host.call("tenant.rm", tenant=tenant["name"])
    return lambda *words: cham("--run", str(host.run), *words)


def object_file(path: Path, **content: Any) -> str:
    """An object for the fake compiler."""
    path.write_text(json.dumps(content))
    return str(path)


def folder(path: Path, manifest: str) -> str:
    path.mkdir()
    (path / "protocol.toml").write_text(manifest)
    (path / "x.o").write_text("{}")
    return str(path)


def test_a_tenants_life(run: Run, tmp_path: Path) -> None:
    added = run("tenant", "add", "a", "--address", "10.0.0.2", "--weight", "3", "-o", "json")
    assert added.exit == 0 and added.json["weight"] == 3
    assert Path(added.json["token_file"]).exists()
    assert run("tenant", "list").out.splitlines()[1].split() == ["a", "10.0.0.2", "0", "3", "-", "-"]
    loaded = run("protocol", "load", "a", object_file(tmp_path / "echo.o"), "--ip-protocol", "17", "-o", "json")
    assert loaded.exit == 0 and (loaded.json["name"], loaded.json["action"]) == ("echo", "created")
    again = run("protocol", "load", "a", object_file(tmp_path / "echo.o", version=2), "--ip-protocol", "17")
    assert again.exit == 0 and again.out.startswith("echo of a: swapped")
    assert run("protocol", "list", "-o", "json").json[0]["state"] == "loaded"
    assert "ip_protocol: 17" in run("protocol", "show", "a", "echo").out
    assert "echo" in run("tenant", "show", "a").out
    assert run("tenant", "weight", "a", "7").exit == 0
    assert run("tenant", "list", "-o", "json").json[0]["weight"] == 7
    assert run("protocol", "rm", "a", "echo").exit == 0
    assert run("tenant", "rm", "a").exit == 0
    assert run("tenant", "list", "-o", "json").json == []


def test_a_token_file_makes_the_command_the_tenants(run: Run) -> None:
    token = run("tenant", "add", "a", "--address", "10.0.0.2", "-o", "json").json["token_file"]
    run("tenant", "add", "b", "--address", "10.0.0.3")
    assert [t["name"] for t in run("tenant", "list", "--token-file", token, "-o", "json").json] == ["a"]
    refused = run("tenant", "rm", "b", "--token-file", token)
    assert refused.exit == 1 and "provider" in refused.err


def test_a_folder_says_what_it_is(run: Run, tmp_path: Path) -> None:
    run("tenant", "add", "a", "--address", "10.0.0.2")
    path = folder(tmp_path / "f", 'name = "mine"\nip_protocol = 200\nobject = "x.o"\nports = [7, 9]\n')
    loaded = run("protocol", "load", "a", path, "-o", "json").json
    assert (loaded["name"], loaded["ip_protocol"], loaded["ports"]) == ("mine", 200, [7, 9])


BAD_FOLDERS = {
    'nmae = "x"\nip_protocol = 17\nobject = "x.o"': "did you mean 'name'",
    'name = "x"\nip_protocol = "udp"\nobject = "x.o"': "Expected `int`",
    'name = "x"\nip_protocol = 17': "either `source` or `object`",
    'name = "x"\nip_protocol = 17\nobject = "y.o"': "there is no file",
    "name = ": "cannot be read",
}


@pytest.mark.parametrize("manifest", BAD_FOLDERS)
def test_a_bad_folder_is_refused_with_key_and_remedy(run: Run, tmp_path: Path, manifest: str) -> None:
    done = run("protocol", "load", "a", folder(tmp_path / "f", manifest))
    assert done.exit == 2 and BAD_FOLDERS[manifest] in done.err


def test_exit_codes_and_errors_in_json(run: Run, tmp_path: Path) -> None:
    run("tenant", "add", "a", "--address", "10.0.0.2", "--memory-quota", "300000")
    rejected = run("protocol", "load", "a", object_file(tmp_path / "r.o", reject=True), "--ip-protocol", "17", "-o", "json")
    assert rejected.exit == 3 and rejected.json["error"]["verdicts"]
    big = object_file(tmp_path / "b.o", maps=[["m", 1, 60000]])
    assert run("protocol", "load", "a", big, "--ip-protocol", "17").exit == 5
    missing = run("tenant", "show", "aa", "-o", "json")
    assert missing.exit == 1 and "did you mean 'a'" in missing.json["error"]["remedy"]
    assert run("tenant", "add", "a", "--address", "10.0.0.4").exit == 1
    assert run("tenant", "add", "b", "--address", "10.0.0").exit == 2
    assert run("tenant", "add", "b", "--address", "10.0.0.4", "--uid", "no-such-user").exit == 2


USAGE = [
    (["tenant", "lst"], "did you mean 'list'"),
    (["protokol"], "did you mean 'protocol'"),
    (["tenant", "add"], "Missing argument"),
    (["tenant", "list", "--wrong"], "No such option"),
    (["tenant", "list", "-o", "xml"], "'xml' is not"),
    (["up", "--port", "w0"], "NAME=SPEC"),
    (["up", "--port", "w0=wrie:x"], "did you mean 'wire'"),
    (["up", "--route", "10.0.0.0/24"], "PREFIX=PORT"),
    (["up", "--cpu", "9999"], "no such processor"),
    (["protocol", "build", "nothing.bpf.c"], "there is no file"),
    (["protocol", "load", "a", "udpp"], "no file, folder or shipped protocol"),
    (["verify", "nothing.o"], "no file, folder or shipped protocol"),
]


@pytest.mark.parametrize(("words", "message"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
@pytest.mark.usefixtures("no_daemon")
def test_misuse_is_explained(cham: Run, words: list[str], message: str) -> None:
    done = cham(*words)
    assert done.exit == 2 and message in done.err and not done.out
    if "-o" not in words:
        assert message in cham("-o", "json", *words).json["error"]["message"] + cham("-o", "json", *words).json["error"]["remedy"]


@pytest.mark.usefixtures("no_daemon")
def test_without_a_daemon_commands_end_with_4(cham: Run) -> None:
    for words in (["tenant", "list"], ["stats"], ["status"], ["down"], ["port", "list"], ["protocol", "list"]):
        done = cham(*words, "-o", "json")
        assert done.exit == 4 and done.json["error"]["code"] == "no_daemon", words


def test_every_command_has_help_and_takes_o_json(cham: Run) -> None:
    import click

    from chamelio.cli.commands import chamelio

    def walk(command: click.Command, words: list[str]) -> None:
        assert command.help, words
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk(inner, [*words, name])
        else:
            names = {name for p in command.params for name in p.opts}
            assert "--format" in names and "--run" in names, words
            assert cham(*words, "--help").exit == 0

    walk(chamelio, [])


def test_stats_and_ports(run: Run) -> None:
    run("tenant", "add", "a", "--address", "10.0.0.2")
    stats = run("stats", "-o", "json").json
    assert set(stats) == {"time_ns", "engine", "drops", "tenants", "ports"} and "a" in stats["tenants"]
    assert "TENANT" in run("stats").out
    watched = run("stats", "--watch", "--interval", "0.05", "--count", "2", "-o", "json").out.splitlines()
    assert [set(json.loads(line)) for line in watched] == [{"seconds", "tenants", "engine", "drops_per_s"}] * 2
    assert run("port", "list", "-o", "json").json[0]["name"] == "w0"
    assert "wire:w0:a" in run("port", "list").out
    assert run("route", "10.0.0.0/24=w0").exit == 0
    assert run("route", "10.0.0.1/24=w0").exit == 2
    assert run("route", "10.0.0.0/24=w1").exit == 1
    assert "engine" in run("status").out


def test_a_source_that_does_not_compile_is_reported_in_the_compilers_words(cham: Run, tmp_path: Path) -> None:
    source = tmp_path / "x.bpf.c"
    source.write_text("int f(void) { return nonsense; }\n")
    done = cham("protocol", "build", str(source))
    assert done.exit == 1 and "nonsense" in done.err


def test_build_writes_an_object_and_says_what_the_verifier_thinks_of_it(cham: Run, tmp_path: Path) -> None:
    source = tmp_path / "x.bpf.c"
    source.write_text("#include <chamelio.h>\nCHAM_HANDLER(rx) { return ctx->hash == 0 ? CHAM_DONE : CHAM_PUNT; }\n")
    done = cham("protocol", "build", str(source), "--to", str(tmp_path / "y.o"), "-o", "json")
    assert done.exit == 0 and done.json["object"] == str(tmp_path / "y.o") and done.json["accepted"]
    assert (tmp_path / "y.o").read_bytes()[:4] == b"\x7fELF"
    source.write_text("#include <chamelio.h>\nCHAM_HANDLER(rx) { u8 *p = ctx->data; return p[3]; }\n")
    done = cham("protocol", "build", str(source))
    assert done.exit == 3 and "error[V102]" in done.out and "x.bpf.c:2:" in done.out
    assert (tmp_path / "x.bpf.o").exists(), "for looking at it"


def test_build_takes_a_folder(cham: Run, tmp_path: Path) -> None:
    assert cham("protocol", "new", "probe", "--in", str(tmp_path)).exit == 0
    done = cham("protocol", "build", str(tmp_path / "probe"))
    assert done.exit == 0 and done.out.count("accept  ") == 2
    assert (tmp_path / "probe" / "probe.bpf.o").exists()


def test_copy_takes_a_shipped_protocol(cham: Run, tmp_path: Path) -> None:
    mine = str(tmp_path / "mine")
    done = cham("protocol", "copy", "udp", mine, "-o", "json")
    assert done.exit == 0 and {"udp.bpf.c", "protocol.toml", "slowpath.py"} <= set(done.json["files"])
    assert cham("protocol", "copy", "udp", mine).exit == 2, "it is there already"
    assert "did you mean 'udp'" in cham("protocol", "copy", "udpp", str(tmp_path / "other")).err


@pytest.mark.parametrize("name", ["echo", "ping", "rpc", "tcp", "udp"])
def test_a_shipped_protocol_is_shown_with_its_contract_and_admitted(cham: Run, name: str) -> None:
    done = cham("protocol", "show", name, "-o", "json")
    assert done.exit == 0 and done.json["admitted"]
    for hook in done.json["hooks"].values():
        assert 0 < hook["warm"] < hook["cold"] <= hook["budget"]


def test_what_is_beyond_a_budget_is_not_admitted(cham: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HOOK_BUDGET", 1_000)
    done = cham("protocol", "show", "udp")
    assert done.exit == 3 and "admitted: no" in done.out


def test_explain_knows_the_codes(cham: Run) -> None:
    assert "packet" in cham("explain", "v102").out
    assert cham("explain", "V999").exit == 2


def test_versions_costs_and_memory_are_shown_and_rolled_back(run: Run, tmp_path: Path) -> None:
    run("tenant", "add", "a", "--address", "10.0.0.2")
    for version in (1, 2):
        run("protocol", "load", "a", object_file(tmp_path / "echo.o", version=version), "--ip-protocol", "17")
    run("protocol", "load", "a", object_file(tmp_path / "echo.o", reject=True), "--ip-protocol", "17")
    heads, line = (text.split() for text in run("protocol", "list").out.splitlines())
    assert heads == [
        "TENANT",
        "NAME",
        "VERSION",
        "STATE",
        "AGENT",
        "IP_PROTOCOL",
        "ADDRESS",
        "MODE",
        "INSTRUCTIONS",
        "COLD",
        "WARM",
        "MEMORY",
    ]
    assert line[:4] == ["a", "echo", "2", "loaded"] and line[-3:-1] == ["rx=10", "rx=5"]
    shown = run("protocol", "show", "a", "echo").out
    assert "per_flow_bytes: " in shown and "slow_path: state=ok" in shown
    rows = [text.split() for text in shown.splitlines()]
    assert ["rx", "10", "5"] in rows and ["values", "array", "16", "8", "yes"] in rows
    assert [row[1] for row in rows if row and row[0] in "123" and len(row) > 5] == ["earlier", "running", "refused"]
    back = run("protocol", "rollback", "a", "echo")
    assert back.exit == 0 and back.out == "echo of a: rolled back (version 1, was 2)\n"
    assert run("protocol", "rollback", "a", "echo", "2", "-o", "json").json["version"] == 2
    assert run("protocol", "rollback", "a", "echo", "3").exit == 1
    assert "never run: rejected" in run("protocol", "rollback", "a", "echo", "3").err


def test_every_quota_has_an_option_and_is_shown(run: Run) -> None:
    from chamelio.host.quotas import KINDS

    words = [word for i, name in enumerate(KINDS) for word in (f"--{name}-quota", str(1000 + i))]
    assert run("tenant", "add", "a", "--address", "10.0.0.2", *words).exit == 0
    shown = run("tenant", "show", "a", "-o", "json").json["quotas"]
    assert [shown[name]["limit"] for name in KINDS] == list(range(1000, 1000 + len(KINDS)))
    changed = run("tenant", "set", "a", "--flows-quota", "7", "--weight", "5").out
    assert "weight: 5" in changed and "flows: 0 of 7 map entries" in changed
    assert "memory: 0 of 1000 bytes" in run("tenant", "show", "a").out
    assert run("tenant", "set", "a", "--flows-quota", "-1").exit == 2
