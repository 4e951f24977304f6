"""The answers in docs/export.md are those that DuckDB gives."""

from __future__ import annotations

import sys

import pytest
from tests.test_cli import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from make_export_doc import EXAMPLE, PAGE, written


def test_the_page_is_what_its_queries_answer(capsys: pytest.CaptureFixture[str]):
    text = PAGE.read_text()
    assert len(EXAMPLE.findall(text)) == 4
    assert written(text) == text, "run tools/make_export_doc.py"
    assert '"tables"' in capsys.readouterr().out
    broken = text.replace("LIMIT 5", "LIMIT 2")
    assert written(broken) != broken
