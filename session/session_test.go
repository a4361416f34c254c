package session_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sessiongate/session"
	"sessiongate/session/boltstore"
)

func TestTheCookie(t *testing.T) {
	b := newBench(t)
	c := b.login()
	if c.Name != "__Host-Http-session" || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" ||
		c.SameSite != http.SameSiteStrictMode || c.MaxAge != 0 || !c.Expires.IsZero() || len(c.Value) > 200 {
		t.Errorf("cookie = %v (SES-01..05)", c)
	}
	if d := b.ClearSession(); d.Name != c.Name || !d.Secure || !d.HttpOnly || d.Path != "/" || d.SameSite != c.SameSite || d.MaxAge >= 0 {
		t.Errorf("clearing cookie = %v, want the attributes it was set with (LO-02)", d)
	}
	if c2 := b.login(); c2.Value == c.Value {
		t.Error("two sessions have one cookie")
	}
	if got := b.mustToken(c); !strings.HasPrefix(got, "Bearer at-") {
		t.Error("cookie does not find its session")
	}
}

// Thousands of ids have nothing in common: no two are the same, and no byte is at
// its place in more of them than chance allows.
func TestSES07IDsAreRandom(t *testing.T) {
	b := newBench(t)
	const n = 2000
	seen := make(map[string]bool, n)
	var at [32][256]int
	for range n {
		value, err := base64.URLEncoding.DecodeString(b.login().Value)
		parts := strings.Split(string(value), "|") // time, id, MAC
		if err != nil || len(parts) < 3 {
			t.Fatalf("a cookie of %d parts, %v", len(parts), err)
		}
		id, err := base64.URLEncoding.DecodeString(parts[1])
		if err != nil || len(id) != len(at) || seen[string(id)] {
			t.Fatalf("an id of %d bytes, or one for the second time; %v", len(id), err)
		}
		seen[string(id)] = true
		for i, c := range id {
			at[i][c]++
		}
	}
	for i := range at {
		for c, times := range at[i] {
			if times > 40 { // 8 on average
				t.Errorf("byte %d is %#x in %d of %d ids", i, c, times, n)
			}
		}
	}
}

func TestCookieOfALoopbackOriginIsNotSecure(t *testing.T) {
	b := newBench(t, func(b *bench) { b.app.Origin = "http://localhost:8080" })
	if c := b.login(); c.Name != "sessiongate" || c.Secure || !c.HttpOnly {
		t.Errorf("cookie = %v", c)
	}
}

func TestPersistentCookieLivesAsLongAsTheSession(t *testing.T) {
	b := newBench(t, func(b *bench) { b.app.Cookie = session.CookieConfig{Persistent: true, SameSite: http.SameSiteLaxMode} })
	if c := b.login(); c.MaxAge != int(lifetime/time.Second) || c.SameSite != http.SameSiteLaxMode {
		t.Errorf("cookie = %v", c)
	}
}

// SES-06, SES-10: only one cookie of exactly this name, signed by us, counts.
func TestCookiesThatNameNoSession(t *testing.T) {
	b := newBench(t)
	c := b.login()
	b.restart() // nothing in memory: a value that passes must have come from the store
	loads := 0
	b.store.set(func(op string) error { loads++; return nil })
	n, v := c.Name, c.Value
	rows := []struct {
		name, header string
		want         error
	}{
		{"none", "", session.ErrNone},
		{"other cookies", "a=b; c=d", session.ErrNone},
		{"junk", n + "=junk", session.ErrNone},
		{"empty", n + "=", session.ErrNone},
		{"100 kB", n + "=" + strings.Repeat("A", 100_000), session.ErrNone},
		{"last byte changed", n + "=" + v[:len(v)-8] + "AAAAAAAA", session.ErrNone},
		{"cut short", n + "=" + v[:len(v)/2], session.ErrNone},
		{"lower-case name", strings.ToLower(n) + "=" + v, session.ErrNone},
		{"name without its prefix", "session=" + v, session.ErrNone},
		{"name with a prefix more", "x" + n + "=" + v, session.ErrNone},
		{"nameless cookie", "=" + n + "=" + v, session.ErrNone},
		{"bad then good", n + "=bad; " + n + "=" + v, session.ErrAmbiguousCookie},
		{"good then bad", n + "=" + v + ";" + n + "=bad", session.ErrAmbiguousCookie},
		{"good twice", n + "=" + v + "; " + n + "=" + v, session.ErrAmbiguousCookie},
		{"good and empty", n + "=" + v + "; " + n, session.ErrAmbiguousCookie},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := request()
			r.Header.Set("Cookie", row.header)
			if _, err := b.Session(r); !errors.Is(err, row.want) {
				t.Errorf("error = %v, want %v", err, row.want)
			}
		})
	}
	if loads != 0 {
		t.Errorf("the store was asked %d times", loads)
	}
	r := request(&http.Cookie{Name: "a", Value: "1"}, c, &http.Cookie{Name: "b", Value: "2"})
	if _, err := b.Session(r); err != nil {
		t.Errorf("cookie among others: %v", err)
	}
	r = request()
	r.Header["Cookie"] = []string{"a=1", n + "=bad", n + "=" + v}
	if _, err := b.Session(r); !errors.Is(err, session.ErrAmbiguousCookie) {
		t.Errorf("cookies on several lines: error = %v, want ErrAmbiguousCookie", err)
	}
}

// UI-01: a flipped bit anywhere makes the cookie unknown, never an error of ours.
func TestEveryFlippedBitMakesTheCookieUnknown(t *testing.T) {
	b := newBench(t)
	c := b.login()
	for i := range len(c.Value) - 1 { // the very last character carries padding bits
		v := []byte(c.Value)
		v[i] ^= 1
		if _, err := b.Session(request(&http.Cookie{Name: c.Name, Value: string(v)})); !errors.Is(err, session.ErrNone) {
			t.Fatalf("bit of byte %d flipped: error = %v", i, err)
		}
	}
}

func TestACrossSiteNavigationCarriesNoStrictCookie(t *testing.T) {
	b := newBench(t)
	r := request()
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	if _, err := b.Session(r); err != session.ErrCookieWithheld || !errors.Is(err, session.ErrNone) {
		t.Errorf("error = %v, want ErrCookieWithheld", err)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if _, err := b.Session(r); err != session.ErrNone {
		t.Errorf("error = %v, want ErrNone", err)
	}
}

// SES-17.
func TestACookieIsUnknownToOtherApps(t *testing.T) {
	b := newBench(t)
	c := b.login()
	b.mustToken(c)
	other := b.app
	other.Origin = "https://other.example.com"
	app, err := b.manager.NewApp(other)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"cold", "hot"} {
		if _, err := app.Session(request(c)); !errors.Is(err, session.ErrNone) {
			t.Errorf("%s: error = %v, want ErrNone", state, err)
		}
		b.mustToken(c)
	}
}

func TestAnotherClientRevokesTheSession(t *testing.T) {
	for _, when := range []string{"reload", "restart"} {
		t.Run("by "+when, func(t *testing.T) {
			b := newBench(t)
			c := b.login()
			former := b.App
			b.app.ClientID = "shop2"
			if when == "restart" {
				b.restart()
			} else {
				app, err := b.manager.NewApp(b.app)
				if err != nil || app.Same(former) {
					t.Fatal("the apps are the same", err)
				}
				if err := b.manager.Retire(t.Context(), former); err != nil {
					t.Fatal(err)
				}
				b.App = app
			}
			b.endedBy(c, session.Revoked)
			b.app.ClientID = "shop"
			b.restart()
			b.endedBy(c, session.Revoked) // for good
		})
	}
}

func TestAReloadOfTheSameAppKeepsSessions(t *testing.T) {
	b := newBench(t)
	c := b.login()
	old := b.App
	app, err := b.manager.NewApp(b.app)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Session(request(c)); err != nil {
		t.Errorf("request that began before the reload: %v", err)
	}
	b.App = app
	b.mustToken(c)
	if s, again := b.open(c), b.open(c); s != again {
		t.Error("session is not cached after the reload")
	}
}

// LOG-19, pains 39.
func TestALoginReplacesTheBrowsersFormerSession(t *testing.T) {
	b := newBench(t)
	first, bystander := b.login(), b.login()
	key := b.open(first).Key()
	second := b.login(func(l *session.Login) { l.Former = []session.Key{key, key, {1, 2, 3}} })
	b.endedBy(first, session.Replaced)
	b.mustToken(second)
	b.mustToken(bystander)
	synctestlessWait(b)
	if n := len(b.provider.revoked); n != 0 {
		t.Errorf("%d tokens revoked: the provider may have one grant for both", n)
	}
}

// synctestlessWait lets work in the background finish.
func synctestlessWait(b *bench) { b.restart() }

// SES-11, pains 36: virtual clock, both ends.
func TestIdleTimeoutAndLifetime(t *testing.T) {
	use := func(b *bench, c *http.Cookie) { b.open(c).Use() }
	for _, process := range []string{"one process", "a restart in between"} {
		t.Run("idle, "+process, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				c := b.login()
				for range 20 {
					time.Sleep(idle - time.Second)
					use(b, c)
				}
				if process != "one process" {
					b.restart()
				}
				time.Sleep(idle - time.Second) // never early
				b.mustToken(c)
				time.Sleep(idle/20 + 2*time.Second) // 5 % late at most
				b.endedBy(c, session.IdleTimeout)
				b.restart()
				b.endedBy(c, session.IdleTimeout)
			})
		})
	}
	t.Run("idle is counted from the last use, also from one that was not recorded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c := b.login()
			time.Sleep(idle/20 - time.Second)
			use(b, c)
			time.Sleep(idle - time.Millisecond)
			b.mustToken(c)
		})
	})
	t.Run("a use that is not stored yet counts when the session is read again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c := b.login()
			b.store.set(func(op string) error {
				if op == "touch" {
					return errDown
				}
				return nil
			})
			time.Sleep(idle - time.Second)
			use(b, c)
			b.manager.Reconfigure(b.config.Keys, idle, lifetime)
			if got := b.open(c).View().IdleExpiresIn; got != idle {
				t.Errorf("idle end in %v, want %v", got, idle)
			}
		})
	})
	t.Run("looking is not using", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c := b.login()
			for range 31 {
				b.open(c).View()
				time.Sleep(time.Minute)
			}
			time.Sleep(time.Minute)
			b.endedBy(c, session.IdleTimeout)
		})
	})
	t.Run("lifetime, however busy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c := b.login()
			for range 719 {
				use(b, c)
				b.mustToken(c)
				time.Sleep(time.Minute)
			}
			b.mustToken(c)
			time.Sleep(time.Minute)
			b.endedBy(c, session.Lifetime)
			b.restart()
			b.endedBy(c, session.Lifetime)
		})
	})
	t.Run("a shortened lifetime reaches sessions that exist, a longer one does not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c, c2 := b.login(), b.login()
			b.store.set(func(op string) error {
				if op == "sweep" { // here it is the request that finds out
					return errDown
				}
				return nil
			})
			time.Sleep(20 * time.Minute)
			b.manager.Reconfigure(b.config.Keys, idle, 30*time.Minute)
			b.mustToken(c)
			b.open(c).Use()
			time.Sleep(10 * time.Minute)
			b.endedBy(c, session.Lifetime)
			b.endedBy(c2, session.Lifetime)
		})
	})
}

// Idle ends by the sweep as well, without anybody asking, and never early.
func TestTheSweepEndsWhatNobodyAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		idleOne, busy := b.login(), b.login()
		for range 40 {
			time.Sleep(time.Minute)
			b.open(busy).Use()
		}
		if n, err := b.store.Count(t.Context()); err != nil || n != 1 {
			t.Errorf("Count = %d, %v, want 1", n, err)
		}
		b.endedBy(idleOne, session.IdleTimeout)
		b.mustToken(busy)
		synctest.Wait()
		if n := len(b.provider.revoked); n != 1 {
			t.Errorf("%d tokens revoked, want that of the session that was open in memory", n)
		}
	})
}

func TestUsesAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var cookies []*http.Cookie
		for range 50 {
			cookies = append(cookies, b.login())
		}
		var writes atomic.Int32
		b.store.set(func(op string) error {
			if op == "touch" {
				writes.Add(1)
			}
			return nil
		})
		for range int(idle/time.Second) / 10 {
			for _, c := range cookies {
				b.open(c).Use()
			}
			time.Sleep(10 * time.Second)
		}
		// A write may split where it meets the uses of one instant; one for each use
		// would be a thousand.
		if writes := writes.Load(); writes > 42 {
			t.Errorf("%d writes for 50 sessions in one idle time, want 20 or so", writes)
		}
	})
}

// Promise 6, pains 40.
func TestTheStoresSilenceIsNoLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		b.restart()
		b.store.set(func(string) error { return errDown })
		var unknown *session.StoreError
		if _, err := b.token(c); !errors.As(err, &unknown) {
			t.Errorf("Session: error = %v, want a store error", err)
		}
		if _, _, err := b.Create(t.Context(), session.Login{Subject: "ada", Token: b.provider.issue()}); !errors.As(err, &unknown) {
			t.Errorf("Create: error = %v, want a store error", err)
		}
		b.store.set(nil)
		s := b.open(c)
		b.store.set(func(string) error { return errDown })
		b.mustToken(c) // memory knows it
		if _, err := b.Logout(t.Context(), s); !errors.As(err, &unknown) {
			t.Errorf("End: error = %v, want a store error", err)
		}
		if _, err := b.token(c); !errors.As(err, &unknown) {
			t.Errorf("after End: error = %v, want a store error: nobody knows whether it is over", err)
		}
		b.store.set(nil)
		b.mustToken(c)
		b.store.set(func(string) error { return errDown })
		time.Sleep(idle + idle/10)
		if _, err := b.token(c); !errors.As(err, &unknown) {
			t.Errorf("idle by our clock: error = %v, want a store error: it has the last word", err)
		}
		b.store.set(nil)
		b.endedBy(c, session.IdleTimeout)
	})
}

// ST-04, pains 65.
func TestKeysAreReplacedWhileSessionsLive(t *testing.T) {
	b := newBench(t)
	old := b.login()
	sid := b.open(old).LogoutSID()
	b.manager.Reconfigure(newKeys(t, keyB, keyA), idle, lifetime)
	b.mustToken(old)
	if !b.open(old).ValidLogoutSID(sid) {
		t.Error("logout link made with the old key does not work")
	}
	young := b.login()
	b.manager.Reconfigure(newKeys(t, keyB), idle, lifetime)
	if _, err := b.token(old); !errors.Is(err, session.ErrNone) {
		t.Errorf("cookie of a removed key: error = %v, want ErrNone", err)
	}
	b.mustToken(young)
}

// ST-03: whoever can write the store cannot give one user another's session.
func TestSwappedRecordsOpenForNobody(t *testing.T) {
	b := newBench(t)
	c1, c2 := b.login(), b.login(func(l *session.Login) { l.Subject = "eve" })
	k1, k2 := b.open(c1).Key(), b.open(c2).Key()
	r2, err := b.store.Load(t.Context(), k2)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.Replace(t.Context(), k1, 1, r2.Data); err != nil {
		t.Fatal(err)
	}
	b.restart()
	if _, err := b.token(c1); !errors.Is(err, session.ErrNone) {
		t.Errorf("error = %v, want ErrNone", err)
	}
	b.mustToken(c2)
}

// ST-01, ST-02, promise 5: neither file nor log holds a token, a claim or a cookie,
// also after the session ended.
func TestTheStoreAndTheLogHoldNoSecret(t *testing.T) {
	var logs bytes.Buffer
	path := filepath.Join(t.TempDir(), "sessions.db")
	bolt, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(b *bench) {
		b.config.Log = slog.New(slog.NewJSONHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		b.config.Store = bolt
	})
	var secrets []string
	for i := range 3 {
		c := b.login(func(l *session.Login) {
			l.Subject, l.SID, l.IDToken = "subject-canary", "sid-canary", "idtoken-canary"
			l.Claims = []byte(`{"email":"ada-canary@example.com"}`)
			l.UserAgent, l.Address = "agent-canary", "address-canary"
			secrets = append(secrets, l.Token.AccessToken, l.Token.RefreshToken)
		})
		s := b.open(c)
		secrets = append(secrets, c.Value)
		b.config.Log.Info("x", "session", s, "any", fmt.Sprintf("%v %+v %#v %s", s, s, s, s))
		d := session.Data{Subject: "subject-canary", AccessToken: "at-canary", RefreshToken: "rt-canary", IDToken: "idtoken-canary"}
		b.config.Log.Info("x", "data", d, "any", fmt.Sprintf("%v %+v %#v %s %q %d", d, d, d, d, d, d))
		if i == 1 {
			if _, err := b.Logout(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.stop()
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if logs.Len() == 0 || len(file) == 0 {
		t.Fatal("nothing to search")
	}
	for _, secret := range append(secrets, "canary") {
		if bytes.Contains(file, []byte(secret)) {
			t.Errorf("store holds %.10s…", secret)
		}
		if bytes.Contains(logs.Bytes(), []byte(secret)) {
			t.Errorf("log holds %.10s…", secret)
		}
	}
}

// ST-05, CVE-2021-32791: the same record sealed often never looks the same.
func TestSealingNeverRepeatsItself(t *testing.T) {
	k := newKeys(t)
	seen := map[string]bool{}
	for range 10_000 {
		sealed := k.Seal("flow", "name", []byte("the same"))[:24]
		if seen[sealed] {
			t.Fatal("a ciphertext began as another did")
		}
		seen[sealed] = true
	}
	sealed := k.Seal("flow", "name", []byte("the same"))
	for _, wrong := range [][2]string{{"logout", "name"}, {"flow", "other"}} {
		if _, err := k.Open(wrong[0], wrong[1], sealed); err == nil {
			t.Errorf("opened as %v", wrong)
		}
	}
	if got, err := k.Open("flow", "name", sealed); err != nil || string(got) != "the same" {
		t.Errorf("Open = %q, %v", got, err)
	}
}

// CVE-2023-35941: no two lists of parts are one MAC input.
func TestPartsOfAMACCannotBeShifted(t *testing.T) {
	k := newKeys(t)
	if k.MAC("tag", "a", "bc") == k.MAC("tag", "ab", "c") || k.MAC("tag", "a") == k.MAC("log", "a") {
		t.Error("different parts or labels, same MAC")
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	for name, keys := range map[string][]string{
		"none": nil, "empty": {""}, "short": {"c2hvcnQ="}, "not base64": {"%%%"}, "31 bytes": {"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZQ=="},
		"all zero": {strings.Repeat("A", 43) + "="}, "twice": {keyA, keyA},
	} {
		if _, err := session.ParseKeys(keys); err == nil {
			t.Errorf("%s: accepted", name)
		} else if len(keys) > 0 && len(keys[0]) > 8 && strings.Contains(err.Error(), keys[0]) {
			t.Errorf("%s: error holds the key", name)
		}
	}
}

// Promise 4: whatever meets an end, no request that begins after it gets a token.
func TestNothingBringsAnEndedSessionBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(b *bench) { b.config.CacheSize = 64 })
		jitter := func(string) error { time.Sleep(rand.N(3 * time.Millisecond)); return nil }
		for range 300 {
			c := b.login()
			s := b.open(c)
			if rand.N(2) == 0 {
				time.Sleep(tokenTTL - 30*time.Second)
			}
			b.store.set(jitter)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					time.Sleep(rand.N(5 * time.Millisecond))
					b.token(c)
					s.Use()
				})
			}
			wg.Go(func() {
				time.Sleep(rand.N(5 * time.Millisecond))
				b.manager.Reconfigure(b.config.Keys, idle, lifetime) // what is open is read again
			})
			wg.Go(func() {
				time.Sleep(rand.N(5 * time.Millisecond))
				if _, err := b.Logout(t.Context(), s); err != nil {
					t.Error(err)
				}
				for range 3 {
					b.endedBy(c, session.Logout)
					time.Sleep(rand.N(2 * time.Millisecond))
				}
			})
			wg.Wait()
			b.store.set(nil)
			b.endedBy(c, session.Logout)
		}
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	b := newBench(t, func(b *bench) { b.config.CacheSize = 128 })
	var cookies []*http.Cookie
	for range 1000 {
		cookies = append(cookies, b.login())
	}
	for _, c := range cookies {
		b.mustToken(c)
	}
	if n := session.CacheLen(b.manager); n > 128 {
		t.Errorf("%d sessions in a cache for 128", n)
	}
}

func TestOnceIsOnce(t *testing.T) {
	b := newBench(t)
	until := time.Now().Add(time.Minute)
	if err := b.Once(t.Context(), "state", "x", until); err != nil {
		t.Fatal(err)
	}
	if err := b.Once(t.Context(), "state", "x", until); !errors.Is(err, session.ErrExists) {
		t.Errorf("second time: error = %v, want ErrExists", err)
	}
	if err := b.Once(t.Context(), "jti", "x", until); err != nil {
		t.Errorf("another kind: %v", err)
	}
}

func TestViewTellsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		c := b.login()
		time.Sleep(time.Minute)
		v := b.open(c).View()
		if v.Subject != "ada" || string(v.Claims) != `{"sub":"ada"}` || v.ExpiresIn != lifetime-time.Minute ||
			v.IdleExpiresIn != idle-time.Minute || v.TokenExpiresIn != tokenTTL-time.Minute {
			t.Errorf("View = %+v", v)
		}
	})
}
