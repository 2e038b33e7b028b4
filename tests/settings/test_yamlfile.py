"""YAML files that people write: values as they mean them, and the line of every key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from groupnorm_bench.errors import ConfigError
from groupnorm_bench.settings import yamlfile
from groupnorm_bench.settings.yamlfile import read_yaml

TEXT = """\
# a sweep
method: grid
parameters:
  norm: {values: [batch, group]}
  lr:
    value: 0.1
base: &base {a: 1}
copy: *base
"""


def test_every_key_is_found_at_its_line(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text(TEXT)
    document = read_yaml(path)
    assert document.data["parameters"]["norm"] == {"values": ["batch", "group"]}
    assert document.data["copy"] == {"a": 1}
    assert document.where("method") == f"{path}:2"
    assert document.where("parameters", "norm", "values") == f"{path}:4"
    assert document.where("parameters", "lr", "value") == f"{path}:6"


def test_a_key_that_is_not_there_is_looked_for_at_its_nearest_parent(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text(TEXT)
    document = read_yaml(path)
    assert document.where("parameters", "lr", "min") == f"{path}:5"
    assert document.where("nothing") == str(path)


words = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(words, children, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(words, trees, min_size=1, max_size=5))
def test_what_yaml_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, data: dict):
    path = tmp_path_factory.mktemp("yaml") / "x.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    document = read_yaml(path)
    assert document.data == data
    assert {keys[0] for keys in document.lines} == set(data)


def test_a_file_may_be_large_but_not_by_aliases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(yamlfile, "MAX_NODES", 1_000)
    path = tmp_path / "x.yaml"
    path.write_text("a: [" + "1, " * 900 + "1]\n")
    assert len(read_yaml(path).data["a"]) == 901
    path.write_text("a: &a [" + "1, " * 500 + "1]\nb: [*a, *a]\n")
    with pytest.raises(ConfigError, match="over 1,000 values"):
        read_yaml(path)


def test_a_key_twice_deep_inside_a_list_is_found(tmp_path: Path):
    path = tmp_path / "x.yaml"
    path.write_text("a:\n  - b: 1\n    c: 2\n    b: 3\n")
    with pytest.raises(ConfigError, match=r"x.yaml:4 has the key 'b' twice"):
        read_yaml(path)
