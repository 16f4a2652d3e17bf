"""Attempts with sockets: new ones of every kind, and those that a program may already hold."""

from __future__ import annotations

import ctypes
import socket
from struct import pack
from typing import Any

from ingle.privacy.attempt import Attack, Field, each
from ingle.privacy.syscalls import call

_UDPLITE, _MPTCP, _SCTP = 136, 262, 132
_FASTOPEN = 0x20000000
_LOOPBACK = "127.0.0.1"
_FAMILIES = 46
_WAIT = 0.5


def _connect(field: Field, family: int, protocol: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM, protocol) as one:
        one.settimeout(_WAIT)
        one.connect(address)
        one.sendall(field.mark)


def _send(field: Field, family: int, protocol: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as one:
        one.sendto(field.mark, address)


def tcp4(field: Field) -> None:
    """a TCP connection over IPv4"""
    _connect(field, socket.AF_INET, 0, (_LOOPBACK, field.at.tcp4))


def tcp6(field: Field) -> None:
    """a TCP connection over IPv6"""
    _connect(field, socket.AF_INET6, 0, ("::1", field.at.tcp6))


def tcp_own_address(field: Field) -> None:
    """a TCP connection to the address other machines see"""
    _connect(field, socket.AF_INET, 0, (field.at.own_address, field.at.own_port))


def mptcp(field: Field) -> None:
    """a Multipath TCP connection, which Landlock does not know"""
    _connect(field, socket.AF_INET, _MPTCP, (_LOOPBACK, field.at.tcp4))


def udp4(field: Field) -> None:
    """a datagram over IPv4"""
    _send(field, socket.AF_INET, 0, (_LOOPBACK, field.at.udp4))


def udp6(field: Field) -> None:
    """a datagram over IPv6"""
    _send(field, socket.AF_INET6, 0, ("::1", field.at.udp6))


def udplite(field: Field) -> None:
    """a datagram by UDP-Lite"""
    _send(field, socket.AF_INET, _UDPLITE, (_LOOPBACK, field.at.udplite))


def udp_connected(field: Field) -> None:
    """a datagram on a connected socket"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((_LOOPBACK, field.at.udp4))
        one.send(field.mark)


def udp_message(field: Field) -> None:
    """a datagram by sendmsg, its address behind a pointer"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendmsg([field.mark], [], 0, (_LOOPBACK, field.at.udp4))


def udp_messages(field: Field) -> None:
    """a datagram by sendmmsg, as name servers are asked"""
    to = pack("=H", socket.AF_INET) + pack(">H", field.at.udp4) + socket.inet_aton(_LOOPBACK)
    address = ctypes.create_string_buffer(to + bytes(8))
    text = ctypes.create_string_buffer(field.mark)
    vector = ctypes.create_string_buffer(pack("@PN", ctypes.addressof(text), len(field.mark)))
    message = pack("@PIPNPNiI", ctypes.addressof(address), 16, ctypes.addressof(vector), 1, 0, 0,
                   0, 0)  # fmt: skip
    call("sendmmsg", field.bait["datagram"], ctypes.create_string_buffer(message + bytes(8)), 1, 0)


def fast_open(field: Field) -> None:
    """data with the first packet of a new TCP socket (Fast Open)"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.sendto(field.mark, _FASTOPEN, (_LOOPBACK, field.at.tcp4))


def fast_open_by_message(field: Field) -> None:
    """the same by sendmsg, on the listening socket, shut down for it"""
    with field.socket("listener") as one:
        one.shutdown(socket.SHUT_RDWR)
        one.sendmsg([field.mark], [], _FASTOPEN, (_LOOPBACK, field.at.tcp4))


def fast_open_on_listener(field: Field) -> None:
    """Fast Open by sendto on the listening socket, shut down for it"""
    with field.socket("listener") as one:
        one.shutdown(socket.SHUT_RDWR)
        one.sendto(field.mark, _FASTOPEN, (_LOOPBACK, field.at.tcp4))


def fast_open_on_accepted(field: Field) -> None:
    """Fast Open on a connection that a client opened"""
    with field.socket("accepted") as one:
        one.sendto(field.mark, _FASTOPEN, (_LOOPBACK, field.at.tcp4))
    raise ConnectionError("the client gets what is sent, nobody else")


def fast_open_without_address(field: Field) -> None:
    """the flag of Fast Open without an address"""
    with field.socket("accepted") as one:
        one.send(field.mark, _FASTOPEN)


def _turn(field: Field, name: str) -> None:
    with field.socket(name) as one:
        call("connect", one.fileno(), pack("=H14x", socket.AF_UNSPEC), 16)
        one.settimeout(_WAIT)
        one.connect((_LOOPBACK, field.at.tcp4))
        one.sendall(field.mark)


def accepted_turned(field: Field) -> None:
    """a client's connection, disconnected and connected elsewhere"""
    _turn(field, "accepted")


def listener_turned(field: Field) -> None:
    """the listening socket, disconnected and connected elsewhere"""
    _turn(field, "listener")


def left_datagram(field: Field) -> None:
    """a datagram socket that another program handed over, by sendto"""
    with field.socket("datagram") as one:
        one.sendto(field.mark, (_LOOPBACK, field.at.udp4))


def left_datagram_connected(field: Field) -> None:
    """the same, connected"""
    with field.socket("datagram") as one:
        one.connect((_LOOPBACK, field.at.udp4))
        one.send(field.mark)


def source_route(field: Field) -> None:
    """a route over another machine for the replies to a client (IP option)"""
    with field.socket("accepted") as one:
        loose = b"\x83\x0b\x04" + 2 * socket.inet_aton(_LOOPBACK) + b"\0"
        one.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, loose)


def other_protocol(field: Field) -> None:
    """another protocol on a client's connection (TCP_ULP)"""
    with field.socket("accepted") as one:
        one.setsockopt(socket.IPPROTO_TCP, 31, b"tls")


def option_by_number(field: Field) -> None:
    """the numbers of allowed options, at the level of IP"""
    with field.socket("accepted") as one:
        each(lambda option: one.setsockopt(socket.IPPROTO_IP, option, 0), range(1, 14))


def other_device(field: Field) -> None:
    """the replies to a client over another network device"""
    with field.socket("accepted") as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")


def listen_anew(field: Field) -> None:
    """a second listening socket, to be asked from outside"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.bind((_LOOPBACK, 0))
        one.listen()


def bind_left(field: Field) -> None:
    """a bound address for a socket that was handed over"""
    with field.socket("datagram") as one:
        one.bind((_LOOPBACK, 0))


def name_server(field: Field) -> None:
    """the address of a host name, asked of a name server"""
    socket.getaddrinfo(b"ingle-prove.invalid", 80)  # bytes: no codec is to be loaded


def _open(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def sctp(field: Field) -> None:
    """an SCTP socket"""
    _open(socket.AF_INET, socket.SOCK_STREAM, _SCTP)


def raw(field: Field) -> None:
    """a raw IP socket"""
    _open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def ping(field: Field) -> None:
    """an ICMP socket"""
    _open(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


def packet(field: Field) -> None:
    """a packet socket, below IP"""
    _open(socket.AF_PACKET, socket.SOCK_RAW)


def netlink(field: Field) -> None:
    """a netlink socket to the kernel's network settings"""
    _open(socket.AF_NETLINK, socket.SOCK_RAW)


def vsock(field: Field) -> None:
    """a socket to the hypervisor"""
    _open(40, socket.SOCK_STREAM)


def every_family(field: Field) -> None:
    """a socket of any other family and kind"""
    kinds = [(family, kind) for family in range(_FAMILIES) for kind in range(1, 7)]
    each(lambda one: _open(*one), kinds)


def _placed(field: Field, where: int) -> None:
    """Send to an address that lies at a chosen place in memory."""
    to = pack("=H", socket.AF_INET) + pack(">H", field.at.udp4) + socket.inet_aton(_LOOPBACK)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size, read_write, fixed = 4096, 3, 0x100022  # private, anonymous, exactly there
    got = libc.mmap(ctypes.c_void_p(where), size, read_write, fixed, -1, ctypes.c_long(0))
    if got != where:
        raise MemoryError("that place is taken")
    ctypes.memmove(where, to + bytes(8), 16)
    text = ctypes.create_string_buffer(field.mark)
    call("sendto", field.bait["datagram"], text, len(field.mark), 0, where, 16)


def address_low_in_memory(field: Field) -> None:
    """a datagram whose address lies in the first 4 GB, the upper half of its place being zero"""
    _placed(field, 0x20000000)


def address_at_round_place(field: Field) -> None:
    """a datagram whose address lies at a place with a lower half of zero"""
    _placed(field, 0x3B00000000)


NETWORK = (
    Attack("TCP, IPv4", tcp4),
    Attack("TCP, IPv6", tcp6),
    Attack("TCP, own address", tcp_own_address),
    Attack("MPTCP", mptcp),
    Attack("UDP, IPv4", udp4),
    Attack("UDP, IPv6", udp6),
    Attack("UDP-Lite", udplite),
    Attack("UDP, connected", udp_connected),
    Attack("UDP, sendmsg", udp_message),
    Attack("UDP, sendmmsg", udp_messages, bait=True),
    Attack("Fast Open, new", fast_open),
    Attack("Fast Open, sendmsg", fast_open_by_message, bait=True),
    Attack("Fast Open, listener", fast_open_on_listener, bait=True),
    Attack("Fast Open, accepted", fast_open_on_accepted, bait=True),
    Attack("Fast Open, flag alone", fast_open_without_address, bait=True),
    Attack("accepted, turned", accepted_turned, bait=True),
    Attack("listener, turned", listener_turned, bait=True),
    Attack("datagram left open", left_datagram, bait=True),
    Attack("address below 4 GB", address_low_in_memory, bait=True),
    Attack("address at 4 GB", address_at_round_place, bait=True),
    Attack("datagram left open, connected", left_datagram_connected, bait=True),
    Attack("source route", source_route, bait=True),
    Attack("protocol of a connection", other_protocol, bait=True),
    Attack("option at another level", option_by_number, bait=True),
    Attack("device of a connection", other_device, bait=True),
    Attack("listen anew", listen_anew),
    Attack("bind", bind_left, bait=True),
    # with the seal off it would really ask the name server of this machine
    Attack("DNS", name_server, ("gaierror",), control=False),
    Attack("SCTP", sctp),
    Attack("raw IP", raw),
    Attack("ICMP", ping),
    Attack("packet", packet),
    Attack("netlink", netlink),
    Attack("vsock", vsock),
    Attack("every other family", every_family),
)
