package session_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// attempts notes when a provider is asked to revoke something, in seconds since
// now, and answers by turns; the last answer stays.
func (b *bench) attempts(answers ...error) func() []int {
	var mu sync.Mutex
	var at []int
	begin := time.Now()
	b.provider.set(func(p *provider) {
		p.Revoking = func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, int(time.Since(begin)/time.Second))
			return answers[min(len(at), len(answers))-1]
		}
	})
	return func() []int {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(at)
	}
}

// hang makes the provider answer no revocation.
func (p *provider) hang() {
	p.set(func(p *provider) {
		p.Revoking = func(ctx context.Context) error {
			<-ctx.Done()
			return &session.Outage{Err: ctx.Err()}
		}
	})
}

func (b *bench) logout(c *http.Cookie) {
	b.t.Helper()
	if _, err := b.Logout(b.t.Context(), b.open(c)); err != nil {
		b.t.Errorf("Logout: %v", err)
	}
}

// RV-02.
func TestARevocationIsTriedAgainInAnOutage(t *testing.T) {
	out := func(after time.Duration) error { return &session.Outage{RetryAfter: after, Err: errors.New("503")} }
	all := []int{0, 2, 6, 14, 30, 62, 122, 182, 242, 302, 362, 422, 482, 542}
	rows := []struct {
		name      string
		answers   []error
		want      []int // seconds after the logout
		unrevoked int
	}{
		{"none", []error{nil}, []int{0}, 0},
		{"a short one", []error{out(0), out(0), nil}, []int{0, 2, 6}, 0},
		{"one that does not end in ten minutes", []error{out(0)}, all, 1},
		{"one that says when it ends", []error{out(45 * time.Second), out(20 * time.Second), nil}, []int{0, 45, 65}, 0},
		{"one that says less than is decent", []error{out(time.Second)}, all, 1},
		{"one that ends too late", []error{out(time.Hour)}, []int{0}, 1},
		{"one that is wrapped", []error{errors.Join(out(0)), nil}, []int{0, 2}, 0},
		{"another error is for good", []error{errors.New("400")}, []int{0}, 1},
		{"an outage and then another error", []error{out(0), errors.New("400")}, []int{0, 2}, 1},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logs := &logBuffer{}
				b := newBench(t, inMemory, logs.use)
				c := b.login()
				got := b.attempts(row.answers...)
				b.logout(c)
				time.Sleep(10*time.Minute - time.Second)
				if n := logs.count("revocation_failed"); row.want[len(row.want)-1] == 542 && n != 0 {
					t.Error("given up before ten minutes")
				}
				time.Sleep(time.Hour)
				if got := got(); !slices.Equal(got, row.want) {
					t.Errorf("asked at %v, want %v", got, row.want)
				}
				if got := b.unrevoked(); got != row.unrevoked {
					t.Errorf("%d counted as unrevoked, want %d", got, row.unrevoked)
				}
				if n := logs.count("revocation_failed"); n != row.unrevoked {
					t.Errorf("%d lines in the log, want %d", n, row.unrevoked)
				}
			})
		})
	}
}

// An attempt is bounded like every call of the provider's.
func TestAProviderThatHangsIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		var calls atomic.Int32
		b.provider.set(func(p *provider) {
			p.Revoking = func(ctx context.Context) error {
				if calls.Add(1) == 2 {
					return nil
				}
				<-ctx.Done()
				return &session.Outage{Err: ctx.Err()}
			}
		})
		b.logout(c)
		time.Sleep(10*time.Second + 2*time.Second - time.Second)
		if n := calls.Load(); n != 1 {
			t.Errorf("asked %d times in 11 seconds, want once", n)
		}
		time.Sleep(time.Second + time.Millisecond)
		if got := b.provider.takenBack(); len(got) != 1 || b.unrevoked() != 0 {
			t.Errorf("%d tokens revoked, want one", len(got))
		}
	})
}

// RV-01: the endpoint sees the current refresh token, once.
func TestTheNewestTokenIsGivenBack(t *testing.T) {
	for _, e := range slices.Concat(calledEnds, comingEnds) {
		t.Run(e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logs := &logBuffer{}
				b := newBench(t, inMemory, logs.use, func(b *bench) {
					if e.change != nil {
						e.change(b)
					}
				})
				c := b.login(func(l *session.Login) {
					if e.reason == session.TokenExpired {
						l.Token.RefreshToken = ""
					}
				})
				b.watch(b.open(c))
				var newest string
				if e.reason != session.TokenExpired {
					b.provider.set(func(p *provider) {
						p.Shape = func(t *oauth2.Token) *oauth2.Token { newest = t.RefreshToken; return t }
					})
					time.Sleep(tokenTTL)
					b.mustToken(c)
					b.provider.set(func(p *provider) { p.Shape = nil })
				}
				b.forget()                    // a stream has it open
				b.store.set(failing("sweep")) // which might be faster
				e.end(b, c)
				time.Sleep(time.Minute)
				want := []string{newest}
				switch {
				case e.reason == session.Replaced, e.reason == session.TokenExpired:
					want = nil // dropped, or there is none
				case e.name == "the provider rejects the refresh token":
					want = nil
				case e.name == "a refresh brings somebody else's ID token":
					want = b.provider.takenBack() // the one that came with it; see TestIDTokenOfARefreshAnswer
				}
				if got := b.provider.takenBack(); !slices.Equal(got, want) {
					t.Errorf("revoked %.8q, want %.8q", got, want)
				}
				if got := b.unrevoked(); got != 0 {
					t.Errorf("%d counted as unrevoked, want none", got)
				}
				if counted, logged := b.counted("sessiongate_sessions_ended_total"), logs.count("session_ended"); counted != 1 || logged != 1 {
					t.Errorf("the end was counted %d times and logged %d times, want once", counted, logged)
				}
			})
		})
	}
}

// RF-13: whoever ends a session gives back the tokens it knows of. A refresh that
// was written just before, and is not known yet, brings newer ones.
func TestATokenThatCameJustBeforeTheEndIsGivenBack(t *testing.T) {
	for _, e := range []ending{
		{"in memory", session.BackChannel, nil, remote(session.BackChannel, false), false},
		{"put out of memory meanwhile", session.FrontChannel, nil, func(b *bench, c *http.Cookie) time.Time {
			b.forget()
			return remote(session.FrontChannel, true)(b, c)
		}, false},
		{"opened anew meanwhile", session.BackChannel, nil, func(b *bench, c *http.Cookie) time.Time {
			b.forget()
			b.open(c)
			return remote(session.BackChannel, true)(b, c)
		}, false},
		{"logged out", session.Logout, nil, calledEnds[0].end, false},
	} {
		t.Run(e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				c := b.login()
				s := b.open(c)
				time.Sleep(tokenTTL)
				writes := 0
				b.store.set(func(op string) error {
					if op == "replaced" {
						if writes++; writes == 2 { // the first was the mark
							b.store.set(nil)
							e.end(b, c)
						}
					}
					return nil
				})
				var end *session.Ended
				if _, err := s.AccessToken(t.Context()); !errors.As(err, &end) || end.Reason != e.reason {
					t.Errorf("the refresh: error = %v, want ended by %s", err, e.reason)
				}
				synctest.Wait()
				for token, live := range b.provider.current {
					if live {
						t.Errorf("%.3s… is still good", token)
					}
				}
			})
		})
	}
}

// ... but not at a login of the same browser, which may share the grant.
func TestATokenThatCameJustBeforeANewLoginIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		time.Sleep(tokenTTL)
		writes := 0
		b.store.set(func(op string) error {
			if op == "replaced" {
				if writes++; writes == 2 {
					b.store.set(nil)
					b.login(func(l *session.Login) { l.Former = []session.Key{s.Key()} })
				}
			}
			return nil
		})
		if _, err := s.AccessToken(t.Context()); !errors.Is(err, session.ErrAbsent) {
			t.Errorf("the refresh: error = %v, want ended", err)
		}
		synctest.Wait()
		if n := len(b.provider.takenBack()); n != 0 {
			t.Errorf("%d tokens revoked, want none", n)
		}
	})
}

// Who refreshes has not the object that a stream has: both know the token then.
func TestARefreshBesideAStreamGivesTheNewTokenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		before := b.open(b.login())
		b.forget()
		b.watch(b.again(before))
		b.forget()
		time.Sleep(tokenTTL)
		var newest string
		b.provider.set(func(p *provider) {
			p.Shape = func(t *oauth2.Token) *oauth2.Token { newest = t.RefreshToken; return t }
		})
		if _, err := before.AccessToken(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.EndSID(t.Context(), "sid-1", backChannel); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := b.provider.takenBack(); !slices.Equal(got, []string{newest}) {
			t.Errorf("revoked %.8q, want %.8q", got, newest)
		}
	})
}

// A reload meanwhile is no end.
func TestARefreshDuringAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		old := b.mustToken(c)
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.After = func() error { b.forget(); return nil } })
		fresh := b.mustToken(c)
		if got := b.mustToken(c); fresh == old || got != fresh {
			t.Error("the new token is not the session's")
		}
		if calls, reuses := b.provider.seen(); calls != 1 || reuses != 0 || len(b.provider.takenBack()) != 0 {
			t.Errorf("%d token calls, %d reuses, %d tokens revoked, want one and none", calls, reuses, len(b.provider.takenBack()))
		}
	})
}

// RFC 7009 lets the access token be given back where there is no other.
func TestTheAccessTokenIsGivenBackWhereThereIsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		var access string
		c := b.login(func(l *session.Login) { l.Token.RefreshToken, access = "", l.Token.AccessToken })
		b.logout(c)
		synctest.Wait()
		if want := [][2]string{{"", access}}; !slices.Equal(b.provider.asked, want) {
			t.Errorf("asked to revoke %d tokens, want the access token", len(b.provider.asked))
		}
	})
}

// Of a record that somebody wrote over, the tokens are gone. It is over all the same.
func TestALogoutOfARecordThatCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		s := b.open(c)
		if err := b.store.Replace(t.Context(), s.Key(), 1, []byte("junk")); err != nil {
			t.Fatal(err)
		}
		if idToken, err := b.Logout(t.Context(), s); idToken != "" || err != nil {
			t.Errorf("Logout = %q, %v, want no ID token", idToken, err)
		}
		b.endedBy(c, session.Logout)
		synctest.Wait()
		if n := len(b.provider.asked); n != 0 {
			t.Errorf("asked to revoke %d times, of no token", n)
		}
	})
}

// Once its tombstone is forgotten, nothing is known of it.
func TestALogoutOfASessionThatIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		time.Sleep(lifetime + 2*session.TombstoneGrace)
		if _, err := b.Logout(t.Context(), s); !errors.Is(err, session.ErrNone) {
			t.Errorf("Logout: error = %v, want ErrNone", err)
		}
	})
}

// A refresh that finds the session over by the clock has its tokens in hand.
func TestARefreshThatFindsTheLifetimeOverGivesTheTokenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, func(b *bench) { b.config.IdleTimeout = lifetime })
		s := b.open(b.login())
		b.store.set(failing("sweep"))
		time.Sleep(lifetime)
		var end *session.Ended
		if _, err := s.AccessToken(t.Context()); !errors.As(err, &end) || end.Reason != session.Lifetime {
			t.Errorf("error = %v, want ended by lifetime", err)
		}
		synctest.Wait()
		if got := b.provider.takenBack(); len(got) != 1 {
			t.Errorf("%d tokens revoked, want one", len(got))
		}
	})
}

// RV-02: never blocked longer than a short budget.
func TestALogoutWaitsForItsRevocationBriefly(t *testing.T) {
	for _, row := range []struct {
		name     string
		provider func(context.Context) error
		want     time.Duration
	}{
		{"one that answers", func(context.Context) error { return nil }, 0},
		{"one that takes a while", func(context.Context) error { time.Sleep(300 * time.Millisecond); return nil }, 300 * time.Millisecond},
		{"one that refuses", func(context.Context) error { return errors.New("400") }, 0},
		{"one that hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 500 * time.Millisecond},
		{"one that is down", func(context.Context) error { return &session.Outage{Err: errors.New("503")} }, 500 * time.Millisecond},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				c := b.login()
				b.provider.set(func(p *provider) { p.Revoking = row.provider })
				begin := time.Now()
				b.logout(c)
				if got := time.Since(begin); got != row.want {
					t.Errorf("Logout took %v, want %v", got, row.want)
				}
				b.endedBy(c, session.Logout) // LO-01
			})
		})
	}
}

// logins makes sessions of as many users.
func (b *bench) logins(n int) (all []*http.Cookie) {
	b.t.Helper()
	for i := range n {
		all = append(all, b.login(func(l *session.Login) { l.Subject, l.SID = strconv.Itoa(i), "" }))
	}
	return all
}

// A provider that hangs holds up 32 calls, and nobody else's.
func TestRevocationsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		well := newProvider()
		other := b.sibling(func(c *session.AppConfig) { c.Origin, c.Refresher = otherOrigin, refresher{well} })
		other.provider = well
		all := b.logins(100)
		theirs := other.logins(5)
		b.provider.hang()
		for _, c := range all {
			b.logout(c)
		}
		synctest.Wait()
		b.provider.mu.Lock()
		if n := len(b.provider.asked); n < 32 { // a call ends after ten seconds, and its place is another's
			t.Errorf("asked %d times, want 32", n)
		}
		b.provider.mu.Unlock()
		begin := time.Now()
		for _, c := range theirs {
			other.logout(c)
		}
		if took := time.Since(begin); took != 0 || len(well.takenBack()) != 5 {
			t.Errorf("the other app's logouts took %v, and %d of 5 tokens were revoked", took, len(well.takenBack()))
		}
		b.provider.set(func(p *provider) { p.Revoking = nil })
		time.Sleep(2 * time.Minute)
		if got := len(b.provider.takenBack()); got != 100 || b.unrevoked() != 0 {
			t.Errorf("%d of 100 tokens revoked after the outage", got)
		}
	})
}

func TestNoMoreThan32RevocationsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var provider crowd
		b := newBench(t, inMemory, func(b *bench) { provider.refresher = refresher{b.provider}; b.app.Refresher = &provider })
		b.logins(100)
		if err := b.manager.Retire(t.Context(), b.App); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4*time.Second + time.Millisecond)
		if most, all := provider.most.Load(), provider.all.Load(); most != 32 || all != 100 {
			t.Errorf("%d at once, %d in four seconds, want 32 and 100", most, all)
		}
	})
}

// OP-11, RV-03: what is under way is finished, what waits is given up and counted.
func TestShutdownDuringRevocations(t *testing.T) {
	t.Run("under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, inMemory)
			c := b.login()
			b.provider.set(func(p *provider) {
				p.Revoking = func(context.Context) error { time.Sleep(3 * time.Second); return nil }
			})
			b.logout(c)
			begin := time.Now()
			b.stop()
			if took := time.Since(begin); took != 2500*time.Millisecond || len(b.provider.takenBack()) != 1 || b.unrevoked() != 0 {
				t.Errorf("Close took %v, %d tokens revoked, %d counted as unrevoked; want 2.5s, one, none", took, len(b.provider.takenBack()), b.unrevoked())
			}
		})
	})
	t.Run("waiting for another try", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			logs := &logBuffer{}
			b := newBench(t, inMemory, logs.use)
			all := b.logins(3)
			got := b.attempts(&session.Outage{Err: errors.New("503")})
			for _, c := range all {
				b.logout(c)
			}
			begin := time.Now()
			b.stop()
			if took := time.Since(begin); took != 0 || b.unrevoked() != 3 || logs.count("revocation_failed") != 3 {
				t.Errorf("Close took %v, %d counted as unrevoked, want no time and 3", took, b.unrevoked())
			}
			time.Sleep(time.Hour)
			if n := len(got()); n != 3 {
				t.Errorf("asked %d times, want 3", n)
			}
		})
	})
	t.Run("hanging", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, inMemory)
			all := b.logins(40) // and some wait for their turn
			b.provider.hang()
			for _, c := range all {
				go b.logout(c)
			}
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			begin := time.Now()
			if err := b.manager.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: error = %v, want that its time was over", err)
			}
			if took := time.Since(begin); took != 900*time.Millisecond || b.unrevoked() != 40 {
				t.Errorf("Close took %v, %d counted as unrevoked, want most of its second and 40", took, b.unrevoked())
			}
		})
	})
	t.Run("over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, inMemory)
			c := b.login()
			s := b.open(c)
			b.stop()
			begin := time.Now()
			if _, err := b.Logout(t.Context(), s); err != nil || time.Since(begin) != 0 {
				t.Errorf("Logout after Close: %v, in %v", err, time.Since(begin))
			}
			if len(b.provider.asked) != 0 || b.unrevoked() != 1 {
				t.Errorf("asked %d times, %d counted as unrevoked, want none and one", len(b.provider.asked), b.unrevoked())
			}
		})
	})
}
