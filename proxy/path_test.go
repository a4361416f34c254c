package proxy

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
	"unsafe"
)

// PX-05, pains B 4, 23 and 24.
func TestPX05CanonicalPathRefuses(t *testing.T) {
	tests := []struct{ name, target string }{
		{"a dot segment", "/api/./x"},
		{"a dot segment at the end", "/api/."},
		{"a dot segment at the beginning", "/./api"},
		{"two dots", "/api/../admin"},
		{"two dots at the end", "/api/.."},
		{"two dots, one of them encoded", "/api/.%2e/admin"},
		{"two dots, the other one encoded", "/api/%2e./admin"},
		{"two dots, both encoded, in mixed case", "/api/%2e%2E/admin"},
		{"one encoded dot", "/api/%2e/admin"},
		{"two dots with a parameter, as Tomcat resolves them", "/public/..;/admin"},
		{"two dots with a parameter that has a name", "/public/..;x=1/admin"},
		{"one dot with a parameter", "/public/.;x/admin"},
		{"encoded dots with a parameter", "/public/%2e%2e;x/admin"},
		{"dots with an encoded parameter", "/public/..%3bx/admin"},
		{"dots with a parameter that is encoded twice", "/public/..%253bx/admin"},
		{"an encoded slash", "/public/..%2fadmin"},
		{"an encoded slash in upper case", "/a%2Fb"},
		{"an encoded backslash", "/a%5cb"},
		{"a raw backslash", `/a\b`},
		{"a raw backslash for a slash at the beginning", `/\evil.example`},
		{"a raw number sign", "/foo/secret#/bar"},
		{"an encoded number sign before a dot segment", "/%23/../admin"},
		{"a raw control character", "/a\x01b"},
		{"a raw tab", "/a\tb"},
		{"a raw NUL", "/a\x00b"},
		{"a raw DEL", "/a\x7fb"},
		{"an encoded NUL", "/a%00b"},
		{"an encoded line feed", "/a%0ab"},
		{"an encoded unit separator", "/a%1Fb"},
		{"an encoded DEL", "/a%7fb"},
		{"raw UTF-8", "/caf\u00e9"},
		{"raw bytes that are not UTF-8", "/caf\xe9"},
		{"a raw space", "/a b"},
		{"a percent sign alone", "/%"},
		{"a percent sign with one digit", "/%4"},
		{"a percent sign with one digit in the middle", "/%4/x"},
		{"a percent sign before what is not hexadecimal", "/%zz"},
		{"a percent sign before one hexadecimal digit", "/%4z"},
		{"IIS's Unicode encoding", "/%u002e%u002e/"},
		{"two slashes at the beginning", "//evil.example/x"},
		{"only two slashes", "//"},
		{"a dot encoded twice", "/api/%252e%252e/admin"},
		{"a dot encoded twice inside a segment", "/a%252eb"},
		{"a dot encoded twice, with every character of it encoded", "/a%25%32%65b"},
		{"a slash encoded twice", "/a%252fb"},
		{"a slash encoded twice in upper case", "/a%252Fb"},
		{"a backslash encoded twice", "/a%255cb"},
		{"NUL encoded twice", "/a%2500b"},
		{"DEL encoded twice", "/a%257fb"},
		{"an overlong slash", "/a%c0%afb"},
		{"an overlong dot", "/a/%c0%ae%c0%ae/b"},
		{"an overlong slash of three bytes", "/a%e0%80%afb"},
		{"an overlong slash of four bytes", "/a%f0%80%80%afb"},
		{"an overlong slash of five bytes", "/a%f8%80%80%80%afb"},
		{"an overlong slash of six bytes", "/a%fc%80%80%80%80%afb"},
		{"an overlong slash for decoders that do not look at the second byte", "/a%c0ob"},
		{"an overlong slash encoded twice", "/a%25c0%25afb"},
		{"an overlong slash, half of it encoded twice", "/a%e0%2580%25afb"},
		{"a dot segment beyond the space of the stack", "/" + strings.Repeat("a", 600) + "/%2e%2e/b"},
		{"no target", ""},
		{"only a query", "?x"},
		{"asterisk-form", "*"},
		{"authority-form", "shop.example.com:443"},
		{"a relative path", "api/x"},
		{"absolute-form without an authority", "http://"},
		{"absolute-form with an empty authority", "http:///api"},
		{"absolute-form with userinfo", "http://shop.example.com@evil.example/api"},
		{"absolute-form with a backslash after the authority", `http://evil.example\@shop.example.com/api`},
		{"absolute-form with a fragment after the authority", "http://evil.example#/api"},
		{"absolute-form with a dot segment", "http://shop.example.com/api/../admin"},
		{"absolute-form with two slashes", "http://shop.example.com//api"},
		{"absolute-form of another scheme", "ftp://shop.example.com/api"},
		{"a URL without slashes", "http:/api"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := canonicalPath(&http.Request{RequestURI: tt.target})
			var coded interface{ Code() string }
			if !errors.As(err, &coded) || coded.Code() != "bad_path" {
				t.Errorf("canonicalPath(%q) = %+v, %v, want bad_path", tt.target, got, err)
			}
			if got != (canonical{}) {
				t.Errorf("canonicalPath(%q) = %+v beside an error", tt.target, got)
			}
		})
	}
}

func TestCanonicalPathAccepts(t *testing.T) {
	tests := []struct{ name, target, match, raw string }{
		{"the root", "/", "/", "/"},
		{"an ordinary path", "/api/orders/17", "/api/orders/17", "/api/orders/17"},
		{"a query, which is no part of it", "/api?a=/../%2e%zz", "/api", "/api"},
		{"dots inside segments", "/a.b/..c/d../.e/...", "/a.b/..c/d../.e/...", "/a.b/..c/d../.e/..."},
		{"a parameter", "/a;x=1/b", "/a;x=1/b", "/a;x=1/b"},
		{"slashes inside", "/api//x///y", "/api//x///y", "/api//x///y"},
		{"a slash at the end", "/api/", "/api/", "/api/"},
		{"an encoded number sign", "/a%23b", "/a%23b", "/a%23b"},
		{"an encoded question mark", "/a%3Fb", "/a%3Fb", "/a%3Fb"},
		{"an encoded space", "/a%20b", "/a%20b", "/a%20b"},
		{"encoded UTF-8", "/caf%C3%A9/%E6%97%A5/%F0%9F%98%80", "/caf%C3%A9/%E6%97%A5/%F0%9F%98%80", "/caf%C3%A9/%E6%97%A5/%F0%9F%98%80"},
		{"UTF-8 that an overlong sequence begins like", "/%E0%A4%A8/%F0%90%80%80", "/%E0%A4%A8/%F0%90%80%80", "/%E0%A4%A8/%F0%90%80%80"},
		{"encoded Latin-1", "/b%FCro", "/b%FCro", "/b%FCro"},
		{"an encoded percent sign", "/100%25", "/100%25", "/100%25"},
		{"an encoded percent sign before ordinary text", "/100%25zz/%25", "/100%25zz/%25", "/100%25zz/%25"},
		{"a letter encoded twice", "/%2541", "/%2541", "/%2541"},
		{"UTF-8 encoded twice", "/%25C3%25BC", "/%25C3%25BC", "/%25C3%25BC"},
		{"characters that URLs should not have but browsers send", `/a|b^c{d}[e]"<>` + "`", `/a|b^c{d}[e]"<>` + "`", `/a|b^c{d}[e]"<>` + "`"},
		{"sub-delimiters", "/@a:b!$&'()*+,;=", "/@a:b!$&'()*+,;=", "/@a:b!$&'()*+,;="},
		{"another URL inside", "/api/http://evil.example", "/api/http://evil.example", "/api/http://evil.example"},
		{"encoded unreserved characters", "/%61p%69/%7e%2D%5f%5A%39/x", "/api/~-_Z9/x", "/%61p%69/%7e%2D%5f%5A%39/x"},
		{"an encoded dot inside a segment", "/a%2eb", "/a.b", "/a%2eb"},
		{"lower-case hexadecimal digits", "/caf%c3%a9/%3b", "/caf%C3%A9/%3B", "/caf%c3%a9/%3b"},
		{"absolute-form", "http://shop.example.com/api/x?y", "/api/x", "/api/x"},
		{"absolute-form with an upper-case scheme and a port", "HTTPS://shop.example.com:8443/api", "/api", "/api"},
		{"absolute-form without a path", "http://shop.example.com", "/", "/"},
		{"absolute-form with a query only", "http://shop.example.com?x", "/", "/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := canonicalPath(&http.Request{RequestURI: tt.target})
			if want := (canonical{match: tt.match, raw: tt.raw}); err != nil || got != want {
				t.Fatalf("canonicalPath(%q) = %+v, %v, want %+v", tt.target, got, err, want)
			}
			if tt.match == tt.raw && unsafe.StringData(got.match) != unsafe.StringData(got.raw) {
				t.Errorf("canonicalPath(%q) copied a path that was in normal form", tt.target)
			}
		})
	}
}

func TestUnder(t *testing.T) {
	tests := []struct {
		name, target, route, forward string
		ok                           bool
	}{
		{"a subtree holds what is below it", "/api/x", "/api/", "/api/x", true},
		{"a subtree holds itself", "/api/", "/api/", "/api/", true},
		{"a subtree does not hold its name without the slash", "/api", "/api/", "", false},
		{"a subtree does not hold a name that begins like it", "/apix", "/api/", "", false},
		{"the root holds everything", "/api", "/", "/api", true},
		{"an exact route holds itself", "/api", "/api", "/api", true},
		{"an exact route holds nothing below it", "/api/", "/api", "", false},
		{"an exact route does not hold a longer name", "/apix", "/api", "", false},
		{"a path that is encoded below the route is forwarded as it came", "/api/%61", "/api/", "/api/%61", true},
		{"a path that only its normal form puts there is forwarded in that", "/%61pi/%62%c3%bc", "/api/", "/api/b%C3%BC", true},
		{"an exact route matches in normal form too", "/%61pi", "/api", "/api", true},
		{"a route with UTF-8 holds the same in lower-case digits", "/%c3%bc/x", "/%C3%BC/", "/%C3%BC/x", true},
		{"a letter's case matters", "/API/x", "/api/", "", false},
		{"a route that is not in normal form holds nothing", "/%61pi/x", "/%61pi/", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := canonicalPath(&http.Request{RequestURI: tt.target})
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := c.under(tt.route); got != tt.forward || ok != tt.ok {
				t.Errorf("%q under %q = %q, %v, want %q, %v", tt.target, tt.route, got, ok, tt.forward, tt.ok)
			}
		})
	}
}

// What net/http lets through of a raw target has to end in a handler that
// answers bad_path, or before it in a 400.
func TestCVE202641059CanonicalPathBehindARealServer(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := canonicalPath(r)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Path", c.raw)
	}))
	defer srv.Close()
	tests := []struct {
		name, line string
		status     int
		path       string
	}{
		{"an ordinary target", "GET /api/x?y HTTP/1.1", 200, "/api/x"},
		{"an encoded target", "GET /%61;b//c%23%C3%BC HTTP/1.1", 200, "/%61;b//c%23%C3%BC"},
		{"absolute-form", "GET http://shop.example.com/api/x HTTP/1.1", 200, "/api/x"},
		{"a number sign", "GET /foo/secret#/bar HTTP/1.1", 400, ""},
		{"a number sign in the query", "GET /foo/secret?x=1#/bar HTTP/1.1", 400, ""},
		{"encoded dots", "GET /public/%2e%2e/admin HTTP/1.1", 400, ""},
		{"a percent sign alone", "GET /% HTTP/1.1", 400, ""},
		{"no authority", "GET http:// HTTP/1.1", 400, ""},
		{"NUL", "GET /\x00 HTTP/1.1", 400, ""},
		{"bytes that are not UTF-8", "GET /\xff HTTP/1.1", 400, ""},
		{"authority-form", "CONNECT evil.example:443 HTTP/1.1", 400, ""},
		{"asterisk-form with GET", "GET * HTTP/1.1", 400, ""},
		{"a space", "GET /a b HTTP/1.1", 400, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write([]byte(tt.line + "\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.status || resp.Header.Get("X-Path") != tt.path {
				t.Errorf("%s: %d, path %q, want %d, %q", tt.line, resp.StatusCode, resp.Header.Get("X-Path"), tt.status, tt.path)
			}
		})
	}
}

var escapes = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

// decode is what a lenient server does: it leaves alone what it cannot decode.
func decode(s string) string {
	return escapes.ReplaceAllStringFunc(s, func(e string) string {
		c, err := url.PathUnescape(e)
		if err != nil {
			panic(err)
		}
		return c
	})
}

// resolve is the path a server acts on that takes a backslash for a slash, drops
// parameters and cleans what it has then.
func resolve(p string) string {
	p = regexp.MustCompile(`;[^/]*`).ReplaceAllString(strings.ReplaceAll(p, `\`, "/"), "")
	if strings.HasSuffix(p, "/") {
		return strings.TrimSuffix(path.Clean(p), "/") + "/"
	}
	return path.Clean(p)
}

// Whatever is accepted, and however often a server decodes it, the resource lies
// in the route that was matched (PX-05).
func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{
		"/", "/api/x", "/api/../admin", "/api/%2e%2e/admin", "/api/..%2fadmin", "/api/%252e%252e/x", `/api/..\admin`,
		"/api/..;/admin", "/api/..%3b/admin", "/api//x", "//api/x", "/%61pi/x", "/api/v1/%c0%ae%c0%ae/", "/api/%25%32%65", "/api/%%32e",
		"/exact", "/exact/", "/%65xact", "/b%c3%bc/x", "/api/100%25", "/api/%2525252e", "http://h/api/../x", "*", "h:443", "?", "/api/a;b/../c",
		"/api/%e0%80%2e", "/.;a/api/", "/api/.", "/api/%25c0%25ae",
	} {
		f.Add(s)
	}
	routes := []string{"/", "/api/", "/api/v1/", "/exact", "/b%C3%BC/"}
	f.Fuzz(func(t *testing.T, target string) {
		c, err := canonicalPath(&http.Request{RequestURI: target})
		if err != nil {
			return
		}
		if decode(c.match) != decode(c.raw) {
			t.Fatalf("%q: match %q and raw %q are two paths", target, c.match, c.raw)
		}
		if again, err := canonicalise(c.match); err != nil || again.match != c.match {
			t.Fatalf("%q: normal form %q is not normal: %+v, %v", target, c.match, again, err)
		}
		for _, route := range routes {
			forward, ok := c.under(route)
			if !ok {
				continue
			}
			checkRequestLine(t, forward)
			seen, within := forward, route
			for range 3 { // as it is, decoded, and decoded twice
				if strings.ContainsAny(seen, "\\\x00\r\n") || !liesUnder(resolve(seen), within) {
					t.Fatalf("%q matched %q, but a server may see %q, which is %q", target, route, seen, resolve(seen))
				}
				seen, within = decode(seen), decode(within)
			}
		}
	})
}

// checkRequestLine sends a path to a server made with net/http, to which it is that
// path and nothing more.
func checkRequestLine(t *testing.T, path string) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")))
	if err != nil {
		t.Fatalf("%q is no request target: %v", path, err)
	}
	if u := r.URL; u.Path != decode(path) || u.Host != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || r.Host != "a" {
		t.Fatalf("a server takes %q for %+v of host %q", path, u, r.Host)
	}
}

func TestCanonicalPathDoesNotAllocate(t *testing.T) {
	for _, target := range []string{"/api/orders/17?x=1", "/api/caf%C3%A9/100%25", "http://shop.example.com/api/"} {
		r := &http.Request{RequestURI: target}
		if n := testing.AllocsPerRun(100, func() {
			c, err := canonicalPath(r)
			if _, ok := c.under("/api/"); err != nil || !ok {
				t.Fatal(target, err)
			}
		}); n != 0 {
			t.Errorf("%q: %v allocations, want none", target, n)
		}
	}
}

func BenchmarkCanonicalPath(b *testing.B) {
	for name, target := range map[string]string{
		"typical": "/api/v1/orders/1742/items?page=2&sort=desc",
		"encoded": "/api/v1/caf%C3%A9/items%20all",
		"decoded": "/%61pi/v1/orders",
	} {
		b.Run(name, func(b *testing.B) {
			r := &http.Request{RequestURI: target}
			b.ReportAllocs()
			for b.Loop() {
				c, err := canonicalPath(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, ok := c.under("/api/"); !ok {
					b.Fatal(target)
				}
			}
		})
	}
}
