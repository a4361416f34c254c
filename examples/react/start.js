// Starts everything there is to this example and ends it on Ctrl-C: a provider, the sample API, the gateway and, with
// --dev, Vite. README.md tells which environment variables change what.
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const here = import.meta.dirname;
const root = join(here, "../..");
const dev = process.argv.includes("--dev");
const env = process.env;

const data = mkdtempSync(join(tmpdir(), "sessiongate-react-"));
process.on("exit", () => rmSync(data, { recursive: true, force: true }));

const children = [];
let ending = false;

// end stops what was started, last first, and then this program.
async function end(status, why) {
  if (ending) return;
  ending = true;
  if (why) console.error(`\n  ${why}\n`);
  for (const child of children.reverse()) {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) continue;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill();
    const patience = setTimeout(() => child.kill("SIGKILL"), 5000);
    await gone;
    clearTimeout(patience);
  }
  process.exit(status);
}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => end(0));

// run starts a program that is to run until the end. It is detached from the terminal, or Ctrl-C would reach all at once.
function run(name, command, args, variables = {}) {
  const child = spawn(command, args, { cwd: here, env: { ...env, ...variables }, stdio: ["ignore", "pipe", "pipe"], detached: true });
  children.push(child);
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      for (const line of text.split("\n")) if (line.trim()) console.log(`  ${name.padEnd(8)} ${line}`);
    });
  }
  child.on("error", (err) => end(1, `${name} can't be started: ${err.message}`));
  child.on("exit", (status) => end(1, `${name} has ended with status ${status}.`));
}

function listen(port, host) {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(port, host, () => {
      const found = server.address().port;
      server.close(() => resolve(found));
    });
  });
}

const free = () => listen(0, "127.0.0.1");

// gatewayPort is free on both loopback addresses: browsers take localhost for one or the other.
async function gatewayPort(port) {
  try {
    await listen(port, "::1").catch((err) => {
      if (err.code === "EADDRINUSE") throw err; // else there is no IPv6
    });
    return await listen(port, "127.0.0.1");
  } catch {
    throw new Error(`Port ${port} is taken: choose another one, PORT=${port + 1} npm ${dev ? "run dev" : "start"}`);
  }
}

async function answers(url) {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    if (await fetch(url, { redirect: "manual" }).catch(() => undefined)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${url} does not answer.`);
}

const npm = (...args) => execFileSync("npm", args, { cwd: here, stdio: "inherit" });
const go = (name, source) => {
  const program = join(data, name);
  execFileSync("go", ["build", "-o", program, source], { cwd: root, stdio: "inherit" });
  return program;
};

async function main() {
  const port = await gatewayPort(Number(env.PORT ?? 8080));
  const origin = `http://localhost:${port}`;
  if (!existsSync(join(here, "node_modules/.package-lock.json"))) npm("ci");
  if (!dev) npm("run", "build");

  const settings = {
    PORT: String(port),
    DATA: data,
    SESSION_KEY: randomBytes(32).toString("base64"),
    CLIENT_ID: env.CLIENT_ID ?? "quayside",
    CLIENT_SECRET: env.CLIENT_SECRET ?? randomBytes(16).toString("hex"),
    ISSUER: env.ISSUER ?? `http://127.0.0.1:${await free()}`,
    API_URL: env.API_URL ?? `http://127.0.0.1:${await free()}`,
    VITE_URL: `http://127.0.0.1:${await free()}`,
  };
  if (!env.ISSUER) {
    run("provider", go("provider", "./examples/react/provider"),
      ["-listen", new URL(settings.ISSUER).host, "-app", origin, "-client", settings.CLIENT_ID], settings);
    await answers(settings.ISSUER);
  }
  if (!env.API_URL) run("api", process.execPath, ["api/server.js", new URL(settings.API_URL).port]);
  if (dev) {
    run("vite", process.execPath, ["node_modules/vite/bin/vite.js", "--port", new URL(settings.VITE_URL).port, "--clearScreen", "false"]);
    await answers(settings.VITE_URL);
  }
  run("gateway", env.SESSIONGATE ?? go("sessiongate", "./cmd/sessiongate"),
    ["serve", "-config", dev ? "sessiongate.dev.yaml" : "sessiongate.yaml"], settings);
  await answers(origin);
  console.log(`\n  Open ${origin}\n  ${env.ISSUER ? "" : "Log in as Ada, Grace or Alan, without a password. "}Ctrl-C ends everything.\n`);
}

main().catch((err) => end(1, err.message));
