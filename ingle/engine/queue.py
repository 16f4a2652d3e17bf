"""Who is admitted next: by priority, then in turn between clients, then by arrival.

Clients (one per API key) take turns by what they have been given: the one that has been served the
fewest tokens is next, as in arXiv 2401.00588. So a thousand requests of one client delay another's
single one by no more than what is running. Who comes back after a pause starts level with the
others, not with a credit from the time away.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

from ingle.engine.sequence import Sequence

_MOST_IDLE = 1024  # clients without a request whose account is kept


class WaitingLine:
    """The waiting sequences, and how many tokens each client has been served."""

    def __init__(self) -> None:
        self._lines: dict[int, dict[bytes, deque[Sequence]]] = {}  # by priority and client
        self._served: dict[bytes, int] = {}  # of clients with a live request
        self._idle: OrderedDict[bytes, int] = OrderedDict()  # of those that left, oldest first
        self._clients: Counter[bytes] = Counter()  # live requests: waiting or running
        self._priorities: Counter[int] = Counter()
        self._floor = 0  # the account of whoever left last

    @property
    def uniform(self) -> bool:
        """Whether all live requests are of one client and one priority, so that arrival decides."""
        return len(self._clients) <= 1 and len(self._priorities) <= 1

    def enter(self, sequence: Sequence) -> None:
        """Take in a new request, behind those of its client."""
        request = sequence.request
        client = request.client
        if client not in self._clients:
            level = min(self._served.values(), default=self._floor)
            self._served[client] = max(self._idle.pop(client, 0), level)
        self._clients[client] += 1
        self._priorities[request.priority] += 1
        self._line(sequence).append(sequence)

    def leave(self, sequence: Sequence, waits: bool) -> None:
        """Forget a request for good, one that waits or one that runs."""
        request = sequence.request
        if waits:
            self._line(sequence).remove(sequence)
            self._tidy(sequence)
        self._priorities -= Counter((request.priority,))  # keeps what is above zero
        self._clients -= Counter((request.client,))
        if request.client not in self._clients:
            self._floor = self._idle[request.client] = self._served.pop(request.client)
            if len(self._idle) > _MOST_IDLE:
                self._idle.popitem(last=False)

    @property
    def best_rank(self) -> tuple[int, int] | None:
        """The rank of whoever is next, None where nobody waits."""
        return self.rank(self._next()) if self._lines else None

    def pop(self) -> Sequence:
        """Take out whoever is next; somebody must be waiting."""
        sequence = self._next()
        self._line(sequence).popleft()
        self._tidy(sequence)
        return sequence

    def put_back(self, sequence: Sequence) -> None:
        """Put a sequence in front of the others of its client and priority."""
        self._line(sequence).appendleft(sequence)

    def serve(self, sequence: Sequence, tokens: int) -> None:
        """Put tokens on the account of a sequence's client."""
        self._served[sequence.request.client] += tokens

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        """The smaller, the more a sequence is to be favoured."""
        request = sequence.request
        return request.priority, self._served[request.client]

    def _next(self) -> Sequence:
        clients = self._lines[min(self._lines)]
        client = min(clients, key=lambda name: (self._served[name], clients[name][0].submitted))
        return clients[client][0]

    def _line(self, sequence: Sequence) -> deque[Sequence]:
        request = sequence.request
        return self._lines.setdefault(request.priority, {}).setdefault(request.client, deque())

    def _tidy(self, sequence: Sequence) -> None:
        """Drop the line of a sequence where it has become empty."""
        request = sequence.request
        clients = self._lines[request.priority]
        if not clients[request.client]:
            del clients[request.client]
        if not clients:
            del self._lines[request.priority]
