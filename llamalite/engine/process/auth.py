"""Proof that both ends of a connection know the same secret, which itself is never sent.

Each end sends a random challenge and answers the other's with an HMAC of it. Owns this exchange.
Imports the standard library and `llamalite.errors`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import time

from llamalite.errors import EngineError

SECRET_BYTES = 32
LIMIT_S = 5.0
"""Longest an exchange may take."""

_MAGIC = b"llamalite/1\n"
_NONCE_BYTES = 32
_PROOF_BYTES = hashlib.sha256().digest_size


def new_secret() -> bytes:
    """Return a secret that can't be guessed."""
    return os.urandom(SECRET_BYTES)


def admit(connection: socket.socket, secret: bytes) -> bool:
    """Let a client prove itself, then prove ourselves; False if it can't.

    Raises:
        OSError: the connection broke, or it took too long.
    """
    deadline = time.monotonic() + LIMIT_S
    ours = os.urandom(_NONCE_BYTES)
    _send(connection, _MAGIC + ours, deadline)
    answer = _receive(connection, _NONCE_BYTES + _PROOF_BYTES, deadline)
    theirs, proof = answer[:_NONCE_BYTES], answer[_NONCE_BYTES:]
    if not hmac.compare_digest(proof, _proof(secret, b"client", ours, theirs)):
        return False
    _send(connection, _proof(secret, b"server", theirs, ours), deadline)
    connection.settimeout(None)
    return True


def introduce(connection: socket.socket, secret: bytes) -> None:
    """Prove ourselves to a server and let it prove itself.

    Raises:
        EngineError: it is no engine of llamalite, or doesn't know the secret.
        OSError: the connection broke, or it took too long.
    """
    deadline = time.monotonic() + LIMIT_S
    greeting = _receive(connection, len(_MAGIC) + _NONCE_BYTES, deadline)
    if not greeting.startswith(_MAGIC):
        raise EngineError(
            "what listens there is no engine of this llamalite: close the programs that use "
            "another version of it"
        )
    theirs, ours = greeting[len(_MAGIC) :], os.urandom(_NONCE_BYTES)
    _send(connection, ours + _proof(secret, b"client", theirs, ours), deadline)
    proof = _receive(connection, _PROOF_BYTES, deadline)
    if not hmac.compare_digest(proof, _proof(secret, b"server", ours, theirs)):
        raise EngineError("what listens there doesn't know the engine's secret: it is not used")
    connection.settimeout(None)


def _proof(secret: bytes, role: bytes, challenge: bytes, answer: bytes) -> bytes:
    return hmac.new(secret, role + challenge + answer, hashlib.sha256).digest()


def _send(connection: socket.socket, content: bytes, deadline: float) -> None:
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    connection.sendall(content)


def _receive(connection: socket.socket, n_bytes: int, deadline: float) -> bytes:
    # NOTE: never a byte more, as what follows belongs to whoever reads messages.
    received = b""
    while len(received) < n_bytes:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(n_bytes - len(received))
        if not part:
            raise ConnectionResetError("it hung up instead of proving that it knows the secret")
        received += part
    return received
