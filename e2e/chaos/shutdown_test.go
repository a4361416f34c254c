package chaos

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/internal/devprovider"
)

// TestShutdown: a gateway that is asked to stop loses nothing within
// shutdown_timeout, whatever it is doing: every request that it took is answered,
// every refresh that it began is stored, and every session is there after the next
// start. Nothing has to be sent twice.
func TestShutdown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		setting
	}{
		{"with a file", setting{gateways: 1, people: 8, tokenTTL: time.Second, tokenTimeout: 4 * time.Second}},
		{"with Redis", setting{gateways: 1, redis: true, people: 8, tokenTTL: time.Second, tokenTimeout: 4 * time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seed := seed(t)
			random := rand.New(rand.NewPCG(seed, 0))
			w := newWorld(t, tt.setting, seed)
			w.everybody(func(p *person) { p.logInOnce() })
			for range rounds(t, 4) {
				// Slow answers: at any moment refreshes are under way.
				w.Provider.Heal()
				slow := time.Duration(200+random.IntN(600)) * time.Millisecond
				w.Provider.Fail(devprovider.Fault{After: true, Delay: slow}, devprovider.Refresh)
				w.stopUnderLoad(time.Duration(1000+random.IntN(1000))*time.Millisecond, slow)
				w.Start()
				w.everybody(func(p *person) { p.check() })
				if t.Failed() {
					break
				}
			}
			stats := w.Provider.Stats()
			t.Logf("%d refreshes; %d calls, %d of whose clients left", stats.Refreshed, w.count.calls.Load(), w.count.left.Load())
			if again := w.Gateway.Events("refresh_ambiguous"); len(stats.Reuses) > 0 || again > 0 {
				t.Errorf("the provider saw %d reuses, %d refresh tokens were sent again", len(stats.Reuses), again)
			}
			if w.count.lost.Load() > 0 {
				t.Errorf("%d sessions were lost", w.count.lost.Load())
			}
			if stats.Refreshed < len(w.people) || w.count.left.Load() == 0 {
				t.Error("so little happened that it proves nothing")
			}
		})
	}
}

func (p *person) logInOnce() {
	if p.login(); p.life == nil {
		p.w.wrong("%s: not logged in", p.name)
	}
}

// stopUnderLoad asks the gateway to stop after a while in which everybody uses it,
// and some hang up. It has to end well, and to answer all that it took: whoever
// asked a little before. Nobody sees more of those who came later than that nobody
// listens. A little is longer on a machine that is so busy that connections wait to
// be accepted.
func (w *world) stopUnderLoad(after, slow time.Duration) {
	stopped := make(chan time.Time, 1)
	var slowest atomic.Int64
	var all sync.WaitGroup
	for i, p := range w.people {
		all.Go(func() {
			var last *ask
			for last == nil || last.err == nil {
				if i%2 == 0 {
					p.hangUp()
				}
				last = &ask{what: "call", begun: time.Now()}
				last.answer, last.err = p.life.browser.Call()
				last.got = time.Now()
				w.count.calls.Add(1)
				if last.err == nil {
					raise(&slowest, int64(last.got.Sub(last.begun)))
					last.strict = true
					p.life.judge(last)
				}
			}
			at := <-stopped
			stopped <- at
			little := 300*time.Millisecond + 2*max(0, time.Duration(slowest.Load())-slow)
			if last.begun.Before(at.Add(-little)) {
				w.wrong("%s: %s, though the gateway was asked to stop at %s", p.name, last, clock(at))
			}
		})
	}
	time.Sleep(after)
	s := w.history.begin(gatewayStop, "gateway")
	stopped <- time.Now()
	if err := w.Gateway.Terminate()(); err != nil {
		w.wrong("sessiongate: %v", err)
	}
	all.Wait()
	<-stopped
	w.history.end(s)
}

// hangUp calls the API and mostly does not wait for the answer.
func (p *person) hangUp() {
	p.w.count.calls.Add(1)
	if _, err := p.life.browser.CallAndLeave(time.Duration(1+p.random.IntN(100)) * time.Millisecond); err != nil {
		p.w.count.left.Add(1)
	}
}
