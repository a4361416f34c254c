package oidc_test

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"sessiongate/oidc"
)

// returnURL is a row of the corpus, which e2e/returnurls.test.js shows to Chromium's
// own URL parser. Many of its strings redirected browsers elsewhere in one product
// or another: oauth2-proxy (CVE-2020-11053, CVE-2020-4037, CVE-2021-21291,
// CVE-2017-1000070), openshift oauth-proxy (CVE-2026-83589), mod_auth_openidc
// (CVE-2021-32786, CVE-2019-20479, CVE-2021-39191, CVE-2022-23527), nextjs-auth0
// (CVE-2021-43812), nforwardauth (CVE-2026-81509), caddy-security (CVE-2024-21497).
type returnURL struct {
	String   string `json:"string"`
	Bytes    string `json:"bytes"` // in hex, where String cannot hold it: no UTF-8
	Accepted bool   `json:"accepted"`
	Returns  string `json:"returns"` // if it comes back otherwise than it came
	Why      string `json:"why"`
}

func returnURLs(t testing.TB) []returnURL {
	t.Helper()
	text, err := os.ReadFile("testdata/returnurls.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []returnURL
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for i := range rows {
		row := &rows[i]
		if row.Bytes != "" {
			b, err := hex.DecodeString(row.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			row.String = string(b)
		}
		if row.Accepted {
			accepted++
		}
		if row.Returns == "" {
			row.Returns = row.String
		}
	}
	if len(rows) < 100 || accepted < 50 || len(rows)-accepted < 100 {
		t.Fatalf("%d strings, %d of them good: that is no corpus", len(rows), accepted)
	}
	return rows
}

func TestLOG05ReturnURL(t *testing.T) {
	for _, row := range returnURLs(t) {
		got, err := oidc.ReturnURL(row.String, "/bff")
		switch {
		case row.Accepted && (got != row.Returns || err != nil):
			t.Errorf("%s: ReturnURL(%q) = %q, %v, want %q", row.Why, row.String, got, err, row.Returns)
		case !row.Accepted && err == nil:
			t.Errorf("%s: ReturnURL(%q) = %q, want an error", row.Why, row.String, got)
		}
	}
	if got, err := oidc.ReturnURL("", "/bff"); got != "/" || err != nil {
		t.Errorf("without one: %q, %v", got, err)
	}
	for _, row := range []struct {
		s    string
		fits bool
	}{
		{"/" + strings.Repeat("a", 1023), true}, {"/" + strings.Repeat("a", 1024), false},
		{"/" + strings.Repeat("ü", 170), true}, {"/" + strings.Repeat("ü", 171), false},
	} {
		if _, err := oidc.ReturnURL(row.s, "/bff"); (err == nil) != row.fits {
			t.Errorf("%d bytes: %v", len(row.s), err)
		}
	}
}

// CVE-2020-11053, CVE-2026-83589 and their like at login, CVE-2021-32786 and its
// like at logout: no parameter of ours leads elsewhere (LOG-05, LO-06).
func TestCVE202132786NoRedirectParameterLeadsElsewhere(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	b.logIn("")
	logout := b.status()["logout_url"].(string)
	for _, row := range returnURLs(t) {
		if row.Accepted {
			continue
		}
		s := url.QueryEscape(row.String)
		for _, a := range []*answer{
			b.get("/bff/login?returnUrl=" + s),
			b.get(logout + "&returnUrl=" + s),
			b.do(http.MethodPost, "/bff/logout?returnUrl="+s),
		} {
			if a.code() != "invalid_return_url" || a.location() != "" || len(a.Header["Set-Cookie"]) != 0 {
				t.Errorf("%q: code %q location %q cookies %q, want invalid_return_url", row.String, a.code(), a.location(), a.Header["Set-Cookie"])
			}
		}
		// What comes back from the provider is looked up, and never gone to.
		for _, path := range []string{"/bff/callback?code=x&state=" + s, "/bff/callback?code=x&state=x&returnUrl=" + s} {
			if a := b.get(path); a.location() != "/" {
				t.Errorf("%s leads to %q", path, a.location())
			}
		}
		for _, path := range []string{"/bff/logout/callback?state=" + s, "/bff/logout/callback?returnUrl=" + s, "/bff/logout/continue?returnUrl=" + s + "&redirect_url=" + s} {
			if a := b.get(path); a.location() != "/bye" {
				t.Errorf("%s leads to %q", path, a.location())
			}
		}
	}
	b.wantLoggedIn(true) // nothing ended
	if n := len(g.provider.seen("/revoke")); n != 0 {
		t.Errorf("%d revocations", n)
	}
}

// What is accepted comes back, byte for byte or as the corpus says, through the
// flow cookie and the cookie of a logout.
func TestLOG05GoodReturnURLsComeBack(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	for _, row := range returnURLs(t) {
		if !row.Accepted {
			continue
		}
		s := url.QueryEscape(row.String)
		if got := b.logIn("?returnUrl=" + s).location(); got != row.Returns {
			t.Errorf("%q: a login returns to %q", row.String, got)
		}
		a := b.get(b.status()["logout_url"].(string) + "&returnUrl=" + s)
		to, err := url.Parse(a.location())
		if err != nil {
			t.Fatal(err)
		}
		if got := b.get("/bff/logout/callback?state=" + to.Query().Get("state")).location(); got != row.Returns {
			t.Errorf("%q: a logout returns to %q", row.String, got)
		}
	}
}

// Where a logout ends without a wish is checked in the same way.
func TestLO06LogoutAfterIsAReturnURL(t *testing.T) {
	for _, row := range returnURLs(t) {
		c := newConfig("https://login.example.com")
		c.Logout.After = row.String
		client, err := oidc.NewClient(c)
		if err == nil {
			client.Close()
		}
		if (err == nil) != row.Accepted {
			t.Errorf("logout.after %q: %v", row.String, err)
		}
	}
}

// elsewhere tells where a browser on shop.example.com goes for a Location, by a
// reading of the URL Standard that shares nothing with ReturnURL: the basic URL
// parser's treatment of special schemes, restricted to what decides host and path.
func elsewhere(location string) (foreign bool, path string) {
	s := strings.TrimFunc(location, func(r rune) bool { return r <= ' ' })
	s = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(s)
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i]
	}
	s = strings.ReplaceAll(s, `\`, "/")
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
		return true, ""
	}
	var kept []string
	for _, segment := range strings.Split(s[1:], "/") {
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".":
		case "..":
			kept = kept[:max(0, len(kept)-1)]
		default:
			kept = append(kept, segment)
		}
	}
	return false, "/" + strings.Join(kept, "/")
}

func FuzzReturnURL(f *testing.F) {
	for _, row := range returnURLs(f) {
		f.Add(row.String)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := oidc.ReturnURL(s, "/bff")
		if err != nil {
			return
		}
		foreign, path := elsewhere(got)
		if foreign {
			t.Fatalf("ReturnURL(%q) = %q leads to another origin", s, got)
		}
		decoded, err := url.PathUnescape(path)
		if err != nil || decoded == "/bff" || strings.HasPrefix(decoded, "/bff/") {
			t.Fatalf("ReturnURL(%q) = %q is one of our endpoints, or no path", s, got)
		}
		if len(got) > 1024 || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("ReturnURL(%q) = %q cannot stand in a header", s, got)
		}
		if again, err := oidc.ReturnURL(got, "/bff"); again != got || err != nil {
			t.Fatalf("ReturnURL(%q) = %q, %v: not the same twice", got, again, err)
		}
	})
}
