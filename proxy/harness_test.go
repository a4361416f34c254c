package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/oauth2"

	"sessiongate/session"
	"sessiongate/session/boltstore"
)

const (
	testOrigin = "https://shop.example.com"
	testHost   = "shop.example.com"
	evil       = "https://evil.example"
)

// flakyStore is a real store that can stop answering.
type flakyStore struct {
	session.Store
	mu     sync.Mutex
	silent bool
	calls  int // that concern a session
}

var errSilent = errors.New("the store is silent")

func (s *flakyStore) Load(ctx context.Context, key session.Key) (session.Record, error) {
	s.mu.Lock()
	silent := s.silent
	s.calls++
	s.mu.Unlock()
	if silent {
		return session.Record{}, errSilent
	}
	return s.Store.Load(ctx, key)
}

func (s *flakyStore) silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = true
}

// world is a gateway between raw sockets and a recording upstream.
type world struct {
	t        testing.TB
	provider *provider
	store    *flakyStore
	manager  *session.Manager
	sessions *session.App
	up       *upstream
	gateway  *Gateway
	addr     string
	logs     *syncBuffer
	metrics  *prometheus.Registry
	cookie   string // of a session with a valid token
	token    string
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newWorld(t testing.TB, change ...func(*world, *App, *Config)) *world {
	t.Helper()
	w := &world{t: t, provider: &provider{}, up: newUpstream(t), logs: &syncBuffer{}, metrics: prometheus.NewRegistry()}
	bolt, err := boltstore.Open(filepath.Join(t.TempDir(), "sessions.db"), boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.store = &flakyStore{Store: bolt}
	keys, err := session.ParseKeys([]string{base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text()))})
	if err != nil {
		t.Fatal(err)
	}
	w.manager, err = session.NewManager(session.Config{Store: w.store, Keys: keys, IdleTimeout: 30 * time.Minute, Lifetime: 12 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.manager.Close(context.Background()); bolt.Close() })
	w.sessions, err = w.manager.NewApp(session.AppConfig{
		Origin: testOrigin, Issuer: "https://login.example.com", ClientID: "shop",
		Refresher: w.provider, RefreshAhead: time.Minute, TokenTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.cookie, w.token = w.login(5 * time.Minute)
	w.start(change...)
	return w
}

// testRoutes has one route of each sort, by its path.
func (w *world) testRoutes() []Route {
	to := must(url.Parse(w.up.URL))
	return []Route{
		{Path: "/api/", Upstream: to},
		{Path: "/page/", Upstream: to, Kind: KindPage},
		{Path: "/opt/", Upstream: to, Auth: AuthOptional},
		{Path: "/optpage/", Upstream: to, Auth: AuthOptional, Kind: KindPage},
		{Path: "/anonymous/", Upstream: to, Token: TokenNone},
		{Path: "/open/", Upstream: to, Auth: AuthNone},
		{Path: "/openpage/", Upstream: to, Auth: AuthNone, Kind: KindPage},
		{Path: "/hook/", Upstream: to, Auth: AuthNone, ForwardAuthorization: true},
		{Path: "/stripped/", Upstream: to, StripPrefix: "/stripped"},
		{Path: "/reading/", Upstream: to, Methods: []string{"GET", "HEAD"}},
		{Path: "/small/", Upstream: to, MaxBody: 10},
		{Path: "/live/", Upstream: to, Token: TokenNone},
		{Path: "/awake/", Upstream: to, Token: TokenNone, StreamKeepsAlive: true},
		{Path: "/whole/", Upstream: to, Token: TokenNone, EndWithSession: true},
		{Path: "/optwhole/", Upstream: to, Auth: AuthOptional, Token: TokenNone, EndWithSession: true},
		{Path: "/ruled/", Upstream: to,
			Headers:         Headers{Set: map[string]string{"X-Key": "ours", "x-user-id": "fixed"}, Remove: []string{"X-Secret"}},
			ResponseHeaders: Headers{Set: map[string]string{"X-Frame-Options": "DENY"}, Remove: []string{"Server"}}},
	}
}

func (w *world) start(change ...func(*world, *App, *Config)) {
	w.t.Helper()
	a := App{
		Origin: testOrigin, BasePath: "/bff", Sessions: w.sessions, Routes: w.testRoutes(),
		SecurityHeaders: SecurityHeaders{HSTS: 31536000},
		Endpoints: []Endpoint{
			{"GET", "login", Navigation, func(w http.ResponseWriter, r *http.Request) error { return say(w, "login") }},
			{"GET", "callback", Navigation, func(w http.ResponseWriter, r *http.Request) error { return session.ErrCookieWithheld }},
			{"GET", "session", Script, func(w http.ResponseWriter, r *http.Request) error { return say(w, "session") }},
			{"POST", "logout", Script, func(w http.ResponseWriter, r *http.Request) error { return say(w, "logout") }},
			{"GET", "sessions", Script, func(w http.ResponseWriter, r *http.Request) error { return say(w, "sessions") }},
			{"DELETE", "sessions", Script, func(w http.ResponseWriter, r *http.Request) error { return say(w, "all") }},
			{"DELETE", "sessions/{id}", Script, func(w http.ResponseWriter, r *http.Request) error { return say(w, "one: "+r.PathValue("id")) }},
			{"GET", "events", Events, func(w http.ResponseWriter, r *http.Request) error { return say(w, "events") }},
			{"POST", "backchannel", Provider, func(w http.ResponseWriter, r *http.Request) error { return say(w, "backchannel") }},
			{"GET", "frontchannel", Provider, func(w http.ResponseWriter, r *http.Request) error { return say(w, "frontchannel") }},
			{"GET", "client.js", Public, func(w http.ResponseWriter, r *http.Request) error { return say(w, "client") }},
			{"HEAD", "client.js", Public, func(w http.ResponseWriter, r *http.Request) error { return nil }},
		},
	}
	c := Config{Log: slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: NewMetrics(w.metrics)}
	for _, f := range change {
		f(w, &a, &c)
	}
	if c.Apps == nil {
		c.Apps = []App{a}
	}
	g, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.gateway = g
	s := httptest.NewUnstartedServer(g)
	s.Config.DisableGeneralOptionsHandler = true // "OPTIONS *" is ours to refuse, too
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.Start()
	w.addr = s.Listener.Addr().String()
	w.t.Cleanup(func() { s.CloseClientConnections(); s.Close(); g.Close() })
}

func say(w http.ResponseWriter, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// login makes a session, and returns its cookie and access token.
func (w *world) login(ttl time.Duration, change ...func(*session.Login)) (cookie, token string) {
	w.t.Helper()
	token = "at-" + rand.Text()
	t := &oauth2.Token{AccessToken: token, RefreshToken: "rt-" + rand.Text(), Expiry: time.Now().Add(ttl)}
	l := session.Login{Subject: "ada", Claims: json.RawMessage(`{"sub":"ada"}`), Token: t, FlowBegan: time.Now()}
	for _, f := range change {
		f(&l)
	}
	_, c, err := w.sessions.Create(context.Background(), l)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Name + "=" + c.Value, token
}

// session is the session of a cookie.
func (w *world) session(cookie string) *session.Session {
	w.t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", cookie)
	s, err := w.sessions.Session(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// logout ends the session of a cookie.
func (w *world) logout(cookie string) {
	w.t.Helper()
	if _, err := w.sessions.Logout(context.Background(), w.session(cookie)); err != nil {
		w.t.Fatal(err)
	}
}

// ended makes a session that was logged out, and returns its cookie.
func (w *world) ended() string {
	w.t.Helper()
	cookie, _ := w.login(time.Minute)
	w.logout(cookie)
	return cookie
}

// dial opens a raw connection to the gateway.
func (w *world) dial() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// answered is an answer as it came over the socket.
type answered struct {
	*http.Response
	body string
}

// problem is the body as a problem.
func (a answered) problem(t testing.TB) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("status %d: the body is no problem: %v: %s", a.StatusCode, err, a.body)
	}
	return p
}

// send writes a request by hand: the request line without the version, and
// header lines. "Host" is added unless it is among them.
func (w *world) send(line string, header ...string) answered {
	w.t.Helper()
	return w.sendBody(line, "", header...)
}

func (w *world) sendBody(line, body string, header ...string) answered {
	w.t.Helper()
	method, _, _ := strings.Cut(line, " ")
	c := w.dial()
	io.WriteString(c, rawRequest(line, body, header))
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s: %v", line, err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%s: body: %v", line, err)
	}
	return answered{res, string(b)}
}

func rawRequest(line, body string, header []string) string {
	var b strings.Builder
	b.WriteString(line + " HTTP/1.1\r\n")
	if !strings.Contains("\n"+strings.ToLower(strings.Join(header, "\n")), "\nhost:") {
		b.WriteString("Host: " + testHost + "\r\n")
	}
	for _, h := range header {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n" + body)
	return b.String()
}

// withSession are the header lines of a script of our own pages.
func (w *world) withSession(more ...string) []string {
	return append([]string{"Cookie: " + w.cookie, "X-CSRF: 1"}, more...)
}

// The header lines by which browsers tell what they do.
var (
	navigate      = []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html,*/*;q=0.8"}
	navigateOwn   = append([]string{"Sec-Fetch-Site: same-origin"}, navigate...)
	navigateCross = append([]string{"Sec-Fetch-Site: cross-site"}, navigate...)
)

func join(lists ...[]string) (all []string) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// metric is the value of a counter or gauge, or the count of a histogram, whose
// label values are these, in the order of the labels' names. -1: there is none.
func (w *world) metric(name string, values ...string) float64 {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetValue())
			}
			if f.GetName() == name && slices.Equal(got, values) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}
