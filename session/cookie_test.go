package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// These tests look at cookies from inside, since a session that does not open
// cannot be told from one that is not there.

const (
	fuzzedOrigin = "https://shop.example.com"
	fuzzedID     = "0123456789abcdefghijklmnopqrstuv"
	fuzzedKey    = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	formerKey    = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
)

// cookies is an app that can do nothing but make and open cookies.
func cookies(t testing.TB, origin string, keys ...string) *App {
	t.Helper()
	k, err := ParseKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{cache: newCache(1)}
	m.settings.Store(&settings{keys: k, codecs: codecs(k)})
	a, err := m.NewApp(AppConfig{Origin: origin, Issuer: "https://login.example.com", ClientID: "shop", Refresher: noRefresher{}, TokenTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type noRefresher struct{ Refresher }

func signed(t testing.TB, a *App, id string) string {
	t.Helper()
	c, err := a.sessionCookie([]byte(id), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return c.Value
}

// Base64 has spellings that decoders take for one another. Of a session there is
// one cookie, and whoever changes a bit of it has none.
func TestSES06EveryChangedBitOfASessionCookieIsRefused(t *testing.T) {
	a := cookies(t, fuzzedOrigin, fuzzedKey)
	value := signed(t, a, fuzzedID)
	if string(a.openCookie(value)) != fuzzedID {
		t.Fatalf("%q does not open", value)
	}
	for i := range value {
		for bit := range 8 {
			changed := []byte(value)
			changed[i] ^= 1 << bit
			if a.openCookie(string(changed)) != nil {
				t.Errorf("bit %d of character %d changed, and %q opens for %q", bit, i, changed, value)
			}
		}
	}
	for i := range len(value) + 1 {
		for _, more := range []string{"\n", "\r", "=", " ", "A"} {
			if changed := value[:i] + more + value[i:]; a.openCookie(changed) != nil {
				t.Errorf("%q opens for %q", changed, value)
			}
		}
	}
	for i := range value {
		if a.openCookie(value[:i]) != nil {
			t.Errorf("%q opens for %q", value[:i], value)
		}
	}
}

// opens is what a cookie is by DESIGN.md, section 4, read by the standard library
// alone: the id, signed together with the time, the cookie's name and the origin.
func opens(value string, names string, keys [][]byte) []byte {
	raw, err := base64.URLEncoding.DecodeString(value)
	if err != nil || base64.URLEncoding.EncodeToString(raw) != value || len(raw) < 1+sha256.Size {
		return nil
	}
	said, sum := raw[:len(raw)-sha256.Size-1], raw[len(raw)-sha256.Size:]
	if raw[len(said)] != '|' {
		return nil
	}
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(names + "|" + string(said)))
		_, id, _ := strings.Cut(string(said), "|")
		if b, err := base64.URLEncoding.DecodeString(id); hmac.Equal(mac.Sum(nil), sum) && err == nil && len(b) == idBytes {
			return b
		}
	}
	return nil
}

// FuzzSessionCookie: whatever a browser sends, it opens only what one of our keys
// signed for this origin, and finding a cookie is what others mean by it.
func FuzzSessionCookie(f *testing.F) {
	a := cookies(f, fuzzedOrigin, fuzzedKey, formerKey)
	older := cookies(f, fuzzedOrigin, formerKey)
	foreign := cookies(f, "https://shop.example.com:8443", fuzzedKey, formerKey)
	stranger := cookies(f, fuzzedOrigin, "c3RyYW5nZXIga2V5IG9mIHRoaXJ0eS10d28gYnl0ZXM=")
	name := a.CookieName()
	good := signed(f, a, fuzzedID)
	for _, value := range []string{
		good, signed(f, older, fuzzedID), signed(f, foreign, fuzzedID), signed(f, stranger, fuzzedID), "", "=", "|", "MTc",
		base64.URLEncoding.EncodeToString([]byte("1700000000|||")), base64.URLEncoding.EncodeToString([]byte("|" + strings.Repeat("x", 40))),
	} {
		f.Add(value, fuzzedID, uint16(7), byte(1), name+"="+value, "a=1; "+name+" = "+value+" ;b")
	}
	for _, line := range []string{name, name + "=", name + "==x", `"` + name + `"=x`, "=" + name + "=x", "__host-http-session=x", name + "\t=\tx", ";;" + name + "=a;" + name + "=b", name + "-flow=x"} {
		f.Add(good, "short", uint16(119), byte(0x80), line, line)
	}
	f.Fuzz(func(t *testing.T, value, id string, at uint16, mask byte, first, second string) {
		if got, want := a.openCookie(value), opens(value, a.signedName, a.Keys().derive("cookie")); string(got) != string(want) {
			t.Errorf("%q opens as %q, want %q", value, got, want)
		}
		id = id[:min(len(id), 256)] // no cookie holds four thousand
		mine := signed(t, a, id)
		tell(t, "another origin opens", foreign.openCookie(mine), nil)
		tell(t, "another key opens", stranger.openCookie(mine), nil)
		if len(id) != idBytes {
			tell(t, "an id of odd length opens", a.openCookie(mine), nil)
		} else {
			tell(t, "the own cookie", a.openCookie(mine), []byte(id))
			tell(t, "the cookie of an older key", a.openCookie(signed(t, older, id)), []byte(id))
		}
		changed := []byte(mine)
		if changed[int(at)%len(changed)] ^= mask; mask != 0 {
			tell(t, "a changed cookie opens", a.openCookie(string(changed)), nil)
		}
		tell(t, "half a cookie opens", a.openCookie(mine[:int(at)%len(mine)]), nil)

		if strings.ContainsAny(first+second, "\r\n\x00") {
			return // net/http lets no such header in
		}
		h := http.Header{"Cookie": {first, second}}
		got, n := FindCookie(h, name)
		want := found(h, name)
		if n != len(want) || n > 0 && got != want[0] {
			t.Errorf("in %q there are %d cookies, the first %q, want %q", h, n, got, want)
		}
		// Whoever reads cookies by net/http finds no more of them, and the same.
		for _, c := range (&http.Request{Header: h}).CookiesNamed(name) {
			if !slices.ContainsFunc(want, func(v string) bool { return strings.Trim(v, `" `) == strings.Trim(c.Value, `" `) }) {
				t.Errorf("in %q net/http finds %q, and we %q", h, c.Value, want)
			}
		}
	})
}

func tell(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if string(got) != string(want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// found lists the values of a cookie, by RFC 6265, section 5.4, backwards.
func found(h http.Header, name string) (values []string) {
	for cookie := range strings.SplitSeq(strings.Join(h["Cookie"], ";"), ";") {
		cookie = strings.TrimLeft(cookie, " \t")
		if value, ok := strings.CutPrefix(cookie, name); ok {
			value = strings.Trim(value, " \t")
			if value == "" || value[0] == '=' {
				values = append(values, strings.TrimLeft(strings.TrimPrefix(value, "="), " \t"))
			}
		}
	}
	return values
}
