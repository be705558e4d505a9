from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from webapp.data.files import read_records
from webapp.errors import BadInput

RECORDS = [{"prompt": "Hello"}, {"prompt": "Wie geht’s?"}]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def lines(records: list[dict[str, str]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson"])
def test_json_lines_come_with_their_line(tmp_path: Path, name: Any) -> None:
    path = write(tmp_path, name, "\n" + lines(RECORDS))
    assert [(str(place), record) for place, record in read_records(path)] == [
        (f"{name}:2", RECORDS[0]),
        (f"{name}:3", RECORDS[1]),
    ]


@pytest.mark.parametrize("content", [json.dumps(RECORDS), json.dumps({"rows": RECORDS})])
def test_a_json_list_may_stand_alone_or_in_an_object(tmp_path: Path, content: Any) -> None:
    assert [record for _, record in read_records(write(tmp_path, "a.json", content))] == RECORDS


def test_a_table_names_its_columns_in_the_first_line(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'instruction,response\n"Say\nhi","Hi, you"\nBye,Bye\n')
    found = list(read_records(path))
    assert [record for _, record in found] == [
        {"instruction": "Say\nhi", "response": "Hi, you"},
        {"instruction": "Bye", "response": "Bye"},
    ]
    assert str(found[1][0]) == "a.csv:4"


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
    assert [(place.line, record) for place, record in read_records(tmp_path / "a.parquet")] == [
        (1, RECORDS[0]),
        (2, RECORDS[1]),
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "a.jsonl:1: not UTF-8 text"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected an object or a string, found list"),
        ("a.json", '{\n"a": }', "a.json:2: not valid JSON"),
        ("a.csv", "prompt,completion\n1,2,3\n", "a.csv:2: more fields than the first line names"),
        ("a.csv", "a,b\n1,2\n", "a.csv:1: the first line does not name columns that are read (found: a, b)"),
        ("a.csv", "", "a.csv:1: the file is empty"),
        ("a.parquet", "PAR", "a.parquet: not a Parquet file"),
        ("a.xyz", "", "a.xyz: cannot tell what this file holds"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: Any, content: Any, sentence: Any) -> None:
    with pytest.raises(BadInput) as failure:
        list(read_records(write(tmp_path, name, content)))
    assert sentence in failure.value.message


def test_a_cut_gzip_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(RECORDS * 500).encode())[:-40])
    with pytest.raises(BadInput, match=r"a\.jsonl\.gz: the file is damaged or cut short"):
        list(read_records(path))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        list(read_records(tmp_path / "absent.jsonl"))
