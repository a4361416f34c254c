// HTTP without a browser: one request as it is given, no cookie jar, no redirects, no defaults that hide faults.
import http from 'node:http';
import https from 'node:https';
import { once } from 'node:events';
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

// freePort returns a port of the loopback that nobody listened on a moment ago.
export async function freePort() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}
