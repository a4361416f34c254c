package replicas

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// holderTimeout is oidc.timeout of these tests. A lease lasts for five seconds
// longer.
const holderTimeout = 2 * time.Second

// Whatever becomes of the replica that was refreshing: the session goes on at the
// others when the lease has run out, and no refresh token is sent twice that may
// have been spent, where anybody can know.
func TestTheReplicaThatRefreshesIsLost(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		fault devprovider.Fault // of the first token call
		lose  func(g *gatewaytest.Gateway, line *wire)
		found func(g *gatewaytest.Gateway, line *wire) // after the others have answered
		after time.Duration                            // found this long after it was lost; 0: when the others have answered
	}{
		{
			"it is killed, and the provider has not acted", devprovider.Fault{Cut: true},
			func(g *gatewaytest.Gateway, _ *wire) { g.Kill() },
			func(g *gatewaytest.Gateway, _ *wire) { g.Start() }, 0,
		},
		{
			"it stands still for longer than the lease, and the provider has not acted", devprovider.Fault{Cut: true},
			func(g *gatewaytest.Gateway, _ *wire) { g.Pause() },
			func(g *gatewaytest.Gateway, _ *wire) { g.Resume() }, 0,
		},
		{
			"it has an answer that it cannot store until the lease has run out", devprovider.Fault{},
			func(_ *gatewaytest.Gateway, line *wire) { line.cut() },
			func(_ *gatewaytest.Gateway, line *wire) { line.mend() }, holderTimeout + 5*time.Second + 500*time.Millisecond,
		},
		{
			"it stands still for less than the lease, with an answer in its socket", devprovider.Fault{},
			func(g *gatewaytest.Gateway, _ *wire) { g.Pause() },
			func(g *gatewaytest.Gateway, _ *wire) { g.Resume() }, holderTimeout / 2,
		},
		{
			"it stands still for longer than the call may take, with an answer in its socket", devprovider.Fault{},
			func(g *gatewaytest.Gateway, _ *wire) { g.Pause() },
			func(g *gatewaytest.Gateway, _ *wire) { g.Resume() }, 2 * holderTimeout,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redis := gatewaytest.NewRedis(t)
			w := gatewaytest.NewWorld(t, binary, gatewaytest.Options{
				Users: []devprovider.User{{Sub: "ada"}}, Gateways: replicas, Store: redis.Store(nil), TokenTTL: time.Minute,
				OIDC: map[string]any{"timeout": holderTimeout.String()},
			})
			line := wired(t, w.Gateways[0], redis)
			w.Start()
			w.Provider.Fail(devprovider.Fault{Edit: devprovider.With("expires_in", 1)}, devprovider.Code)
			b := w.NewBrowser()
			if _, err := b.Login("ada"); err != nil {
				t.Fatal(err)
			}
			asked, act := make(chan struct{}), make(chan struct{})
			fault := row.fault
			fault.Times, fault.Wait = 1, sync.OnceFunc(func() {
				close(asked)
				<-act
			})
			w.Provider.Fail(fault, devprovider.Refresh)
			time.Sleep(time.Second) // the life of the first token
			var calls sync.WaitGroup
			calls.Go(func() { b.Via(w.Gateways[0]).Call() }) // it may be answered by nobody
			<-asked
			row.lose(w.Gateways[0], line)
			close(act)
			lost := time.Now()
			if row.after > 0 {
				calls.Go(func() {
					time.Sleep(row.after)
					row.found(w.Gateways[0], line)
				})
			}
			for _, g := range w.Gateways[1:] {
				calls.Go(func() {
					begun := time.Now()
					wantCall(t, b.Via(g), http.StatusOK, "")
					t.Logf("another replica answered after %v", time.Since(begun).Round(time.Millisecond))
				})
			}
			calls.Wait()
			if row.after == 0 {
				row.found(w.Gateways[0], line)
			}
			for _, e := range w.Provider.Events(devprovider.Refresh) {
				t.Logf("the provider was asked %v after the holder was lost: %d %s", e.Time.Sub(lost).Round(time.Millisecond), e.Status, e.Error)
			}
			t.Logf("all was answered %v after the holder was lost", time.Since(lost).Round(time.Millisecond))
			for _, g := range w.Gateways {
				awaitCall(t, b.Via(g), http.StatusOK, "")
			}
			stats := w.Provider.Stats()
			if stats.Refreshed != 1 || len(stats.Reuses) != 0 {
				t.Errorf("%d refreshes and %d reuses, want 1 and 0", stats.Refreshed, len(stats.Reuses))
			}
		})
	}
}
