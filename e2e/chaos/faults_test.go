package chaos

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// fault is something bad that is done to a process, and undone.
type fault struct {
	kind       kind
	what       string
	at, lasts  time.Duration // since the round began
	begin, end func()
}

// monkey thinks of faults.
type monkey struct {
	w      *world
	random *rand.Rand
}

func (m *monkey) between(least, most time.Duration) time.Duration {
	return least + time.Duration(m.random.Int64N(int64(most-least)))
}

// lease is how long a dead gateway keeps others from refreshing what it was
// refreshing.
const lease = tokenTimeout + 5*time.Second

// lasts is how long a fault takes: mostly short, one in so many times longer than
// a lease.
func (m *monkey) lasts(most time.Duration, oneIn int) time.Duration {
	if m.random.IntN(oneIn) == 0 {
		return m.between(lease+200*time.Millisecond, lease+2*time.Second)
	}
	return m.between(0, most)
}

// ofGateway is a fault of one of the gateways.
func (m *monkey) ofGateway() fault {
	i := m.random.IntN(len(m.w.Gateways))
	g := m.w.Gateways[i]
	f := fault{what: fmt.Sprintf("gateway %d", i)}
	switch m.random.IntN(4) {
	case 0, 1:
		f.kind, f.lasts = gatewayKill, m.lasts(800*time.Millisecond, 12)
		f.begin, f.end = g.Kill, g.Launch
	case 2:
		f.kind, f.lasts = gatewayPause, m.lasts(1500*time.Millisecond, 6)
		f.begin, f.end = g.Pause, g.Resume
	case 3:
		f.kind, f.lasts = gatewayStop, m.lasts(500*time.Millisecond, 20)
		f.begin, f.end = func() { m.w.stop(g) }, g.Launch
	}
	return f
}

// stop stops a gateway, which ends well unless something else is treated badly.
func (w *world) stop(g *gatewaytest.Gateway) {
	begun := time.Now()
	err := g.Terminate()()
	if err != nil && !w.history.explains(begun, time.Now(), 5*time.Second, slices.Concat(storeKinds, providerKinds)...) {
		w.wrong("a gateway that was asked to stop: %v", err)
	}
}

func (m *monkey) ofStore() fault {
	r := m.w.store
	f := fault{what: "redis-server"}
	switch m.random.IntN(4) {
	case 0, 1:
		f.kind, f.lasts = storeKill, m.lasts(1500*time.Millisecond, 8)
		f.begin, f.end = r.Kill, r.Start
	case 2:
		f.kind, f.lasts = storePause, m.lasts(3*time.Second, 8)
		f.begin, f.end = r.Pause, r.Resume
	case 3:
		f.kind, f.lasts = storeStop, m.lasts(time.Second, 20)
		f.begin, f.end = r.Stop, r.Start
	}
	return f
}

func (m *monkey) ofProvider() fault {
	r := m.w.Relay
	f := fault{what: "provider"}
	if m.random.IntN(2) == 0 {
		f.kind, f.lasts = providerKill, m.between(0, 1500*time.Millisecond)
		f.begin, f.end = r.Kill, r.Start
		return f
	}
	// One that stands still for longer than oidc.timeout acts on requests that were
	// given up: many sessions are lost by it, rightly.
	f.kind, f.lasts = providerPause, m.between(50*time.Millisecond, tokenTimeout/2)
	if m.random.IntN(6) == 0 {
		f.lasts = m.between(tokenTimeout, 2*tokenTimeout)
	}
	f.begin, f.end = r.Pause, r.Resume
	return f
}

// plan thinks of the faults of a round: mostly one, at most one of each process.
// The first ones are sure to kill what the tests are about.
func (m *monkey) plan(round int) []fault {
	switch {
	case round == 0:
		g := m.w.Gateways[0]
		return []fault{{kind: gatewayKill, what: "gateway 0", at: time.Second, lasts: m.between(0, time.Second), begin: g.Kill, end: g.Launch}}
	case round == 1 && m.w.store != nil:
		r := m.w.store
		return []fault{{kind: storeKill, what: "redis-server", at: time.Second, lasts: m.between(0, time.Second), begin: r.Kill, end: r.Start}}
	}
	all := []func() fault{m.ofGateway, m.ofGateway, m.ofProvider}
	if m.w.store != nil {
		all = append(all, m.ofStore, m.ofStore)
	}
	var faults []fault
	for range 1 + m.random.IntN(5)/3 {
		f := all[m.random.IntN(len(all))]()
		f.at = m.between(100*time.Millisecond, 900*time.Millisecond)
		if !slices.ContainsFunc(faults, func(other fault) bool { return other.what == f.what }) {
			faults = append(faults, f)
		}
	}
	return faults
}

// round lets everybody use the gateways while faults happen, and musters.
func (m *monkey) round(n int) {
	w := m.w
	w.Provider.Heal()
	// Answers that are late are answers that a crash can cut off. Every third round goes without.
	if n%3 != 0 {
		w.Provider.Fail(devprovider.Fault{After: true, Delay: m.between(10*time.Millisecond, 150*time.Millisecond)}, devprovider.Refresh, devprovider.Code)
	}
	faults := m.plan(n)
	over := w.work()
	m.treat(faults)
	w.sleep(m.between(0, 500*time.Millisecond))
	over()
	w.muster()
}

// work has everybody use the gateways until the function is called that it returns.
func (w *world) work() (over func()) {
	working, stop := context.WithCancel(w.over)
	w.working = working
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.everybody(func(p *person) {
			for working.Err() == nil {
				p.act()
			}
		})
	}()
	return func() {
		stop()
		<-done
		w.working = w.over
	}
}

// treat lets the faults happen, each at its time, and waits until all is as it was.
func (m *monkey) treat(faults []fault) {
	w := m.w
	type step struct {
		at time.Duration
		do func()
	}
	var steps []step
	var open []*span
	for _, f := range faults {
		var s *span
		steps = append(steps, step{f.at, func() {
			s = w.history.begin(f.kind, f.what)
			f.begin()
		}}, step{f.at + f.lasts, func() {
			f.end()
			if f.kind == gatewayKill || f.kind == gatewayStop {
				open = append(open, s) // until it is ready
				return
			}
			w.history.end(s)
		}})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	begun := time.Now()
	for _, s := range steps {
		time.Sleep(time.Until(begun.Add(s.at)))
		s.do()
	}
	for _, g := range w.Gateways {
		g.AwaitReady()
	}
	if w.Balancer != nil {
		w.Balancer.AwaitReady(len(w.Gateways))
	}
	for _, s := range open {
		w.history.end(s)
	}
}
