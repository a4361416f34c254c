package session_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

// server is what several processes keep sessions in. It tells a process of the next
// change of what that process has read, and of nothing else, as Redis does.
type server struct {
	session.Store
	mu   sync.Mutex // guards read
	read map[session.Key]map[*peer]bool
}

// peer is a server as one process has it.
type peer struct {
	*server
	follower session.Follower
}

func newServer() *server {
	return &server{Store: newMemory(), read: map[session.Key]map[*peer]bool{}}
}

// hookedServer is a server that a test may make fail, for everybody.
func hookedServer() (*server, *hooked) {
	sv := newServer()
	h := &hooked{Store: sv.Store}
	sv.Store = h
	return sv, h
}

// process is another process on the server.
func (sv *server) process(b *bench) *bench {
	b.t.Helper()
	r := *b
	r.config.Store = &peer{server: sv}
	r.start()
	b.t.Cleanup(r.stop)
	return &r
}

func (p *peer) Follow(f session.Follower)           { p.follower = f }
func (p *peer) Trusted(session.Key, time.Time) bool { return true }
func (p *peer) Ahead() time.Duration                { return 0 }

func (p *peer) Load(ctx context.Context, key session.Key) (session.Record, error) {
	p.mu.Lock()
	if p.read[key] == nil {
		p.read[key] = map[*peer]bool{}
	}
	p.read[key][p] = true
	p.mu.Unlock()
	return p.Store.Load(ctx, key)
}

func (p *peer) Create(ctx context.Context, key session.Key, rec session.Record) error {
	defer p.changed(key)
	return p.Store.Create(ctx, key, rec)
}

func (p *peer) Replace(ctx context.Context, key session.Key, version uint64, data []byte) error {
	defer p.changed(key)
	return p.Store.Replace(ctx, key, version, data)
}

func (p *peer) End(ctx context.Context, key session.Key, reason session.Reason, c session.Condition) (session.Record, error) {
	defer p.changed(key)
	return p.Store.End(ctx, key, reason, c)
}

func (sv *server) changed(key session.Key) {
	sv.mu.Lock()
	readers := sv.read[key]
	delete(sv.read, key)
	sv.mu.Unlock()
	for p := range readers {
		p.follower.Changed(key)
	}
}

// What a process has in memory of a session is what it has read: a server tells of
// changes of nothing else. The process that made a session has written it only.
func TestAnEndElsewhereReachesWhoMadeTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv := newServer()
		here, there := sv.process(one), sv.process(one)
		c := here.login()
		here.mustToken(c)
		if _, err := there.Logout(t.Context(), there.open(c)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		here.endedBy(c, session.Logout)
	})
}

// A login whose session cannot be read back gives the browser nothing.
func TestALoginThatIsNotReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv, down := hookedServer()
		here := sv.process(one)
		down.set(failing("load"))
		_, c, err := here.tryLogin()
		var unknown *session.StoreError
		if !errors.As(err, &unknown) || c != nil {
			t.Errorf("login: cookie %v, error = %v, want a StoreError and none", c != nil, err)
		}
		if n, err := sv.Count(t.Context()); n != 0 || err != nil {
			t.Errorf("%d sessions are left, error = %v, want none: nobody has their cookie", n, err)
		}
	})
}

// The store goes away while the provider answers, for longer than the lease lasts:
// the answer waits in the memory of the process that asked. Another process that
// wants the session when the store is back gives it time to be stored, and does not
// send the spent token.
func TestAnAnswerThatWaitsInAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv, store := hookedServer()
		here, there := sv.process(one), sv.process(one)
		c := here.login()
		there.open(c)
		time.Sleep(tokenTTL)
		here.provider.set(func(p *provider) {
			p.After = func() error {
				store.set(failing("create", "load", "replace", "end", "acquire", "touch", "renew", "sweep"))
				return nil
			}
		})
		if _, err := here.token(c); err == nil {
			t.Error("a token that was not stored was given out")
		}
		time.Sleep(time.Minute + 100*time.Millisecond) // between two attempts to store it
		here.provider.set(func(p *provider) { p.After = nil })
		store.set(nil)
		there.mustToken(c)
		here.mustToken(c)
		if calls, reuses := one.provider.seen(); calls != 1 || reuses != 0 {
			t.Errorf("token calls = %d, reuses = %d, want 1 and 0", calls, reuses)
		}
	})
}

// leasing is a server that can be made to lose the last lease, as one does that
// takes over from another before it has heard of it.
type leasing struct {
	session.Store
	last atomic.Pointer[session.Lease]
}

func (l *leasing) Acquire(ctx context.Context, key session.Key, ttl time.Duration) (session.Lease, error) {
	lease, err := l.Store.Acquire(ctx, key, ttl)
	if err == nil {
		l.last.Store(&lease)
	}
	return lease, err
}

func (l *leasing) lose() { l.Store.Release(context.Background(), *l.last.Load()) }

// A failover may lose the lease of a refresh and keep its mark: who finds the mark
// waits for the answer, which is stored as if nothing had happened.
func TestALeaseThatAFailoverLost(t *testing.T) {
	for name, test := range map[string]struct {
		answer          time.Duration // when the provider answers, or does not
		fails           error
		soonest, latest time.Duration
	}{
		"and an answer that comes": {9 * time.Second, nil, 8 * time.Second, 11 * time.Second},
		"and none that comes":      {9 * time.Second, context.DeadlineExceeded, 8 * time.Second, 11 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := newBench(t, inMemory)
				sv := newServer()
				store := &leasing{Store: sv.Store}
				sv.Store = store
				here, there := sv.process(one), sv.process(one)
				c := here.login()
				there.open(c)
				time.Sleep(tokenTTL)
				here.provider.set(func(p *provider) {
					p.Before = func() {
						here.provider.set(func(p *provider) { p.Before = nil })
						time.Sleep(test.answer)
						if test.fails != nil {
							here.provider.set(func(p *provider) { p.Fail = &session.Outage{Err: test.fails} })
						}
					}
				})
				done := make(chan bool)
				go func() { here.token(c); close(done) }()
				time.Sleep(time.Second)
				store.lose()
				go func() { <-done; here.provider.set(func(p *provider) { p.Fail = nil }) }()
				begun := time.Now()
				there.mustToken(c)
				if took := time.Since(begun); took < test.soonest || took > test.latest {
					t.Errorf("the other process waited %v, want %v to %v", took, test.soonest, test.latest)
				}
				<-done
				if calls, reuses := one.provider.seen(); calls != 1 || reuses != 0 {
					t.Errorf("token calls that were answered = %d, reuses = %d, want 1 and 0", calls, reuses)
				}
			})
		})
	}
}

// An attempt holds others up for no longer than its answer may come.
func TestAnAttemptWithoutAnAnswer(t *testing.T) {
	outage := &session.Outage{Err: context.DeadlineExceeded}
	for name, test := range map[string]struct {
		down  bool // the store, when the outcome is to be noted
		since time.Duration
		wait  time.Duration
		own   bool // who asks next is who made it
	}{
		"that was given up":                        {},
		"that was given up, for its own process":   {own: true, since: time.Second},
		"that nobody gave up":                      {down: true, since: 4 * time.Second, wait: 9 * time.Second},
		"that nobody gave up, long ago":            {down: true, since: time.Minute, wait: 3 * time.Second},
		"that nobody gave up, for its own process": {down: true, own: true, since: time.Second},
		"that nobody gave up, just now":            {down: true, wait: 13 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one := newBench(t, inMemory)
				sv, store := hookedServer()
				here, there := sv.process(one), sv.process(one)
				c := here.login()
				time.Sleep(tokenTTL)
				here.provider.set(func(p *provider) {
					p.Fail = outage
					p.Before = func() {
						if test.down {
							store.set(failing("replace"))
						}
					}
				})
				here.token(c)
				synctest.Wait()
				store.set(nil)
				here.provider.set(func(p *provider) { p.Fail, p.Before = nil, nil })
				time.Sleep(test.since)
				next := there
				if test.own {
					next = here
				}
				begun := time.Now()
				next.mustToken(c)
				if took := time.Since(begun); took != test.wait {
					t.Errorf("waited %v, want %v", took, test.wait)
				}
			})
		})
	}
}

// A mark may be written though the store did not say so. Nothing is sent then, and
// the process that wrote it does not wait for itself.
func TestAMarkOfWhichNobodyKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newBench(t, inMemory)
		sv, store := hookedServer()
		here := sv.process(one)
		c := here.login()
		time.Sleep(tokenTTL)
		store.set(failing("replaced"))
		here.token(c)
		if calls, _ := one.provider.seen(); calls != 0 {
			t.Errorf("%d token calls without a mark", calls)
		}
		store.set(nil)
		time.Sleep(time.Second) // the pause after an outage
		begun := time.Now()
		here.mustToken(c)
		if took := time.Since(begun); took != 0 {
			t.Errorf("waited %v for itself", took)
		}
	})
}

// A process reads a session anew after each change of it, its own included. It
// remembers all the same what it has tried.
func TestWhatWasTriedIsRememberedWhenASessionIsReadAnew(t *testing.T) {
	t.Run("an outage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			here := newServer().process(newBench(t, inMemory))
			c := here.login()
			time.Sleep(tokenTTL)
			here.provider.set(func(p *provider) { p.Fail = &session.Outage{Answered: true, Err: errors.New("503")} })
			for range 10 {
				if _, err := here.token(c); err == nil {
					t.Fatal("a token though the provider is down")
				}
				synctest.Wait()
			}
			if calls, _ := here.provider.seen(); calls != 1 {
				t.Errorf("%d token calls at once, want 1", calls)
			}
		})
	})
	for name, test := range map[string]struct {
		again func(*bench)
		calls int
	}{
		"an outage, by an eviction": {func(b *bench) {
			for range 1000 {
				b.login()
			}
		}, 1},
		"an outage, but not by a reload": {func(b *bench) {
			b.manager.Reconfigure(b.config.Keys, b.config.IdleTimeout, b.config.Lifetime)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory, func(b *bench) { b.config.CacheSize = 64 })
				c := b.login()
				time.Sleep(tokenTTL)
				b.provider.set(func(p *provider) { p.Fail = &session.Outage{Answered: true, Err: errors.New("503")} })
				b.token(c)
				test.again(b)
				b.token(c)
				if calls, _ := b.provider.seen(); calls != test.calls {
					t.Errorf("%d token calls at once, want %d", calls, test.calls)
				}
			})
		})
	}
	// An API that refuses every token gets one refresh in five minutes, not one for
	// each request.
	t.Run("a renewal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			here := newServer().process(newBench(t, inMemory))
			c := here.login()
			for range 10 {
				s := here.open(c)
				sent, err := s.AccessToken(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Renew(t.Context(), sent); err != nil && !errors.Is(err, session.ErrNoRenewal) {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			if calls, _ := here.provider.seen(); calls != 1 {
				t.Errorf("%d token calls, want 1", calls)
			}
		})
	})
}
