package chaos

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// TestReloadWithoutStore: a configuration can be put in force while the store does
// not answer. It logs nobody out, and whom it means to log out does not come back.
func TestReloadWithoutStore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		away   func(*gatewaytest.Redis)
		back   func(*gatewaytest.Redis)
		change func(app map[string]any)
		after  string // what a session that was there before is told when the store is back
	}{
		{"a store that stands still, and another route",
			(*gatewaytest.Redis).Pause, (*gatewaytest.Redis).Resume, addRoute, "200 token valid"},
		{"a store that was killed, and another route",
			(*gatewaytest.Redis).Kill, (*gatewaytest.Redis).Start, addRoute, "200 token valid"},
		{"a store that stands still, and another client",
			(*gatewaytest.Redis).Pause, (*gatewaytest.Redis).Resume, changeClient, "401 session_ended revoked"},
		{"a store that was killed, and another client",
			(*gatewaytest.Redis).Kill, (*gatewaytest.Redis).Start, changeClient, "401 session_ended revoked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, setting{gateways: 1, redis: true, people: 1, tokenTTL: 30 * time.Second}, 0)
			p := w.people[0]
			p.mustLogIn()
			p.life.call(p.life.browser, true)
			p.listen()

			if tt.after != "200 token valid" {
				p.life.end("revoked")
			}
			tt.away(w.store)
			edit(t, w.Gateway, tt.change)
			w.Gateway.Reload()
			eventually(t, "the new configuration is in force", func() bool { return w.Gateway.Events("config_reloaded") == 1 })
			answer, err := p.life.browser.Call()
			if err != nil || answer.String() != "503 store_unavailable" || len(answer.Header.Values("Set-Cookie")) > 0 {
				t.Errorf("without the store: %v, %v, want 503 store_unavailable and the cookie kept", answer, err)
			}

			tt.back(w.store)
			eventually(t, "the store is there again", func() bool {
				answer, err = p.life.browser.Call()
				return err == nil && answer.Status != 503
			})
			if answer.String() != tt.after {
				t.Errorf("when the store was back: %v, want %s", answer, tt.after)
			}
			if other, err := p.life.browser.Fetch("GET", "/added/"); tt.after == "200 token valid" && (err != nil || other.Status != 200) {
				t.Errorf("the added route: %v, %v", other, err)
			}
			if again, err := p.life.browser.Call(); err != nil || again.String() != tt.after {
				t.Errorf("once more: %v, %v, want %s", again, err, tt.after)
			}
		})
	}
}

func addRoute(app map[string]any) {
	routes := app["routes"].([]any)
	added := map[string]any{"path": "/added/", "upstream": routes[0].(map[string]any)["upstream"]}
	app["routes"] = append(routes, added)
}

func changeClient(app map[string]any) { app["oidc"].(map[string]any)["client_id"] = "another" }

// edit changes the one app of a gateway's configuration file.
func edit(t *testing.T, g *gatewaytest.Gateway, change func(app map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(g.Config())
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	change(config["apps"].([]any)[0].(map[string]any))
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.Config(), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for something to be so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(musterPatience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
