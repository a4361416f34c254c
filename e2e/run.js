// Builds the gateway once, runs the tests against it, and leaves nothing behind: `node run.js [test files]`.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from './support/gateway.js';

const dir = mkdtempSync(join(tmpdir(), 'sessiongate-build-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));

// One file at a time: the tests measure moments, and two cores are few for several browsers.
const args = ['--test', '--test-concurrency=1', '--test-timeout=120000', ...process.argv.slice(2)];
const child = spawn(process.execPath, args, {
  cwd: import.meta.dirname,
  stdio: 'inherit',
  env: { ...process.env, SESSIONGATE_BINARY: build(dir) },
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.on('exit', (status) => process.exit(status ?? 1));
