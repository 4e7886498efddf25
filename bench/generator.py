"""Stands in for wrk: the same request on kept connections, over bare sockets, on one thread.

python generator.py URL CONNECTIONS SECONDS '{"method": "GET", "headers": {}}'
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit


async def read_answer(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end; returns its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def ask(url: str, method: str, headers: dict[str, str], deadline: float) -> tuple[list[float], int]:
    """Ask until the deadline; returns milliseconds of each answer, and how many were no success."""
    parts = urlsplit(url)
    lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *(f"{key}: {headers[key]}" for key in headers)]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    times, errors = [], 0
    while (began := time.perf_counter()) < deadline:
        writer.write(request)
        errors += await read_answer(reader) >= 300
        times.append((time.perf_counter() - began) * 1000)
    writer.close()
    return times, errors


async def main() -> None:
    url, connections, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    request = json.loads(sys.argv[4])
    began = time.perf_counter()
    asked = [ask(url, request["method"], request["headers"], began + seconds) for _ in range(connections)]
    found = await asyncio.gather(*asked)
    elapsed = time.perf_counter() - began
    times = sorted(one for some, _ in found for one in some)
    result = {
        "requests": len(times),
        "seconds": elapsed,
        "p50": times[len(times) // 2],
        "p99": times[int(len(times) * 0.99)],
        "worst": times[-1],
        "errors": sum(errors for _, errors in found),
    }
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
