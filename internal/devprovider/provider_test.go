package devprovider

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	redirectURI = "http://localhost/bff/callback"
	afterLogout = "http://localhost/bff/logout/callback"
	verifier    = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ"
)

var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// rig is a provider on a socket, with a browser.
type rig struct {
	*Provider
	t       *testing.T
	browser *http.Client
	mu      sync.Mutex
	offset  time.Duration
}

func start(t *testing.T, adjust ...func(*Config)) *rig {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	jar, _ := cookiejar.New(nil)
	r := &rig{t: t, browser: &http.Client{Jar: jar}}
	cfg := Config{
		Issuer: "http://" + server.Listener.Addr().String(),
		Clients: []Client{
			{
				ID: "shop", Secret: "s3cret & more",
				RedirectURIs: []string{redirectURI}, PostLogoutRedirectURIs: []string{afterLogout},
			},
			{ID: "other", Secret: "other", RedirectURIs: []string{redirectURI}},
		},
		Users: []User{
			{Sub: "ada", Name: "Ada Lovelace", Email: "ada@example.com", Claims: map[string]any{"roles": []string{"admin"}}},
			{Sub: "grace", Name: "Grace Hopper", Email: "grace@example.com", Password: "cobol"},
		},
		Key: testKey(),
		Now: func() time.Time {
			r.mu.Lock()
			defer r.mu.Unlock()
			return time.Now().Add(r.offset)
		},
	}
	for _, a := range adjust {
		a(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Provider = p
	server.Config.Handler = p
	server.Start()
	t.Cleanup(server.Close)
	return r
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offset += d
}

// request is a good authorization URL, changed by pairs of name and value; the
// value "-" removes.
func (r *rig) request(pairs ...string) string {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"client_id": {"shop"}, "redirect_uri": {redirectURI}, "response_type": {"code"},
		"scope": {"openid profile email offline_access"}, "state": {"st"}, "nonce": {"no"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
		if pairs[i+1] == "-" {
			q.Del(pairs[i])
		}
	}
	return r.cfg.Issuer + "/authorize?" + q.Encode()
}

// signIn logs ada in and returns the parameters of the callback.
func (r *rig) signIn(pairs ...string) url.Values {
	r.t.Helper()
	callback, err := SignIn(r.browser, r.request(pairs...), "ada", "")
	if err != nil {
		r.t.Fatal(err)
	}
	u, err := url.Parse(callback)
	if err != nil {
		r.t.Fatal(err)
	}
	return u.Query()
}

// post sends a form as the client shop.
func (r *rig) post(path string, pairs ...string) (int, map[string]any) {
	r.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	req, _ := http.NewRequestWithContext(r.t.Context(), "POST", r.cfg.Issuer+path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("shop", url.QueryEscape("s3cret & more"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil
	}
	answer := map[string]any{}
	if err := json.Unmarshal(body, &answer); err != nil {
		answer["raw"] = string(body)
	}
	return res.StatusCode, answer
}

func (r *rig) redeem(code string) (int, map[string]any) {
	r.t.Helper()
	return r.post("/token", "grant_type", "authorization_code", "code", code, "redirect_uri", redirectURI, "code_verifier", verifier)
}

func (r *rig) refreshWith(token any) (int, map[string]any) {
	r.t.Helper()
	return r.post("/token", "grant_type", "refresh_token", "refresh_token", token.(string))
}

// tokens logs in and returns the answer to the code.
func (r *rig) loginTokens() map[string]any {
	r.t.Helper()
	status, answer := r.redeem(r.signIn().Get("code"))
	if status != 200 {
		r.t.Fatalf("redeem: status = %d %v, want 200", status, answer)
	}
	return answer
}

func TestALoginGivesTokensThatAnIndependentVerifierAccepts(t *testing.T) {
	r := start(t)
	params := r.signIn()
	if params.Get("state") != "st" || params.Get("iss") != r.cfg.Issuer {
		t.Errorf("callback = %v, want state and iss (RFC 9207)", params)
	}
	_, answer := r.redeem(params.Get("code"))
	provider, err := oidc.NewProvider(t.Context(), r.cfg.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	id, err := provider.Verifier(&oidc.Config{ClientID: "shop"}).Verify(t.Context(), answer["id_token"].(string))
	if err != nil {
		t.Fatalf("ID token: %v", err)
	}
	if id.Subject != "ada" || id.Nonce != "no" || id.VerifyAccessToken(answer["access_token"].(string)) != nil {
		t.Errorf("ID token = %+v, want sub, nonce and at_hash right", id)
	}
	access, err := provider.Verifier(&oidc.Config{ClientID: "api"}).Verify(t.Context(), answer["access_token"].(string))
	if err != nil {
		t.Fatalf("access token: %v", err)
	}
	var claims struct{ Scope, SID, JTI, Client_ID string }
	if err := access.Claims(&claims); err != nil || claims.SID == "" || claims.JTI == "" || claims.Client_ID != "shop" {
		t.Errorf("access token = %+v, %v; want scope, sid, jti and client_id", claims, err)
	}
}

func TestTokensVerifyAfterTheKeyRotatedAndUntilOldKeysAreForgotten(t *testing.T) {
	r := start(t)
	before := r.loginTokens()["id_token"].(string)
	if err := r.RotateKey(); err != nil {
		t.Fatal(err)
	}
	after := r.loginTokens()["id_token"].(string)
	verify := func(raw string) error {
		provider, err := oidc.NewProvider(t.Context(), r.cfg.Issuer)
		if err != nil {
			t.Fatal(err)
		}
		_, err = provider.Verifier(&oidc.Config{ClientID: "shop"}).Verify(t.Context(), raw)
		return err
	}
	if a, b := verify(before), verify(after); a != nil || b != nil {
		t.Errorf("after the rotation: old key %v, new key %v; want both good", a, b)
	}
	r.ForgetOldKeys()
	if a, b := verify(before), verify(after); a == nil || b != nil {
		t.Errorf("after forgetting: old key %v, new key %v; want only the new one good", a, b)
	}
}

func TestItIsForLoopbackOnly(t *testing.T) {
	clients := []Client{{ID: "a", Secret: "b"}}
	for _, issuer := range []string{"https://login.example.com", "http://192.168.1.1:80", "http://127.0.0.1.example.com", "localhost", "http://localhost/"} {
		if _, err := New(Config{Issuer: issuer, Clients: clients, Key: testKey()}); err == nil {
			t.Errorf("New with issuer %q: no error, want one", issuer)
		}
	}
	for _, issuer := range []string{"http://localhost:1", "https://[::1]:1/realm", "http://login.localhost"} {
		if _, err := New(Config{Issuer: issuer, Clients: clients, Key: testKey()}); err != nil {
			t.Errorf("New with issuer %q: %v", issuer, err)
		}
	}
}

func TestAnIssuerWithAPathServesBelowIt(t *testing.T) {
	r := start(t, func(c *Config) { c.Issuer += "/realms/demo" })
	if _, err := oidc.NewProvider(t.Context(), r.cfg.Issuer); err != nil {
		t.Error(err)
	}
	if status, answer := r.redeem(r.signIn().Get("code")); status != 200 {
		t.Errorf("redeem: status = %d %v, want 200", status, answer)
	}
}
