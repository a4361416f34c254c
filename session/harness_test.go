package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/oauth2"

	"sessiongate/session"
	"sessiongate/session/boltstore"
)

const (
	origin   = "https://shop.example.com"
	idle     = 30 * time.Minute
	lifetime = 12 * time.Hour
	tokenTTL = 5 * time.Minute
)

// provider is the token side of a provider: it rotates refresh tokens and
// notices reuse. Fields with a capital are set by tests, under mu.
type provider struct {
	mu      sync.Mutex
	current map[string]bool // refresh token -> not yet spent
	calls   int
	reuses  int
	revoked []string
	asked   [][2]string // of what refresh and access token a revocation was asked for

	TTL      time.Duration
	Before   func()       // runs before the token is looked at
	After    func() error // runs after rotation; an error is the answer lost
	Fail     error        // instead of an answer
	Shape    func(*oauth2.Token) *oauth2.Token
	Confirm  func(idToken, former string) error
	Revoking func(context.Context) error // an error is the answer
}

func newProvider() *provider { return &provider{current: map[string]bool{}, TTL: tokenTTL} }

func (p *provider) issue() *oauth2.Token {
	t := &oauth2.Token{AccessToken: "at-" + rand.Text(), RefreshToken: "rt-" + rand.Text()}
	if p.TTL > 0 {
		t.Expiry = time.Now().Add(p.TTL)
	}
	p.current[t.RefreshToken] = true
	return t
}

type refresher struct{ *provider }

func (r refresher) Refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error) {
	p := r.provider
	p.mu.Lock()
	p.calls++
	before, after, fail, shape := p.Before, p.After, p.Fail, p.Shape
	p.mu.Unlock()
	if before != nil {
		before()
	}
	if err := ctx.Err(); err != nil {
		return nil, &session.Outage{Err: err}
	}
	if fail != nil {
		return nil, fail
	}
	p.mu.Lock()
	live, known := p.current[refreshToken]
	if !live {
		if known {
			p.reuses++
		}
		p.mu.Unlock()
		return nil, fmt.Errorf("%w: spent", session.ErrRejected)
	}
	p.current[refreshToken] = false
	t := p.issue()
	p.mu.Unlock()
	if shape != nil {
		t = shape(t)
	}
	if after != nil {
		if err := after(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (r refresher) Confirm(_ context.Context, idToken, former string) error {
	r.mu.Lock()
	confirm := r.provider.Confirm
	r.mu.Unlock()
	if confirm == nil {
		return nil
	}
	return confirm(idToken, former)
}

func (r refresher) Revoke(ctx context.Context, refreshToken, accessToken string) error {
	r.mu.Lock()
	revoking := r.Revoking
	r.asked = append(r.asked, [2]string{refreshToken, accessToken})
	r.mu.Unlock()
	if revoking != nil {
		if err := revoking(ctx); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revoked = append(r.revoked, refreshToken)
	r.current[refreshToken] = false
	return nil
}

func (p *provider) set(f func(*provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// takenBack lists the refresh tokens that were revoked, in the order they came.
func (p *provider) takenBack() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.revoked)
}

// seen returns the counts of token calls and of reuses.
func (p *provider) seen() (calls, reuses int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls, p.reuses
}

// hooked is a store on which a test can make single operations fail or wait. Those
// that a hook is asked about in the past tense are done: an error of the hook's is
// their answer lost.
type hooked struct {
	session.Store
	mu   sync.Mutex
	hook func(op string) error // nil: go on
}

var errDown = errors.New("store is down")

func (h *hooked) set(f func(op string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook = f
}

func (h *hooked) ask(op string) error {
	h.mu.Lock()
	f := h.hook
	h.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(op)
}

func (h *hooked) Create(ctx context.Context, k session.Key, r session.Record) error {
	if err := h.ask("create"); err != nil {
		return err
	}
	if err := h.Store.Create(ctx, k, r); err != nil {
		return err
	}
	return h.ask("created")
}

func (h *hooked) Load(ctx context.Context, k session.Key) (session.Record, error) {
	if err := h.ask("load"); err != nil {
		return session.Record{}, err
	}
	r, err := h.Store.Load(ctx, k)
	if err2 := h.ask("loaded"); err2 != nil {
		return session.Record{}, err2
	}
	return r, err
}

func (h *hooked) Replace(ctx context.Context, k session.Key, v uint64, d []byte) error {
	if err := h.ask("replace"); err != nil {
		return err
	}
	if err := h.Store.Replace(ctx, k, v, d); err != nil {
		return err
	}
	return h.ask("replaced")
}

func (h *hooked) End(ctx context.Context, k session.Key, r session.Reason, c session.Condition) (session.Record, error) {
	if err := h.ask("end"); err != nil {
		return session.Record{}, err
	}
	rec, err := h.Store.End(ctx, k, r, c)
	if err != nil {
		return rec, err
	}
	return rec, h.ask("ended")
}

func (h *hooked) EndTagged(ctx context.Context, t session.Tag, r session.Reason, sc session.Scope) ([]session.Ending, error) {
	if err := h.ask("end_tagged"); err != nil {
		return nil, err
	}
	endings, err := h.Store.EndTagged(ctx, t, r, sc)
	if err != nil {
		return endings, err
	}
	if err := h.ask("ended_tagged"); err != nil {
		return nil, err
	}
	return endings, nil
}

func (h *hooked) Mark(ctx context.Context, t session.Tag, m session.Mark) error {
	if err := h.ask("mark"); err != nil {
		return err
	}
	return h.Store.Mark(ctx, t, m)
}

func (h *hooked) Tagged(ctx context.Context, t session.Tag, after session.Key, limit int) ([]session.Listed, error) {
	if err := h.ask("tagged"); err != nil {
		return nil, err
	}
	return h.Store.Tagged(ctx, t, after, limit)
}

func (h *hooked) Acquire(ctx context.Context, k session.Key, ttl time.Duration) (session.Lease, error) {
	if err := h.ask("acquire"); err != nil {
		return session.Lease{}, err
	}
	return h.Store.Acquire(ctx, k, ttl)
}

func (h *hooked) Touch(ctx context.Context, t []session.Touch) error {
	if err := h.ask("touch"); err != nil {
		return err
	}
	return h.Store.Touch(ctx, t)
}

func (h *hooked) Sweep(ctx context.Context, l session.Limits) ([]session.Ending, error) {
	if err := h.ask("sweep"); err != nil {
		return nil, err
	}
	return h.Store.Sweep(ctx, l)
}

func (h *hooked) Renew(ctx context.Context, l session.Lease, ttl time.Duration) error {
	if err := h.ask("renew"); err != nil {
		return err
	}
	return h.Store.Renew(ctx, l, ttl)
}

// logBuffer collects what a manager logs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) use(b *bench) {
	b.config.Log = slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// count tells how many lines are of an event.
func (l *logBuffer) count(event string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.b.Bytes(), []byte(`"event":"`+event+`"`))
}

// bench is a manager with one app, a provider and a store in a file.
type bench struct {
	*session.App
	t        testing.TB
	manager  *session.Manager
	provider *provider
	store    *hooked
	metrics  *counters
	config   session.Config
	app      session.AppConfig
}

func newKeys(t testing.TB, encoded ...string) *session.Keys {
	t.Helper()
	if len(encoded) == 0 {
		encoded = []string{keyA}
	}
	k, err := session.ParseKeys(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const (
	keyA = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	keyB = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
)

func newBench(t testing.TB, change ...func(*bench)) *bench {
	t.Helper()
	p := newProvider()
	b := &bench{t: t, provider: p, store: &hooked{}}
	b.config = session.Config{Store: b.store, Keys: newKeys(t), IdleTimeout: idle, Lifetime: lifetime}
	b.app = session.AppConfig{
		Origin: origin, Issuer: "https://login.example.com", ClientID: "shop",
		Refresher: refresher{p}, RefreshAhead: time.Minute, TokenTimeout: 10 * time.Second,
	}
	for _, f := range change {
		f(b)
	}
	if b.store.Store == nil {
		bolt, err := boltstore.Open(filepath.Join(t.TempDir(), "sessions.db"), boltstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		b.store.Store = bolt
	}
	store := b.store.Store
	b.start()
	t.Cleanup(func() {
		b.stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// inMemory is for benches that write to no disk.
func inMemory(b *bench) { b.store.Store = newMemory() }

func (b *bench) start() {
	b.t.Helper()
	b.metrics = &counters{of: map[string]*prometheus.Registry{}}
	b.config.Registerer = b.metrics
	m, err := session.NewManager(b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.manager = m
	if b.App, err = m.NewApp(b.app); err != nil {
		b.t.Fatal(err)
	}
}

// counters can be asked for one at a time, which is cheap.
type counters struct {
	prometheus.Registerer
	of map[string]*prometheus.Registry
}

var metricName = regexp.MustCompile(`fqName: "(\w+)"`)

func (c *counters) MustRegister(all ...prometheus.Collector) {
	for _, collector := range all {
		descs := make(chan *prometheus.Desc, 1)
		collector.Describe(descs)
		one := prometheus.NewRegistry()
		one.MustRegister(collector)
		c.of[metricName.FindStringSubmatch((<-descs).String())[1]] = one
	}
}

// counted is what a counter says, for all label values together.
func (b *bench) counted(name string) int {
	b.t.Helper()
	families, err := b.metrics.of[name].Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	n := 0
	for _, family := range families {
		for _, m := range family.GetMetric() {
			n += int(m.GetCounter().GetValue())
		}
	}
	return n
}

// unrevoked is how many sessions ended whose tokens nobody gave back.
func (b *bench) unrevoked() int { return b.counted("sessiongate_unrevoked_total") }

// sibling is another app of the same process.
func (b *bench) sibling(change func(*session.AppConfig)) *bench {
	b.t.Helper()
	r := *b
	change(&r.app)
	app, err := b.manager.NewApp(r.app)
	if err != nil {
		b.t.Fatal(err)
	}
	r.App = app
	return &r
}

// replica is another process on the same store, with a memory of its own.
func (b *bench) replica() *bench {
	b.t.Helper()
	r := *b
	r.start()
	b.t.Cleanup(r.stop)
	return &r
}

func (b *bench) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	b.manager.Close(ctx)
}

// restart is a new process on the same store: nothing is in memory.
func (b *bench) restart() {
	b.t.Helper()
	b.stop()
	b.start()
}

// login makes a session and returns its cookie.
func (b *bench) login(change ...func(*session.Login)) *http.Cookie {
	b.t.Helper()
	_, c, err := b.tryLogin(change...)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) tryLogin(change ...func(*session.Login)) (*session.Session, *http.Cookie, error) {
	b.provider.mu.Lock()
	l := session.Login{Subject: "ada", SID: "sid-1", Claims: []byte(`{"sub":"ada"}`), Token: b.provider.issue(), IDToken: "id-1"}
	b.provider.mu.Unlock()
	for _, f := range change {
		f(&l)
	}
	return b.Create(b.t.Context(), l)
}

var apiURL, _ = url.Parse(origin + "/api/")

func request(cookies ...*http.Cookie) *http.Request {
	r := &http.Request{Method: "GET", URL: apiURL, Header: http.Header{}}
	for _, c := range cookies {
		r.AddCookie(c)
	}
	return r
}

func (b *bench) open(c *http.Cookie) *session.Session {
	b.t.Helper()
	s, err := b.Session(request(c))
	if err != nil {
		b.t.Fatalf("Session: %v", err)
	}
	return s
}

// token returns the access token a request with the cookie would be sent with.
func (b *bench) token(c *http.Cookie) (string, error) {
	s, err := b.Session(request(c))
	if err != nil {
		return "", err
	}
	t, err := s.AccessToken(b.t.Context())
	if err != nil {
		return "", err
	}
	return t.Header[0], nil
}

func (b *bench) mustToken(c *http.Cookie) string {
	b.t.Helper()
	t, err := b.token(c)
	if err != nil {
		b.t.Fatalf("AccessToken: %v", err)
	}
	return t
}

// endedBy checks that a request learns the session is over, and why.
func (b *bench) endedBy(c *http.Cookie, want session.Reason) {
	b.t.Helper()
	_, err := b.token(c)
	var end *session.Ended
	if !errors.As(err, &end) || end.Reason != want {
		b.t.Errorf("error = %v, want ended by %s", err, want)
	}
}
