"""The rules of the seal: which system calls are refused, and why.

A list of what is refused, not of what is allowed: torch and Python may use what they like of the
kernel, as long as it leads to no one else. What a call sent behind a pointer cannot be seen here,
so a kind of socket whose calls carry addresses behind pointers must not exist in the process at
all: hence only stream pairs, and the check of descriptors in `descriptors.py`.
"""

from __future__ import annotations

from typing import Literal

from ingle.privacy.bpf import ENOSYS, Rule, Test

Profile = Literal["sealed", "private-net"]
Starts = Literal["nothing", "children", "programs"]

AF_UNIX, AF_INET, AF_INET6, SOCK_STREAM, IPPROTO_TCP = 1, 2, 10, 1, 6
AF_NETLINK, SOCK_RAW, NETLINK_ROUTE = 16, 3, 0
MSG_FASTOPEN = 0x20000000
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD = 0x5412, 0x541C, 0x541D, 0x5423
PR_SET_DUMPABLE, PR_SET_PTRACER = 4, 0x59616D61
# what servers set: SO_REUSEADDR, SO_KEEPALIVE, SO_LINGER; TCP_NODELAY, TCP_CORK, TCP_KEEP*
_OPTIONS = {1: (2, 9, 13), IPPROTO_TCP: (1, 3, 4, 5, 6)}

_STREAM = Test(1, SOCK_STREAM, mask=0xF)
_NO_FASTOPEN = {
    name: Test(at, 0, mask=MSG_FASTOPEN) for name, at in (("sendto", 3), ("sendmsg", 2))
}
_NO_ADDRESS = (Test(4, 0), Test(4, 0, half=1))


def rules(profile: Profile, starts: Starts, pid: int, lists: bool = False) -> list[Rule]:
    """The filter of the process `pid`.

    starts: what it may start, all sealed like itself: "children" are forks that it may also stop
    (whom it signals is then Landlock's to limit), "programs" any program. lists: with private-net,
    the network's interfaces may be listed: gloo insists on it before it connects processes. That
    takes a netlink socket and a send with an address; with TCP sockets and stream pairs besides,
    such a send reaches the kernel only, which heeds no order but of CAP_NET_ADMIN (namespaces.py).
    """
    refused = [rule for rule in _ALWAYS if not (lists and rule.name == _ADDRESSED)]
    if profile == "sealed":
        options = tuple((Test(1, level), Test(2, option))
                        for level, named in _OPTIONS.items() for option in named)  # fmt: skip
        refused += [
            Rule("sockets", ("socket", "connect", "bind"), "no way to anyone new"),
            Rule("socket options", ("setsockopt",),
                 "source routes, other devices, other protocols", options),
        ]  # fmt: skip
    else:
        # its network is an empty one of its own (seal.py), so connecting leads to itself
        families = tuple((Test(0, family), _STREAM, Test(2, protocol))
                         for family in (AF_INET, AF_INET6)
                         for protocol in (0, IPPROTO_TCP))  # fmt: skip
        if lists:
            raw, route = Test(1, SOCK_RAW, mask=0xF), Test(2, NETLINK_ROUTE)
            families += ((Test(0, AF_NETLINK), raw, route),)
            refused.append(Rule("fast open by sendto", ("sendto",), "data with a TCP handshake",
                                ((_NO_FASTOPEN["sendto"],),)))  # fmt: skip
        refused.append(Rule("sockets", ("socket",), "only TCP, in a network of its own", families))
    if starts != "programs":
        everything = "everything it runs is loaded by then"
        refused.append(Rule("programs", ("execve", "execveat"), everything))
    if starts == "nothing":
        own = ((Test(0, pid),),)
        refused += [
            Rule("signals", ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
                 "a process can be told things by signals", own),
            Rule("signals by thread", ("tkill",), "as above; obsolete"),
        ]  # fmt: skip
    return refused


_ADDRESSED = "addressed sends"
_ALWAYS = (
    Rule(_ADDRESSED, ("sendto",), "a datagram, or data with a TCP handshake",
         ((*_NO_ADDRESS, _NO_FASTOPEN["sendto"]),)),
    Rule("fast open", ("sendmsg",), "data with a TCP handshake", ((_NO_FASTOPEN["sendmsg"],),)),
    Rule("many messages", ("sendmmsg",), "as above; nothing here uses it"),
    Rule("socket pairs", ("socketpair",), "a datagram pair sends to any path socket by sendmsg",
         ((Test(0, AF_UNIX), _STREAM),)),
    Rule("io_uring", ("io_uring_setup", "io_uring_enter", "io_uring_register"),
         "makes every other call unseen by the filter", error=ENOSYS),
    Rule("new kinds of clone", ("clone3",), "its flags are behind a pointer; libc falls back",
         error=ENOSYS),
    Rule("namespaces by clone", ("clone",), "another network, other rights",
         ((Test(0, 0, mask=NEW_NAMESPACES),),)),
    Rule("namespaces and mounts",
         ("setns", "unshare", "mount", "umount2", "pivot_root", "chroot", "move_mount", "fsopen",
          "fsconfig", "fsmount", "fspick", "open_tree", "open_tree_attr", "mount_setattr"),
         "another network, another view of the files"),
    Rule("other processes",
         ("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise",
          "process_mrelease", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kcmp"),
         "they are not sealed: their memory and sockets are ways out"),
    Rule("shared objects",
         ("add_key", "request_key", "keyctl", "mq_open", "mq_unlink", "msgget", "msgsnd", "msgrcv",
          "msgctl", "shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl"),
         "whoever has the name or number reads them"),
    Rule("the kernel",
         ("bpf", "perf_event_open", "userfaultfd", "fanotify_init", "syslog", "kexec_load",
          "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon",
          "swapoff", "acct", "quotactl", "quotactl_fd", "personality", "sethostname",
          "setdomainname", "settimeofday", "clock_settime", "iopl", "ioperm", "modify_ldt",
          "vhangup", "name_to_handle_at", "open_by_handle_at"),
         "settings of the machine, most of them root's"),
    Rule("attributes of files",
         ("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat",
          "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr",
          "fremovexattr", "removexattrat", "file_setattr"),
         "Landlock does not see them, and they can hold a message or open a file to others"),
    Rule("terminals", ("ioctl",), "typing into the terminal that started the process",
         (tuple(Test(1, request, differs=True)
                for request in (TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD)),)),
    Rule("core dumps", ("prctl",), "memory on disk, or readable by others",
         (tuple(Test(0, option, differs=True)
                for option in (PR_SET_DUMPABLE, PR_SET_PTRACER)),)),
)  # fmt: skip
