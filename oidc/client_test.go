package oidc_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/oidc"
)

func newClient(t *testing.T, p *provider, change ...func(*oidc.Config)) *oidc.Client {
	t.Helper()
	cfg := newConfig(p.URL)
	for _, f := range change {
		f(&cfg)
	}
	c, err := oidc.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// ready waits until the client has tried to get the metadata.
func ready(t *testing.T, c *oidc.Client) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	err := c.Ready()
	for range 100 {
		if err = c.Ready(); err == nil || !strings.Contains(err.Error(), "not known yet") {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

func TestLOG02LOG14BadConfigurationIsRefused(t *testing.T) {
	for name, change := range map[string]func(*oidc.Config){
		"no credentials": func(c *oidc.Config) { c.ClientSecret = "" },
		"no client id":   func(c *oidc.Config) { c.ClientID = "" },
		"basic without secret": func(c *oidc.Config) {
			c.ClientAuth, c.ClientSecret, c.ClientKey = "client_secret_basic", "", clientKey()
		},
		"private_key_jwt without key":     func(c *oidc.Config) { c.ClientAuth = "private_key_jwt" },
		"an unknown method":               func(c *oidc.Config) { c.ClientAuth = "none" },
		"no openid scope":                 func(c *oidc.Config) { c.Scopes = []string{"email"} },
		"http issuer":                     func(c *oidc.Config) { c.Issuer = "http://login.example.com" },
		"issuer with a query":             func(c *oidc.Config) { c.Issuer = "https://login.example.com?a" },
		"issuer with a password":          func(c *oidc.Config) { c.Issuer = "https://a:b@login.example.com" },
		"no issuer":                       func(c *oidc.Config) { c.Issuer = "" },
		"http discovery of https issuer":  func(c *oidc.Config) { c.DiscoveryURL = "http://idp.internal" },
		"origin with a slash":             func(c *oidc.Config) { c.Origin += "/" },
		"resource chosen by the browser":  func(c *oidc.Config) { c.LoginParams = []string{"resource"} },
		"returnUrl sent to the provider":  func(c *oidc.Config) { c.LoginParams = []string{"returnUrl"} },
		"code_challenge set by operators": func(c *oidc.Config) { c.AuthParams = map[string]string{"code_challenge_method": "plain"} },
	} {
		cfg := newConfig("https://login.example.com")
		change(&cfg)
		_, err := oidc.NewClient(cfg)
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), clientSecret) {
			t.Errorf("%s: the secret is in %v", name, err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	cfg := newConfig("https://login.example.com")
	c, err := oidc.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", cfg, "client", c)
	if all := fmt.Sprintf("%v %+v %#v %s %v %+v %#v %s", cfg, cfg, cfg, cfg, c, c, c, log.String()); strings.Contains(all, "canary") {
		t.Errorf("the secret is in %s", all)
	}
}

func TestLOG18MetadataThatIsRefused(t *testing.T) {
	set := func(name string, value any) func(*provider) {
		return func(p *provider) { p.metadata = func(md map[string]any) { md[name] = value } }
	}
	for name, script := range map[string]func(*provider){
		"issuer with a slash": func(p *provider) {
			p.metadata = func(md map[string]any) { md["issuer"] = md["issuer"].(string) + "/" }
		},
		"issuer of another host":       set("issuer", "https://evil.example"),
		"no issuer":                    set("issuer", nil),
		"issuer in upper case":         set("issuer", "HTTP://127.0.0.1"),
		"no token endpoint":            set("token_endpoint", ""),
		"no authorization endpoint":    set("authorization_endpoint", nil),
		"no key set":                   set("jwks_uri", nil),
		"an endpoint without host":     set("token_endpoint", "https:///token"),
		"an endpoint that is a script": set("authorization_endpoint", "javascript:alert(1)"),
		"an endpoint with a fragment":  set("authorization_endpoint", "https://login.example.com/a#b"),
		"an endpoint with a password":  set("token_endpoint", "https://a:b@login.example.com/token"),
		"a logout that is a script":    set("end_session_endpoint", "javascript:alert(1)"),
		"metadata that is no object":   func(p *provider) { p.handle["/.well-known/openid-configuration"] = page(200, "[]") },
		"metadata that is a page":      func(p *provider) { p.handle["/.well-known/openid-configuration"] = page(200, "<html>") },
		"metadata of more than a MiB":  func(p *provider) { p.handle["/.well-known/openid-configuration"] = huge },
		"metadata with issuer twice": func(p *provider) {
			p.handle["/.well-known/openid-configuration"] = page(200, `{"issuer":"a","issuer":"b"}`)
		},
		"metadata that has moved": func(p *provider) {
			p.handle["/.well-known/openid-configuration"] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/moved", http.StatusFound) }
			p.handle["/moved"] = func(w http.ResponseWriter, r *http.Request) { reply(w, 200, p.document()) }
		},
	} {
		p := newProvider(t)
		script(p)
		if err := ready(t, newClient(t, p)); err == nil {
			t.Errorf("%s: ready", name)
		}
	}
}

func TestLOG18HTTPSIssuerNeedsHTTPSEndpoints(t *testing.T) {
	p := newProvider(t)
	tls := httptest.NewTLSServer(http.HandlerFunc(p.serve))
	t.Cleanup(tls.Close)
	pool := x509.NewCertPool()
	pool.AddCert(tls.Certificate())
	client := func() *oidc.Client {
		return newClient(t, p, func(c *oidc.Config) { c.Issuer, c.CA = tls.URL, pool })
	}
	endpoints := []string{"authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "end_session_endpoint", "revocation_endpoint"}
	secure := func(md map[string]any) {
		md["issuer"] = tls.URL
		for _, name := range endpoints {
			md[name] = tls.URL + "/" + name
		}
	}
	for _, name := range endpoints {
		p.tell(func() { p.metadata = func(md map[string]any) { secure(md); md[name] = p.URL + "/x" } })
		if err := ready(t, client()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("http %s: error = %v", name, err)
		}
	}
	p.tell(func() { p.metadata = secure })
	if err := ready(t, client()); err != nil {
		t.Errorf("all https, with a private CA: %v", err)
	}
	if err := ready(t, newClient(t, p, func(c *oidc.Config) { c.Issuer = tls.URL })); err == nil {
		t.Error("ready without the CA")
	}
}

func TestDiscoveryURLDoesNotWeakenTheIssuer(t *testing.T) { // pains 29
	p := newProvider(t)
	inside := httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(inside.Close)
	// The issuer's own address cannot be reached from here.
	const issuer = "http://issuer.localhost:1"
	outside := func(c *oidc.Config) { c.Issuer, c.DiscoveryURL = issuer, inside.URL }
	if err := ready(t, newClient(t, p, outside)); err == nil {
		t.Error("metadata of another issuer was taken")
	}
	p.tell(func() { p.metadata = func(md map[string]any) { md["issuer"] = issuer } })
	if err := ready(t, newClient(t, p, outside)); err != nil {
		t.Error(err)
	}
	whole := func(c *oidc.Config) {
		c.Issuer, c.DiscoveryURL = issuer, inside.URL+"/.well-known/openid-configuration"
	}
	if err := ready(t, newClient(t, p, whole)); err != nil {
		t.Errorf("discovery_url in full: %v", err)
	}

	g := newGateway(t, p, func(s *setup) { outside(&s.Config) })
	b := g.browser()
	q := b.begin("")
	q.Set("iss", issuer)
	if a := b.callback(q); a.code() != "login_failed" {
		t.Errorf("ID token of the internal name: code %q, want login_failed", a.code())
	}
	p.tell(func() { p.claims = func(c map[string]any) { c["iss"] = issuer } })
	q = b.begin("")
	q.Set("iss", issuer)
	if a := b.callback(q); a.StatusCode != http.StatusSeeOther {
		t.Errorf("ID token of the issuer: code %q, want 303", a.code())
	}
}

func TestClientStartsWithoutTheProvider(t *testing.T) { // pains 28
	p := newProvider(t)
	var down atomic.Bool
	down.Store(true)
	p.take("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(503)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		reply(w, 200, p.document())
	})
	c := newClient(t, p)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	eventually(t, "an attempt", func() bool { return len(p.seen("/.well-known/openid-configuration")) > 0 })
	if c.Ready() == nil {
		t.Error("ready while the provider is down")
	}
	down.Store(false)
	eventually(t, "ready", func() bool { return c.Ready() == nil })
	cancel()
	<-done
}

// The proxy variables are read once in a process.
func TestHTTPSProxyIsHonoured(t *testing.T) {
	if os.Getenv("HTTPS_PROXY") != "" && os.Getenv("SESSIONGATE_TEST_PROXY") == "1" {
		ready(t, newClient(t, &provider{Server: &httptest.Server{URL: "https://login.example.com"}}))
		return
	}
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.Host)
		w.WriteHeader(502)
	}))
	t.Cleanup(proxy.Close)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHTTPSProxyIsHonoured$")
	cmd.Env = append(os.Environ(), "HTTPS_PROXY="+proxy.URL, "NO_PROXY=", "SESSIONGATE_TEST_PROXY=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := asked.Load(); got != "CONNECT login.example.com:443" {
		t.Errorf("the proxy was asked for %v", got)
	}
}
