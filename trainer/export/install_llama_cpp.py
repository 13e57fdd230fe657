"""Builds llama-cpp-python from its sdist the quick way and installs it. Standard library only.

    python trainer/export/install_llama_cpp.py 0.3.36 [--cache DIR]

As it comes, the sdist builds every tool and example (about 11 minutes on 2 cores). Only `libllama` and its
ggml libraries are needed here: they are built with plain CMake (about 100 s), the pure-Python wheel is made
with `-DLLAMA_BUILD=OFF`, and the libraries are put into that wheel, so that one file holds everything. The
wheel is kept in the cache folder; a second install only unpacks it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

CMAKE_FLAGS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=OFF",  # portable: the wheel may be cached on one machine and used on another
    "-DLLAMA_BUILD_COMMON=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=" + ("@loader_path" if sys.platform == "darwin" else "$ORIGIN"),
]


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/claude-capture/wheels`, else below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "claude-capture" / "wheels"


def run(command: list[str], **environment: str) -> None:
    """Runs a build step with its output in a log that is shown only if the step fails."""
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace")[-4000:])
        raise SystemExit(f"install_llama_cpp: {' '.join(command[:3])} … failed with exit status {done.returncode}")


def holds_library(wheel: Path) -> bool:
    """True where the wheel brings its own libllama; a wheel without it installs, but cannot be imported."""
    with zipfile.ZipFile(wheel) as archive:
        return any(Path(name).name.startswith("libllama.") for name in archive.namelist())


def download_source(version: str, folder: Path) -> Path:
    """Fetches the sdist, which brings llama.cpp's own source and converters, and returns its path."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wanted = ["--no-deps", "--no-binary", ":all:", "-d", str(folder), f"llama-cpp-python=={version}"]
    run([*pip, "download", *wanted], CMAKE_ARGS="-DLLAMA_BUILD=OFF")
    return next(folder.glob("llama_cpp_python-*.tar.gz"))


def build_wheel(version: str, cache: Path) -> Path:
    """Builds the wheel in a scratch folder and moves it into `cache` under its final name."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        print(f"fetching the source of llama-cpp-python {version}", flush=True)
        with tarfile.open(download_source(version, top)) as archive:
            archive.extractall(top, filter="data") if sys.version_info >= (3, 12) else archive.extractall(top)
        source = next(p for p in top.glob("llama_cpp_python-*") if p.is_dir())
        build = top / "build"
        jobs = str(os.cpu_count() or 2)
        print(f"building libllama with {jobs} jobs (about 100 s on 2 cores, once)", flush=True)
        run(["cmake", "-S", str(source / "vendor" / "llama.cpp"), "-B", str(build), *CMAKE_FLAGS])
        run(["cmake", "--build", str(build), "--target", "llama", "-j", jobs])
        package = source / "llama_cpp" / "lib"
        package.mkdir(exist_ok=True)
        suffix = ".dylib" if sys.platform == "darwin" else ".so"
        for library in sorted((build / "bin").glob(f"lib*{suffix}*")):
            shutil.copy2(library, package / library.name)  # follows links: a wheel cannot hold them
        (source / ".gitignore").unlink(missing_ok=True)  # it names lib/, and scikit-build leaves out what it names
        print("packing the wheel", flush=True)
        run([*pip, "wheel", "--no-deps", "-w", str(top / "out"), str(source)], CMAKE_ARGS="-DLLAMA_BUILD=OFF")
        wheel = next((top / "out").glob("*.whl"))
        if not holds_library(wheel):
            raise SystemExit(f"install_llama_cpp: {wheel.name} was packed without libllama; nothing was installed")
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / (wheel.name + ".partial")
        shutil.copy2(wheel, partial)
        partial.rename(cache / wheel.name)
        return cache / wheel.name


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("version", help="version of llama-cpp-python, as pinned in constraints.txt")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder that keeps the built wheel")
    arguments = parser.parse_args()
    if shutil.which("cmake") is None:
        raise SystemExit("install_llama_cpp: cmake is not on the PATH; install it (Debian: apt-get install cmake)")
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    known = sorted(arguments.cache.glob(f"llama_cpp_python-{arguments.version}-*.whl"))
    wheel = next((w for w in known if (tag in w.name or "py3-none" in w.name) and holds_library(w)), None)
    wheel = wheel or build_wheel(arguments.version, arguments.cache)
    constraint = Path(__file__).parents[2] / "constraints.txt"
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    run([*pip, "-c", str(constraint), "--force-reinstall", "--no-deps", str(wheel)])  # replaces one without libllama
    run([*pip, "-c", str(constraint), str(wheel)])
    run([sys.executable, "-c", "import llama_cpp"])
    print(f"llama-cpp-python {arguments.version} installed from {wheel}", flush=True)


if __name__ == "__main__":
    main()
