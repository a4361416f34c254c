package oidc

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"sessiongate/session"
	"sessiongate/session/boltstore"
)

const fuzzedKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// sealers are endpoints that can do nothing but make and open cookies.
func sealers(t testing.TB, key string, origins ...string) (all []*Endpoints) {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(t.TempDir(), "sessions.db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := session.ParseKeys([]string{key})
	if err != nil {
		t.Fatal(err)
	}
	m, err := session.NewManager(session.Config{Store: store, Keys: keys, IdleTimeout: time.Hour, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close(context.Background())
		store.Close()
	})
	for _, origin := range origins {
		app, err := m.NewApp(session.AppConfig{Origin: origin, Issuer: fuzzedIssuer, ClientID: fuzzedClient, Refresher: never{}, TokenTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewClient(Config{Origin: origin, BasePath: "/bff", Issuer: fuzzedIssuer, ClientID: fuzzedClient, ClientSecret: "s", Scopes: []string{"openid"}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, NewEndpoints(c, app, Options{}))
	}
	return all
}

type never struct{ session.Refresher }

func (never) Refresh(context.Context, string) (*oauth2.Token, error) { panic("nobody refreshes here") }

var kinds = []string{flowKind, loginsKind, logoutKind, logoutStateKind}

// base64 has spellings that decoders take for one another.
func TestCB02EveryChangedBitOfAFlowCookieIsRefused(t *testing.T) {
	e := sealers(t, fuzzedKey, "https://shop.example.com")[0]
	for _, payload := range []string{"", "a", "ab"} { // which leave 0, 2 and 4 bits over
		value := e.seal(flowKind, "x", []byte(payload), time.Minute).Value
		for i := range len(value) * 8 {
			changed := []byte(value)
			changed[i/8] ^= 1 << (i % 8)
			wantClosed(t, e, flowKind, "x", string(changed))
		}
		wantClosed(t, e, flowKind, "x", value[:10]+"\n"+value[10:])
	}
}

// FuzzFlowCookie: of what browsers send nothing opens but what was sealed here, for
// that name, kind and origin, and not a bit of it changed. Every flow comes back
// as it was, in a cookie that browsers keep (CB-02, LOG-22).
func FuzzFlowCookie(f *testing.F) {
	here := sealers(f, fuzzedKey, "https://shop.example.com", "https://desk.example.com")
	e, desk := here[0], here[1]
	stranger := sealers(f, "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=", "https://shop.example.com")[0]
	name := e.app.CookieName() + "-"
	f.Add("x", []byte(`{"s":"state","r":"/","b":1}`), byte(0), uint16(3), byte(1), "/orders?q=ü", "state", name+"flow-x=y")
	f.Add(flowSuffix("s"), []byte(`{"b":1e400}`), byte(1), uint16(20), byte(4), "/"+strings.Repeat("&", 1023), "s", strings.Repeat(name+"flow-=;", 60))
	f.Add("loop", []byte(`[]`), byte(2), uint16(0), byte(128), "/"+strings.Repeat(`"`, 1023), "", name+flowSuffix("")+"=AAAA")
	f.Add("", []byte("{"), byte(3), uint16(65535), byte(16), `/<>"%5B`, "\x00", name+"flow-"+"; "+name+"-=")
	f.Fuzz(func(t *testing.T, suffix string, payload []byte, which byte, at uint16, mask byte, returnURL, state, line string) {
		kind := kinds[int(which)%len(kinds)]
		value := e.seal(kind, suffix, payload, time.Minute).Value
		if got, ok := e.open(kind, suffix, value); !ok || string(got) != string(payload) {
			t.Fatalf("%s %q: sealed %q, opened %q, %v", kind, suffix, payload, got, ok)
		}
		changed := []byte(value)
		if changed[int(at)%len(changed)] ^= mask; mask != 0 {
			wantClosed(t, e, kind, suffix, string(changed))
		}
		wantClosed(t, e, kind, suffix, value[:int(at)%len(value)])
		wantClosed(t, e, kinds[int(which+1)%len(kinds)], suffix, value)
		wantClosed(t, e, kind, suffix+"-", value)
		wantClosed(t, e, kind, suffix, e.seal(kind, suffix, payload, -time.Minute).Value)
		wantClosed(t, e, kind, suffix, base64.RawURLEncoding.EncodeToString(payload))
		wantClosed(t, desk, kind, suffix, value)
		wantClosed(t, stranger, kind, suffix, value)
		e.openFlow(suffix, e.seal(flowKind, suffix, payload, time.Minute).Value) // whatever that is, no panic

		_, after, _ := strings.Cut(line, "=")
		wantClosed(t, e, kind, suffix, line)
		wantClosed(t, e, kind, suffix, after)
		checkCookies(t, e, state, line)
		if to, err := ReturnURL(returnURL, "/bff"); err == nil {
			checkFlow(t, e, to, line)
		}
	})
}

func wantClosed(t *testing.T, e *Endpoints, kind, suffix, value string) {
	t.Helper()
	if got, ok := e.open(kind, suffix, value); ok {
		t.Errorf("%s %q: %q opens as %q", kind, suffix, value, got)
	}
}

// checkCookies sends made-up cookies: no flow is in them, and few are answered.
func checkCookies(t *testing.T, e *Endpoints, state, line string) {
	t.Helper()
	r := &http.Request{Header: http.Header{"Cookie": {line}}}
	w := httptest.NewRecorder()
	if flow := e.takeFlow(w, r, state); flow != nil {
		t.Errorf("%q has the flow %+v of %q", line, flow, state)
	}
	e.makeRoom(w, r)
	if n := len(w.Header()["Set-Cookie"]); n > 1+flowsCleared {
		t.Errorf("%q is answered by %d cookies", line, n)
	}
}

// checkFlow lets a flow go to a browser and back, among other cookies.
func checkFlow(t *testing.T, e *Endpoints, returnURL, others string) {
	t.Helper()
	maxAge := int64(1<<63 - 1)
	f := newFlow(returnURL)
	f.MaxAge, f.PromptNone, f.Former, f.Logins = &maxAge, true, make([]byte, 32), 99
	w := httptest.NewRecorder()
	if err := e.keepFlow(w, &http.Request{Header: http.Header{}}, f); err != nil {
		t.Fatal(err)
	}
	set := w.Header().Get("Set-Cookie")
	if len(set) > 4096 { // RFC 6265, section 6.1
		t.Errorf("the cookie for %q has %d bytes", returnURL, len(set))
	}
	pair, _, _ := strings.Cut(set, ";")
	r := &http.Request{Header: http.Header{"Cookie": {others, pair}}}
	got := e.takeFlow(httptest.NewRecorder(), r, f.State)
	if got == nil || got.ReturnURL != returnURL || got.Verifier != f.Verifier || got.Nonce != f.Nonce || *got.MaxAge != maxAge || string(got.Former) != string(f.Former) {
		t.Errorf("the flow to %q came back as %+v", returnURL, got)
	}
	if e.takeFlow(httptest.NewRecorder(), r, f.State+"x") != nil {
		t.Error("a flow came back for another state")
	}
}
