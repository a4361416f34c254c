package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"sessiongate/session"
)

// TestPathParameters: the parameter is one segment, decoded, and never empty.
func TestPathParameters(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]string{
		"sessions/abc":       "one: abc",
		"sessions/%7Bid%7D":  "one: {id}",
		"sessions/{id}":      "one: {id}",
		"sessions/a%20b":     "one: a b",
		"sessions/%61b-c_d~": "one: ab-c_d~",
		"sessions/a%25b":     "one: a%b",
		"sessions":           "all",
	} {
		if got := w.send("DELETE /bff/"+path, w.withSession()...); got.StatusCode != 200 || got.body != want {
			t.Errorf("DELETE %s: status %d %q, want %q", path, got.StatusCode, got.body, want)
		}
	}
	if n := w.metric("sessiongate_requests_total", testOrigin, "DELETE", "/bff/sessions/{id}", "200"); n != 6 {
		t.Errorf("requests_total of the path = %v, want 6: an id is no label", n)
	}
}

// TestOpenEndpointsHaveNoCookies: two session cookies are nothing to who does
// not look at them.
func TestOpenEndpointsHaveNoCookies(t *testing.T) {
	w := newWorld(t)
	for line, status := range map[string]int{
		"POST /bff/backchannel": 200, "GET /bff/frontchannel": 200, "GET /bff/client.js": 200,
		"GET /bff/events": 400, "GET /bff/backchannel": 400, "DELETE /bff/sessions/x": 400, "GET /bff/session": 400,
	} {
		got := w.send(line, "Cookie: "+w.cookie+"; "+w.cookie, "X-CSRF: 1", "Sec-Fetch-Site: same-origin", "Content-Length: 0")
		if got.StatusCode != status {
			t.Errorf("%s with two session cookies: status %d, want %d", line, got.StatusCode, status)
		}
	}
}

// TestEndpointsOwnHeaders: what an endpoint says of its answer's framing and
// caching is what arrives; about errors it has no say.
func TestEndpointsOwnHeaders(t *testing.T) {
	const csp, cache = "frame-ancestors https://login.example.com", "public, max-age=300"
	framed := func(fails error) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Security-Policy", csp)
			w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
			w.Header().Set("Cache-Control", cache)
			w.Header().Set("ETag", `"1"`)
			if fails != nil {
				return fails
			}
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
			}
			return nil
		}
	}
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Endpoints = append(a.Endpoints, Endpoint{"GET", "framed", Provider, framed(nil)}, Endpoint{"GET", "text", Public, framed(nil)},
			Endpoint{"GET", "wrong", Provider, framed(session.ErrNone)})
	})
	for line, status := range map[string]int{"GET /bff/framed": 200, "GET /bff/text": 200, "GET /bff/text?": 304, "GET /bff/wrong": 401, "POST /bff/framed": 405} {
		header := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Content-Length: 0"}
		if status == 304 {
			header = append(header, `If-None-Match: "1"`)
		}
		got := w.send(line, header...)
		h := got.Header
		if got.StatusCode != status || h.Get("Strict-Transport-Security") == "" || h.Get("X-Frame-Options") != "" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: status %d, want %d; %v", line, got.StatusCode, status, h)
		}
		want := [3]string{csp, "cross-origin", cache}
		if status >= 400 {
			want = [3]string{"", "same-origin", "no-store"}
		}
		if have := [3]string{h.Get("Content-Security-Policy"), h.Get("Cross-Origin-Resource-Policy"), h.Get("Cache-Control")}; have != want {
			t.Errorf("%s: %q, want %q", line, have, want)
		}
	}
	if h := w.send("GET /bff/client.js").Header; h.Get("Cache-Control") != "no-store" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" {
		t.Errorf("an endpoint that says nothing: %v", h)
	}
}

// TestEventsEndAtShutdown: they are counted while they are open, and only then.
func TestEventsEndAtShutdown(t *testing.T) {
	streams, shutDown := context.WithCancel(t.Context())
	began, over := make(chan bool, 1), make(chan error, 1)
	w := newWorld(t, func(_ *world, a *App, c *Config) {
		c.Streams = streams
		a.Endpoints = append(a.Endpoints, Endpoint{"GET", "live", Events, func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			http.NewResponseController(w).Flush()
			began <- true
			<-r.Context().Done()
			over <- r.Context().Err()
			io.WriteString(w, "data: last\n\n")
			return nil
		}}, Endpoint{"GET", "none", Events, func(w http.ResponseWriter, r *http.Request) error {
			w.WriteHeader(http.StatusNoContent)
			began <- true
			<-over
			return nil
		}})
	})
	open := func() float64 { return w.metric("sessiongate_streams_open", testOrigin, "events") }
	body := make(chan string)
	go func() { body <- w.send("GET /bff/live", "Sec-Fetch-Site: same-origin").body }()
	<-began
	if n := open(); n != 1 {
		t.Errorf("streams_open{events} = %v, want 1", n)
	}
	shutDown()
	if got := <-body; !strings.HasSuffix(got, "data: last\n\n") {
		t.Errorf("the stream ended after %q, want its last words", got)
	}
	if err := <-over; err != context.Canceled {
		t.Errorf("the request's context: %v", err)
	}
	eventually(t, "the stream is not counted any more", func() bool { return open() == 0 })
	go func() { w.send("GET /bff/none", "Origin: "+testOrigin); close(body) }()
	<-began
	if n := open(); n != 0 {
		t.Errorf("streams_open{events} with an answer 204 = %v, want 0", n)
	}
	over <- nil
	<-body
}

func TestBadEndpoints(t *testing.T) {
	w := newWorld(t)
	serve := func(http.ResponseWriter, *http.Request) error { return nil }
	for name, rows := range map[string][]Endpoint{
		"an unknown class":                 {{"GET", "x", 0, serve}},
		"a class that is none yet":         {{"GET", "x", Public + 1, serve}},
		"events by POST":                   {{"POST", "x", Events, serve}},
		"a public POST":                    {{"POST", "x", Public, serve}},
		"no handler":                       {{"GET", "x", Script, nil}},
		"no path":                          {{"GET", "", Script, serve}},
		"a path that ends in a slash":      {{"GET", "x/", Script, serve}},
		"a parameter before the end":       {{"GET", "{id}/x", Script, serve}},
		"two parameters":                   {{"GET", "{id}/{x}", Script, serve}},
		"a parameter without a name":       {{"GET", "x/{}", Script, serve}},
		"half a parameter":                 {{"GET", "x/{id", Script, serve}},
		"a segment that is partly one":     {{"GET", "x/a{id}", Script, serve}},
		"the same twice":                   {{"GET", "x", Script, serve}, {"GET", "x", Navigation, serve}},
		"the same parameter by two names":  {{"GET", "x/{a}", Script, serve}, {"POST", "x/{b}", Script, serve}},
		"the same parameter, method twice": {{"GET", "x/{a}", Script, serve}, {"GET", "x/{a}", Script, serve}},
	} {
		_, err := New(Config{Apps: []App{{Origin: testOrigin, BasePath: "/bff", Sessions: w.sessions, Endpoints: rows}}})
		if err == nil || !strings.Contains(err.Error(), "endpoint ") {
			t.Errorf("%s: error %v, want one about the endpoint", name, err)
		}
	}
}

// TestProviderHosts: a provider's server may know us by a name inside the network.
// There it finds its endpoints and nothing else (DESIGN.md, section 7,
// "POST backchannel").
func TestProviderHosts(t *testing.T) {
	w := newWorld(t, func(w *world, a *App, c *Config) {
		a.ProviderHosts = []string{"gate.internal", "gate2.internal:8443", "[::1]:8080", "[::2]", "10.0.0.1"}
		other := App{Origin: "https://other.example.com", BasePath: "/auth", Sessions: w.sessions, ProviderHosts: []string{"gate.internal:80"},
			Endpoints: []Endpoint{{"POST", "backchannel", Provider, func(w http.ResponseWriter, r *http.Request) error { return say(w, "other") }}}}
		c.Apps = []App{*a, other}
	})
	for _, row := range []struct {
		name, line, host string
		status           int
	}{
		{"any port: none", "POST /bff/backchannel", "gate.internal", 200},
		{"any port: one", "POST /bff/backchannel", "GATE.internal:8080", 200},
		{"the port", "POST /bff/backchannel", "gate2.internal:8443", 200},
		{"an address", "POST /bff/backchannel", "[::1]:8080", 200},
		{"an address of version 6, any port: none", "POST /bff/backchannel", "[::2]", 200},
		{"an address of version 6, any port: one", "POST /bff/backchannel", "[::2]:1", 200},
		{"an address, any port", "POST /bff/backchannel", "10.0.0.1:99", 200},
		{"the app's own host", "POST /bff/backchannel", testHost, 200},
		{"another app, by its base_path", "POST /auth/backchannel", "gate.internal:80", 200},
		{"another app, at another port", "POST /auth/backchannel", "gate.internal:81", 421},
		{"another port", "POST /bff/backchannel", "gate2.internal:8444", 421},
		{"no port", "POST /bff/backchannel", "gate2.internal", 421},
		{"a longer name", "POST /bff/backchannel", "gate.internal.evil.example", 421},
		{"a name below", "POST /bff/backchannel", "x.gate.internal", 421},
		{"a page in a frame", "GET /bff/frontchannel", "gate.internal", 421},
		{"the endpoint by another method", "GET /bff/backchannel", "gate.internal", 421},
		{"a script's endpoint", "POST /bff/logout", "gate.internal", 421},
		{"a public endpoint", "GET /bff/client.js", "gate.internal", 421},
		{"no endpoint", "POST /bff/nothing", "gate.internal", 421},
		{"a route", "POST /open/x", "gate.internal", 421},
		{"a bad path", "POST /bff/../bff/backchannel", "gate.internal", 421},
		{"the other app's host knows only its own", "POST /bff/backchannel", "other.example.com", 404},
	} {
		if got := w.send(row.line, "Host: "+row.host, "X-CSRF: 1", "Content-Length: 0"); got.StatusCode != row.status {
			t.Errorf("%s: status %d %s, want %d", row.name, got.StatusCode, got.body, row.status)
		}
	}
	if n := len(w.up.requests()); n > 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
}

func TestBadProviderHosts(t *testing.T) {
	w := newWorld(t)
	config := func(base string, first, second []string) Config {
		return Config{Apps: []App{
			{Origin: testOrigin, BasePath: "/bff", Sessions: w.sessions, ProviderHosts: first},
			{Origin: "https://other.example.com", BasePath: base, Sessions: w.sessions, ProviderHosts: second},
		}}
	}
	for name, c := range map[string]Config{
		"empty":                        config("/auth", []string{""}, nil),
		"an origin":                    config("/auth", []string{"https://gate.internal"}, nil),
		"a path":                       config("/auth", []string{"gate.internal/x"}, nil),
		"a wildcard":                   config("/auth", []string{"*.internal"}, nil),
		"capitals":                     config("/auth", []string{"Gate.internal"}, nil),
		"a user":                       config("/auth", []string{"a@gate.internal"}, nil),
		"an empty port":                config("/auth", []string{"gate.internal:"}, nil),
		"no host":                      config("/auth", []string{":80"}, nil),
		"another app's":                config("/auth", []string{"other.example.com"}, nil),
		"another app's, with the port": config("/auth", []string{"other.example.com:443"}, nil),
		"the same base_path":           config("/bff", []string{"gate.internal"}, []string{"gate.internal"}),
		"the same at one port":         config("/bff", []string{"gate.internal"}, []string{"gate.internal:80"}),
		"the same at one port, turned": config("/bff", []string{"gate.internal:80"}, []string{"gate.internal"}),
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "provider host") {
			t.Errorf("%s: error %v, want one about the provider host", name, err)
		}
	}
	for name, c := range map[string]Config{
		"shared":          config("/auth", []string{"gate.internal"}, []string{"gate.internal"}),
		"by name":         config("/bff", []string{"gate.internal"}, []string{"gate2.internal"}),
		"by port":         config("/bff", []string{"gate.internal:80"}, []string{"gate.internal:81"}),
		"the app's own":   config("/bff", []string{testHost}, nil),
		"twice":           config("/bff", []string{"gate.internal", "gate.internal:80"}, nil),
		"other port of b": config("/bff", []string{"other.example.com:8443"}, nil),
	} {
		if _, err := New(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
