// Package faults holds the gateway against everything that a provider can do
// wrong: what a session must survive, what must end it, and that a login which
// went wrong makes none.
package faults

import (
	"flag"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// tokenTTL is the shortest life a token can have, so that expiries come soon.
const tokenTTL = time.Second

var binary string

func TestMain(m *testing.M) {
	// Every row has a gateway of its own and waits most of the time.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	gatewaytest.Main(m, &binary, "-race")
}

// start runs a gateway with a provider of its own, which knows Ada.
func start(t *testing.T, settings map[string]any) *gatewaytest.World {
	t.Helper()
	w := gatewaytest.NewWorld(t, binary, gatewaytest.Options{
		Users:    []devprovider.User{{Sub: "ada", Name: "Ada Lovelace", Email: "ada@example.com"}},
		TokenTTL: tokenTTL,
		OIDC:     settings,
	})
	w.Gateway.Start()
	return w
}
