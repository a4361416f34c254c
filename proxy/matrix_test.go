package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"sessiongate/session"
)

// asked is a request as a browser, or somebody who poses as one, may make it.
type asked struct {
	method, site, modeDest, origin, csrf, shape, content string
}

// place is what a request is for: a route, or an endpoint of ours.
type place struct {
	path                   string
	kind, auth, rule, what string         // of a route; what: upstream or static
	methods                []string       // of a route that lists them
	endpoint               map[string]int // of an endpoint: the class by method
}

const (
	aListed  = "https://admin.example.com"
	aSibling = "https://b.example.com"
)

// The values of every field of asked. The matrix is their product.
var (
	matrixMethods = []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PURGE", "get"}
	matrixSites   = []string{"", "same-origin", "same-site", "cross-site", "none", "next-door", "same-origin|cross-site"}
	matrixModes   = []string{"", "navigate/document", "navigate/iframe", "no-cors/image", "cors/empty", "websocket/empty"}
	matrixOrigins = []string{"", testOrigin, evil, "null", aListed, aSibling, testOrigin + ".evil", testOrigin + "|" + evil}
	matrixCSRF    = []string{"", "1", "blank"}
	matrixShapes  = []string{"", "events", "html", "websocket", "preflight", "service worker", "prefetch", "override"}
	matrixContent = []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "application/json"}
)

// verdict is what DESIGN.md, section 7, says of a request: the status, and the
// code of a refusal. It reads the paragraphs, not the code.
func verdict(q asked, p place) (status int, code string) {
	if p.endpoint != nil {
		return ownVerdict(q, p)
	}
	// "Preflights are answered by the gateway": yes to our own and listed origins.
	if q.method == "OPTIONS" && q.origin != "" && q.shape == "preflight" {
		if q.origin == testOrigin || q.origin == aListed {
			return 204, ""
		}
		return 403, "origin_denied"
	}
	// "methods: allow-list; empty: all but TRACE and CONNECT"; a header that names
	// another changes nothing for the better (CSRF-11).
	if p.methods != nil && (!in(q.method, p.methods) || q.shape == "override" && !in("DELETE", p.methods)) {
		return 405, "method_not_allowed"
	}
	if p.auth != "none" {
		if code := csrfVerdict(q, p.rule); code != "" {
			return 403, code
		}
	}
	// "Service-Worker: script requests are answered from static routes only."
	if q.shape == "service worker" && p.what == "upstream" {
		return 403, "forbidden"
	}
	if p.what == "static" && q.method != "GET" && q.method != "HEAD" {
		return 405, "method_not_allowed"
	}
	return 200, ""
}

// csrfVerdict is the paragraph "CSRF".
func csrfVerdict(q asked, rule string) string {
	// "Listed cors.origins count as same-origin on routes": they make up for what
	// Sec-Fetch-Site says of them.
	listed := q.origin == aListed
	foreignSite := !listed && (in("same-site", bars(q.site)) || in("cross-site", bars(q.site)))
	foreignOrigin := false
	for _, o := range bars(q.origin) {
		foreignOrigin = foreignOrigin || o != "" && o != testOrigin && o != aListed
	}
	foreign := foreignSite || foreignOrigin
	ours := !foreign && (q.site == "same-origin" || q.origin == testOrigin || listed)
	// Unknown and repeated values are ignored (CSRF-08).
	silent := !in(q.site, []string{"same-origin", "none"}) && q.origin != testOrigin && !foreign
	if listed {
		silent = false
	}
	link := q.modeDest == "navigate/document" && (q.method == "GET" || q.method == "HEAD")
	safe := in(q.method, []string{"GET", "HEAD", "OPTIONS"})
	switch {
	// "WebSocket handshakes ... need same-origin Origin/Sec-Fetch-Site."
	case q.shape == "websocket" && q.method == "GET" && !ours:
		return "origin_denied"
	case q.shape == "websocket" && q.method == "GET":
		return ""
	// "origin: document navigations by GET/HEAD pass from anywhere; all else
	// same-origin; with both absent safe methods pass, unsafe are 403."
	case rule == "origin" && (link || ours || q.site == "none" && !foreign || silent && safe):
		return ""
	case rule == "origin":
		return "origin_denied"
	// "header: every request needs X-CSRF, and must not be cross-site or from a
	// sibling origin."
	case foreign:
		return "origin_denied"
	case q.csrf == "1":
		return ""
	// "... and EventSource requests cannot carry the header."
	case q.shape == "events" && q.method == "GET" && ours:
		return ""
	}
	return "csrf_header_missing"
}

// ownVerdict is the table of endpoints and the paragraphs below it.
func ownVerdict(q asked, p place) (int, string) {
	class, ok := p.endpoint[q.method]
	if !ok {
		return 405, "method_not_allowed"
	}
	elsewhere := func() bool { // "listed cors.origins ... never on /bff"
		for _, o := range bars(q.origin) {
			if o != "" && o != testOrigin {
				return true
			}
		}
		return in("same-site", bars(q.site)) || in("cross-site", bars(q.site)) || q.site == "none"
	}
	switch Class(class) {
	case Navigation:
		// "with any Sec-Purpose, or Fetch Metadata present that is not navigate +
		// document, 403 origin_denied without effect"; a handshake is no navigation
		if q.shape == "prefetch" || q.shape == "websocket" || (q.site != "" || q.modeDest != "") && q.modeDest != "navigate/document" {
			return 403, "origin_denied"
		}
	case Script:
		// "need X-CSRF and, where Fetch Metadata or Origin are present, same-origin"
		if elsewhere() {
			return 403, "origin_denied"
		}
		if q.csrf != "1" {
			return 403, "csrf_header_missing"
		}
	case Events:
		// "events needs same-origin by one of them"
		if elsewhere() || q.site != "same-origin" && q.origin != testOrigin {
			return 403, "origin_denied"
		}
	}
	return 200, ""
}

func in(s string, list []string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func bars(s string) []string { return strings.Split(s, "|") }

// request makes the request of a row.
func (q asked) request(path, cookie string) *http.Request {
	body := ""
	if q.content != "" && q.method != "GET" && q.method != "HEAD" {
		body = "x=1"
	}
	r := httptest.NewRequest(q.method, path, strings.NewReader(body))
	r.Host, r.RemoteAddr = testHost, "127.0.0.1:4711"
	h := r.Header
	add := func(name, value string) {
		for _, v := range bars(value) {
			if v != "" {
				h.Add(name, v)
			}
		}
	}
	mode, dest, _ := strings.Cut(q.modeDest, "/")
	add("Cookie", cookie)
	add("Sec-Fetch-Site", q.site)
	add("Sec-Fetch-Mode", mode)
	add("Sec-Fetch-Dest", dest)
	add("Origin", q.origin)
	add("Content-Type", q.content)
	switch q.csrf {
	case "1":
		h.Set("X-Csrf", "1")
	case "blank":
		h.Set("X-Csrf", "")
	}
	switch q.shape {
	case "events":
		h.Set("Accept", "text/event-stream")
	case "html":
		h.Set("Accept", "text/html,*/*;q=0.8")
	case "websocket":
		h.Set("Connection", "keep-alive, Upgrade")
		h.Set("Upgrade", "websocket")
	case "preflight":
		h.Set("Access-Control-Request-Method", "DELETE")
	case "service worker":
		h.Set("Service-Worker", "script")
	case "prefetch":
		h.Set("Sec-Purpose", "prefetch")
	case "override":
		h.Set("X-Http-Method-Override", "DELETE")
	}
	return r
}

// places are one of each sort of route, and our endpoints.
func (w *world) places(a *App) []place {
	to := must(url.Parse(w.up.URL))
	dir := staticDir(w.t)
	var all []place
	a.Routes = nil
	for _, kind := range []Kind{KindAPI, KindPage} {
		for _, auth := range []Auth{AuthRequired, AuthOptional, AuthNone} {
			for _, what := range []string{"upstream", "static"} {
				for _, rule := range []CSRF{"", CSRFHeader, CSRFOrigin} {
					if auth == AuthNone && rule != "" {
						continue
					}
					p := place{path: fmt.Sprintf("/%s-%s-%s-%s/", kind, auth, what, rule), kind: string(kind), auth: string(auth), what: what, rule: string(rule)}
					if rule == "" {
						p.rule = map[Kind]string{KindAPI: "header", KindPage: "origin"}[kind]
					}
					rt := Route{Path: p.path, Kind: kind, Auth: auth, CSRF: rule, StripPrefix: p.path, Upstream: to}
					if what == "static" {
						rt.Upstream, rt.Static = nil, &Static{dir, "index.html"}
					}
					a.Routes = append(a.Routes, rt)
					p.path += "sw.js"
					all = append(all, p)
				}
			}
		}
	}
	a.Routes = append(a.Routes, Route{Path: "/reading/", Upstream: to, Methods: []string{"GET", "POST"}})
	all = append(all, place{path: "/reading/x", kind: "api", auth: "required", rule: "header", what: "upstream", methods: []string{"GET", "POST"}})
	for path, methods := range map[string]map[string]int{
		"login": {"GET": int(Navigation)}, "session": {"GET": int(Script)}, "logout": {"POST": int(Script)},
		"sessions": {"GET": int(Script), "DELETE": int(Script)}, "sessions/x": {"DELETE": int(Script)}, "events": {"GET": int(Events)},
		"backchannel": {"POST": int(Provider)}, "frontchannel": {"GET": int(Provider)}, "client.js": {"GET": int(Public), "HEAD": int(Public)},
	} {
		all = append(all, place{path: "/bff/" + path, endpoint: methods})
	}
	return all
}

// TestCSRFMatrix goes through all sorts of requests for all sorts of places, and
// holds each answer against DESIGN.md. What is refused asked nobody: not the store,
// the provider or an upstream (CSRF-01 to CSRF-14). The product has 2.7 million
// rows; a test takes every so many of them, SESSIONGATE_MATRIX=full takes all.
func TestCSRFMatrix(t *testing.T) {
	var places []place
	w := newWorld(t, func(w *world, a *App, _ *Config) {
		a.CORSOrigins = []string{aListed}
		places = w.places(a)
	})
	expired, _ := w.login(-time.Second)
	w.manager.Reconfigure(w.sessions.Keys(), 30*time.Minute, 12*time.Hour) // empties the cache: whoever looks asks the store
	step := 251
	if os.Getenv("SESSIONGATE_MATRIX") == "full" {
		step = 1
	}
	calls := w.store.called()
	n, refused := w.matrix(places, step, expired, false)
	if store, up, provider := w.store.called()-calls, len(w.up.requests()), w.provider.called(); store+up+provider != 0 {
		t.Errorf("what was refused had effects: %d calls of the store, %d of upstreams, %d of the provider", store, up, provider)
	}
	admitted := 0
	for _, p := range places {
		w.up.forget()
		k, forwarded := w.matrix([]place{p}, step, w.cookie, true)
		if up := len(w.up.requests()); up != forwarded {
			t.Errorf("%s: the upstream saw %d requests, want %d", p.path, up, forwarded)
		}
		admitted += k
	}
	t.Logf("%d requests, of which %d were refused", n+admitted, refused)
	if step == 1 {
		return
	}
	if admitted < 1500 || refused < 8000 {
		t.Errorf("%d and %d requests, %d refused: the sample is not one", n, admitted, refused)
	}
	// The session that nobody looked at is a real one, and looking would be seen.
	calls = w.store.called()
	w.gateway.ServeHTTP(httptest.NewRecorder(), asked{method: "GET", csrf: "1"}.request("/reading/x", expired))
	if w.store.called() == calls || w.provider.called() != 1 {
		t.Error("an admitted request has no effects either")
	}
}

// matrix sends every so many rows of the matrix: those that need no session to be
// answered, or those that do. It returns how many, and of these how many were
// refused or reached an upstream.
func (w *world) matrix(places []place, step int, cookie string, admitted bool) (n, counted int) {
	i := -1
	for _, p := range places {
		every := step
		if p.endpoint != nil {
			every = (step + 4) / 5 // most methods are none of an endpoint's, so there is less to see
		}
		for _, method := range matrixMethods {
			if _, ok := p.endpoint[method]; p.endpoint != nil && !ok && method != "PUT" && step > 1 {
				continue
			}
			for _, site := range matrixSites {
				for _, mode := range matrixModes {
					for _, origin := range matrixOrigins {
						for _, csrf := range matrixCSRF {
							for _, shape := range matrixShapes {
								if i++; i%every != 0 {
									continue
								}
								q := asked{method, site, mode, origin, csrf, shape, matrixContent[i/every%len(matrixContent)]}
								status, code := verdict(q, p)
								// A session is asked for what is admitted to a route that has one.
								asks := p.endpoint == nil && p.auth != "none" && (status == 200 || status == 405 && p.methods == nil)
								if (asks || p.what == "upstream" && status == 200) != admitted {
									continue
								}
								n++
								w.check(q, p, cookie, status, code)
								if admitted && p.what == "upstream" || !admitted && status >= 400 {
									counted++
								}
							}
						}
					}
				}
			}
		}
	}
	return n, counted
}

func (w *world) check(q asked, p place, cookie string, status int, code string) {
	rec := httptest.NewRecorder()
	w.gateway.ServeHTTP(rec, q.request(p.path, cookie))
	if rec.Code != status || code != "" && !strings.Contains(rec.Body.String(), code) {
		w.t.Errorf("%s %+v: status %d %.200s, want %d %s", p.path, q, rec.Code, rec.Body, status, code)
	}
	if status >= 400 && rec.Header().Get("Cache-Control") != "no-store" {
		w.t.Errorf("%s %+v: Cache-Control %q", p.path, q, rec.Header().Get("Cache-Control"))
	}
	allow := rec.Header().Get("Access-Control-Allow-Origin")
	if want := map[bool]string{true: aListed}[q.origin == aListed && p.endpoint == nil]; allow != want {
		w.t.Errorf("%s %+v: may be read by %q, want %q", p.path, q, allow, want)
	}
}

func (s *flakyStore) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *flakyStore) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
}

func (s *flakyStore) Replace(ctx context.Context, key session.Key, version uint64, data []byte) error {
	s.count()
	return s.Store.Replace(ctx, key, version, data)
}

func (s *flakyStore) End(ctx context.Context, key session.Key, reason session.Reason, c session.Condition) (session.Record, error) {
	s.count()
	return s.Store.End(ctx, key, reason, c)
}

func (s *flakyStore) Touch(ctx context.Context, touches []session.Touch) error {
	s.count()
	return s.Store.Touch(ctx, touches)
}

func (s *flakyStore) Acquire(ctx context.Context, key session.Key, ttl time.Duration) (session.Lease, error) {
	s.count()
	return s.Store.Acquire(ctx, key, ttl)
}
