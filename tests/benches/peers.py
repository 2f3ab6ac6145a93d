"""Eight threads take turns under a lock of another library; prints the times from a release to the next holder."""

import sys
import threading
import time

import redis
import redis_lock

library, url, waiters, turns = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
released = 0.0
left = turns
begin = time.perf_counter()
times = [[] for _ in range(waiters)]


def lock(client):
    if library == "redis-py":
        return client.lock("peer:py", timeout=10, thread_local=False)
    return redis_lock.Lock(client, "peer-python-redis-lock", expire=10)


def work(number):
    global released, left
    client = redis.Redis.from_url(url)
    while left > 0:
        mine = lock(client)
        mine.acquire()
        granted = time.perf_counter()
        times[number].append((granted - released) * 1e6)
        left -= 1
        released = time.perf_counter()
        mine.release()


threads = [threading.Thread(target=work, args=(number,)) for number in range(waiters)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(time.perf_counter() - begin)
for line in times:
    print(" ".join(f"{value:.1f}" for value in line))
