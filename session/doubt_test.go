package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// Two looks at the store at once settle one doubt twice: the count falls below
// zero, and the next doubt (an end whose answer was lost) is never looked into.
func TestTwoLooksSettleADoubtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		s := b.open(c)
		o := b.watch(s)
		synctest.Wait()
		time.Sleep(time.Second)
		// A first doubt: an end that the store did not take.
		b.store.set(failing("end"))
		b.Logout(t.Context(), s)
		// The store answers again, slowly.
		b.store.set(func(op string) error {
			if op == "load" {
				time.Sleep(3 * time.Second)
			}
			return nil
		})
		time.Sleep(1500 * time.Millisecond) // the first look is under way
		b.forget()                          // a reload has another look taken
		time.Sleep(10 * time.Second)
		synctest.Wait()
		o.wantLive()
		// A second doubt: the end took place, and its answer is lost.
		s = b.open(c)
		b.store.set(failing("ended"))
		b.Logout(t.Context(), s)
		b.store.set(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.ends) != 1 {
			t.Errorf("told %q five seconds after the store was back, want logout", o.ends)
		}
	})
}

// The store is down while a reload removes an app: its streams go on.
func TestRetireDuringAnOutageReachesStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		o := b.watch(b.open(c), keepsAlive)
		b.store.set(failing("end_tagged"))
		if err := b.manager.Retire(t.Context(), b.App); err == nil {
			t.Fatal("want an outage")
		}
		b.store.set(nil)
		time.Sleep(8 * time.Hour)
		synctest.Wait()
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.ends) != 1 {
			t.Errorf("told %q eight hours after the app was removed and the store was back, want revoked", o.ends)
		}
	})
}

// The store is down while a reload removes an app, and another brings it back. What
// was before stays over, whoever finds out first, and what comes after lives.
func TestAnAppThatIsBackBeforeTheStore(t *testing.T) {
	for name, test := range map[string]struct {
		asks bool // before the store was told again
	}{
		"somebody comes with a session": {true},
		"nobody comes":                  {false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				c, idle := b.login(), b.login()
				o := b.watch(b.open(c), keepsAlive)
				b.store.set(failing("end_tagged"))
				if err := b.manager.Retire(t.Context(), b.App); err == nil {
					t.Fatal("want an outage")
				}
				b.reload()
				time.Sleep(time.Millisecond)
				later := b.login(func(l *session.Login) { l.FlowBegan = time.Now() })
				if test.asks {
					b.endedBy(idle, session.Revoked)
				}
				b.store.set(nil)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				o.mu.Lock()
				ends := len(o.ends)
				o.mu.Unlock()
				if ends != 1 {
					t.Errorf("a stream of the former app was told %d ends, want one", ends)
				}
				if n, err := b.store.Count(t.Context()); n != 1 || err != nil {
					t.Errorf("%d sessions, %v, want the one that came after", n, err)
				}
				b.endedBy(c, session.Revoked)
				b.endedBy(idle, session.Revoked)
				b.mustToken(later)
			})
		})
	}
}

// After a reload a stream keeps the session alive by another object than
// requests look at: what the browser is told falls to zero.
func TestTheIdleEndToldAfterAReloadKnowsOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		b.watch(b.open(c), keepsAlive)
		b.reload()
		time.Sleep(time.Minute)
		b.open(c) // a page asks for session
		time.Sleep(idle - 2*time.Minute)
		if in := b.open(c).View().IdleExpiresIn; in < idle*9/10 {
			t.Errorf("idle_expires_in = %v while a stream keeps the session alive, want about %v", in, idle)
		}
	})
}

// A request that began before an eviction watches by an old object: its tokens
// are those that are given back.
func TestALateWatchKeepsTheNewestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, func(b *bench) { b.config.CacheSize = 64 })
		c := b.login()
		old := b.open(c) // of a slow handshake
		b.evict(old)
		now := b.open(c)
		b.watch(now)
		time.Sleep(tokenTTL + time.Second)
		var newest string
		b.provider.set(func(p *provider) {
			p.Shape = func(tk *oauth2.Token) *oauth2.Token { newest = tk.RefreshToken; return tk }
		})
		b.mustToken(c) // refreshes
		b.evict(now)
		b.watch(old) // the slow upstream answered
		if _, err := b.EndSubject(t.Context(), "ada", session.RemoteLogout{Reason: session.BackChannel}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := b.provider.takenBack()
		if len(got) != 1 || got[0] != newest {
			t.Errorf("revoked %q, want the newest refresh token %q", got, newest)
		}
	})
}

// A store that takes no uses is a line of the log for each outage, not one for each
// second of it.
func TestUsesThatAreNotStoredAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs logBuffer
		b := newBench(t, inMemory, logs.use)
		c := b.login()
		for n := 1; n <= 2; n++ {
			b.store.set(failing("touch"))
			time.Sleep(idle / 10)
			b.open(c).Use()
			time.Sleep(time.Minute)
			if got := logs.count("store_unavailable"); got != n {
				t.Errorf("%d lines after a minute of outage %d, want one of each", got, n)
			}
			b.store.set(nil)
			time.Sleep(time.Minute)
		}
	})
}
