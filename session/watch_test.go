package session_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
)

// observer notes what it is told of a session, and when.
type observer struct {
	t    testing.TB
	stop func()

	mu        sync.Mutex // guards what follows
	ends      []session.Reason
	endedAt   time.Time
	refreshed int
	warnings  []warning
}

// warning is an end that was told to be near.
type warning struct {
	at time.Time
	in time.Duration
}

func (o *observer) watcher() session.Watcher {
	return session.Watcher{
		Ended: func(r session.Reason) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.ends, o.endedAt = append(o.ends, r), time.Now()
		},
		Refreshed: func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.refreshed++
		},
		Expiring: func(in time.Duration) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.warnings = append(o.warnings, warning{time.Now(), in})
		},
	}
}

// tryWatch watches a session until the test is over.
func (b *bench) tryWatch(s *session.Session, change ...func(*session.Watcher)) (*observer, error) {
	o := &observer{t: b.t}
	w := o.watcher()
	for _, f := range change {
		f(&w)
	}
	var err error
	o.stop, err = s.Watch(b.t.Context(), w)
	return o, err
}

func (b *bench) watch(s *session.Session, change ...func(*session.Watcher)) *observer {
	b.t.Helper()
	o, err := b.tryWatch(s, change...)
	if err != nil {
		b.t.Fatalf("Watch: %v", err)
	}
	return o
}

func keepsAlive(w *session.Watcher) { w.KeepsAlive = true }
func listens(w *session.Watcher)    { w.Listener = true }

// wantEnded wants one end to have been told, within a second of its moment.
func (o *observer) wantEnded(want session.Reason, moment time.Time) {
	o.t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ends) != 1 || o.ends[0] != want {
		o.t.Errorf("told %q, want %q once", o.ends, want)
		return
	}
	if late := o.endedAt.Sub(moment); late < 0 || late > time.Second {
		o.t.Errorf("told %s %v after its moment, want within a second", want, late)
	}
}

// told is when it was told the end.
func (o *observer) told() time.Time {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.endedAt
}

// wantLive wants no end to have been told.
func (o *observer) wantLive() {
	o.t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ends) != 0 {
		o.t.Errorf("told %q at %v, want nothing", o.ends, o.endedAt)
	}
}

// wantWarnings wants exactly these, each at its moment.
func (o *observer) wantWarnings(want ...warning) {
	o.t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	same := len(o.warnings) == len(want)
	for i := range min(len(want), len(o.warnings)) {
		same = same && o.warnings[i].at.Equal(want[i].at) && o.warnings[i].in == want[i].in
	}
	if !same {
		o.t.Errorf("told of ends near: %v, want %v", o.warnings, want)
	}
}

func (o *observer) wantRefreshed(want int) {
	o.t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refreshed != want {
		o.t.Errorf("told of %d refreshes, want %d", o.refreshed, want)
	}
}

// forget makes the manager open sessions anew, as a reload does.
func (b *bench) forget() {
	b.manager.Reconfigure(b.config.Keys, b.config.IdleTimeout, b.config.Lifetime)
}

// again opens a session for a later request.
func (b *bench) again(s *session.Session) *session.Session {
	b.t.Helper()
	return b.open(&http.Cookie{Name: b.CookieName(), Value: session.Cookie(s)})
}

// evict fills the memory with other sessions until this one is not in it.
func (b *bench) evict(s *session.Session) {
	b.t.Helper()
	for i := 0; session.Cached(s); i++ {
		b.login(func(l *session.Login) { l.Subject, l.SID = fmt.Sprint("other ", i), fmt.Sprint("other ", i) })
	}
}

// reload puts the app in force once more, as it is configured.
func (b *bench) reload() {
	b.t.Helper()
	app, err := b.manager.NewApp(b.app)
	if err != nil {
		b.t.Fatal(err)
	}
	b.App = app
}

// failing makes operations of a store fail.
func failing(ops ...string) func(string) error {
	return func(op string) error {
		for _, o := range ops {
			if o == op {
				return errDown
			}
		}
		return nil
	}
}

// count counts what a store is asked for.
func (h *hooked) count() *atomic.Int32 {
	var n atomic.Int32
	h.set(func(string) error { n.Add(1); return nil })
	return &n
}

// ending is a way by which a session ends.
type ending struct {
	name   string
	reason session.Reason
	change func(*bench)
	// end ends the session of a cookie and returns at what moment it was over.
	end func(b *bench, c *http.Cookie) time.Time
	all bool // it is everybody's end
}

// at is an end that is over when the call is.
func at(f func(b *bench, c *http.Cookie) error) func(*bench, *http.Cookie) time.Time {
	return func(b *bench, c *http.Cookie) time.Time {
		b.t.Helper()
		begin := time.Now()
		if err := f(b, c); err != nil {
			b.t.Errorf("end: %v", err)
		}
		return begin
	}
}

// found is an end that a request meets.
func found(f func(b *bench)) func(*bench, *http.Cookie) time.Time {
	return func(b *bench, c *http.Cookie) time.Time {
		b.t.Helper()
		f(b)
		var end *session.Ended
		if _, err := b.token(c); !errors.As(err, &end) {
			b.t.Errorf("error = %v, want ended", err)
		}
		return time.Now()
	}
}

// remote is an end that the provider tells of.
func remote(reason session.Reason, bySub bool) func(*bench, *http.Cookie) time.Time {
	return at(func(b *bench, _ *http.Cookie) error {
		l := session.RemoteLogout{Reason: reason}
		end, value := b.EndSID, "sid-1"
		if bySub {
			end, value = b.EndSubject, "ada"
		}
		n, err := end(b.t.Context(), value, l)
		return want(n, 1, err)
	})
}

func want(n, want int, err error) error {
	if err == nil && n != want {
		err = fmt.Errorf("%d ended, want %d", n, want)
	}
	return err
}

// idOf is what a list calls the session of a cookie.
func (b *bench) idOf(c *http.Cookie) string {
	b.t.Helper()
	all, err := b.Sessions(b.t.Context(), b.open(c))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range all {
		if l.Current {
			return l.ID
		}
	}
	b.t.Fatal("the session is not in its own list")
	return ""
}

// listID is what lists call a session.
func listID(s *session.Session) string {
	key := s.Key()
	return base64.RawURLEncoding.EncodeToString(key[:])
}

func elsewhere(l *session.Login) { l.SID = "sid-elsewhere" }

// Together these are all the ways by which a session ends (DESIGN.md, section 7).

// calledEnds come by one call, that can fail.
var calledEnds = []ending{
	{"logout", session.Logout, nil, at(func(b *bench, c *http.Cookie) error {
		_, err := b.Logout(b.t.Context(), b.open(c))
		return err
	}), false},
	{"back-channel logout by sid", session.BackChannel, nil, remote(session.BackChannel, false), false},
	{"back-channel logout by sub", session.BackChannel, nil, remote(session.BackChannel, true), false},
	{"front-channel logout by sid", session.FrontChannel, nil, remote(session.FrontChannel, false), false},
	{"front-channel logout by sub", session.FrontChannel, nil, remote(session.FrontChannel, true), false},
	{"another of the user's sessions ends it", session.Revoked, nil, at(func(b *bench, c *http.Cookie) error {
		return b.EndListed(b.t.Context(), b.open(b.login(elsewhere)), b.idOf(c))
	}), false},
	{"it ends itself in the list", session.Revoked, nil, at(func(b *bench, c *http.Cookie) error {
		return b.EndListed(b.t.Context(), b.open(c), b.idOf(c))
	}), false},
	{"another of the user's sessions ends all others", session.Revoked, nil, at(func(b *bench, c *http.Cookie) error {
		n, err := b.EndOthers(b.t.Context(), b.open(b.login(elsewhere)))
		return want(n, 1, err)
	}), false},
	{"an operator ends it", session.Revoked, nil, at(func(b *bench, c *http.Cookie) error {
		return b.manager.EndByID(b.t.Context(), b.idOf(c))
	}), false},
	{"an operator ends all of the user's", session.Revoked, nil, at(func(b *bench, c *http.Cookie) error {
		n, err := b.manager.EndAll(b.t.Context(), origin, "ada")
		return want(n, 1, err)
	}), false},
	{"its app is retired", session.Revoked, nil, at(func(b *bench, c *http.Cookie) error {
		return b.manager.Retire(b.t.Context(), b.App)
	}), true},
	{"a request meets another client", session.Revoked, nil, found(func(b *bench) {
		b.app.ClientID = "another"
		b.reload()
	}), false},
	{"the browser logs in again", session.Replaced, nil, at(func(b *bench, c *http.Cookie) error {
		_, _, err := b.tryLogin(elsewhere, func(l *session.Login) { l.Former = []session.Key{b.open(c).Key()} })
		return err
	}), false},
	{"the user logs in more often than may be", session.Replaced, func(b *bench) { b.app.MaxPerUser = 2 },
		at(func(b *bench, c *http.Cookie) error {
			for range 2 {
				time.Sleep(time.Millisecond) // else there is no oldest
				if _, _, err := b.tryLogin(elsewhere); err != nil {
					return err
				}
			}
			return nil
		}), false},
}

// comingEnds come in the end.
var comingEnds = []ending{
	{"the provider rejects the refresh token", session.RefreshRejected, nil, found(func(b *bench) {
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) { p.Fail = session.ErrRejected })
	}), false},
	{"a refresh brings somebody else's ID token", session.RefreshRejected, nil, found(func(b *bench) {
		time.Sleep(tokenTTL)
		b.provider.set(func(p *provider) {
			p.Shape = func(t *oauth2.Token) *oauth2.Token { return t.WithExtra(map[string]any{"id_token": "id-2"}) }
			p.Confirm = func(string, string) error { return session.ErrForeign }
		})
	}), false},
	{"the token runs out and there is no refresh token", session.TokenExpired, nil, found(func(b *bench) {
		time.Sleep(tokenTTL)
	}), false},
	{"the clock, idle", session.IdleTimeout, nil, func(b *bench, c *http.Cookie) time.Time {
		over := time.Now().Add(idle + idle/20)
		time.Sleep(idle + idle/20 + time.Second)
		return over
	}, true},
	{"the clock, lifetime", session.Lifetime, func(b *bench) { b.config.IdleTimeout = lifetime }, func(b *bench, c *http.Cookie) time.Time {
		over := time.Now().Add(lifetime)
		time.Sleep(lifetime + time.Second)
		return over
	}, true},
	{"the clock, while the sweep does not work", session.IdleTimeout, nil, func(b *bench, c *http.Cookie) time.Time {
		b.store.set(failing("sweep"))
		over := time.Now().Add(idle + idle/20)
		time.Sleep(idle + idle/20 + time.Second)
		return over
	}, true},
	{"a request after the clock", session.IdleTimeout, nil, found(func(b *bench) { time.Sleep(idle + idle/20) }), true},
	{"a shorter lifetime by reload", session.Lifetime, nil, func(b *bench, c *http.Cookie) time.Time {
		time.Sleep(10 * time.Minute)
		b.manager.Reconfigure(b.config.Keys, idle, 10*time.Minute)
		return time.Now()
	}, true},
	{"a shorter idle timeout by reload", session.IdleTimeout, nil, func(b *bench, c *http.Cookie) time.Time {
		time.Sleep(10 * time.Minute)
		b.manager.Reconfigure(b.config.Keys, 9*time.Minute, lifetime)
		return time.Now()
	}, true},
}

// Promise 4: whatever ends a session, all who have it open are told, once, why.
// Neither has it to be open for requests: a stream goes on while it is evicted or
// a reload opens everything anew.
func TestEveryEndIsTold(t *testing.T) {
	states := []struct {
		name          string
		before, while func(b *bench, s *session.Session)
	}{
		{"", nil, nil},
		{"forgotten before it is watched", func(b *bench, _ *session.Session) { b.forget() }, nil},
		{"forgotten while it is watched", nil, func(b *bench, _ *session.Session) { b.forget() }},
		{"evicted before it is watched", func(b *bench, s *session.Session) { b.evict(s) }, nil},
		{"evicted while it is watched", nil, func(b *bench, s *session.Session) { b.evict(s) }},
		{"opened before a reload", func(b *bench, _ *session.Session) { b.reload() }, nil},
		{"reloaded while it is watched", nil, func(b *bench, _ *session.Session) { b.reload() }},
	}
	for _, e := range slices.Concat(calledEnds, comingEnds) {
		for _, state := range states {
			t.Run(e.name+"/"+state.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					b := newBench(t, inMemory, func(b *bench) {
						if strings.HasPrefix(state.name, "evicted") {
							b.config.CacheSize = 64
						}
						if e.change != nil {
							e.change(b)
						}
					})
					bystander := b.watch(b.open(b.login(func(l *session.Login) { l.Subject, l.SID = "eve", "sid-e" })))
					c := b.login(func(l *session.Login) {
						if e.reason == session.TokenExpired {
							l.Token.RefreshToken = ""
						}
					})
					s := b.open(c)
					if state.before != nil {
						state.before(b, s)
					}
					one, other, stopped := b.watch(s), b.watch(s), b.watch(s)
					if state.while != nil {
						state.while(b, s)
					}
					stopped.stop()
					moment := e.end(b, c)
					one.wantEnded(e.reason, moment)
					other.wantEnded(e.reason, moment)
					if state.name == "" && e.name != "a request meets another client" { // which is a reload
						var end *session.Ended
						if _, err := s.AccessToken(t.Context()); !errors.As(err, &end) || end.Reason != e.reason {
							t.Errorf("a request that began before asks for a token: error = %v, want ended", err)
						}
					}
					stopped.wantLive()
					one.stop()
					if session.Cached(s) {
						t.Error("the ended session is open for requests")
					}
					if !e.all {
						bystander.wantLive()
					}
					b.endedBy(c, e.reason)
				})
			})
		}
	}
}

// What another process ended is told as soon as this one asks the store: at the
// next request that opens the session, the next refresh, near an end by the clock.
func TestAnEndElsewhereIsToldWhenItIsFoundOut(t *testing.T) {
	rows := []struct {
		name string
		find func(b *bench, s *session.Session, c *http.Cookie)
	}{
		{"by a request that opens the session", func(b *bench, _ *session.Session, c *http.Cookie) {
			b.forget()
			b.endedBy(c, session.Logout)
		}},
		{"by a refresh", func(b *bench, _ *session.Session, c *http.Cookie) {
			time.Sleep(tokenTTL)
			b.endedBy(c, session.Logout)
		}},
		{"by a refresh behind a request", func(b *bench, _ *session.Session, c *http.Cookie) {
			time.Sleep(tokenTTL - time.Second)
			b.mustToken(c)
		}},
		{"near its idle end", func(*bench, *session.Session, *http.Cookie) { time.Sleep(idle - time.Minute) }},
		{"by its own logout", func(b *bench, s *session.Session, _ *http.Cookie) {
			var end *session.Ended
			if _, err := b.Logout(b.t.Context(), s); !errors.As(err, &end) || end.Reason != session.Logout {
				b.t.Errorf("Logout: error = %v, want ended by logout", err)
			}
		}},
		{"by a new login", func(b *bench, s *session.Session, _ *http.Cookie) {
			b.login(func(l *session.Login) { l.Former = []session.Key{s.Key()} })
		}},
		{"by an operator", func(b *bench, s *session.Session, c *http.Cookie) {
			if err := b.manager.EndByID(b.t.Context(), listID(s)); !errors.Is(err, session.ErrNoSession) {
				b.t.Errorf("EndByID: error = %v, want ErrNoSession", err)
			}
			b.endedBy(c, session.Logout)
		}},
		{"by the user's list", func(b *bench, s *session.Session, _ *http.Cookie) {
			if err := b.EndListed(b.t.Context(), b.open(b.login(elsewhere)), listID(s)); !errors.Is(err, session.ErrNoSession) {
				b.t.Errorf("EndListed: error = %v, want ErrNoSession", err)
			}
		}},
		{"by another that watches", func(b *bench, s *session.Session, _ *http.Cookie) {
			b.forget()
			var end *session.Ended
			if _, err := b.tryWatch(s); !errors.As(err, &end) || end.Reason != session.Logout {
				b.t.Errorf("Watch: error = %v, want ended by logout", err)
			}
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				other := b.replica()
				c := b.login()
				s := b.open(c)
				o := b.watch(s)
				if _, err := other.Logout(t.Context(), other.open(c)); err != nil {
					t.Fatal(err)
				}
				row.find(b, s, c)
				o.wantEnded(session.Logout, time.Now())
			})
		})
	}
}

// Another process told the store of use, so this one must not end the session; and
// then ended it.
func TestAnEndElsewhereIsToldByWhoTakesTheSessionForIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		other := b.replica()
		c := b.login()
		o := b.watch(b.open(c))
		time.Sleep(idle - 10*time.Second)
		other.open(c).Use()
		time.Sleep(idle/20 + 20*time.Second)
		o.wantLive()
		b.store.set(func(op string) error {
			if op == "end" { // which is refused; and then the other ends it
				b.store.set(func(op string) error {
					if op == "load" {
						b.store.set(nil)
						if _, err := other.Logout(t.Context(), other.open(c)); err != nil {
							t.Error(err)
						}
					}
					return nil
				})
			}
			return nil
		})
		var end *session.Ended
		if _, err := b.Session(request(c)); !errors.As(err, &end) || end.Reason != session.Logout {
			t.Errorf("Session: error = %v, want ended by logout", err)
		}
		o.wantEnded(session.Logout, time.Now())
	})
}

// Use that the store hears of while it is asked to end the session is in time, and
// the clock goes on.
func TestUseElsewhereAtTheIdleEndIsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		o := b.watch(s)
		used := time.Now().Add(idle + idle/20)
		b.store.set(func(op string) error {
			if op == "end" {
				b.store.set(failing("sweep"))
				b.replicaUse(s)
			}
			return failing("sweep")(op)
		})
		time.Sleep(time.Until(used) + 10*time.Second)
		o.wantLive()
		over := used.Add(idle + idle/20)
		time.Sleep(time.Until(over) + time.Second)
		o.wantEnded(session.IdleTimeout, over)
	})
}

// Nothing is known any more of a session whose tombstone is forgotten, but that its
// time was over.
func TestAStreamOfASessionThatIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		o := b.watch(s)
		store := b.store.Store.(*memory)
		store.mu.Lock()
		delete(store.live, s.Key())
		store.mu.Unlock()
		near := time.Now().Add(idle - time.Minute)
		time.Sleep(time.Until(near) + time.Second)
		o.wantEnded(session.Lifetime, near)
	})
}

// An app that was removed, and is back as it was, keeps the sessions it gets.
func TestAnAppThatIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		if err := b.manager.Retire(t.Context(), b.App); err != nil {
			t.Fatal(err)
		}
		b.reload()
		o := b.watch(b.open(b.login()))
		over := time.Now().Add(idle + idle/20)
		time.Sleep(time.Until(over) + time.Second)
		o.wantEnded(session.IdleTimeout, over)
	})
}

// A session that seemed idle and is not is asked about once.
func TestUseElsewhereIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		s := b.open(c)
		time.Sleep(idle - 10*time.Second)
		b.replicaUse(s)
		time.Sleep(idle/20 + 20*time.Second)
		var asked atomic.Int32
		b.store.set(func(op string) error {
			if op == "end" {
				asked.Add(1)
			}
			return nil
		})
		for range 3 {
			if got, want := b.open(c).View().IdleExpiresIn, idle-idle/20-20*time.Second; got != want {
				t.Errorf("idle end in %v, want %v", got, want)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the store was asked to end it %d times, want once", n)
		}
	})
}

// An end that comes between the look-up of a session and its stream is the
// stream's answer, or is told to it.
func TestAnEndBeforeTheWatchIsItsAnswer(t *testing.T) {
	logout := func(b *bench, s *session.Session) {
		if _, err := b.Logout(b.t.Context(), s); err != nil {
			b.t.Error(err)
		}
	}
	rows := []struct {
		name  string
		watch func(b, other *bench, s *session.Session) (*observer, error)
	}{
		{"ended before", func(b, _ *bench, s *session.Session) (*observer, error) {
			logout(b, s)
			return b.tryWatch(s)
		}},
		{"ended elsewhere, before a reload", func(b, other *bench, s *session.Session) (*observer, error) {
			logout(other, s)
			b.forget()
			return b.tryWatch(s)
		}},
		{"ended while the store is asked", func(b, _ *bench, s *session.Session) (*observer, error) {
			b.forget()
			b.store.set(func(op string) error {
				if op == "load" {
					b.store.set(nil)
					logout(b, s)
				}
				return nil
			})
			return b.tryWatch(s)
		}},
		{"ended when the store has answered", func(b, _ *bench, s *session.Session) (*observer, error) {
			b.forget()
			b.store.set(func(op string) error {
				if op == "loaded" {
					b.store.set(nil)
					logout(b, s)
				}
				return nil
			})
			return b.tryWatch(s)
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				s := b.open(b.login())
				o, err := row.watch(b, b.replica(), s)
				synctest.Wait()
				var end *session.Ended
				if !errors.As(err, &end) || end.Reason != session.Logout {
					t.Errorf("Watch: error = %v, want ended by logout", err)
				}
				if n := len(o.ends); n > 1 {
					t.Errorf("told %q", o.ends)
				}
				if n := session.Watched(b.manager); n != 0 {
					t.Errorf("%d sessions watched, want none", n)
				}
			})
		})
	}
}

func TestAWatchOfWhichNobodyKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		b.forget()
		b.store.set(failing("load"))
		var down *session.StoreError
		if _, err := b.tryWatch(s); !errors.As(err, &down) {
			t.Errorf("store is down: error = %v, want *StoreError", err)
		}
		b.store.set(nil)
		time.Sleep(lifetime + 2*session.TombstoneGrace)
		if _, err := b.tryWatch(s); !errors.Is(err, session.ErrNone) {
			t.Errorf("its tombstone is forgotten: error = %v, want ErrNone", err)
		}
		if n := session.Watched(b.manager); n != 0 {
			t.Errorf("%d sessions watched, want none", n)
		}
	})
}

// DESIGN.md, section 4: idle may fire 5 % late, never early, whoever asks.
func TestWhatTheClockEnds(t *testing.T) {
	overdue := idle + idle/20
	rows := []struct {
		name  string
		meet  func(b *bench, s *session.Session)
		want  session.Reason
		after time.Duration // since login
	}{
		{"idle, without any request", nil, session.IdleTimeout, overdue},
		{"idle, counted from the last use", func(b *bench, s *session.Session) {
			time.Sleep(20 * time.Minute)
			s.Use()
		}, session.IdleTimeout, 20*time.Minute + overdue},
		{"idle, counted from a use after the end was announced", func(b *bench, s *session.Session) {
			time.Sleep(idle - time.Second)
			s.Use()
		}, session.IdleTimeout, idle - time.Second + overdue},
		{"idle, counted from a use elsewhere", func(b *bench, s *session.Session) {
			b.forget()
			time.Sleep(20 * time.Minute)
			b.replicaUse(s)
		}, session.IdleTimeout, 20*time.Minute + overdue},
		{"a use that the store was not told of yet", func(b *bench, s *session.Session) {
			b.store.set(failing("touch"))
			time.Sleep(20 * time.Minute)
			s.Use()
			time.Sleep(overdue - time.Second)
			b.store.set(nil)
		}, session.IdleTimeout, 20*time.Minute + overdue},
		{"a use by a request that began before a reload, that the store was not told of", func(b *bench, s *session.Session) {
			b.forget()
			b.watch(b.again(s))
			b.store.set(failing("touch"))
			time.Sleep(20 * time.Minute)
			s.Use()
			time.Sleep(overdue - time.Second)
			b.store.set(nil)
		}, session.IdleTimeout, 20*time.Minute + overdue},
		{"a longer idle timeout by reload", func(b *bench, s *session.Session) {
			time.Sleep(idle - time.Second)
			b.manager.Reconfigure(b.config.Keys, 2*idle, lifetime)
		}, session.IdleTimeout, 2 * overdue},
		{"a shorter idle timeout by reload", func(b *bench, s *session.Session) {
			time.Sleep(time.Minute)
			b.manager.Reconfigure(b.config.Keys, 10*time.Minute, lifetime)
		}, session.IdleTimeout, 10*time.Minute + 30*time.Second},
		{"a shorter lifetime by reload", func(b *bench, s *session.Session) {
			time.Sleep(time.Minute)
			b.manager.Reconfigure(b.config.Keys, idle, 15*time.Minute)
		}, session.Lifetime, 15 * time.Minute},
		{"a longer lifetime by reload is for new sessions", func(b *bench, s *session.Session) {
			b.manager.Reconfigure(b.config.Keys, 2*lifetime, 2*lifetime)
		}, session.Lifetime, lifetime},
		{"lifetime, however busy", func(b *bench, s *session.Session) {
			for range 2*lifetime/idle - 1 {
				time.Sleep(idle / 2)
				s.Use()
			}
		}, session.Lifetime, lifetime},
		{"lifetime, however many keep it alive", func(b *bench, s *session.Session) {
			b.watch(s, keepsAlive)
			b.watch(s, keepsAlive)
		}, session.Lifetime, lifetime},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				begin := time.Now()
				s := b.open(b.login())
				o := b.watch(s)
				if row.meet != nil {
					row.meet(b, s)
				}
				over := begin.Add(row.after)
				time.Sleep(time.Until(over) - time.Millisecond)
				o.wantLive()
				time.Sleep(time.Second)
				o.wantEnded(row.want, over)
				if n, err := b.store.Count(t.Context()); err != nil || n != 0 {
					t.Errorf("Count = %d, %v, want none", n, err)
				}
			})
		})
	}
}

// What requests open anew has the end it was given, and no later one.
func TestALongerLifetimeIsNotForSessionsThatExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, func(b *bench) { b.config.IdleTimeout = 3 * lifetime })
		c := b.login()
		b.store.set(failing("sweep")) // here it is the request that finds out
		b.manager.Reconfigure(b.config.Keys, 3*lifetime, 3*lifetime)
		time.Sleep(lifetime - time.Second)
		if got := b.open(c).View(); got.ExpiresIn != time.Second || got.IdleExpiresIn != time.Second {
			t.Errorf("View = %+v, want a second more", got)
		}
		time.Sleep(time.Second)
		b.endedBy(c, session.Lifetime)
	})
}

func TestWhereBothEndsComeAtOnceItIsTheLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, func(b *bench) { b.config.Lifetime = idle + idle/20 })
		c, other := b.login(), b.login()
		o := b.watch(b.open(other))
		b.store.set(failing("sweep"))
		time.Sleep(idle + idle/20)
		b.endedBy(c, session.Lifetime)
		o.wantEnded(session.Lifetime, time.Now())
	})
}

// replicaUse is use that only the store knows of.
func (b *bench) replicaUse(s *session.Session) {
	b.t.Helper()
	if err := b.store.Touch(b.t.Context(), []session.Touch{{Key: s.Key(), At: time.Now()}}); err != nil {
		b.t.Error(err)
	}
}

// A check that takes long does not make its successor's news old.
func TestAReloadDuringALookAtTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		o := b.watch(s)
		begin := time.Now()
		time.Sleep(20 * time.Minute)
		b.replicaUse(s)
		var slow atomic.Bool
		slow.Store(true)
		b.store.set(func(op string) error {
			if op == "loaded" && slow.CompareAndSwap(true, false) {
				time.Sleep(20 * time.Second)
			}
			return failing("sweep")(op) // which would find it out, too, if later
		})
		time.Sleep(9*time.Minute + 10*time.Second)
		b.manager.Reconfigure(b.config.Keys, idle, 32*time.Minute)
		over := begin.Add(32 * time.Minute)
		time.Sleep(time.Until(over) + time.Second)
		o.wantEnded(session.Lifetime, over)
	})
}

// Promise 6: of the idle end the store has the last word, so it waits for it.
func TestAStoreThatIsDownAtTheIdleEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, op := range []string{"load", "end"} {
			b := newBench(t, inMemory)
			o := b.watch(b.open(b.login()))
			time.Sleep(idle - 2*time.Minute)
			b.store.set(failing(op, "sweep"))
			time.Sleep(12 * time.Minute)
			o.wantLive()
			back := time.Now()
			b.store.set(failing("sweep"))
			time.Sleep(time.Second)
			o.wantEnded(session.IdleTimeout, back)
		}
	})
}

// The lifetime needs no store to be over.
func TestAStoreThatIsDownAtTheAbsoluteEnd(t *testing.T) {
	for _, op := range []string{"load", "end"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory, func(b *bench) { b.config.IdleTimeout = lifetime })
				c := b.login()
				s := b.open(c)
				o := b.watch(s)
				over := time.Now().Add(lifetime)
				time.Sleep(lifetime - 2*time.Minute)
				b.store.set(failing(op, "sweep"))
				time.Sleep(time.Until(over) + time.Second)
				o.wantEnded(session.Lifetime, over)
				if op == "end" {
					b.endedBy(c, session.Lifetime)
					var end *session.Ended
					if _, err := b.tryWatch(s); !errors.As(err, &end) || end.Reason != session.Lifetime || session.Watched(b.manager) != 0 {
						t.Errorf("Watch: error = %v, want ended by lifetime", err)
					}
				}
				b.store.set(nil)
				time.Sleep(2 * time.Minute)
				if _, err := b.store.Load(t.Context(), s.Key()); !errors.Is(err, session.ErrAbsent) {
					t.Errorf("Load: error = %v, want ended", err)
				}
			})
		})
	}
}

// Promise 4 where the store's answer is lost: nobody knows whether the session
// ended, so it is asked again, and then everybody is told, whether the session is
// open for requests, for streams, or for both.
func TestAnEndWithoutAnAnswerIsToldWhenTheStoreAnswersAgain(t *testing.T) {
	for _, e := range calledEnds {
		for _, took := range []bool{true, false} {
			for _, state := range []string{"requests and streams", "requests", "streams"} {
				name := fmt.Sprintf("%s/open for %s/took place %v", e.name, state, took)
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testUnansweredEnd(t, e, took, state) })
				})
			}
		}
	}
}

func testUnansweredEnd(t *testing.T, e ending, took bool, state string) {
	b := newBench(t, inMemory, func(b *bench) {
		if e.change != nil {
			e.change(b)
		}
	})
	c := b.login()
	s := b.open(c)
	o := &observer{t: t}
	if state != "requests" {
		o = b.watch(s, keepsAlive) // so that the clock looks at it now and then
	}
	end := e.end
	if state == "streams" {
		end = func(b *bench, c *http.Cookie) time.Time {
			if b.forget(); e.name == "logout" {
				b.Logout(t.Context(), s)
				return time.Now()
			}
			return e.end(b, c)
		}
	}
	b.store.set(func(op string) error {
		lost := op == "end" || op == "end_tagged"
		if took {
			lost = op == "ended" || op == "ended_tagged"
		}
		if !lost {
			return nil
		}
		b.store.set(failing("load", "end", "end_tagged", "sweep"))
		return errDown
	})
	quiet := *b
	quiet.t = &deaf{b.t}
	end(&quiet, c)
	if quiet.App != b.App {
		b.App = quiet.App
	}
	synctest.Wait()
	time.Sleep(5 * time.Second)
	o.wantLive()
	var down *session.StoreError
	if _, err := b.token(c); !errors.As(err, &down) {
		t.Errorf("a request, while nobody knows: error = %v, want *StoreError", err)
	}
	back := time.Now()
	b.store.set(nil)
	if !took {
		time.Sleep(5 * time.Second)
		if e.name == "its app is retired" {
			return // its sessions are ended as soon as they can be
		}
		o.wantLive()
		var loads atomic.Int32
		b.store.set(func(op string) error {
			if op == "load" {
				loads.Add(1)
			}
			return nil
		})
		time.Sleep(10 * time.Minute)
		if n := loads.Load(); n != 0 {
			t.Errorf("the store was asked %d times in ten minutes, of a session it knows", n)
		}
		return
	}
	if _, err := b.store.Load(t.Context(), s.Key()); !errors.Is(err, session.ErrAbsent) {
		t.Fatalf("Load: %v, want that the end took place", err)
	}
	time.Sleep(time.Second)
	if state != "requests" {
		o.wantEnded(e.reason, back)
	}
	b.endedBy(c, e.reason)
}

// ... also where the end comes while the store is asked about an earlier one.
func TestADoubtThatComesDuringALookAtTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		o := b.watch(s)
		time.Sleep(time.Second)
		b.store.set(failing("end"))
		b.Logout(t.Context(), s)
		b.store.set(func(op string) error {
			if op == "loaded" { // it lives, says the store; and then it ends
				b.store.set(failing("ended"))
				b.Logout(t.Context(), s)
				b.store.set(nil)
				time.Sleep(time.Second / 2)
			}
			return nil
		})
		time.Sleep(time.Second)
		moment := time.Now()
		time.Sleep(5 * time.Second)
		o.wantEnded(session.Logout, moment)
	})
}

// ... and nobody else's session is in doubt: it is served from memory on.
func TestAnEndWithoutAnAnswerIsNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		client := h.sibling(func(c *session.AppConfig) { c.Origin, c.ClientID = "https://client2.example.com", "shop2" })
		for _, at := range []*bench{h.bench, h.admin, h.other, client} {
			at.reload()
		}
		adaOfClient := client.login(by("ada", "phone6"))
		h.live(h.laptop, h.phone, h.eve)
		h.admin.live(h.adaAdmin)
		h.other.live(h.adaElsewhere)
		h.watch(h.open(h.eve))
		client.watch(client.open(adaOfClient))
		h.other.watch(h.other.open(h.adaElsewhere))
		synctest.Wait()
		h.store.set(failing("end_tagged", "load"))
		unknown := func(b *bench, cookies ...*http.Cookie) {
			t.Helper()
			for _, c := range cookies {
				var down *session.StoreError
				if _, err := b.token(c); !errors.As(err, &down) {
					t.Errorf("error = %v, want *StoreError", err)
				}
			}
		}
		h.EndSID(t.Context(), "sid of phone5", backChannel)
		unknown(h.bench, h.phone)
		h.live(h.laptop, h.eve)
		h.EndSubject(t.Context(), "ada", backChannel)
		unknown(h.bench, h.laptop)
		unknown(h.admin, h.adaAdmin)
		h.live(h.eve)
		h.other.live(h.adaElsewhere)
		client.live(adaOfClient)
		h.manager.Retire(t.Context(), h.App)
		unknown(h.bench, h.eve)
		h.other.live(h.adaElsewhere)
		client.live(adaOfClient)
	})
}

// deaf is for calls whose failure is what a test is about.
type deaf struct{ testing.TB }

func (*deaf) Error(...any)          {}
func (*deaf) Errorf(string, ...any) {}

func TestAStreamThatKeepsItsSessionAlive(t *testing.T) {
	t.Run("does so until it is stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, inMemory)
			c := b.login()
			s := b.open(c)
			keeper, second := b.watch(s, keepsAlive), b.watch(s, keepsAlive)
			o := b.watch(s)
			time.Sleep(4 * idle)
			keeper.stop()
			time.Sleep(4*idle + 7*time.Second) // the second keeps it still
			o.wantLive()
			second.stop()
			stopped := time.Now()
			time.Sleep(idle - time.Millisecond)
			o.wantLive()
			b.open(c)
			time.Sleep(idle/20 + time.Second)
			o.wantEnded(session.IdleTimeout, o.told())
			if late := o.told().Sub(stopped); late > idle+idle/20+time.Second {
				t.Errorf("ended %v after the last stream, want %v and no more than 5 %% later", late, idle)
			}
			keeper.wantLive()
			second.wantLive()
		})
	})
	t.Run("does so from its begin, near the idle end as well", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, inMemory)
			s := b.open(b.login())
			time.Sleep(idle + idle/20 - time.Second)
			o := b.watch(s, keepsAlive)
			time.Sleep(3 * idle)
			o.wantLive()
		})
	})
	t.Run("also after a reload, and evicted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, inMemory)
			s := b.open(b.login())
			o := b.watch(s, keepsAlive)
			b.reload()
			time.Sleep(2 * idle)
			b.manager.Reconfigure(b.config.Keys, idle/2, lifetime)
			time.Sleep(2 * idle)
			o.wantLive()
		})
	})
	t.Run("also where requests have it open by another object", func(t *testing.T) {
		for _, lateOne := range []bool{false, true} { // the stream of the request that began before the reload
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				before := b.open(b.login())
				b.forget()
				now := b.again(before)
				if lateOne {
					b.watch(now)
					b.watch(before, keepsAlive)
				} else {
					b.watch(before, keepsAlive)
					b.watch(now)
				}
				time.Sleep(idle - 2*time.Minute)
				if in := b.again(before).View().IdleExpiresIn; in < idle*9/10 {
					t.Errorf("late one %v: idle end in %v while a stream keeps the session alive, want about %v", lateOne, in, idle)
				}
			})
		}
	})
	t.Run("also where the idle timeout is less than a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const brief = 40 * time.Second
			b := newBench(t, inMemory, func(b *bench) { b.config.IdleTimeout = brief })
			s := b.open(b.login())
			o := b.watch(s, keepsAlive)
			for range 300 {
				time.Sleep(time.Second)
				if in := b.again(s).View().IdleExpiresIn; in < brief*9/10 {
					t.Fatalf("idle end in %v, want about %v", in, brief)
				}
			}
			o.wantLive()
		})
	})
	t.Run("costs one write in a twentieth of the idle timeout, and nothing else", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, inMemory)
			s := b.open(b.login())
			for range 5 {
				b.watch(s, keepsAlive)
			}
			var touches, others atomic.Int32
			b.store.set(func(op string) error {
				switch op {
				case "touch":
					touches.Add(1)
				case "sweep":
				default:
					others.Add(1)
				}
				return nil
			})
			time.Sleep(2 * idle)
			if touches, others := touches.Load(), others.Load(); touches < 38 || touches > 40 || others != 0 {
				t.Errorf("%d writes of use and %d other calls in two idle timeouts, want 40 and none", touches, others)
			}
		})
	})
}

// A listener that does not keep alive is no use, however many there are.
func TestWatchingIsNotUsing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		over := time.Now().Add(idle + idle/20)
		o := b.watch(s)
		for range 10 {
			b.watch(s, listens)
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Until(over) + time.Second)
		o.wantEnded(session.IdleTimeout, over)
	})
}

func TestAnEndThatComesNearIsAnnounced(t *testing.T) {
	rows := []struct {
		name           string
		idle, lifetime time.Duration
		meet           func(b *bench, s *session.Session, o *observer)
		until          time.Duration // since login
		want           []warning     // at: since login
	}{
		{"once, a minute before the idle end", idle, lifetime, nil, 2 * idle, announced(29*time.Minute, time.Minute)},
		{"a minute before the absolute end", lifetime, 4 * time.Hour, nil, 5 * time.Hour, announced(4*time.Hour-time.Minute, time.Minute)},
		{"use takes the end away, and it comes again", idle, lifetime, func(b *bench, s *session.Session, _ *observer) {
			time.Sleep(29*time.Minute + 20*time.Second)
			s.Use()
		}, 59 * time.Minute, append(announced(29*time.Minute, time.Minute), announced(58*time.Minute+20*time.Second, time.Minute)...)},
		{"also by use elsewhere", idle, lifetime, func(b *bench, s *session.Session, _ *observer) {
			time.Sleep(29*time.Minute + 20*time.Second)
			b.replicaUse(s)
		}, 59 * time.Minute, append(announced(29*time.Minute, time.Minute), announced(58*time.Minute+20*time.Second, time.Minute)...)},
		{"not while it is used", idle, lifetime, func(b *bench, s *session.Session, _ *observer) {
			for range 30 {
				time.Sleep(idle / 3)
				s.Use()
			}
		}, 10 * idle, nil},
		{"not while a stream keeps it alive", idle, lifetime, func(b *bench, s *session.Session, _ *observer) {
			b.watch(s, keepsAlive)
		}, 10 * idle, nil},
		{"while a stream keeps it alive, its absolute end", idle, lifetime, func(b *bench, s *session.Session, _ *observer) {
			b.watch(s, keepsAlive)
		}, lifetime - time.Second, announced(lifetime-time.Minute, time.Minute)},
		{"an idle end and then the absolute end behind it", idle, 30*time.Minute + 30*time.Second, func(b *bench, s *session.Session, _ *observer) {
			time.Sleep(29*time.Minute + 10*time.Second)
			s.Use()
		}, idle, append(announced(29*time.Minute, time.Minute), announced(29*time.Minute+30*time.Second, time.Minute)...)},
		{"at once, where the idle timeout is shorter than that", 40 * time.Second, lifetime, nil, 42 * time.Second, announced(0, 40*time.Second)},
		{"a shorter lifetime by reload", idle, lifetime, func(b *bench, s *session.Session, _ *observer) {
			time.Sleep(5 * time.Minute)
			b.manager.Reconfigure(b.config.Keys, idle, 5*time.Minute+20*time.Second)
		}, 6 * time.Minute, announced(5*time.Minute, 20*time.Second)},
		{"a shorter idle timeout by reload", idle, lifetime, func(b *bench, s *session.Session, _ *observer) {
			time.Sleep(5 * time.Minute)
			b.manager.Reconfigure(b.config.Keys, 8*time.Minute, lifetime)
		}, 8 * time.Minute, announced(7*time.Minute, time.Minute)},
		{"a store that is down delays it", idle, lifetime, func(b *bench, s *session.Session, _ *observer) {
			time.Sleep(28 * time.Minute)
			b.store.set(failing("load"))
			time.Sleep(time.Minute + 10*time.Second + time.Second/2)
			b.store.set(nil)
		}, idle, announced(29*time.Minute+11*time.Second, 49*time.Second)},
		{"not to who has stopped", idle, lifetime, func(_ *bench, _ *session.Session, o *observer) {
			time.Sleep(28 * time.Minute)
			o.stop()
		}, idle, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory, func(b *bench) { b.config.IdleTimeout, b.config.Lifetime = row.idle, row.lifetime })
				begin := time.Now()
				s := b.open(b.login())
				b.watch(s, func(w *session.Watcher) { w.Expiring, w.Refreshed = nil, nil }) // wants to know of none
				o := b.watch(s)
				if row.meet != nil {
					row.meet(b, s, o)
				}
				time.Sleep(row.until - time.Since(begin))
				for i := range row.want {
					row.want[i].at = begin.Add(row.want[i].at.Sub(time.Time{}))
				}
				o.wantWarnings(row.want...)
			})
		})
	}
}

// announced is a warning at a time since the login.
func announced(since, in time.Duration) []warning { return []warning{{time.Time{}.Add(since), in}} }

// Who comes when the end is near already is told at once, and for itself; how near,
// as the page is told it.
func TestANewListenerIsToldThatTheEndIsNear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		s := b.open(c)
		first := b.watch(s)
		begin := time.Now()
		time.Sleep(29*time.Minute + 18*time.Second)
		second := b.watch(s)
		synctest.Wait()
		if in := b.open(c).View().IdleExpiresIn; in != 42*time.Second || second.warnings[0].in != in {
			t.Errorf("told %v, and the page %v, want 42s", second.warnings, in)
		}
		time.Sleep(30 * time.Second)
		second.wantWarnings(warning{begin.Add(29*time.Minute + 18*time.Second), 42 * time.Second})
		first.wantWarnings(warning{begin.Add(29 * time.Minute), time.Minute})
		third := b.watch(s)
		third.wantWarnings(warning{time.Now(), 12 * time.Second})
		time.Sleep(30 * time.Second) // beyond the end as told, before it as enforced
		fourth := b.watch(s)
		fourth.wantWarnings(warning{time.Now(), 0})
	})
}

func TestARefreshIsToldAndNothingElseIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, func(b *bench) { b.config.IdleTimeout = lifetime })
		c, other := b.login(), b.login()
		b.watch(b.open(c), func(w *session.Watcher) { w.Refreshed, w.Expiring = nil, nil }) // wants to know of none
		o := b.watch(b.open(c))
		stopped := b.watch(b.open(c))
		bystander := b.watch(b.open(other))
		stopped.stop()
		for n := range 5 { // whether requests wait for it or not
			time.Sleep(tokenTTL - time.Duration(n%2)*time.Second)
			b.mustToken(c)
			o.wantRefreshed(n + 1)
		}
		b.forget() // the session is open for requests once more
		time.Sleep(tokenTTL)
		b.mustToken(c)
		o.wantRefreshed(6)
		b.provider.set(func(p *provider) { p.Fail = &session.Outage{Err: errors.New("503")} })
		time.Sleep(tokenTTL)
		b.token(c)
		o.wantRefreshed(6)
		b.open(c).Use()
		b.forget()
		b.reload()
		time.Sleep(10 * time.Second)
		b.provider.set(func(p *provider) { p.Fail = session.ErrRejected })
		b.endedBy(c, session.RefreshRejected)
		o.wantRefreshed(6)
		stopped.wantRefreshed(0)
		bystander.wantRefreshed(0)
	})
}

func TestListenersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		s := b.open(c)
		var all []*observer
		for range 16 {
			all = append(all, b.watch(s, listens))
		}
		refused := func() {
			t.Helper()
			var code interface{ Code() string }
			if _, err := b.tryWatch(s, listens); !errors.Is(err, session.ErrTooManyListeners) || !errors.As(err, &code) || code.Code() != "too_many_requests" {
				t.Errorf("listener too many: error = %v", err)
			}
		}
		refused()
		refused()                                    // a refused one takes no place, and frees none
		b.watch(b.open(b.login(elsewhere)), listens) // a place in another session
		for range 100 {
			b.watch(s, keepsAlive) // streams are not counted
		}
		refused()
		all[3].stop()
		all[3].stop() // frees one place
		all[3] = b.watch(s, listens)
		refused()
		b.forget() // a reload frees none
		s = b.open(c)
		refused()
		if _, err := b.Logout(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			o.wantEnded(session.Logout, time.Now())
		}
	})
}

// After stop returned no call begins. One of Ended that was let go just before may
// still be on its way, so of these most have to stay away, of the others all.
func TestNobodyIsToldAfterStop(t *testing.T) {
	b := newBench(t, inMemory, func(b *bench) { b.config.IdleTimeout = 40 * time.Second }) // its end is always near
	const rounds = 1000
	var late, lateEnds atomic.Int32
	for range rounds {
		s := b.open(b.login())
		var stopped atomic.Bool
		note := func(n *atomic.Int32) {
			if stopped.Load() {
				n.Add(1)
			}
		}
		stop, err := s.Watch(t.Context(), session.Watcher{
			Ended:     func(session.Reason) { note(&lateEnds) },
			Refreshed: func() { note(&late) },
			Expiring:  func(time.Duration) { note(&late) },
		})
		if err != nil {
			t.Fatal(err)
		}
		token, err := s.AccessToken(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { s.Renew(t.Context(), token) })
		wg.Go(func() {
			s.Use()
			b.forget()
		})
		wg.Go(func() {
			if _, err := b.EndSubject(t.Context(), "ada", session.RemoteLogout{Reason: session.BackChannel}); err != nil {
				t.Error(err)
			}
			stop()
			stopped.Store(true)
			stop()
		})
		wg.Wait()
	}
	b.stop()
	if late.Load() != 0 || lateEnds.Load() > rounds/100 {
		t.Errorf("in %d rounds %d calls and %d of Ended began after stop", rounds, late.Load(), lateEnds.Load())
	}
	if n := session.Watched(b.manager); n != 0 {
		t.Errorf("%d sessions watched, want none", n)
	}
}

// Ended has time: to close a connection, to stop other streams.
func TestWhoIsToldTheEndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		s := b.open(c)
		release := make(chan struct{})
		var stop func()
		slow := b.watch(s, func(w *session.Watcher) {
			ended := w.Ended
			w.Ended = func(r session.Reason) {
				stop()
				<-release
				ended(r)
			}
		})
		stop = slow.stop
		o := b.watch(s)
		b.logout(c)
		o.wantEnded(session.Logout, time.Now())
		b.live(b.login())
		close(release)
		slow.wantEnded(session.Logout, time.Now())
	})
}

// What nobody watches any more costs nothing, and neither does what ended.
func TestStopForgetsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		one, other := b.watch(s), b.watch(s)
		one.stop()
		one.stop()
		if n := session.Watched(b.manager); n != 1 {
			t.Errorf("%d sessions watched, want 1", n)
		}
		other.stop()
		if n := session.Watched(b.manager); n != 0 {
			t.Errorf("%d sessions watched after the last stop, want none", n)
		}
		asked := b.store.count()
		time.Sleep(idle - 30*time.Second)
		if n := asked.Load(); n > 30 { // sweeps
			t.Errorf("the store was asked %d times", n)
		}
		third := b.watch(s) // and it begins anew
		if _, err := b.Logout(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		third.wantEnded(session.Logout, time.Now())
		if n := session.Watched(b.manager); n != 0 {
			t.Errorf("%d sessions watched after the end, want none", n)
		}
	})
}

// 10,000 idle listeners must not be 10,000 questions.
func TestWatchingAsksNothingWhileNoEndIsNear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		var asked atomic.Int32
		var all []*session.Session
		for range 100 {
			all = append(all, b.open(b.login()))
		}
		b.store.set(func(op string) error {
			if op != "sweep" && op != "loaded" {
				asked.Add(1)
			}
			return nil
		})
		for _, s := range all {
			b.watch(s, listens)
			b.watch(s)
		}
		time.Sleep(idle - time.Minute - time.Millisecond)
		if n := asked.Load(); n != 0 {
			t.Errorf("the store was asked %d times", n)
		}
		time.Sleep(time.Minute)
		if n := asked.Load(); n != 100 {
			t.Errorf("the store was asked %d times near the end of 100 sessions, want once for each", n)
		}
	})
}

// Close stops the clocks; what is watched is for the streams' owner to end.
func TestCloseStopsTheClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		s := b.open(b.login())
		o, keeper := b.watch(s), b.watch(s, keepsAlive)
		time.Sleep(time.Minute)
		b.stop()
		asked := b.store.count()
		time.Sleep(lifetime)
		b.watch(s, func(w *session.Watcher) { w.Listener, w.KeepsAlive = true, true }) // a stream that is late
		time.Sleep(lifetime)
		o.wantLive()
		o.wantWarnings()
		if n := asked.Load(); n != 0 {
			t.Errorf("the store was asked %d times after Close", n)
		}
		o.stop()
		keeper.stop()
	})
}
