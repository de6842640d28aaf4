"""`chamelio protocol new`: a folder that verifies, passes its own tests, and loads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from chamelio.cli import main
from chamelio.messages import Refusal
from chamelio.tenant.folder import new_folder, read_protocol


@pytest.mark.parametrize("name", ["ping", "my_probe2"])
def test_a_new_protocol_verifies_and_passes_its_own_tests(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocol", "new", name, "--in", str(tmp_path), "--ip-protocol", "201"]) == 0
    assert str(tmp_path / name) in capsys.readouterr().out
    folder = tmp_path / name
    assert {f"{name}.bpf.c", f"{name}.h", f"test_{name}.py", "slowpath.py", "client.py", "README.md", "protocol.toml"} == {
        p.name for p in folder.iterdir()
    }
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.count("accept  ") == 2
    assert read_protocol(str(folder))[0].ip_protocol == 201
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_nothing_of_the_template_is_left_in_a_new_protocol(tmp_path: Path) -> None:
    for path in new_folder("probe", tmp_path).iterdir():
        assert not re.search(r"(?<![a-z])ping", path.read_text().lower()), path.name


@pytest.mark.parametrize("name", ["", "Ping", "3rd", "class", "a-b", "../x", "x" * 40])
def test_a_name_that_c_or_python_would_not_take_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal, match="cannot be a protocol's name"):
        new_folder(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "probe").mkdir()
    with pytest.raises(Refusal, match="exists already"):
        new_folder("probe", tmp_path)
