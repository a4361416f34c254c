package oidc_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sessiongate/oidc"
)

// openRedirects are strings that redirected browsers elsewhere in one product or
// another (LOG-05, LO-06; pains B8).
var openRedirects = []string{
	"https://evil.example", "http://evil.example", "//evil.example", "///evil.example", "////evil.example/%2e%2e",
	`/\evil.example`, `\\evil.example`, `\/evil.example`, `/\/evil.example`, `//\evil.example`, `\evil.example`, `/a\..\\evil.example`,
	"/%09/evil.example", "/\t/evil.example", "\t//evil.example", "/\n/evil.example", "/\r/evil.example", "\n//evil.example", "/\t\\evil.example",
	"/%5cevil.example", "/%5Cevil.example", "/%2F%2Fevil.example", "/%2f/evil.example", "%2f%2fevil.example", "/%252f%252fevil.example", "/%255cevil.example",
	"https:evil.example", "https:/evil.example", "http:evil.example", "https:///evil.example", "HTTPS://evil.example", "hTTps:evil.example",
	"javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "javascript://%0aalert(1)", "data:text/html,x", "vbscript:x", "mailto:a@b", "file:///etc/passwd", "blob:x", "about:blank",
	"@evil.example", "user@evil.example", ".evil.example", ":80", ":@evil.example", "evil.example", "evil.example/a", "?//evil.example", "#//evil.example", "?a=b", "&a",
	"/../evil.example", "/..//evil.example", "/.//evil.example", "/a/..//evil.example", "/%2e%2e//evil.example", "/%2E%2E/%2F/evil.example", "/./..//evil.example", "/.%2e//evil.example", "/..;//evil.example",
	" //evil.example", " /ok", "\x00//evil.example", "/\x00/evil.example", "/%00/evil.example", "/\x7f", "\ufeff//evil.example", "\u00a0//evil.example", "／／evil.example", "\u2028//evil.example",
	"/ok\r\nX: 1", "/ok%0d%0aX:%201", "/ok\nSet-Cookie: a=b", "/ok%0a", "/%E5%98%8A%E5%98%8D\r\n", "/ok\u0000",
	"/%zz", "/%", "/a%2", "//[::1]/", "//127.0.0.1", "//evil.example%2f@shop.example.com", "/bff", "/bff/", "/bff/login", "/bff/logout?sid=x", "/%62ff/login", "/bf%66/callback", "/bff#x", "/bff?x", "/./bff/login", "/a/../bff/login", "/x/%2e%2e/bff/login", "/bff/%6cogin", "/bff//login",
	"/" + strings.Repeat("a", 1024), "/" + strings.Repeat("ü", 400),
}

// goodReturnURLs come back as they are, or as the second string says.
var goodReturnURLs = map[string]string{
	"":                                   "/",
	"/":                                  "/",
	"/orders":                            "/orders",
	"/orders/":                           "/orders/",
	"/orders?q=a%2Fb&x=%23&z=a+b#/route": "/orders?q=a%2Fb&x=%23&z=a+b#/route",
	"/a//b":                              "/a//b",
	"/a;b=c":                             "/a;b=c",
	"/%C3%BC":                            "/%C3%BC",
	"/ü?y=ü#ü":                           "/%C3%BC?y=%C3%BC#%C3%BC",
	"/100%25":                            "/100%25",
	"/a%20b c":                           "/a%20b%20c",
	"/a%23b":                             "/a%23b",
	"/.well-known/x":                     "/.well-known/x",
	"/...":                               "/...",
	"/a.b/..c/d..":                       "/a.b/..c/d..",
	"/bffx/login":                        "/bffx/login",
	"/x/bff/login":                       "/x/bff/login",
	"/?returnUrl=//evil.example":         "/?returnUrl=//evil.example",
	"/?a=/../..":                         "/?a=/../..",
	"/#//evil.example":                   "/#//evil.example",
	"/?%zz":                              "/?%zz",
	"/@evil.example":                     "/@evil.example",
	"/:80":                               "/:80",
	"/javascript:alert(1)":               "/javascript:alert(1)",
	"/https://evil.example":              "/https://evil.example",
	"/" + strings.Repeat("a", 1023):      "/" + strings.Repeat("a", 1023),
}

func TestLOG05ReturnURL(t *testing.T) {
	if len(openRedirects) < 60 {
		t.Fatalf("%d strings, want 60", len(openRedirects))
	}
	for _, s := range openRedirects {
		if got, err := oidc.ReturnURL(s, "/bff"); err == nil {
			t.Errorf("ReturnURL(%q) = %q, want an error", s, got)
		}
	}
	for s, want := range goodReturnURLs {
		if got, err := oidc.ReturnURL(s, "/bff"); got != want || err != nil {
			t.Errorf("ReturnURL(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
}

func TestLOG05NoRedirectParameterLeadsElsewhere(t *testing.T) {
	g := newGateway(t, newProvider(t))
	b := g.browser()
	b.logIn("")
	logout := b.status()["logout_url"].(string)
	for _, s := range openRedirects {
		for _, a := range []*answer{
			b.get("/bff/login?returnUrl=" + url.QueryEscape(s)),
			b.get(logout + "&returnUrl=" + url.QueryEscape(s)),
			b.do(http.MethodPost, "/bff/logout?returnUrl="+url.QueryEscape(s)),
		} {
			if a.code() != "invalid_return_url" || a.location() != "" || len(a.Header["Set-Cookie"]) != 0 {
				t.Errorf("%q: code %q location %q cookies %q, want invalid_return_url", s, a.code(), a.location(), a.Header["Set-Cookie"])
			}
		}
	}
	b.wantLoggedIn(true) // nothing ended
	wantCalls := len(g.provider.seen("/revoke"))
	if wantCalls != 0 {
		t.Errorf("%d revocations", wantCalls)
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
	for _, s := range openRedirects {
		f.Add(s)
	}
	for s := range goodReturnURLs {
		f.Add(s)
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
