"""Requests as bytes, and answers as they came."""

from __future__ import annotations

import re
import socket

from harness import Server

ANSWER_SECONDS = 30.0


def connect(server: Server) -> socket.socket:
    """A connection to a server."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(ANSWER_SECONDS)
    return connection


def receive(connection: socket.socket) -> bytes:
    """One answer, head and body; b"" when the connection ends before it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return head
        head += byte
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
    body = b""
    while length and len(body) < int(length[1]):
        piece = connection.recv(int(length[1]) - len(body))
        if not piece:
            break
        body += piece
    return head + body


def ask(server: Server, request: bytes) -> bytes:
    """The answer to one request on a connection of its own."""
    with connect(server) as connection:
        connection.sendall(request)
        return receive(connection)


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """A request as clients write it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: lab.example.org", *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def status_of(answer: bytes) -> int:
    """The status of an answer; 0 for none."""
    return int(answer.split(b" ", 2)[1]) if answer else 0
