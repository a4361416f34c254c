package replicas

import (
	"net/http"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// liveness is session.store.redis.liveness: its default.
const liveness = time.Second

// A replica that hears nothing of the server, and is told so by nobody, serves
// nothing from memory beyond liveness (and grace): then it is 503, with the cookie
// kept, until the server is heard again. What ended meanwhile is over.
func TestAReplicaThatHearsNothing(t *testing.T) {
	for _, row := range []struct {
		name  string
		grace time.Duration
	}{
		{"by a relay that passes nothing on", 0},
		{"by a relay that passes nothing on, with grace", 2 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redis := gatewaytest.NewRedis(t)
			w := silentWorld(t, redis.Store(map[string]any{"grace": row.grace.String()}))
			line := wired(t, w.Gateways[1], redis)
			w.Start()
			hearNothing(t, w, row.grace, line.cut, line.mend)
		})
	}
}

func silentWorld(t *testing.T, store map[string]any) *gatewaytest.World {
	t.Helper()
	return gatewaytest.NewWorld(t, binary, gatewaytest.Options{
		Users: []devprovider.User{{Sub: "ada"}, {Sub: "bob"}}, Gateways: replicas, Store: store,
	})
}

// hearNothing cuts off the second gateway.
func hearNothing(t *testing.T, w *gatewaytest.World, grace time.Duration, cut, mend func()) {
	t.Helper()
	ada, bob := w.NewBrowser(), w.NewBrowser()
	for sub, b := range map[string]*gatewaytest.Browser{"ada": ada, "bob": bob} {
		if _, err := b.Login(sub); err != nil {
			t.Fatal(err)
		}
	}
	thief := ada.Steal(w, ada.Session()).Via(w.Gateways[1])
	deaf := bob.Via(w.Gateways[1])
	for range 2 { // the second time from memory
		wantCall(t, thief, http.StatusOK, "")
		wantCall(t, deaf, http.StatusOK, "")
	}
	cut()
	silent := time.Now()
	if err := ada.Via(w.Gateways[0]).Logout(); err != nil {
		t.Fatal(err)
	}
	var last time.Time // when the last request began that was served from memory
	for {
		begun := time.Now()
		answer, err := thief.Call()
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status == http.StatusServiceUnavailable {
			break
		}
		if last = begun; answer.Status != http.StatusOK || last.Sub(silent) > 20*time.Second {
			t.Fatalf("%v after the silence began: %s", last.Sub(silent), answer)
		}
	}
	t.Logf("the last request that was served from memory began %v after the silence", last.Sub(silent).Round(time.Millisecond))
	if late := last.Sub(silent); late > liveness+grace+50*time.Millisecond {
		t.Errorf("a session that had ended was served %v after the silence began, want %v at most", late, liveness+grace)
	} else if late < (liveness+grace)/2 {
		t.Errorf("nothing was served %v after the silence began: a moment's silence is an outage", late)
	}
	wantCall(t, thief, http.StatusServiceUnavailable, "store_unavailable")
	wantCall(t, deaf, http.StatusServiceUnavailable, "store_unavailable")
	wantCall(t, bob.Via(w.Gateways[2]), http.StatusOK, "")
	mend()
	awaitCall(t, deaf, http.StatusOK, "")
	awaitCall(t, thief, http.StatusUnauthorized, "session_ended")
}
