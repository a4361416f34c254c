package session_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

// A refresh at another replica is one here, too: pages are told, and the tokens
// that are given back at the end are the newest.
func TestARefreshElsewhereIsHeardOfByWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		here, there := sv.process(one), sv.process(one)
		c := here.login()
		o := here.watch(here.open(c), listens)
		synctest.Wait()
		for n := 1; n <= 3; n++ {
			by := []*bench{there, here, there}[n-1]
			time.Sleep(tokenTTL)
			by.mustToken(c)
			synctest.Wait()
			time.Sleep(time.Second)
			o.mu.Lock()
			if o.refreshed != n {
				t.Errorf("told of %d refreshes, want %d", o.refreshed, n)
			}
			o.mu.Unlock()
		}
		// The mark of an attempt that failed is a change, and no refresh.
		time.Sleep(tokenTTL)
		one.provider.set(func(p *provider) { p.Fail = &session.Outage{Err: errors.New("503")} })
		if _, err := there.token(c); err == nil {
			t.Fatal("a token though the provider is down")
		}
		synctest.Wait()
		time.Sleep(time.Second)
		o.mu.Lock()
		if o.refreshed != 3 {
			t.Errorf("told of %d refreshes after one that failed, want 3", o.refreshed)
		}
		o.mu.Unlock()
		newest := one.provider.live()
		if n, err := here.EndSubject(t.Context(), "ada", session.RemoteLogout{Reason: session.BackChannel}); n != 1 || err != nil {
			t.Fatalf("EndSubject = %d, %v, want 1", n, err)
		}
		synctest.Wait()
		got := one.provider.takenBack()
		if len(got) == 0 || got[0] != newest {
			t.Errorf("revoked %q, want the newest refresh token %q", got, newest)
		}
	})
}

// live is the one refresh token that is good.
func (p *provider) live() (token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, good := range p.current {
		if good {
			token = t
		}
	}
	return token
}
