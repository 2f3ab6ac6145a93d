// Eight tasks take turns under a lock of node-redlock; prints the times from a release to the next holder.
import { createRequire } from "node:module";

const [folder, url, waiters, turns] = process.argv.slice(2);
const load = createRequire(`${folder}/`);
const Redis = load("ioredis");
const { default: Redlock } = load("redlock");

const client = new Redis(url);
// A retry as soon as it may be: 50 ms, with its usual jitter.
const redlock = new Redlock([client], { retryCount: -1, retryDelay: 50, retryJitter: 50 });
const begin = performance.now();
let released = begin;
let left = Number(turns);
const times = Array.from({ length: Number(waiters) }, () => []);

async function work(mine) {
  while (left > 0) {
    const lock = await redlock.acquire(["peer:node-redlock"], 10000);
    mine.push((performance.now() - released) * 1000);
    left -= 1;
    released = performance.now();
    await lock.release();
  }
}

await Promise.all(times.map(work));
console.log((performance.now() - begin) / 1000);
for (const line of times) console.log(line.map((time) => time.toFixed(1)).join(" "));
client.disconnect();
