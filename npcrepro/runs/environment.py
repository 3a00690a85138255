"""Versions and machine that a run was made with."""

import importlib.metadata
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

from npcrepro.base.code_hash import PACKAGE

PACKAGES = ("npcrepro", "torch", "lightning-fabric", "numpy", "scipy", "pandas", "SimpleITK", "safetensors")


def environment() -> dict:
    """Versions, machine and commit, for ``provenance.json``; ``None`` for what is not known."""
    import torch

    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    processor, commit = platform.processor(), None
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    with suppress(OSError, subprocess.CalledProcessError):
        _git("ls-files", "--error-unmatch", str(PACKAGE / "__init__.py"))  # not a commit of what merely lies around it
        commit = _git("rev-parse", "HEAD") + ("-dirty" if _git("status", "--porcelain", "--", str(PACKAGE)) else "")
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "threads": torch.get_num_threads(),
        "git_commit": commit,
    }


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
