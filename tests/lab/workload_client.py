"""Opens connections to a Service at a steady pace, each with one HTTP request, and tells which were not answered.

python workload_client.py ADDRESS PORT RATE SECONDS [TIMEOUT]

Prints "begun" when it begins, and in the end one JSON object: sent, pods (answers by pod), slow (answers that took so
long that a packet must have been sent again), lost, errors (the first of them: when and what).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter


async def request(address: str, port: int) -> str:
    """The pod that answers. Raises OSError, ValueError or EOFError if none does as it should."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"answer {head[:40]!r}")
        return str(json.loads(body)["pod"])
    finally:
        writer.close()


async def main(address: str, port: int, rate: float, seconds: float, timeout: float = 5.0) -> None:
    """One request each 1/rate seconds, whatever becomes of those before it."""
    pods: Counter[str] = Counter()
    errors: list[str] = []
    slow: list[str] = []
    began = time.monotonic()

    async def one() -> None:
        at = time.monotonic() - began
        try:
            pod = await asyncio.wait_for(request(address, port), timeout)
            pods[pod] += 1
            took = time.monotonic() - began - at
            if took > 0.9:
                slow.append(f"{at:.2f} s: {pod} {took:.2f} s")
        except (OSError, ValueError, EOFError, TimeoutError) as error:
            errors.append(f"{at:.2f} s: {type(error).__name__} {error}")

    print("begun", flush=True)
    tasks = []
    for i in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + i / rate - time.monotonic()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    found = {"sent": len(tasks), "pods": pods, "slow": slow[:10], "lost": len(errors), "errors": errors[:10]}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])))
