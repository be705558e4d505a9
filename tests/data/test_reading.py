"""How files are packed, encoded and written does not change what is in them, and what cannot be read is told.

Over 300 lines: it is a list of file formats and faults, each short.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.reading import read_file, write
from webapp.data.files import read_records
from webapp.data.locations import MAX_DEPTH, MAX_RECORD
from webapp.data.shapes import DemonstrationItem, PromptItem

ROWS = [{"prompt": f"Was ist {n}? Größe, „Ärger“ – €.", "completion": f"  Das ist {n}.\n"} for n in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
SHOWN = [DemonstrationItem([{"role": "user", "content": r["prompt"]}], r["completion"]) for r in ROWS]


def zstd(raw: bytes) -> bytes:
    return pa.Codec("zstd").compress(raw, asbytes=True)


def zipped(**members: str | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return out.getvalue()


def arrow(stream: bool) -> bytes:
    out = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------------ packed files


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl", gzip.compress),
        ("a.jsonl.zst", zstd),
        ("a.jsonl.bz2", bz2.compress),
        ("a.jsonl.xz", lzma.compress),
        ("a.jsonl.xz", lambda raw: lzma.compress(raw[:50]) + lzma.compress(raw[50:])),
        ("a.zip", lambda raw: zipped(rows__jsonl=raw)),
    ],
)
def test_a_packed_file_is_read_like_a_plain_one(tmp_path: Path, name: Any, pack: Any) -> None:
    (tmp_path / name).write_bytes(pack(LINES.encode()))
    assert read_file(tmp_path / name).items == SHOWN


@pytest.mark.parametrize("pack", [gzip.compress, zstd, bz2.compress, lzma.compress])
def test_a_packed_file_that_is_cut_short_says_so(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "a.jsonl").write_bytes(pack((LINES * 500).encode())[:-9])
    assert "a.jsonl: the file is damaged or cut short" in read_file(tmp_path / "a.jsonl").error


@pytest.mark.parametrize("stream", [True, False])
def test_an_arrow_file_is_read(tmp_path: Path, stream: Any) -> None:
    (tmp_path / "a.arrow").write_bytes(arrow(stream))
    assert read_file(tmp_path / "a.arrow").items == SHOWN


def test_the_files_of_an_archive_are_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(zipped(one__jsonl=LINES, two__csv="prompt\nSing\n", notes__pdf=b"%PDF"))
    found = read_file(path)
    assert found.items == [*SHOWN, PromptItem([{"role": "user", "content": "Sing"}])]
    assert list(found.report.notes) == ["a file in the archive of no format that is read was passed over"]


def test_files_that_describe_an_archive_are_passed_over(tmp_path: Path) -> None:
    about = {"README__md": "# Data", "LICENSE__txt": "MIT", "dataset_info__json": '{"text": "x"}', "state__json": "{}"}
    reading = read_file(write(tmp_path, "a.zip", zipped(**about, rows__jsonl=LINES)))
    assert reading.items == SHOWN
    assert reading.report.notes["a file that describes the archive was passed over"].count == 4


def test_an_archive_in_an_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(inner__zip=zipped(one__jsonl=LINES)))
    assert "a.zip/inner.zip: an archive in an archive" in read_file(tmp_path / "a.zip").error


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    raw = bytearray(zipped(one__jsonl=LINES))
    raw[6] |= 1  # the flags of the local header, and of the central directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    assert "one.jsonl is encrypted" in read_file(tmp_path / "a.zip").error


@pytest.mark.parametrize("name", ["a.zip", "a.parquet", "a.arrow", "a.jsonl.gz", "a.json"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_in_a_file_is_a_sentence(tmp_path: Path, name: Any, data: Any) -> None:
    raw = bytearray(
        {  # type: ignore[no-untyped-call]
            "a.zip": lambda: zipped(rows__jsonl=LINES),
            "a.parquet": parquet,
            "a.arrow": lambda: arrow(stream=False),
            "a.jsonl.gz": lambda: gzip.compress(LINES.encode()),
            "a.json": lambda: json.dumps(ROWS).encode(),
        }[name]()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    read_file(tmp_path / name)  # anything but BadInput fails here


def parquet(**columns: list[object]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns) if columns else pa.Table.from_pylist(ROWS), out)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.html", "a.parquet", "a.arrow"])
def test_two_hundred_megabytes_of_zeros_end_in_a_sentence_and_little_memory(tmp_path: Path, name: Any) -> None:
    path = tmp_path / f"{name}.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(bytes(1024 * 1024))
    script = (
        "import django, resource, sys; django.setup()\n"
        "from pathlib import Path\n"
        "from tests.data.reading import read_file\n"
        "import pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = read_file(Path(sys.argv[1]))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(len(found.items), after - before, found.error or found.report.errors[0])"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    items, kilobytes, sentence = done.stdout.split(" ", 2)
    assert items == "0"
    assert int(kilobytes) < 350 * 1024
    assert sentence.startswith(f"{name}.gz")


def test_more_than_may_be_unpacked_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl.gz", LINES * 1000)
    found = read_file(path, limit=100_000)
    assert "a.jsonl.gz: more than 97.7 kB when it is unpacked" in found.error


def test_the_files_of_an_archive_share_what_may_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(one__jsonl=LINES * 300, two__jsonl=LINES * 300))
    assert "two.jsonl: more than" in read_file(tmp_path / "a.zip", limit=100_000).error


def test_a_value_that_many_rows_of_a_parquet_file_name_counts_for_each(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(parquet(prompt=["x" * 1_000_000] * 300))
    assert (tmp_path / "a.parquet").stat().st_size < 2_000_000
    assert "a.parquet: more than" in read_file(tmp_path / "a.parquet", limit=50_000_000).error


def test_a_line_that_is_too_long_is_left_out_and_the_next_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"prompt": "' + "x" * MAX_RECORD + '"}\n' + LINES)
    found = read_file(path)
    assert found.items == SHOWN
    assert found.report.errors == ["a.jsonl:1: the line is longer than 16 MB. Break it up, or leave it out."]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
def test_deep_nesting_is_a_sentence(tmp_path: Path, name: Any, depth: Any) -> None:
    path = write(tmp_path, name, '{"prompt": ' + "[" * depth + "]" * depth + "}")
    found = read_file(path)
    assert f"{name}:1: nested deeper than 200 levels." in (found.error, *found.report.errors)


def test_a_chat_of_many_turns_is_not_deep(tmp_path: Path) -> None:
    turns = [{"role": ("user", "assistant")[n % 2], "content": str(n)} for n in range(1000)]
    assert read_file(write(tmp_path, "a.jsonl", json.dumps({"messages": turns}))).report.found == {"demonstrations": 1}


# ----------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_an_encoding_that_a_file_names_is_taken(tmp_path: Path, name: Any, encoding: Any) -> None:
    content = {
        "a.jsonl": LINES,
        "a.json": json.dumps(ROWS, ensure_ascii=False),
        "a.csv": "prompt,completion\n" + "".join(f'"{r["prompt"]}","{r["completion"]}"\n' for r in ROWS),
        "a.txt": "Größe, „Ärger“.",
    }[name]
    found = read_file(write(tmp_path, name, content.encode(encoding)))
    assert found.items[0] == SHOWN[0] if name != "a.txt" else found.items[0].text == content
    assert any("byte order mark" in note for note in found.report.notes) == encoding.startswith(("utf-16", "utf-32"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_windows_1252_is_read_and_said(tmp_path: Path, name: Any) -> None:
    content = LINES if name != "a.csv" else "prompt,completion\nWie groß?,„Ärger“ – 5 €\n"
    found = read_file(write(tmp_path, name, content.encode("cp1252")))
    assert "�" not in str(found.items)
    assert "„Ärger“" in str(found.items[0])
    assert [note for note in found.report.notes if note.startswith("read as Windows-1252")]


@pytest.mark.parametrize(
    "line",
    [b'{"prompt": "caf\xc3"}', b'{"prompt": "\xff\xfe"}', b'{"prompt": "x\x81y"}', b'{"prompt": "a \x80\x80\x80 b"}'],
)
def test_a_line_of_bad_bytes_is_left_out_and_no_other(tmp_path: Path, line: Any) -> None:
    found = read_file(write(tmp_path, "a.jsonl", line + b"\n" + LINES.encode()))
    assert found.items == SHOWN
    assert found.report.errors[0].startswith("a.jsonl:1: not UTF-8 text")


def test_bad_bytes_in_a_file_that_is_utf8_are_not_taken_for_another_encoding(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, "a.jsonl", LINES.encode() + '{"prompt": "Größe"}\n'.encode("cp1252")))
    assert found.items == SHOWN
    assert found.report.error_count == 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_read_and_said(tmp_path: Path, encoding: Any) -> None:
    reading = read_file(write(tmp_path, "a.jsonl", LINES.encode(encoding)))
    assert reading.items == SHOWN
    assert "read as UTF-16, for every other byte is 0" in reading.report.notes


def test_half_of_a_surrogate_pair_is_told_and_not_replaced(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, "a.jsonl", '{"prompt": "x \\ud83d y"}\n' + LINES))
    assert found.items == SHOWN
    assert list(found.report.left_out) == ["a character is broken: half of a surrogate pair"]


def test_nul_characters_are_taken_out_and_told(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, "a.jsonl", '{"prompt": "Si\\u0000ng"}\n'))
    assert found.items == [PromptItem([{"role": "user", "content": "Sing"}])]
    assert list(found.report.notes) == ["NUL characters were taken out, which the database cannot hold"]


# -------------------------------------------------------------------------------------------------------------- tables


def table(folder: Any, content: Any, name: Any = "a.csv") -> Any:
    return [(item.messages[-1]["content"], item.reply) for item in read_file(write(folder, name, content)).items]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_is_parted_by_what_its_first_line_is_parted_by(tmp_path: Path, delimiter: Any) -> None:
    content = delimiter.join(["prompt", "completion"]) + f'\n"a{delimiter}b"{delimiter}"say ""c"""\n'
    assert table(tmp_path, content) == [(f"a{delimiter}b", 'say "c"')]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ('What?\t"Yes"', '"Yes"'),
        ('What?\t"Yes" he said.', '"Yes" he said.'),
        ("What?\t'tis", "'tis"),
        ('What?\ta 5" disk', 'a 5" disk'),
    ],
)
def test_a_quote_in_a_tsv_is_a_character(tmp_path: Path, line: Any, reply: Any) -> None:
    assert table(tmp_path, f"prompt\tcompletion\n{line}\nWho?\tMe.\n", "a.tsv") == [("What?", reply), ("Who?", "Me.")]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ('What?\t"a\tb"', "a\tb"),
        ('What?\t"say ""c"""', 'say "c"'),
        ('What?\t"two\nlines"', "two\nlines"),
    ],
)
def test_quotes_of_a_tsv_that_needs_them_are_no_characters(tmp_path: Path, line: Any, reply: Any) -> None:
    assert table(tmp_path, f"prompt\tcompletion\n{line}\nWho?\tMe.\n", "a.tsv") == [("What?", reply), ("Who?", "Me.")]


def test_an_open_quote_costs_its_own_row_only(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, "a.csv", 'prompt,completion\na,b\nc,"d\ne,f\ng,h\n'))
    assert [item.reply for item in found.items] == ["b", "f", "h"]
    assert found.report.errors[0].startswith("a.csv:3: ")


def test_rows_with_too_many_fields_are_left_out_and_no_others(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, "a.csv", "prompt,completion\na,b\nc,d,e\nf,g\n"))
    assert [item.reply for item in found.items] == ["b", "g"]
    assert found.report.error_count == 1


def test_a_line_of_bad_bytes_in_a_table_is_left_out_and_no_other(tmp_path: Path) -> None:
    found = read_file(write(tmp_path, "a.csv", b"prompt,completion\na,b\nc,\xff\xff\nf,\xc3\xa4\n"))
    assert [item.reply for item in found.items] == ["b", "ä"]
    assert found.report.errors == ["a.csv:3: not UTF-8 text (byte 2). Save the file as UTF-8."]


def test_lines_of_a_table_may_end_as_on_an_old_macintosh(tmp_path: Path) -> None:
    assert table(tmp_path, "prompt,completion\ra,b\rc,d\r") == [("a", "b"), ("c", "d")]


def test_cells_keep_their_spaces(tmp_path: Path) -> None:
    assert table(tmp_path, 'prompt,completion\n" a ","  b\n"\n') == [(" a ", "  b\n")]


def test_names_of_columns_may_be_capitals(tmp_path: Path) -> None:
    assert table(tmp_path, "Prompt,Completion\na,b\n") == [("a", "b")]


# ---------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        json.dumps({"version": "1", "data": ROWS}),
        json.dumps({"rows": ROWS}),
        json.dumps({"features": [], "rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]}),
        "".join(json.dumps(row, indent=1) + "\n" for row in ROWS),
        ",\n".join(json.dumps(row) for row in ROWS),
        LINES,
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_a_list_of_records_may_be_written_in_many_ways(tmp_path: Path, content: Any, name: Any) -> None:
    assert [record for _, record in read_records(write(tmp_path, name, content))] == ROWS


def test_a_list_may_stand_in_a_file_that_is_named_as_lines(tmp_path: Path) -> None:
    assert [record for _, record in read_records(write(tmp_path, "a.jsonl", json.dumps(ROWS, indent=1)))] == ROWS


def test_records_of_several_lines_may_stand_in_a_file_that_is_named_as_lines(tmp_path: Path) -> None:
    content = "\n".join(json.dumps(row, indent=2) for row in ROWS)
    assert [record for _, record in read_records(write(tmp_path, "a.jsonl", content))] == ROWS


def test_a_single_chat_is_a_record_and_no_list(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert [record for _, record in read_records(write(tmp_path, "a.json", json.dumps(chat)))] == [chat]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.dictionaries(st.text(max_size=4), st.text(max_size=60) | st.floats(allow_nan=False) | st.none())
    ),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_a_list_of_any_records_is_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: Any, indent: Any, ascii_only: Any
) -> None:
    monkeypatch.setattr("webapp.data.decoding.CHUNK", 7)
    records = [{"prompt": "x", **value} for value in values]
    path = write(tmp_path, "a.json", json.dumps(records, indent=indent, ensure_ascii=ascii_only))
    assert [record for _, record in read_records(path)] == records


@pytest.mark.parametrize(("name", "content"), [("a.csv", "prompt,completion\n"), ("a.jsonl", ""), ("a.json", "[]")])
def test_a_file_without_rows_says_so(tmp_path: Path, name: Any, content: Any) -> None:
    reading = read_file(write(tmp_path, name, content))
    assert not reading.items
    assert "the file holds no rows" in reading.report.notes


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    reading = read_file(write(tmp_path, "a.csv", "prompt,response,response\na,b,c\n"))
    assert "two columns are named response" in reading.error


def test_a_column_without_a_name_is_named_among_those_that_were_not_used(tmp_path: Path) -> None:
    reading = read_file(write(tmp_path, "a.csv", "prompt,completion,\na,b,c\na,b,\n"))
    assert dict(reading.report.unused_columns) == {"(column 3 without a name)": 1}


def test_columns_that_were_not_used_are_named_as_in_the_file(tmp_path: Path) -> None:
    reading = read_file(write(tmp_path, "a.jsonl", json.dumps({"Prompt": "a", "Answer": 4}) + "\n"))
    assert dict(reading.report.unused_columns) == {"Answer": 1}


@pytest.mark.parametrize(
    "content",
    [
        {"columns": ["prompt", "completion"], "index": [0, 1], "data": [["a", "b"], ["c", "d"]]},
        {"prompt": {"0": "a", "1": "c"}, "completion": {"0": "b", "1": "d"}},
    ],
)
def test_a_table_that_pandas_wrote_as_json_is_read_by_its_rows(tmp_path: Path, content: Any) -> None:
    reading = read_file(write(tmp_path, "a.json", json.dumps(content)))
    assert [(item.messages[0]["content"], item.reply) for item in reading.items] == [("a", "b"), ("c", "d")]


def test_reasoning_beside_a_reply_is_noted(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "c"}]
    reading = read_file(write(tmp_path, "a.jsonl", json.dumps({"messages": turns}) + "\n"))
    assert any(note.startswith("the reasoning beside a reply is not learned") for note in reading.report.notes)


def test_rated_summaries_of_one_post_are_a_ranking(tmp_path: Path) -> None:
    rows = [
        {"info": {"post": "It rained."}, "summary": {"text": text, "axes": {"overall": score}}, "worker": "w"}
        for text, score in (("Rain.", 7), ("Snow.", 1))
    ]
    reading = read_file(write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert [(item.replies, item.groups, item.annotator) for item in reading.items] == [
        (["Rain.", "Snow."], [[0], [1]], "w")
    ]


def test_lists_as_python_prints_them_are_read(tmp_path: Path) -> None:
    cell = "[{'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}]"
    reading = read_file(write(tmp_path, "a.csv", f'messages\n"{cell}"\n"{cell[:-4]}"\n'))
    assert [(item.messages[0]["content"], item.reply) for item in reading.items] == [("a", "b")]
    assert reading.report.left_out["a cell with a list that is not JSON"].count == 1


def test_a_line_that_tells_excel_the_delimiter_is_no_header(tmp_path: Path) -> None:
    reading = read_file(write(tmp_path, "a.csv", "sep=;\r\nprompt;completion\r\na;b\r\n"))
    assert [(item.messages[0]["content"], item.reply) for item in reading.items] == [("a", "b")]


def test_all_the_splits_that_stand_in_one_object_are_read(tmp_path: Path) -> None:
    rows = {"train": [{"prompt": "a", "completion": "b"}], "test": [{"prompt": "c", "completion": "d"}]}
    reading = read_file(write(tmp_path, "a.json", json.dumps(rows)))
    assert [item.reply for item in reading.items] == ["b", "d"]
