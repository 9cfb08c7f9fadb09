#!/usr/bin/env python3
"""The other end of a container's network: answers TCP and UDP on port 7777 of the named addresses. Says "ready", serves until it is ended.

usage: far_side.py ADDRESS...
"""
import select
import socket
import sys


def listeners(addresses):
    for own in addresses:
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            s = socket.socket(family, kind)
            s.bind((own, 7777))
            if kind == socket.SOCK_STREAM:
                s.listen()
            yield s


def answer(s):
    if s.type == socket.SOCK_DGRAM:
        data, who = s.recvfrom(2000)
        s.sendto(data, who)
        return
    c, _ = s.accept()
    with c:
        data = b""
        while part := c.recv(1000):
            data += part
        c.sendall(data)


def main():
    sockets = list(listeners(sys.argv[1:]))
    print("ready", flush=True)
    while True:
        for s in select.select(sockets, [], [])[0]:
            answer(s)


if __name__ == "__main__":
    main()
