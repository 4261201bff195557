"""Regenerates the stubs in `src/tokencache/_proto` from the repository's `.proto` files.

Run it with the oldest protobuf that the package supports, whose output newer ones still load:

    python3 -m venv venv && venv/bin/pip install grpcio-tools==1.59.5 && venv/bin/python generate.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKEN_PROTO = HERE.parent.parent / "proto" / "tokencache" / "v1" / "token.proto"
STATUS_PROTO = HERE / "proto" / "status.proto"
OUTPUT = HERE / "src"
FILES = ["tokencache/_proto/status.proto", "tokencache/_proto/token.proto"]


def rewritten() -> dict[str, str]:
    """Return the `.proto` files as they are compiled.

    Names of the package's own, as a process has one registry of message names: a program that compiles `token.proto`
    itself, or imports google.rpc, would otherwise collide with this package. Names are not on the wire.
    """
    token = TOKEN_PROTO.read_text(encoding="utf-8")
    for old, new in [
        ("package tokencache.v1;", "package tokencache.python.v1;"),
        ('import "google/rpc/status.proto";', 'import "tokencache/_proto/status.proto";'),
        ("google.rpc.Status unavailable", "Status unavailable"),
    ]:
        if token.count(old) != 1:
            raise SystemExit(f"{TOKEN_PROTO.name} does not say {old!r} just once")
        token = token.replace(old, new)
    return {FILES[0]: STATUS_PROTO.read_text(encoding="utf-8"), FILES[1]: token}


def compile_to(arguments: list[str]) -> None:
    """Run protoc over the rewritten files."""
    from importlib import resources

    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as root:
        for name, text in rewritten().items():
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        well_known = str(resources.files("grpc_tools") / "_proto")
        if protoc.main(["protoc", f"-I{root}", f"-I{well_known}", *arguments, *FILES]) != 0:
            raise SystemExit("protoc failed")


if __name__ == "__main__":
    compile_to([f"--python_out={OUTPUT}", f"--pyi_out={OUTPUT}"])
    sys.stdout.write("src/tokencache/_proto is written\n")
