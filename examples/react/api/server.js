// A sample API: orders, and a feed of what happens to them. `node server.js [port]` listens on loopback.
//
// It believes the gateway. A real API believes nobody: at each request it verifies the access token's signature, issuer,
// audience and expiry.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const port = Number(process.argv[2] ?? 9000);
const steps = ["new", "packed", "shipped", "delivered"];
const customers = ["Marina Duarte", "Tomás Ferreira", "Yuki Tanaka", "Noor Haddad", "Anders Holm", "Priya Raman", "Léa Fournier"];
const items = ["Brass compass", "Signal flags, set", "Tide clock", "Oilskin jacket", "Rope, 50 m", "Storm lantern", "Sea chart, Biscay"];
const pick = (list) => list[Math.floor(Math.random() * list.length)];

const orders = []; // newest first
for (let age = 8; age >= 0; age -= 1) {
  place({ customer: customers[age % 7], item: items[(age * 3) % 7], status: steps[Math.min(3, age >> 1)] }, age * 47);
}

function place({ customer, item, status = "new" }, minutesAgo = 0) {
  const at = new Date(Date.now() - minutesAgo * 60_000).toISOString();
  const total = (2_000 + Math.floor(Math.random() * 18_000)) / 100;
  const order = { id: `Q-${1041 + orders.length}`, customer, item, total, status, placed_at: at, updated_at: at };
  orders.unshift(order);
  return order;
}

// caller says whose access token came, without believing it. The token itself is neither kept nor logged.
function caller(req) {
  const token = /^Bearer (.+)$/.exec(req.headers.authorization ?? "")?.[1];
  if (!token) return undefined;
  try {
    const { sub } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
    return { sub };
  } catch {
    return {}; // no JWT: some providers' access tokens are for their own eyes only
  }
}

const server = createServer(async (req, res) => {
  const reply = (status, body) => res.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  const who = caller(req);
  if (!who) return reply(401, { error: "An access token is missing: call this API through the gateway." });
  if (req.url !== "/orders") return reply(404, { error: "There is nothing here." });
  if (req.method === "GET") return reply(200, { orders, caller: who });
  if (req.method !== "POST") return reply(405, { error: "GET or POST." });
  const { customer, item } = await json(req);
  if (!valid(customer) || !valid(item)) return reply(400, { error: "An order needs a customer and an item." });
  const order = place({ customer: customer.trim(), item: item.trim() });
  tell(`${order.customer} ordered: ${order.item}`, order);
  return reply(201, order);
});

const valid = (text) => typeof text === "string" && text.trim() !== "" && text.length <= 60;

async function json(req) {
  let body = "";
  for await (const chunk of req.setEncoding("utf8")) {
    body += chunk;
    if (body.length > 10_000) return {};
  }
  try {
    return JSON.parse(body) ?? {};
  } catch {
    return {};
  }
}

// The feed. Its handshake comes with an access token, as every request does.
const feed = new WebSocketServer({ noServer: true, maxPayload: 1024 });
server.on("upgrade", (req, socket, head) => {
  if (req.url !== "/feed" || !caller(req)) {
    socket.end("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n");
    return;
  }
  feed.handleUpgrade(req, socket, head, (client) => {
    client.on("error", () => {}); // a lost connection is closed too
    client.send(message(`You are connected. The newest order is ${orders[0].id}`, orders[0]));
  });
});

let seq = 0;
const message = (text, order) => JSON.stringify({ seq: (seq += 1), at: new Date().toISOString(), text, order });

function tell(text, order) {
  const sent = message(text, order);
  for (const client of feed.clients) client.send(sent);
}

// Life goes on: an order moves a step, or somebody orders something.
setInterval(() => {
  const moving = orders.filter(({ status }) => status !== "delivered");
  if (moving.length < 3 && orders.length < 40) {
    const order = place({ customer: pick(customers), item: pick(items) });
    tell(`${order.customer} ordered: ${order.item}`, order);
    return;
  }
  const order = pick(moving.length ? moving : orders);
  order.status = steps[(steps.indexOf(order.status) + 1) % steps.length];
  order.updated_at = new Date().toISOString();
  tell(`${order.id} for ${order.customer} is ${order.status}`, order);
}, 2500);

server.listen(port, "127.0.0.1", () => console.log(`sample API on http://127.0.0.1:${server.address().port}`));
