"""Students in service, on loopback."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

sys.path.insert(0, str(Path(__file__).parent))

import small_students

from trainer.loopback import bind
from trainer.rollout.patient_protocol import PatientProtocol
from trainer.serve.load import open_server
from trainer.serve.messages_server import MessagesServer


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF that knows a few conversations by heart."""
    return small_students.knowing_by_heart(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF that can never end a turn."""
    return small_students.endless(tmp_path_factory.mktemp("endless"))


class Served:
    """A server in a thread."""

    def __init__(self, server: MessagesServer) -> None:
        self._listener = bind("127.0.0.1", 0)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        settings = uvicorn.Config(server.app(), http=PatientProtocol, log_level="critical", server_header=False)
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})

    @contextmanager
    def running(self) -> Iterator[Served]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.should_exit = True
            self._thread.join(60)
            self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts a server for a GGUF; options as those of `open_server`."""
    with ExitStack() as stack:

        def start(path: Path, **options: Any) -> Served:
            opened = stack.enter_context(open_server(path, threads=1, **options))
            return stack.enter_context(Served(opened.server).running())

        yield start


@pytest.fixture(scope="module")
def served(student: Path) -> Iterator[Served]:
    """The student, with two slots."""
    with open_server(student, threads=1) as opened, Served(opened.server).running() as running:
        yield running
