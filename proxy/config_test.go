package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestFaults: what New refuses, and that it tells all faults at once (OP-01).
func TestFaults(t *testing.T) {
	w := newWorld(t)
	to := must(url.Parse("http://127.0.0.1:9000"))
	route := func(change func(*Route)) func(*App) {
		return func(a *App) {
			rt := Route{Path: "/api/", Upstream: to}
			change(&rt)
			a.Routes = []Route{rt}
		}
	}
	upstream := func(s string) func(*App) {
		return route(func(r *Route) { r.Upstream = must(url.Parse(s)) })
	}
	for name, row := range map[string]struct {
		change func(*App)
		fault  string
	}{
		"an http origin":             {func(a *App) { a.Origin = "http://shop.example.com" }, "http is for loopback"},
		"an origin in capitals":      {func(a *App) { a.Origin = "https://SHOP.example.com" }, "lower case"},
		"an origin with a slash":     {func(a *App) { a.Origin += "/" }, "nothing else"},
		"an origin with a port":      {func(a *App) { a.Origin += ":443" }, "default port"},
		"a wildcard origin":          {func(a *App) { a.Origin = "https://*.example.com" }, "no wildcard"},
		"no origin":                  {func(a *App) { a.Origin = "" }, "scheme://host"},
		"no sessions":                {func(a *App) { a.Sessions = nil }, "no sessions"},
		"base_path with a slash":     {func(a *App) { a.BasePath = "/bff/" }, "base_path"},
		"base_path that is relative": {func(a *App) { a.BasePath = "bff" }, "base_path"},
		"a CORS wildcard":            {func(a *App) { a.CORSOrigins = []string{"*"} }, `cors origin "*"`},
		"a CORS null":                {func(a *App) { a.CORSOrigins = []string{"null"} }, `cors origin "null"`},
		"a CORS pattern":             {func(a *App) { a.CORSOrigins = []string{"https://*.example.com"} }, "no wildcard"},
		"an endpoint twice":          {func(a *App) { a.Endpoints = append(a.Endpoints, a.Endpoints[0]) }, "there twice"},
		"an endpoint of no class":    {func(a *App) { a.Endpoints[0].Class = 0 }, "incomplete"},
		"a route twice":              {func(a *App) { a.Routes = append(a.Routes, a.Routes[0]) }, "there twice"},
		"a route below base_path":    {route(func(r *Route) { r.Path = "/bff/x" }), "below base_path"},
		"a route of base_path":       {route(func(r *Route) { r.Path = "/bff" }), "below base_path"},
		"a relative path":            {route(func(r *Route) { r.Path = "api/" }), "not an absolute path"},
		"a path with dots":           {route(func(r *Route) { r.Path = "/a/../b" }), "dot segment"},
		"a path in another form":     {route(func(r *Route) { r.Path = "/%61pi/" }), `write it as "/api/"`},
		"a foreign strip_prefix":     {route(func(r *Route) { r.StripPrefix = "/ap" }), "strip_prefix"},
		"a kind":                     {route(func(r *Route) { r.Kind = "spa" }), `kind "spa"`},
		"an auth":                    {route(func(r *Route) { r.Auth = "off" }), `auth "off"`},
		"a token":                    {route(func(r *Route) { r.Token = "id" }), `token "id"`},
		"a csrf":                     {route(func(r *Route) { r.CSRF = "off" }), `csrf "off"`},
		"a token without a session":  {route(func(r *Route) { r.Auth, r.Token = AuthNone, TokenAccess }), "no token with auth: none"},
		"csrf without a session":     {route(func(r *Route) { r.Auth, r.CSRF = AuthNone, CSRFHeader }), "csrf means nothing"},
		"an end without a session":   {route(func(r *Route) { r.Auth, r.EndWithSession = AuthNone, true }), "end_with_session"},
		"use without a session":      {route(func(r *Route) { r.Auth, r.StreamKeepsAlive = AuthNone, true }), "stream_keeps_alive"},
		"an end of static files":     {route(func(r *Route) { r.Upstream, r.Static, r.EndWithSession = nil, &Static{Dir: "."}, true }), "end_with_session"},
		"use of static files":        {route(func(r *Route) { r.Upstream, r.Static, r.StreamKeepsAlive = nil, &Static{Dir: "."}, true }), "stream_keeps_alive"},
		"two authorizations":         {route(func(r *Route) { r.ForwardAuthorization = true }), "forward_authorization"},
		"a fixed authorization":      {route(func(r *Route) { r.Headers.Set = map[string]string{"authorization": "x"} }), "has an Authorization already"},
		"TRACE":                      {route(func(r *Route) { r.Methods = []string{"TRACE"} }), "never allowed"},
		"a method in lower case":     {route(func(r *Route) { r.Methods = []string{"get"} }), "upper case"},
		"neither":                    {route(func(r *Route) { r.Upstream = nil }), "upstream or static"},
		"both":                       {route(func(r *Route) { r.Static = &Static{Dir: "."} }), "upstream or static"},
		"no directory":               {route(func(r *Route) { r.Upstream, r.Static = nil, &Static{Dir: "/nonexistent"} }), "does not exist"},
		"a header name":              {route(func(r *Route) { r.Headers.Set = map[string]string{"X A": "x"} }), "not a header name"},
		"a header value":             {route(func(r *Route) { r.Headers.Set = map[string]string{"X-A": "x\r\nY: z"} }), "control characters"},
		"a framing header":           {route(func(r *Route) { r.ResponseHeaders.Remove = []string{"content-length"} }), "cannot be changed"},
		"a negative limit":           {route(func(r *Route) { r.MaxBody = -1 }), "not negative"},
		"PX-18: http in the open":    {upstream("http://api.example.com"), "insecure_http"},
		"PX-18: h2c in the open":     {upstream("h2c://api.example.com"), "insecure_http"},
		"h2c without a host":         {upstream("h2c:///path"), "no fixed host"},
		"http to cloud metadata":     {upstream("http://169.254.169.254/"), "insecure_http"},
		"PX-04: a wildcard upstream": {upstream("https://*.example.com"), "no fixed host"},
		"an upstream with a query":   {upstream("https://api.example.com/?x"), "query"},
		"an upstream with a user":    {upstream("https://a:secret@api.example.com/"), "user"},
		"an upstream with dots":      {upstream("https://api.example.com/a/../b"), "dot segment"},
		"another scheme":             {upstream("ftp://api.example.com/"), `scheme "ftp"`},
		"a socket with a host":       {upstream("unix://run/api.sock"), "unix:///path"},
	} {
		a := App{Origin: testOrigin, BasePath: "/bff", Sessions: w.sessions,
			Endpoints: []Endpoint{{"GET", "login", Navigation, func(http.ResponseWriter, *http.Request) error { return nil }}},
			Routes:    []Route{{Path: "/", Upstream: to}}}
		row.change(&a)
		_, err := New(Config{Apps: []App{a}})
		if err == nil || !strings.Contains(err.Error(), row.fault) {
			t.Errorf("%s: %v, want %q in it", name, err, row.fault)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error holds a secret: %v", name, err)
		}
	}
	_, err := New(Config{Apps: []App{
		{Origin: testOrigin, BasePath: "x", Sessions: w.sessions, CORSOrigins: []string{"*"}, Routes: []Route{{Path: "y", Kind: "z"}}},
		{Origin: "http://a.example"},
	}})
	for _, want := range []string{"base_path", "cors origin", "absolute path", `kind "z"`, "upstream or static", "http://a.example"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("all at once: %v, want %q in it", err, want)
		}
	}
}

func TestGoodUpstreams(t *testing.T) {
	w := newWorld(t)
	for _, s := range []string{
		"http://127.0.0.1:9000", "http://[::1]:9000/", "http://10.0.0.5/base/", "http://api:8080", "http://localhost", "http://api.localhost", "https://api.example.com/v1", "h2c://api:50051", "h2c://127.0.0.1:50051/base", "unix:///run/api.sock",
	} {
		a := App{Origin: testOrigin, BasePath: "/bff", Sessions: w.sessions, Routes: []Route{{Path: "/", Upstream: must(url.Parse(s))}}}
		if _, err := New(Config{Apps: []App{a}}); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestTwoAppsAtOneHost(t *testing.T) {
	w := newWorld(t)
	a := App{Origin: testOrigin, BasePath: "/bff", Sessions: w.sessions}
	if _, err := New(Config{Apps: []App{a, a}}); err == nil || !strings.Contains(err.Error(), "two apps") {
		t.Errorf("two apps at one host: %v", err)
	}
}

func TestHostsOf(t *testing.T) {
	for origin, want := range map[string][]string{
		"https://shop.example.com":      {"shop.example.com", "shop.example.com:443"},
		"https://shop.example.com:8443": {"shop.example.com:8443"},
		"http://localhost":              {"localhost", "localhost:80"},
		"http://127.0.0.1:8080":         {"127.0.0.1:8080"},
		"http://[::1]":                  {"[::1]", "[::1]:80"},
	} {
		u, err := parseOrigin(origin)
		if err != nil {
			t.Errorf("%s: %v", origin, err)
			continue
		}
		if got := hostsOf(u); !slices.Equal(got, want) {
			t.Errorf("hostsOf(%s) = %q, want %q", origin, got, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	w := newWorld(t)
	for _, rt := range w.gateway.routes {
		got := fmt.Sprint(rt.auth, rt.csrf, rt.token)
		want := map[string]string{
			"/api/": "requiredheadertrue", "/page/": "requiredorigintrue", "/opt/": "optionalheadertrue", "/open/": "noneheaderfalse", "/anonymous/": "requiredheaderfalse",
		}[rt.path]
		if want != "" && strings.ReplaceAll(got, " ", "") != want {
			t.Errorf("%s: %s, want %s", rt.path, got, want)
		}
		if rt.transport.ResponseHeaderTimeout != DefaultTimeout || !rt.transport.DisableCompression {
			t.Errorf("%s: %+v", rt.path, rt.transport)
		}
	}
}
