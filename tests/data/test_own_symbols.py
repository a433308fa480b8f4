import pytest

from echo_torch.data.own_symbols import read_rows
from echo_torch.errors import UserError


def test_text_and_its_series(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("\n1 2\n3\n\n\n4\n")
    assert [tuple(row) for row in read_rows(path)] == [(2, 1, True), (2, 2, False), (3, 3, False), (6, 4, True)]


def test_table_and_its_series(tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text('\ufeffwho,x\r\na,1\r\na,"2"\r\nb,3\r\n')
    assert [tuple(row) for row in read_rows(path, column="x", series="who")] == [
        (2, 1, True), (3, 2, False), (4, 3, True),
    ]  # fmt: skip
    assert [row.is_new for row in read_rows(path, column="x")] == [True, False, False]
    path.write_text('x,note\n1,\n2,"two\nlines"\n\n3,\n4,\n')
    assert [tuple(row) for row in read_rows(path, column="x")] == [
        (2, 1, True), (4, 2, False), (6, 3, True), (7, 4, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "options", "match"),
    [
        (b"1\nx\n", {}, "line 2: every entry must be a whole number.*Got 'x'"),
        (b"1\n-2\n", {}, "Got '-2'"),
        (b"1\n2.5\n", {}, "Got '2.5'"),
        (b"99999999999\n", {}, "between 0 and"),
        (b"a,b\n1,2\n", {}, "`column`"),
        (b"a,b\n1,2\n", {"column": "c"}, "no column 'c'; its first line names a, b"),
        (b"a,b\n1,2\n3\n", {"column": "b"}, "line 3: b is empty"),
        (b"\xff\xfe\x00", {}, "no text in UTF-8"),
        (b"", {"column": "a"}, "names none"),
    ],
)
def test_bad_files(tmp_path, content, options, match):
    path = tmp_path / "numbers"
    path.write_bytes(content)
    with pytest.raises(UserError, match=match):
        list(read_rows(path, **options))


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="Cannot read"):
            list(read_rows(path))
