"""Who may connect to a worker: a socket filter drops what was not sent to the worker's own address (Linux only)."""
import contextlib
import ctypes
import ipaddress
import os
import socket
import struct

from utils.files import write_line

# Instructions of a socket filter (linux/filter.h), and where in memory a packet's network header begins.
LOAD_WORD, LOAD_BYTE, AND, JUMP_IF_EQUAL, RETURN = 0x20, 0x30, 0x54, 0x15, 0x06
NETWORK_HEADER = 0xfff00000
DESTINATION = {4: 16, 6: 24}  # its offset in the header, by the version of IP
SO_ATTACH_FILTER = 26
DROP, TAKE = 0, 0xffffffff


def listen_only_on(host, port):
    """Makes this process deaf on `port` to packets to other IP addresses than `host`; localhost is all of loopback.

    TensorFlow's server listens on every interface, to every client, and runs any graph that a client sends. A host name
    leaves it so: this machine can't tell by which of its addresses the other workers know it. Where the system has no
    socket filters, a warning says that the port is open.
    """
    try:
        networks = [ipaddress.ip_network(name) for name in (("127.0.0.0/8", "::1") if host == "localhost" else (host,))]
    except ValueError:
        return
    program = [line for network in networks for line in _take_if_sent_to(network)] + [(RETURN, 0, DROP)]
    memory = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", code, 0, skip, value)
                                                  for code, skip, value in program))
    try:
        for listening in _listening(port):
            listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                                 struct.pack("HL", len(program), ctypes.addressof(memory)))
    except OSError as error:
        write_line("warning: port %d is open to every network of this machine (%s)" % (port, error))


def _listening(port):
    """Yields this process's sockets that listen on `port`."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor is closed by now
            if os.readlink("/proc/self/fd/" + name).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as copy:
                    if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and copy.getsockname()[1] == port:
                        yield copy


def _take_if_sent_to(network):
    """Yields instructions (code, how many to skip if not equal, value): take a packet to `network`, else go on."""
    conditions = [(LOAD_BYTE, 0, 0xf0, network.version << 4)]
    for start in range(0, network.max_prefixlen // 8, 4):
        word, mask = (struct.unpack_from(">I", address.packed, start)[0]
                      for address in (network.network_address, network.netmask))
        conditions.append((LOAD_WORD, DESTINATION[network.version] + start, mask, word))
    while conditions:
        load, offset, mask, value = conditions.pop(0)
        skip = 3 * len(conditions) + 1  # the other conditions, and RETURN
        yield from ((load, 0, NETWORK_HEADER + offset), (AND, 0, mask), (JUMP_IF_EQUAL, skip, value))
    yield RETURN, 0, TAKE
