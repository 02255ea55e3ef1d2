"""Every byte that goes over the loopback interface, by the ports it goes between. Needs root (CAP_NET_RAW)."""

from __future__ import annotations

import socket
import struct
import threading
from collections import defaultdict
from types import TracebackType
from typing import Final, Self

_ETH_P_ALL: Final = 3
_ETHERNET: Final = 14
_TCP: Final = 6
_BUFFER_BYTES: Final = 256 * 1024 * 1024
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_LARGEST: Final = 256 * 1024


class Recorder:
    """Records between entering and leaving. `streams` are the bytes of each direction of each connection, by (from
    port, to port); a connection that was there before is recorded from then on."""

    def __init__(self) -> None:
        self.streams: dict[tuple[int, int], bytearray] = defaultdict(bytearray)
        self.dropped = 0
        self._expected: dict[tuple[int, int], int] = {}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind(("lo", _ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._reading = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reading.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._reading.join()
        _, self.dropped = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._socket.close()

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                packet, (_, _, kind, _, _) = self._socket.recvfrom(_LARGEST)
            except TimeoutError:
                continue
            if kind == socket.PACKET_OUTGOING:  # Each packet of this interface is seen as it goes and as it comes.
                self._take(packet[_ETHERNET:])

    def _take(self, packet: bytes) -> None:
        if packet[0] >> 4 != 4 or packet[9] != _TCP:
            return
        segment = packet[(packet[0] & 0x0F) * 4 :]
        source, target, number = struct.unpack("!HHI", segment[:8])
        payload = segment[(segment[12] >> 4) * 4 :]
        stream = (source, target)
        if not payload or number < self._expected.get(stream, number):
            return  # Nothing, or sent again.
        self._expected[stream] = number + len(payload)
        self.streams[stream] += payload

    def of_port(self, port: int) -> list[bytes]:
        """Both directions of every connection to a server's port."""
        return [bytes(text) for ends, text in self.streams.items() if port in ends]
