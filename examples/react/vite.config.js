import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The helper comes from the gateway that serves the app, so that the two always fit: the import stays as it is written.
const helper = "/bff/client.js";
const fromTheGateway = {
  name: "from-the-gateway",
  enforce: "pre",
  resolveId: (id) => (id === helper ? { id, external: true } : undefined),
  // The dev server reads what is imported. Browsers see this only if they come to it and not to the gateway.
  load: (id) => (id === helper ? 'export let bff; throw new Error("Open the address of the gateway, not of Vite.")' : undefined),
};

export default defineConfig({
  plugins: [fromTheGateway, react()],
  build: {
    assetsInlineLimit: 0, // no data: URLs, so that the Content-Security-Policy needs none
    modulePreload: { polyfill: false },
  },
  // In development the browser talks to the gateway, and the gateway to Vite. Hot updates need no settings: their
  // WebSocket goes to where the page came from.
  server: { host: "127.0.0.1", port: 5173, strictPort: true },
});
