package main

import (
	"strings"
	"testing"
)

// What the gateway does not start with is no good configuration, whichever package
// it is that minds.
func TestCheckRefusesWhatTheGatewayDoesNotStartWith(t *testing.T) {
	t.Parallel()
	for name, upstream := range map[string]string{
		"a dot segment":          "http://127.0.0.1:1/a/../b",
		"an encoded slash":       "http://127.0.0.1:1/a%2fb",
		"twice encoded":          "http://127.0.0.1:1/%252e",
		"a socket with a query":  "unix:///x?y",
		"a socket with somebody": "unix://u@/x",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, config := site(t, settings{routes: `- {path: /, upstream: "` + upstream + `"}`})
			for _, command := range []string{"check", "serve"} {
				code, out, said := sessiongate(t, command, "-config", config)
				if code != 2 || !containsAll(said, "config.yaml:", "apps", "; ", "the configuration is refused: 1 problem") || strings.Contains(out, "ok") {
					t.Errorf("%s: exit code %d\n%s%s", command, code, out, said)
				}
			}
		})
	}
}
