// The API and the pages behind the gateway. It keeps every request it saw and says of each access token what the provider
// thinks of it, but never shows a token to anybody: what it answers goes to the browser.
import { createServer } from 'node:http';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketServer } from 'ws';
import { close } from './wait.js';

// startUpstream starts it. judge(token) is asked about every bearer token.
export async function startUpstream(judge) {
  const seen = []; // {method, url, headers, token}
  const pages = new Map(); // path -> HTML, set by tests
  const tokens = new Set();

  const record = async (req) => {
    const bearer = /^Bearer (.+)$/.exec(req.headers.authorization ?? '')?.[1];
    if (bearer) tokens.add(bearer);
    const entry = {
      method: req.method,
      url: req.url,
      headers: req.headers,
      authorizations: req.headersDistinct.authorization?.length ?? 0,
      token: bearer ? await judge(bearer) : 'none',
    };
    seen.push(entry);
    return entry;
  };

  const server = createServer(async (req, res) => {
    const { method, url, headers, token } = await record(req);
    const path = url.split('?')[0];
    if (path === '/api/stream') return stream(req, res);
    if (path === '/api/ticks') return ticks(res);
    if (path.startsWith('/api/')) {
      // As an API does (RFC 6750, 3.1): a bad token is 401 invalid_token.
      if (token === 'invalid') res.setHeader('WWW-Authenticate', 'Bearer error="invalid_token"');
      res.writeHead(token === 'invalid' ? 401 : 200, { 'content-type': 'application/json' });
      const { authorization, ...shown } = headers;
      return res.end(JSON.stringify({ method, url, token, headers: shown }));
    }
    res.writeHead(200, { 'content-type': path.endsWith('.js') ? 'text/javascript' : 'text/html; charset=utf-8' });
    return res.end(pages.get(path) ?? `<!doctype html><title>${path}</title><h1 id="page">page</h1><p id="token">${token}</p>`);
  });

  const sockets = new WebSocketServer({ noServer: true });
  server.on('upgrade', async (req, socket, head) => {
    const { token } = await record(req);
    sockets.handleUpgrade(req, socket, head, (ws) => {
      ws.send(`token ${token}`);
      ws.on('message', (data, binary) => ws.send(data, { binary }));
    });
  });

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    seen,
    pages,
    tokens,
    stop: async () => {
      for (const ws of sockets.clients) ws.terminate();
      await close(server);
    },
  };
}

// ticks sends events for as long as somebody listens.
async function ticks(res) {
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  for (let n = 1; !res.destroyed; n += 1) {
    res.write(`data: ${n}\n\n`);
    await sleep(100);
  }
}

// stream sends three events, each long before the next, so that a proxy that buffers is seen.
async function stream(req, res) {
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  for (let n = 1; n <= 3 && !res.destroyed; n += 1) {
    res.write(`id: ${n}\ndata: ${JSON.stringify({ n, sent: Date.now() })}\n\n`);
    await sleep(1000);
  }
  res.end();
}

// startSite starts another site (an attacker's, or a colleague's wiki): pages only.
export async function startSite() {
  const pages = new Map();
  const server = createServer((req, res) => {
    res.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    res.end(pages.get(req.url.split('?')[0]) ?? '<!doctype html><title>another site</title>');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}`, pages, stop: () => close(server) };
}
