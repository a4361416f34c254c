package oidc_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sessiongate/oidc"
	"sessiongate/session"
	"sessiongate/session/boltstore"
)

// gateway is the endpoints of one app on a real socket, with real sessions.
type gateway struct {
	*httptest.Server
	t        *testing.T
	provider *provider
	client   *oidc.Client
	serving  *oidc.Endpoints
	manager  *session.Manager
	app      *session.App
	registry *prometheus.Registry
	store    *brokenStore
	logs     *logbook
	forget   func() // empties the sessions' memory
}

// setup is what a test changes of the gateway before it starts.
type setup struct {
	oidc.Config
	Options  oidc.Options
	SameSite http.SameSite
	Beside   *gateway // whose store and manager are used, too
}

func newConfig(issuer string) oidc.Config {
	return oidc.Config{
		Origin: "https://shop.example.com", BasePath: "/bff", Issuer: issuer,
		ClientID: clientID, ClientSecret: clientSecret, Scopes: []string{"openid", "email", "offline_access"},
		LoginParams: []string{"prompt", "login_hint", "max_age"}, Timeout: 2 * time.Second, ClockSkew: time.Minute,
		UserClaims: []string{"sub", "name", "email", "email_verified", "picture", "roles"},
		Logout:     oidc.Logout{EndSession: true, IDTokenHint: true, Revoke: true, After: "/bye"},
	}
}

func newGateway(t *testing.T, p *provider, change ...func(*setup)) *gateway {
	t.Helper()
	g := &gateway{t: t, provider: p, logs: &logbook{}, registry: prometheus.NewRegistry()}
	mux := http.NewServeMux()
	g.Server = httptest.NewTLSServer(mux)
	t.Cleanup(g.Close)

	metrics, err := oidc.NewMetrics(g.registry)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(g.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	set := setup{Config: newConfig(p.URL), Options: oidc.Options{Metrics: metrics, Log: log}}
	set.Origin, set.Log = g.URL, log
	for _, f := range change {
		f(&set)
	}
	if g.client, err = oidc.NewClient(set.Config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.client.Close)
	if set.Beside != nil {
		g.manager, g.store = set.Beside.manager, set.Beside.store
	} else {
		g.manager = g.newManager(log)
	}
	g.app = g.newApp(set)
	g.serving = oidc.NewEndpoints(g.client, g.app, set.Options)
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /bff/login": g.serving.Login, "GET /bff/callback": g.serving.Callback,
		"GET /bff/session": g.serving.Session, "GET /bff/user": g.serving.User,
		"GET /bff/logout": g.serving.Logout, "POST /bff/logout": g.serving.PostLogout,
		"GET /bff/logout/continue": g.serving.ContinueLogout, "GET /bff/logout/callback": g.serving.LogoutCallback,
		"POST /bff/backchannel": g.serving.BackChannel, "GET /bff/frontchannel": g.serving.FrontChannel,
		"GET /bff/events": g.serving.Events, "GET /bff/sessions": g.serving.Sessions,
		"DELETE /bff/sessions": g.serving.EndOtherSessions, "DELETE /bff/sessions/{id}": g.serving.EndSession,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { refuse(w, serve(w, r)) })
	}
	mux.HandleFunc("GET /api", func(w http.ResponseWriter, r *http.Request) {
		s, err := g.app.Session(r)
		if err == nil {
			_, err = s.AccessToken(r.Context())
		}
		refuse(w, err)
	})
	return g
}

func (g *gateway) newManager(log *slog.Logger) *session.Manager {
	g.t.Helper()
	secret := make([]byte, 32)
	rand.Read(secret)
	keys, err := session.ParseKeys([]string{base64.StdEncoding.EncodeToString(secret)})
	if err != nil {
		g.t.Fatal(err)
	}
	store, err := boltstore.Open(filepath.Join(g.t.TempDir(), "sessions.db"), boltstore.Options{})
	if err != nil {
		g.t.Fatal(err)
	}
	g.store = &brokenStore{Store: store}
	m, err := session.NewManager(session.Config{
		Store: g.store, Keys: keys, IdleTimeout: 30 * time.Minute, Lifetime: 12 * time.Hour,
		CacheSize: 100_000, Log: log, Registerer: g.registry,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.forget = func() { m.Reconfigure(keys, 30*time.Minute, 12*time.Hour) }
	g.t.Cleanup(func() {
		g.store.fix()
		m.Close(context.Background())
		store.Close()
	})
	return m
}

func (g *gateway) newApp(set setup) *session.App {
	g.t.Helper()
	app, err := g.manager.NewApp(session.AppConfig{
		Origin: set.Origin, Issuer: set.Issuer, ClientID: set.ClientID, Refresher: g.client,
		RefreshAhead: time.Minute, TokenTimeout: 2 * time.Second, Cookie: session.CookieConfig{SameSite: set.SameSite},
		KeepTokens: g.client.KeepTokens(),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return app
}

// refuse stands for the proxy's: it makes the code of an error visible.
func refuse(w http.ResponseWriter, err error) {
	if err == nil {
		return
	}
	code := "internal_error"
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		code = coded.Code()
	}
	if errors.Is(err, session.ErrCookieWithheld) {
		code = "hop"
	}
	w.Header().Set("X-Code", code)
	var help interface{ Help() string }
	if errors.As(err, &help) {
		w.Header().Set("X-Help", help.Help())
	}
	var after interface{ RetryAfter() time.Duration }
	if errors.As(err, &after) && after.RetryAfter() > 0 {
		w.Header().Set("Retry-After", after.RetryAfter().String())
	}
	w.WriteHeader(http.StatusTeapot)
}

// logins is the value of the login counter.
func (g *gateway) logins(result string) float64 {
	families, err := g.registry.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "sessiongate_logins_total" && m.GetLabel()[1].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// answer is what a browser got.
type answer struct {
	*http.Response
	body string
}

func (a *answer) code() string     { return a.Header.Get("X-Code") }
func (a *answer) location() string { return a.Header.Get("Location") }

// browser has cookies and follows no redirect by itself.
type browser struct {
	http.Client
	t *testing.T
	g *gateway
}

func (g *gateway) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	b := &browser{Client: *g.Client(), t: g.t, g: g}
	b.Jar = jar
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

// do sends a request; headers are pairs.
func (b *browser) do(method, path string, headers ...string) *answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.g.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := b.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if got := resp.Header.Get("Cache-Control"); strings.HasPrefix(path, "/bff/") && got != "no-store" {
		b.t.Errorf("%s: Cache-Control = %q, want no-store", path, got)
	}
	if n := len(resp.Header["Set-Cookie"]); n > 4 {
		b.t.Errorf("%s: %d cookies set in one answer", path, n)
	}
	return &answer{resp, string(body)}
}

func (b *browser) get(path string, headers ...string) *answer {
	b.t.Helper()
	return b.do(http.MethodGet, path, headers...)
}

// begin starts a login and returns what the provider sends the browser back with.
func (b *browser) begin(query string, headers ...string) url.Values {
	b.t.Helper()
	a := b.get("/bff/login"+query, headers...)
	if a.StatusCode != http.StatusFound {
		b.t.Fatalf("login: status %d code %s, want 302", a.StatusCode, a.code())
	}
	return b.g.provider.authorize(a.location())
}

func (b *browser) callback(q url.Values, headers ...string) *answer {
	b.t.Helper()
	return b.get("/bff/callback?"+q.Encode(), headers...)
}

// logIn logs in and fails the test if that fails.
func (b *browser) logIn(query string) *answer {
	b.t.Helper()
	a := b.callback(b.begin(query))
	if a.StatusCode != http.StatusSeeOther {
		b.t.Fatalf("callback: status %d code %s, want 303\n%s", a.StatusCode, a.code(), b.g.logs)
	}
	return a
}

// status is the session endpoint's answer.
func (b *browser) status() map[string]any {
	b.t.Helper()
	a := b.get("/bff/session")
	var status map[string]any
	if err := json.Unmarshal([]byte(a.body), &status); a.StatusCode != 200 || err != nil {
		b.t.Fatalf("session: status %d code %s body %q", a.StatusCode, a.code(), a.body)
	}
	return status
}

func (b *browser) wantLoggedIn(want bool) {
	b.t.Helper()
	if got := b.status()["authenticated"]; got != want {
		b.t.Errorf("authenticated = %v, want %v", got, want)
	}
}

// cookies returns the browser's cookies by name, without the session's prefix.
func (b *browser) cookies() map[string]string {
	u, _ := url.Parse(b.g.URL)
	all := map[string]string{}
	for _, c := range b.Jar.Cookies(u) {
		all[strings.TrimPrefix(c.Name, session.DefaultCookieName)] = c.Value
	}
	return all
}

// plant gives the browser a cookie.
func (b *browser) plant(suffix, value string) {
	u, _ := url.Parse(b.g.URL)
	b.Jar.SetCookies(u, []*http.Cookie{{Name: session.DefaultCookieName + suffix, Value: value, Path: "/", Secure: true}})
}

func (b *browser) flows() int {
	n := 0
	for name := range b.cookies() {
		if strings.HasPrefix(name, "-flow-") {
			n++
		}
	}
	return n
}

// eventually waits for something that goroutines bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
