package faults

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

// The pages that a login can end with.
const (
	failed  = http.StatusBadGateway         // login_failed: what the provider said makes no sense
	refused = http.StatusBadRequest         // login_refused: not the answer to this browser's login, or one too late
	denied  = http.StatusForbidden          // login_denied: the user or the provider said no
	down    = http.StatusServiceUnavailable // provider_unavailable
)

func TestLogin(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault devprovider.Fault
		at    devprovider.Endpoint
		want  int // status of the page that the callback shows
	}{
		// At the token endpoint.
		{"a token endpoint that is down", devprovider.Fault{Cut: true}, devprovider.Code, down},
		{"a token endpoint that is slow", devprovider.Fault{Delay: 3 * time.Second}, devprovider.Code, down},
		{"a token endpoint that answers 500", devprovider.Fault{Status: 500, Body: "oops"}, devprovider.Code, down},
		{"a token endpoint that answers 429", devprovider.Fault{Status: 429, RetryAfter: "1"}, devprovider.Code, down},
		{"a code that the provider refuses", devprovider.Fault{Error: "invalid_grant"}, devprovider.Code, refused},
		{"a client that the provider refuses", devprovider.Fault{Status: 401, Error: "invalid_client"}, devprovider.Code, failed},
		{"a token endpoint that answers HTML", devprovider.Fault{Status: 200, Body: "<h1>hello</h1>"}, devprovider.Code, failed},
		{"an answer without an access token", devprovider.Fault{Edit: devprovider.Without("access_token")}, devprovider.Code, failed},
		{"an answer without an ID token", devprovider.Fault{Edit: devprovider.Without("id_token")}, devprovider.Code, failed},
		{"a token of another type", devprovider.Fault{Edit: devprovider.With("token_type", "DPoP")}, devprovider.Code, failed},

		// ID tokens that are no good.
		{"an ID token with a bad signature", devprovider.Fault{BadSignature: true}, devprovider.Code, failed},
		{"an ID token without signature", devprovider.Fault{Alg: "none"}, devprovider.Code, failed},
		{"an ID token signed with the public key as secret", devprovider.Fault{Alg: "HS256"}, devprovider.Code, failed},
		{"an ID token of another issuer", devprovider.Fault{Claims: devprovider.With("iss", "https://other.example.com")}, devprovider.Code, failed},
		{"an ID token for another client", devprovider.Fault{Claims: devprovider.With("aud", "other")}, devprovider.Code, failed},
		{"an ID token for two, the other one authorized",
			devprovider.Fault{Claims: func(c map[string]any) { c["aud"], c["azp"] = []string{"spa", "other"}, "other" }}, devprovider.Code, failed},
		{"an ID token that has expired", devprovider.Fault{Claims: devprovider.With("exp", time.Now().Add(-time.Hour).Unix())}, devprovider.Code, failed},
		{"an ID token from the future", devprovider.Fault{Claims: devprovider.With("iat", time.Now().Add(time.Hour).Unix())}, devprovider.Code, failed},
		{"an ID token without expiry", devprovider.Fault{Claims: devprovider.Without("exp")}, devprovider.Code, failed},
		{"an ID token with another nonce", devprovider.Fault{Claims: devprovider.With("nonce", "another")}, devprovider.Code, failed},
		{"an ID token without the nonce", devprovider.Fault{Claims: devprovider.Without("nonce")}, devprovider.Code, failed},
		{"an ID token without a subject", devprovider.Fault{Claims: devprovider.Without("sub")}, devprovider.Code, failed},
		{"keys that can't be had", devprovider.Fault{Status: 500, Body: "oops"}, devprovider.JWKS, down},

		// At the callback.
		{"a state of nobody", devprovider.Fault{Edit: devprovider.With("state", "unknown")}, devprovider.Callback, refused},
		{"no state", devprovider.Fault{Edit: devprovider.Without("state")}, devprovider.Callback, refused},
		{"a code from another issuer", devprovider.Fault{Edit: devprovider.With("iss", "https://other.example.com")}, devprovider.Callback, refused},
		{"no issuer, though the provider always sends it", devprovider.Fault{Edit: devprovider.Without("iss")}, devprovider.Callback, refused},
		{"no code and no error", devprovider.Fault{Edit: devprovider.Without("code")}, devprovider.Callback, refused},
		{"a code that is none", devprovider.Fault{Edit: devprovider.With("code", "made-up")}, devprovider.Callback, refused},
		{"access_denied", devprovider.Fault{Error: "access_denied"}, devprovider.Callback, denied},
		{"temporarily_unavailable", devprovider.Fault{Error: "temporarily_unavailable"}, devprovider.Callback, down},
		{"invalid_request", devprovider.Fault{Error: "invalid_request"}, devprovider.Callback, refused},
	} {
		t.Run(tt.name+" makes no session", func(t *testing.T) {
			t.Parallel()
			w := start(t, map[string]any{"timeout": "1s"})
			ada := w.NewBrowser()
			if tt.at == devprovider.JWKS {
				rotateKey(t, w) // those that the gateway has are of no use
			}
			w.Provider.Fail(tt.fault, tt.at)
			answer, err := ada.Login("ada")
			if !errors.Is(err, gatewaytest.ErrNotLoggedIn) {
				t.Fatalf("login: %v, %v", answer, err)
			}
			if answer.Status != tt.want {
				t.Errorf("callback: %d, want %d\n%s", answer.Status, tt.want, answer.Body)
			}
			wantPage(t, answer)
			if ada.Session() != "" {
				t.Error("a session cookie was set")
			}
			if answer, err := ada.Call(); err != nil || answer.String() != "401 session_required" {
				t.Errorf("API: %v, %v, want 401 session_required", answer, err)
			}
			w.Provider.Heal()
			eventuallyLogIn(t, ada)
		})
	}
}

func TestDiscovery(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault devprovider.Fault
	}{
		{"a provider that is down", devprovider.Fault{Cut: true}},
		{"a provider that is slow", devprovider.Fault{Delay: 3 * time.Second}},
		{"metadata that is HTML", devprovider.Fault{Status: 200, Body: "<h1>hello</h1>"}},
		{"metadata of another issuer", devprovider.Fault{Edit: devprovider.With("issuer", "https://other.example.com")}},
		{"metadata without a token endpoint", devprovider.Fault{Edit: devprovider.Without("token_endpoint")}},
		{"metadata without end", devprovider.Fault{Huge: 64 << 20}},
	} {
		t.Run(tt.name+" lets the gateway start, and logins wait for better times", func(t *testing.T) {
			t.Parallel()
			w := gatewaytest.NewWorld(t, binary, gatewaytest.Options{
				Users: []devprovider.User{{Sub: "ada", Email: "ada@example.com"}},
				OIDC:  map[string]any{"timeout": "1s"},
			})
			w.Provider.Fail(tt.fault, devprovider.Discovery)
			w.Gateway.Start()
			ada := w.NewBrowser()
			answer, err := ada.Navigate("/bff/login")
			if err != nil {
				t.Fatal(err)
			}
			if answer.Status != down || answer.Header.Get("Retry-After") == "" {
				t.Errorf("login: %s, want 503 with Retry-After", answer)
			}
			wantPage(t, answer)
			w.Provider.Heal()
			eventuallyLogIn(t, ada)
		})
	}
}

func TestLogout(t *testing.T) {
	for _, tt := range []struct {
		name     string
		fault    devprovider.Fault
		at       devprovider.Endpoint
		redirect string
	}{
		{"a revocation endpoint that is down", devprovider.Fault{Cut: true}, devprovider.Revocation, "/logout?"},
		{"a revocation endpoint that is slow", devprovider.Fault{Delay: 30 * time.Second}, devprovider.Revocation, "/logout?"},
		{"a revocation endpoint that answers 503", devprovider.Fault{Status: 503, Body: "later"}, devprovider.Revocation, "/logout?"},
		{"a provider without logout", devprovider.Fault{Edit: devprovider.Without("end_session_endpoint")}, devprovider.Discovery, "/"},
		{"a provider without revocation", devprovider.Fault{Edit: devprovider.Without("revocation_endpoint")}, devprovider.Discovery, "/logout?"},
	} {
		t.Run(tt.name+" does not keep anybody logged in", func(t *testing.T) {
			t.Parallel()
			w := gatewaytest.NewWorld(t, binary, gatewaytest.Options{
				Users: []devprovider.User{{Sub: "ada", Email: "ada@example.com"}},
				OIDC:  map[string]any{"timeout": "2s"},
			})
			w.Provider.Fail(tt.fault, tt.at)
			w.Gateway.Start()
			ada := w.NewBrowser()
			if _, err := ada.Login("ada"); err != nil {
				t.Fatal(err)
			}
			session := ada.Session()
			begun := time.Now()
			if err := ada.Logout(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 6*time.Second {
				t.Errorf("the logout took %v", took)
			}
			if answer, err := ada.Steal(w, session).Call(); err != nil || answer.String() != "401 session_ended logout" {
				t.Errorf("the old cookie: %v, %v, want 401 session_ended logout", answer, err)
			}
			answer, err := ada.Navigate("/bff/logout/continue")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimPrefix(answer.Header.Get("Location"), w.Issuer); !strings.HasPrefix(got, tt.redirect) {
				t.Errorf("logout goes on to %q, want %q", got, tt.redirect)
			}
		})
	}
}

// wantPage checks that an answer is a page for people.
func wantPage(t *testing.T, answer *gatewaytest.Answer) {
	t.Helper()
	if got := answer.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
		t.Errorf("Content-Type = %q, want a page", got)
	}
	if !strings.Contains(answer.Body, `href="/bff/login`) {
		t.Errorf("the page has no way to start again:\n%s", answer.Body)
	}
}

// eventuallyLogIn logs in as soon as the gateway has noticed that the provider is
// well.
func eventuallyLogIn(t *testing.T, b *gatewaytest.Browser) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		_, err := b.Login("ada")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("login after the fault: %v", err)
		}
	}
	wantCall(t, b, valid)
}
