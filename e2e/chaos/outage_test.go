package chaos

import (
	"testing"
	"time"

	"sessiongate/internal/devprovider"
)

// TestStoreAwayForLongerThanALease: the store goes away while providers answer, for
// longer than leases last, and comes back when others want the same sessions. The
// answers wait in memory, and nobody sends a token again that was spent for them.
func TestStoreAwayForLongerThanALease(t *testing.T) {
	t.Parallel()
	seed := seed(t)
	w := newWorld(t, setting{gateways: 2, redis: true, people: 12, tokenTTL: time.Second}, seed)
	w.everybody(func(p *person) { p.mustLogIn() })
	time.Sleep(1500 * time.Millisecond) // tokens run out
	w.Provider.Fail(devprovider.Fault{After: true, Delay: 500 * time.Millisecond}, devprovider.Refresh)
	over := make(chan struct{})
	go func() {
		defer close(over)
		w.everybody(func(p *person) { p.life.call(p.life.ways[0], false) })
	}()
	eventually(t, "all are refreshing", func() bool { return w.Provider.Stats().Refreshed == len(w.people) })
	s := w.history.begin(storeKill, "redis-server")
	w.store.Kill()
	<-over
	time.Sleep(lease)
	w.Provider.Heal()
	w.store.Start()
	w.history.end(s)
	w.everybody(func(p *person) {
		for end := time.Now().Add(musterPatience); !p.life.call(p.life.ways[1], false); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				w.wrong("%s: no good answer for %v after the store was back", p.name, musterPatience)
				return
			}
		}
	})
	w.muster()
	w.account()
	if reuses := w.Provider.Stats().Reuses; len(reuses) > 0 || w.count.lost.Load() > 0 {
		t.Errorf("%d of %d tokens that were spent were sent again, %d sessions were lost", len(reuses), len(w.people), w.count.lost.Load())
	}
}
