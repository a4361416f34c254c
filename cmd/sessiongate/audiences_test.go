package main

import (
	"os"
	"testing"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// Zitadel's ID tokens have the project's id in aud, too.
func TestAudiencesAreHandedOn(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		audiences []string
		good      bool
	}{"configured": {[]string{"project"}, true}, "not configured": {nil, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := gatewaytest.Options{Users: redisUsers, OIDC: map[string]any{"audiences": append([]string{}, test.audiences...)}}
			w := gatewaytest.NewWorld(t, os.Args[0], o)
			w.Start()
			w.Provider.Fail(devprovider.Fault{Claims: func(c map[string]any) {
				c["azp"], c["aud"] = c["aud"], []any{c["aud"], "project"}
			}}, devprovider.Code)
			if _, err := w.NewBrowser().Login("ada"); (err == nil) != test.good {
				t.Errorf("login: %v, want success: %t", err, test.good)
			}
		})
	}
}
