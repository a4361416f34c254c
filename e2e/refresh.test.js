import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { World } from './support/world.js';
import { sleep } from './support/wait.js';

const accessTTL = 3;
const expired = () => sleep(accessTTL * 1000 + 300);

let world;
before(async () => { world = await World.start({ accessTTL }); });
after(() => world?.stop());

// visit gives a test somebody who has just logged in.
const visit = (name, run) => test(name, async () => {
  const visitor = await world.arrive();
  try {
    await run(await world.login(visitor), visitor);
  } finally {
    await visitor.leave();
  }
});

// atExpiry counts the refreshes that calls cause when they all find the token expired. The token endpoint takes its time, so
// that all have asked before it answers; and its next token lives long, so that no slow machine adds a second expiry.
async function atExpiry(calls) {
  const { pace } = world.provider;
  await expired();
  const before = world.provider.tokenCalls('refresh_token').length;
  Object.assign(pace, { accessTTL: 600, tokenDelay: 300 });
  try {
    const answers = await calls();
    return { answers, refreshes: world.provider.tokenCalls('refresh_token').length - before };
  } finally {
    Object.assign(pace, { accessTTL, tokenDelay: 0 });
  }
}

visit('an API call carries a valid token, and still does after several expiries', async (page, visitor) => {
  const cookie = await visitor.header(world.origin);
  for (let expiry = 0; expiry < 4; expiry += 1) {
    const { status, token } = await world.api(page);
    assert.deepEqual({ expiry, status, token }, { expiry, status: 200, token: 'valid' });
    const { authorizations, headers } = world.upstream.seen.at(-1);
    assert.equal(authorizations, 1);
    assert.equal(headers.cookie, undefined, 'the gateway\'s cookie went upstream');
    assert.equal(headers['x-csrf'], undefined);
    await expired();
  }
  assert.ok(world.upstream.tokens.size >= 4, `upstream saw ${world.upstream.tokens.size} tokens`);
  assert.deepEqual(world.provider.calls.filter(({ error }) => error), []);
  assert.equal(await visitor.header(world.origin), cookie, 'a refresh changed the cookie');
});

visit('fifty calls of a page at the moment of expiry cause one token call', async (page) => {
  const { answers, refreshes } = await atExpiry(() => page.evaluate(() => (
    Promise.all(Array.from({ length: 50 }, async (_, n) => {
      const answer = await fetch(`/api/echo?n=${n}`, { headers: { 'X-CSRF': '1' } });
      return `${answer.status} ${(await answer.json()).token}`;
    })))));
  assert.deepEqual(answers, Array(50).fill('200 valid'));
  assert.equal(refreshes, 1);
});

visit('two hundred calls by as many connections at the moment of expiry cause one token call', async (page, visitor) => {
  const cookie = await visitor.header(world.origin);
  const { answers, refreshes } = await atExpiry(() => Promise.all(Array.from({ length: 200 }, () => world.replay(cookie))));
  assert.deepEqual(answers.map(({ status, token }) => `${status} ${token}`), Array(200).fill('200 valid'));
  assert.equal(refreshes, 1);
  assert.deepEqual(world.provider.reuses(), []);
});

visit('asking who is there refreshes nothing', async (page) => {
  await expired();
  const before = world.provider.tokenCalls('refresh_token').length;
  const me = await world.session(page);
  assert.equal(me.authenticated, true);
  assert.equal(me.user.name, 'Ada Canary-Lovelace');
  assert.equal(me.access_token.expires_in <= 0, true, 'the access token should have run out');
  assert.equal(world.provider.tokenCalls('refresh_token').length, before);
});
