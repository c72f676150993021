"""MovieLens-100K, from zips small enough to read by eye and from the real one."""

import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from iadsr.errors import UserError
from iadsr.ingest import movielens, official_files
from iadsr.ingest.raw import Raw
from iadsr.ingest.rejects import Rejects

DATA = "7\t2\t5\t881250949\n7\t1\t3\t881250949\n8\t2\t1\t10\n"
ITEMS = "1|Toy  Story (1995)|01-Jan-1995||http|0|1|1\n2|Misérables, Les||||1|0|0\n3|Unseen||||0|0|1\n"
GENRES = "unknown|0\nAnimation|1\nComedy|2\n\n"


def write_zip(path: Path, **changed: str) -> Path:
    members = {"ml-100k/u.data": DATA, "ml-100k/u.item": ITEMS, "ml-100k/u.genre": GENRES}
    members |= {f"ml-100k/u.{name}": text for name, text in changed.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text.encode("iso-8859-1"))
    return path


def load(path: Path, limit: int = 0) -> tuple[Raw, Rejects]:
    rejects = Rejects(limit)
    return movielens.load(lambda file: path, rejects), rejects


def test_rows_keep_the_order_of_the_file(tmp_path: Path) -> None:
    """Three rows of u.data; item 3 is never rated. Flags 0|1|1 are Animation and Comedy; é is one Latin-1 byte."""
    raw, rejects = load(write_zip(tmp_path / "ml.zip"))
    assert raw.interactions.rows() == [("7", "2", 881250949, 5.0), ("7", "1", 881250949, 3.0), ("8", "2", 10, 1.0)]
    assert raw.items.rows() == [("2", "Misérables, Les", "unknown"), ("1", "Toy Story (1995)", "Animation > Comedy")]
    assert raw.titles == (2, 0, 0)
    assert rejects.count == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("7\t\t5\t1", "item is missing"),
        ("\t2\t5\t1", "user is missing"),
        ("7\t2\t5\t", "time is missing"),
        ("7\t2\t5\tnoon", "time is not a number of seconds"),
        ("7\t2\t5\tnan", "time is not a number of seconds"),
        ("7\t2\t5\t881250949000", "time is beyond the year 9999"),
        ("7\t2\t5", "expected 4 tab-separated fields, found 3"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = write_zip(tmp_path / "ml.zip", data=f"{DATA}{line}\n")
    with pytest.raises(UserError, match=rf"ml.zip/ml-100k/u.data, row 4: {reason}.*ingest.max_rejects is 0"):
        load(path)
    raw, rejects = load(path, limit=1)
    assert raw.interactions.height == 3
    assert [(reject.row, reject.text) for reject in rejects.rows] == [(4, line)]


def test_bad_rows_of_both_files_count_together(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "ml.zip", data=DATA + "x\n", item=ITEMS + "|No id\n")
    with pytest.raises(UserError, match=r"u.data, row 4: .*first of 2 bad rows, but ingest.max_rejects is 1"):
        load(path, limit=1)
    assert load(path, limit=2)[1].count == 2


def test_a_title_falls_back_to_genres_then_to_a_neutral_text(tmp_path: Path) -> None:
    """Item 1 has no title but Comedy, item 2 has neither."""
    raw, _ = load(write_zip(tmp_path / "ml.zip", item="1| ||||0|0|1\n2|||||0|0|0\n"))
    assert raw.items.rows() == [("2", "untitled item", ""), ("1", "Comedy", "Comedy")]
    assert raw.titles == (0, 1, 1)


def test_an_item_without_a_line_is_a_bad_row(tmp_path: Path) -> None:
    """Of items 2 and 1, which are rated, u.item has 1 alone."""
    path = write_zip(tmp_path / "ml.zip", item="1|Toy Story||||0|0|1\n")
    with pytest.raises(UserError, match=r"ml.zip/ml-100k/u.item: no row for item '2', .*u.data \(1 of its 2 items"):
        load(path)
    raw, rejects = load(path, limit=1)
    assert raw.items["title"].to_list() == ["untitled item", "Toy Story"]
    assert rejects.rows[0][:2] == ("ml.zip/ml-100k/u.item", None)


@pytest.mark.parametrize("name", ["../evil", "ml-100k/../../evil", "/etc/passwd", "..\\evil", "C:\\evil", "\\evil"])
def test_a_zip_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "ml.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(UserError, match=r"ml.zip: refused, because its member"):
        load(path)


def changed_zip(path: Path, name: str = "ml-100k/extra", **attributes: Any) -> Path:
    """A zip with one more member, or another u.data, of which the directory says something else."""
    text = DATA if name == movielens.INTERACTIONS else "x"
    members = {movielens.INTERACTIONS: DATA, movielens.ITEMS: ITEMS, movielens.GENRES: GENRES, name: text}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in members.items():
            archive.writestr(each, content.encode("iso-8859-1"))
        for attribute, value in attributes.items():
            setattr(archive.getinfo(name), attribute, value)
    return path


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"external_attr": (stat.S_IFLNK | 0o777) << 16}, "is a link or a device"),
        ({"external_attr": (stat.S_IFIFO | 0o644) << 16}, "is a link or a device"),
        ({"external_attr": (stat.S_IFCHR | 0o644) << 16}, "is a link or a device"),
        ({"flag_bits": 0x1}, "is encrypted"),
        ({"flag_bits": 0x41}, "is encrypted"),
        ({"compress_type": zipfile.ZIP_LZMA}, "is packed in an uncommon way"),
        ({"file_size": 200_000_000}, "is larger than 98,480,580 bytes"),
    ],
)
@pytest.mark.parametrize("name", ["ml-100k/extra", movielens.INTERACTIONS])
def test_a_member_that_may_do_harm_is_refused(
    tmp_path: Path, name: str, attributes: dict[str, Any], reason: str
) -> None:
    path = changed_zip(tmp_path / "ml.zip", name, **attributes)
    with pytest.raises(UserError, match=rf"ml.zip: refused, because its member '{name}' {reason}.*by the official one"):
        load(path)


@pytest.mark.parametrize(
    "attributes",
    [
        {"file_size": 0},
        {"file_size": len(DATA) - 1},
        {"file_size": len(DATA) + 1},
        {"file_size": 22, "CRC": zlib.crc32(DATA[:22].encode())},
        {"compress_size": 3},
        {"CRC": 0},
    ],
)
def test_a_size_that_is_not_the_declared_one(tmp_path: Path, attributes: dict[str, int]) -> None:
    """Also where the checksum fits the declared, smaller size: the rest would be left out without a word."""
    path = changed_zip(tmp_path / "ml.zip", movielens.INTERACTIONS, **attributes)
    with pytest.raises(UserError, match=r"ml.zip: not a whole zip file; replace it by a whole copy"):
        load(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """u.data declares 10 bytes and has 4,000 lines; a member may have 20,000 bytes, a line 65,536."""
    monkeypatch.setattr(movielens, "MOST", 20_000)
    path = write_zip(tmp_path / "ml.zip", data="7\t2\t5\t1\n" * 4000)
    content = path.read_bytes()
    path.write_bytes(content.replace((32_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"u.data, row 2501: more than 20,000 bytes up to here"):
        load(path)


@pytest.mark.parametrize("member", ["data", "item", "genre"])
def test_a_line_that_is_too_long(tmp_path: Path, member: str) -> None:
    path = write_zip(tmp_path / "ml.zip", **{member: "\t" * 1_000_000})
    with pytest.raises(UserError, match=rf"u.{member}, row 1: longer than 65,536 bytes"):
        load(path)


def test_a_genre_of_too_many_digits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"u.genre, row 1: expected name\|number"):
        load(write_zip(tmp_path / "ml.zip", genre=f"unknown|{'1' * 5000}\n"))


def test_no_interactions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ml-100k/u.data: no interactions"):
        load(write_zip(tmp_path / "ml.zip", data="\n"))


def test_a_missing_member(tmp_path: Path) -> None:
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "")
    with pytest.raises(UserError, match=r"expected ml-100k/u.data in it, found ml-1m/ratings.dat"):
        load(path)


def test_a_truncated_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "ml.zip")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"ml.zip: not a whole zip file"):
        load(path)


def test_a_corrupt_member(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "ml.zip")
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"ml.zip: not a whole zip file"):
        load(path)


def test_the_real_file(mirror: Path, caplog: pytest.LogCaptureFixture) -> None:
    """943 users, 1,682 items, 100,000 interactions; the first line is 196, 242, 3, 881250949; item 267 is `unknown`."""
    rejects = Rejects()
    raw = movielens.load(lambda file: official_files.fetch(file, Path("unused"), mirror), rejects)
    assert raw.counts == (943, 1682, 100_000)
    assert raw.titles == (1682, 0, 0)
    assert raw.interactions.row(0) == ("196", "242", 881250949, 3.0)
    titles = dict(raw.items.select("item", "title").rows())
    assert titles["267"] == "unknown"
    assert titles["543"] == "Misérables, Les (1995)"
    assert caplog.text == ""
