// The corpus of return URLs (oidc/testdata/returnurls.json), held against Chromium's own URL parser and the running gateway.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { World } from './support/world.js';
import { ask } from './support/wire.js';

// A row's string as bytes, as it stands in a query, and as it comes back in a Location.
const corpus = JSON.parse(readFileSync(new URL('../oidc/testdata/returnurls.json', import.meta.url)))
  .map((row) => {
    const bytes = row.bytes ? Buffer.from(row.bytes, 'hex') : Buffer.from(row.string);
    return {
      ...row,
      sent: [...bytes].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join(''),
      returns: row.returns ?? row.string,
      name: JSON.stringify(row.string ?? row.bytes),
    };
  });
const accepted = corpus.filter((row) => row.accepted);

let world;
let visitor;
let page;
before(async () => {
  world = await World.start({ limits: { login_per_minute: 0 } });
  visitor = await world.arrive();
  page = await world.login(visitor);
});
after(() => world?.stop());

test('CVE-2020-11053 what is accepted is a path of the same origin for Chromium, and no endpoint of ours', async () => {
  assert.ok(accepted.length > 50);
  const parsed = await page.evaluate((strings) => strings.map((string) => {
    const url = new URL(string, location.origin);
    const link = document.createElement('a');
    link.setAttribute('href', string);
    return { origin: url.origin, user: url.username + url.password, path: url.pathname, link: link.href === url.href };
  }), accepted.map(({ returns }) => returns));
  for (const [i, { name }] of accepted.entries()) {
    const { path, ...rest } = parsed[i];
    assert.deepEqual(rest, { origin: world.origin, user: '', link: true }, name);
    assert.doesNotMatch(path, /^\/bff(\/|$)/, name);
    assert.doesNotMatch(path, /^\/\//, name);
  }
});

test('CVE-2021-32786, CVE-2021-43812 login and logout of the running gateway refuse the rest, and end nothing', async () => {
  const cookie = await visitor.header(world.origin);
  const { logout_url: logout } = await world.session(page);
  for (const { sent, name, accepted: good } of corpus) {
    if (good) continue;
    for (const path of [`/bff/login?returnUrl=${sent}`, `${logout}&returnUrl=${sent}`]) {
      const { status, headers } = await ask(world.origin + path, { headers: { cookie } });
      assert.deepEqual([status, headers.location, headers['set-cookie']], [400, undefined, undefined], name);
    }
    const posted = await ask(`${world.origin}/bff/logout?returnUrl=${sent}`, { method: 'POST', headers: { cookie, 'x-csrf': '1' } });
    assert.deepEqual([posted.status, posted.json().code], [400, 'invalid_return_url'], name);
  }
  assert.equal((await world.api(page)).token, 'valid');
});

test('what is accepted leads to a path that the gateway serves', async () => {
  for (const { returns, name } of accepted) {
    const answer = await ask(world.origin + returns.split('#')[0]);
    assert.notEqual(answer.status, 400, `${name}: ${answer.body}`);
  }
});

test('Chromium comes back where it wanted to, for the strings that look worst', async () => {
  for (const path of ['/;//evil.example', '/https://evil.example', '/?//evil.example', '/@evil.example', '/#//evil.example']) {
    await page.goto(`${world.origin}/bff/login?returnUrl=${encodeURIComponent(path)}`);
    // The provider remembers who this is, and asks nothing.
    await page.waitForURL(world.origin + path);
    assert.equal(await page.evaluate(() => location.href), world.origin + path);
  }
});
