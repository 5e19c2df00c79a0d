"""A TCP relay in front of a server that can inject faults: refuse, stall, answer 500, or lose the answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter


class FaultProxy:
    """Listens on a free port. `mode`: pass, refuse, stall, error (answers 500), lose (the answer, not the request)."""

    def __init__(self, target_port: int) -> None:
        self.mode = "pass"
        self.connections: Counter[str] = Counter()  # connections by mode
        self._target_port = target_port
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        mode = self.mode
        self.connections[mode] += 1
        with client, contextlib.suppress(OSError):
            client.settimeout(60)
            if mode == "refuse":
                return
            if mode == "stall":
                while self.mode == "stall" and not self._closed.wait(0.05):
                    pass
                return
            request = _request(client)
            while request:
                if self.mode == "error":
                    client.sendall(b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
                    return
                answer = self._forward(request)
                if self.mode == "lose":
                    return
                client.sendall(answer)
                return  # one request per connection, so that a new mode applies at once

    def _forward(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._target_port), 60) as server:
            head, _, body = request.partition(b"\r\n\r\n")
            server.sendall(head + b"\r\nconnection: close\r\n\r\n" + body)
            answer = b""
            while piece := server.recv(65536):
                answer += piece
            return answer


def _request(client: socket.socket) -> bytes:
    content = b""
    while b"\r\n\r\n" not in content:
        piece = client.recv(65536)
        if not piece:
            return b""
        content += piece
    head, _, body = content.partition(b"\r\n\r\n")
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:"))
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        piece = client.recv(65536)
        if not piece:
            return b""
        body += piece
    return head + b"\r\n\r\n" + body
