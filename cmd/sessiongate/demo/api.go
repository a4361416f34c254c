package demo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"sessiongate/internal/devprovider"
)

// api is an ordinary resource server: it believes nobody but the provider's
// signature and knows nothing of the gateway.
type api struct {
	verifier *oidc.IDTokenVerifier
	provider *devprovider.Provider

	mu     sync.Mutex         // guards orders
	orders map[string][]order // by sub, newest first
}

type order struct {
	ID     string `json:"id"`
	Item   string `json:"item"`
	Status string `json:"status"`
}

func newAPI(ctx context.Context, issuer string, provider *devprovider.Provider) http.Handler {
	a := &api{
		verifier: oidc.NewVerifier(issuer, oidc.NewRemoteKeySet(ctx, issuer+"/jwks"), &oidc.Config{ClientID: audience}),
		provider: provider,
		orders:   map[string][]order{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/echo", a.authorized(a.echo))
	mux.HandleFunc("GET /api/orders", a.authorized(a.list))
	mux.HandleFunc("POST /api/orders", a.authorized(a.add))
	mux.HandleFunc("GET /api/feed", a.authorized(a.feed))
	mux.HandleFunc("POST /api/faults/outage", a.authorized(a.outage))
	mux.HandleFunc("POST /api/faults/revoke", a.authorized(a.revoke))
	return mux
}

// bearer is a token that was verified, taken apart. The token itself is not kept.
type bearer struct {
	Header json.RawMessage `json:"header"`
	Claims json.RawMessage `json:"claims"`
	sub    string
}

func (a *api) authorized(serve func(http.ResponseWriter, *http.Request, bearer)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			reply(w, http.StatusUnauthorized, map[string]any{"error": "no token"})
			return
		}
		b, err := a.verify(r.Context(), token)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			reply(w, http.StatusUnauthorized, map[string]any{"error": "invalid token"})
			return
		}
		serve(w, r, b)
	}
}

// verify checks signature, issuer, audience, expiry and, as RFC 9068, 4 asks, that
// the token is meant to be an access token.
func (a *api) verify(ctx context.Context, token string) (bearer, error) {
	verified, err := a.verifier.Verify(ctx, token)
	if err != nil {
		return bearer{}, err
	}
	var b bearer
	parts := strings.Split(token, ".")
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return bearer{}, err
	}
	var typ struct {
		Typ string `json:"typ"`
	}
	if err := json.Unmarshal(header, &typ); err != nil || typ.Typ != "at+jwt" {
		return bearer{}, errors.New("not an access token")
	}
	b.Header, b.sub = header, verified.Subject
	return b, verified.Claims(&b.Claims)
}

// echo answers with the request as it arrived, but for the one thing that must
// not come out again: of the token only what it says, not its signature.
func (a *api) echo(w http.ResponseWriter, r *http.Request, b bearer) {
	headers := r.Header.Clone()
	headers.Set("Authorization", "Bearer (decoded)")
	headers["Host"] = []string{r.Host}
	reply(w, http.StatusOK, map[string]any{
		"method":      r.Method,
		"path":        r.URL.RequestURI(),
		"headers":     headers,
		"token":       b,
		"received_at": time.Now().UTC().Format(time.RFC3339Nano),
	})
}

func (a *api) list(w http.ResponseWriter, _ *http.Request, b bearer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"orders": a.of(b.sub)})
}

const maxOrders = 6

func (a *api) add(w http.ResponseWriter, r *http.Request, b bearer) {
	var wanted struct {
		Item string `json:"item"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&wanted)
	wanted.Item = strings.TrimSpace(wanted.Item)
	if err != nil || wanted.Item == "" || len(wanted.Item) > 200 {
		reply(w, http.StatusBadRequest, map[string]any{"error": "an order needs an item"})
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	former := a.of(b.sub)
	placed := order{ID: fmt.Sprintf("A-%d", time.Now().UnixMilli()%1e6), Item: wanted.Item, Status: "new"}
	all := slices.Insert(slices.Clone(former), 0, placed)
	a.orders[b.sub] = all[:min(len(all), maxOrders)]
	reply(w, http.StatusCreated, placed)
}

// of returns a user's orders, everybody's first ones being the same.
func (a *api) of(sub string) []order {
	if a.orders[sub] == nil {
		a.orders[sub] = []order{
			{"A-1003", "Analytical engine, pocket size", "packed"},
			{"A-1002", "Punch cards, 500", "shipped"},
			{"A-1001", "Brass polish", "delivered"},
		}
	}
	return a.orders[sub]
}

const outageLasts = 45 * time.Second

// outage makes the provider's token endpoint fail for a while.
func (a *api) outage(w http.ResponseWriter, _ *http.Request, _ bearer) {
	a.provider.Heal(devprovider.Token)
	a.provider.Fail(devprovider.Fault{Status: http.StatusServiceUnavailable, RetryAfter: "2"}, devprovider.Token)
	time.AfterFunc(outageLasts, func() { a.provider.Heal(devprovider.Token) })
	reply(w, http.StatusOK, map[string]any{
		"says":    "It is down. Go on working; watch what happens at expiry.",
		"usually": "for 45 seconds: calls wait, the session stays",
	})
}

// revoke takes the user's grants back, as an administrator of the provider would.
func (a *api) revoke(w http.ResponseWriter, _ *http.Request, b bearer) {
	a.provider.RevokeUser(b.sub)
	reply(w, http.StatusOK, map[string]any{
		"says":    "Revoked. This token is good until it expires; the next refresh is refused.",
		"usually": "the next refresh ends the session",
	})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // the reader may have left
}
