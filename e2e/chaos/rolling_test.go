package chaos

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRollingRestart: a deployment that restarts one of three replicas after the
// other, behind a balancer that asks them whether they are ready and tries nothing
// twice, fails no request: no call, no login, no logout, no upload and no answer
// that takes longer than the gateway is given notice.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const notice = 2 * time.Second
	seed := seed(t)
	w := newWorld(t, setting{
		gateways: 3, redis: true, people: 8, tokenTTL: time.Second, tokenTimeout: 4 * time.Second,
		config: map[string]any{"shutdown_delay": notice.String()},
	}, seed)
	over := make(chan struct{})
	var all sync.WaitGroup
	for _, p := range w.people {
		all.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					p.work(2 * notice)
				}
			}
		})
	}
	for range rounds(t, 1) {
		for i, g := range w.Gateways {
			s := w.history.begin(gatewayStop, fmt.Sprintf("gateway %d", i))
			if err := g.Terminate()(); err != nil {
				t.Errorf("gateway %d: %v", i, err)
			}
			g.Start()
			w.Balancer.AwaitReady(len(w.Gateways))
			w.history.end(s)
		}
	}
	close(over)
	all.Wait()
	w.muster()
	stats := w.Provider.Stats()
	c := &w.count
	t.Logf("%d restarts; %d calls, %d uploads and slow answers, %d logins, %d logouts, %d refreshes; store or machine stood still %d times",
		w.history.count(gatewayStop), c.calls.Load(), c.others.Load(), c.logins.Load(), c.logouts.Load(), stats.Refreshed, w.history.count(stoodKinds...))
	if w.Balancer.Failed() > 0 || w.Balancer.Retried() > 0 {
		t.Errorf("%d requests failed, %d were sent twice", w.Balancer.Failed(), w.Balancer.Retried())
	}
	again := 0
	for _, g := range w.Gateways {
		again += g.Events("refresh_ambiguous")
	}
	if len(stats.Reuses) > 0 || again > 0 || c.lost.Load() > 0 {
		t.Errorf("the provider saw %d reuses, %d refresh tokens were sent again, %d sessions were lost", len(stats.Reuses), again, c.lost.Load())
	}
	if c.others.Load() < 20 || c.logouts.Load() == 0 || stats.Refreshed < 10 {
		t.Error("so little happened that it proves nothing")
	}
}

// work does one thing that must not fail.
func (p *person) work(slow time.Duration) {
	if p.life == nil {
		p.mustLogIn()
		return
	}
	switch n := p.random.IntN(100); {
	case n < 60:
		p.life.call(p.life.browser, true)
	case n < 80:
		p.send(http.MethodPost, "/other/", 100_000)
	case n < 84:
		p.send(http.MethodGet, "/other/?after="+slow.String(), 0)
	case n < 94:
		time.Sleep(time.Duration(p.random.IntN(1200)) * time.Millisecond) // tokens run out
	default:
		p.mustLogOut()
	}
	time.Sleep(time.Duration(p.random.IntN(30)) * time.Millisecond)
}

// send sends a request, which has to be answered.
func (p *person) send(method, path string, bytes int) {
	a := &ask{what: method + " " + path, begun: time.Now(), strict: true}
	a.answer, a.err = p.life.browser.Send(method, path, strings.Repeat("x", bytes))
	a.got = time.Now()
	p.w.count.others.Add(1)
	if p.life.judge(a) && a.answer.Status == http.StatusOK && a.answer.Body != fmt.Sprint(bytes) {
		p.w.wrong("%s: %s, want %d", p.name, a, bytes)
	}
}

// mustLogIn is login where nothing explains a failure.
func (p *person) mustLogIn() {
	b := p.w.NewBrowser()
	if _, err := b.Login(p.name); err != nil {
		p.w.wrong("%s: login: %v", p.name, err)
		time.Sleep(time.Second)
		return
	}
	p.w.count.logins.Add(1)
	p.life = p.w.newLife(p.name, b)
}

func (p *person) mustLogOut() {
	p.life.end("logout")
	if err := p.life.browser.Steal(p.w.World, p.life.cookie).Logout(); err != nil {
		p.w.wrong("%s: %v", p.name, err)
	}
	p.life.acknowledged("logout")
	p.w.count.logouts.Add(1)
	p.former, p.life = append(p.former, p.life), nil
}
