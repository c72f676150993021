"""Amazon 2014, from files small enough to read by eye and from the real ones."""

import gzip
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest

from iadsr.errors import UserError
from iadsr.ingest import amazon, official_files
from iadsr.ingest.amazon import Amazon2014, load, read_meta, read_reviews
from iadsr.ingest.raw import Raw
from iadsr.ingest.rejects import Rejects

REVIEWS = (
    '{"reviewerID": "U2", "asin": "B", "unixReviewTime": 20, "overall": 4.0, "reviewText": "x"}\n'
    '{"reviewerID": "U1", "asin": "A", "unixReviewTime": 10}\n'
    '{"reviewerID": "U2", "asin": "C", "unixReviewTime": 10}\n'
)
NESTED_JSON = '{"a":' * 10_000 + "1" + "}" * 10_000
NAME = "'a'"
META = (
    "{'asin': 'Z', 'title': 'Outside the 5-core'}\n"
    "{'asin': 'B', 'title': 'See &amp;\\n Do ', 'categories': [['Toys', 'Arts &amp; Crafts'], ['Other']], 'price': 1}\n"
    "{'asin': 'A', 'categories': [['Toys', 'Games']]}\n"
    "{'asin': 'C', 'price': 2}\n"
)


def write_gz(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()))
    return path


def load_texts(folder: Path, reviews: str = REVIEWS, meta: str = META, limit: int = 0) -> tuple[Raw, Rejects]:
    write_gz(folder / "reviews_Few_5.json.gz", reviews)
    write_gz(folder / "meta_Few.json.gz", meta)
    rejects = Rejects(limit)
    source = Amazon2014(kind="amazon-2014", category="Few")
    return load(source, lambda file: folder / file.name, rejects), rejects


def test_both_tables(tmp_path: Path) -> None:
    """B has a title (unescaped, on one line), A only categories, C neither; Z never occurs in the reviews."""
    raw, rejects = load_texts(tmp_path)
    assert raw.interactions.rows() == [("U2", "B", 20, 4.0), ("U1", "A", 10, None), ("U2", "C", 10, None)]
    assert raw.items.rows() == [
        ("B", "See & Do", "Toys > Arts & Crafts"),
        ("A", "Toys > Games", "Toys > Games"),
        ("C", "untitled item", ""),
    ]
    assert raw.titles == (1, 1, 1)
    assert rejects.count == 0


def test_ratings_are_left_out_where_there_are_none(tmp_path: Path) -> None:
    raw, _ = load_texts(tmp_path, '{"reviewerID": "U", "asin": "B", "unixReviewTime": 1}')
    assert raw.interactions.columns == ["user", "item", "timestamp"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"asin": "B", "unixReviewTime": 1}', "reviewerID is missing"),
        ('{"reviewerID": " ", "asin": "B", "unixReviewTime": 1}', "reviewerID is missing"),
        ('{"reviewerID": "U", "asin": "", "unixReviewTime": 1}', "asin is missing"),
        ('{"reviewerID": "U", "asin": ["B"], "unixReviewTime": 1}', "asin is neither text nor an integer"),
        ('{"reviewerID": "U", "asin": "\\ud800", "unixReviewTime": 1}', "asin is not valid UTF-8"),
        ('{"reviewerID": "U", "asin": "B"}', "unixReviewTime is missing"),
        ('{"reviewerID": "U", "asin": "B", "unixReviewTime": "noon"}', "unixReviewTime is not a number"),
        ('{"reviewerID": "U", "asin": "B", "unixReviewTime": true}', "unixReviewTime is not a number"),
        ('{"reviewerID": "U", "asin": "B", "unixReviewTime": [1]}', "unixReviewTime is not a number"),
        ('{"reviewerID": "U", "asin": "B", "unixReviewTime": 1365984000000}', "unixReviewTime is beyond the year"),
        ('{"reviewerID": "U",', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (f'{{"reviewerID": "U", "asin": "B", "unixReviewTime": 1, "x": {"[" * 101}{"]" * 101}}}', "not valid JSON"),
        (f'{{"reviewerID": "U", "asin": "B", "unixReviewTime": 1, "x": {NESTED_JSON}}}', "not valid JSON"),
        ('["U", "B", 1]', "expected a JSON object"),
    ],
)
def test_a_bad_review_is_named(tmp_path: Path, line: str, reason: str) -> None:
    """The bad line is the third: the blank second line counts as a line, but not as a bad one."""
    first, rest = REVIEWS.split("\n", 1)
    reviews = f"{first}\n\n{line}\n{rest}"
    with pytest.raises(UserError, match=rf"reviews_Few_5.json.gz, row 3: {reason}.*ingest.max_rejects is 0"):
        load_texts(tmp_path, reviews)
    raw, rejects = load_texts(tmp_path, reviews, limit=1)
    assert raw.interactions.height == 3
    assert [(reject.file, reject.row, reject.text) for reject in rejects.rows] == [
        ("reviews_Few_5.json.gz", 3, line[:200])
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'asin': 'B', 'title':", "not a Python literal"),
        ("{'asin': 'unwanted', 'title':", "not a Python literal"),
        ("{'asin': 'unwanted', 'title': 'cut o}", "not a Python literal"),
        ("{'asin': 'unwanted', 'title': \"cut o}", "not a Python literal"),
        ("{'asin': __import__('os').getcwd()}", "not a Python literal"),
        ("{[]: 1}", "not a Python literal"),
        ("['asin', 'B']", "expected a Python dict"),
        ("{'title': 'no asin'}", "asin is missing"),
        ("(" * 10_000, "not a Python literal"),
        (f"{{'asin': 'B', 'categories': {'[' * 10_000}{']' * 10_000}}}", "not a Python literal .nested more than 100"),
        (f"{{'asin': 'unwanted', 'x': {'[' * 10_000}{']' * 10_000}}}", "not a Python literal .nested more than 100"),
        (f"{{'asin': 'B', 'x': {'{1: ' * 10_000}{'}' * 10_000}}}", "not a Python literal .nested more than 100"),
        (f"{{'asin': 'B', 'x': {'-' * 10_000}1}}", "not a Python literal"),
        (f"{{'asin': 'B', 'x': {'1+' * 10_000}1}}", "not a Python literal"),
        (f"{{'asin': 'B', 'x': 0x1e{'-0x1e' * 10_000}}}", "not a Python literal"),
        (f"{{'asin': 'B', 'x': {'not ' * 10_000}1}}", "not a Python literal"),
        (f"{{'asin': 'B', 'x': {'lambda:' * 9_000}1}}", "not a Python literal"),
        (f"{{'asin': 'B', 'x': a{'.a' * 10_000}}}", "not a Python literal"),
        (f"{{'asin': 'B', 'x': 'a'{'[0]' * 10_000}}}", "not a Python literal"),
        (f"{{'asin': 'B', 'x': {NAME * 10_000}}}", "not a Python literal"),
        (f"{{'asin': 'B', 'x': [{'1,' * 100_000}]}}", "not a Python literal"),
        (f"{{'asin': 0x{'f' * 5_000}}}", "asin is an integer of too many digits"),
    ],
)
def test_a_bad_description_is_named(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"meta_Few.json.gz, row 5: {reason}"):
        load_texts(tmp_path, meta=f"{META}{line}\n")
    raw, rejects = load_texts(tmp_path, meta=f"{META}{line}\n", limit=1)
    assert (raw.titles, rejects.count) == ((1, 1, 1), 1)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "[]",
            "{}",
            "[[], ()]",
            "-1.5e-05",
            "1e+16",
            ".5",
            "0x1F",
            "True",
            "None",
            "u'x'",
            '"it\'s"',
            "'\\'[['",
            "''",
        ),
        *("[['a', 'b',], ['c']]", "{'a': {'b': [1, -2]}}", f"{'[' * 98}1{']' * 98}", f"'{'[' * 10_000}'", "(1,)"),
        repr({"price": 9.99, "rank": {"Toys": 7}, "related": {"bought": ["B1"] * 1000}, "text": "a \"b\" 'c' \n {["}),
    ],
)
def test_what_python_writes_is_read(tmp_path: Path, value: str) -> None:
    path = write_gz(tmp_path / "meta.json.gz", f"{{'asin': 'A', 'x': {value}, 'title': 'T'}}")
    assert read_meta(path, {"A"}, Rejects()).texts == {"A": ("T", "")}


def test_a_line_that_is_too_long_is_a_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 201 bytes, 10,000, and the last of the file; 200 bytes are good. The é of a good line takes two."""
    monkeypatch.setattr(amazon, "READ", 50)
    monkeypatch.setattr(amazon, "BLOCK", 100)
    monkeypatch.setattr(amazon, "LONGEST", 200)
    path = write_gz(
        tmp_path / "r.json.gz", f"{GOOD}\n{GOOD:200}\n{GOOD:199}\n{'0' * 10_000}\n{GOOD}\n{'x' * 190}\n{GOOD:999}"
    )
    rejects = Rejects(9)
    assert len(read_reviews(path, rejects).users) == 3
    assert [(each.row, each.reason) for each in rejects.rows] == [
        *((number, "longer than 200 bytes") for number in (2, 4)),
        *((6, "not valid JSON"), (7, "longer than 200 bytes")),
    ]
    assert [len(each.text) for each in rejects.rows] == [len(GOOD), 200, 190, len(GOOD)]


@pytest.mark.parametrize("end", [b"", b"\n" + REVIEWS.encode()])
def test_a_line_of_gigabytes_takes_no_gigabytes(tmp_path: Path, end: bytes) -> None:
    """100 MB of zeros in 100 KB: twice the longest line, and some, are held of it."""
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress(bytes(100_000_000) + end))
    tracemalloc.start()
    rejects = Rejects(1)
    read_reviews(path, rejects)
    assert tracemalloc.get_traced_memory()[1] < 4 * amazon.LONGEST
    tracemalloc.stop()
    assert rejects.rows[0][:3] == ("r.json.gz", 1, "longer than 16,777,216 bytes")
    assert len(rejects.rows[0].text) <= 200


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of zeros in a kilobyte, of which no more than 200,000 bytes may come."""
    monkeypatch.setattr(official_files, "GROWS_FREELY", 200_000)
    path = write_gz(tmp_path / "r.json.gz", f"{GOOD}\n" + "\0" * 1_000_000)
    with pytest.raises(UserError, match=r"r.json.gz, after row 1: unpacks to more than 100 times its size"):
        read_reviews(path, Rejects())


def test_items_without_a_description_are_bad_rows(tmp_path: Path) -> None:
    """A broken line and no line for A and C: three bad rows, of which A and C stay in the tables."""
    meta = "broken\n{'asin': 'B', 'title': 'Bee'}\n"
    message = (
        r"^meta_Few.json.gz: no row for item 'A', which occurs in reviews_Few_5.json.gz \(2 of its 3 items have none\)"
        r"; take the right, whole file, .*or raise ingest.max_rejects to 3 to give them a neutral text"
    )
    with pytest.raises(UserError, match=message):
        load_texts(tmp_path, meta=meta, limit=2)
    raw, rejects = load_texts(tmp_path, meta=meta, limit=3)
    assert raw.items["title"].to_list() == ["Bee", "untitled item", "untitled item"]
    assert (raw.interactions.height, rejects.count) == (3, 3)
    reason = "no row for this item, which is now 'untitled item'"
    assert rejects.rows[1:] == [("meta_Few.json.gz", None, reason, item) for item in "AC"]


def test_descriptions_of_another_category_are_the_wrong_file(tmp_path: Path) -> None:
    """Not one of the items has a line, so no tolerance helps, and none is offered."""
    with pytest.raises(UserError, match=r"meta_Few.json.gz: no row for item 'B'.*3 of its 3.*take the right") as error:
        load_texts(tmp_path, meta="{'asin': 'Z', 'title': 'Of another category'}\n", limit=100)
    assert "max_rejects" not in str(error.value)


def test_bytes_that_are_no_utf8_are_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(gzip.compress(b"\xff\xfe\n" + REVIEWS.encode()))
    rejects = Rejects(1)
    assert len(read_reviews(path, rejects).users) == 3
    assert (rejects.rows[0].row, rejects.rows[0].reason) == (1, "not valid UTF-8")


def test_odd_titles_and_categories(tmp_path: Path) -> None:
    """A title that is no text is missing; a flat list of categories is one path; of two lines the first counts."""
    lines = [
        {"asin": "A", "title": 7, "categories": ["Toys", None, " "]},
        {"asin": "A", "title": "later"},
        {"asin": "B", "title": None, "categories": None},
        {"asin": "C", "title": "lone \ud800 surrogate", "categories": [[]]},
    ]
    path = write_gz(tmp_path / "meta.json.gz", "\n".join(map(repr, lines)))
    items = read_meta(path, {"A", "B", "C"}, Rejects())
    assert items.texts == {"A": ("", "Toys"), "B": ("", ""), "C": ("lone ? surrogate", "")}
    assert items.repeated == 1


def test_descriptions_of_other_items_are_not_parsed(tmp_path: Path) -> None:
    """The first line is no literal (nan), yet whole, and of an item that nobody asked for; the second is asked for."""
    lines = ["{'asin': 'X', 'price': nan, 'title': \"it's\", 'brand': 'a\\'b'}", "{'title': 'T', 'asin': 'A'}"]
    path = write_gz(tmp_path / "meta.json.gz", "\n".join(lines))
    assert read_meta(path, {"A"}, Rejects()).texts == {"A": ("T", "")}
    with pytest.raises(UserError, match="row 1: not a Python literal"):
        read_meta(path, {"A", "X"}, Rejects())


def test_a_truncated_file(tmp_path: Path) -> None:
    path = write_gz(tmp_path / "reviews.json.gz", REVIEWS * 1000)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"reviews.json.gz, after row \d+: truncated or corrupt"):
        read_reviews(path, Rejects())


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(REVIEWS.encode(), mtime=0)[:-6] + b"\0" * 6])
def test_a_corrupt_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"truncated or corrupt"):
        read_reviews(path, Rejects())


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("name", ["reviews_Few_5.json.gz", "meta_Few.json.gz"])
def test_an_empty_file(tmp_path: Path, name: str, content: bytes) -> None:
    """No bytes at all, which Python reads like a gzip file, and a gzip file of no bytes."""
    load_texts(tmp_path)
    (tmp_path / name).write_bytes(content)
    source = Amazon2014(kind="amazon-2014", category="Few")
    with pytest.raises(UserError, match=rf"{name}: nothing in it; replace it by a whole copy"):
        load(source, lambda file: tmp_path / file.name, Rejects(100))


def test_a_file_of_empty_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reviews_Few_5.json.gz: no interactions"):
        load_texts(tmp_path, reviews="\n\n")


GOOD = '{"reviewerID": "G", "asin": "H", "unixReviewTime": 7, "overall": 5.0, "helpful": [1, 2], "reviewText": "é"}'
ODD = [
    '{"reviewerID": "a", "reviewerID": "b", "asin": "x", "unixReviewTime": 1}',
    '{"reviewerID": 5, "asin": "x", "unixReviewTime": 1}',
    '{"reviewerID": " é ", "asin": "x", "unixReviewTime": 1}',
    '{"reviewerID": "\\u001fa", "asin": "x", "unixReviewTime": 1}',
    '{"reviewerID": "a", "asin": null, "unixReviewTime": 1}',
    '{"reviewerID": "a", "asin": "", "unixReviewTime": 1}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": "1"}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": 1.5}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": -9223372036854775808}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": 253402300800}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": 1, "overall": "4"}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": 1, "overall": true}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": 1, "overall": null}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": 1, "overall": 1e400}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": 1, "text": "\\ud800"}',
    '{"reviewerID": "a", "asin": "x", "unixReviewTime": 1, "text": NaN}',
    f"{GOOD}{GOOD}",
    f"{GOOD[:20]}\n{GOOD[20:]}",
    f"\ufeff{GOOD}",
    f" {GOOD} \r",
    " \t",
    "x",
    "\udcff",
]


@pytest.mark.parametrize("odd", ODD)
def test_the_quick_way_gives_what_line_by_line_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str) -> None:
    """In blocks of a few lines, one of which is odd, in the middle of the file and at its end."""
    monkeypatch.setattr(amazon, "READ", 50)
    monkeypatch.setattr(amazon, "BLOCK", 300)
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress("\n".join([GOOD] * 9 + [odd] + [GOOD] * 8 + [odd]).encode(errors="surrogateescape")))
    quick, slow = Rejects(9), Rejects(9)
    found = read_reviews(path, quick).frame()
    monkeypatch.setattr(amazon, "_plain_reviews", lambda block: None)
    assert found.equals(read_reviews(path, slow).frame())
    assert quick.rows == slow.rows


def test_ordinary_reviews_go_the_quick_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is parsed by Python; the rating that one of them lacks is missing."""
    monkeypatch.setattr(amazon, "_interaction", None)
    rows = read_reviews(write_gz(tmp_path / "r.json.gz", f"{GOOD}\n" * 3 + REVIEWS), Rejects())
    assert rows.frame().rows()[2:5] == [("G", "H", 7, 5.0), ("U2", "B", 20, 4.0), ("U1", "A", 10, None)]


def test_blocks_are_whole_lines_with_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of 4 bytes, unpacked 5 at a time, in blocks of at least 10; the line of 30 is not cut."""
    monkeypatch.setattr(amazon, "READ", 5)
    monkeypatch.setattr(amazon, "BLOCK", 10)
    lines = ["abc", "", "x" * 29, *["def"] * 7]
    blocks = list(amazon._blocks(write_gz(tmp_path / "b.gz", "\n".join(lines) + "\n")))
    assert len(blocks) > 2
    assert b"\n".join(block for _, block in blocks).decode().split("\n") == lines
    for (first, block), (following, _) in pairwise(blocks):
        assert following == first + block.count(b"\n") + 1


def test_a_failure_tells_how_many_lines_came_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second part of the file, after 1,000 lines, is no gzip."""
    monkeypatch.setattr(amazon, "BLOCK", 20_000)
    path = write_gz(tmp_path / "r.json.gz", f"{GOOD}\n" * 1000)
    path.write_bytes(path.read_bytes() + b"not gzip")
    with pytest.raises(UserError, match=r"r.json.gz, after row 1000: truncated or corrupt"):
        read_reviews(path, Rejects())


def test_few_rejects_are_held_of_many(tmp_path: Path) -> None:
    rejects = Rejects(1)
    with pytest.raises(UserError, match=r"first of 1,000 bad rows, but ingest.max_rejects is 1"):
        read_reviews(write_gz(tmp_path / "r.json.gz", "x\n" * 1000), rejects)
    assert len(rejects.rows) == 3  # what the message shows


@pytest.mark.parametrize(
    ("category", "counts", "with_title"),
    [
        ("Beauty", (22_363, 12_101, 198_502), 12_094),
        ("Sports_and_Outdoors", (35_598, 18_357, 296_337), 18_357),
        ("Toys_and_Games", (19_412, 11_924, 167_597), 11_865),
    ],
)
def test_the_real_files(mirror: Path, category: str, counts: tuple[int, int, int], with_title: int) -> None:
    """Table 1 of the paper; the first row of the result is the first line of the file."""
    source = Amazon2014(kind="amazon-2014", category=category)
    raw = load(source, lambda file: official_files.fetch(file, Path("unused"), mirror), Rejects())
    assert raw.counts == counts
    assert raw.titles.title == with_title
    assert raw.items["title"].str.contains("&amp;", literal=True).sum() == 0
    with gzip.open(mirror / f"reviews_{category}_5.json.gz") as file:
        first = json.loads(file.readline())
    assert raw.interactions.row(0)[:3] == (first["reviewerID"], first["asin"], first["unixReviewTime"])
