package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A path that differs from a route in its last slash goes to the route around it,
// and so around what the route asks for.
func TestPX05WarnsOfRoutesInWeakerOnes(t *testing.T) {
	const up = `upstream: "http://127.0.0.1:9000"`
	for _, row := range []struct{ name, routes, want string }{
		{"within an open route", "{path: /, auth: none, " + up + "}, {path: /admin/, " + up + "}", "routes[1].auth: is more than that of routes[0], which sends /admin to the same upstream"},
		{"an exact route", "{path: /, auth: optional, " + up + "}, {path: /secret, " + up + "}", "routes[1].auth: is more than that of routes[0], which sends /secret/ to the same upstream"},
		{"in the other order", "{path: /admin/, " + up + "}, {path: /, auth: none, " + up + "}", "routes[0].auth: is more than that of routes[1]"},
		{"with its twin", "{path: /, auth: none, " + up + "}, {path: /admin/, " + up + "}, {path: /admin, " + up + "}", ""},
		{"with an open twin", "{path: /, " + up + "}, {path: /admin/, " + up + "}, {path: /admin, auth: none, " + up + "}", "routes[1].auth: is more than that of routes[2], which sends /admin"},
		{"weaker than what is around it", "{path: /, " + up + "}, {path: /open/, auth: none, " + up + "}", ""},
		{"to another upstream", `{path: /, auth: none, upstream: "http://127.0.0.1:9001"}, {path: /admin/, ` + up + "}", ""},
		{"beside static files", "{path: /, auth: none, static: {dir: .}}, {path: /api/, " + up + "}", ""},
		{"the root itself", "{path: /, " + up + "}, {path: /open, auth: none, " + up + "}", ""},
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		text := "session: {keys: [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"]}\napps:\n  - origin: https://shop.example.com\n    oidc: {issuer: https://login.example.com, client_id: shop, client_secret: x}\n    routes: [" + row.routes + "]\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		got := c.Warnings().Error()
		if row.want != "" && !strings.Contains(got, row.want) || row.want == "" && strings.Contains(got, "more than that of") {
			t.Errorf("%s: %s, want %q", row.name, got, row.want)
		}
	}
}
