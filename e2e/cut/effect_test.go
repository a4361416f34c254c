package cut

import (
	"slices"
	"sync"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// What ends at one gateway is over at the other within 100 ms, though that has it in
// memory and asks nobody.
func TestAnEndIsInEffectAtTheOtherGateway(t *testing.T) {
	const sessions = 201
	redis := gatewaytest.NewRedis(t)
	w := newWorld(t, sessions, redis.Store(nil))
	w.Start()
	browsers, others := make([]*gatewaytest.Browser, sessions), make([]*gatewaytest.Browser, sessions)
	var logins sync.WaitGroup
	for part := range 3 {
		logins.Go(func() {
			for i := part; i < sessions; i += 3 {
				b := w.NewBrowser()
				if _, err := b.Login(w.users[i]); err != nil {
					t.Errorf("login: %v", err)
					return
				}
				browsers[i], others[i] = b, w.copy(b, w.b)
				for range 2 { // the second time from memory
					w.want("at A", b.Via(w.a), good)
					w.want("at B", others[i], good)
				}
			}
		})
	}
	logins.Wait()
	if t.Failed() {
		return
	}
	took := map[string][]time.Duration{}
	for i, b := range browsers {
		end := ends[i%len(ends)]
		if err := end.of(w, b, w.users[i]); err != nil {
			t.Fatalf("%s: %v", end.name, err)
		}
		took[end.name] = append(took[end.name], awaitEnd(t, others[i], end.reason))
	}
	for name, each := range took {
		slices.Sort(each)
		n := len(each)
		t.Logf("%s, %d times: over at the other gateway after %v (median), %v (99 of 100), %v (the last)", name, n, each[n/2], each[n*99/100], each[n-1])
		if each[n/2] > 100*time.Millisecond || each[n-1] > busy {
			t.Errorf("%s: half of them took up to %v and the last %v, want 100ms", name, each[n/2], each[n-1])
		}
	}
}

// awaitEnd calls until the session is over. All is well, so nothing else is answered
// than that it is good or that it is over.
func awaitEnd(t *testing.T, browser *gatewaytest.Browser, reason string) time.Duration {
	t.Helper()
	for begun := time.Now(); ; {
		answer, err := browser.Call()
		took := time.Since(begun)
		switch {
		case err != nil:
			t.Fatal(err)
		case ended(reason)(answer):
			return took
		case !good(answer) || took > patience:
			t.Fatalf("%v after a session ended: %s, want the reason %s", took, answer, reason)
		}
	}
}
