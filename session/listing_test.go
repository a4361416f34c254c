package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
)

// by changes whose session a login makes, and from which browser.
func by(sub, agent string) func(*session.Login) {
	return func(l *session.Login) {
		l.Subject, l.SID, l.UserAgent, l.Address = sub, "sid of "+agent, agent, "2001:db8::"+agent[len(agent)-1:]
	}
}

// agents lists what a list tells of browsers.
func agents(all []session.Listing) string {
	var names []string
	for _, l := range all {
		names = append(names, l.UserAgent)
	}
	return strings.Join(names, " ")
}

func (b *bench) list(s *session.Session) []session.Listing {
	b.t.Helper()
	all, err := b.Sessions(b.t.Context(), s)
	if err != nil {
		b.t.Fatalf("Sessions: %v", err)
	}
	return all
}

// listAll is an operator's list.
func (b *bench) listAll(app, sub string) []session.Listing {
	b.t.Helper()
	var all []session.Listing
	err := b.manager.Sessions(b.t.Context(), app, sub, func(l session.Listing) error {
		all = append(all, l)
		return nil
	})
	if err != nil {
		b.t.Fatalf("Sessions(%q, %q): %v", app, sub, err)
	}
	return all
}

// live wants the sessions of these cookies to live.
func (b *bench) live(cookies ...*http.Cookie) {
	b.t.Helper()
	for _, c := range cookies {
		b.mustToken(c)
	}
}

const (
	adminOrigin = "https://admin.example.com"
	otherOrigin = "https://other.example.com"
)

// household is what lists have to tell apart: ada's four sessions, two of them in
// this app, another app of the same client, and an app of another issuer where
// somebody else is called the same; and eve.
type household struct {
	*bench
	admin, other                               *bench
	laptop, phone, eve, adaAdmin, adaElsewhere *http.Cookie
}

func newHousehold(t *testing.T) *household {
	t.Helper()
	b := newBench(t, inMemory)
	h := &household{
		bench: b,
		admin: b.sibling(func(c *session.AppConfig) { c.Origin = adminOrigin }),
		other: b.sibling(func(c *session.AppConfig) { c.Origin, c.Issuer = otherOrigin, "https://other-login.example.com" }),
	}
	h.laptop = b.login(by("ada", "laptop1"))
	time.Sleep(time.Second)
	h.eve = b.login(by("eve", "tablet2"))
	time.Sleep(time.Second)
	h.adaAdmin = h.admin.login(by("ada", "laptop3"))
	time.Sleep(time.Second)
	h.adaElsewhere = h.other.login(by("ada", "kiosk4"))
	time.Sleep(time.Second)
	h.phone = b.login(by("ada", "phone5"))
	return h
}

func TestAUserSeesOwnSessionsOfThisApp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		begin := time.Now()
		got := h.list(h.open(h.laptop))
		want := []session.Listing{
			{App: origin, Subject: "ada", UserAgent: "phone5", Address: "2001:db8::5", Created: begin, LastSeen: begin},
			{App: origin, Subject: "ada", UserAgent: "laptop1", Address: "2001:db8::1", Created: begin.Add(-4 * time.Second),
				LastSeen: begin.Add(-4 * time.Second), Current: true},
		}
		ids := map[string]bool{}
		for i := range got {
			ids[got[i].ID] = true
			got[i].ID = ""
			got[i].Created, got[i].LastSeen = got[i].Created.UTC(), got[i].LastSeen.UTC()
		}
		for i := range want {
			want[i].Created, want[i].LastSeen = want[i].Created.Round(0).UTC(), want[i].LastSeen.Round(0).UTC()
		}
		if !slices.Equal(got, want) {
			t.Errorf("list = %+v\nwant   %+v", got, want)
		}
		if len(ids) != 2 || ids[""] {
			t.Errorf("ids = %v, want two", ids)
		}
		if got := h.list(h.open(h.phone)); !got[0].Current || got[1].Current || got[0].UserAgent != "phone5" {
			t.Errorf("the phone's list = %+v, want it to be the current one", got)
		}
		for _, row := range []struct {
			b    *bench
			c    *http.Cookie
			want string
		}{{h.bench, h.eve, "tablet2"}, {h.admin, h.adaAdmin, "laptop3"}, {h.other, h.adaElsewhere, "kiosk4"}} {
			if got := agents(row.b.list(row.b.open(row.c))); got != row.want {
				t.Errorf("%s lists %q", row.want, got)
			}
		}
		if _, err := h.Logout(t.Context(), h.open(h.phone)); err != nil {
			t.Fatal(err)
		}
		if got := agents(h.list(h.open(h.laptop))); got != "laptop1" {
			t.Errorf("after the phone's logout the list is %q", got)
		}
	})
}

func TestAListTellsWhenASessionWasLastUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		lastSeen := func() time.Duration {
			t.Helper()
			all := h.list(h.open(h.phone))
			return time.Since(all[slices.IndexFunc(all, func(l session.Listing) bool { return l.UserAgent == "laptop1" })].LastSeen)
		}
		time.Sleep(10 * time.Minute)
		if got, want := lastSeen(), 10*time.Minute+4*time.Second; got != want {
			t.Errorf("last seen %v ago, want %v", got, want)
		}
		h.store.set(failing("touch"))
		h.open(h.laptop).Use()
		if got := lastSeen(); got != 0 {
			t.Errorf("used now, and the store does not know: last seen %v ago", got)
		}
		h.store.set(nil)
		time.Sleep(3 * time.Second)
		if got := lastSeen(); got != 3*time.Second {
			t.Errorf("used, and the store knows: last seen %v ago, want 3s", got)
		}
		for _, l := range h.listAll(origin, "ada") {
			if l.UserAgent == "laptop1" && time.Since(l.LastSeen) != 3*time.Second {
				t.Errorf("an operator is told %v ago, want 3s", time.Since(l.LastSeen))
			}
		}
	})
}

// ST-04: keys are replaced while sessions live, and their lists with them.
func TestListsOutliveTheirKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		h.manager.Reconfigure(newKeys(t, keyB, keyA), idle, lifetime)
		time.Sleep(time.Second)
		young := h.login(by("ada", "watch6"))
		const want = "watch6 phone5 laptop1"
		for _, c := range []*http.Cookie{young, h.laptop} {
			if got := agents(h.list(h.open(c))); got != want {
				t.Errorf("list = %q, want %q", got, want)
			}
		}
		if got := agents(h.listAll(origin, "ada")); got != want {
			t.Errorf("an operator's list = %q, want %q", got, want)
		}
		if err := h.EndListed(t.Context(), h.open(young), h.idOf(h.laptop)); err != nil {
			t.Errorf("EndListed: %v", err)
		}
		if n, err := h.EndOthers(t.Context(), h.open(young)); n != 1 || err != nil {
			t.Errorf("EndOthers = %d, %v, want 1", n, err)
		}
		h.live(young)
		h.endedBy(h.laptop, session.Revoked)
		h.endedBy(h.phone, session.Revoked)
	})
}

// altered is a store in which somebody has changed what lists are made from.
type altered struct {
	session.Store
	alter func([]session.Listed)
}

func (s altered) Tagged(ctx context.Context, tag session.Tag, after session.Key, limit int) ([]session.Listed, error) {
	all, err := s.Store.Tagged(ctx, tag, after, limit)
	s.alter(all)
	return all, err
}

// ST-03: whoever writes to the store cannot pass one browser off as another. Of
// what cannot be opened the times are told, so that it can be ended.
func TestAListOpensNothingThatIsNotItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		for name, alter := range map[string]func([]session.Listed){
			"swapped": func(all []session.Listed) {
				first := all[0].Listing
				for i := range all[1:] {
					all[i].Listing = all[i+1].Listing
				}
				all[len(all)-1].Listing = first
			},
			"junk": func(all []session.Listed) {
				for i := range all {
					all[i].Listing = []byte("junk")[:i]
				}
			},
		} {
			store := h.store.Store
			h.store.Store = altered{store, alter}
			all := h.list(h.open(h.laptop))
			h.store.Store = store
			if len(all) != 2 {
				t.Fatalf("%s: list = %+v, want two", name, all)
			}
			for _, l := range all {
				if l.UserAgent+l.Subject+l.Address != "" || l.ID == "" || l.Created.IsZero() || l.LastSeen.IsZero() || l.App != origin {
					t.Errorf("%s: %+v, want id, times and app, and nothing else", name, l)
				}
			}
		}
	})
}

func TestAUserEndsOneOfTheirSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		laptop := h.open(h.laptop)
		phone := h.idOf(h.phone)
		for name, id := range map[string]string{
			"a stranger's": h.idOf(h.eve), "of another app of the client": h.admin.idOf(h.adaAdmin), "of another issuer's ada": h.other.idOf(h.adaElsewhere),
			"empty": "", "junk": "junk", "of no session": strings.Repeat("A", 43), "cut": phone[:42], "with padding": phone + "=",
			"with another ending": phone[:42] + string(phone[42]+1), "with a line break": phone[:20] + "\n" + phone[20:], "long": strings.Repeat("A", 1<<16),
		} {
			if err := h.EndListed(t.Context(), laptop, id); !errors.Is(err, session.ErrNoSession) {
				t.Errorf("%s: error = %v, want ErrNoSession", name, err)
			}
		}
		var code interface{ Code() string }
		if !errors.As(session.ErrNoSession, &code) || code.Code() != "no_session" {
			t.Error("ErrNoSession has no code no_session")
		}
		h.live(h.laptop, h.phone, h.eve)
		h.admin.live(h.adaAdmin)
		h.other.live(h.adaElsewhere)

		if err := h.EndListed(t.Context(), laptop, phone); err != nil {
			t.Errorf("own other session: %v", err)
		}
		h.endedBy(h.phone, session.Revoked)
		if err := h.EndListed(t.Context(), laptop, phone); !errors.Is(err, session.ErrNoSession) {
			t.Errorf("ended already: error = %v, want ErrNoSession", err)
		}
		h.live(h.laptop)
		if err := h.EndListed(t.Context(), laptop, h.idOf(h.laptop)); err != nil {
			t.Errorf("own current session: %v", err)
		}
		h.endedBy(h.laptop, session.Revoked)
		h.live(h.eve)
	})
}

// It is gone, as was asked for, whoever was faster.
func TestASessionThatEndsWhileItIsBeingEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		phone, id := h.open(h.phone), h.idOf(h.phone)
		for _, end := range []func() error{
			func() error { return h.EndListed(t.Context(), h.open(h.laptop), id) },
			func() error { return h.manager.EndByID(t.Context(), id) },
		} {
			h.store.set(func(op string) error {
				if op == "loaded" {
					h.store.set(nil)
					h.Logout(t.Context(), phone)
				}
				return nil
			})
			if err := end(); err != nil && !errors.Is(err, session.ErrNoSession) {
				t.Errorf("error = %v", err)
			}
			h.endedBy(h.phone, session.Logout)
		}
	})
}

func TestAUserEndsAllOtherSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		watch := h.login(by("ada", "watch6"))
		o, own := h.watch(h.open(h.phone)), h.watch(h.open(h.laptop))
		if n, err := h.EndOthers(t.Context(), h.open(h.laptop)); n != 2 || err != nil {
			t.Errorf("EndOthers = %d, %v, want 2", n, err)
		}
		h.endedBy(h.phone, session.Revoked)
		h.endedBy(watch, session.Revoked)
		o.wantEnded(session.Revoked, time.Now())
		own.wantLive()
		h.live(h.laptop, h.eve)
		h.admin.live(h.adaAdmin)
		h.other.live(h.adaElsewhere)
		if n, err := h.EndOthers(t.Context(), h.open(h.laptop)); n != 0 || err != nil {
			t.Errorf("EndOthers once more = %d, %v, want none", n, err)
		}
	})
}

func TestOperatorsListSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		for _, row := range []struct{ app, sub, want string }{
			{"", "", "phone5 kiosk4 laptop3 tablet2 laptop1"},
			{origin, "", "phone5 tablet2 laptop1"},
			{adminOrigin, "", "laptop3"},
			{"", "ada", "phone5 kiosk4 laptop3 laptop1"},
			{"", "eve", "tablet2"},
			{origin, "ada", "phone5 laptop1"},
			{otherOrigin, "ada", "kiosk4"},
			{otherOrigin, "eve", ""},
			{"", "nobody", ""},
			{"https://unknown.example.com", "", ""},
			{"https://unknown.example.com", "ada", ""},
		} {
			all := h.listAll(row.app, row.sub)
			if got := agents(all); got != row.want {
				t.Errorf("app %q, sub %q: %q, want %q", row.app, row.sub, got, row.want)
			}
			for _, l := range all {
				known := map[string]string{
					"laptop1": origin + " ada", "tablet2": origin + " eve", "laptop3": adminOrigin + " ada",
					"kiosk4": otherOrigin + " ada", "phone5": origin + " ada",
				}
				if got := l.App + " " + l.Subject; got != known[l.UserAgent] || l.Current || l.ID == "" {
					t.Errorf("%s: %+v", l.UserAgent, l)
				}
			}
		}
	})
}

func TestOperatorsEndSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		o := h.watch(h.open(h.eve))
		eve := h.idOf(h.eve)
		if err := h.manager.EndByID(t.Context(), eve); err != nil {
			t.Errorf("EndByID: %v", err)
		}
		h.endedBy(h.eve, session.Revoked)
		o.wantEnded(session.Revoked, time.Now())
		for name, id := range map[string]string{"ended already": eve, "empty": "", "junk": "junk", "of no session": strings.Repeat("A", 43)} {
			if err := h.manager.EndByID(t.Context(), id); !errors.Is(err, session.ErrNoSession) {
				t.Errorf("%s: error = %v, want ErrNoSession", name, err)
			}
		}
		if n, err := h.manager.EndAll(t.Context(), origin, "ada"); n != 2 || err != nil {
			t.Errorf("EndAll = %d, %v, want 2", n, err)
		}
		h.endedBy(h.laptop, session.Revoked)
		h.endedBy(h.phone, session.Revoked)
		h.admin.live(h.adaAdmin)
		h.other.live(h.adaElsewhere)
		if err := h.manager.EndByID(t.Context(), h.other.idOf(h.adaElsewhere)); err != nil {
			t.Errorf("EndByID in another app: %v", err)
		}
		h.other.endedBy(h.adaElsewhere, session.Revoked)
		h.admin.live(h.adaAdmin)
	})
}

// What belongs to no app in force is not an operator's to see. Where somebody comes
// with its cookie it is over.
func TestSessionsOfAnAppThatIsConfiguredNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		id := h.admin.idOf(h.adaAdmin)
		h.restart() // with its own app only
		if err := h.manager.EndByID(t.Context(), id); !errors.Is(err, session.ErrNoSession) {
			t.Errorf("EndByID: error = %v, want ErrNoSession", err)
		}
		if got := agents(h.listAll("", "")); got != "phone5 tablet2 laptop1" {
			t.Errorf("list = %q", got)
		}
		if err := h.manager.Retire(t.Context(), h.App); err != nil {
			t.Fatal(err)
		}
		h.login(by("ada", "late6")) // by a request that began before
		if got := agents(h.listAll("", "")); got != "" {
			t.Errorf("list after its end = %q, want none", got)
		}
	})
}

// Promise 6: silence is neither an empty list nor an end.
func TestListsOfAStoreThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold(t)
		laptop, id := h.open(h.laptop), h.idOf(h.phone)
		for _, row := range []struct {
			name, op string
			call     func() error
		}{
			{"Sessions", "tagged", func() error { _, err := h.Sessions(t.Context(), laptop); return err }},
			{"an operator's Sessions", "tagged", func() error {
				return h.manager.Sessions(t.Context(), "", "", func(session.Listing) error { return nil })
			}},
			{"EndListed", "load", func() error { return h.EndListed(t.Context(), laptop, id) }},
			{"EndListed", "end", func() error { return h.EndListed(t.Context(), laptop, id) }},
			{"EndOthers", "tagged", func() error { _, err := h.EndOthers(t.Context(), laptop); return err }},
			{"EndOthers", "end", func() error { _, err := h.EndOthers(t.Context(), laptop); return err }},
			{"EndByID", "load", func() error { return h.manager.EndByID(t.Context(), id) }},
			{"EndByID", "end", func() error { return h.manager.EndByID(t.Context(), id) }},
			{"EndAll", "tagged", func() error { _, err := h.manager.EndAll(t.Context(), origin, "ada"); return err }},
			{"Logout", "end", func() error { _, err := h.Logout(t.Context(), laptop); return err }},
			{"EndAll", "end", func() error { _, err := h.manager.EndAll(t.Context(), origin, "ada"); return err }},
		} {
			h.store.set(failing(row.op))
			var down *session.StoreError
			if err := row.call(); !errors.As(err, &down) || err.Error() != "session: store: store is down" {
				t.Errorf("%s, %s fails: error = %v, want *StoreError", row.name, row.op, err)
			}
			h.store.set(nil)
		}
		h.live(h.laptop, h.phone)
	})
}

// Lists are read by pages of 200.
func TestListsOfMoreThanAPage(t *testing.T) {
	for _, n := range []int{199, 200, 201, 400, 450} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			b := newBench(t, inMemory)
			own := b.login()
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { b.login(by("eve", "other")) })
			}
			for range n - 1 {
				b.login()
			}
			wg.Wait()
			ids := map[string]bool{}
			for _, l := range b.list(b.open(own)) {
				ids[l.ID] = true
			}
			if len(ids) != n {
				t.Errorf("%d sessions listed, want %d", len(ids), n)
			}
			if got := len(b.listAll("", "")); got != n+4 {
				t.Errorf("%d sessions listed to an operator, want %d", got, n+4)
			}
			if ended, err := b.EndOthers(t.Context(), b.open(own)); ended != n-1 || err != nil {
				t.Errorf("EndOthers = %d, %v, want %d", ended, err, n-1)
			}
			if got := len(b.listAll("", "")); got != 5 {
				t.Errorf("%d sessions are left, want 5", got)
			}
			b.live(own)
		})
	}
}

// How many a call ended is how many it ended, and not somebody else before it.
func TestEndsAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		for range 100 {
			b.login()
		}
		b.store.set(func(op string) error {
			if op == "end" {
				time.Sleep(time.Millisecond) // so that all have listed before one ends the first
			}
			return nil
		})
		var counts [4]int
		var wg sync.WaitGroup
		for i := range counts {
			wg.Go(func() {
				var err error
				if counts[i], err = b.manager.EndAll(t.Context(), origin, "ada"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if sum := counts[0] + counts[1] + counts[2] + counts[3]; sum != 100 {
			t.Errorf("four calls ended %v of 100 sessions", counts)
		}
		if n := b.counted("sessiongate_sessions_ended_total"); n != 100 {
			t.Errorf("%d ends counted, want 100", n)
		}
	})
}

// The tokens of a session that ends without its cookie are given back where it is
// open in memory. Elsewhere they were destroyed with the record, which is counted.
func TestTokensOfSessionsThatEndInLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, inMemory)
		var want []string
		note := func(l *session.Login) { want = append(want, l.Token.RefreshToken) }
		b.login()
		closed := b.login()
		b.forget()
		open := b.login(note)
		own := b.login(note)
		s := b.open(own)
		if n, err := b.EndOthers(t.Context(), s); n != 3 || err != nil {
			t.Errorf("EndOthers = %d, %v, want 3", n, err)
		}
		synctest.Wait()
		if got := b.provider.takenBack(); !slices.Equal(got, want[:1]) || b.unrevoked() != 2 {
			t.Errorf("%d tokens revoked and %d counted as unrevoked, want the one that was open in memory, and two", len(got), b.unrevoked())
		}
		b.endedBy(closed, session.Revoked)
		b.endedBy(open, session.Revoked)
		if err := b.manager.EndByID(t.Context(), b.idOf(own)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := b.provider.takenBack(); !slices.Equal(got, want) || b.unrevoked() != 2 {
			t.Errorf("%d tokens revoked and %d counted as unrevoked, want two of each", len(got), b.unrevoked())
		}
	})
}
