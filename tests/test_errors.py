"""No message shows who may enter an address, whatever stands around it."""

from __future__ import annotations

import pytest

from iadsr.errors import UserError, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://me:pw@host:5000/x.", "see http://***@host:5000/x."),
        ("https://token@github.com", "https://***@github.com"),
        ("https://token:@github.com", "https://***@github.com"),
        ("('postgresql+psycopg2://me:p%40w@host/db')", "('postgresql+psycopg2://***@host/db')"),
        ("mysql://me:p@w:d@host:3306/db", "mysql://***@host:3306/db"),
        ("http://me:p/w@host/x", "http://***@host/x"),
        ("http://me:p#w?d@host/x", "http://***@host/x"),
        ("http://me:pw@[::1]:5000", "http://***@[::1]:5000"),
        ("http://a:pw@one,http://b:pw@two", "http://***@two"),
        ("s3://key:pw@bucket/a and ftp://me:pw@host", "s3://***@bucket/a and ftp://***@host"),
        ("https:/me:pw@host/folder", "https:/***@host/folder"),
        ("me:pw@host:5000", "***@host:5000"),
        ("IADSR_MIRROR=me:pw@host", "IADSR_MIRROR=***@host"),
        ("http://host/x?token=pw&page=2", "http://host/x?token=***&page=2"),
        ("url: /api?page=2&Access_Token=pw (again)", "url: /api?page=2&Access_Token=*** (again)"),
        ("http://host/?X-Amz-Signature=pw", "http://host/?X-Amz-Signature=***"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dpw", "mssql+pyodbc:///?odbc_connect=***"),
        ("host=db password='p w' user=me", "host=db password=*** user=me"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    """And what is masked stays as it is."""
    assert masked(text) == masked(shown) == shown
    assert str(UserError(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "own/log.csv, row 3: user 'me@example.org', expected a number",
        "sqlite:////home/me@work/mlflow.db",
        "sqlite:///C:/Users/me@work/mlflow.db",
        "http://localhost:5000/#/experiments/1?page=2",
        "https://github.com/owner/name@v1",
        "params.yaml: encode.batch_tokens: expected a whole number, found 'x'; -S encode.batch_tokens=0",
        "12:30:05 at 3 @ home",
    ],
)
def test_nothing_else_is(text: str) -> None:
    assert masked(text) == text
