package session_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

// lost is a store whose End is done, and the answer to it lost.
type lost struct{ session.Store }

func (s lost) End(ctx context.Context, k session.Key, r session.Reason, c session.Condition) (session.Record, error) {
	if _, err := s.Store.End(ctx, k, r, c); err != nil {
		return session.Record{}, err
	}
	return session.Record{}, errDown
}

// Promise 4: an error of the store leaves open whether the session ended, so
// memory must not go on to serve it.
func TestAnEndWithoutAnAnswerIsNotServedFromMemory(t *testing.T) {
	b := newBench(t)
	c := b.login()
	s := b.open(c)
	b.store.Store = lost{b.store.Store}
	var down *session.StoreError
	if _, err := b.Logout(t.Context(), s); !errors.As(err, &down) {
		t.Errorf("End: error = %v, want *StoreError", err)
	}
	b.endedBy(c, session.Logout)
}

// ... nor may a request that was reading it meanwhile put it back there.
func TestAnEndWithoutAnAnswerReachesOpeningsUnderWay(t *testing.T) {
	b := newBench(t, inMemory)
	c := b.login()
	b.forget()
	b.store.set(func(op string) error {
		if op == "loaded" { // it lives, says the store; and then it ends
			b.store.set(failing("ended_tagged"))
			b.EndSID(t.Context(), "sid-1", backChannel)
			b.store.set(nil)
		}
		return nil
	})
	b.endedBy(c, session.BackChannel)
}

// Whatever comes of reading a session, it is not being read for ever.
func TestNothingIsLeftOfOpenings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		none := func(what string) {
			t.Helper()
			synctest.Wait()
			if n := session.Openings(b.manager); n != 0 {
				t.Errorf("after %s: %d sessions are being opened, want none", what, n)
			}
		}
		b.store.set(failing("create"))
		b.tryLogin()
		none("a login that failed")
		b.forget()
		b.store.set(failing("load"))
		b.token(c)
		none("a look-up that failed")
		b.store.set(nil)
		b.mustToken(c)
		none("a look-up")
		time.Sleep(tokenTTL)
		b.store.set(failing("acquire"))
		b.token(c)
		none("a refresh that failed")
		b.store.set(nil)
		time.Sleep(10 * time.Second)
		b.mustToken(c)
		none("a refresh")
		b.logout(c)
		b.token(c)
		none("a look-up of an ended session")
	})
}

// A reload reads what is open again; it must not refuse who logs in meanwhile.
func TestALoginDuringAReloadSucceeds(t *testing.T) {
	b := newBench(t)
	b.store.set(func(op string) error {
		if op == "create" {
			b.manager.Reconfigure(b.config.Keys, idle, lifetime)
		}
		return nil
	})
	b.mustToken(b.login())
}

// DESIGN.md, section 4: idle may come late, never early.
func TestTheSweepSparesWhomTheStoreWasNotToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		time.Sleep(idle - time.Minute)
		b.store.set(func(op string) error {
			if op == "touch" {
				return errDown
			}
			return nil
		})
		b.open(c).Use()
		time.Sleep(10 * time.Minute) // several sweeps, while uses are not taken
		b.store.set(nil)
		b.open(c)
		if _, err := b.store.Load(t.Context(), b.open(c).Key()); err != nil {
			t.Errorf("Load: %v, want a live session: it was used 10 minutes ago", err)
		}
	})
}

// slowTouch is a store that takes long to write uses.
type slowTouch struct {
	session.Store
	wait time.Duration
}

func (s slowTouch) Touch(ctx context.Context, t []session.Touch) error {
	time.Sleep(s.wait)
	return s.Store.Touch(ctx, t)
}

func TestTheSweepSparesWhoCameWhileUsesWereWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wait = 40 * time.Second
		b := newBench(t, func(b *bench) { b.config.Store = slowTouch{b.store, wait} })
		c, other := b.login(), b.login()
		time.Sleep(idle + time.Minute - 500*time.Millisecond)
		b.open(other).Use()
		time.Sleep(2 * time.Second) // a sweep waits until the other's use is written
		b.open(c).Use()             // in time: idle ends half a minute from now
		time.Sleep(wait + time.Minute)
		if _, err := b.store.Load(t.Context(), b.open(c).Key()); err != nil {
			t.Errorf("Load: %v, want a live session", err)
		}
	})
}

// crowd counts how many revocations are under way at once.
type crowd struct {
	refresher
	now, most, all atomic.Int32
}

func (c *crowd) Revoke(ctx context.Context, _, _ string) error {
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	select {
	case <-time.After(time.Second):
		c.all.Add(1)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// When many sessions end together, as at a reload that drops an app, the provider
// is not asked to revoke all of their tokens at once, and in the end is asked all.
func TestTokensOfManySessionsAreRevokedAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions = 1000
		var provider crowd
		b := newBench(t, func(b *bench) { provider.refresher = refresher{b.provider}; b.app.Refresher = &provider })
		var wg sync.WaitGroup
		for i := range sessions {
			wg.Go(func() { b.login(func(l *session.Login) { l.Subject = strconv.Itoa(i) }) })
		}
		wg.Wait()
		if err := b.manager.Retire(t.Context(), b.App); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if most, all := provider.most.Load(), provider.all.Load(); most > 64 || all != sessions {
			t.Errorf("%d revoked, %d at once; want %d, and at most 64 at once", all, most, sessions)
		}
	})
}

// A process that sleeps on its lease may write late. Whoever meets that write has
// a session, and an answer that says when to come back.
func TestAMarkThatMeetsALateWriteIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		time.Sleep(tokenTTL + time.Second)
		b.store.set(func(op string) error {
			if op == "replace" {
				return session.ErrConflict
			}
			return nil
		})
		var later *session.Unavailable
		if _, err := b.token(c); !errors.As(err, &later) {
			t.Errorf("error = %v, want *Unavailable", err)
		}
		if calls, _ := b.provider.seen(); calls != 0 {
			t.Errorf("%d token calls without a mark, want 0", calls)
		}
		b.store.set(nil)
		b.mustToken(c)
	})
}

// A browser that hangs up while its session ends leaves no session that ended
// half: done in the store, and neither told nor revoked.
func TestAHangUpDoesNotStopAnEnd(t *testing.T) {
	b := newBench(t)
	c := b.login()
	ctx, cancel := context.WithCancel(t.Context())
	b.store.set(func(op string) error {
		if op == "end" {
			cancel()
		}
		return nil
	})
	if idToken, err := b.Logout(ctx, b.open(c)); err != nil || idToken == "" {
		t.Errorf("Logout: %v", err)
	}
	b.endedBy(c, session.Logout)
}

// The browser gets no cookie then, so the new session would be nobody's.
func TestALoginThatCannotEndTheFormerSessionLeavesNone(t *testing.T) {
	b := newBench(t)
	former := b.open(b.login()).Key()
	ends := 0
	b.store.set(func(op string) error {
		if op == "end" {
			if ends++; ends == 1 {
				return errDown
			}
		}
		return nil
	})
	var down *session.StoreError
	l := session.Login{Subject: "ada", Token: b.provider.issue(), Former: []session.Key{former}}
	if _, _, err := b.Create(t.Context(), l); !errors.As(err, &down) {
		t.Fatalf("Create: error = %v, want *StoreError", err)
	}
	if n, err := b.store.Count(t.Context()); err != nil || n != 1 {
		t.Errorf("Count = %d, %v, want the former session alone", n, err)
	}
}

func TestAReloadThatReplacesAllKeysStillRetires(t *testing.T) {
	b := newBench(t)
	b.login()
	b.manager.Reconfigure(newKeys(t, keyB), idle, lifetime)
	if err := b.manager.Retire(t.Context(), b.App); err != nil {
		t.Fatal(err)
	}
	if n, err := b.store.Count(t.Context()); err != nil || n != 0 {
		t.Errorf("Count = %d, %v, want none", n, err)
	}
}
