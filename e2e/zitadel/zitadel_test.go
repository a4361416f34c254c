// Package zitadel drives the real gateway against a second real provider: the op package of github.com/zitadel/oidc. It
// is a module of its own, so that the gateway's go.mod stays free of it.
package zitadel

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// binaries is where the gateway is built.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		slog.SetDefault(slog.New(slog.DiscardHandler)) // the provider's log
		dir, err := os.MkdirTemp("", "sessiongate-zitadel-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binaries = dir
		return m.Run()
	}())
}

func TestLoginRefreshAndLogout(t *testing.T) {
	for _, tt := range []struct {
		name   string
		method oidc.AuthMethod
		tokens op.AccessTokenType
	}{
		{"with client_secret_basic and access tokens that are JWTs", oidc.AuthMethodBasic, op.AccessTokenTypeJWT},
		{"with client_secret_post and opaque access tokens", oidc.AuthMethodPost, op.AccessTokenTypeBearer},
		{"with private_key_jwt", oidc.AuthMethodPrivateKeyJWT, op.AccessTokenTypeJWT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			testDay(t, tt.method, tt.tokens)
		})
	}
}

// testDay is a day of a user: log in, work beyond several expiries, log out.
func testDay(t *testing.T, method oidc.AuthMethod, tokens op.AccessTokenType) {
	w := start(t, method, tokens)

	// A deep link leads to the provider's form, and from there back to itself.
	page := w.get(t, w.origin+"/app/orders?x=1&y=a%20b")
	id := regexp.MustCompile(`name="id" value="(\w+)"`).FindStringSubmatch(page.body)
	if id == nil || !strings.HasPrefix(page.url, w.issuer+"/login") {
		t.Fatalf("deep link: got %s %d, want the provider's form\n%s", page.url, page.status, page.body)
	}
	page = w.do(t, "POST", w.issuer+"/login", url.Values{"id": {id[1]}, "password": {"engine"}}, nil)
	if got, want := page.url, w.origin+"/app/orders?x=1&y=a%20b"; got != want {
		t.Fatalf("after the login: at %s, want %s\n%d %s", got, want, page.status, page.body)
	}
	if page.body != "token valid" {
		t.Errorf("page after the login: %q, want a valid token upstream", page.body)
	}
	var session struct {
		Authenticated bool
		User          map[string]any
		LogoutURL     string `json:"logout_url"`
	}
	w.json(t, "/bff/session", &session)
	if !session.Authenticated || session.User["sub"] != subject || session.User["name"] != "Ada Lovelace" {
		t.Errorf("session: %+v, want that of %s", session, subject)
	}

	cookies := w.browser.Jar.Cookies(w.originURL)
	for range 3 {
		time.Sleep(accessTTL + 300*time.Millisecond)
		if got := w.get(t, w.origin+"/api/echo"); got.status != http.StatusOK || got.body != "token valid" {
			t.Fatalf("API after an expiry: %d %q, want a valid token", got.status, got.body)
		}
	}
	w.storage.mu.Lock()
	refreshes, reuses := w.storage.refreshes, w.storage.reuses
	w.storage.mu.Unlock()
	if refreshes != 3 || reuses != 0 {
		t.Errorf("the provider saw %d refreshes and %d reuses, want 3 and 0", refreshes, reuses)
	}

	page = w.get(t, w.origin+session.LogoutURL+"&returnUrl="+url.QueryEscape("/app/goodbye"))
	if !strings.HasPrefix(page.url, w.issuer+"/login") {
		t.Errorf("after the logout: at %s, want the provider's form, as /app/goodbye needs a session", page.url)
	}
	w.storage.mu.Lock()
	defer w.storage.mu.Unlock()
	if len(w.storage.terminated) != 1 || w.storage.terminated[0] != subject {
		t.Errorf("the provider ended the sessions of %q, want of %s", w.storage.terminated, subject)
	}
	if len(w.storage.revoked) != 1 {
		t.Errorf("%d refresh tokens were revoked, want 1", len(w.storage.revoked))
	}
	if left := w.browser.Jar.Cookies(w.originURL); len(left) > 1 { // the flow of that last login
		t.Errorf("cookies after the logout: %v", left)
	}
	w.browser.Jar.SetCookies(w.originURL, cookies) // a thief's copy
	if got := w.get(t, w.origin+"/api/echo"); got.status != http.StatusUnauthorized || !strings.Contains(got.body, `"logout"`) {
		t.Errorf("old cookie after the logout: %d %s, want 401 with reason logout", got.status, got.body)
	}
}

// world is a provider, an API, the gateway between them, and a browser without scripts.
type world struct {
	storage        *storage
	issuer, origin string
	originURL      *url.URL
	browser        *http.Client
}

func start(t *testing.T, method oidc.AuthMethod, tokens op.AccessTokenType) *world {
	listen := freeAddress(t)
	_, port, _ := net.SplitHostPort(listen)
	w := &world{origin: "http://localhost:" + port}
	w.originURL, _ = url.Parse(w.origin)
	c := &client{id: "spa", method: method, origin: w.origin, tokenType: tokens}
	settings := map[string]any{"client_id": c.id, "client_auth": string(method)}
	if method == oidc.AuthMethodPrivateKeyJWT {
		settings["client_key"] = writeKey(t, c)
	} else {
		c.secret = "a secret with + and % in it"
		settings["client_secret"] = c.secret
	}
	w.startProvider(t, c)
	settings["issuer"] = w.issuer

	upstream := httptest.NewServer(http.HandlerFunc(w.serveAPI))
	t.Cleanup(upstream.Close)
	startGateway(t, listen, map[string]any{
		"origin": w.origin,
		"oidc":   settings,
		"routes": []any{
			map[string]any{"path": "/api/", "upstream": upstream.URL},
			map[string]any{"path": "/app/", "upstream": upstream.URL, "kind": "page"},
		},
	})
	jar, _ := cookiejar.New(nil)
	w.browser = &http.Client{Jar: jar, Timeout: 15 * time.Second}
	return w
}

func (w *world) startProvider(t *testing.T, c *client) {
	var err error
	if w.storage, err = newStorage(c); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	w.issuer = "http://" + server.Listener.Addr().String()
	provider, err := op.NewProvider(&op.Config{
		CryptoKey:               [32]byte{1},
		CodeMethodS256:          true,
		AuthMethodPost:          true,
		AuthMethodPrivateKeyJWT: true,
		GrantTypeRefreshToken:   true,
	}, w.storage, op.StaticIssuer(w.issuer), op.WithAllowInsecure())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(rw, `<form method="post"><input name="id" value="%s"><input name="password"></form>`, r.FormValue("id"))
	})
	mux.HandleFunc("POST /login", func(rw http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("password") != "engine" || w.storage.logIn(r.PostFormValue("id")) != nil {
			http.Error(rw, "no", http.StatusUnauthorized)
			return
		}
		http.Redirect(rw, r, op.AuthCallbackURL(provider)(op.ContextWithIssuer(r.Context(), w.issuer), r.PostFormValue("id")), http.StatusSeeOther)
	})
	mux.Handle("/", provider)
	server.Config.Handler = mux
	server.Start()
	t.Cleanup(server.Close)
}

// serveAPI asks the provider's userinfo endpoint what each token is worth.
func (w *world) serveAPI(rw http.ResponseWriter, r *http.Request) {
	ask, err := http.NewRequestWithContext(r.Context(), "GET", w.issuer+"/userinfo", nil)
	if err != nil {
		panic(err)
	}
	ask.Header.Set("Authorization", r.Header.Get("Authorization"))
	res, err := http.DefaultClient.Do(ask)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		io.WriteString(rw, "token invalid")
		return
	}
	io.WriteString(rw, "token valid")
}

// answer is where a browser ended up, and what it shows.
type answer struct {
	url    string
	status int
	body   string
}

func (w *world) get(t *testing.T, at string) answer {
	t.Helper()
	return w.do(t, "GET", at, nil, http.Header{"X-Csrf": {"1"}})
}

func (w *world) do(t *testing.T, method, at string, form url.Values, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, at, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := w.browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.Request.URL.String(), res.StatusCode, string(body)}
}

func (w *world) json(t *testing.T, path string, into any) {
	t.Helper()
	got := w.get(t, w.origin+path)
	if err := json.Unmarshal([]byte(got.body), into); err != nil {
		t.Fatalf("%s: %d %v\n%s", path, got.status, err, got.body)
	}
}

// writeKey makes a key for private_key_jwt and returns the file for the gateway.
func writeKey(t *testing.T, c *client) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c.publicKey = &key.PublicKey
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "client.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
