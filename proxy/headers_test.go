package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestPX03ClientHeaders: what of a request's header reaches the upstream. Each row is
// sent on every sort of route, as stripping is nobody's privilege (pain 57).
func TestPX03ClientHeaders(t *testing.T) {
	w := newWorld(t)
	gone := []string{
		"Authorization: Basic x", "authorization: Bearer x", "AUTHORIZATION: Token x", // PX-03, CVE-2022-29226
		"X-CSRF: secret-x", "x_csrf: x", "DPoP: x", "Proxy-Authorization: Basic x", "HTTP2-Settings: x",
		"X-Forwarded-For: 10.9.9.9", "x_forwarded_for: 10.9.9.9", "X.Forwarded.For: 10.9.9.9", "X-Forwarded_For: 10.9.9.9", "X~Forwarded!For: 10.9.9.9",
		"X-Forwarded-Host: evil.example", "X-Forwarded-Proto: javascript", "X-Forwarded-Port: 10999", "X-Forwarded-Prefix: /evil", // CVE-2026-35051
		"X-Forwarded-User: evil", "X_Forwarded_User: evil", "X.Forwarded.User: evil", // CVE-2025-64484
		"Forwarded: for=10.9.9.9", "X-Real-IP: 10.9.9.9", "X_Real_IP: 10.9.9.9", "X-Original-URL: /evil", "X_Original_URL: /evil", "X-Rewrite-URL: /evil", "X-Envoy-Original-Path: /evil",
		"True-Client-IP: 10.9.9.9", "X-Client-IP: 10.9.9.9", "X-Cluster-Client-IP: 10.9.9.9", "Client-IP: 10.9.9.9", "CF-Connecting-IP: 10.9.9.9", "CF_Connecting_IPv6: 10.9.9.9",
		"Content_Length: 99", "Transfer_Encoding: chunked", "Keep.Alive: x-evil",
		"X-Request-Id: evil", "X_Request_Id: evil", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate: evil=1", "baggage: evil=1",
		"Te: gzip", "Keep-Alive: timeout=99", "Proxy-Connection: evil", "Trailer: X-Evil", "Upgrade: h2c",
	}
	for _, path := range []string{"/api/x", "/page/x", "/opt/x", "/anonymous/x", "/open/x", "/stripped/x"} {
		for _, line := range gone {
			w.up.forget()
			// Twice, so that neither the first nor the last survives.
			header := []string{"Cookie: " + w.cookie, "X-CSRF: 1", "Sec-Fetch-Site: same-origin", line, line}
			w.send("GET "+path, header...)
			name, value, _ := strings.Cut(line, ": ")
			for k, vv := range w.up.last(t).Header {
				for _, v := range vv {
					if v == value || v != "" && strings.EqualFold(k, name) && strings.Contains(v, value) {
						t.Errorf("%s: %q reached the upstream as %s: %s", path, line, k, v)
					}
				}
			}
		}
	}
	kept := []string{
		"X-User: ada", "X_User: ada", "Accept-Language: de", "Range: bytes=0-5", "If-None-Match: \"x\"", "Content-Type: text/x", "X-Forward: yes",
		"User-Agent: tool/1.0", "Referer: " + testOrigin + "/x", "Sec-Fetch-Site: same-origin", "Origin: " + testOrigin, "Last-Event-ID: 7", "X-HTTP-Method-Override: DELETE", "Cache-Control: no-transform",
	}
	for _, line := range kept {
		w.up.forget()
		w.send("GET /open/x", line)
		name, value, _ := strings.Cut(line, ": ")
		if got := w.up.last(t).Header[http.CanonicalHeaderKey(name)]; len(got) != 1 || got[0] != value {
			t.Errorf("%q reached the upstream as %q", line, got)
		}
	}
}

// TestPX02AddedHeaders: exactly what the gateway says, once each (PX-02).
func TestPX02AddedHeaders(t *testing.T) {
	w := newWorld(t)
	w.send("GET /api/x", w.withSession("Te: trailers, deflate")...)
	saw := w.up.last(t)
	for name, want := range map[string]string{
		"Authorization":     "Bearer " + w.token,
		"X-Forwarded-For":   "127.0.0.1",
		"X-Forwarded-Proto": "https",
		"X-Forwarded-Host":  testHost,
		"Via":               "1.1 " + pseudonym,
		"Te":                "trailers",
	} {
		if got := saw.Header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	id, parent := saw.Header.Get("X-Request-Id"), saw.Header.Get("Traceparent")
	if !isTraceparent(parent) || parent[3:35] != id {
		t.Errorf("X-Request-Id = %q, Traceparent = %q", id, parent)
	}
	for _, name := range []string{"User-Agent", "Cookie", "X-Csrf", "Connection", "Upgrade", "Accept-Encoding"} {
		if saw.Header[name] != nil {
			t.Errorf("%s = %q, want none", name, saw.Header[name])
		}
	}
	if want := strings.TrimPrefix(w.up.URL, "http://"); saw.Host != want {
		t.Errorf("Host = %q, want %q", saw.Host, want)
	}
	w.up.forget()
	w.send("GET /api/x", w.withSession()...)
	if again := w.up.last(t).Header.Get("X-Request-Id"); again == id || again == "" {
		t.Errorf("the second request's id is %q, the first's %q", again, id)
	}
}

// TestPX07TokenPerRoute: which routes send the token (PX-07, PX-09).
func TestPX07TokenPerRoute(t *testing.T) {
	w := newWorld(t)
	bearer := "Bearer " + w.token
	for _, row := range []struct {
		path   string
		header []string
		want   string
	}{
		{"/api/x", w.withSession(), bearer},
		{"/api/x", w.withSession("Authorization: Basic evil"), bearer},
		{"/page/x", w.withSession("Sec-Fetch-Site: same-origin"), bearer},
		{"/opt/x", w.withSession(), bearer},
		{"/opt/x", []string{"X-CSRF: 1", "Authorization: Bearer evil"}, ""},
		{"/anonymous/x", w.withSession(), ""},
		{"/open/x", w.withSession("Authorization: Bearer evil"), ""},
		{"/hook/x", w.withSession("Authorization: Basic theirs"), "Basic theirs"},
	} {
		w.up.forget()
		w.send("GET "+row.path, row.header...)
		if got := strings.Join(w.up.last(t).Header["Authorization"], " | "); got != row.want {
			t.Errorf("%s: Authorization = %q, want %q", row.path, got, row.want)
		}
	}
}

// TestCVE202445410ConnectionHeader: a client cannot name what we add, however it writes it
// (PX-16, HT-01, CVE-2021-33197, CVE-2024-45410, CVE-2026-29054).
func TestCVE202445410ConnectionHeader(t *testing.T) {
	w := newWorld(t)
	ours := []string{"Authorization", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Via", "X-Request-Id", "Traceparent", "X-Key"}
	all := strings.Join(ours, ", ")
	for _, header := range [][]string{
		{"Connection: " + all},
		{"Connection: " + strings.ToLower(all)},
		{"connection: " + all + ", close"},
		{"Connection: keep-alive", "Connection: " + all},
		{"Connection: ", "Connection: " + all},
		{"Connection: ,, ," + all},
		{"Connection: Cookie, X-CSRF, " + all},
	} {
		w.up.forget()
		got := w.send("GET /ruled/x", w.withSession(header...)...)
		if got.StatusCode != 200 {
			t.Errorf("%v: status %d", header, got.StatusCode)
			continue
		}
		saw := w.up.last(t).Header
		for _, name := range ours {
			if len(saw[name]) != 1 {
				t.Errorf("%v: the upstream sees %s %q", header, name, saw[name])
			}
		}
		if saw["Connection"] != nil {
			t.Errorf("%v: Connection %q passes", header, saw["Connection"])
		}
	}
	w.up.forget()
	w.send("GET /open/x", "Connection: x-a", "Connection:", "Connection: x-b , x-c", "X-A: 1", "X-B: 1", "X-C: 1", "X-D: 1")
	saw := w.up.last(t).Header
	if saw["X-A"] != nil || saw["X-B"] != nil || saw["X-C"] != nil || saw["X-D"] == nil {
		t.Errorf("HT-01: named fields: %v", saw)
	}
	w.up.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Connection"] = []string{"", "x-a", "X-B"}
		for _, name := range []string{"X-A", "X-B", "X-C", "Keep-Alive", "Proxy-Authenticate"} {
			w.Header().Set(name, "1")
		}
	})
	back := w.send("GET /open/x").Header
	if back["X-A"] != nil || back["X-B"] != nil || back["Keep-Alive"] != nil || back["Proxy-Authenticate"] != nil || back["X-C"] == nil {
		t.Errorf("HT-01: the way back: %v", back)
	}
}

func TestPX03HeaderRules(t *testing.T) {
	w := newWorld(t)
	w.up.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "upstream/1.0")
		w.Header().Set("X-Frame-Options", "ALLOWALL")
	})
	got := w.send("GET /ruled/x", w.withSession(
		"X-Key: evil", "X_Key: evil", "x.key: evil", "X-User-Id: evil", "X_User_Id: evil", "X_USER.ID: evil", "X-Secret: evil", "X_Secret: evil", "x.secret: evil", "X-Keys: fine")...)
	saw := w.up.last(t).Header
	for name, vv := range saw {
		if slices.Contains(vv, "evil") {
			t.Errorf("PX-03: the upstream sees %s %q", name, vv)
		}
	}
	if saw.Get("X-Key") != "ours" || saw.Get("X-User-Id") != "fixed" || saw["X-Secret"] != nil || saw.Get("X-Keys") != "fine" {
		t.Errorf("the rules give %v", saw)
	}
	if got.Header["Server"] != nil || !slices.Equal(got.Header["X-Frame-Options"], []string{"DENY"}) {
		t.Errorf("response_headers: %v", got.Header)
	}
}

// TestPX01Cookies: ours stay, the app's pass byte for byte (PX-01, pain 55).
func TestPX01Cookies(t *testing.T) {
	w := newWorld(t)
	ours := w.cookie
	name, _, _ := strings.Cut(ours, "=")
	for _, row := range []struct{ sent, want []string }{
		{[]string{ours}, nil},
		{[]string{"a=1; " + ours + "; b=2"}, []string{"a=1; b=2"}},
		{[]string{ours + ";b=2"}, []string{"b=2"}},
		{[]string{"a=1", ours, "b=2"}, []string{"a=1", "b=2"}},
		{[]string{`a="1;2"; ` + name + `-flow=x; ` + ours}, []string{`a="1;2"`}},
		{[]string{"a=1;;b; " + ours + "; " + name + "2=x"}, []string{"a=1;;b; " + name + "2=x"}},
		{[]string{"a=1; b"}, []string{"a=1; b"}},
		{[]string{`a="; ` + ours}, []string{`a="`}},
	} {
		for _, path := range []string{"/api/x", "/open/x"} {
			w.up.forget()
			header := []string{"X-CSRF: 1"}
			for _, c := range row.sent {
				header = append(header, "Cookie: "+c)
			}
			w.send("GET "+path, header...)
			if path == "/api/x" && !strings.Contains(strings.Join(row.sent, ";"), ours) {
				continue
			}
			if got := w.up.last(t).Header["Cookie"]; !slices.Equal(got, row.want) {
				t.Errorf("%s: %q arrives as %q, want %q", path, row.sent, got, row.want)
			}
		}
	}
}

// TestPX17AnswerHeaders: what an upstream cannot say to a browser (PX-17).
func TestPX17AnswerHeaders(t *testing.T) {
	w := newWorld(t)
	name, _, _ := strings.Cut(w.cookie, "=")
	w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h["Set-Cookie"] = []string{
			name + "=evil; Path=/", strings.ToUpper(name) + "=evil", " " + name + " =evil", "=" + name + "=evil", name, name + "-flow=evil",
			"theirs=1; Path=/; HttpOnly", name + "2=theirs",
		}
		for _, k := range []string{"X-Sessiongate", "Service-Worker-Allowed", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "NEL",
			"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Max-Age", "Access-Control-Foo"} {
			h.Set(k, "evil")
		}
		h.Set("Etag", `"x"`)
		h.Set("Content-Encoding", "br")
		h.Set("Www-Authenticate", `Bearer realm="theirs"`)
		rw.WriteHeader(418)
		io.WriteString(rw, "teapot")
	})
	for _, path := range []string{"/api/x", "/open/x"} {
		got := w.send("GET "+path, w.withSession()...)
		for k, vv := range got.Header {
			if strings.Contains(strings.Join(vv, ""), "evil") {
				t.Errorf("%s: %s %q passes", path, k, vv)
			}
		}
		if want := []string{"theirs=1; Path=/; HttpOnly", name + "2=theirs"}; !slices.Equal(got.Header["Set-Cookie"], want) {
			t.Errorf("%s: Set-Cookie %q, want %q", path, got.Header["Set-Cookie"], want)
		}
		if got.Header["X-Sessiongate"] != nil {
			t.Errorf("%s: X-Sessiongate on an upstream's answer", path)
		}
		if got.StatusCode != 418 || got.body != "teapot" || got.Header.Get("Etag") != `"x"` || got.Header.Get("Content-Encoding") != "br" || got.Header.Get("Www-Authenticate") == "" {
			t.Errorf("PX-12, HT-13: %s: status %d, %v", path, got.StatusCode, got.Header)
		}
		if hsts := got.Header["Strict-Transport-Security"]; !slices.Equal(hsts, []string{"max-age=31536000"}) {
			t.Errorf("%s: HSTS %q", path, hsts)
		}
	}
}

// No cache on the way gives a session's answer to somebody else (HT-11, CVE-2025-48947,
// pain 59).
func TestHT11AnswersOfASessionAreNobodyElses(t *testing.T) {
	w := newWorld(t)
	shared := []string{"CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "Akamai-Cache-Control", "Surrogate-Control", "Edge-Control", "X-Accel-Expires"}
	for _, row := range []struct{ upstream, session, open string }{
		{"", "private", ""},
		{"public, max-age=60", "private, max-age=60", "public, max-age=60"},
		{"max-age=60, S-MaxAge=600, PUBLIC", "private, max-age=60", "max-age=60, S-MaxAge=600, PUBLIC"},
		{"no-store", "no-store", "no-store"},
		{"no-store, public", "no-store", "no-store, public"},
		{"private, max-age=5", "private, max-age=5", "private, max-age=5"},
		{"no-cache", "private, no-cache", "no-cache"},
		{`private="set-cookie", max-age=9`, `private, private="set-cookie", max-age=9`, `private="set-cookie", max-age=9`},
		{`ext="public, s-maxage=1"`, `private, ext="public, s-maxage=1"`, `ext="public, s-maxage=1"`},
		{"no-transform, immutable", "private, no-transform, immutable", "no-transform, immutable"},
	} {
		w.up.answer(func(rw http.ResponseWriter, r *http.Request) {
			if row.upstream != "" {
				rw.Header().Set("Cache-Control", row.upstream)
			}
			for _, name := range shared {
				rw.Header().Set(name, "max-age=600")
			}
			rw.Header().Set("Etag", `"x"`)
			rw.WriteHeader(304)
		})
		for path, want := range map[string]string{"/api/x": row.session, "/opt/x": row.session, "/anonymous/x": row.session, "/open/x": row.open} {
			got := w.send("GET "+path, w.withSession()...)
			if v := strings.Join(got.Header["Cache-Control"], " | "); v != want {
				t.Errorf("%s, %q: Cache-Control = %q, want %q", path, row.upstream, v, want)
			}
			if got.StatusCode != 304 || got.Header.Get("Etag") != `"x"` {
				t.Errorf("%s: status %d, Etag %q", path, got.StatusCode, got.Header.Get("Etag"))
			}
			for _, name := range shared {
				if passes := got.Header.Get(name) != ""; passes != (path == "/open/x") {
					t.Errorf("%s: %s passes: %v", path, name, passes)
				}
			}
		}
		got := w.send("GET /opt/x", "X-CSRF: 1")
		if v := strings.Join(got.Header["Cache-Control"], " | "); v != row.open {
			t.Errorf("optional, anonymous: Cache-Control = %q, want %q", v, row.open)
		}
	}
}

func TestFold(t *testing.T) {
	for _, name := range []string{"X-Forwarded-For", "x_forwarded_for", "X.Forwarded.For", "x-FORWARDED_for", "X!Forwarded~For"} {
		if got := fold(name); got != "X-Forwarded-For" {
			t.Errorf("fold(%q) = %q", name, got)
		}
	}
	for name, want := range map[string]bool{"X-Forwarded-For": false, "Etag": false, "X_a": true, "X.a": true, "X|a": true} {
		if got := isOdd(name); got != want {
			t.Errorf("isOdd(%q) = %v", name, got)
		}
	}
}

func TestSaysInvalidToken(t *testing.T) {
	for _, row := range []struct {
		challenges []string
		want       bool
	}{
		{nil, false},
		{[]string{"Bearer"}, false},
		{[]string{`Bearer error="invalid_token"`}, true},
		{[]string{`bearer realm="a, b", Error=invalid_token`}, true},
		{[]string{`Basic realm="x", Bearer realm="y" , error="invalid_token"`}, true},
		{[]string{`Basic realm="x"`, `Bearer error="invalid_token", error_description="expired"`}, true},
		{[]string{`Bearer error="insufficient_scope"`}, false},
		{[]string{`Bearer error="insufficient_user_authentication"`}, false},
		{[]string{`Bearer error_description="error=invalid_token"`}, false},
		{[]string{`Bearer realm="x, error=invalid_token"`}, false},
		{[]string{`DPoP error="invalid_token"`}, false},
		{[]string{`Bearer realm="x", DPoP error="invalid_token"`}, false},
		{[]string{`Bearer, Basic error="invalid_token"`}, false},
	} {
		if got := saysInvalidToken(row.challenges); got != row.want {
			t.Errorf("%q: got %v", row.challenges, got)
		}
	}
	if got := fmt.Sprint(privately([]string{"public", "max-age=1"})); got != "[private, max-age=1]" {
		t.Errorf("two lines of Cache-Control become %s", got)
	}
}
