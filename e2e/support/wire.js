// HTTP without a browser: one request as it is given, no cookie jar, no redirects, no defaults that hide faults.
import http from 'node:http';
import https from 'node:https';
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

// ask sends one request and returns {status, headers, body, json()}. The app's localhost is reached by IPv4, which is where
// the gateway listens, whatever the resolver says.
export function ask(url, { method = 'GET', headers = {}, body } = {}) {
  const { protocol, host, port, pathname, search } = new URL(url);
  const { request } = protocol === 'https:' ? https : http;
  return new Promise((resolve, reject) => {
    const req = request({
      host: '127.0.0.1',
      port,
      method,
      path: pathname + search,
      headers: { host, ...headers },
      servername: 'localhost',
      rejectUnauthorized: false, // the certificate is the test's own
      agent: false,
      timeout: 10_000,
    });
    req.on('timeout', () => req.destroy(new Error(`${method} ${url}: timed out`)));
    req.on('error', reject);
    req.on('response', async (res) => {
      try {
        const chunks = [];
        for await (const chunk of res) chunks.push(chunk);
        const text = Buffer.concat(chunks).toString();
        resolve({ status: res.statusCode, headers: res.headers, body: text, json: () => JSON.parse(text) });
      } catch (err) {
        reject(err);
      }
    });
    req.end(body);
  });
}

const given = new Set();

// freePort returns a port of the loopback that nobody listens on, never the same twice, and from below the range that
// systems take ports from for outgoing connections, or one of those could get it first.
export async function freePort() {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = 10_000 + randomInt(20_000);
    if (!given.has(port) && await isFree(port)) {
      given.add(port);
      return port;
    }
  }
  throw new Error('no port is free');
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
