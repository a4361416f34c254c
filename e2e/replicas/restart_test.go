package replicas

import (
	"net/http"
	"strings"
	"testing"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// What the server says about its own state is no word about sessions: 503, with the
// cookie kept. What it has kept counts when it is back.
func TestAServerThatCannotServe(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil []string
		mend  []string
	}{
		{"it became a replica of a master that is not there", []string{"REPLICAOF 127.0.0.1 1", "CONFIG SET replica-serve-stale-data no"}, []string{"REPLICAOF NO ONE"}},
		{"it is full, and evicts nothing", []string{"CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory 1"}, []string{"CONFIG SET maxmemory 0"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redis := gatewaytest.NewRedis(t)
			w := silentWorld(t, redis.Store(nil))
			w.Provider.Fail(devprovider.Fault{Edit: devprovider.With("expires_in", 1)}, devprovider.Code)
			w.Start()
			b := w.NewBrowser()
			if _, err := b.Login("ada"); err != nil {
				t.Fatal(err)
			}
			for _, command := range row.spoil {
				if answer, err := redis.Say(strings.Fields(command)...); answer != "+OK" {
					t.Fatalf("%s: %s, %v", command, answer, err)
				}
			}
			for _, g := range w.Gateways {
				awaitCall(t, b.Via(g), http.StatusServiceUnavailable, "store_unavailable")
				wantCall(t, b.Via(g), http.StatusServiceUnavailable, "store_unavailable")
			}
			for _, command := range row.mend {
				if answer, err := redis.Say(strings.Fields(command)...); answer != "+OK" {
					t.Fatalf("%s: %s, %v", command, answer, err)
				}
			}
			for _, g := range w.Gateways {
				awaitCall(t, b.Via(g), http.StatusOK, "")
			}
			if stats := w.Provider.Stats(); len(stats.Reuses) > 0 {
				t.Errorf("%d reuses", len(stats.Reuses))
			}
		})
	}
}

// A server that is restarted has what it kept: with persistence everything, without
// it nothing, and then nobody is logged in.
func TestAServerThatIsRestarted(t *testing.T) {
	for _, row := range []struct {
		name   string
		args   []string
		status int
		code   string
	}{
		{"with persistence", nil, http.StatusOK, ""},
		{"without persistence", []string{"--appendonly", "no"}, http.StatusUnauthorized, "session_required"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redis := gatewaytest.NewRedis(t, row.args...)
			w := silentWorld(t, redis.Store(nil))
			w.Start()
			b, out := w.NewBrowser(), w.NewBrowser()
			for _, each := range []*gatewaytest.Browser{b, out} {
				if _, err := each.Login("ada"); err != nil {
					t.Fatal(err)
				}
			}
			former := out.Session()
			for _, g := range w.Gateways {
				wantCall(t, b.Via(g), http.StatusOK, "")
			}
			if err := out.Logout(); err != nil {
				t.Fatal(err)
			}
			redis.Kill()
			for _, g := range w.Gateways {
				awaitCall(t, b.Via(g), http.StatusServiceUnavailable, "store_unavailable")
			}
			redis.Start()
			session := b.Session()
			for _, g := range w.Gateways {
				awaitCall(t, b.Steal(w, session).Via(g), row.status, row.code)
				answer, err := out.Steal(w, former).Via(g).Call()
				if err != nil || answer.Status != http.StatusUnauthorized {
					t.Errorf("a session that was logged out: %v, %v, want 401", answer, err)
				}
			}
		})
	}
}
