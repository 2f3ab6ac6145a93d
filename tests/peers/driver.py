"""redis-py's own Lock on request: one line on standard input is one call, its outcome is one line on standard output.

    acquire NAME TTL WAIT       seconds; WAIT 0 asks once        yes | no
    extend NAME TTL             the lease again from now         yes | lost
    release NAME                                                 yes | lost
    owned NAME                                                   yes | no
    value NAME                  the owner token                  (the token)
    count NAME COUNTER ROUNDS   GET and SET under the lock       yes
"""

import sys
import time

import redis
from redis.exceptions import LockNotOwnedError

server = redis.Redis(unix_socket_path=sys.argv[1])
locks = {}


def acquire(name, ttl, wait):
    lock = server.lock(name, timeout=float(ttl), sleep=0.005)
    locks[name] = lock
    return "yes" if lock.acquire(blocking=float(wait) > 0, blocking_timeout=float(wait) or None) else "no"


def extend(name, ttl):
    return owner_only(lambda: locks[name].extend(float(ttl), replace_ttl=True))


def release(name):
    return owner_only(locks[name].release)


def owner_only(call):
    try:
        call()
        return "yes"
    except LockNotOwnedError:
        return "lost"


def owned(name):
    return "yes" if locks[name].owned() else "no"


def value(name):
    return locks[name].local.token.decode()


def count(name, counter, rounds):
    for _ in range(int(rounds)):
        with server.lock(name, timeout=30, sleep=0.002, blocking_timeout=120):
            before = int(server.get(counter) or 0)
            time.sleep(0.0005)
            server.set(counter, before + 1)
    return "yes"


calls = {call.__name__: call for call in (acquire, extend, release, owned, value, count)}

for line in sys.stdin:
    verb, *arguments = line.split()
    print(calls[verb](*arguments), flush=True)
