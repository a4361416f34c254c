// Time that passes when the test says so.

const ticks = () => new Promise((resolve) => { setImmediate(resolve); });

// settle lets everything happen that needs no time to pass.
export async function settle() {
  for (let i = 0; i < 25; i += 1) await ticks();
}

export class Clock {
  now = 1_800_000_000_000;

  #timers = new Map();

  #last = 0;

  setTimeout(fn, delay = 0) {
    // As in browsers: 32 bits, and what does not fit is 0.
    const wait = delay > 2 ** 31 - 1 ? 0 : Math.max(0, delay);
    this.#last += 1;
    this.#timers.set(this.#last, { fn, at: this.now + wait });
    return this.#last;
  }

  clearTimeout(id) { this.#timers.delete(id); }

  // pass lets seconds go by, with everything that is due in them.
  async pass(seconds) {
    const end = this.now + seconds * 1000;
    await settle();
    for (;;) {
      const [id, timer] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!timer || timer.at > end) break;
      this.#timers.delete(id);
      this.now = Math.max(this.now, timer.at);
      timer.fn();
      await settle();
    }
    this.now = end;
  }

  // Date is for the pages: their clock is this one.
  get Date() {
    const clock = this;
    return class extends Date {
      static now() { return clock.now; }
    };
  }
}
