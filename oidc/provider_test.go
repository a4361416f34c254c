package oidc_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	clientID     = "shop"
	clientSecret = "canary-secret %&+"
	subject      = "248289761001"
)

// Keys are slow to make; all tests share them.
var (
	rsaKey    = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })
	otherKey  = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })
	weakKey   = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(1024) })
	ecKey     = sync.OnceValue(newEC)
	clientKey = sync.OnceValue(newEC)
)

func newRSA(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

func newEC() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// call is a request the provider got.
type call struct {
	path   string
	form   url.Values
	header http.Header
}

// provider is a small OpenID provider that does what a test tells it to. Its
// fields are set under mu, with tell.
type provider struct {
	*httptest.Server
	t *testing.T

	mu    sync.Mutex
	calls []call
	codes map[string]url.Values // code -> the authorization request it answers
	keys  map[string]crypto.Signer
	kid   string // of the key that signs

	// What a test may script. metadata, claims, header and answer change what is
	// about to be sent; token and others take an endpoint over.
	metadata func(map[string]any)
	header   func(map[string]any)
	claims   func(map[string]any)
	sign     func(header, claims map[string]any) string
	answer   func(map[string]any)
	handle   map[string]http.HandlerFunc
	userInfo map[string]any
}

func newProvider(t *testing.T) *provider {
	p := &provider{
		t: t, codes: map[string]url.Values{}, handle: map[string]http.HandlerFunc{},
		keys: map[string]crypto.Signer{"k1": rsaKey()}, kid: "k1",
		userInfo: map[string]any{"sub": subject, "picture": "https://img.example/ada", "secret_claim": "canary-claim"},
	}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

// tell changes the provider's script.
func (p *provider) tell(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// take replaces an endpoint.
func (p *provider) take(path string, h http.HandlerFunc) { p.tell(func() { p.handle[path] = h }) }

// seen returns the requests to a path.
func (p *provider) seen(path string) []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	var seen []call
	for _, c := range p.calls {
		if c.path == path {
			seen = append(seen, c)
		}
	}
	return seen
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	p.mu.Lock()
	p.calls = append(p.calls, call{r.URL.Path, r.PostForm, r.Header.Clone()})
	h := p.handle[r.URL.Path]
	p.mu.Unlock()
	if h != nil {
		h(w, r)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		reply(w, 200, p.document())
	case "/keys":
		reply(w, 200, p.jwks())
	case "/token":
		p.serveToken(w, r)
	case "/userinfo":
		reply(w, 200, p.userInfo)
	case "/revoke":
		w.WriteHeader(200)
	default:
		http.NotFound(w, r)
	}
}

func (p *provider) document() map[string]any {
	md := map[string]any{
		"issuer":                                p.URL,
		"authorization_endpoint":                p.URL + "/authorize",
		"token_endpoint":                        p.URL + "/token",
		"jwks_uri":                              p.URL + "/keys",
		"userinfo_endpoint":                     p.URL + "/userinfo",
		"end_session_endpoint":                  p.URL + "/end?tenant=a",
		"revocation_endpoint":                   p.URL + "/revoke",
		"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "none", "HS256"},
	}
	if p.metadata != nil {
		p.metadata(md)
	}
	return md
}

func (p *provider) jwks() map[string]any {
	var keys []any
	for _, kid := range slices.Sorted(maps.Keys(p.keys)) {
		keys = append(keys, jose.JSONWebKey{Key: p.keys[kid].Public(), KeyID: kid, Use: "sig"})
	}
	// Keys of kinds that nobody here knows are passed over.
	keys = append(keys, map[string]any{"kty": "NEW", "kid": "x"}, map[string]any{"kty": "oct", "k": "c2VjcmV0", "kid": "k1"})
	return map[string]any{"keys": keys}
}

func (p *provider) serveToken(w http.ResponseWriter, r *http.Request) {
	nonce := ""
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		asked, ok := p.codes[r.PostForm.Get("code")]
		delete(p.codes, r.PostForm.Get("code"))
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != asked.Get("code_challenge") || r.PostForm.Get("redirect_uri") != asked.Get("redirect_uri") {
			reply(w, 400, map[string]any{"error": "invalid_grant"})
			return
		}
		nonce = asked.Get("nonce")
	case "refresh_token":
	default:
		reply(w, 400, map[string]any{"error": "unsupported_grant_type"})
		return
	}
	body := map[string]any{
		"access_token": "canary-at-" + rand.Text(), "refresh_token": "canary-rt-" + rand.Text(),
		"token_type": "Bearer", "expires_in": 300, "id_token": p.idToken(nonce),
	}
	if p.answer != nil {
		p.answer(body)
	}
	reply(w, 200, body)
}

// idToken makes an ID token as the script says. The caller holds mu.
func (p *provider) idToken(nonce string) string {
	now := time.Now().Unix()
	header := map[string]any{"alg": "RS256", "kid": p.kid, "typ": "JWT"}
	claims := map[string]any{
		"iss": p.URL, "sub": subject, "aud": clientID, "exp": now + 300, "iat": now, "sid": "op-session",
		"name": "Ada", "email": "ada@example.com", "email_verified": true, "roles": []string{"admin", "user"}, "secret_claim": "canary-claim",
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if p.header != nil {
		p.header(header)
	}
	if p.claims != nil {
		p.claims(claims)
	}
	if p.sign != nil {
		return p.sign(header, claims)
	}
	return signRSA(p.keys[p.kid].(*rsa.PrivateKey), header, claims)
}

// freshIDToken makes an ID token outside of any login.
func (p *provider) freshIDToken(claims func(map[string]any)) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims = claims
	defer func() { p.claims = nil }()
	return p.idToken("")
}

// logoutToken makes a logout token for the session of all its ID tokens, but for
// what change makes of it.
func (p *provider) logoutToken(change ...func(header, claims map[string]any)) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now().Unix()
	header := map[string]any{"alg": "RS256", "kid": p.kid, "typ": "logout+jwt"}
	claims := map[string]any{
		"iss": p.URL, "aud": clientID, "iat": now, "exp": now + 120, "jti": rand.Text(), "sid": "op-session", "sub": subject,
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	for _, f := range change {
		f(header, claims)
	}
	if p.sign != nil {
		return p.sign(header, claims)
	}
	return signRSA(p.keys[p.kid].(*rsa.PrivateKey), header, claims)
}

// signed signs claims as they stand.
func (p *provider) signed(claims string) string {
	header, _ := json.Marshal(map[string]any{"alg": "RS256", "kid": "k1"})
	input := b64(string(header)) + "." + b64(claims)
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(nil, rsaKey(), crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return input + "." + b64(string(sig))
}

func signingInput(header, claims map[string]any) string {
	h, _ := json.Marshal(header)
	c, _ := json.Marshal(claims)
	return base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
}

func signRSA(key *rsa.PrivateKey, header, claims map[string]any) string {
	input := signingInput(header, claims)
	sum := sha256.Sum256([]byte(input))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func signEC(key *ecdsa.PrivateKey, header, claims map[string]any) string {
	input := signingInput(header, claims)
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		panic(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// authorize answers an authorization request as after the user's consent: with
// the parameters of the callback.
func (p *provider) authorize(location string) url.Values {
	p.t.Helper()
	u, err := url.Parse(location)
	if err != nil || u.Path != "/authorize" {
		p.t.Fatalf("login went to %q, want the authorization endpoint", location)
	}
	code := "canary-code-" + rand.Text()
	p.tell(func() { p.codes[code] = u.Query() })
	return url.Values{"code": {code}, "state": {u.Query().Get("state")}, "iss": {p.URL}}
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		fmt.Println(err)
	}
}
