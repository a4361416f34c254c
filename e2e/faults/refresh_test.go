package faults

import (
	"cmp"
	"net/http"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

const (
	valid       = "200 token valid"
	unavailable = "503 refresh_unavailable"
	rejected    = "401 session_ended refresh_rejected"
)

func TestRefresh(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault devprovider.Fault
		at    devprovider.Endpoint // default Refresh
		wrong func(testing.TB, *gatewaytest.World)
		right func(testing.TB, *gatewaytest.World) // undoes wrong

		during, after string // what a call of the API gives while it lasts, and when it is over
		resent        int    // how often a refresh token was sent that may have been spent, and announced
		reuses        int    // how often it had been
	}{
		// The provider can't be asked.
		{name: "a provider that refuses connections ends nothing",
			wrong: func(_ testing.TB, w *gatewaytest.World) { w.Down() }, right: func(t testing.TB, w *gatewaytest.World) { w.Up(t) },
			during: unavailable, after: valid},
		{name: "a connection cut before the provider acted ends nothing",
			fault: devprovider.Fault{Cut: true}, during: unavailable, after: valid, resent: 1},
		{name: "a provider that is too slow ends nothing",
			fault: devprovider.Fault{Delay: 3 * time.Second}, during: unavailable, after: valid, resent: 1},

		// It answers that it can't.
		{name: "429 with Retry-After ends nothing",
			fault: devprovider.Fault{Status: 429, RetryAfter: "1"}, during: unavailable, after: valid},
		{name: "503 with an error page ends nothing",
			fault: devprovider.Fault{Status: 503, Body: "<h1>maintenance</h1>"}, during: unavailable, after: valid},
		{name: "500 ends nothing",
			fault: devprovider.Fault{Status: 500, Body: "oops"}, during: unavailable, after: valid, resent: 1},
		{name: "502 of a proxy ends nothing",
			fault: devprovider.Fault{Status: 502, Body: "<h1>bad gateway</h1>"}, during: unavailable, after: valid, resent: 1},
		{name: "server_error ends nothing",
			fault: devprovider.Fault{Error: "server_error"}, during: unavailable, after: valid},
		{name: "temporarily_unavailable ends nothing",
			fault: devprovider.Fault{Error: "temporarily_unavailable"}, during: unavailable, after: valid},
		{name: "403 of a firewall ends nothing",
			fault: devprovider.Fault{Status: 403, Body: "<h1>blocked</h1>"}, during: unavailable, after: valid, resent: 1},
		{name: "404 ends nothing",
			fault: devprovider.Fault{Status: 404, Body: "not found"}, during: unavailable, after: valid, resent: 1},

		// The operator made a mistake, no user did.
		{name: "invalid_client ends nothing",
			fault: devprovider.Fault{Status: 401, Error: "invalid_client"}, during: unavailable, after: valid},
		{name: "unauthorized_client ends nothing",
			fault: devprovider.Fault{Error: "unauthorized_client"}, during: unavailable, after: valid},
		{name: "invalid_request ends nothing",
			fault: devprovider.Fault{Error: "invalid_request"}, during: unavailable, after: valid},
		{name: "invalid_scope ends nothing",
			fault: devprovider.Fault{Error: "invalid_scope"}, during: unavailable, after: valid},

		// What it answers is no answer.
		{name: "a login page with 200 ends nothing",
			fault: devprovider.Fault{Status: 200, Body: "<h1>captive portal</h1>"}, during: unavailable, after: valid, resent: 1},
		{name: "JSON without an access token ends nothing",
			fault:  devprovider.Fault{Status: 200, ContentType: "application/json", Body: `{"token_type":"Bearer"}`},
			during: unavailable, after: valid, resent: 1},
		{name: "a redirect is not followed and ends nothing",
			fault: devprovider.Fault{Status: 307, Location: "/token"}, during: unavailable, after: valid, resent: 1},
		{name: "an answer without end ends nothing",
			fault: devprovider.Fault{Huge: 64 << 20}, during: unavailable, after: valid, resent: 1},
		{name: "invalid_grant with 500 ends nothing",
			fault: devprovider.Fault{Status: 500, Error: "invalid_grant"}, during: unavailable, after: valid, resent: 1},
		{name: "invalid_grant with 503 ends nothing",
			fault: devprovider.Fault{Status: 503, Error: "invalid_grant"}, during: unavailable, after: valid},

		// It answers, and something is missing or odd.
		{name: "an answer without a refresh token keeps the old one",
			fault:  devprovider.Fault{NoRotation: true, Edit: devprovider.Without("refresh_token")},
			during: valid, after: valid},
		{name: "an answer without an ID token is one",
			fault: devprovider.Fault{Edit: devprovider.Without("id_token")}, during: valid, after: valid},
		{name: "an ID token without nonce is one",
			fault: devprovider.Fault{Claims: devprovider.Without("nonce")}, during: valid, after: valid},
		{name: "expires_in in quotes is understood",
			fault: devprovider.Fault{Edit: devprovider.With("expires_in", "1")}, during: valid, after: valid},
		{name: "a token type in small letters is understood",
			fault: devprovider.Fault{Edit: devprovider.With("token_type", "bearer")}, during: valid, after: valid},
		{name: "keys that can't be had keep the old ID token",
			fault: devprovider.Fault{Cut: true}, at: devprovider.JWKS,
			wrong:  func(t testing.TB, w *gatewaytest.World) { rotateKey(t, w) },
			during: valid, after: valid},
		{name: "an ID token with a bad signature keeps the old one",
			fault: devprovider.Fault{BadSignature: true}, during: valid, after: valid},
		{name: "an ID token that has expired keeps the old one",
			fault:  devprovider.Fault{Claims: devprovider.With("exp", time.Now().Add(-time.Hour).Unix())},
			during: valid, after: valid},
		{name: "a changed signing key is fetched",
			wrong:  func(t testing.TB, w *gatewaytest.World) { rotateKey(t, w); w.Provider.ForgetOldKeys() },
			during: valid, after: valid},

		// The answer was lost: the refresh token is spent and nobody knows the new one.
		{name: "an answer cut off after the provider rotated ends the session, announced",
			fault:  devprovider.Fault{After: true, Cut: true, Times: 1},
			during: unavailable, after: rejected, resent: 1, reuses: 1},
		{name: "an answer cut off in its middle ends the session, announced",
			fault:  devprovider.Fault{Half: true, Times: 1},
			during: unavailable, after: rejected, resent: 1, reuses: 1},
		{name: "an answer that comes too late ends the session, announced",
			fault:  devprovider.Fault{After: true, Delay: 3 * time.Second, Times: 1},
			during: unavailable, after: rejected, resent: 1, reuses: 1},

		// It says no, or means somebody else.
		{name: "invalid_grant with 400 ends the session",
			fault: devprovider.Fault{Error: "invalid_grant"}, during: rejected, after: rejected},
		{name: "invalid_grant with 401 ends the session",
			fault: devprovider.Fault{Status: 401, Error: "invalid_grant"}, during: rejected, after: rejected},
		{name: "a grant that an administrator revoked ends the session",
			wrong:  func(_ testing.TB, w *gatewaytest.World) { w.Provider.RevokeUser("ada") },
			during: rejected, after: rejected},
		{name: "an ID token for somebody else ends the session",
			fault: devprovider.Fault{Claims: devprovider.With("sub", "mallory")}, during: rejected, after: rejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, map[string]any{"timeout": "1s"})
			ada := w.NewBrowser()
			if _, err := ada.Login("ada"); err != nil {
				t.Fatal(err)
			}
			wantCall(t, ada, valid)
			if tt.wrong != nil {
				tt.wrong(t, w)
			}
			if tt.wrong == nil || tt.at != "" {
				w.Provider.Fail(tt.fault, cmp.Or(tt.at, devprovider.Refresh))
			}
			time.Sleep(tokenTTL + 100*time.Millisecond)
			cookie := ada.Session()
			answer := wantCall(t, ada, tt.during)
			if answer.Status == http.StatusServiceUnavailable && answer.Header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			if answer.Status != http.StatusOK && answer.Header.Values("Set-Cookie") != nil {
				t.Error("an error sets cookies")
			}

			w.Provider.Heal()
			if tt.right != nil {
				tt.right(t, w)
			}
			// Within the pause that an outage gives, the answer may still be the same.
			for end := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
				answer, err := ada.Call()
				if err != nil {
					t.Fatal(err)
				}
				if answer.String() == tt.after {
					break
				}
				if answer.String() != unavailable || time.Now().After(end) {
					t.Fatalf("after the fault: %s, want %s", answer, tt.after)
				}
			}
			if tt.after == valid {
				time.Sleep(tokenTTL + 100*time.Millisecond)
				wantCall(t, ada, valid) // and again, with the next refresh token
			}
			if ada.Session() != cookie {
				t.Error("the session cookie changed")
			}
			if got := w.Gateway.Events("refresh_ambiguous"); got != tt.resent {
				t.Errorf("%d refreshes were announced as ambiguous, want %d", got, tt.resent)
			}
			if got := len(w.Provider.Stats().Reuses); got != tt.reuses {
				t.Errorf("the provider saw %d reuses, want %d", got, tt.reuses)
			}
		})
	}
}

// While a token is valid nobody notices that the provider is away.
func TestAValidTokenOutlivesTheProvider(t *testing.T) {
	t.Parallel()
	w := start(t, map[string]any{"timeout": "1s"})
	ada := w.NewBrowser()
	if _, err := ada.Login("ada"); err != nil {
		t.Fatal(err)
	}
	w.Down()
	begun := time.Now()
	for time.Since(begun) < tokenTTL/2 {
		answer, err := ada.Call()
		// The API asks the provider's memory, not its network.
		if err != nil || answer.String() != valid {
			t.Fatalf("after %v: %v, %v", time.Since(begun), answer, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.Up(t)
}

func rotateKey(t testing.TB, w *gatewaytest.World) {
	t.Helper()
	if err := w.Provider.RotateKey(); err != nil {
		t.Fatal(err)
	}
}

func wantCall(t *testing.T, b *gatewaytest.Browser, want string) *gatewaytest.Answer {
	t.Helper()
	answer, err := b.Call()
	if err != nil {
		t.Fatal(err)
	}
	if answer.String() != want {
		t.Fatalf("API: %s, want %s", answer, want)
	}
	return answer
}
