package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

var backChannel = session.RemoteLogout{Reason: session.BackChannel}

// began changes when a login began.
func began(at time.Time) func(*session.Login) {
	return func(l *session.Login) { l.FlowBegan = at }
}

// withSID changes the provider's session of a login.
func withSID(sid string) func(*session.Login) { return func(l *session.Login) { l.SID = sid } }

// BC-07.
func TestALogoutOfOneOfTheProvidersSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		twin := h.login(by("ada", "phone5")) // two logins of one session of the provider's
		o, other := h.watch(h.open(h.phone)), h.watch(h.open(h.laptop))
		if n, err := h.EndSID(t.Context(), "sid of phone5", backChannel); n != 2 || err != nil {
			t.Errorf("EndSID = %d, %v, want 2", n, err)
		}
		h.endedBy(h.phone, session.BackChannel)
		h.endedBy(twin, session.BackChannel)
		o.wantEnded(session.BackChannel, time.Now())
		other.wantLive()
		h.live(h.laptop, h.eve)
		h.admin.live(h.adaAdmin)
		for _, sid := range []string{"sid of phone5", "unknown", "", "ada", "sid of kiosk4"} { // BC-09; the last is another issuer's
			if n, err := h.EndSID(t.Context(), sid, backChannel); n != 0 || err != nil {
				t.Errorf("EndSID(%q) = %d, %v, want none", sid, n, err)
			}
		}
		h.other.live(h.adaElsewhere)
	})
}

// BC-07: in every app of the client, and at no other issuer or client.
func TestALogoutOfAllOfAUsersSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		client := h.sibling(func(c *session.AppConfig) { c.Origin, c.ClientID = "https://client2.example.com", "shop2" })
		adaOfClient := client.login(by("ada", "phone6"))
		anonymous := h.login(func(l *session.Login) { l.Subject, l.SID = "eve", "" })
		if n, err := h.EndSubject(t.Context(), "ada", session.RemoteLogout{Reason: session.FrontChannel}); n != 3 || err != nil {
			t.Errorf("EndSubject = %d, %v, want 3", n, err)
		}
		h.endedBy(h.laptop, session.FrontChannel)
		h.endedBy(h.phone, session.FrontChannel)
		h.admin.endedBy(h.adaAdmin, session.FrontChannel)
		h.live(h.eve, anonymous)
		h.other.live(h.adaElsewhere)
		client.live(adaOfClient)
		for _, sub := range []string{"ada", "unknown", "", "sid of tablet2"} {
			if n, err := h.EndSubject(t.Context(), sub, backChannel); n != 0 || err != nil {
				t.Errorf("EndSubject(%q) = %d, %v, want none", sub, n, err)
			}
		}
	})
}

// A logout ends what began before it: a token that is sent again ends nobody's next
// session (BC-06), and one that comes between code and session is not lost (BC-12).
func TestALogoutKnowsWhichLoginsItIsOf(t *testing.T) {
	for _, bySub := range []bool{false, true} {
		for _, replicas := range []bool{false, true} {
			t.Run(fmt.Sprintf("by sub %v, elsewhere %v", bySub, replicas), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBench(t, inMemory)
					at := b
					if replicas {
						at = b.replica()
					}
					moment := time.Now().Add(time.Minute)
					end := func() (int, error) {
						l := session.RemoteLogout{Reason: session.BackChannel, BeganBefore: moment}
						if bySub {
							return at.EndSubject(t.Context(), "ada", l)
						}
						return at.EndSID(t.Context(), "sid-1", l)
					}
					old := b.login(began(moment.Add(-time.Minute)))
					just := b.login(began(moment.Add(-time.Nanosecond)))
					same := b.login(began(moment))
					later := b.login(began(moment.Add(time.Second)))
					unknown := b.login() // nobody knows when it began
					if n, err := end(); n != 3 || err != nil {
						t.Errorf("ended %d, %v, want 3", n, err)
					}
					for _, c := range []*http.Cookie{old, just, unknown} {
						b.forget()
						b.endedBy(c, session.BackChannel)
					}
					b.live(same, later)
					for _, m := range b.store.Store.(*memory).marks {
						if m.Reason != session.BackChannel {
							t.Errorf("the mark says %s", m.Reason)
						}
					}

					time.Sleep(29 * time.Minute)
					for _, at := range []time.Time{moment.Add(-time.Minute), moment.Add(-time.Nanosecond), {}} {
						if _, _, err := b.tryLogin(began(at)); !errors.Is(err, session.ErrNone) {
							t.Errorf("login that began at %v: error = %v, want ErrNone", at, err)
						}
					}
					b.live(b.login(began(moment)), b.login(began(time.Now())))
					b.live(b.login(began(time.Time{}), func(l *session.Login) { l.Subject, l.SID = "eve", "sid-e" }))
					if bySub {
						b.live(b.login(began(time.Time{}), func(l *session.Login) { l.Subject = "eve" }))
					} else {
						b.live(b.login(began(time.Time{}), withSID("sid-2")))
					}
					if n, err := end(); n > 1 || err != nil { // the last login with a begin that nobody knows may be ada's
						t.Errorf("the same once more: ended %d, %v", n, err)
					}
					b.live(same, later)
				})
			})
		}
	}
}

// The tokens of a login that never becomes a session are given back, where that is
// certain.
func TestTokensOfALoginThatNeverStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		l := session.RemoteLogout{Reason: session.BackChannel, BeganBefore: time.Now()}
		if _, err := b.EndSubject(t.Context(), "ada", l); err != nil {
			t.Fatal(err)
		}
		var refused string
		if _, _, err := b.tryLogin(func(l *session.Login) { refused = l.Token.RefreshToken }); !errors.Is(err, session.ErrNone) {
			t.Errorf("Create: error = %v, want ErrNone", err)
		}
		b.store.set(failing("created"))
		if _, _, err := b.tryLogin(began(time.Now())); err == nil {
			t.Error("Create: no error")
		}
		synctest.Wait()
		if got := b.provider.takenBack(); !slices.Equal(got, []string{refused}) {
			t.Errorf("revoked %.8q, want the refused login's alone", got)
		}
	})
}

// Whoever does not say when has not verified who asks, and can end what is there,
// but keep nobody from logging in.
func TestALogoutWithoutATimeKeepsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		var ops []string
		b.store.set(func(op string) error { ops = append(ops, op); return nil })
		if n, err := b.EndSID(t.Context(), "sid-1", session.RemoteLogout{Reason: session.FrontChannel}); n != 1 || err != nil {
			t.Errorf("EndSID = %d, %v, want 1", n, err)
		}
		b.store.set(nil)
		if slices.Contains(ops, "mark") {
			t.Errorf("store operations %q, want no mark", ops)
		}
		b.endedBy(c, session.FrontChannel)
		b.live(b.login(), b.login(began(time.Now().Add(-time.Hour))))
	})
}

// BC-12: there is no moment at which a login that is under way slips through.
func TestALogoutMissesNoLoginUnderWay(t *testing.T) {
	for _, op := range []string{"mark", "end_tagged", "ended_tagged"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				before := time.Now().Add(-time.Second)
				var c *http.Cookie
				var err error
				b.store.set(func(o string) error {
					if o == op {
						b.store.set(nil)
						_, c, err = b.tryLogin(began(before))
					}
					return nil
				})
				l := session.RemoteLogout{Reason: session.BackChannel, BeganBefore: time.Now()}
				if _, err := b.EndSubject(t.Context(), "ada", l); err != nil {
					t.Fatal(err)
				}
				if err == nil {
					b.endedBy(c, session.BackChannel)
				} else if !errors.Is(err, session.ErrNone) {
					t.Errorf("Create: error = %v, want ErrNone", err)
				}
				if n, err := b.store.Count(t.Context()); n != 0 || err != nil {
					t.Errorf("Count = %d, %v, want none", n, err)
				}
			})
		})
	}
}

// ... nor one by which the session is created and not yet known.
func TestALogoutWhileASessionIsCreated(t *testing.T) {
	for _, limit := range []int{0, 3} {
		t.Run(fmt.Sprintf("at most %d", limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory, func(b *bench) { b.app.MaxPerUser = limit })
				b.store.set(func(op string) error {
					if op == "created" {
						b.store.set(nil)
						if n, err := b.EndSID(t.Context(), "sid-1", backChannel); n != 1 || err != nil {
							t.Errorf("EndSID = %d, %v, want 1", n, err)
						}
					}
					return nil
				})
				if _, _, err := b.tryLogin(); !errors.Is(err, session.ErrNone) {
					t.Errorf("Create: error = %v, want ErrNone", err)
				}
			})
		})
	}
}

// Tags and marks are made by the first key, and found by all, on replicas that have
// another first key as well.
func TestRemoteLogoutsWhileKeysAreReplaced(t *testing.T) {
	for _, bySub := range []bool{false, true} {
		t.Run(fmt.Sprintf("by sub %v", bySub), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory)
				old := b.login()
				b.config.Keys = newKeys(t, keyB, keyA)
				b.forget()
				young := b.login()
				late := b.replica()
				late.config.Keys = newKeys(t, keyA, keyB) // has not been told yet
				late.restart()
				elsewhere := late.login()
				l := session.RemoteLogout{Reason: session.BackChannel, BeganBefore: time.Now().Add(time.Minute)}
				end, value := b.EndSID, "sid-1"
				if bySub {
					end, value = b.EndSubject, "ada"
				}
				if n, err := end(t.Context(), value, l); n != 3 || err != nil {
					t.Errorf("ended %d, %v, want 3", n, err)
				}
				late.forget()
				for _, c := range []*http.Cookie{old, young, elsewhere} {
					b.endedBy(c, session.BackChannel)
					late.endedBy(c, session.BackChannel)
				}
				for _, at := range []*bench{b, late} {
					if _, _, err := at.tryLogin(); !errors.Is(err, session.ErrNone) {
						t.Errorf("Create: error = %v, want ErrNone", err)
					}
				}
			})
		})
	}
}

// BC-10.
func TestTokensOfARemoteLogout(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("kept %v", keep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory, func(b *bench) { b.app.KeepTokens = keep })
				b.login()
				b.forget() // it is not in memory any more
				var open string
				b.login(func(l *session.Login) { open = l.Token.RefreshToken })
				if n, err := b.EndSubject(t.Context(), "ada", session.RemoteLogout{Reason: session.BackChannel}); n != 2 || err != nil {
					t.Errorf("EndSubject = %d, %v, want 2", n, err)
				}
				synctest.Wait()
				got, unrevoked := b.provider.takenBack(), b.unrevoked()
				if keep && len(got)+unrevoked != 0 {
					t.Errorf("%d tokens revoked, %d counted as unrevoked, want none", len(got), unrevoked)
				}
				if !keep && (!slices.Equal(got, []string{open}) || unrevoked != 1) {
					t.Errorf("%d tokens revoked, %d counted as unrevoked, want the one in memory and the other", len(got), unrevoked)
				}
			})
		})
	}
}

// The provider is told that it failed (BC-08), whatever was done.
func TestRemoteLogoutsOfAStoreThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		for _, op := range []string{"mark", "end_tagged"} {
			b.store.set(failing(op))
			l := session.RemoteLogout{Reason: session.BackChannel, BeganBefore: time.Now().Add(time.Second)}
			var down *session.StoreError
			if n, err := b.EndSubject(t.Context(), "ada", l); n != 0 || !errors.As(err, &down) {
				t.Errorf("%s fails: EndSubject = %d, %v, want *StoreError", op, n, err)
			}
			b.store.set(nil)
			b.live(c)
		}
	})
}

// The provider does not wait, and is not asked to.
func TestAProviderThatHangsUpDoesNotStopALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		c := b.login()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := b.EndSID(ctx, "sid-1", session.RemoteLogout{Reason: session.BackChannel, BeganBefore: time.Now().Add(1)}); n != 1 || err != nil {
			t.Errorf("EndSID = %d, %v, want 1", n, err)
		}
		b.endedBy(c, session.BackChannel)
	})
}

// capped is a bench where a user may have so many sessions.
func capped(limit int) func(*bench) { return func(b *bench) { b.app.MaxPerUser = limit } }

func TestTheOldestSessionMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, capped(3))
		admin := b.sibling(func(c *session.AppConfig) { c.Origin = adminOrigin })
		eve := func(l *session.Login) { l.Subject = "eve" }
		others := []*http.Cookie{b.login(eve), b.login(eve), b.login(eve)}
		elsewhere := admin.login()
		var all []*http.Cookie
		for i := range 10 {
			time.Sleep(time.Minute)
			all = append(all, b.login())
			b.open(all[max(0, i-2)]).Use() // use does not make it younger
			for j, c := range all {
				if j < i-2 {
					b.endedBy(c, session.Replaced)
				} else {
					b.live(c)
				}
			}
		}
		b.live(others...)
		admin.live(elsewhere)
		synctest.Wait()
		if got, unrevoked := b.provider.takenBack(), b.unrevoked(); len(got) != 0 || unrevoked != 0 {
			t.Errorf("%d tokens revoked, %d counted as unrevoked, want none: they are dropped", len(got), unrevoked)
		}
	})
}

func TestALowerCapCountsAtTheNextLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		var all []*http.Cookie
		for range 5 {
			time.Sleep(time.Second)
			all = append(all, b.login())
		}
		b.app.MaxPerUser = 2
		b.reload()
		b.live(all...)
		time.Sleep(time.Second)
		last := b.login()
		for _, c := range all[:4] {
			b.endedBy(c, session.Replaced)
		}
		b.live(all[4], last)
		b.app.MaxPerUser = 1
		b.reload()
		only := b.login()
		b.endedBy(all[4], session.Replaced)
		b.endedBy(last, session.Replaced)
		b.live(only)
	})
}

// The session that the new one replaces makes the room it needs.
func TestALoginOfTheSameBrowserTakesNobodysPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, capped(2))
		phone := b.login()
		time.Sleep(time.Second)
		laptop := b.login()
		for range 3 {
			time.Sleep(time.Second)
			next := b.login(func(l *session.Login) { l.Former = []session.Key{b.open(laptop).Key()} })
			b.endedBy(laptop, session.Replaced)
			laptop = next
		}
		b.live(phone, laptop)
	})
}

func TestLoginsAtOnceLeaveAsManySessionsAsMayBe(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d processes", replicas), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory, capped(3))
				at := []*bench{b, b}
				if replicas == 2 {
					at[1] = b.replica()
				}
				b.store.set(func(op string) error { // time for all to meet
					time.Sleep(time.Millisecond)
					return nil
				})
				var mu sync.Mutex
				var all []*http.Cookie
				var wg sync.WaitGroup
				for i := range 20 {
					wg.Go(func() {
						c := at[i%2].login()
						if _, err := at[i%2].token(c); err != nil && !errors.Is(err, session.ErrAbsent) {
							t.Errorf("the new session: %v", err)
						}
						mu.Lock()
						defer mu.Unlock()
						all = append(all, c)
					})
				}
				wg.Wait()
				b.store.set(nil)
				live := 0
				b.forget()
				for _, c := range all {
					if _, err := b.token(c); err == nil {
						live++
					} else {
						b.endedBy(c, session.Replaced)
					}
				}
				if live != 3 {
					t.Errorf("%d sessions live, want 3", live)
				}
				begin := time.Now()
				b.live(b.login()) // nobody holds the lease still
				if waited := time.Since(begin); waited != 0 {
					t.Errorf("a login waited %v", waited)
				}
			})
		})
	}
}

// Clocks of replicas differ: the new session may look like the oldest.
func TestTheNewSessionIsNeverTheOneThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, capped(2))
		epoch := time.Now()
		b.store.Store = altered{b.store.Store, func(all []session.Listed) {
			for i := range all { // the younger the older
				all[i].Created = epoch.Add(-all[i].Created.Sub(epoch))
			}
		}}
		for range 5 {
			b.live(b.login())
			time.Sleep(time.Second)
		}
	})
}

// There must be no session whose cookie nobody has, nor more than may be.
func TestALoginThatCannotMakeRoomLeavesNone(t *testing.T) {
	for _, op := range []string{"acquire", "create", "tagged", "end"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, inMemory, capped(2))
				first := b.login()
				time.Sleep(time.Second)
				second := b.login()
				failed := false
				b.store.set(func(o string) error {
					if o == op && !failed {
						failed = true
						return errDown
					}
					return nil
				})
				var down *session.StoreError
				if _, _, err := b.tryLogin(); !errors.As(err, &down) {
					t.Errorf("Create: error = %v, want *StoreError", err)
				}
				b.live(first, second)
				if n, err := b.store.Count(t.Context()); n != 2 || err != nil {
					t.Errorf("Count = %d, %v, want 2", n, err)
				}
				begin := time.Now()
				b.live(b.login())
				if waited := time.Since(begin); waited != 0 {
					t.Errorf("the next login waited %v", waited)
				}
				b.endedBy(first, session.Replaced)
			})
		})
	}
}

// One user's logins take turns; nobody else waits for them.
func TestALoginWaitsForNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, capped(2))
		slow := true
		b.store.set(func(op string) error {
			if op == "create" && slow {
				slow = false
				time.Sleep(10 * time.Second)
			}
			return nil
		})
		var wg sync.WaitGroup
		wg.Go(func() { b.login() })
		synctest.Wait()
		begin := time.Now()
		b.login(func(l *session.Login) { l.Subject = "eve" })
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("eve's login waited %v for ada's", waited)
		}
		wg.Wait()
	})
}

// Whoever waits for its turn waits as long as a refresh does, and has no session.
func TestALoginThatDoesNotGetItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory, capped(2))
		b.store.set(func(op string) error {
			if op == "create" {
				time.Sleep(14 * time.Second)
			}
			return nil
		})
		var wg sync.WaitGroup
		var turns, late atomic.Int32
		begin := time.Now()
		for range 7 {
			wg.Go(func() {
				var down *session.StoreError
				_, _, err := b.tryLogin()
				if err == nil {
					turns.Add(1)
				} else if late.Add(1); !errors.As(err, &down) || time.Since(begin) != time.Minute {
					t.Errorf("Create: error = %v, after %v, want *StoreError after a minute", err, time.Since(begin))
				}
			})
		}
		wg.Wait()
		if turns.Load() != 5 || late.Load() != 2 {
			t.Errorf("%d logins of 14 seconds, and %d were too late, want 5 and 2", turns.Load(), late.Load())
		}
		if n, err := b.store.Count(t.Context()); n != 2 || err != nil {
			t.Errorf("Count = %d, %v, want 2", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		token := b.provider.issue()
		wg.Go(func() { b.login() })
		time.Sleep(time.Millisecond)
		var down *session.StoreError
		if _, _, err := b.Create(ctx, session.Login{Subject: "ada", Token: token}); !errors.As(err, &down) {
			t.Errorf("Create: error = %v, want *StoreError", err)
		}
		wg.Wait()
	})
}
