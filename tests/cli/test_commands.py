"""The command line: each command, in this process and as a program, on stopped, live, copied and broken spools."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import resilient_exporters as rex
from resilient_exporters.cli.commands import commands
from resilient_exporters.cli.endings import Ending
from resilient_exporters.cli.plain import cut, plain, shown
from resilient_exporters.spool.files import Files
from tests.cli.conftest import Down, Picky

ROOT = Path(__file__).parents[2]
HOW_TO = (ROOT / "docs" / "how-to" / "look-into-a-spool.md").read_text(encoding="utf-8")
READING = [["status"], ["peek"], ["verify"], ["dead", "list"]]
CHANGING = [["repair"], ["dead", "replay"], ["dead", "drop", "--all"]]


def leaves(
    group: click.Group = commands, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands with their names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(leaves())


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Damage is announced, as it should be; here it is expected."""
    with caplog.at_level(logging.CRITICAL, "resilient_exporters"):
        yield


def run(*arguments: object, code: int = Ending.OK) -> str:
    """Run a command in this process; what it printed."""
    result: Result = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert code == result.exit_code, result.output
    return result.output


def run_program(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command as users do."""
    command = [sys.executable, "-W", "error", "-m", "resilient_exporters", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def told(*arguments: object, code: int = Ending.OK) -> list[dict[str, Any]]:
    """The JSON that a command prints, line by line."""
    return [json.loads(line) for line in run(*arguments, "--json", code=code).splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


# --- what every command has


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(names: tuple[str, ...]) -> None:
    """Every command has a sentence of help, an example that names it, help for each option, and a place in the docs."""
    command = COMMANDS[names]
    text = run(*names, "--help")
    assert f"Example: resilient-exporters {' '.join(names)} " in re.sub(r"\s+", " ", text)
    assert (command.help or "").partition("\n")[0].strip().endswith(".")
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help
    assert f"resilient-exporters {' '.join(names)} " in HOW_TO


def test_examples_are_valid() -> None:
    """The example of each command parses."""
    for names, command in COMMANDS.items():
        words = (command.epilog or "").partition("&&")[0].replace("'no such column'", "x").split()
        assert ["Example:", "resilient-exporters", *names] == words[: len(names) + 2]
        command.make_context(names[-1], words[len(names) + 2 :])


def test_exit_codes_are_documented() -> None:
    """The how-to lists exactly the exit codes that there are."""
    rows = re.findall(r"^\| (\d) \|", HOW_TO, re.MULTILINE)
    assert [str(int(ending)) for ending in Ending] == rows


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_no_spool(names: tuple[str, ...], tmp_path: Path) -> None:
    """Every command refuses a path without a spool, and another file, with exit code 3, and makes nothing."""
    (tmp_path / "text").write_text("a letter to my aunt, and not a spool")
    extra: dict[str, list[object]] = {"export": [tmp_path / "out"], "drop": ["--all"]}
    more = extra.get(names[-1], [])
    for name in ("none", "text"):
        output = run(*names, tmp_path / name, *more, code=Ending.NO_SPOOL)
        assert f"Error: {'there is no spool' if name == 'none' else ''}" in output
    assert ["text"] == [path.name for path in tmp_path.iterdir()]


def test_usage() -> None:
    """Wrong usage ends with code 2: an unknown command, a missing path, a moment that is none, nothing to drop."""
    for words in (["nothing"], ["status"], ["peek", "q", "--limit", "0"], ["dead", "list", "q", "--since", "soon"]):
        run(*words, code=Ending.USAGE)
    assert "--all" in run("dead", "drop", "q", code=Ending.USAGE)
    run("dead", "drop", "q", "--all", "--reason", "x", code=Ending.USAGE)


# --- each command


@pytest.mark.parametrize("names", READING, ids=" ".join)
def test_reading_changes_nothing(stopped: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that look take no lock, and change neither bytes nor names."""
    before = contents(stopped.parent)
    for call in ("open_lock", "lock"):
        monkeypatch.setattr(Files, call, lambda *arguments: pytest.fail("reading takes a lock"))
    run(*names, stopped)
    run(*names, stopped, "--json")
    run("dead", "export", stopped, "/dev/null")
    assert before == contents(stopped.parent)


def test_status(stopped: Path) -> None:
    """Status tells what each exporter is owed and its dead letters, as a table and as JSON."""
    text = run("status", stopped)
    assert re.search(r"^log +6 +\d+ B +\d+ s ago +0$", text, re.MULTILINE)
    assert re.search(r"^orders +0 +0 B +3$", text, re.MULTILINE)
    assert "(shop)" in text
    (found,) = told("status", stopped)
    assert {"log": (6, 0), "orders": (0, 3)} == {
        lane["name"]: (lane["owed"], lane["dead"]) for lane in found["exporters"]
    }
    assert (6, 3) == (found["owed"], found["dead"])


def test_peek(stopped: Path) -> None:
    """Peek shows the oldest records with data, keywords and who owes them; as JSON a line each."""
    text = run("peek", stopped, "--limit", "2")
    assert 3 == len(text.splitlines())
    assert '{"n":0,"raw":"eA=="}  with {"table":"t"}' in text
    records = told("peek", stopped)
    assert list(range(6)) == [record["data"]["n"] for record in records]
    assert (["log"], {"table": "t"}) == (records[0]["exporters"], records[0]["kwargs"])
    assert [] == told("peek", stopped, "--exporter", "orders")


def test_verify_sound(stopped: Path) -> None:
    """A sound spool ends with 0 and says so."""
    assert run("verify", stopped).rstrip().endswith("sound")
    (found,) = told("verify", stopped)
    assert found["sound"]
    assert {"q", "q.dead", "q.lock"} <= {file["name"] for file in found["files"]}


def test_verify_and_repair_damage(stopped: Path) -> None:
    """Damage ends with 1 and is named; repair tells what it did; then verify ends with 0, and one record is lost."""
    flip(stopped, stopped.read_bytes().index(b"raw"))
    text = run("verify", stopped, code=Ending.FINDINGS)
    assert "damage: q: " in text
    assert "not sound; 1 records are lost" in text
    (found,) = told("verify", stopped, code=Ending.FINDINGS)
    assert ("damage", 1) == (found["findings"][0]["severity"], found["lost"])
    copy = stopped.parent / "copy"
    copy.mkdir()
    for path in stopped.parent.glob("q*"):
        shutil.copy(path, copy)
    text = run("repair", stopped)
    assert "- set aside what could not be used" in text
    (done,) = told("repair", copy / "q")
    assert (False, True) == (done["before"]["sound"], done["after"]["sound"])
    for path in (stopped, copy / "q"):
        run("verify", path)
        assert 5 == told("status", path)[0]["owed"]
    assert "nothing was to be done" in run("repair", stopped)


def test_dead_list(stopped: Path) -> None:
    """Dead letters are listed with reason and data, filtered and limited; nothing in them rules the terminal."""
    text = run("dead", "list", stopped)
    assert r"no \x1b[31msuch [bold]column[/]" in text
    assert "\x1b" not in text
    letters = told("dead", "list", stopped)
    assert [1, 3, 5] == [letter["data"]["n"] for letter in letters]
    assert 2 == len(told("dead", "list", stopped, "--limit", 2))
    assert 3 == len(told("dead", "list", stopped, "--reason", "column", "--exporter", "orders"))
    assert [] == told("dead", "list", stopped, "--exporter", "log")
    assert 2 == len(told("dead", "list", stopped, "--since", letters[1]["time"]))
    assert [] == told("dead", "list", stopped, "--until", "2001-01-31T00:00")


def test_dead_replay(stopped: Path) -> None:
    """Replayed letters are owed again, to the same exporter, and the next run delivers them."""
    time = told("dead", "list", stopped)[2]["time"]
    assert "replayed 1 dead letter\n" == run("dead", "replay", stopped, "--since", time)
    assert [{"replayed": 2}] == told("dead", "replay", stopped)
    assert [["orders"]] * 3 == [record["exporters"] for record in told("peek", stopped, "--exporter", "orders")]

    class Takes(Picky):
        def export(self, batch: rex.Batch, /, table: str = "") -> None:
            got.extend((record.data["n"], table) for record in batch)

    got: list[tuple[int, str]] = []
    with rex.ExporterPool(
        [Takes(name="orders"), Down(name="log")], use_memory=False, tmp_file=stopped, name="shop"
    ) as pool:
        pool.send_unsent_data()
    assert [(5, "t"), (1, "t"), (3, "t")] == got


def test_dead_export_and_drop(stopped: Path) -> None:
    """Exported letters are lines of JSON in a file; dropped ones are gone."""
    target = stopped.parent / "out"
    assert "exported 3 dead letters\n" == run("dead", "export", stopped, target)
    assert [{"exported": 3}] == told("dead", "export", stopped, "/dev/null")
    assert [1, 3, 5] == [json.loads(line)["data"]["n"] for line in target.read_text().splitlines()]
    assert [{"dropped": 0}] == told("dead", "drop", stopped, "--reason", "else")
    assert "dropped 3 dead letters\n" == run("dead", "drop", stopped, "--all")
    assert [] == told("dead", "list", stopped)


def test_trouble(stopped: Path) -> None:
    """A file that cannot be written ends with 5 and a message, no traceback."""
    text = run("dead", "export", stopped, stopped.parent / "no" / "folder", code=Ending.TROUBLE)
    assert text.startswith("Error: ")


# --- as a program


def test_on_a_live_spool(live: tuple[Path, subprocess.Popen[str]]) -> None:
    """On a spool that another process holds, looking works and does not disturb it; changing is refused with 4."""
    path, process = live
    for names in READING:
        done = run_program(*names, path, "--json")
        assert (0, "") == (done.returncode, done.stderr), names
        assert done.stdout
    assert 0 == run_program("dead", "export", path, path.parent / "out").returncode
    before = contents(path.parent)
    for names in CHANGING:
        done = run_program(*names[:2], path, *names[2:]) if names[0] == "dead" else run_program(*names, path)
        assert Ending.HELD == done.returncode, names
        assert f"process {process.pid} (shop)" in done.stderr
        assert "Traceback" not in done.stderr
    assert before == contents(path.parent)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert "sent\n" == process.stdout.readline()
    done = run_program("peek", path, "--json")
    assert 99 == json.loads(done.stdout.splitlines()[-1])["data"]["n"]


def test_tables_as_a_program(stopped: Path) -> None:
    """In a pipe the tables have no colours and keep a row on a line."""
    for names in READING:
        done = run_program(*names, stopped)
        assert (0, "") == (done.returncode, done.stderr)
        assert "\x1b" not in done.stdout
        assert "orders" in done.stdout or names == ["peek"]
    assert "rexspool" not in done.stdout


def test_without_the_extra(tmp_path: Path) -> None:
    """Without click or rich the command line says what to install, and ends with 5."""
    for name in ("click", "rich"):
        program = f"import sys; sys.modules[{name!r}] = None\nfrom resilient_exporters.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        assert Ending.TROUBLE == done.returncode
        assert f'needs {name}: pip install "resilient-exporters[cli]"' in done.stderr
        assert "Traceback" not in done.stderr


def test_rich_waits() -> None:
    """Output for programs does not load rich."""
    program = (
        "import sys; from resilient_exporters.cli.commands import commands\n"
        "commands(['status', '--help'], standalone_mode=False); assert 'rich' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done.stderr


# --- forms


def test_short_forms() -> None:
    """Values are shown as JSON, cut, without anything that a terminal would obey."""
    assert '{"a":"eA=="}' == shown({"a": b"x"}, 50)
    assert '"abc…' == shown("abcdef", 5)
    assert "object" in shown(object(), 200)
    assert r"a\x1b\u202e\tb" == plain("a\x1b\u202e\tb")
    assert ("abc", "ab…") == (cut("abc", 3), cut("abcd", 3))
