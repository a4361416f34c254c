// A tap on the wire between the browser and the gateway: it passes bytes on and keeps those that the browser receives.
import { connect, createServer } from 'node:net';
import { once } from 'node:events';

// startTap listens on port and passes everything on to the target port.
export async function startTap(port, target) {
  const chunks = [];
  const sockets = new Set();
  const server = createServer((browser) => {
    const gateway = connect(target, '127.0.0.1');
    for (const socket of [browser, gateway]) {
      sockets.add(socket);
      socket.on('error', () => {}); // a reset is passed on as an end
      socket.on('close', () => {
        sockets.delete(socket);
        browser.destroy();
        gateway.destroy();
      });
    }
    gateway.on('data', (data) => chunks.push(data));
    browser.pipe(gateway);
    gateway.pipe(browser);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    received: () => Buffer.concat(chunks),
    stop: () => new Promise((resolve) => {
      server.close(resolve);
      for (const socket of sockets) socket.destroy();
    }),
  };
}
