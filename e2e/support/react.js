// The React example as its readers run it: their configuration files, their sample API, their build or their dev server.
// Only the provider is the tests' own.
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Visitor, launch } from './browser.js';
import { Gateway, build } from './gateway.js';
import { startProvider } from './provider.js';
import { ask, freePort } from './wire.js';
import { until, within } from './wait.js';

const sources = fileURLToPath(new URL('../../examples/react', import.meta.url));
const vite = join(sources, 'node_modules/vite/bin/vite.js');

// buildInto builds the app into dir.
function buildInto(dir) {
  const args = [vite, 'build', '--outDir', dir, '--emptyOutDir', '--logLevel', 'warn'];
  execFileSync(process.execPath, args, { cwd: sources, stdio: 'inherit' });
}

// copyInto makes a copy of the example to edit, with the packages of the original.
function copyInto(dir) {
  const left = [join(sources, 'node_modules'), join(sources, 'dist')];
  cpSync(sources, dir, { recursive: true, filter: (path) => !left.includes(path) });
  symlinkSync(join(sources, 'node_modules'), join(dir, 'node_modules'));
}

export class Example {
  #started = [];

  // start brings it up: built, or with dev by Vite's dev server. idleTimeout replaces that of the configuration.
  static async start(options = {}) {
    const example = new Example();
    try {
      await example.#build(options);
    } catch (err) {
      await example.stop();
      throw err;
    }
    return example;
  }

  async #build({ dev = false, idleTimeout }) {
    this.dir = mkdtempSync(join(tmpdir(), 'sessiongate-react-'));
    this.#started.push({ stop: () => rmSync(this.dir, { recursive: true, force: true }) });
    const port = await freePort();
    this.origin = `http://localhost:${port}`;
    this.provider = await startProvider(this.origin, { accessTTL: 60 });
    this.#started.push(this.provider);
    this.apiPort = await freePort();
    await this.startAPI();
    const vitePort = await freePort();
    if (dev) {
      copyInto(this.dir);
      await this.#spawn(`http://127.0.0.1:${vitePort}`, vite, ['--port', String(vitePort)], this.dir);
    } else {
      buildInto(this.dir);
    }
    await this.#serve(dev, idleTimeout, {
      PORT: port,
      SESSION_KEY: randomBytes(32).toString('base64'),
      ISSUER: this.provider.issuer,
      CLIENT_ID: this.provider.client.id,
      CLIENT_SECRET: this.provider.client.secret,
      API_URL: `http://127.0.0.1:${this.apiPort}`,
      VITE_URL: `http://127.0.0.1:${vitePort}`,
    });
    this.browser = await launch();
    this.#started.push({ stop: () => this.browser.close() });
  }

  // serve starts the gateway with the example's own file. What the tests replace in it must be there.
  async #serve(dev, idleTimeout, variables) {
    const gateway = new Gateway();
    this.gateway = gateway;
    this.#started.push(gateway);
    gateway.dir = mkdtempSync(join(tmpdir(), 'sessiongate-e2e-'));
    gateway.binary = process.env.SESSIONGATE_BINARY || build(gateway.dir);
    gateway.admin = `http://127.0.0.1:${await freePort()}`;
    let text = readFileSync(join(sources, dev ? 'sessiongate.dev.yaml' : 'sessiongate.yaml'), 'utf8');
    const replace = (what, by) => {
      if (!text.includes(what)) throw new Error(`the example's configuration has no ${what}`);
      text = text.replaceAll(what, by);
    };
    replace('127.0.0.1:0', gateway.admin.slice('http://'.length));
    if (!dev) replace('dir: dist', `dir: ${this.dir}`);
    if (idleTimeout) replace('idle_timeout: 15m', `idle_timeout: ${idleTimeout}`);
    for (const [name, value] of Object.entries({ ...variables, DATA: gateway.dir })) text = text.replaceAll(`\${${name}}`, value);
    gateway.config = join(gateway.dir, 'sessiongate.yaml');
    writeFileSync(gateway.config, text, { mode: 0o600 });
    await gateway.run();
  }

  async #spawn(url, program, args, cwd) {
    const child = spawn(process.execPath, [program, ...args], { cwd, stdio: ['ignore', 'ignore', 'inherit'] });
    const stop = async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill();
      await within(10_000, `${program} ends`, gone);
    };
    this.#started.push({ stop });
    await until(`${program} answers`, async () => {
      if (child.exitCode !== null) throw new Error(`${program} exited with ${child.exitCode}`);
      return ask(url);
    });
    return stop;
  }

  // startAPI starts the sample API, also after stopAPI.
  async startAPI() {
    this.stopAPI = await this.#spawn(`http://127.0.0.1:${this.apiPort}`, join(sources, 'api/server.js'), [String(this.apiPort)], sources);
  }

  async stop() {
    const faults = [];
    for (const thing of this.#started.reverse()) {
      await Promise.resolve().then(() => thing.stop()).catch((err) => faults.push(err));
    }
    this.#started = [];
    if (this.provider?.faults.length) faults.push(...this.provider.faults);
    if (faults.length) throw new AggregateError(faults, faults.map(String).join('\n'));
  }

  arrive() { return Visitor.arrive(this.browser); }

  // login logs in by the button of the page that a tab shows.
  async login(page, username = 'ada', password = { ada: 'engine', grace: 'compiler' }[username]) {
    await page.click('text="Log in"');
    await page.waitForURL((url) => url.href.startsWith(`${this.provider.issuer}/interaction/`));
    await page.fill('[name=username]', username);
    await page.fill('[name=password]', password);
    await page.click('#login');
  }

  // orders is a tab with the orders of somebody who has just logged in.
  async orders(context, username) {
    const page = await context.newPage();
    await page.goto(`${this.origin}/`);
    await this.login(page, username);
    await page.waitForSelector('tbody tr');
    await page.waitForSelector('.top .badge.open');
    return page;
  }
}

// complaints are errors that the app's pages show in the console of a tab: violations of the policy are among them.
export function complaints(page, origin) {
  const heard = [];
  page.on('console', (message) => {
    if (message.type() === 'error' && page.url().startsWith(origin)) heard.push(`${message.location().url}: ${message.text()}`);
  });
  page.on('pageerror', (err) => heard.push(String(err)));
  return heard;
}

// noteEnd notes the time at which a tab shows that it is logged out.
export const noteEnd = (page) => page.evaluate(() => {
  new MutationObserver(() => {
    if (document.querySelector('.ended')) window.endedAt ??= Date.now();
  }).observe(document.body, { childList: true, subtree: true });
});

// ended waits until a tab shows that it is logged out, and returns its words and when that was.
export async function ended(page) {
  await page.waitForSelector('.ended');
  return { text: await page.innerText('.ended'), at: await page.evaluate(() => window.endedAt) };
}
