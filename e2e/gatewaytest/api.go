package gatewaytest

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"sessiongate/internal/devprovider"
)

// api is the app's API behind the gateway. It takes the provider's access tokens
// and is as helpful as RFC 6750, section 3.1 wants an API to be.
type api struct {
	provider *devprovider.Provider

	mu     sync.Mutex        // guards the rest
	minted map[string]access // by token
	read   int               // so many of the provider's tokens are in minted
	grants map[string]int    // how many of those in minted are of a grant
	used   map[string]int    // the latest of a grant's that came
}

func newAPI(p *devprovider.Provider) *api {
	return &api{provider: p, minted: map[string]access{}, grants: map[string]int{}, used: map[string]int{}}
}

// access is an access token of the provider's.
type access struct {
	expiry     time.Time
	grant      string
	generation int // 0 at the login, and one more at each refresh
}

// Used tells the latest generation of a grant's access tokens that the API was sent:
// 0 for that of the login, and one more at each refresh.
func (w *World) Used(grant string) int {
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	return w.api.used[grant]
}

// Grant is the header by which the API tells which grant a request's token was of.
const Grant = "X-Grant"

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	grant, good := a.takes(token)
	if !good {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, "token invalid", http.StatusUnauthorized)
		return
	}
	w.Header().Set(Grant, grant)
	io.WriteString(w, "token valid")
}

// leeway is what APIs commonly allow for clocks. A token's iat and exp are whole
// seconds: without it one that is to live for a second may be dead when it is
// minted, late in a second.
const leeway = time.Second

// takes tells whether the provider minted a token that is still good, and for which
// grant.
func (a *api) takes(token string) (grant string, good bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, known := a.minted[token]
	if !known {
		a.learn()
		t, known = a.minted[token]
	}
	a.used[t.grant] = max(a.used[t.grant], t.generation)
	return t.grant, known && time.Now().Before(t.expiry.Add(leeway))
}

// learn asks the provider for what it minted so far. The caller holds mu.
func (a *api) learn() {
	tokens := a.provider.Tokens()
	for _, t := range tokens[a.read:] {
		if t.Kind == "access" {
			a.minted[t.Value] = access{expiry(t.Value), t.Family, a.grants[t.Family]}
			a.grants[t.Family]++
		}
	}
	a.read = len(tokens)
}

// expiry reads exp of a JWT (RFC 7519, section 4.1.4).
func expiry(jwt string) time.Time {
	_, rest, _ := strings.Cut(jwt, ".")
	payload, _, _ := strings.Cut(rest, ".")
	var claims struct{ Exp int64 }
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		panic("access token of the provider: " + err.Error())
	}
	return time.Unix(claims.Exp, 0)
}
