package session_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// RF-04, pains 1: rotation punishes every second call.
func TestParallelRequestsAtExpiryShareOneTokenCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		old := b.mustToken(c)
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.Before = func() { time.Sleep(time.Second) } })
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if got, err := b.token(c); err != nil || got == old {
					t.Errorf("token = %v, %v; want a new one", got == old, err)
				}
			})
		}
		wg.Wait()
		if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 {
			t.Errorf("token calls = %d, reuses = %d, want 1 and 0", calls, reuses)
		}
	})
}

// RF-05: what one process refreshed, another reads instead of asking again.
func TestReplicasShareOneTokenCall(t *testing.T) {
	for _, slow := range []time.Duration{0, time.Second, 40 * time.Second} { // beyond the lease, too
		t.Run("provider takes "+slow.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, func(b *bench) { b.app.TokenTimeout = time.Minute })
				replicas := []*bench{b, b.replica(), b.replica()}
				b.provider.set(func(p *provider) { p.Before = func() { time.Sleep(slow) } })
				c := b.login()
				for _, r := range replicas {
					r.mustToken(c)
				}
				for expiry := range 5 {
					time.Sleep(tokenTTL)
					var wg sync.WaitGroup
					for i := range 60 {
						wg.Go(func() { replicas[i%3].mustToken(c) })
					}
					wg.Wait()
					if calls, reuses := b.provider.seen(); calls != expiry+1 || reuses != 0 {
						t.Fatalf("expiry %d: token calls = %d, reuses = %d", expiry+1, calls, reuses)
					}
				}
			})
		})
	}
}

// A holder that lost its lease finds that somebody else's write came first, and
// discards its own.
func TestALateWriteIsFencedByTheVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(b *bench) { b.app.TokenTimeout = time.Minute })
		r := b.replica()
		c := b.login()
		b.mustToken(c)
		r.mustToken(c)
		time.Sleep(tokenTTL)
		b.store.set(func(op string) error {
			if op == "renew" {
				return errDown
			}
			return nil
		})
		slow := time.Minute - time.Second
		b.provider.set(func(p *provider) {
			p.Shape = func(tok *oauth2.Token) *oauth2.Token { // this one does not rotate
				p.mu.Lock()
				defer p.mu.Unlock()
				for rt := range p.current {
					p.current[rt] = true
				}
				tok.RefreshToken = ""
				return tok
			}
			p.After = func() error {
				p.mu.Lock()
				d := slow
				slow = 0
				p.mu.Unlock()
				time.Sleep(d)
				return nil
			}
		})
		var late, early string
		var wg sync.WaitGroup
		wg.Go(func() { late = b.mustToken(c) })
		synctest.Wait()
		wg.Go(func() { early = r.mustToken(c) })
		wg.Wait()
		if late != early {
			t.Error("the late answer was used, the store has another")
		}
		b.restart()
		if b.mustToken(c) != early {
			t.Error("the late answer was written over the newer one")
		}
	})
}

// What a refresh costs the store: a lease, a look, the mark and the answer.
func TestARefreshAsksTheStoreNoMoreThanItMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		b.mustToken(c)
		time.Sleep(tokenTTL - time.Millisecond)
		var mu sync.Mutex
		var ops []string
		b.store.set(func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			if op != "sweep" {
				ops = append(ops, op)
			}
			return nil
		})
		time.Sleep(time.Millisecond)
		b.mustToken(c)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"acquire", "load", "loaded", "replace", "replaced", "replace", "replaced"}; !slices.Equal(ops, want) {
			t.Errorf("asked for %q, want %q", ops, want)
		}
	})
}

// A request keeps the session it found, whether or not others still find it in
// memory.
func TestASessionThatWasEvictedIsRefreshedForWhoHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		b.forget()
		time.Sleep(tokenTTL)
		first, err := s.AccessToken(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		second, err := s.AccessToken(t.Context())
		if err != nil || first != second {
			t.Errorf("the next call: %v, or another token", err)
		}
		if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 {
			t.Errorf("token calls = %d, reuses = %d, want 1 and 0", calls, reuses)
		}
	})
}

func TestInsideTheWindowTheTokenIsUsedAndRefreshedBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		old := b.mustToken(c)
		time.Sleep(tokenTTL - time.Minute + time.Second)
		b.provider.set(func(p *provider) { p.Before = func() { time.Sleep(3 * time.Second) } })
		begin := time.Now()
		if got := b.mustToken(c); got != old || time.Since(begin) != 0 {
			t.Errorf("request inside the window waited %v or got another token", time.Since(begin))
		}
		time.Sleep(4 * time.Second)
		if got := b.mustToken(c); got == old {
			t.Error("token was not refreshed in the background")
		}
		if calls, _ := b.provider.seen(); calls != 1 {
			t.Errorf("token calls = %d, want 1", calls)
		}
	})
}

// Pains 7 and 8: the window is a fifth of a short life.
func TestTokenCallsPerLifetime(t *testing.T) {
	for _, ttl := range []time.Duration{5 * time.Second, time.Minute, time.Hour} {
		t.Run(ttl.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, func(b *bench) { b.provider.TTL = ttl; b.config.IdleTimeout = 11 * time.Hour })
				c := b.login()
				for range 1000 {
					b.mustToken(c)
					time.Sleep(ttl / 100)
				}
				if calls, reuses := b.provider.seen(); calls < 9 || calls > 13 || reuses != 0 {
					t.Errorf("10 lifetimes of requests: %d token calls, %d reuses, want about 10 and none", calls, reuses)
				}
			})
		})
	}
}

// RF-07, pains 3.
func TestABrowserThatHangsUpLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		s := b.open(c)
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.Before = func() { time.Sleep(2 * time.Second) } })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := s.AccessToken(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error = %v, want the request's own", err)
		}
		time.Sleep(3 * time.Second)
		b.mustToken(c)
		b.restart()
		b.mustToken(c)
		if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 {
			t.Errorf("token calls = %d, reuses = %d, want 1 and 0", calls, reuses)
		}
	})
}

// DESIGN.md, section 5, row by row: what a failed refresh means while the token
// is valid, and when it has run out.
func TestOnlyTheProvidersRefusalEndsASession(t *testing.T) {
	rows := []struct {
		name    string
		err     error
		expired string // code of the answer when the token has run out
	}{
		{"provider is down", &session.Outage{Answered: true, Err: errors.New("refused")}, "refresh_unavailable"},
		{"provider answers 503", &session.Outage{Answered: true, RetryAfter: 3 * time.Second, Err: errors.New("503")}, "refresh_unavailable"},
		{"provider answers 500", &session.Outage{Err: errors.New("500")}, "refresh_unavailable"},
		{"provider is slow", &session.Outage{Err: context.DeadlineExceeded}, "refresh_unavailable"},
		{"invalid_client is the operator's", &session.Outage{Answered: true, Operator: true, Err: errors.New("invalid_client")}, "refresh_unavailable"},
		{"an error nobody knows", errors.New("what is this"), "refresh_unavailable"},
		{"invalid_grant", session.ErrRejected, "session_ended"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				c := b.login()
				b.provider.set(func(p *provider) { p.Fail = row.err })
				time.Sleep(tokenTTL - 30*time.Second)
				b.mustToken(c) // valid: goes on
				synctest.Wait()
				time.Sleep(30 * time.Second)
				_, err := b.token(c)
				var code interface{ Code() string }
				if !errors.As(err, &code) || code.Code() != row.expired {
					t.Fatalf("expired token: error = %v, want code %s", err, row.expired)
				}
				if row.expired == "session_ended" {
					b.endedBy(c, session.RefreshRejected)
					return
				}
				b.provider.set(func(p *provider) { p.Fail = nil })
				time.Sleep(10 * time.Second)
				b.mustToken(c) // nobody was logged out
			})
		})
	}
}

// Pains 5: an outage is no reason to hammer.
func TestAnOutageIsAskedAboutSparingly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c, other := b.login(), b.login()
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.Fail = &session.Outage{Answered: true, Err: errors.New("503")} })
		for range 600 { // a minute of ten requests a second
			b.token(c)
			b.token(other)
			time.Sleep(100 * time.Millisecond)
		}
		calls, _ := b.provider.seen()
		if calls < 5 || calls > 40 {
			t.Errorf("%d token calls in a minute of outage, want a few", calls)
		}
		b.provider.set(func(p *provider) { p.Fail = nil })
		time.Sleep(10 * time.Second)
		b.mustToken(c)
		b.mustToken(other)
	})
}

// The stampede: many sessions, each asking for the first time.
func TestAProviderThatIsDownIsNotAskedByEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var all []*http.Cookie
		for range 500 {
			all = append(all, b.login())
		}
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.Fail = &session.Outage{Answered: true, Err: errors.New("503")} })
		for _, c := range all {
			b.token(c)
			time.Sleep(20 * time.Millisecond)
		}
		if calls, _ := b.provider.seen(); calls > 20 {
			t.Errorf("%d token calls in ten seconds of outage", calls)
		}
		b.provider.set(func(p *provider) { p.Fail = nil })
		time.Sleep(10 * time.Second)
		for _, c := range all {
			b.mustToken(c)
		}
	})
}

// Calls that were under way when a provider went away fail together. That is one
// outage, and not as many as there are calls: a second after a blip all is well.
func TestABlipHoldsNobodyUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		var all []*http.Cookie
		for range 100 {
			all = append(all, b.login())
		}
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) {
			p.Fail = &session.Outage{Err: errors.New("connection reset")}
			p.Before = func() { time.Sleep(10 * time.Millisecond) }
		})
		for _, c := range all {
			go b.token(c)
		}
		synctest.Wait()
		time.Sleep(20 * time.Millisecond)
		if calls, _ := b.provider.seen(); calls != len(all) {
			t.Fatalf("%d token calls, want all at once", calls)
		}
		b.provider.set(func(p *provider) { p.Fail, p.Before = nil, nil })
		time.Sleep(time.Second)
		for _, c := range all {
			b.mustToken(c)
		}
	})
}

// One session that fails while others do not pauses all the same.
func TestASessionsOwnTroubleIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c, well := b.login(), b.login()
		time.Sleep(tokenTTL)
		failing := 0
		for range 300 { // half a minute
			b.provider.set(func(p *provider) { p.Fail = nil; p.TTL = 10 * time.Millisecond })
			b.mustToken(well)
			before, _ := b.provider.seen()
			b.provider.set(func(p *provider) { p.Fail = &session.Outage{Answered: true, Err: errors.New("invalid_scope")} })
			b.token(c)
			after, _ := b.provider.seen()
			failing += after - before
			time.Sleep(100 * time.Millisecond)
		}
		if failing > 20 {
			t.Errorf("%d failing token calls in half a minute", failing)
		}
	})
}

func TestARefreshDoesNotOutliveTheSession(t *testing.T) { // RF-12
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(b *bench) { b.config.IdleTimeout = lifetime })
		s := b.open(b.login())
		b.store.set(func(op string) error {
			if op == "sweep" { // here it is the refresh that finds out
				return errDown
			}
			return nil
		})
		time.Sleep(lifetime)
		_, err := s.AccessToken(t.Context())
		var end *session.Ended
		if !errors.As(err, &end) || end.Reason != session.Lifetime {
			t.Errorf("error = %v, want ended by lifetime", err)
		}
		if calls, _ := b.provider.seen(); calls != 0 {
			t.Errorf("token calls = %d, want none", calls)
		}
	})
}

func TestAfterInvalidGrantNobodyAsksAgain(t *testing.T) { // RF-08
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.Fail = session.ErrRejected })
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { b.endedBy(c, session.RefreshRejected) })
		}
		wg.Wait()
		b.restart()
		b.endedBy(c, session.RefreshRejected)
		if calls, _ := b.provider.seen(); calls != 1 {
			t.Errorf("token calls = %d, want 1", calls)
		}
	})
}

// Pains 6: what the answer lacks is kept.
func TestAnswersWithLess(t *testing.T) {
	rows := []struct {
		name  string
		shape func(*oauth2.Token) *oauth2.Token
		calls int // token calls in three more lifetimes
	}{
		{"without refresh token the old one is kept", func(t *oauth2.Token) *oauth2.Token { t.RefreshToken = ""; return t }, 3},
		{"without ID token the old one is kept", func(t *oauth2.Token) *oauth2.Token { return t }, 3},
		{"without expires_in it is valid until the session ends", func(t *oauth2.Token) *oauth2.Token { t.Expiry = time.Time{}; return t }, 1},
		{"with an ID token it becomes the logout hint", func(t *oauth2.Token) *oauth2.Token {
			return t.WithExtra(map[string]any{"id_token": "id-2"})
		}, 3},
	}
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				c := b.login()
				b.provider.set(func(p *provider) {
					p.Shape = func(tok *oauth2.Token) *oauth2.Token {
						for rt := range p.current { // this one does not rotate
							p.current[rt] = p.current[rt] || i == 0
						}
						return row.shape(tok)
					}
				})
				for range 3 {
					time.Sleep(tokenTTL + time.Second)
					b.mustToken(c)
				}
				calls, reuses := b.provider.seen()
				if calls != row.calls || reuses != 0 {
					t.Errorf("token calls = %d, reuses = %d, want %d and 0", calls, reuses, row.calls)
				}
				idToken, err := b.Logout(t.Context(), b.open(c))
				if err != nil {
					t.Fatal(err)
				}
				want := "id-1"
				if i == 3 {
					want = "id-2"
				}
				if idToken != want {
					t.Errorf("ID token = %q, want %q", idToken, want)
				}
			})
		})
	}
}

func TestWithoutRefreshTokenTheSessionEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login(func(l *session.Login) { l.Token.RefreshToken = "" })
		time.Sleep(tokenTTL - time.Second)
		b.mustToken(c)
		time.Sleep(time.Second)
		b.endedBy(c, session.TokenExpired)
		b.restart()
		b.endedBy(c, session.TokenExpired)
	})
}

// RF-13: the logout is told to the user, so it wins, and the token that comes too
// late is given back.
func TestLogoutDuringARefreshWins(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run("while the provider answers, "+when+" rotation", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				c := b.login()
				s := b.open(c)
				time.Sleep(tokenTTL)
				wait := func() { time.Sleep(2 * time.Second) }
				b.provider.set(func(p *provider) {
					if when == "before" {
						p.Before = wait
					} else {
						p.After = func() error { wait(); return nil }
					}
				})
				var got error
				var wg sync.WaitGroup
				wg.Go(func() { _, got = s.AccessToken(t.Context()) })
				time.Sleep(time.Second)
				if _, err := b.Logout(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				b.endedBy(c, session.Logout)
				wg.Wait()
				if !errors.Is(got, session.ErrAbsent) {
					t.Errorf("waiting request: error = %v, want ended", got)
				}
				synctest.Wait()
				b.endedBy(c, session.Logout)
				b.provider.mu.Lock()
				defer b.provider.mu.Unlock()
				for token, live := range b.provider.current {
					if live {
						t.Errorf("%.3s… is still live at the provider", token)
					}
				}
			})
		})
	}
}

// A second login of the browser meets the refresh of the first one's session.
func TestALoginDuringARefreshRevokesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		s := b.open(c)
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.After = func() error { time.Sleep(2 * time.Second); return nil } })
		go s.AccessToken(t.Context())
		time.Sleep(time.Second)
		second := b.login(func(l *session.Login) { l.Former = []session.Key{s.Key()} })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.endedBy(c, session.Replaced)
		b.mustToken(second)
		if n := len(b.provider.revoked); n != 0 {
			t.Errorf("%d tokens revoked: the provider may have one grant for both", n)
		}
	})
}

// Pains b10: the provider rotated, the store does not take it.
func TestStoreDownBetweenAnswerAndWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		time.Sleep(tokenTTL)
		down := func(op string) error {
			if op == "replace" || op == "load" {
				return errDown
			}
			return nil
		}
		b.provider.set(func(p *provider) { p.After = func() error { b.store.set(down); return nil } })
		for range 3 {
			_, err := b.token(c)
			var unknown *session.StoreError
			if !errors.As(err, &unknown) {
				t.Fatalf("error = %v, want a store error", err)
			}
			time.Sleep(20 * time.Second) // beyond the lease's first time
		}
		b.store.set(nil)
		time.Sleep(time.Second)
		b.mustToken(c)
		b.restart()
		b.mustToken(c)
		if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 {
			t.Errorf("token calls = %d, reuses = %d, want 1 and 0", calls, reuses)
		}
	})
}

func TestAWriteThatWasDoneButNotAnsweredIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		time.Sleep(tokenTTL)
		var n atomic.Int32
		b.store.set(func(op string) error {
			if op == "replaced" && n.Add(1) == 2 { // the first was the mark
				return errDown
			}
			return nil
		})
		b.token(c)
		time.Sleep(5 * time.Second)
		b.mustToken(c)
		if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 {
			t.Errorf("token calls = %d, reuses = %d, want 1 and 0", calls, reuses)
		}
		// One server may have it, where several were asked for.
		if n.Load() != 3 {
			t.Errorf("%d writes, want one that is answered after the one that was not", n.Load())
		}
	})
}

// Promise 2: without the mark there is no call.
func TestStoreDownBeforeTheCallMakesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		time.Sleep(tokenTTL)
		b.store.set(func(op string) error {
			if op == "replace" {
				return errDown
			}
			return nil
		})
		_, err := b.token(c)
		var unknown *session.StoreError
		if !errors.As(err, &unknown) {
			t.Errorf("error = %v, want a store error", err)
		}
		if calls, _ := b.provider.seen(); calls != 0 {
			t.Errorf("token calls = %d, want none", calls)
		}
		b.store.set(nil)
		time.Sleep(5 * time.Second)
		b.mustToken(c)
	})
}

// Pains 2: the near miss. A request decides that the token is old, and asks for
// the lease only after the refresh that made it so is over.
func TestANearMissDoesNotRefreshAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		b.restart()
		time.Sleep(tokenTTL)
		// The late request reads the record before the rotation and goes on after it.
		var held atomic.Bool
		release := make(chan struct{})
		b.store.set(func(op string) error {
			if op == "loaded" && held.CompareAndSwap(false, true) {
				<-release
			}
			return nil
		})
		late := make(chan string)
		go func() { tok, _ := b.token(c); late <- tok }()
		synctest.Wait()
		first := b.mustToken(c)
		close(release)
		if got := <-late; got != first {
			t.Error("the late request has not got the token of the refresh before it")
		}
		if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 {
			t.Errorf("token calls = %d, reuses = %d, want 1 and 0", calls, reuses)
		}
	})
}

// After an attempt without an answer the same token is sent once more, as a
// refresh_ambiguous: the provider may have acted on the first, or not.
func TestALostAnswer(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		name := "before rotation costs nothing"
		if rotated {
			name = "after rotation ends the session"
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logs := &logBuffer{}
				b := newBench(t, logs.use)
				c := b.login()
				time.Sleep(tokenTTL)
				lost := &session.Outage{Err: context.DeadlineExceeded}
				b.provider.set(func(p *provider) {
					if rotated {
						p.After = func() error { return lost }
					} else {
						p.Fail = lost
					}
				})
				b.token(c)
				if n := logs.count("refresh_ambiguous"); n != 0 {
					t.Errorf("first call was announced as a second one")
				}
				b.provider.set(func(p *provider) { p.After, p.Fail = nil, nil })
				b.restart() // the mark is in the store, not in memory
				time.Sleep(5 * time.Second)
				defer func() {
					if n := logs.count("refresh_ambiguous"); n != 1 {
						t.Errorf("the second call was announced %d times as refresh_ambiguous, want once", n)
					}
				}()
				if rotated {
					b.endedBy(c, session.RefreshRejected)
				} else {
					b.mustToken(c)
				}
			})
		})
	}
}

// An answer that says that nothing was done leaves nothing ambiguous.
func TestAnAnsweredOutageIsNotAmbiguous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := &logBuffer{}
		b := newBench(t, logs.use)
		c := b.login()
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.Fail = &session.Outage{Answered: true, Err: errors.New("503")} })
		b.token(c)
		b.provider.set(func(p *provider) { p.Fail = nil })
		time.Sleep(10 * time.Second)
		b.mustToken(c)
		if n := logs.count("refresh_ambiguous"); n != 0 {
			t.Errorf("announced %d times as refresh_ambiguous", n)
		}
	})
}

// RF-11.
func TestIDTokenOfARefreshAnswer(t *testing.T) {
	withID := func(t *oauth2.Token) *oauth2.Token { return t.WithExtra(map[string]any{"id_token": "id-2"}) }
	t.Run("for somebody else ends the session and its tokens", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c := b.login()
			b.provider.set(func(p *provider) {
				p.Shape = withID
				p.Confirm = func(idToken, former string) error {
					if idToken != "id-2" || former != "id-1" {
						t.Errorf("Confirm(%q, %q)", idToken, former)
					}
					return session.ErrForeign
				}
			})
			time.Sleep(tokenTTL)
			b.endedBy(c, session.RefreshRejected)
			synctest.Wait()
			if n := len(b.provider.revoked); n != 1 {
				t.Errorf("%d tokens revoked, want the new one", n)
			}
		})
	})
	t.Run("that cannot be verified now leaves the old one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c := b.login()
			b.provider.set(func(p *provider) {
				p.Shape = withID
				p.Confirm = func(string, string) error { return errors.New("keys unreachable") }
			})
			time.Sleep(tokenTTL)
			b.mustToken(c)
			idToken, _ := b.Logout(t.Context(), b.open(c))
			if idToken != "id-1" {
				t.Errorf("ID token = %q, want the former", idToken)
			}
		})
	})
	t.Run("left unverified by a crash is verified before its tokens are used", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c := b.login()
			var n atomic.Int32
			b.store.set(func(op string) error {
				if op == "replace" && n.Add(1) == 3 { // mark, answer, verified
					return errDown
				}
				return nil
			})
			b.provider.set(func(p *provider) { p.Shape = withID })
			time.Sleep(tokenTTL)
			b.mustToken(c)
			b.restart()
			b.store.set(nil)
			b.provider.set(func(p *provider) { p.Confirm = func(string, string) error { return session.ErrForeign } })
			b.endedBy(c, session.RefreshRejected)
			if calls, _ := b.provider.seen(); calls != 1 {
				t.Errorf("token calls = %d, want 1", calls)
			}
		})
	})
}

// PX-10.
func TestRenewAfterAnUpstreams401(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		s := b.open(c)
		sent, _ := s.AccessToken(t.Context())
		var wg sync.WaitGroup
		b.provider.set(func(p *provider) { p.Before = func() { time.Sleep(time.Second) } })
		for range 20 {
			wg.Go(func() {
				if got, err := s.Renew(t.Context(), sent); err != nil || got == sent {
					t.Errorf("Renew: %v", err)
				}
			})
		}
		wg.Wait()
		fresh, _ := s.AccessToken(t.Context())
		if got, err := s.Renew(t.Context(), sent); err != nil || got != fresh {
			t.Errorf("Renew of an old token: %v, want the stored one", err)
		}
		if _, err := s.Renew(t.Context(), fresh); !errors.Is(err, session.ErrNoRenewal) {
			t.Errorf("second 401 on a fresh token: error = %v, want ErrNoRenewal", err)
		}
		if calls, _ := b.provider.seen(); calls != 1 {
			t.Errorf("token calls = %d, want 1", calls)
		}
		time.Sleep(5 * time.Minute)
		sent, _ = s.AccessToken(t.Context())
		if _, err := s.Renew(t.Context(), sent); err != nil {
			t.Errorf("Renew five minutes later: %v", err)
		}
	})
}

// Whoever comes between the first refusal and its refresh waits for it as well,
// and whoever comes right after has the new token.
func TestRenewOfAllWhoseTokenWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for range 300 {
			s := b.open(b.login())
			sent, _ := s.AccessToken(t.Context())
			before, _ := b.provider.seen()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if got, err := s.Renew(t.Context(), sent); err != nil || got == sent {
						t.Errorf("Renew: %v", err)
					}
				})
			}
			wg.Wait()
			if calls, _ := b.provider.seen(); calls != before+1 {
				t.Fatalf("token calls = %d, want 1", calls-before)
			}
		}
	})
}

// RF-07: whoever hangs up while the refresh goes on has had it. A client that does so
// again and again would make a storm of refreshes of an upstream that refuses all.
func TestHangingUpDoesNotGiveAnotherRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		s := b.open(b.login())
		before, _ := b.provider.seen()
		for range 10 {
			sent, err := s.AccessToken(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			gone, hangUp := context.WithCancel(t.Context())
			hangUp()
			_, _ = s.Renew(gone, sent)
			synctest.Wait()
		}
		if calls, _ := b.provider.seen(); calls != before+1 {
			t.Errorf("token calls = %d, want 1", calls-before)
		}
	})
}

func TestAnOutageDoesNotUseUpTheRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		s := b.open(b.login())
		sent, _ := s.AccessToken(t.Context())
		b.provider.set(func(p *provider) { p.Fail = &session.Outage{Answered: true, Err: errors.New("503")} })
		if _, err := s.Renew(t.Context(), sent); err == nil {
			t.Fatal("renewed in an outage")
		}
		b.provider.set(func(p *provider) { p.Fail = nil })
		time.Sleep(10 * time.Second)
		if _, err := s.Renew(t.Context(), sent); err != nil {
			t.Errorf("Renew after the outage: %v", err)
		}
	})
}

// OP-11: shutdown waits for the answer of the provider, and for its write.
func TestShutdownDuringARefreshKeepsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		s := b.open(c)
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.After = func() error { time.Sleep(3 * time.Second); return nil } })
		go s.AccessToken(t.Context())
		time.Sleep(time.Second)
		b.restart()
		b.mustToken(c)
		if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 {
			t.Errorf("token calls = %d, reuses = %d, want 1 and 0", calls, reuses)
		}
	})
}
