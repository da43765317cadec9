"""Redaction: logins of URLs and secret values of the environment, in texts, containers and exceptions.

Run: python -m pytest tests/unit/base/test_redaction.py
"""

import traceback

import pytest

from jepa_train.base.security import clean, hidden


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:pass@db.host:5432/x", "postgresql://***@db.host:5432/x"),
        ("s3://AKIA:se/cr@et@bucket/p and http://h:1/p", "s3://***@bucket/p and http://h:1/p"),
        ("https://ghp_0123456789@host/x s3://bucket/a@b", "https://***@host/x s3://bucket/a@b"),
        ("postgresql://db/x?user=me&db_password=pass&n=1", "postgresql://db/x?user=me&db_password=***&n=1"),
        ("https://b.s3/x?X-Amz-Signature=0a1b#top", "https://b.s3/x?X-Amz-Signature=***#top"),
        (
            "https://b/x?sig=0a1b&api_key=0a&X-Amz-Credential=c&n=1",
            "https://b/x?sig=***&api_key=***&X-Amz-Credential=***&n=1",
        ),
        ("canary-1 canary-2 canary-3, longer canary-1-and-more", "*** *** ***, longer ***"),
        ("canary-4 canary-5 canary-6 canary-7", "*** *** *** ***"),
        (
            "/run/keyring /home/me/work /home/me/gcp.json /bin/ask",
            "/run/keyring /home/me/work /home/me/gcp.json /bin/ask",
        ),
        ("digits of /home/me/token.json; method.lamb=0.05", "digits of /home/me/token.json; method.lamb=0.05"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, masked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_SECRET_ACCESS_KEY": "canary-1",
        "TEAM_TOKEN": "canary-2\n",
        "PGPASSWORD": "canary-3",
        "OTHER_API_KEY": "canary-1-and-more",
        "SHORT_TOKEN": "digits",
        "GOOGLE_TOKEN_FILE": "/home/me/token.json",
        "DB_PASS": "canary-4",
        "MYSQL_PWD": "canary-5",
        "AZURE_CREDENTIAL": "canary-6",
        "STORAGE_CONNECTION_STRING": "canary-7",
        "GNOME_KEYRING_CONTROL": "/run/keyring",
        "PWD": "/home/me/work",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/gcp.json",
        "SSH_ASKPASS": "/bin/ask",
    }.items():
        monkeypatch.setenv(name, value)
    assert hidden(text) == masked == hidden(masked)
    assert hidden({"a": [text, 1.5, (text,)], text: b"1"}) == {"a": [masked, 1.5, (masked,)], masked: b"1"}
    error = ValueError(text, 1)
    error.__cause__ = OSError(5, text, f"/{text}")
    clean(error)
    assert (error.args, str(error.__cause__)) == ((masked, 1), f"[Errno 5] {masked}: {f'/{masked}'!r}")
    assert text == masked or text not in "".join(traceback.format_exception(error))


def test_exceptions_in_arguments_groups_and_circles_are_cleaned() -> None:
    inner, grouped, cause = (ValueError("s3://me:secret@b") for _ in range(3))
    error = ExceptionGroup("several", [ConnectionError(inner), grouped])
    error.__cause__, cause.__context__ = cause, error
    clean(error)
    assert "secret" not in "".join(traceback.format_exception(error)) + repr([inner, grouped, cause])
