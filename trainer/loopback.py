"""A listening socket for the small servers of this package; port 0 takes a free one and tells which."""

from __future__ import annotations

import socket

from trainer.errors import TrainerError


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        TrainerError: the host is unknown, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise TrainerError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another --port"
        ) from None
    return listener
