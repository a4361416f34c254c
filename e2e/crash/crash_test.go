// Package crash kills the gateway in the middle of its work, again and again,
// and looks at what is left.
package crash

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

const (
	rounds = 100
	people = 8
)

// TestKill kills the gateway during logins, refreshes and logouts. After each
// start the store opens, every session that somebody was told to have is there,
// every session that somebody was told has ended is not; and the one thing that
// can't be helped, a refresh token that is sent twice because the answer to the
// first was lost, was announced as refresh_ambiguous.
func TestKill(t *testing.T) {
	binary, err := gatewaytest.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	users := make([]devprovider.User, people)
	for i := range users {
		users[i] = devprovider.User{Sub: fmt.Sprintf("user-%d", i), Email: fmt.Sprintf("user-%d@example.com", i)}
	}
	w := gatewaytest.NewWorld(t, binary, gatewaytest.Options{
		Users:    users,
		TokenTTL: time.Second,
		OIDC:     map[string]any{"timeout": "2s"},
	})
	everybody := make([]*person, people)
	for i, u := range users {
		everybody[i] = &person{t: t, w: w, name: u.Sub, browser: w.NewBrowser()}
	}

	for round := range rounds {
		w.Gateway.Start()
		for _, p := range everybody {
			p.check()
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
		// Answers that are late are answers that a kill can cut off. Every third round goes without.
		if round%3 != 0 {
			w.Provider.Fail(devprovider.Fault{After: true, Delay: 60 * time.Millisecond}, devprovider.Refresh, devprovider.Code)
		}
		work(w, everybody)
		w.Provider.Heal()
	}

	var all person
	for _, p := range everybody {
		all.survived, all.lost = all.survived+p.survived, all.lost+p.lost
		all.loggedOut, all.cutOff = all.loggedOut+p.loggedOut, all.cutOff+p.cutOff
	}
	refreshed, reuses, announced := w.Provider.Stats().Refreshed, len(w.Provider.Stats().Reuses), w.Gateway.Events("refresh_ambiguous")
	t.Logf("%d kills: %d times a session survived, %d were lost, %d logged out, %d just being logged out", rounds, all.survived, all.lost, all.loggedOut, all.cutOff)
	t.Logf("the provider saw %d refreshes and %d reuses; %d were announced", refreshed, reuses, announced)
	if reuses > announced {
		t.Errorf("the provider saw %d reuses, only %d were announced", reuses, announced)
	}
	if all.lost > reuses {
		t.Errorf("%d sessions were lost, by only %d reuses", all.lost, reuses)
	}
	if reuses == 0 || all.survived < rounds || refreshed < rounds {
		t.Error("the kills hit little, so this proves little")
	}
}

// work lets everybody do this and that at once, and kills the gateway.
func work(w *gatewaytest.World, everybody []*person) {
	var killed atomic.Bool
	var group sync.WaitGroup
	for _, p := range everybody {
		group.Go(func() {
			for !killed.Load() {
				if err := p.act(); err != nil && !killed.Load() {
					p.t.Errorf("%s: %v", p.name, err)
					return
				}
			}
		})
	}
	time.Sleep(50*time.Millisecond + rand.N(400*time.Millisecond))
	killed.Store(true)
	w.Gateway.Kill()
	group.Wait()
}
