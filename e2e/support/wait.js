// Bounded waiting: nothing in these tests waits for ever, and what was waited for is named.
import { setTimeout as sleep } from 'node:timers/promises';

export { sleep };

// until asks again and again until probe answers something true, and returns that.
export async function until(what, probe, timeout = 10_000) {
  const end = Date.now() + timeout;
  let last;
  while (Date.now() < end) {
    try {
      const answer = await probe();
      if (answer) return answer;
      last = undefined;
    } catch (err) {
      last = err;
    }
    await sleep(50);
  }
  throw new Error(`waited ${timeout} ms for: ${what}`, { cause: last });
}

// within gives a promise that much time.
export async function within(timeout, what, promise) {
  const timer = new AbortController();
  const late = sleep(timeout, undefined, { signal: timer.signal, ref: false })
    .then(() => { throw new Error(`${what}: not within ${timeout} ms`); }, () => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
  }
}

// close stops an HTTP server and every connection to it.
export function close(server) {
  return new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  });
}
