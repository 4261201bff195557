"""Checks of the package as a whole: its stubs, types, style and secrecy."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

import tokencache
from tokencache._proto import status_pb2, token_pb2
from tokencache._rules import error_code

PACKAGE = Path(__file__).resolve().parent.parent


def _tool(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=PACKAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_are_right(tmp_path: Path) -> None:
    _tool("mypy", "--cache-dir", str(tmp_path))


def test_the_style_is_right() -> None:
    _tool("ruff", "check", "--no-cache", ".")
    _tool("ruff", "format", "--no-cache", "--check", ".")


def test_the_stubs_are_those_of_the_proto_files(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", PACKAGE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    output = tmp_path / "descriptors"
    # What is compared does not depend on protoc's version, other than the text of the stubs.
    generate.compile_to([f"--descriptor_set_out={output}"])
    files = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file
    for current, module in zip(files, [status_pb2, token_pb2]):
        for message in current.message_type:
            _without_json_names(message)
        checked_in = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(checked_in)
        for message in checked_in.message_type:
            _without_json_names(message)
        assert current == checked_in, "run generate.py"


def _without_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _without_json_names(nested)


def test_each_file_begins_with_its_purpose() -> None:
    for path in [*PACKAGE.glob("src/tokencache/*.py"), *PACKAGE.glob("tests/*.py")]:
        assert path.read_text(encoding="utf-8").startswith('"""'), path


@pytest.fixture
def token() -> tokencache.Token:
    now = datetime.now(timezone.utc)
    attributes = {"sid": "s3cr3t"}
    return tokencache.Token(tokencache.Secret("s3cr3t"), "Bearer", now, now, ("a",), 7, "0123456789abcdef", attributes)


def test_nothing_shows_a_secret(token: tokencache.Token) -> None:
    from tokencache.httpx import TokenAuth as HttpxAuth
    from tokencache.requests import TokenAuth as RequestsAuth

    client = tokencache.Client(api_key="s3cr3t")
    source = tokencache.TokenSource(client, "ci")
    response = tokencache.TokenResponse(token, tokencache.Freshness.VERIFIED, None)
    event = tokencache.TokenEvent(tokencache.Selector("ci"), token)
    shown = [
        token, token.access_token, token.authorization(), response, event, client, source, HttpxAuth(source),
        RequestsAuth(source),
    ]  # fmt: skip
    for value in shown:
        for text in (repr(value), str(value), f"{value}", f"{value!s}", f"{[value]}"):
            assert "s3cr3t" not in text
    assert "0123456789abcdef" in repr(token)


def test_a_secret_is_not_pickled(token: tokencache.Token) -> None:
    for pickled in (token.access_token, token):
        with pytest.raises(TypeError):
            pickle.dumps(pickled)
    with pytest.raises(TypeError):
        json.dumps(token.access_token)


def test_an_error_survives_pickling() -> None:
    error = tokencache.UnavailableError("down", reason="UPSTREAM_DOWN", retry_after=1.5)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.reason, copy.retry_after, str(copy)) == (type(error), "UPSTREAM_DOWN", 1.5, "down")


def test_a_storm_of_rejections_is_not_transient() -> None:
    assert not tokencache.ThrottledError("no", reason="TOO_MANY_INVALIDATIONS").is_transient
    assert tokencache.ThrottledError("no", reason="TOO_MANY_REQUESTS").is_transient


@pytest.mark.parametrize(
    ("challenge", "code"),
    [
        ('Bearer realm="api", error="invalid_token"', "invalid_token"),
        ("Bearer error=invalid_token", "invalid_token"),
        ('Bearer error_description="error=x"', ""),
        ('Bearer error="two words"', ""),
        ("Basic", ""),
        (None, ""),
    ],
)
def test_the_code_of_a_challenge_is_read(challenge: str, code: str) -> None:
    assert error_code(challenge) == code
