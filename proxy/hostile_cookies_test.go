package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// SES-06: a cookie that only looks like ours is none, opens nothing and hides
// nothing; two of ours are refused, in any order.
func TestSES06AmbiguityAndPrefixTricks(t *testing.T) {
	w := newWorld(t)
	name, value, _ := strings.Cut(w.cookie, "=")
	low := strings.ToLower(name)
	for _, row := range []struct {
		name    string
		cookies []string
		status  int
		arrives []string // at the upstream
	}{
		{"bad before good", []string{name + "=bad; " + w.cookie}, 400, nil},
		{"good before bad", []string{w.cookie + "; " + name + "=bad"}, 400, nil},
		{"good twice", []string{w.cookie + "; " + w.cookie}, 400, nil},
		{"one on each line", []string{name + "=bad", w.cookie}, 400, nil},
		{"an empty twin", []string{name + "=; " + w.cookie}, 400, nil},
		{"a twin without a value", []string{name + "; " + w.cookie}, 400, nil},
		{"a twin in other white space", []string{" \t" + name + "\t =bad;" + w.cookie}, 400, nil},
		{"a planted nameless cookie, as browsers send it back", []string{name + "=bad; " + w.cookie}, 400, nil},
		{"a nameless cookie as it was set", []string{"=" + name + "=bad; " + w.cookie}, 200, nil},
		{"a twin in lower case", []string{low + "=" + value + "; " + w.cookie}, 200, []string{low + "=" + value}},
		{"lower case alone", []string{low + "=" + value}, 401, nil},
		{"without its prefix, alone", []string{"session=" + value + "; Http-session=" + value + "; __Host-session=" + value + "; __Secure-session=" + value}, 401, nil},
		{"nameless alone", []string{"=" + w.cookie}, 401, nil},
		{"between quotes of another cookie", []string{`a="` + w.cookie + `"`}, 401, nil},
		{"behind a comma, as RFC 2965 had it", []string{"a=1, " + w.cookie}, 401, nil},
		{"a quoted value", []string{name + `="` + value + `"`}, 401, nil},
		{"with a flow cookie's name", []string{name + "-flow=" + value}, 401, nil},
		{"good, beside 200 of odd names", []string{w.cookie + strings.Repeat("; "+name+".1=x; "+low+"=y; __Host-x=z; =; ;", 40)}, 200, nil},
	} {
		w.up.forget()
		header := []string{"X-CSRF: 1"}
		for _, c := range row.cookies {
			header = append(header, "Cookie: "+c)
		}
		got := w.send("GET /api/x", header...)
		if got.StatusCode != row.status || got.Header["Set-Cookie"] != nil {
			t.Errorf("%s: status %d %v, want %d", row.name, got.StatusCode, got.Header["Set-Cookie"], row.status)
			continue
		}
		if row.status != 200 {
			continue
		}
		saw := w.up.last(t).Header
		if row.arrives != nil && !slices.Equal(saw["Cookie"], row.arrives) || strings.Contains(strings.Join(saw["Cookie"], ";"), w.cookie) || saw.Get("Authorization") != "Bearer "+w.token {
			t.Errorf("%s: the upstream sees %q", row.name, saw["Cookie"])
		}
	}
}

// CVE-2026-47775, SES-09: whatever byte of a session cookie is changed, cut or
// added, the answer is the same as to junk, and the store is not asked.
func TestCVE202647775EveryByteOfACookieCounts(t *testing.T) {
	w := newWorld(t)
	name, value, _ := strings.Cut(w.cookie, "=")
	w.manager.Reconfigure(w.sessions.Keys(), 30*time.Minute, 12*time.Hour) // empties the cache
	calls := w.store.called()
	var want string
	try := func(what, changed string) {
		got := w.send("GET /api/x", "X-CSRF: 1", "Cookie: "+name+"="+changed)
		delete(got.Header, "X-Request-Id")
		delete(got.Header, "Date")
		p := got.problem(t)
		p.RequestID = ""
		delete(got.Header, "Content-Length")
		text := fmt.Sprint(got.StatusCode, got.Header, p)
		if want == "" {
			want = text
		}
		if text != want || got.StatusCode != 401 {
			t.Errorf("%s: %s, want %s", what, text, want)
		}
	}
	try("junk", "junk")
	for i := range value {
		flipped := []byte(value)
		flipped[i] ^= 1
		if flipped[i] <= ' ' || flipped[i] >= 0x7f || strings.IndexByte(`";\,`, flipped[i]) >= 0 {
			flipped[i] = 'A'
			if value[i] == 'A' {
				flipped[i] = 'B'
			}
		}
		try(fmt.Sprintf("byte %d", i), string(flipped))
	}
	for what, changed := range map[string]string{
		"cut": value[:len(value)-1], "longer": value + "A", "padded": value + "=", "twice": value + value, "empty": "", "another alphabet": strings.NewReplacer("-", "+", "_", "/").Replace(value) + "A",
		"huge": strings.Repeat(value, 100), "another's signature": value[:len(value)/2] + strings.Repeat("A", len(value)-len(value)/2),
	} {
		try(what, changed)
	}
	if n := w.store.called() - calls; n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	if got := w.send("GET /api/x", "X-CSRF: 1", "Cookie: "+w.cookie); got.StatusCode != 200 {
		t.Errorf("the cookie itself: status %d", got.StatusCode)
	}
}

// CVE-2024-24814: what cookies there are is the client's to say, and decides
// nothing but which of them are cut out: 200 and 10,000 of them, numbers in their
// names, and a huge one pass or are refused by size, soon and without a cookie set.
func TestCVE202424814ManyAndHugeCookies(t *testing.T) {
	w := newWorld(t)
	name, _, _ := strings.Cut(w.cookie, "=")
	for _, row := range []struct {
		what, cookies string
		kept          string
	}{
		{"200 of the app's", w.cookie + strings.Repeat("; a=1", 200), strings.Repeat("; a=1", 200)[2:]},
		{"10,000 of the app's", w.cookie + strings.Repeat("; a=1", 10000), strings.Repeat("; a=1", 10000)[2:]},
		{"10,000 that are named like ours", w.cookie + strings.Repeat("; "+name+"-0=9", 10000), ""},
		{"chunks that count to two billion", w.cookie + "; " + name + "-chunks=2000000000; " + name + "_0=2000000000; " + name + "C1=x", name + "_0=2000000000; " + name + "C1=x"},
		{"a huge one", w.cookie + "; big=" + strings.Repeat("x", 500_000), "big=" + strings.Repeat("x", 500_000)},
	} {
		w.up.forget()
		began := time.Now()
		got := w.send("GET /api/x", "X-CSRF: 1", "Cookie: "+row.cookies)
		if len(got.Header["Set-Cookie"]) != 0 || got.StatusCode != 200 || time.Since(began) > 5*time.Second {
			t.Errorf("%s: status %d after %v, %v", row.what, got.StatusCode, time.Since(began), got.Header["Set-Cookie"])
			continue
		}
		if saw := w.up.last(t).Header.Get("Cookie"); saw != row.kept {
			t.Errorf("%s: %d bytes arrive, want %d", row.what, len(saw), len(row.kept))
		}
	}
	if got := w.send("GET /api/x", "X-CSRF: 1", "Cookie: "+w.cookie+strings.Repeat("; "+w.cookie, 999)); got.StatusCode != 400 {
		t.Errorf("1,000 session cookies: status %d, want 400", got.StatusCode)
	}
}

// SES-10: a session is found by its cookie, and by nothing else that a request has.
func TestSES10TheIDIsTakenFromTheCookieOnly(t *testing.T) {
	w := newWorld(t)
	name, value, _ := strings.Cut(w.cookie, "=")
	for _, row := range []struct{ line, body, header string }{
		{"GET /api/x?" + url.QueryEscape(name) + "=" + url.QueryEscape(value), "", ""},
		{"GET /api/x;" + name + "=" + value, "", ""},
		{"POST /api/x", url.Values{name: {value}}.Encode(), "Content-Type: application/x-www-form-urlencoded"},
		{"GET /api/x", "", name + ": " + value},
		{"GET /api/x", "", "Authorization: Bearer " + value},
		{"GET /api/x", "", "Cookie2: " + w.cookie},
		{"GET /api/x", "", "X-Cookie: " + w.cookie},
		{"GET /api/x", "", "_Cookie: " + w.cookie},
		{"GET /api/x", "", "Set-Cookie: " + w.cookie},
	} {
		got := w.sendBody(row.line, row.body, "X-CSRF: 1", fmt.Sprintf("Content-Length: %d", len(row.body)), "X-Pad: 1", strings.TrimSpace(row.header+" ")+map[bool]string{true: "X-Pad: 2"}[row.header == ""])
		if got.StatusCode != 401 || got.problem(t).Code != "session_required" {
			t.Errorf("%s %s: status %d %s", row.line, row.header, got.StatusCode, got.body)
		}
	}
	if n := len(w.up.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

// CVE-2022-29226, CVE-2021-32637, CVE-2022-38580: what a client claims, or breaks,
// opens nothing: junk bearers, targets that are none, headers that name an upstream.
func TestCVE202229226NothingButASessionOpensARoute(t *testing.T) {
	w := newWorld(t)
	for _, header := range []string{
		"Authorization: Bearer x", "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.", "Authorization: Bearer " + w.token, "Authorization: Basic YTpi",
		"X-Forwarded-User: ada", "X-Auth-Request-User: ada", "Remote-User: ada", "X-Original-URL: /open/x", "X-Forwarded-Uri: /open/x", "X-Skipper-Proxy: http://evil.example",
		"X-Backend: evil.example", "User-Agent: GoogleHC/1.0", "User-Agent: kube-probe/1.30", "User-Agent:", "Sessiongate: 1", "X-Sessiongate: 1",
	} {
		for _, path := range []string{"/api/x", "/page/x", "/api/x?/open/x", "/api/x?x=/bff/client.js"} {
			got := w.send("GET "+path, "X-CSRF: 1", header)
			if got.StatusCode != 401 || got.problem(t).Code != "session_required" {
				t.Errorf("CVE-2026-34457, CVE-2026-40575: %s with %s: status %d", path, header, got.StatusCode)
			}
		}
	}
	for _, line := range []string{
		"GET /%", "GET http://", "GET http:///api/x", "GET /api/\x00x", "GET /api/\xff", "GET /api/\xc0\xae\xc0\xae/x", "GET shop.example.com:443", "GET //api/x", "GET *", "GET ?x", "GET /api/%zz",
		"GET /open/secret#/api/x", "GET /%23/../api/x", "GET /open/..%2fapi/x", "GET /open/%2e%2e/api/x", "GET /open/..;/api/x", "GET /open/%252e%252e/api/x", "GET /open/%5c..%5capi/x", `GET /open\..\api/x`,
		"GET /open/%c0%ae%c0%ae/api/x", "GET http://" + testHost + "//api/x", "GET http://a@" + testHost + "/open/x", "OPTIONS *", "CONNECT " + testHost + ":443", "TRACE /open/x", "TRACK /open/%2e%2e/x", "PRI *",
	} {
		c := w.dial()
		io.WriteString(c, line+" HTTP/1.1\r\nHost: "+testHost+"\r\nX-CSRF: 1\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode < 400 || res.StatusCode >= 500 {
			t.Errorf("CVE-2021-32637: %q: %v, %v", line, res, err)
		}
	}
	if saw := w.up.requests(); len(saw) != 0 {
		t.Errorf("the upstream saw %v", saw)
	}
}
