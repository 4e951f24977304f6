"""The export says what the commands say, in each kind of file; and what it says can be asked."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from heapglass import cli
from heapglass.export import SCHEMA

ROOT = Path(__file__).resolve().parents[2]
CORE = str(ROOT / "fixtures" / "cores" / "2.36-amd64-threads.core.xz")
WHERE = ["--debug-dir", str(ROOT / "fixtures" / "debug"), "--glibc", "2.36", "--sysroot", "/none"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main([words[0], CORE, *WHERE, *words[1:]])
    said = capsys.readouterr()
    return status, said.out, said.err


def exported(folder: Path, form: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of every file; what is a number in one kind of file is one in all."""
    tables = {}
    for table, columns in SCHEMA.items():
        path = folder / f"{table}.{form}"
        if form == "jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        elif form == "csv":
            with path.open(newline="") as file:
                rows = [dict(row) for row in csv.DictReader(file)]
        else:
            import pyarrow.parquet as parquet

            rows = parquet.read_table(path).to_pylist()
        assert all(list(row) == list(columns) for row in rows)
        tables[table] = [{k: _value(columns[k], v) for k, v in row.items()} for row in rows]
    return tables


def _value(kind: str, value: Any) -> Any:
    if value in (None, ""):
        return None
    if kind == "bool":
        return str(value) == "True"
    return int(str(value), 0) if kind != "text" else value


@pytest.fixture(params=["jsonl", "csv", "parquet"])
def form(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            return "jsonl"  # a Python for which the tests install no pyarrow
    return str(request.param)


def test_the_files_say_what_the_commands_say(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status, said, _ = run(capsys, "export", "-o", str(tmp_path / "new"), "--as", form, "--json")
    assert status == 0
    counts = {row["table"]: row["rows"] for row in json.loads(said)["tables"]}
    tables = exported(tmp_path / "new", form)
    assert counts == {table: len(rows) for table, rows in tables.items()}

    chunks = json.loads(run(capsys, "chunks", "--json")[1])["chunks"]
    assert [(c["address"], c["mem"], c["size"], c["usable"]) for c in tables["chunks"]] == [
        (int(c["address"], 16), int(c["user"], 16), c["size"], c["usable"]) for c in chunks
    ]
    assert [
        (c["flags"] or "", c["state"], c["bin"], c["thread"], c["owner"]) for c in tables["chunks"]
    ] == [(c["flags"], c["state"], c["bin"], c["thread"], c["owner"]) for c in chunks]
    arenas = [int(c["arena"], 16) if c["arena"] else None for c in chunks]
    assert [c["arena"] for c in tables["chunks"]] == arenas

    bins = json.loads(run(capsys, "bins", "--json")[1])["bins"]
    listed = [int(chunk, 16) for found in bins for chunk in found["chunks"]]
    assert [row["chunk"] for row in tables["bins"]] == listed
    arenas = json.loads(run(capsys, "arenas", "--json")[1])["arenas"]
    assert [row["system_mem"] for row in tables["arenas"]] == [a["system_mem"] for a in arenas]
    assert not list((tmp_path / "new").glob("*.part"))


def test_edges_and_roots_are_what_leaks_and_refs_go_by(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run(capsys, "export", "-o", str(tmp_path), "--as", form)
    tables = exported(tmp_path, form)
    live = {row["target"] for row in tables["roots"]}
    forward: dict[int, list[int]] = {}
    for edge in tables["edges"]:
        forward.setdefault(edge["source"], []).append(edge["target"])
    waiting = list(live)
    while waiting:
        new = [chunk for chunk in forward.get(waiting.pop(), []) if chunk not in live]
        live.update(new)
        waiting += new
    lost = [
        row
        for row in tables["chunks"]
        if row["state"] in ("used", "mmapped") and not row["owner"] and row["address"] not in live
    ]
    found = json.loads(run(capsys, "leaks", "--json")[1])["totals"]["leaked"]
    assert {"count": len(lost), "bytes": sum(row["usable"] for row in lost)} == found

    target = next(row for row in tables["edges"])["target"]
    refs = json.loads(run(capsys, "refs", hex(target), "--json")[1])["refs"]
    holders = {int(ref["chunk"], 16) for ref in refs if ref["state"] in ("used", "mmapped")}
    assert holders == {row["source"] for row in tables["edges"] if row["target"] == target}


def test_what_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    status, _, err = run(capsys, "export", "-o", str(tmp_path / "file" / "in"), "--as", "csv")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "cannot write to" in err
    assert run(capsys, "export")[0] == 2
    status, _, err = run(capsys, "export", "-o", str(tmp_path), "--only", "chunks,nothing")
    assert (status, "no table 'nothing'" in err) == (2, True)


def test_without_pyarrow_it_is_said_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    status, _, err = run(capsys, "export", "-o", str(tmp_path))
    assert status == 2
    assert "pip install 'heapglass[export]', or --as jsonl or csv" in err


def test_only_what_was_asked_for_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "export", "-o", str(tmp_path), "--as", "csv", "--only", "bins")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["bins.csv"]
