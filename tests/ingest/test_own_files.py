"""A user's own files: mapping of columns, what becomes of bad rows, and every way to be told what is wrong.

In the tables `@3` stands for the time 1,400,000,003, a second of May 2014.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from iadsr.errors import UserError
from iadsr.ingest.own_files import Columns, Files, load
from iadsr.ingest.raw import Raw
from iadsr.ingest.rejects import Rejects

T = 1_400_000_000
ITEMS = "sku,name,path\nb, Second  one ,\na,,Home > Tools\nunused,X,Y\n"


def timed(text: str) -> str:
    return text.replace("@", str(T)[:-1])


class Folder:
    """Writes interactions (and items) as CSV, and loads them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(
        self, interactions: str | bytes, items: str = ITEMS, limit: int = 0, separator: str = "auto", **columns: str
    ) -> tuple[Raw, Rejects]:
        content = interactions if isinstance(interactions, bytes) else interactions.encode()
        (self.path / "i.csv").write_bytes(content.replace(b"@", str(T)[:-1].encode()))
        (self.path / "items.csv").write_text(items)
        rejects = Rejects(limit)
        return load(self.source(**columns).model_copy(update={"separator": separator}), rejects), rejects

    def source(self, interactions: str = "i.csv", items: str = "items.csv", **columns: str) -> Files:
        names = {"user": "who", "item": "sku", "timestamp": "when", "title": "name", **columns}
        paths: dict[str, Any] = {"interactions": str(self.path / interactions), "items": str(self.path / items)}
        return Files(kind="files", columns=Columns(**names), **paths)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_mapped_columns_in_the_order_of_the_file(folder: Folder) -> None:
    """Columns stand in another order, with names of their own; `007` stays text; item a has only categories."""
    text = "sku,when,extra,who,stars,odd\nb,@2,x,007,4.5,TRUE\na,@1,x,7,,0\n"
    raw, _ = folder.load(text, rating="stars", is_noise="odd", categories="path")
    assert raw.interactions.rows() == [("007", "b", T + 2, 4.5, True), ("7", "a", T + 1, None, False)]
    assert raw.interactions.columns == ["user", "item", "timestamp", "rating", "is_noise"]
    assert raw.items.rows() == [("b", "Second one", ""), ("a", "Home > Tools", "Home > Tools")]
    assert raw.titles == (1, 1, 0)


def test_the_item_table_may_name_its_id_differently(folder: Folder) -> None:
    raw, _ = folder.load("who,product,when\nu,b,@1\n", item="product", item_id="sku")
    with pytest.raises(UserError, match=r"items.csv: no column 'product' .*; where .* set columns.item_id"):
        folder.load("who,product,when\nu,b,@1\n", item="product")
    assert raw.items.rows() == [("b", "Second one", "")]


@pytest.mark.parametrize("taken", ["noise_probability", "keep", "reason"])
def test_a_column_of_verdicts_is_refused_before_anything_is_trained(taken: str, folder: Folder) -> None:
    """models/denoised.parquet has the user's columns, and these behind them."""
    with pytest.raises(UserError, match=f"i.csv: it has a column '{taken}' already, as verdicts have; rename it"):
        folder.load(f"who,sku,when,{taken}\n1,a,@1,x\n")


def test_byte_order_mark_and_windows_line_ends(folder: Folder) -> None:
    raw, _ = folder.load(b"\xef\xbb\xbfwho,sku,when\r\nu,b,@1\r\n\r\n")
    assert raw.interactions.rows() == [("u", "b", T + 1)]


def test_a_column_of_fractions_only_where_there_are_some(folder: Folder) -> None:
    """Milliseconds since 1970: 2014-05-13 in all rows, the first two with a fraction, then without any."""
    raw, _ = folder.load("who,sku,when\nu,b,1400000000500\nu,a,1400000000250\n")
    assert raw.interactions.rows() == [("u", "b", T, 500_000_000), ("u", "a", T, 250_000_000)]
    raw, _ = folder.load("who,sku,when\nu,b,1400000000000\n")
    assert raw.interactions.columns == ["user", "item", "timestamp"]


@pytest.mark.parametrize("text", ["who,sku\nu,b\nv,a\nu,a\n", "who,sku,when\nu,b,3\nv,a,\nu,a,x\n"])
def test_without_times_the_order_of_the_file_counts(folder: Folder, text: str) -> None:
    """Whatever stands in a column that is not mapped."""
    (folder.path / "i.csv").write_text(text)
    (folder.path / "items.csv").write_text(ITEMS)
    source = folder.source()
    raw = load(source.model_copy(update={"columns": Columns(user="who", item="sku", title="name")}), Rejects())
    assert raw.interactions.rows() == [("u", "b", 0), ("v", "a", 1), ("u", "a", 2)]
    assert not raw.timed
    assert raw.notes == (f"{source.interactions}: no column of times, so the order of the file counts",)


BAD = [
    (",b,@1", "user is missing"),
    ("u, ,@1", "item is missing"),
    ("u,b,", "timestamp is missing"),
    ("u,b", "timestamp is missing"),
    ("u,b,NULL", "timestamp is missing"),
    ("u,b,noon", "timestamp is no number, unlike the rest of its column"),
    ("u,b,2014-01-01", "timestamp is no number, unlike the rest of its column"),
    ("u,b,0", "timestamp is 0, which stands for a missing one"),
    ("u,b,-1", "timestamp is -1, which stands for a missing one"),
    ("u,b,17", "timestamp is before 1990"),
    ("u,b,9999999999", "timestamp is in the future"),
    (",,", "user is missing"),
    ("4.00639E+12,b,@1", "user is a number that a spreadsheet has rounded"),
    ('"4,00639E+12",b,@1', "user is a number that a spreadsheet has rounded"),
    ("u,1E+15,@1", "item is a number that a spreadsheet has rounded"),
    ("1.152921504606847E18,b,@1", "user is a number that a spreadsheet has rounded"),
    ("u,4.00639e12,@1", "item is a number that a spreadsheet has rounded"),
    ("u,-1.5E-7,@1", "item is a number that a spreadsheet has rounded"),
    ("\\N,b,@1", "user is missing"),
    ("u, NULL ,@1", "item is missing"),
    ("null,b,@1", "user is missing"),
    ("None,b,@1", "user is missing"),
    ("u,NaN,@1", "item is missing"),
    ("u,<NA>,@1", "item is missing"),
    ("n/a,b,@1", "user is missing"),
    ("NA,b,@1", "user is missing"),
    ("undefined,b,@1", "user is missing"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_row_is_named_by_its_line(folder: Folder, line: str, reason: str) -> None:
    """The bad record begins on line 4: the quoted item before it spans lines 2 and 3."""
    text = f'who,sku,when\nu,"two\nlines",@1\n{line}\nu,b,@2\nu,b,@3\n'
    items = 'sku,name\nb,B\n"two\nlines",T\n'
    with pytest.raises(UserError, match=rf"i.csv, row 4: {reason}.*only bad row, but ingest.max_rejects is 0"):
        folder.load(text, items)
    raw, rejects = folder.load(text, items, limit=1)
    assert raw.interactions["timestamp"].to_list() == [T + 1, T + 2, T + 3]
    assert (rejects.rows[0].row, rejects.rows[0].text) == (4, timed(line))


def test_rows_of_too_many_fields_are_bad_rows(folder: Folder) -> None:
    """Lines 2 and 5 have one field too many, line 4 has no user: three bad rows, the good one on line 3 stays."""
    text = "who,sku,when\nu,b,@1,x\nu,b,@2\n,b,@3\nv,b,@4,\n"
    with pytest.raises(UserError, match=r"i.csv, row 2: 4 fields, where the header has 3.*first of 3 bad rows"):
        folder.load(text, limit=2)
    raw, rejects = folder.load(text, limit=3)
    assert raw.interactions.rows(named=True) == [{"user": "u", "item": "b", "timestamp": T + 2, "row": 1}]
    found = [(reject.row, reject.text) for reject in rejects.rows]
    assert found == [(2, timed("u,b,@1,x")), (4, timed(",b,@3")), (5, timed("v,b,@4,"))]


def test_a_row_with_nothing_but_fields_too_many_is_a_bad_row(folder: Folder) -> None:
    raw, rejects = folder.load("who,sku,when\nu,b,@1\n,,,x\n\n", limit=1)
    assert raw.interactions.rows() == [("u", "b", T + 1, 0)]
    assert [(reject.row, reject.text) for reject in rejects.rows] == [(3, ",,,x")]


def test_quotation_marks_that_all_readers_take_alike_stay(folder: Folder) -> None:
    """A CR inside of two, one inch twice written, and a pair in the middle of a field."""
    raw, _ = folder.load('who,sku,when,x\nu,b,@1,"\r"\nu,a,@2,"3"" x"\nv,a,@3,The "Best" toy\n')
    assert raw.interactions.rows() == [("u", "b", T + 1), ("u", "a", T + 2), ("v", "a", T + 3)]


def test_an_error_counts_bad_rows_by_reason_and_shows_three(folder: Folder) -> None:
    """Lines 2, 4 and 5 lack a user, line 3 an item; line 5 is the fourth, and not shown."""
    with pytest.raises(UserError) as error:
        folder.load("when,who,sku\n@1,,b\n@2,v,\n@3,,b\n@4,,b\n@5,u,b\n")
    said = str(error.value)
    assert timed("i.csv, row 2: user is missing, found '@1,,b'; it is the first of 4 bad rows") in said
    assert "(3: user is missing; 1: item is missing; also " in said
    assert timed("i.csv, row 3: '@2,v,'") in said and timed("i.csv, row 4: '@3,,b')") in said
    assert "row 5" not in said


def test_a_bad_row_stands_as_in_the_file(folder: Folder) -> None:
    """Columns in another order, one that is not mapped, quotation marks, and semicolons."""
    _, rejects = folder.load('more;when;sku;who\n"x;y";@1;b;\nz;@2;b;u\n', limit=1, items="sku;name\nb;B\n")
    assert rejects.rows[0].text == timed('"x;y";@1;b;')


def test_items_of_too_many_fields_are_bad_rows(folder: Folder) -> None:
    """The comma of line 2 should have been quoted; b has a good row, line 3, too."""
    raw, rejects = folder.load("who,sku,when\nu,b,@1\n", "sku,name\nb,Cup, blue\nb,Cup\n", limit=1)
    assert raw.items["title"].to_list() == ["Cup"]
    assert [(reject.row, reject.reason) for reject in rejects.rows] == [(2, "3 fields, where the header has 2")]


def test_ids_are_held_as_categories_without_outer_white_space(folder: Folder) -> None:
    """A number a row, however long the id; the rejected row stands as it was found."""
    raw, rejects = folder.load("who,sku,when\n u ,b,@1\nu, a,@2\n  , a,@3\n", limit=1)
    assert raw.interactions.schema["user"] == raw.interactions.schema["item"] == pl.Categorical
    assert raw.interactions.drop("row").rows() == [("u", "b", T + 1), ("u", "a", T + 2)]
    assert rejects.rows[0].text == timed("  , a,@3")


def test_titles_are_taken_as_they_stand(folder: Folder) -> None:
    raw, _ = folder.load("who,sku,when\nu,b,@1\n", 'sku,name\nb,"Salt &amp; Pepper 3"" pipe; x"\n')
    assert raw.items["title"].to_list() == ['Salt &amp; Pepper 3" pipe; x']


def test_truth_that_is_neither_true_nor_false(folder: Folder) -> None:
    said = timed(r"i.csv, row 3: is_noise is neither true nor false, found 'u,a,@2,maybe'")
    with pytest.raises(UserError, match=said):
        folder.load("who,sku,when,odd\nu,b,@1,0\nu,a,@2,maybe\n", is_noise="odd")


def test_an_item_without_id_is_a_bad_row(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"items.csv, row 3: item is missing, found ',Nameless'"):
        folder.load("who,sku,when\nu,b,@1\n", "sku,name\nb,B\n,Nameless\n")


def test_of_several_rows_for_an_item_the_first_counts(folder: Folder) -> None:
    raw, _ = folder.load("who,sku,when\nu,b,@1\n", "sku,name\nb,First\nb,Second\nb,Third\n")
    assert raw.items["title"].to_list() == ["First"]
    assert raw.repeated_items == 2


def test_items_without_a_row_are_bad_rows(folder: Folder) -> None:
    """Of b, x, y the table has b alone: two bad rows, whose interactions stay."""
    interactions = "who,sku,when\nu,b,@1\nu,x,@2\nu,y,@2\nu,x,@3\n"
    with pytest.raises(UserError, match=r"items.csv: no row for item 'x', .*i.csv \(2 of its 3 items have none\)"):
        folder.load(interactions, limit=1)
    raw, rejects = folder.load(interactions, limit=2)
    assert (raw.interactions.height, raw.titles) == (4, (1, 0, 2))
    assert [(reject.row, reject.text) for reject in rejects.rows] == [(None, "x"), (None, "y")]


def test_an_item_table_of_other_items_is_the_wrong_file(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"items.csv: no row for item 'x', .*\(1 of its 1 items have none\)"):
        folder.load("who,sku,when\nu,x,@1\n", limit=100)


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("who;sku;when;stars\nu;b;@1;4,5\n", ";"),
        ("who\tsku\twhen\tstars\nu\tb\t@1\t4.5\n", "\\t"),
        ("who|sku|when|stars\nu|b|@1|4.5\n", "|"),
    ],
)
def test_fields_separated_by_another_character(folder: Folder, text: str, separator: str) -> None:
    """Recognised, with a note, and decimal commas are read; or stated. The item table has commas."""
    raw, _ = folder.load(text, rating="stars")
    assert raw.interactions.rows() == [("u", "b", T + 1, 4.5)]
    assert raw.notes == (f"{folder.path / 'i.csv'}: fields are separated by '{separator}'",)


def test_a_stated_separator(folder: Folder) -> None:
    """A header with `^`; with commas it does not hold the columns."""
    raw, _ = folder.load("who^sku^when\nu^b^@1\n", "sku^name\nb^B\n", separator="^")
    assert raw.interactions.rows() == [("u", "b", T + 1)]
    with pytest.raises(UserError, match=r"i.csv: no column 'who' .*; it has: who\^sku\^when"):
        folder.load("who^sku^when\nu^b^@1\n")


def test_a_header_and_rows_with_other_separators(folder: Folder) -> None:
    for text, header, rows in (("who,sku,when\nu;b;@1\n\n", ",", ";"), ("who\tsku\twhen\nu,b,@1\nv,b,@1", r"\\t", ",")):
        with pytest.raises(UserError, match=rf"i.csv, row 2: fields are separated by '{rows}', but by '{header}' in"):
            folder.load(text)


def test_a_stated_separator_is_named_where_a_column_is_missing(folder: Folder) -> None:
    """The item table is separated by commas."""
    with pytest.raises(
        UserError, match=r"items.csv: no column 'sku' .*it has: sku,name,path \(fields .* '\^', as `sep"
    ):
        folder.load("who^sku^when\nu^b^@1\n", separator="^")


def test_more_bad_rows_tolerated_than_a_table_can_have(folder: Folder) -> None:
    raw, rejects = folder.load("who,sku,when\nu,b,@1\n,b,@1\n", limit=10**30)
    assert (raw.interactions.height, rejects.count) == (1, 1)


def test_a_name_on_two_lines_is_shown_on_one(folder: Folder) -> None:
    (folder.path / "a\nb.csv").write_text("")
    with pytest.raises(UserError, match=r"/a\?b.csv: the file is empty"):
        load(folder.source("a\nb.csv"), Rejects())


@pytest.mark.parametrize("count", [1, 2, 9, 5000])
def test_nul_bytes_at_the_end_are_damage(folder: Folder, count: int) -> None:
    """As after a crash, and not UTF-16."""
    with pytest.raises(UserError, match=r"i.csv: the file is binary or damaged \(NUL bytes in row 3\)"):
        folder.load(b"who,sku,when\nu,b,@1\n" + bytes(count))


def test_a_comma_goes_before_other_separators(folder: Folder) -> None:
    raw, _ = folder.load("who,sku,when,a;b\nu,b,@1,x;y\n")
    assert raw.interactions.rows() == [("u", "b", T + 1)] and raw.notes == ()


@pytest.mark.parametrize("whole", [("1.0", "2.0"), ("1.00", " 2.0 ")])
def test_whole_numbers_with_a_point_are_integers_in_csv_too(folder: Folder, whole: tuple[str, str]) -> None:
    """As pandas writes integers of a column with gaps; the item table has them without gaps."""
    one, two = whole
    raw, _ = folder.load(f"who,sku,when\n{one},10.0,@1\n{two},11.0,@2\n", "sku,name\n10,Ten\n11,Eleven\n")
    assert raw.interactions.rows() == [("1", "10", T + 1), ("2", "11", T + 2)]


def test_texts_that_are_not_all_whole_numbers_stay(folder: Folder) -> None:
    raw, _ = folder.load("who,sku,when\n1.0,b,@1\n1.5,b,@2\n1E5,a,@3\n")
    assert raw.interactions["user"].to_list() == ["1.0", "1.5", "1E5"]


@pytest.mark.parametrize("missing", ["nan", "", "NULL", "1.5e+16"])
def test_a_missing_id_does_not_make_the_others_texts(folder: Folder, missing: str) -> None:
    raw, rejects = folder.load(f"who,sku,when\n17.0,b,@1\n{missing},b,@2\n-0.0,a,@3\n", limit=1)
    assert raw.interactions["user"].to_list() == ["17", "0"]
    assert rejects.rows[0].row == 3


@pytest.mark.parametrize("ids", [("01.0", "1.0"), ("1.0", "+1.0"), ("1.0", "1"), ("1.10", "1.1"), ("1.0", "2.10")])
def test_texts_that_no_program_writes_for_a_float_stay(folder: Folder, ids: tuple[str, str]) -> None:
    raw, _ = folder.load(f"who,sku,when\n{ids[0]},b,@1\n{ids[1]},a,@2\n")
    assert raw.interactions["user"].to_list() == list(ids)


@pytest.mark.parametrize("ids", [("1.5", "2.0"), ("1.5", "2.5"), ("-0.25", "nan")])
def test_fractions_are_no_ids(folder: Folder, ids: tuple[str, str]) -> None:
    """As in Parquet."""
    with pytest.raises(UserError, match=r"column 'who' .*expected text or integers as ids, found .*5;"):
        folder.load(f"who,sku,when\n{ids[0]},b,@1\n{ids[1]},a,@2\n", limit=1)


def test_words_for_nothing_are_no_titles(folder: Folder) -> None:
    """Beside a name that only contains such a word; then the categories stand for it, or nothing."""
    items = "sku,name,path\na,NULL,Tools\nb,nan,None\nc,None of us,\\N\n"
    raw, _ = folder.load("who,sku,when\nu,a,@1\nu,b,@2\nu,c,@3\n", items, categories="path")
    assert raw.items.rows() == [("a", "Tools", "Tools"), ("b", "untitled item", ""), ("c", "None of us", "")]


def test_whole_numbers_in_csv_that_floats_merge(folder: Folder) -> None:
    """2 ** 53 is 9,007,199,254,740,992; two rows of three are there or beyond."""
    text = "who,sku,when\n9007199254740992.0,b,@1\n9007199254740993.0,b,@2\n5.0,b,@3\n"
    with pytest.raises(UserError, match=r"column 'who' .*: 2 ids are floats of 2 \*\* 53 or more, such as 90071992547"):
        folder.load(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "i.csv: the file is empty, expected CSV"),
        (" \n\n", "i.csv: the file is empty"),
        ("\nwho,sku,when\nu,b,@1\n", "i.csv, row 1: empty, expected the names of the columns"),
        ("sep=;\nwho;sku;when\nu;b;@1\n", "i.csv, row 1: 'sep=;', expected the names of the columns"),
        ("who,sku,when\n", "i.csv: no interactions"),
        ("who,sku\nu,b\n", "i.csv: no column 'when' .`columns.timestamp`.; it has: who, sku; .*leave out columns.time"),
        ("who,sku,when,who\nu,b,@1,v\n", "i.csv: 2 columns are called 'who'"),
        ("who,sku,when\nu,b,@1\nu,b,@1,2\n", timed("row 3: 4 fields, where the header has 3, found 'u,b,@1,2'; it")),
        ("who;sku\nu;b\n", "i.csv: no column 'when' .*it has: who, sku;"),
        ('who,sku,when\nu,b,@1\nu,3" pipe,1\nu,b,2\n', "i.csv, row 3: a quotation mark inside a field .*write the one"),
        ('who,sku,when\n"u, 1","""b""",1\nu,"3" pipe",1\n', "i.csv, row 3: a quotation mark inside a field"),
        ('who;sku;when\n"u; 1";"""b""";1\nu;"3" pipe";1\n', "i.csv, row 3: a quotation mark inside a field"),
        ('who,sku,when\nu,"b\n\n""c",1\n"u",3" pipe,1\n', "i.csv, row 5: a quotation mark inside a field"),
        ('who,sku,when\nu,"b,1\nu,b,1\nu,"c",2\n', "i.csv, row 2: a quotation mark inside a field"),
        (b"who,sku,when\nu,b,1\nu,\xff,1\n", "i.csv, row 3: not valid UTF-8"),
        (b"who,sku,when,n\xe9\nu,b,@1,2\n", "i.csv: not valid UTF-8; save the file"),
        ('who,sku,when\nu,b,1\nu,"b,1\nu,b,1\n', "i.csv, row 3: a quotation mark that is never closed"),
        ('who,sku,when\nu,b,1\nu,"Best" toy,1\nu,b,1\n', "i.csv, row 3: a quotation mark inside a field"),
        ('who,sku,when,3" x\nu,b,1,a\nu,b,2,b\nu,b,3,5" z\nu,b,4,\n', "i.csv, row 1: a quotation mark inside a field"),
        ("who,sku,when\ru,b,1\nu,b,2\n", "i.csv, row 1: a CR without its LF"),
        ("who,sku,when\ru,b,1\r\nu,b,2\r\n", "i.csv, row 1: a CR without its LF"),
        ("who,sku,when\r\r\nu,b,1\r\r\n", "i.csv, row 1: a CR without its LF"),
        ("who,sku,when,x\nu,b,1,\nu,b,1\ru,b,2\n", "i.csv, row 3: a CR without its LF"),
        ('who,sku,when,x\nu,b,1,"\n\r"\nu,b,1,a\rz\n', "i.csv, row 4: a CR without its LF"),
        ("who,sku,when\nu,b,1\nu,b,1\r", "i.csv, row 3: a CR without its LF"),
    ],
)
def test_an_unreadable_csv(folder: Folder, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        folder.load(content)


@pytest.mark.parametrize(
    ("name", "message"), [("none.csv", "no such file"), ("i.xlsx", "ends in .csv, .tsv, .txt or .parquet")]
)
def test_an_unusable_path(folder: Folder, name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"{name}: .*{message}"):
        load(folder.source(interactions=name), Rejects())


@pytest.mark.parametrize(
    "name", ["log[1].csv", "log*.csv", "l?g.csv", "{log}.csv", "~log.csv", "log%31.csv", "lög.TSV"]
)
def test_a_file_name_is_no_pattern(folder: Folder, name: str) -> None:
    """Beside it lie files that a pattern would find."""
    for other in ("log1.csv", "log.csv"):
        (folder.path / other).write_text(timed("who,sku,when\nother,b,@1\n"))
    (folder.path / name).write_text(timed("who,sku,when\nu,b,@1\n"))
    (folder.path / "items.csv").write_text(ITEMS)
    assert load(folder.source(name), Rejects()).interactions["user"].to_list() == ["u"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("separator", ";;", "expected auto, or the one character"),
        ("separator", "a", "expected auto, or the one character"),
        ("separator", "", "expected auto, or the one character that separates fields, in quotation marks"),
        ("separator", None, "expected text; put it into quotation marks"),
        ("format", 20150427, "expected text; put it into quotation marks"),
        ("columns", "u", "expected a mapping"),
        ("interactions", "", "expected a text that is not empty"),
        ("separator", "\n", "expected auto, or the one character"),
        ("unit", "hours", "input should be 'auto', 'seconds', 'milliseconds', 'microseconds' or 'nanoseconds'"),
        ("format", "dd-mm-yyyy", "expected a pattern of strptime"),
        ("format", "%d-%m", "expected day, month and year in it"),
        ("format", "%d-%m-%Q", "cannot read dates by this pattern"),
        ("format", "%d-%d-%m-%Y", "cannot read dates by this pattern"),
        ("format", "%d-%m-%Y %Z", "time zones .%Z. are ambiguous"),
    ],
)
def test_wrong_settings_of_reading(key: str, value: str, message: str) -> None:
    from iadsr.params import checked

    source = {"kind": "files", "interactions": "i.csv", "items": "items.csv", "columns": {"user": "u", "item": "i"}}
    with pytest.raises(UserError, match=f"params.yaml: source.{key}: .*{message}"):
        checked(Files, {**source, key: value}, "source")


def test_unit_and_format_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="state one of them"):
        Files(
            kind="files",
            interactions="i",
            items="t",
            columns=Columns(user="u", item="i"),
            unit="seconds",
            format="%d.%m.%Y",
        )
