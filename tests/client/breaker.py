"""A network between client and server that loses what a test wants lost."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

RESET = struct.pack("ii", 1, 0)


class Breaker:
    """Passes every connection on to a server, but resets those whose answer is to be lost."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._lost: list[str] = []
        self._lock = threading.Lock()
        self.seen: list[str] = []
        """The request lines of everything that was passed on."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def lose_answer(self, beginning: str) -> None:
        """The server executes the next request whose line begins so, and nobody hears of it."""
        with self._lock:
            self._lost.append(beginning)

    @property
    def all_lost(self) -> bool:
        """Whether everything that was to be lost is."""
        with self._lock:
            return not self._lost

    def stop(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(connection,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            first = client.recv(65536)
            line = first.split(b"\r\n", 1)[0].decode()
            with socket.create_connection(("127.0.0.1", self._server_port)) as server:
                server.sendall(first)
                upwards = threading.Thread(target=self._copy, args=(client, server), daemon=True)
                upwards.start()
                answer = server.recv(65536)
                with self._lock:
                    self.seen.append(line)
                    lost = next((beginning for beginning in self._lost if line.startswith(beginning)), None)
                    if lost is not None:
                        self._lost.remove(lost)
                if lost is not None:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    client.shutdown(socket.SHUT_RDWR)  # another thread reads from it, so that closing is not enough
                    return
                while answer:
                    client.sendall(answer)
                    answer = server.recv(65536)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
