// Every token that the provider mints is a canary: it is searched for wherever it could have flown to.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hoard } from './support/browser.js';
import { users } from './support/provider.js';
import { World } from './support/world.js';
import { sleep } from './support/wait.js';

const accessTTL = 3;

// find returns the names of the canaries that occur in text. Of a JWT its signature is enough, and any of the usual codings.
function find(minted, text) {
  const found = [];
  for (const [kind, tokens] of Object.entries(minted)) {
    for (const token of tokens) {
      const part = token.split('.').at(-1);
      const codings = [part, encodeURIComponent(part), Buffer.from(token).toString('base64').slice(0, -4),
        Buffer.from(token).toString('base64url').slice(0, -4), Buffer.from(token).toString('hex')];
      if (codings.some((coding) => text.includes(coding))) found.push(`${kind} token ${part.slice(0, 6)}…`);
    }
  }
  return found;
}

// journey does everything that a person does in a day, and returns what scripts of the page could reach meanwhile.
async function journey(world, visitor) {
  const seen = [];
  const look = async (page) => seen.push(await hoard(page));
  const page = await visitor.open();
  const callbacks = [];
  page.on('request', (request) => { if (request.url().includes('/bff/callback?')) callbacks.push(request.url()); });

  await page.goto(`${world.origin}/app/orders?x=1`);
  await world.fillIn(page);
  await world.arrived(page, '/app/orders?x=1');
  await look(page);
  for (let expiry = 0; expiry < 3; expiry += 1) {
    assert.equal((await world.api(page)).token, 'valid');
    await world.session(page);
    await world.api(page, '/bff/user');
    await look(page);
    await sleep(accessTTL * 1000 + 300);
  }
  await page.evaluate(() => new Promise((resolve, reject) => {
    const events = new EventSource('/api/stream');
    events.onmessage = () => { events.close(); resolve(); };
    events.onerror = () => reject(new Error('event stream'));
  }));
  await page.evaluate(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/api/socket`);
    socket.onmessage = () => { socket.close(); resolve(); };
    socket.onerror = () => reject(new Error('WebSocket'));
  }));
  // What goes wrong is where tokens leak.
  for (const path of [callbacks[0].slice(world.origin.length), '/bff/callback?code=x&state=y', '/bff/callback?error=access_denied',
    '/bff/logout?sid=wrong', '/bff/login?returnUrl=//other.test', '/bff/nothing', '/down/', '/api/%2e%2e/x']) {
    await page.goto(world.origin + path);
    await look(page);
  }
  const cookie = await visitor.header(world.origin);
  await world.replay(`${cookie}; ${cookie}`); // ambiguous
  await page.goto(`${world.origin}/bff/login?prompt=login&returnUrl=/app/again`);
  await world.fillIn(page, 'ada');
  await world.arrived(page, '/app/again');

  await page.goto(`${world.origin}/`);
  await page.click('#logout');
  await page.click('#confirm');
  await page.waitForURL(`${world.origin}/`);
  await look(page);

  await page.goto(`${world.origin}/app/third`);
  await world.fillIn(page, 'grace');
  await world.arrived(page, '/app/third');
  await page.evaluate(async () => {
    const answer = await fetch('/bff/logout', { method: 'POST', headers: { 'X-CSRF': '1' } });
    window.location = (await answer.json()).redirect_url;
  });
  await page.click('#confirm');
  await page.waitForURL(`${world.origin}/`);
  await look(page);

  // A session that is still open when the store is looked at.
  await page.goto(`${world.origin}/app/fourth`);
  await world.fillIn(page, 'ada');
  await world.arrived(page, '/app/fourth');
  assert.equal((await world.api(page)).token, 'valid');
  await look(page);
  return seen;
}

// hinted takes the logouts' id_token_hint out of what was received, and says how many there were.
function hinted(text) {
  let count = 0;
  const rest = text.replace(/^(location: \S*?[?&]id_token_hint=)[^&\s]+/gim, (_, before) => {
    count += 1;
    return before;
  });
  return { count, rest };
}

for (const hint of [true, false]) {
  const exception = hint ? 'but the id_token_hint in a logout\'s Location' : 'nor, if switched off, an id_token_hint';
  test(`no token reaches the browser, the store or the log, ${exception}`, async () => {
    const world = await World.start({
      accessTTL,
      tap: true,
      logout: { id_token_hint: hint },
      routes: [{ path: '/down/', upstream: 'http://127.0.0.1:9', kind: 'page' }],
    });
    try {
      const visitor = await world.arrive();
      const reached = await journey(world, visitor);
      const { minted } = world.provider;
      assert.ok(minted.access.size >= 6 && minted.refresh.size >= 6 && minted.id.size >= 4 && minted.code.size >= 4,
        `too few canaries: ${Object.entries(minted).map(([kind, { size }]) => `${kind} ${size}`)}`);
      const tokens = { access: minted.access, refresh: minted.refresh, id: minted.id };

      assert.deepEqual(find(minted, reached.join('\n')), [], 'in reach of scripts');
      assert.deepEqual(find(minted, visitor.frames.join('\n')), [], 'in WebSocket messages');

      const wire = hinted(world.tap.received().toString('latin1'));
      assert.equal(wire.count, hint ? 2 : 0, 'id_token_hints in Location');
      assert.deepEqual(find(minted, wire.rest), [], 'on the wire from the gateway to the browser');

      // The codes come from the provider, by the browser: finding them shows that this search can find.
      const responses = await visitor.settled();
      const received = responses.map(({ url, headers, body }) => (
        `${headers.map(({ name, value }) => `${name}: ${value}`).join('\n')}\n\n${url.startsWith(world.origin) ? body : ''}`)).join('\n');
      assert.equal(find({ code: minted.code }, received).length, minted.code.size, 'the search is blind');
      assert.deepEqual(find(tokens, hinted(received).rest), [], 'in what the browser received');

      const kept = () => world.gateway.files().map(({ content }) => content.toString('latin1')).join('\n');
      const personal = Object.values(users).flatMap(({ name, email }) => [name, email]);
      const searched = (when) => {
        assert.ok(kept().length > 0, 'there is no store');
        assert.deepEqual(find(minted, kept()), [], `in the store file, ${when}`);
        assert.deepEqual(personal.filter((claim) => kept().includes(claim)), [], `claims in the store file, ${when}`);
      };
      searched('open');
      assert.equal(await world.gateway.exit(), 0);
      searched('closed');

      assert.ok(world.gateway.events('refresh').length >= 2, 'the log says nothing of refreshes');
      assert.deepEqual(find(minted, world.gateway.log), [], 'in the debug log');
      const { value } = (await visitor.cookies(world.origin)).find(({ name }) => name === 'sessiongate');
      assert.equal(world.gateway.log.includes(value), false, 'the session cookie is in the log');
      assert.equal(kept().includes(value), false, 'the session cookie is in the store');
      assert.equal(world.gateway.log.includes(world.provider.client.secret), false, 'the client secret is in the log');
    } finally {
      await world.stop();
    }
  });
}

test('the search for tokens finds one in every coding', () => {
  const minted = { access: new Set(['header.payload.sig+na/ture']) };
  const codings = ['header.payload.sig+na/ture', 'x=sig%2Bna%2Fture', Buffer.from('header.payload.sig+na/ture').toString('base64'),
    Buffer.from('header.payload.sig+na/ture').toString('hex')];
  for (const text of codings) assert.equal(find(minted, `before ${text} after`).length, 1, text);
  assert.deepEqual(find(minted, 'nothing'), []);
});
