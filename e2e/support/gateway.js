// The real binary, with a generated configuration, in a directory that goes away.
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ask, freePort } from './wire.js';
import { until, within } from './wait.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

// build compiles the gateway into dir, with the race detector: a race it meets makes it exit with status 66.
export function build(dir) {
  const binary = join(dir, 'sessiongate');
  execFileSync('go', ['build', '-race', '-o', binary, './cmd/sessiongate'], { cwd: root, stdio: 'inherit' });
  return binary;
}

// certificate makes a self-signed one for localhost and for the names of launch, with the program that Go brings for that.
export function certificate(dir) {
  const goroot = execFileSync('go', ['env', 'GOROOT'], { encoding: 'utf8' }).trim();
  const program = join(goroot, 'src/crypto/tls/generate_cert.go');
  execFileSync('go', ['run', program, '-host', 'localhost,shop.test,*.shop.test,*.app.shop.test,evil.test', '-ecdsa-curve', 'P256'], { cwd: dir, stdio: 'ignore' });
  return { cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') };
}

export class Gateway {
  #process;

  #log = '';

  // start runs `sessiongate serve` with the configuration that configure(dir, admin) returns, and waits until it is ready.
  static async start(configure) {
    const gateway = new Gateway();
    gateway.dir = mkdtempSync(join(tmpdir(), 'sessiongate-e2e-'));
    try {
      gateway.binary = process.env.SESSIONGATE_BINARY || build(gateway.dir);
      gateway.admin = `http://127.0.0.1:${await freePort()}`;
      gateway.store = join(gateway.dir, 'sessions.db');
      const config = {
        ...configure(gateway.dir),
        admin: { listen: gateway.admin.slice('http://'.length) },
        log: { level: 'debug', access: true },
        shutdown_delay: '0s',
        shutdown_timeout: '5s',
      };
      config.session = {
        ...config.session,
        keys: [randomBytes(32).toString('base64')],
        store: { bbolt: { path: gateway.store } },
      };
      // JSON is YAML.
      gateway.config = join(gateway.dir, 'sessiongate.yaml');
      writeFileSync(gateway.config, JSON.stringify(config, undefined, 2), { mode: 0o600 });
      await gateway.run();
    } catch (err) {
      await gateway.stop();
      throw err;
    }
    return gateway;
  }

  async run() {
    const child = spawn(this.binary, ['serve', '-config', this.config], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    let failure;
    child.on('error', (err) => { failure = err; });
    child.stdout.on('data', (data) => { this.#log += data; });
    child.stderr.on('data', (data) => { this.#log += data; });
    await until('the gateway is ready', async () => {
      if (child.exitCode !== null) failure = new Error(`sessiongate exited with ${child.exitCode}:\n${this.#log}`);
      return failure || (await ask(`${this.admin}/readyz`)).status === 200;
    });
    if (failure) throw failure;
  }

  // log is everything it wrote, at level debug.
  get log() { return this.#log; }

  // events are the log's objects with that audit event.
  events(name) {
    return this.#log.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line))
      .filter(({ event }) => event === name);
  }

  // files are the contents of what it keeps on disk: the store, and whatever else it wrote beside it.
  files() {
    return readdirSync(this.dir)
      .filter((name) => ![this.config, this.binary].includes(join(this.dir, name)))
      .map((name) => ({ name, content: readFileSync(join(this.dir, name)) }));
  }

  // exit asks it to stop and returns its exit status: 0, and 66 when the race detector saw something.
  async exit() {
    const child = this.#process;
    if (!child) return 0;
    this.#process = undefined;
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM');
      try {
        await within(15_000, 'sessiongate stops after SIGTERM', once(child, 'exit'));
      } catch (err) {
        child.kill('SIGKILL');
        throw err;
      }
    }
    return child.exitCode ?? child.signalCode;
  }

  async stop() {
    try {
      const status = await this.exit();
      if (status !== 0) throw new Error(`sessiongate exited with ${status}:\n${this.#log.slice(-8000)}`);
    } finally {
      rmSync(this.dir, { recursive: true, force: true });
    }
  }
}
